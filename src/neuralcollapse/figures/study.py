"""The paper's figures of a whole study: each column a data set, each row a network, each panel one run."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from neuralcollapse.figures import curves, style
from neuralcollapse.figures.curves import Curve
from neuralcollapse.figures.history import zero_error_epoch
from neuralcollapse.figures.study_runs import PAPER_EPOCHS, Study, StudyRun, loss_title, network_title
from neuralcollapse.figures.style import plain
from neuralcollapse.figures.table1 import write_table1
from neuralcollapse.figures.writing import write_figure
from neuralcollapse.training import losses

CURVES: dict[str, tuple[Curve, str]] = {
    "decomposition": (curves.decomposition, "Decomposition of the loss (the paper's Fig. 2)"),
    "nc1": (curves.nc1, "NC1: within-class variability"),
    "nc2-equinorm": (curves.nc2_equinorm, "NC2: equal norms (the paper's Fig. 3)"),
    "nc2-equiangularity": (curves.nc2_equiangularity, "NC2: equal angles (the paper's Fig. 4)"),
    "nc2-maximal-angle": (curves.nc2_maximal_angle, "NC2: maximal angle (the paper's Fig. 5)"),
    "nc3": (curves.nc3, "NC3: self-duality"),
    "nc4": (curves.nc4, "NC4: decisions other than the nearest class mean's"),
    "accuracy": (curves.accuracy, "Training and test error"),
    "robustness": (curves.robustness, "Adversarial robustness"),
}
"""By the name of the files: what draws a panel, and the title."""
WIDTH = 7.2
"""Inches of a page's two columns: the figures are drawn at the size that they are printed at."""
_NOTE = 5.6
_TICKS = {"labelsize": 6.5, "major.width": 0.5, "minor.width": 0.4, "major.size": 2.5, "minor.size": 1.5}
_RC: dict[Any, Any] = {
    **style.RC,
    **{f"{axis}tick.{name}": value for axis in "xy" for name, value in _TICKS.items()},
    **{"font.size": 7, "axes.labelsize": 7.5, "axes.linewidth": 0.6, "legend.fontsize": 7, "grid.linewidth": 0.4},
    "savefig.dpi": 300,
}


@matplotlib.rc_context(_RC)
def draw_study(folder: Path, out: Path | None = None) -> list[Path]:
    """Draw the paper's figures as networks × data sets for each loss of a study, and write Table 1.

    Args:
        folder: the folder of the study: its `study.json` lists the runs, or they lie directly in it.
        out: the folder of the files; by default `figures/` in `folder`.

    Returns:
        The files written, PNG and SVG of each of `CURVES`: `decomposition` for squared-error losses only, `robustness`
        where it was recorded; for another loss than the paper's with that loss at the end, as in `nc1-ce`. Then
        `table1.md`, `table1.tex` and `table1.csv`.

    Raises:
        InputError: no run there, or it cannot be told which are the study's; damaged files; two runs that would share
            a panel.
    """
    study = Study.read(folder)
    target = folder / "figures" if out is None else out
    target.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for loss in study.losses:
        left_out = set()
        if loss not in losses.LOSSES or not losses.LOSSES[loss].decomposed:
            left_out.add("decomposition")
        if not any("robustness" in each.history for each in study.shown(loss)):
            left_out.add("robustness")
        suffix = "" if loss == "mse" else f"-{loss}"
        for name in CURVES:
            if name not in left_out:
                written += write_figure(draw_panels(study, loss, name), target, f"{name}{suffix}")
    return written + write_table1(study, target)


