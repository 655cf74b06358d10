"""Table 1 of the paper: what training beyond zero training error brings, for every network, data set and loss."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from neuralcollapse._files import replacing
from neuralcollapse.figures import captions
from neuralcollapse.figures.study_runs import Study, StudyRun
from neuralcollapse.measuring.tidy import numbers_of


@dataclass(frozen=True)
class Measure:
    """A number that is to improve after zero training error.

    Args:
        key: its name in the history.
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
ROBUSTNESS = Measure(
    "robustness", "Adversarial robustness, the upper bound ‖r(x)‖/‖x‖ in the mean,", 1.0, 4, (0.1762, 0.9278)
)
MEASURES = (TEST_ACCURACY, ROBUSTNESS)
_SETTINGS = ("num_examples", "width", "epochs", "batch_size", "learning_rate", "weight_decay")
COLUMNS = (
    *("dataset", "network", "model", "loss", "seed", "status", "departures", *_SETTINGS),
    *("last_epoch", "first_zero_error", "stays_zero_error", "train_error_last", "nc1_zero_error", "nc1_last"),
    *(f"{measure.key}_{part}" for measure in MEASURES for part in ("zero_error", "last", "improvement")),
)
"""Of `table1.csv`; `…_zero_error` is at the epoch from which the training error stays zero."""
LATEX_HEAD = "% \\input this file; the document needs \\usepackage{booktabs} and \\usepackage[utf8]{inputenc}\n"
_HEADINGS = ("zero error", "last epoch", "improvement")


class Change(NamedTuple):
    """A measurement at the epoch from which the training error stays zero, and at the last; NaN if not measured.

    The improvement is that of a finished run whose error stays zero.
    """

    zero_error: float
    last: float
    improvement: float


