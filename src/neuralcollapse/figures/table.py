"""Table 1: what training beyond zero training error brings, for every network, data set and loss."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuralcollapse._files import replace_file
from neuralcollapse.figures.studyview import Cell, Study, loss_title, network_title
from neuralcollapse.figures.tabletext import LATEX_HEAD, Entry, Table, latex, markdown


@dataclass(frozen=True)
class Measure:
    """A number that is to improve after zero training error.

    Args:
        key: its key in the history.
        title: what the table says.
        scale: what the table multiplies it by.
        digits: decimals in the table.
        paper: the median and mean of the improvement that the paper reports for MSE, on the table's scale.
    """

    key: str
    title: str
    scale: float
    digits: int
    paper: tuple[float, float]


MEASURES = (
    Measure("test_accuracy", "test accuracy (%)", 100.0, 2, (0.962, 1.833)),
    Measure("robustness", "adversarial robustness, mean of ‖r(x)‖/‖x‖", 1.0, 4, (0.1762, 0.9278)),
)
"""The paper's medians and means: MATHEMATICS, section 8."""


@dataclass(frozen=True)
class Outcome:
    """One measure of one run at the first epoch without a training error, and at the last analysed one.

    Args:
        first: its value at the first epoch without a training error, or None.
        last: its value at the last analysed epoch, or None.
        first_epoch: the first epoch without a training error, or None.
        last_epoch: the last analysed epoch.
        finished: whether that is the last epoch of the training.
    """

    first: float | None
    last: float | None
    first_epoch: int | None
    last_epoch: int
    finished: bool

    @property
    def improvement(self) -> float | None:
        """last − first, of a finished run that reached zero training error; medians and means are over these."""
        if self.first is None or self.last is None or not self.finished:
            return None
        return self.last - self.first


