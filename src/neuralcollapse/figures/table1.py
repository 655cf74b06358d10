"""Table 1 of the paper: what training beyond zero training error brings, for every network, data set and loss."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from neuralcollapse._files import replace_file
from neuralcollapse.figures.history import zero_error_epoch
from neuralcollapse.figures.study_runs import Study, StudyRun, loss_title, network_title


@dataclass(frozen=True)
class Measure:
    """A number that is to improve after zero training error.

    Args:
        key: its column in the history.
        title: what the table calls it.
        scale: what the table multiplies it by.
        digits: decimals in the table.
        paper: the median and mean of the improvement that the paper reports for MSE, on the table's scale.
    """

    key: str
    title: str
    scale: float
    digits: int
    paper: tuple[float, float]


TEST_ACCURACY = Measure("test_accuracy", "Test accuracy (%)", 100.0, 2, (0.962, 1.833))
ROBUSTNESS = Measure("robustness", "Adversarial robustness, mean of ‖r(x)‖/‖x‖", 1.0, 4, (0.1762, 0.9278))
MEASURES = (TEST_ACCURACY, ROBUSTNESS)
SETTINGS = ("num_examples", "width", "epochs", "batch_size", "learning_rate", "weight_decay")
COLUMNS = (
    *("dataset", "network", "model", "loss", "seed", "status", "in_table", "departures", *SETTINGS),
    *("last_epoch", "zero_error_epoch", "train_error_last", "nc1_zero_error", "nc1_last"),
    *(f"{measure.key}_{part}" for measure in MEASURES for part in ("zero_error", "last", "improvement")),
)
"""Of `table1.csv`. `in_table`: whether this is the seed that the other tables and the figures show."""


class Change(NamedTuple):
    """A measurement at the first epoch without a training error and at the last; NaN where there is none.

    Args:
        zero_error: its value at the first epoch without a training error.
        last: its value at the last analysed epoch.
        improvement: last − zero_error, of a finished run that reached zero training error.
    """

    zero_error: float
    last: float
    improvement: float


def write_table1(study: Study, folder: Path) -> list[Path]:
    """Write `table1.md`, `table1.tex` and `table1.csv`, each whole or not at all.

    Markdown and LaTeX show the lowest seed of each network, data set and loss, as the figures do; CSV has a line for
    every run, and for every combination that was not run. Robustness has a table where a run measured it.
    """
    attacked = [each.history["robustness"] for each in study.runs if "robustness" in each.history]
    measures = MEASURES if any(np.isfinite(values).any() for values in attacked) else MEASURES[:1]
    contents = {
        "table1.md": "\n".join(markdown(study, measure) for measure in measures),
        "table1.tex": LATEX_HEAD + "\n".join(latex(study, measure) for measure in measures),
        "table1.csv": runs_table(study).to_csv(index=False, lineterminator="\n"),
    }
    for name, text in contents.items():
        replace_file(folder / name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    return [folder / name for name in contents]


def change(found: StudyRun, key: str) -> Change:
    """What a run reached in one measurement."""

    def value(epoch: int | None) -> float:
        number = float(history.at[epoch, key]) if epoch is not None and key in history else math.nan
        return number if math.isfinite(number) else math.nan  # robustness is not when no image could be attacked

    history = found.history
    first, last = value(zero_error_epoch(history)), value(None if history.empty else history.index[-1])
    return Change(first, last, math.nan if found.unfinished else last - first)


def improvements(study: Study, loss: str, key: str) -> list[float]:
    """The improvements of all pairs of network and data set that have one, for one loss."""
    found = (change(each, key).improvement for each in study.of_loss(loss))
    return [improvement for improvement in found if not math.isnan(improvement)]


def runs_table(study: Study) -> pd.DataFrame:
    """Every run with its numbers, unrounded, accuracies as shares; a line for each combination not run, too."""
    lines = []
    for (_, dataset), network, loss, runs in study.cells():
        cell = {"dataset": dataset, "network": network_title(network), "loss": loss}
        lines += [cell | _numbers(each) for each in runs] or [cell | {"status": "not run"}]
    return pd.DataFrame(lines, columns=list(COLUMNS), dtype=object)


def _numbers(found: StudyRun) -> dict[str, Any]:
    config, history = found.config, found.history
    line = {
        "model": config.model,
        "seed": config.seed,
        "status": found.status or ("unfinished" if found.unfinished else "finished"),
        "in_table": config.seed == found.seeds[0],
        "departures": "; ".join(found.departures),
        **{name: getattr(config, name) for name in SETTINGS},
    }
    if not history.empty:
        line |= {"last_epoch": history.index[-1], "zero_error_epoch": zero_error_epoch(history)}
        line |= {f"{name}_last": history[name].iloc[-1] for name in ("train_error", "nc1")}
        line["nc1_zero_error"] = history["nc1"].get(zero_error_epoch(history))
    for measure in MEASURES:
        line |= {f"{measure.key}_{part}": value for part, value in change(found, measure.key)._asdict().items()}
    return line


def markdown(study: Study, measure: Measure) -> str:
    """The table as Markdown: heading, table, notes, remarks."""

    def escape(text: str) -> str:
        return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()).replace("&", "&amp;"))

    body, summary, notes = _entries(study, measure, escape, "<sup>{}</sup>")
    table = pd.concat([body, summary.map(lambda text: f"**{text}**" if text else "")])
    table.columns = pd.Index([": ".join(filter(None, names)) for names in table.columns])
    alignment = ["left", "left", *["right"] * (len(table.columns) - 2)]
    text = table.to_markdown(index=False, disable_numparse=True, colalign=alignment)
    paragraphs = [f"# {escape(_title(measure))}", text, "<br>\n".join(notes), " ".join(_remarks(study, measure))]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


LATEX_HEAD = "% \\input this file; the document needs \\usepackage{booktabs} and \\usepackage[utf8]{inputenc}\n"
_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # after \\ a bracket would be its argument
    "]": "{]}",
    "×": r"$\times$",
    "–": "--",
    "‖": r"$\|$",
    "“": "``",
    "”": "''",
}


def latex(study: Study, measure: Measure) -> str:
    """The table as a LaTeX `table` for booktabs."""

    def escape(text: str) -> str:
        escaped = "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
        return re.sub(r"^([+-][\d.]+)$", r"$\1$", escaped)

    body, summary, notes = _entries(study, measure, escape, r"\textsuperscript{{{}}}")
    names = body[body.columns[0]].tolist()
    # pandas has no rules and spaces inside a table, so they stand before the text of a line's first cell
    space = "\\addlinespace\n" if len(set(names)) < len(names) else ""
    body[body.columns[0]] = [
        *names[:1],
        *("" if name == before else f"{space}{name}" for before, name in itertools.pairwise(names)),
    ]
    summary.iloc[0, 0] = f"\\midrule\n{summary.iloc[0, 0]}"
    losses = len(study.losses)
    rules = " ".join(f"\\cmidrule(lr){{{3 * place}-{3 * place + 2}}}" for place in range(1, losses + 1))
    table = pd.concat([body, summary], ignore_index=True).rename(columns={"data set": f"{rules}\ndata set"})
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\small",
            r"\setlength{\tabcolsep}{4pt}",
            f"\\caption{{{escape(_title(measure))}}}",
            table.style.hide(axis="index").to_latex(
                column_format="ll" + "rrr" * losses, hrules=True, multicol_align="c"
            ),
            r"\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
            *(f"{note}\\\\" for note in notes),
            *map(escape, _remarks(study, measure)),
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _entries(
    study: Study, measure: Measure, escape: Callable[[str], str], superscript: str
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The entries of the table in a markup, its last lines, and the notes that letters refer to.

    Args:
        study, measure: what the table shows.
        escape: makes text safe in the markup.
        superscript: the markup of a superscript, with {} in its place.
    """
    marks: dict[str, str] = {}  # of each note

    def mark(note: str) -> str:
        return superscript.format(marks.setdefault(note, note_letter(len(marks)))) if note else ""

    def signed(improvement: float) -> str:
        return escape("–" if math.isnan(improvement) else f"{measure.scale * improvement:+.{measure.digits}f}")

    def at_epoch(value: float, epoch: int | None) -> str:
        return escape("–" if math.isnan(value) else f"{measure.scale * value:.{measure.digits}f} ({epoch})")

    rows = []
    for dataset in study.datasets:
        for network in study.networks:
            runs = [study.find(network, dataset, loss) for loss in study.losses]
            names = dict.fromkeys(found.model_title for found in runs if found is not None)
            row = [escape(dataset[1]), escape(" / ".join(names) or network_title(network))]
            for found in runs:
                if found is None:
                    row += [escape("–") + mark("not run"), escape("–"), escape("–")]
                    continue
                value, history = change(found, measure.key), found.history
                first = at_epoch(value.zero_error, zero_error_epoch(history)) + mark(_note(found))
                row += [first, at_epoch(value.last, history.index.max()), signed(value.improvement)]
            rows.append(row)
    summary = []
    for name, average in (("median", statistics.median), ("mean", statistics.fmean)):
        row = [name, ""]
        for loss in study.losses:
            values = improvements(study, loss, measure.key)
            pairs = f"of {len(values)} {'pair' if len(values) == 1 else 'pairs'}"
            row += [pairs, "", signed(average(values) if values else math.nan)]
        summary.append(row)
    headings = [("", "data set"), ("", "network")]
    for loss in study.losses:
        headings += [(escape(loss_title(loss)), heading) for heading in ("zero error", "last epoch", "improvement")]
    columns = pd.MultiIndex.from_tuples(headings)
    notes = [f"{superscript.format(letters)} {escape(note)}" for note, letters in marks.items()]
    return pd.DataFrame(rows, columns=columns), pd.DataFrame(summary, columns=columns), notes


