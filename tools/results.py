"""Write the tables of README.md and results/README.md from results/: single runs, and the study; and its ratio.csv.

python tools/results.py            writes all three
python tools/results.py --check    fails if one is out of date
"""

from __future__ import annotations

import csv
import io
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from neuralcollapse.figures.study_runs import Study
from neuralcollapse.figures.theory_study import FLOWS, summary
from neuralcollapse.measuring.events import first_zero_error, stays_zero_error
from neuralcollapse.theory.corollaries import path_ratio
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.run_directory import Run

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- {} table -->", "<!-- end of {} table -->"
RUNS = ("digits-resnet18", "mnist-resnet18", "fashion-mnist-resnet18", "cifar10-resnet18")
STUDY = ROOT / "results" / "paper-regime"
ORDER = {
    "dataset": ("digits", "mnist", "fashion-mnist", "cifar10"),
    "model": ("vgg11", "resnet18", "densenet40"),
    "loss": ("mse", "ce"),
}
RUN_COLUMNS = (
    "data, training examples",
    "network",
    "epochs (zero error at)",
    "λ",
    "test accuracy at zero error → at the end",
    "NC1",
    "NC2, maximal angle of means",
    "NC3",
    "L⊥_LS / L",
)


def event_records(run: Run, history: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What was measured when the error was first zero, when it began to stay so, and at the end."""
    at = {record["epoch"]: record for record in history}
    first, stays = first_zero_error(history), stays_zero_error(history)
    if first is None or stays is None:
        sys.exit(f"{run.path}: the training error does not reach zero or does not stay there; the tables need that")
    return {"first": at[first], "stays": at[stays], "end": history[-1]}


def share(record: dict[str, Any], part: str = "ls_perp", prefix: str = "") -> float:
    """A part of the loss over the whole; L⊥_LS / L is the distance from the central path."""
    return float(record[f"{prefix}mse.{part}"] / record[f"{prefix}mse.total"])


def run_row(path: Path, prefix: str) -> list[str]:
    """One run as a row of the table."""
    run = Run.open(path)
    config, events = run.config, event_records(run, run.history())
    last, first = events["end"], events["first"]
    return [
        f"[{config.dataset_title}]({prefix}{path.name}/figures/overview.png), {config.num_examples:,}",
        f"{config.model}, width ×{config.width:g}",
        f"{last['epoch']} ({first['epoch']})",
        f"{config.measured_weight_decay:g}",
        " → ".join(f"{100 * record['test_accuracy']:.2f} %" for record in (first, last)),
        f"{last['nc1']:.2g}",
        f"{last['nc2.maximal_angle_means']:.3f}",
        f"{last['nc3']:.3f}",
        f"{share(last):.3f}",
    ]


STUDY_COLUMNS = (
    "data",
    "network",
    "loss, seeds",
    "λ, epochs",
    "zero error: first, stays",
    "test accuracy: first zero error, stays, end (%)",
    "NC1",
    "NC2, maximal angle of means",
    "NC3",
    "NC4 (%)",
)
PARTS_COLUMNS = (
    "data",
    "network",
    "L⊥/L from the tenth measured epoch on: largest median over the seeds",
    "largest of any seed",
    "when the error stays zero",
    "at the end",
)
LOSS_COLUMNS = (
    "data",
    "network",
    "L_NC1/L: tenth measured epoch, first zero error, end",
    "½λ‖W̃_LS‖² / L_NC1 at the end",
    "first over last epoch: L_NC1, L_NC2/3, L⊥",
    "last epoch over the least: L_NC2/3, L",
    "L_NC2/3 / L_NC1 at the end",
    "C/ω², Σ_W + λI",
    "C/ω², Σ_W (the paper's)",
)


def name_of(config: RunConfig) -> list[str]:
    """Data and network of a cell, as every table of the study begins."""
    return [config.dataset_title, ", ".join([f"{config.model} ×{config.width:g}", *config.image_description()])]


def study_row(runs: list[Run]) -> list[str]:
    """The seeds of one cell, medians: when the error is zero, the test accuracy then, collapse from first to last."""
    config, histories = runs[0].config, [run.history() for run in runs]
    events = [event_records(run, history) for run, history in zip(runs, histories, strict=True)]

    def change(name: str, form: str, scale: float = 1.0) -> str:
        ends = (median(scale * float(history[place][name]) for history in histories) for place in (0, -1))
        return " → ".join(f"{value:{form}}" for value in ends)

    return [
        *name_of(config),
        f"{config.loss.upper()}, {len(runs)}",
        f"{config.measured_weight_decay:g}, {config.epochs}",
        ", ".join(f"{median(event[name]['epoch'] for event in events):.0f}" for name in ("first", "stays")),
        ", ".join(
            f"{median(100 * event[name]['test_accuracy'] for event in events):.2f}"
            for name in ("first", "stays", "end")
        ),
        change("nc1", ".2g"),
        change("nc2.maximal_angle_means", ".2g"),
        change("nc3", ".2g"),
        change("nc4_mismatch", ".2f", 100),
    ]


def parts_row(runs: list[Run]) -> list[str]:
    """The seeds of one cell, medians: L⊥/L by running averages and, in brackets, by re-estimated ones."""
    histories = [run.history() for run in runs]
    events = [event_records(run, history) for run, history in zip(runs, histories, strict=True)]

    def both(pick: Callable[[str], float]) -> str:
        return f"{pick(''):.3f} ({pick('re_estimated.'):.3f})"

    def medians(prefix: str) -> list[float]:
        """Over the seeds, at each epoch at which all were measured, from the tenth on."""
        measured = [{record["epoch"]: record for record in history} for history in histories]
        epochs = sorted(set.intersection(*map(set, measured)))[9:]
        return [median(share(records[epoch], prefix=prefix) for records in measured) for epoch in epochs]

    ends = [event["end"] for event in events]
    return [
        *name_of(runs[0].config),
        both(lambda prefix: max(medians(prefix))),
        f"{max(share(record) for history in histories for record in history[9:]):.2f}",
        both(lambda prefix: median(share(event["stays"], prefix=prefix) for event in events)),
        both(lambda prefix: median(share(record, prefix=prefix) for record in ends)),
    ]


def loss_row(runs: list[Run]) -> list[str]:
    """The seeds of one cell, medians: which part the loss is, what falls how far, and the ratio that theory gives."""
    histories = [run.history() for run in runs]
    firsts = [event_records(run, history)["first"] for run, history in zip(runs, histories, strict=True)]
    ends = [history[-1] for history in histories]

    def part(name: str, pick: Callable[[list[float]], float]) -> float:
        return median(pick([float(record[f"mse.{name}"]) for record in history]) for history in histories)

    def falls(values: list[float]) -> float:
        return values[0] / values[-1]

    decay = runs[0].config.measured_weight_decay
    kept = median(decay / 2 * record["mse.weight_ls_norm"] ** 2 / record["mse.nc1"] for record in ends)
    shares = [[history[9] for history in histories], firsts, ends]
    return [
        *name_of(runs[0].config),
        ", ".join(f"{median(share(record, 'nc1') for record in records):.2f}" for records in shares),
        f"{kept:.3f}",
        ", ".join(f"{float(f'{part(name, falls):.3g}'):,g}" for name in ("nc1", "nc23", "ls_perp")),
        ", ".join(f"{part(name, lambda of: of[-1] / min(of)):.2f}" for name in ("nc23", "total")),
        f"{median(record['mse.nc23'] / record['mse.nc1'] for record in ends):.4f}",
        f"{median(ratio_at(run, max(run.snapshots())) for run in runs):.4f}",
        f"{median(ratio_without_decay(record) for record in ends):.1e}",
    ]


def returned_error(run: Run) -> str:
    """The largest training error in percent that was measured after the first epoch without one."""
    history = run.history()
    zero = event_records(run, history)["first"]["epoch"]
    return f"{100 * max(record['train_error'] for record in history if record['epoch'] >= zero):.2g}"


def returns_table(cells: list[list[Run]]) -> str:
    """Data sets by network and loss, of each the seeds 0, 1, … in order; a dash for a seed or a cell not run."""
    columns = list(itertools.product(ORDER["model"], ORDER["loss"]))
    rows: dict[str, dict[tuple[str, str], str]] = {}
    for runs in cells:
        config = runs[0].config
        errors = {run.config.seed: returned_error(run) for run in runs}
        told = ", ".join(errors.get(seed, "–") for seed in range(max(errors) + 1))
        rows.setdefault(config.dataset_title, {})[config.model, config.loss] = told
    titles = ("data", *(f"{model}, {loss.upper()}" for model, loss in columns))
    return table(titles, [[dataset, *(row.get(column, "–") for column in columns)] for dataset, row in rows.items()])


def ratio_at(run: Run, epoch: int) -> float:
    """C/ω² with Σ_W + λI, of the features that a snapshot kept: older histories do not have it of all."""
    kept = run.snapshot(epoch)
    return path_ratio(kept["features"].astype(float), kept["labels"], run.config.measured_weight_decay)


def ratio_without_decay(record: dict[str, Any]) -> float:
    """C/ω² with the paper's Σ_W, of what a history has measured."""
    classes = int(record["num_classes"])
    return classes * (classes - 1) / float(np.square(record["snr"]).sum())


def ratios(cells: list[list[Run]]) -> str:
    """L_NC2/3 / L_NC1 of every run at its snapshots, and C/ω² both ways, as CSV."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["run", "epoch", "L_NC2/3 / L_NC1", "C/ω², Σ_W + λI", "C/ω², Σ_W (the paper's)"])
    for run in itertools.chain(*cells):
        at = {record["epoch"]: record for record in run.history()}
        for epoch in sorted(run.snapshots()):
            numbers = (
                at[epoch]["mse.nc23"] / at[epoch]["mse.nc1"],
                ratio_at(run, epoch),
                ratio_without_decay(at[epoch]),
            )
            lines.writerow([run.path.name, epoch, *(f"{number:.4g}" for number in numbers)])
    return text.getvalue()


def study_cells() -> list[list[Run]]:
    """The study's runs, the seeds of a cell together, in the order of the tables."""
    cells: dict[tuple[int, ...], list[Run]] = {}
    for path in sorted(STUDY.glob("*/config.json")):
        run = Run.open(path.parent)
        if (status := run.status().status) != "finished":
            sys.exit(f"{path.parent} is {status}, not finished")
        cells.setdefault(tuple(order.index(getattr(run.config, name)) for name, order in ORDER.items()), []).append(run)
    return [runs for _, runs in sorted(cells.items())]


def study_tables(ordered: list[list[Run]]) -> dict[str, str]:
    """Every cell of the study, the parts of the loss with squared error, and the errors that come back, as the grid."""
    squared = [runs for runs in ordered if runs[0].config.loss == "mse"]
    return {
        "study": table(STUDY_COLUMNS, [study_row(runs) for runs in ordered]),
        "parts": table(PARTS_COLUMNS, [parts_row(runs) for runs in squared]),
        "loss": table(LOSS_COLUMNS, [loss_row(runs) for runs in squared]),
        "returns": returns_table(ordered),
    }


THEORY_COLUMNS = (
    "data",
    "network, seeds",
    "mean ω grows by a factor",
    *(f"off the flow {name}" for name in FLOWS.values()),
    "if all grew by one factor",
    "projected where L⊥/L ≥ 5 %, < 5 %",
    "the three from the tenth measured epoch on",
    "ω like epoch to the power",
    "max ω / min ω: first, least, last",
)


def theory_table() -> str:
    """The MSE cells of the study against the closed forms, medians over the seeds."""
    rows = []
    for row in summary(Study.read(STUDY)).to_dict("records"):
        spread = (f"{row[f'max/min {when}']:.2g}" for when in ("first", "least", "last"))
        rows.append(
            [
                row["dataset"],
                f"{row['network']}, {row['n']}",
                f"{row['growth']:,.0f}",
                *(f"{100 * row[name]:.0f} %" for name in (*FLOWS, "one factor")),
                ", ".join(f"{100 * row[f'projected {where} the path']:.0f} %" for where in ("off", "near")),
                ", ".join(f"{100 * row[f'{flow} from the tenth']:.0f} %" for flow in FLOWS),
                f"{row['exponent']:.2f}",
                ", ".join(spread),
            ]
        )
    return table(THEORY_COLUMNS, rows)


def table(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in ([*columns], ["---"] * len(columns), *rows))


def runs_table(prefix: str) -> str:
    """The single runs, for a page from which results/ is at ``prefix``."""
    return table(RUN_COLUMNS, [run_row(ROOT / "results" / name, prefix) for name in RUNS])


def written(text: str, name: str, content: str) -> str:
    """The page with a new table between its marks."""
    begin, end = BEGIN.format(name), END.format(name)
    if begin not in text or end not in text:
        sys.exit(f"a page lacks the marks {begin} and {end}")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"


def main() -> None:
    """Write or check all three."""
    cells = study_cells()
    pages = {
        ROOT / "README.md": {"results": runs_table("results/")},
        ROOT / "results" / "README.md": {
            "results": runs_table(""),
            **study_tables(cells),
            "theory": theory_table(),
        },
    }
    fresh = {STUDY / "ratio.csv": ratios([runs for runs in cells if runs[0].config.loss == "mse"])}
    for page, tables in pages.items():
        text = page.read_text(encoding="utf-8")
        for name, content in tables.items():
            text = written(text, name, content)
        fresh[page] = text
    for path, text in fresh.items():
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.relative_to(ROOT)} is out of date; run: python tools/results.py")


if __name__ == "__main__":
    main()
