"""The figures of one run: a page that shows it at a glance, its portrait, and every curve."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuralcollapse._checks import InputError
from neuralcollapse.figures import curves, style
from neuralcollapse.figures.curves import Curve
from neuralcollapse.figures.history import read_history, zero_error_epoch
from neuralcollapse.figures.portrait import portrait, portrait_classes, portrait_legend, project
from neuralcollapse.figures.titles import objective, subject
from neuralcollapse.figures.writing import write_figure
from neuralcollapse.training.run_directory import Run

CURVES: dict[str, tuple[Curve, ...]] = {
    "nc2": (curves.nc2_equinorm, curves.nc2_equiangularity, curves.nc2_maximal_angle),
    "decomposition": (curves.decomposition,),
    "nc1": (curves.nc1,),
    "nc3": (curves.nc3,),
    "nc4": (curves.nc4,),
    "accuracy": (curves.accuracy,),
    "snr": (curves.snr,),
}
"""The panels of each figure, by the name of its files."""


@matplotlib.rc_context(style.RC)
def draw_run(run_dir: str | Path, out: str | Path | None = None) -> list[Path]:
    """Draw every figure of a run from its directory alone.

    Args:
        run_dir: the run directory; history, configuration and snapshots are read.
        out: the folder of the pictures; by default `figures/` in the run directory.

    Returns:
        The files written, PNG and SVG of each: `overview`, `portrait` and `portrait-3d` (Fig. 1), `nc2` (Figs. 3–5),
        `decomposition` (Fig. 2), `nc1`, `nc3`, `nc4`, `accuracy`, `snr`, and `robustness` where the run measured it.
        The first three need snapshots.

    Raises:
        InputError: no run, no measured epoch yet, or a damaged file.
    """
    run = Run.open(run_dir)
    history = read_history(run)
    if history.empty:
        raise InputError(f"{run_dir} has no measured epoch yet; continue with: neuralcollapse run --resume {run_dir}")
    folder = run.path / "figures" if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    if snapshots := list(run.snapshots()):
        classes = portrait_classes(run.snapshot(snapshots[-1]), 4)
        written += write_figure(_overview(run, history, snapshots, classes[:3]), folder, "overview")
        written += write_figure(_portraits(run, history, snapshots, classes[:3]), folder, "portrait")
        if len(classes) == 4:
            written += write_figure(_portraits(run, history, snapshots, classes), folder, "portrait-3d")
    else:
        warnings.warn(f"{run_dir} has no snapshots, so there is no portrait", UserWarning, stacklevel=3)
    robustness = {"robustness": (curves.robustness,)} if "robustness" in history else {}
    for name, panels in {**CURVES, **robustness}.items():
        written += write_figure(draw_panels(run, history, *panels), folder, name)
    return written


def draw_panels(run: Run, history: pd.DataFrame, *panels: Curve) -> Figure:
    """Curves of a run beside one another, under its title."""
    width, height = style.PANEL
    figure = Figure(figsize=(width * len(panels), height))
    for position, draw in enumerate(panels, start=1):
        style.legend(draw(history, figure.add_subplot(1, len(panels), position)))
    _title(figure, run, history)
    return figure


def _overview(run: Run, history: pd.DataFrame, snapshots: list[int], classes: tuple[int, ...]) -> Figure:
    """The run on one page: collapse seen, then measured."""
    figure = Figure(figsize=(10.2, 6.2))
    grid = figure.add_gridspec(2, 3)
    for place, epoch in enumerate((snapshots[0], snapshots[-1])):
        _portrait_at(run, history, epoch, classes, figure.add_subplot(grid[0, place]))
    panels = (curves.decomposition, curves.nc1, curves.nc2_maximal_angle, curves.nc3)
    for place, draw in enumerate(panels, start=2):
        style.legend(draw(history, figure.add_subplot(grid[place // 3, place % 3])))
    _title(figure, run, history)
    _explain_symbols(figure, run, classes)
    return figure


def _portraits(run: Run, history: pd.DataFrame, snapshots: list[int], classes: tuple[int, ...]) -> Figure:
    """Fig. 1 at the first snapshot, at the first epoch without a training error, and at the last snapshot."""
    epochs = sorted(set(snapshots) & {snapshots[0], zero_error_epoch(history), snapshots[-1]})
    figure = Figure(figsize=(2.6 * len(epochs), 3.3))
    projection = "3d" if len(classes) == 4 else None
    for place, epoch in enumerate(epochs, start=1):
        axes = figure.add_subplot(1, len(epochs), place, projection=projection)
        _portrait_at(run, history, epoch, classes, axes)
    style.figure_title(figure, f"{subject(run.config)}, {objective(run.config)}", 9)
    _explain_symbols(figure, run, classes)
    return figure


def _portrait_at(run: Run, history: pd.DataFrame, epoch: int, classes: tuple[int, ...], axes: Axes) -> None:
    portrait(project(run.snapshot(epoch), classes), axes)
    zero = ", zero training error" if epoch == zero_error_epoch(history) else ""
    axes.set_title(f"epoch {epoch}{zero}", pad=2)


def _title(figure: Figure, run: Run, history: pd.DataFrame) -> None:
    epoch = zero_error_epoch(history)
    zero = "" if epoch is None else f"; red line: zero training error, epoch {epoch}"
    narrow = figure.get_figwidth() <= style.PANEL[0]  # a single panel is too narrow for one line
    separator, size = ("\n", 7.5) if narrow else (", ", 9)
    style.figure_title(figure, f"{subject(run.config)}{separator}{objective(run.config)}{zero}", size)


def _explain_symbols(figure: Figure, run: Run, classes: tuple[int, ...]) -> None:
    handles = portrait_legend(classes, run.config.class_names)
    per_row = len(handles) if figure.get_figwidth() > 7 else 4
    figure.legend(handles=handles, loc="outside lower center", ncols=per_row, fontsize=8, handletextpad=0.4)
