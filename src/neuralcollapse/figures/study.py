"""The paper's figures of a whole study: each column a data set, each row a network, each panel one run."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from neuralcollapse.figures import curves, style
from neuralcollapse.figures.runview import RunView, plain
from neuralcollapse.figures.save import save
from neuralcollapse.figures.studyview import PAPER_EPOCHS, Cell, Study, loss_title, network_title
from neuralcollapse.training import losses

WIDTH = 7.2
"""Inches of a page's two columns: the figures are drawn at the size they are printed at."""
_NOTE = 5.6
_RC: dict[str, Any] = {
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
_ABSENT = "#F2F2F2"


@dataclass(frozen=True)
class Chart:
    """One figure of the study.

    Args:
        name: of the files, before the loss.
        title: what it shows, for its head.
        draw: draws one run into one panel.
    """

    name: str
    title: str
    draw: Callable[[Axes, RunView], None]


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


def draw_study(study: Study, folder: Path) -> list[Path]:
    """Draw every figure of a study, for each loss that occurs in it.

    Args:
        study: the runs.
        folder: where the pictures go; it exists.

    Returns:
        The files written, PNG and SVG: `decomposition` (Fig. 2; squared-error losses only), `nc1`, `nc2-equinorm`,
        `nc2-equiangularity`, `nc2-maximal-angle` (Figs. 3–5), `nc3`, `nc4`, `accuracy`, and `robustness` where it was
        recorded; for another loss than the paper's with that loss at the end, as in `nc1-ce`.
    """
    written: list[Path] = []
    with matplotlib.rc_context(_RC):  # type: ignore[arg-type]
        for loss in study.losses:
            suffix = "" if loss == "mse" else f"-{loss}"
            for chart in _charts(study, loss):
                written += save(array(study, loss, chart), folder, f"{chart.name}{suffix}")
    return written


def array(study: Study, loss: str, chart: Chart) -> Figure:
    """One figure: networks × data sets, for one loss."""
    rows, columns = len(study.networks), len(study.datasets)
    panel = min(2.6, WIDTH / columns)
    width = max(panel * columns, 3.5)
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    figure = Figure(layout=layout)
    grid = figure.subplots(rows, columns, squeeze=False)
    drawn: list[tuple[Axes, RunView]] = []
    common = _common(study, loss)
    lines = [0] * rows  # of the longest note in each row
    for row, network in enumerate(study.networks):
        for column, dataset in enumerate(study.datasets):
            axes, cell = grid[row, column], study.cell(network, dataset, loss)
            note = "" if cell is None else plain(_note(cell, common, characters=max(16, int(panel * 21))))
            axes.set_title(note, fontsize=_NOTE, color="#444444", pad=2.5, linespacing=1.1)
            lines[row] = max(lines[row], note.count("\n") + 1)
            if cell is not None and cell.run is not None and _has(cell.run, chart):
                chart.draw(axes, cell.run)
                drawn.append((axes, cell.run))
            else:
                _absent(axes, _why(cell, chart))
    if drawn:
        figure.supylabel(drawn[0][0].get_ylabel(), fontsize=8)
    named = _legend(drawn)
    _align(grid, drawn)
    for row, network in enumerate(study.networks):
        grid[row, 0].set_ylabel(plain(network_title(network)), fontweight="bold")
    for column, (_, title) in enumerate(study.datasets):
        grid[-1, column].set_xlabel("epoch", labelpad=1)
        _column_head(grid[0, column], plain(title), lines[0])
    if named:
        per_row = len(named) if width > 5 else 3
        figure.legend(handles=named, loc="outside lower center", ncols=per_row, handlelength=1.8, columnspacing=1.6)
    head = _head(study, loss, chart, int(width * 17))
    figure.suptitle(head, fontsize=8, linespacing=1.3)
    around = 0.14 * (head.count("\n") + 1) + (0.7 if width > 5 else 0.85)  # head, data sets, epochs, legend
    figure.set_size_inches(width, rows * (0.16 + 0.62 * panel) + 0.09 * sum(lines) + around)
    return figure


def _charts(study: Study, loss: str) -> list[Chart]:
    robust = any(cell.run is not None and _has(cell.run, ROBUSTNESS) for cell in study.of_loss(loss))
    decomposed = loss in losses.LOSSES and losses.LOSSES[loss].decomposed
    return [*((DECOMPOSITION,) if decomposed else ()), *CHARTS, *((ROBUSTNESS,) if robust else ())]


def _has(run: RunView, chart: Chart) -> bool:
    """Only robustness is optional; any other measurement that a history lacks is an error, which names it."""
    return chart is not ROBUSTNESS or run.measured("robustness")


def _common(study: Study, loss: str) -> tuple[str, ...]:
    """The departures from the paper that all runs share, where there are several; their head says them once."""
    first, *others = study.of_loss(loss)
    shared = (*first.reduced, *first.options) if others else ()
    return tuple(said for said in shared if all(said in cell.departures for cell in others))


def _note(cell: Cell, common: tuple[str, ...], characters: int) -> str:
    """Above a panel: the network, in what it alone is reduced, how it ended, and which of several seeds is drawn."""
    seeds = f"seed {cell.seed}, the lowest of {len(cell.seeds)}" if len(cell.seeds) > 1 else ""
    own = [part for part in (*cell.reduced, *cell.options) if part not in common]
    network = "; ".join(part for part in (cell.model_title, cell.other_depth) if part)
    state = "" if cell.run is None else cell.unfinished  # an empty panel says it itself
    lines = (network, _listed(own), state, seeds)
    return "\n".join(textwrap.fill(line, characters) for line in lines if line)


def _listed(words: Sequence[str]) -> str:
    """Words one after the other; a line breaks between two of them only."""
    return ", ".join(word.replace(" ", "\N{NO-BREAK SPACE}") for word in words)


def _why(cell: Cell | None, chart: Chart) -> str:
    if cell is None:
        return "not run"
    if cell.run is None:
        return cell.unfinished
    return f"{chart.name}\nnot recorded"


def _absent(axes: Axes, text: str) -> None:
    axes.set_facecolor(_ABSENT)
    axes.grid(False)
    shown = textwrap.fill(text, 18)
    axes.text(0.5, 0.5, shown, transform=axes.transAxes, ha="center", va="center", color=style.GREY, fontsize=7)


def _legend(drawn: list[tuple[Axes, RunView]]) -> list[Any]:
    """The curves of the first panel, which are those of every panel, and the red line where one has it."""
    if not drawn:
        return []
    handles, labels = drawn[0][0].get_legend_handles_labels()
    named = [handle for handle, label in zip(handles, labels, strict=True) if label != "zero_error"]
    if any(run.zero_error_epoch is not None for _, run in drawn):
        red: dict[str, Any] = {"color": style.ZERO_ERROR, "linestyle": (0, (4, 2)), "linewidth": 1.0}
        named.append(Line2D([], [], label="zero training error", **red))
    return named


def _align(grid: Any, drawn: list[tuple[Axes, RunView]]) -> None:
    """One scale for all panels, so that they can be compared; only the outer ones carry its numbers."""
    last = max((max(run.epochs) for _, run in drawn), default=PAPER_EPOCHS)
    limits = [axes.get_ylim() for axes, _ in drawn]
    scale = drawn[0][0].get_yscale() if drawn else "linear"
    for axes in grid.flat:
        style.epoch_axis(axes, [1, last], None, label=False)
        axes.set_xlabel("")
        axes.set_ylabel("")
        if scale == "symlog":
            curves.share_axis(axes, max(run.records[-1]["num_examples"] for _, run in drawn))
        elif drawn:
            axes.set_yscale(scale)
        if drawn:
            axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        for line in axes.lines:
            line.set_linewidth(0.6 * line.get_linewidth())
        axes.label_outer()


def _column_head(axes: Axes, title: str, lines: int) -> None:
    above = (0, 4 + 1.2 * _NOTE * lines)
    axes.annotate(
        title, (0.5, 1), above, "axes fraction", "offset points", ha="center", va="bottom", weight="bold", fontsize=7.5
    )


def _head(study: Study, loss: str, chart: Chart, characters: int) -> str:
    lines = [f"{chart.title}; trained with {loss_title(loss)}"]
    cells, common = list(study.of_loss(loss)), _common(study, loss)
    if any(cell.departures for cell in cells):
        reduced = "REDUCED: " if any(cell.reduced or cell.other_depth for cell in cells) else ""
        everywhere = f"everywhere {_listed(common)}" if common else ""
        own = "each panel says in what" if not common else "each panel says what else"
        alike = all(set(cell.departures) == set(common) for cell in cells)
        said = "; ".join(part for part in (everywhere, "" if alike else own) if part)
        lines.append(
            f"{reduced}not the paper's protocol of full width, all examples and 350 epochs of tuned SGD; {said}"
        )
    return "\n".join(plain(textwrap.fill(line, characters)) for line in lines)