def write_table1(study: Study, folder: Path) -> list[Path]:
    """Write `table1.md`, `table1.tex` and `table1.csv`, each whole or not at all.

    Markdown and LaTeX show the mean over the seeds and, from two on, ± their standard deviation; CSV has a line
    for every run, and for every combination that was not run. Robustness has a table where a run measured it.
    """
    measures = [each for each in MEASURES if any(_measured(run, each) for run in study.runs)]
    contents = {
        "table1.md": "\n".join(markdown(study, measure) for measure in measures),
        "table1.tex": LATEX_HEAD + "\n".join(latex(study, measure) for measure in measures),
        "table1.csv": runs_table(study).to_csv(index=False, lineterminator="\n"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(text.encode())
    return [folder / name for name in contents]


def change(run: StudyRun, key: str) -> Change:
    """What a run reached in one measurement."""
    # robustness is NaN when no image could be attacked
    values = {record["epoch"]: numbers_of(record).get(key, math.nan) for record in run.records.records}
    zero = values.get(run.records.summary()["stays_zero_error"], math.nan)
    last = next(reversed(values.values()), math.nan)
    zero, last = (value if math.isfinite(value) else math.nan for value in (zero, last))
    return Change(zero, last, math.nan if run.records.unfinished else last - zero)


def _measured(run: StudyRun, measure: Measure) -> bool:
    return any(map(math.isfinite, change(run, measure.key)[:2]))


def improvements(study: Study, loss: str, key: str) -> list[float]:
    """The mean improvement over the seeds of each pair of network and data set that has one, for one loss."""
    cells = [study.group(*pair, loss) for pair in itertools.product(study.datasets, study.networks)]
    found = [[value for run in cell if not math.isnan(value := change(run, key).improvement)] for cell in cells]
    return [statistics.fmean(values) for values in found if values]


def runs_table(study: Study) -> pd.DataFrame:
    """Every run with its numbers, unrounded, accuracies as shares; a line for each combination not run, too."""
    lines: list[dict[str, Any]] = []
    for dataset, network, loss in itertools.product(study.datasets, study.networks, study.losses):
        names = {"dataset": dataset, "network": network, "loss": loss}
        group = study.group(dataset, network, loss)
        lines += [] if group else [names | {"status": "not run"}]
        for run in group:
            line = names | {
                "model": run.records.network,
                "seed": run.records.seed,
                "status": run.status.status or ("unfinished" if run.records.unfinished else "finished"),
                "departures": "; ".join(run.departures),
                **{name: getattr(run.config, name) for name in _SETTINGS},
            }
            if run.records.records:
                events, last = run.records.summary(), run.records.last
                line |= {name: events[name] for name in ("last_epoch", "first_zero_error", "stays_zero_error")}
                line |= {"train_error_last": last.get("train_error"), "nc1_last": last.get("nc1")}
                line["nc1_zero_error"] = change(run, "nc1").zero_error
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
        number = re.fullmatch(r"([+-][\d.]+)( ± [\d.]+)?", text)
        return f"${text.replace('±', chr(92) + 'pm')}$" if number else captions.latex(text)

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
    lines = [
        "\\begin{table}\n\\centering\n\\small\n\\setlength{\\tabcolsep}{4pt}",
        f"\\caption{{{captions.latex(_title(measure))}}}",
        tabular,
        "\\smallskip\n\\begin{minipage}{\\linewidth}\\footnotesize\\raggedright",
        *(f"{note}\\\\" for note in notes),
        *map(captions.latex, _remarks(study, measure)),
        "\\end{minipage}\n\\end{table}\n",
    ]
    return "\n".join(lines)


def _entries(
    study: Study, measure: Measure, escape: Callable[[str], str], superscript: str
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The entries of the table in a markup, its last lines, and at most three notes that letters refer to.

    Args:
        study, measure: what the table shows.
        escape: makes text safe in the markup.
        superscript: the markup of a superscript, with {} in its place.
    """

    def number(values: Sequence[float], epochs: Sequence[float | None] = (), form: str = "") -> str:
        known = [measure.scale * value for value in values if not math.isnan(value)]
        if not known:
            return escape("–")
        text = f"{statistics.fmean(known):{form}.{measure.digits}f}"
        text += f" ± {statistics.stdev(known):.{measure.digits}f}" if len(known) > 1 else ""
        if reached := sorted({epoch for epoch in epochs if epoch is not None}):
            text += f" ({'–'.join(f'{each:g}' for each in reached[:: max(1, len(reached) - 1)])})"
        return escape(text)

    kinds = (
        ("a", captions.departures(study, "reduced: "), lambda run: bool(run.departures)),
        ("b", captions.unfinished(study), lambda run: bool(run.records.unfinished)),
        ("c", _never(study), _stays_above),
    )
    # what holds for all entries needs no letter
    everywhere = {letter for letter, _, holds in kinds if all(map(holds, study.runs))}
    rows = []
    for dataset, network in itertools.product(study.datasets, study.networks):
        cells = [study.group(dataset, network, loss) for loss in study.losses]
        if not any(_measured(run, measure) for cell in cells for run in cell):
            continue
        titles = dict.fromkeys(run.model_title for cell in cells for run in cell)
        row = [escape(dataset), escape(" / ".join(titles))]
        for cell in cells:
            changes, events = [change(run, measure.key) for run in cell], [run.records.summary() for run in cell]
            letters = [letter for letter, _, holds in kinds if letter not in everywhere and any(map(holds, cell))]
            mark = superscript.format(",".join(letters)) if letters else ""
            zero = number([each.zero_error for each in changes], [each["stays_zero_error"] for each in events])
            last = number([each.last for each in changes], [each["last_epoch"] for each in events])
            row += [zero + mark, last, number([each.improvement for each in changes], form="+")]
        rows.append(row)
    summary = []
    for name, average in (("median", statistics.median), ("mean", statistics.fmean)):
        row = [name, ""]
        for loss in study.losses:
            values = improvements(study, loss, measure.key)
            pairs = f"of {len(values)} {'pair' if len(values) == 1 else 'pairs'}"
            row += [pairs, "", number([average(values)] if values else [], form="+")]
        summary.append(row)
    headings = itertools.product([escape(title) for title in study.losses.values()], _HEADINGS)
    columns = pd.MultiIndex.from_tuples([("", "data set"), ("", "network"), *headings])
    told = [
        f"{'All entries:' if letter in everywhere else superscript.format(letter)} {escape(note)}"
        for letter, note, _ in kinds
        if note
    ]
    return pd.DataFrame(rows, columns=columns), pd.DataFrame(summary, columns=columns), told


def _never(study: Study) -> str:
    def words(run: StudyRun) -> list[str]:
        error = run.records.last.get("train_error")
        return [f"{100 * error:.3g} % at epoch {run.records.last['epoch']}"] if _stays_above(run) and error else []

    found = "; ".join(captions.grouped(study.runs, words))
    return f"training errors at the last epoch: {found}" if found else ""


def _stays_above(run: StudyRun) -> bool:
    return bool(run.records.records) and run.records.summary()["stays_zero_error"] is None


def _title(measure: Measure) -> str:
    return f"{measure.title} at the epoch from which the training error stays zero, and at the last"


def _remarks(study: Study, measure: Measure) -> list[str]:
    """Sentences below the table."""
    median, mean = measure.paper
    counts = sorted({len(study.group(*run.cell)) for run in study.runs})
    several = " or ".join(str(count) for count in counts if count > 1)
    remarks = [f"Means ± standard deviations over {several} seeds."] if several else ["One run for each entry."]
    remarks += [
        "In brackets the epoch. Improvements are those of finished runs whose training error stays zero.",
        f"The paper's improvements, for MSE: {median:+g} in the median and {mean:+g} in the mean over its 15 pairs.",
    ]
    absent = [pair for pair in itertools.product(study.datasets, study.networks) if not study.group(*pair)]
    if absent:
        remarks.append(f"Not run: {', '.join(f'{network} on {dataset}' for dataset, network in absent)}.")
    return remarks
