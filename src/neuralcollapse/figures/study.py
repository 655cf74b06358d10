"""The paper's figures of a whole study: each column a data set, each row a network, each panel one run."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from neuralcollapse.figures import curves, style
from neuralcollapse.figures.history import zero_error_epoch
from neuralcollapse.figures.run import Curve
from neuralcollapse.figures.study_runs import PAPER_EPOCHS, Study, StudyRun, loss_title, network_title
from neuralcollapse.figures.style import plain
from neuralcollapse.figures.table1 import write_table1
from neuralcollapse.figures.writing import write_figure
from neuralcollapse.training import losses

WIDTH = 7.2
"""Inches of a page's two columns: the figures are drawn at the size that they are printed at."""
_NOTE = 5.6
_RC: dict[Any, Any] = {
    **style.RC,
    "font.size": 7,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "legend.fontsize": 7,
    "grid.linewidth": 0.4,
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class Chart:
    """One figure of the study.

    Args:
        name: of the files, before the loss.
        title: what it shows.
        draw: draws one run into one panel.
    """

    name: str
    title: str
    draw: Curve


DECOMPOSITION = Chart("decomposition", "Decomposition of the loss (the paper's Fig. 2)", curves.decomposition)
CHARTS = (
    Chart("nc1", "NC1: within-class variability", curves.nc1),
    Chart("nc2-equinorm", "NC2: equal norms (the paper's Fig. 3)", curves.nc2_equinorm),
    Chart("nc2-equiangularity", "NC2: equal angles (the paper's Fig. 4)", curves.nc2_equiangularity),
    Chart("nc2-maximal-angle", "NC2: maximal angle (the paper's Fig. 5)", curves.nc2_maximal_angle),
    Chart("nc3", "NC3: self-duality", curves.nc3),
    Chart("nc4", "NC4: decisions other than the nearest class mean's", curves.nc4),
    Chart("accuracy", "Training and test error", curves.accuracy),
)
ROBUSTNESS = Chart("robustness", "Adversarial robustness", curves.robustness)


@matplotlib.rc_context(_RC)
def draw_study(folder: Path, out: Path | None = None) -> list[Path]:
    """Draw the paper's figures as networks × data sets for each loss of a study, and write Table 1.

    Args:
        folder: the folder of the study: its `study.json` lists the runs, or they lie directly in it.
        out: the folder of the files; by default `figures/` in `folder`.

    Returns:
        The files written, PNG and SVG: `decomposition` (Fig. 2; squared-error losses only), `nc1`, `nc2-equinorm`,
        `nc2-equiangularity`, `nc2-maximal-angle` (Figs. 3–5), `nc3`, `nc4`, `accuracy`, and `robustness` where it was
        recorded; for another loss than the paper's with that loss at the end, as in `nc1-ce`. Then `table1.md`,
        `table1.tex` and `table1.csv`.

    Raises:
        InputError: no run there, or it cannot be told which are the study's; damaged files; two runs that would share
            a panel.
    """
    study = Study.read(folder)
    target = folder / "figures" if out is None else out
    target.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for loss in study.losses:
        suffix = "" if loss == "mse" else f"-{loss}"
        decomposed = loss in losses.LOSSES and losses.LOSSES[loss].decomposed
        attacked = any("robustness" in each.history for each in study.of_loss(loss))
        for chart in (*[DECOMPOSITION] * decomposed, *CHARTS, *[ROBUSTNESS] * attacked):
            written += write_figure(draw_chart(study, loss, chart), target, f"{chart.name}{suffix}")
    return written + write_table1(study, target)


def draw_chart(study: Study, loss: str, chart: Chart) -> Figure:
    """One figure: networks × data sets, for one loss."""
    rows, columns = len(study.networks), len(study.datasets)
    panel = min(2.6, WIDTH / columns)
    width = max(panel * columns, 3.5)
    wide = width > 5
    figure = Figure(layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02))
    grid = figure.subplots(rows, columns, squeeze=False)
    common = _common_departures(study, loss)
    drawn: list[tuple[Axes, StudyRun]] = []
    note_lines = [0] * rows  # of the longest note in each row
    for row, network in enumerate(study.networks):
        for place, dataset in enumerate(study.datasets):
            axes, found = grid[row, place], study.find(network, dataset, loss)
            note = "" if found is None else plain(_note(found, common, characters=max(16, int(panel * 21))))
            axes.set_title(note, fontsize=_NOTE, color="#444444", pad=2.5, linespacing=1.1)
            note_lines[row] = max(note_lines[row], note.count("\n") + 1)
            if absent := _absence(found, chart):
                _leave_empty(axes, absent)
            elif found is not None:
                drawn.append((chart.draw(found.history, axes), found))
    named: list[Any] = []
    if drawn:
        figure.supylabel(drawn[0][0].get_ylabel(), fontsize=8)
        # the curves of the first panel are those of every panel
        handles, labels = drawn[0][0].get_legend_handles_labels()
        named = [handle for handle, label in zip(handles, labels, strict=True) if label != "zero_error"]
        if any(zero_error_epoch(found.history) is not None for _, found in drawn):
            named.append(Line2D([], [], label="zero training error", **style.ZERO_ERROR))
    _share_scales(list(grid.flat), drawn)
    if named:
        below: dict[str, Any] = {"loc": "outside lower center", "ncols": len(named) if wide else 3}
        figure.legend(handles=named, handlelength=1.8, columnspacing=1.6, **below)
    for row, network in enumerate(study.networks):
        grid[row, 0].set_ylabel(plain(network_title(network)), fontweight="bold")
    offset = (0, 4 + 1.2 * _NOTE * note_lines[0])  # above the longest note
    for place, (_, title) in enumerate(study.datasets):
        grid[-1, place].set_xlabel("epoch", labelpad=1)
        bold: dict[str, Any] = {"ha": "center", "va": "bottom", "weight": "bold", "fontsize": 7.5}
        grid[0, place].annotate(plain(title), (0.5, 1), offset, "axes fraction", "offset points", **bold)
    title = _title(study, loss, chart, common, int(width * 17))
    figure.suptitle(title, fontsize=8, linespacing=1.3)
    around = 0.14 * (title.count("\n") + 1) + (0.7 if wide else 0.85)  # title, data sets, epochs, legend
    figure.set_size_inches(width, rows * (0.16 + 0.62 * panel) + 0.09 * sum(note_lines) + around)
    return figure


