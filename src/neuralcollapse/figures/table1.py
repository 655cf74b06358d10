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

from neuralcollapse._files import replacing
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
_SETTINGS = ("num_examples", "width", "epochs", "batch_size", "learning_rate", "weight_decay")
COLUMNS = (
    *("dataset", "network", "model", "loss", "seed", "status", "in_table", "departures", *_SETTINGS),
    *("last_epoch", "zero_error_epoch", "train_error_last", "nc1_zero_error", "nc1_last"),
    *(f"{measure.key}_{part}" for measure in MEASURES for part in ("zero_error", "last", "improvement")),
)
"""Of `table1.csv`. `in_table`: whether this is the seed that the other tables and the figures show."""
LATEX_HEAD = "% \\input this file; the document needs \\usepackage{booktabs} and \\usepackage[utf8]{inputenc}\n"
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", '"': r"\textquotedbl{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "×": r"$\times$", "‖": r"$\|$"}
    | {"–": "--", "“": "``", "”": "''"}
    | {"[": "{[}", "]": "{]}"}  # after \\ a bracket would be its argument
)


class Change(NamedTuple):
    """A measurement at the first epoch without a training error and at the last; NaN where it was not measured.

    The improvement is that of a finished run that reached zero training error.
    """

    zero_error: float
    last: float
    improvement: float


def write_table1(study: Study, folder: Path) -> list[Path]:
    """Write `table1.md`, `table1.tex` and `table1.csv`, each whole or not at all.

    Markdown and LaTeX show the lowest seed of each network, data set and loss, as the figures do; CSV has a line for
    every run, and for every combination that was not run. Robustness has a table where a run measured it.
    """
    attacked = any(np.isfinite(each.history.get("robustness", [])).any() for each in study.runs)
    measures = MEASURES if attacked else (TEST_ACCURACY,)
    contents = {
        "table1.md": "\n".join(markdown(study, measure) for measure in measures),
        "table1.tex": LATEX_HEAD + "\n".join(latex(study, measure) for measure in measures),
        "table1.csv": runs_table(study).to_csv(index=False, lineterminator="\n"),
    }
    for name, text in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(text.encode())
    return [folder / name for name in contents]


def change(run: StudyRun, key: str) -> Change:
    """What a run reached in one measurement."""
    # robustness is NaN when no image could be attacked
    values = run.history.get(key, pd.Series(dtype=float)).replace([math.inf, -math.inf], math.nan)
    first = float(values.get(zero_error_epoch(run.history), math.nan))
    last = math.nan if values.empty else float(values.iloc[-1])
    return Change(first, last, math.nan if run.unfinished else last - first)


def improvements(study: Study, loss: str, key: str) -> list[float]:
    """The improvements of all pairs of network and data set that have one, for one loss."""
    return [value for run in study.shown(loss) if not math.isnan(value := change(run, key).improvement)]


def runs_table(study: Study) -> pd.DataFrame:
    """Every run with its numbers, unrounded, accuracies as shares; a line for each combination not run, too."""
    lines: list[dict[str, Any]] = []
    for ((_, dataset), network, loss), group in study.panels.items():
        names = {"dataset": dataset, "network": network_title(network), "loss": loss}
        if not group:
            lines.append(names | {"status": "not run"})
        for run in group:
            line = names | {
                "model": run.config.model,
                "seed": run.config.seed,
                "status": run.status or ("unfinished" if run.unfinished else "finished"),
                "in_table": run is group[0],
                "departures": "; ".join(run.departures),
                **{name: getattr(run.config, name) for name in _SETTINGS},
            }
            if not run.history.empty:
                zero, last = zero_error_epoch(run.history), run.history.iloc[-1]
                line |= {"last_epoch": last.name, "zero_error_epoch": zero, "train_error_last": last["train_error"]}
                line |= {"nc1_zero_error": run.history["nc1"].get(zero), "nc1_last": last["nc1"]}
            for measure in MEASURES:
                line |= {f"{measure.key}_{part}": value for part, value in change(run, measure.key)._asdict().items()}
            lines.append(line)
    return pd.DataFrame(lines, columns=list(COLUMNS), dtype=object)


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