def write_tables(study: Study, folder: Path) -> list[Path]:
    """Write `table1.md`, `table1.tex` and `table1.csv`, each whole or not at all.

    Markdown and LaTeX show the lowest seed of each cell, as the figures do; CSV has a line for every run and for every
    cell that was not run.
    """
    tables = [
        make_table(study, measure) for measure in MEASURES if measure.key == "test_accuracy" or _has(study, measure)
    ]
    contents = {
        "table1.md": "\n".join(markdown(table) for table in tables),
        "table1.tex": LATEX_HEAD + "\n".join(latex(table) for table in tables),
        "table1.csv": as_csv(study),
    }
    for name, text in contents.items():
        replace_file(folder / name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    return [folder / name for name in contents]


def outcome(cell: Cell, key: str) -> Outcome | None:
    """What a run reached; None before its first analysed epoch."""
    if cell.run is None:
        return None
    records, zero = cell.run.records, cell.run.zero_error_epoch
    at_zero = next((record for record in records if record["epoch"] == zero), {})
    finished = not cell.unfinished
    return Outcome(_number(at_zero, key), _number(records[-1], key), zero, cell.run.epochs[-1], finished)


def improvements(study: Study, loss: str, key: str) -> list[float]:
    """The improvements over the network–data set pairs of one loss that have one."""
    outcomes = [outcome(cell, key) for cell in study.of_loss(loss)]
    return [found.improvement for found in outcomes if found is not None and found.improvement is not None]


def make_table(study: Study, measure: Measure) -> Table:
    """One measure over the whole study."""
    table = Table(
        f"{measure.title[0].upper()}{measure.title[1:]} at the first epoch without a training error and at the last",
        [loss_title(loss) for loss in study.losses],
    )
    for dataset in study.datasets:
        for network in study.networks:
            cells = [study.cell(network, dataset, loss) for loss in study.losses]
            names = dict.fromkeys(cell.model_title for cell in cells if cell is not None)
            row: list[Entry] = [(dataset[1], None), (" / ".join(names) or network_title(network), None)]
            for cell in cells:
                row += _entries(table, cell, measure)
            table.rows.append(row)
    found = [improvements(study, loss, measure.key) for loss in study.losses]
    for name, function in (("median", statistics.median), ("mean", statistics.fmean)):
        line = [name, ""]
        for values in found:
            improvement = _signed(function(values), measure) if values else "–"
            line += [f"of {len(values)} {'pair' if len(values) == 1 else 'pairs'}", "", improvement]
        table.summary.append(line)
    table.remarks += _remarks(study, measure)
    return table


def as_csv(study: Study) -> str:
    """Every run with all its numbers, unrounded, accuracies as shares; a line for each cell that was not run, too."""
    lines: list[dict[str, Any]] = []
    for dataset in study.datasets:
        for network in study.networks:
            for loss in study.losses:
                cells = [run for run in study.runs if (run.network, run.dataset, run.loss) == (network, dataset, loss)]
                lines += [_line(cell) for cell in cells] or [_not_run(dataset[1], network, loss)]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


COLUMNS = (
    *("dataset", "network", "model", "loss", "seed", "status", "in_table", "departures"),
    *("num_examples", "width", "epochs", "batch_size", "learning_rate", "weight_decay"),
    *("last_epoch", "zero_error_epoch", "train_error_last", "nc1_zero_error", "nc1_last"),
    *(f"{measure.key}_{part}" for measure in MEASURES for part in ("zero_error", "last", "improvement")),
)
"""Of `table1.csv`. `in_table`: whether this is the seed that the other tables and the figures show."""


def _line(cell: Cell) -> dict[str, Any]:
    config = cell.config
    line: dict[str, Any] = {
        "dataset": cell.dataset[1],
        "network": network_title(cell.network),
        "model": config.model,
        "loss": cell.loss,
        "seed": cell.seed,
        "status": cell.status or ("finished" if not cell.unfinished else "unfinished"),
        "in_table": cell.seed == cell.seeds[0],
        "departures": "; ".join(cell.departures),
        **{
            key: getattr(config, key)
            for key in ("num_examples", "width", "epochs", "batch_size", "learning_rate", "weight_decay")
        },
    }
    for measure in MEASURES:
        found = outcome(cell, measure.key)
        if found is not None:
            parts = {"zero_error": found.first, "last": found.last, "improvement": found.improvement}
            line |= {f"{measure.key}_{part}": value for part, value in parts.items() if value is not None}
    if cell.run is not None:
        zero, last = cell.run.zero_error_epoch, cell.run.records[-1]
        at_zero = next((record for record in cell.run.records if record["epoch"] == zero), {})
        line |= {"last_epoch": cell.run.epochs[-1], "zero_error_epoch": "" if zero is None else zero}
        line |= {"train_error_last": last["train_error"], "nc1_last": last["nc1"]}
        line["nc1_zero_error"] = at_zero.get("nc1", "")
    return line


def _not_run(dataset: str, network: str, loss: str) -> dict[str, Any]:
    return {"dataset": dataset, "network": network_title(network), "loss": loss, "status": "not run"}


def _entries(table: Table, cell: Cell | None, measure: Measure) -> list[Entry]:
    """At zero error, at the end, and the improvement; what is reduced or missing is said in a note."""
    if cell is None:
        return [("–", table.note("not run")), ("–", None), ("–", None)]
    found = outcome(cell, measure.key)
    mark = table.note(_note(cell))
    if found is None:
        return [("–", mark), ("–", None), ("–", None)]
    first = _value(found.first, found.first_epoch, measure)
    last = _value(found.last, found.last_epoch, measure)
    return [
        (first, mark),
        (last, None),
        ("–" if found.improvement is None else _signed(found.improvement, measure), None),
    ]


def _note(cell: Cell) -> str:
    """In what a run differs from the paper's, and how far it came."""
    kind = "reduced" if cell.reduced or cell.other_depth else "other"
    parts = [f"{kind}: {', '.join(cell.departures)}"] if cell.departures else []
    if cell.unfinished:
        parts.append(cell.unfinished)
    if cell.run is not None and cell.run.zero_error_epoch is None:
        last = cell.run.records[-1]
        error = 100 * float(last["train_error"])
        parts.append(f"no epoch without a training error: {error:.3g} % at epoch {last['epoch']}")
    if len(cell.seeds) > 1:
        parts.append(f"seed {cell.seed} of {len(cell.seeds)} seeds; table1.csv has all")
    return "; ".join(parts)


def _remarks(study: Study, measure: Measure) -> Iterable[str]:
    median, mean = (f"{value:+g}" for value in measure.paper)
    yield "In brackets the epoch. Improvements are those of finished runs that reached zero training error."
    yield f"The paper's improvements, for MSE: {median} in the median and {mean} in the mean over its 15 pairs."
    if any(cell.departures for cell in study.runs):
        yield "Cells with a note that begins with “reduced” or “other” do not follow the paper's protocol."


def _has(study: Study, measure: Measure) -> bool:
    records = (record for cell in study.runs if cell.run is not None for record in cell.run.records)
    return any(_number(record, measure.key) is not None for record in records)


def _number(record: dict[str, Any], key: str) -> float | None:
    """A measurement; None where it is absent or not finite, as robustness is when no image could be attacked."""
    value = record.get(key)
    return float(value) if value is not None and math.isfinite(value) else None


def _value(value: float | None, epoch: int | None, measure: Measure) -> str:
    return "–" if value is None else f"{measure.scale * value:.{measure.digits}f} ({epoch})"


def _signed(value: float, measure: Measure) -> str:
    return f"{measure.scale * value:+.{measure.digits}f}"