def note_letter(number: int) -> str:
    """The mark of a note: a … z, aa, ab, …"""
    return (note_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _note(found: StudyRun) -> str:
    """In what a run departs from the paper's, and how far it came."""
    kind = "reduced" if found.reduced or found.other_depth else "other"
    remarks = [f"{kind}: {', '.join(found.departures)}"] if found.departures else []
    if found.unfinished:
        remarks.append(found.unfinished)
    if not found.history.empty and zero_error_epoch(found.history) is None:
        error = 100 * float(found.history["train_error"].iloc[-1])
        remarks.append(f"no epoch without a training error: {error:.3g} % at epoch {found.history.index[-1]}")
    if len(found.seeds) > 1:
        remarks.append(f"seed {found.config.seed} of {len(found.seeds)} seeds; table1.csv has all")
    return "; ".join(remarks)


def _title(measure: Measure) -> str:
    return f"{measure.title} at the first epoch without a training error and at the last"


def _remarks(study: Study, measure: Measure) -> list[str]:
    """Sentences below the table."""
    median, mean = (f"{value:+g}" for value in measure.paper)
    remarks = [
        "In brackets the epoch. Improvements are those of finished runs that reached zero training error.",
        f"The paper's improvements, for MSE: {median} in the median and {mean} in the mean over its 15 pairs.",
    ]
    if any(each.departures for each in study.runs):
        remarks.append("Cells with a note that begins with “reduced” or “other” do not follow the paper's protocol.")
    return remarks