def latex(study: Study, measure: Measure) -> str:
    """The table as a LaTeX `table` for booktabs."""

    def escape(text: str) -> str:
        return re.sub(r"^([+-][\d.]+)$", r"$\1$", " ".join(text.split()).translate(_LATEX))

    body, summary, notes = _entries(study, measure, escape, r"\textsuperscript{{{}}}")
    # pandas has no rules and spaces inside a table, so they stand before the text of a line's first cell
    names = body[body.columns[0]].tolist()
    space = "\\addlinespace\n" if len(set(names)) < len(names) else ""
    follow = ["" if name == before else f"{space}{name}" for before, name in itertools.pairwise(names)]
    body[body.columns[0]] = [*names[:1], *follow]
    summary.iloc[0, 0] = f"\\midrule\n{summary.iloc[0, 0]}"
    losses = len(study.losses)
    rules = " ".join(f"\\cmidrule(lr){{{3 * place}-{3 * place + 2}}}" for place in range(1, losses + 1))
    table = pd.concat([body, summary], ignore_index=True).rename(columns={"data set": f"{rules}\ndata set"})
    styler = table.style.hide(axis="index")
    tabular = styler.to_latex(column_format="ll" + "rrr" * losses, hrules=True, multicol_align="c")
    lines = [*(f"{note}\\\\" for note in notes), *map(escape, _remarks(study, measure))]
    return "\n".join(
        [
            "\\begin{table}\n\\centering\n\\small\n\\setlength{\\tabcolsep}{4pt}",
            f"\\caption{{{escape(_title(measure))}}}",
            tabular,
            "\\smallskip\n\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright",
            *lines,
            "\\end{minipage}\n\\end{table}\n",
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
    letters: dict[str, str] = {}  # of each note

    def mark(note: str) -> str:
        return superscript.format(letters.setdefault(note, note_letter(len(letters)))) if note else ""

    def number(value: float, form: str = "", epoch: object = None) -> str:
        shown = f"{measure.scale * value:{form}.{measure.digits}f}" + ("" if epoch is None else f" ({epoch})")
        return escape("–" if math.isnan(value) else shown)

    rows = []
    for dataset, network in itertools.product(study.datasets, study.networks):
        groups = [study.panels[dataset, network, loss] for loss in study.losses]
        titles = dict.fromkeys(group[0].model_title for group in groups if group)
        row = [escape(dataset[1]), escape(" / ".join(titles) or network_title(network))]
        for group in groups:
            if group:
                history, (first, last, improvement) = group[0].history, change(group[0], measure.key)
                row.append(number(first, epoch=zero_error_epoch(history)) + mark(_note(group)))
                row += [number(last, epoch=history.index.max()), number(improvement, "+")]
            else:
                row += [escape("–") + mark("not run"), escape("–"), escape("–")]
        rows.append(row)
    summary = []
    for name, average in (("median", statistics.median), ("mean", statistics.fmean)):
        row = [name, ""]
        for loss in study.losses:
            values = improvements(study, loss, measure.key)
            pairs = f"of {len(values)} {'pair' if len(values) == 1 else 'pairs'}"
            row += [pairs, "", number(average(values) if values else math.nan, "+")]
        summary.append(row)
    headings = itertools.product([escape(loss_title(loss)) for loss in study.losses], _HEADINGS)
    columns = pd.MultiIndex.from_tuples([("", "data set"), ("", "network"), *headings])
    notes = [f"{superscript.format(letter)} {escape(note)}" for note, letter in letters.items()]
    return pd.DataFrame(rows, columns=columns), pd.DataFrame(summary, columns=columns), notes


_HEADINGS = ("zero error", "last epoch", "improvement")


def note_letter(number: int) -> str:
    """The mark of a note: a … z, aa, ab, …"""
    return (note_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _note(group: tuple[StudyRun, ...]) -> str:
    """In what the run that is shown departs from the paper's, and how far it came."""
    run = group[0]
    kind = "reduced" if run.reduced or run.other_depth else "other"
    remarks = [f"{kind}: {', '.join(run.departures)}"] if run.departures else []
    if run.unfinished:
        remarks.append(run.unfinished)
    if not run.history.empty and zero_error_epoch(run.history) is None:
        error = 100 * run.history["train_error"].iloc[-1]
        remarks.append(f"no epoch without a training error: {error:.3g} % at epoch {run.history.index[-1]}")
    if len(group) > 1:
        remarks.append(f"seed {run.config.seed} of {len(group)} seeds; table1.csv has all")
    return "; ".join(remarks)


def _title(measure: Measure) -> str:
    return f"{measure.title} at the first epoch without a training error and at the last"


def _remarks(study: Study, measure: Measure) -> list[str]:
    """Sentences below the table."""
    median, mean = measure.paper
    remarks = [
        "In brackets the epoch. Improvements are those of finished runs that reached zero training error.",
        f"The paper's improvements, for MSE: {median:+g} in the median and {mean:+g} in the mean over its 15 pairs.",
    ]
    if any(run.departures for run in study.runs):
        remarks.append("Cells with a note that begins with “reduced” or “other” do not follow the paper's protocol.")
    return remarks