def draw_panels(study: Study, loss: str, name: str) -> Figure:
    """One of `CURVES` for one loss, as networks × data sets."""
    draw, title = CURVES[name]
    rows, columns = len(study.networks), len(study.datasets)
    size = min(2.6, WIDTH / columns)
    width = max(size * columns, 3.5)
    figure = Figure(layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02))
    grid = figure.subplots(rows, columns, squeeze=False)
    common = _common_departures(study.shown(loss))
    drawn: list[tuple[Axes, StudyRun]] = []
    note_lines = [0] * rows  # of the longest note in each row
    for row, network in enumerate(study.networks):
        for column, dataset in enumerate(study.datasets):
            axes, group = grid[row, column], study.panels[dataset, network, loss]
            note = plain(_note(group, common, characters=max(16, int(size * 21))))
            axes.set_title(note, fontsize=_NOTE, color="#444444", pad=2.5, linespacing=1.1)
            note_lines[row] = max(note_lines[row], note.count("\n") + 1)
            if absent := _absence(group, name):
                _leave_empty(axes, absent)
            else:
                drawn.append((draw(group[0].history, axes), group[0]))
    handles: list[Any] = []
    if drawn:
        figure.supylabel(drawn[0][0].get_ylabel(), fontsize=8)
        handles, _ = drawn[0][0].get_legend_handles_labels()  # the curves of every panel
        if any(zero_error_epoch(run.history) is not None for _, run in drawn):
            handles.append(Line2D([], [], label="zero training error", **style.ZERO_ERROR))
    _share_scales(list(grid.flat), drawn)
    if handles:
        below: dict[str, Any] = {"loc": "outside lower center", "ncols": len(handles) if width > 5 else 3}
        figure.legend(handles=handles, handlelength=1.8, columnspacing=1.6, **below)
    for row, network in enumerate(study.networks):
        grid[row, 0].set_ylabel(plain(network_title(network)), fontweight="bold")
    offset = (0, 4 + 1.2 * _NOTE * note_lines[0])  # above the longest note
    bold: dict[str, Any] = {"ha": "center", "va": "bottom", "weight": "bold", "fontsize": 7.5}
    for column, (_, dataset_title) in enumerate(study.datasets):
        grid[-1, column].set_xlabel("epoch", labelpad=1)
        grid[0, column].annotate(plain(dataset_title), (0.5, 1), offset, "axes fraction", "offset points", **bold)
    lines = [f"{title}; trained with {loss_title(loss)}", *_reductions(study.shown(loss), common)]
    head = "\n".join(plain(textwrap.fill(line, int(width * 17))) for line in lines)
    figure.suptitle(head, fontsize=8, linespacing=1.3)
    around = 0.14 * (head.count("\n") + 1) + (0.7 if width > 5 else 0.85)  # title, data sets, epochs, legend
    figure.set_size_inches(width, rows * (0.16 + 0.62 * size) + 0.09 * sum(note_lines) + around)
    return figure


def _common_departures(runs: Sequence[StudyRun]) -> tuple[str, ...]:
    """The departures from the paper that all of several runs share; the title names them once."""
    first, *others = runs
    shared = (*first.reduced, *first.options) if others else ()
    return tuple(words for words in shared if all(words in each.departures for each in others))


def _reductions(runs: Sequence[StudyRun], common: Sequence[str]) -> list[str]:
    """The line of the title that says in what the runs are not the paper's, if they are not."""
    if not any(each.departures for each in runs):
        return []
    reduced = "REDUCED: " if any(each.reduced or each.other_depth for each in runs) else ""
    remarks = [f"everywhere {_enumerate(common)}"] if common else []
    if any(set(each.departures) != set(common) for each in runs):
        remarks.append("each panel says what else" if common else "each panel says in what")
    protocol = "not the paper's protocol of full width, all examples and 350 epochs of tuned SGD"
    return [f"{reduced}{'; '.join([protocol, *remarks])}"]


def _note(group: Sequence[StudyRun], common: Sequence[str], characters: int) -> str:
    """Above a panel: the network, in what it alone departs from the paper, how it ended, and which seed is drawn."""
    if not group:
        return ""
    run = group[0]
    network = "; ".join(filter(None, [run.model_title, run.other_depth]))
    own = _enumerate([words for words in (*run.reduced, *run.options) if words not in common])
    state = "" if run.history.empty else run.unfinished  # an empty panel says it itself
    seeds = f"seed {run.config.seed}, the lowest of {len(group)}" if len(group) > 1 else ""
    return "\n".join(textwrap.fill(line, characters) for line in (network, own, state, seeds) if line)


def _enumerate(departures: Sequence[str]) -> str:
    """Departures one after the other; a line breaks only between two of them."""
    return ", ".join(words.replace(" ", "\N{NO-BREAK SPACE}") for words in departures)


def _absence(group: Sequence[StudyRun], name: str) -> str:
    """Why a panel stays empty. Robustness is optional; any other measurement that is missing is an error."""
    if not group:
        return "not run"
    if group[0].history.empty:
        return group[0].unfinished or "no measured epoch"
    return "robustness\nnot recorded" if name == "robustness" and name not in group[0].history else ""


def _leave_empty(axes: Axes, why: str) -> None:
    axes.set_facecolor("#F2F2F2")
    axes.grid(False)
    centred: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.5, 0.5, textwrap.fill(why, 18), color=style.GREY, fontsize=7, **centred)


def _share_scales(panels: Sequence[Axes], drawn: Sequence[tuple[Axes, StudyRun]]) -> None:
    """One scale for all panels, so that they can be compared; only the outer ones carry its numbers."""
    last = max((run.history.index[-1] for _, run in drawn), default=PAPER_EPOCHS)
    limits = [axes.get_ylim() for axes, _ in drawn]
    scale = drawn[0][0].get_yscale() if drawn else "linear"
    for axes in panels:
        style.epoch_axis(axes, [1, last], None, label=False)
        axes.set_xlabel("")
        axes.set_ylabel("")
        if scale == "symlog":
            curves.share_axis(axes, max(run.history["num_examples"].iloc[-1] for _, run in drawn))
        elif drawn:
            axes.set_yscale(scale)
        if drawn:
            axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        for line in axes.lines:
            line.set_linewidth(0.6 * line.get_linewidth())
        axes.label_outer()