def _common_departures(study: Study, loss: str) -> tuple[str, ...]:
    """The departures from the paper that all of several runs share; the title names them once."""
    first, *others = study.of_loss(loss)
    shared = (*first.reduced, *first.options) if others else ()
    return tuple(words for words in shared if all(words in each.departures for each in others))


def _note(found: StudyRun, common: Sequence[str], characters: int) -> str:
    """Above a panel: the network, in what it alone departs from the paper, how it ended, and which seed is drawn."""
    seeds = f"seed {found.config.seed}, the lowest of {len(found.seeds)}" if len(found.seeds) > 1 else ""
    own = [words for words in (*found.reduced, *found.options) if words not in common]
    network = "; ".join(words for words in (found.model_title, found.other_depth) if words)
    state = "" if found.history.empty else found.unfinished  # an empty panel says it itself
    lines = (network, _enumerate(own), state, seeds)
    return "\n".join(textwrap.fill(line, characters) for line in lines if line)


def _enumerate(departures: Sequence[str]) -> str:
    """Departures one after the other; a line breaks only between two of them."""
    return ", ".join(words.replace(" ", "\N{NO-BREAK SPACE}") for words in departures)


def _absence(found: StudyRun | None, chart: Chart) -> str:
    """Why a panel stays empty. Robustness is optional; any other measurement that is missing is an error."""
    if found is None:
        return "not run"
    if found.history.empty:
        return found.unfinished
    return "robustness\nnot recorded" if chart is ROBUSTNESS and "robustness" not in found.history else ""


def _leave_empty(axes: Axes, why: str) -> None:
    axes.set_facecolor("#F2F2F2")
    axes.grid(False)
    centred: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.5, 0.5, textwrap.fill(why, 18), color=style.GREY, fontsize=7, **centred)


def _share_scales(panels: Sequence[Axes], drawn: Sequence[tuple[Axes, StudyRun]]) -> None:
    """One scale for all panels, so that they can be compared; only the outer ones carry its numbers."""
    last = max((found.history.index[-1] for _, found in drawn), default=PAPER_EPOCHS)
    limits = [axes.get_ylim() for axes, _ in drawn]
    scale = drawn[0][0].get_yscale() if drawn else "linear"
    for axes in panels:
        style.epoch_axis(axes, [1, last], None, label=False)
        axes.set_xlabel("")
        axes.set_ylabel("")
        if scale == "symlog":
            curves.share_axis(axes, max(found.history["num_examples"].iloc[-1] for _, found in drawn))
        elif drawn:
            axes.set_yscale(scale)
        if drawn:
            axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        for line in axes.lines:
            line.set_linewidth(0.6 * line.get_linewidth())
        axes.label_outer()


def _title(study: Study, loss: str, chart: Chart, common: Sequence[str], characters: int) -> str:
    """What the figure shows, and in what the runs are not the paper's."""
    lines = [f"{chart.title}; trained with {loss_title(loss)}"]
    runs = study.of_loss(loss)
    if any(each.departures for each in runs):
        reduced = "REDUCED: " if any(each.reduced or each.other_depth for each in runs) else ""
        remarks = [f"everywhere {_enumerate(common)}"] if common else []
        if any(set(each.departures) != set(common) for each in runs):
            remarks.append("each panel says what else" if common else "each panel says in what")
        protocol = "not the paper's protocol of full width, all examples and 350 epochs of tuned SGD"
        lines.append(f"{reduced}{'; '.join([protocol, *remarks])}")
    return "\n".join(plain(textwrap.fill(line, characters)) for line in lines)
