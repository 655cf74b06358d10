"""From run directories to figures and tables; nothing here trains or measures."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits import mplot3d  # noqa: F401  (registers the "3d" projection)

from neuralcollapse._checks import InputError
from neuralcollapse.figures import curves, style
from neuralcollapse.figures.animation import animate_run
from neuralcollapse.figures.portrait import classes_of, legend_handles, portrait
from neuralcollapse.figures.runview import RunView
from neuralcollapse.figures.save import save
from neuralcollapse.figures.study import draw_study
from neuralcollapse.figures.studyview import Study
from neuralcollapse.figures.table import write_tables

__all__ = ["animate_run", "make", "make_all", "make_study"]

Draw = Callable[[Axes, RunView], None]

CURVES: dict[str, Draw] = {
    "decomposition": curves.decomposition,
    "nc1": curves.nc1,
    "nc3": curves.nc3,
    "nc4": curves.nc4,
    "accuracy": curves.accuracy,
    "snr": curves.snr,
}
ON_REQUEST: dict[str, Draw] = {"robustness": curves.robustness}
"""By the column of the history; drawn where the run has it."""
NC2: tuple[Draw, ...] = (curves.nc2_equinorm, curves.nc2_equiangularity, curves.nc2_maximal_angle)


def make(path: Path, out: Path | None = None, *, animate: bool = False) -> list[Path]:
    """Draw a run, or a whole study.

    Args:
        path: a run directory, or the folder of a study.
        out: where the files go; by default `figures/` in `path`.
        animate: draw the portrait of a run moving, too.

    Raises:
        InputError: neither a run nor a folder of runs, and whatever `make_all`, `make_study` and `animate_run` raise.
    """
    if (path / "config.json").is_file():
        return make_all(path, out) + (animate_run(path, out) if animate else [])
    if animate:
        raise InputError(f"--animate shows one run over its epochs, and {path} is no run directory")
    return make_study(path, out)


def make_study(folder: Path, out: Path | None = None) -> list[Path]:
    """Draw the paper's figures as networks × data sets, and write Table 1.

    Args:
        folder: of a study: its `study.json` lists the runs, or they lie directly in it.
        out: where the files go; by default `figures/` in `folder`.

    Returns:
        The files written: those of `draw_study`, then `table1.md`, `table1.tex` and `table1.csv`.

    Raises:
        InputError: no run there, or it cannot be told which are the study's; damaged files; two runs that would share
            a panel.
    """
    study = Study.read(folder)
    target = folder / "figures" if out is None else out
    target.mkdir(parents=True, exist_ok=True)
    return draw_study(study, target) + write_tables(study, target)


def make_all(run_dir: str | Path, out: str | Path | None = None) -> list[Path]:
    """Draw every figure of a run from its directory alone.

    Args:
        run_dir: the run directory; history, configuration and snapshots are read.
        out: where the pictures go; by default `figures/` in the run directory.

    Returns:
        The files written, PNG and SVG of each: `overview`, `decomposition` (Fig. 2), `nc1`, `nc2` (Figs. 3–5), `nc3`,
        `nc4`, `accuracy`, `snr`, `portrait` and `portrait-3d` (Fig. 1). The portraits need snapshots;
        `robustness` is there when the run measured it.

    Raises:
        InputError: no run, no analysed epoch yet, or a damaged file.
    """
    run_dir = Path(run_dir)
    run = RunView.read(run_dir)
    folder = run_dir / "figures" if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with matplotlib.rc_context(style.RC):  # type: ignore[arg-type]
        if run.snapshots:
            written += save(_overview(run), folder, "overview")
            written += save(_portraits(run, 3), folder, "portrait")
            if len(classes_of(run, 4)) == 4:
                written += save(_portraits(run, 4), folder, "portrait-3d")
        else:
            warnings.warn(f"{run_dir} has no snapshots, so there is no portrait", UserWarning, stacklevel=2)
        written += save(_row(run, NC2), folder, "nc2")
        asked = {name: draw for name, draw in ON_REQUEST.items() if run.measured(name)}
        for name, draw in {**CURVES, **asked}.items():
            written += save(_row(run, (draw,)), folder, name)
    return written


def _row(run: RunView, draws: tuple[Draw, ...]) -> Figure:
    """Panels beside one another, under the run's title."""
    width, height = style.PANEL
    figure = Figure(figsize=(width * len(draws), height))
    for position, draw in enumerate(draws, start=1):
        axes = figure.add_subplot(1, len(draws), position)
        draw(axes, run)
        style.legend(axes)
    _head(figure, run)
    return figure


def _portraits(run: RunView, classes: int) -> Figure:
    """The first analysed epoch, the first without a training error, and the last."""
    chosen = classes_of(run, classes)
    landmarks = (min(run.snapshots), run.zero_error_epoch, max(run.snapshots))
    epochs = sorted({epoch for epoch in landmarks if epoch in run.snapshots and epoch is not None})
    figure = Figure(figsize=(2.6 * len(epochs), 3.3))
    projection = "3d" if len(chosen) == 4 else None
    for position, epoch in enumerate(epochs, start=1):
        portrait(figure.add_subplot(1, len(epochs), position, projection=projection), run, epoch, chosen)
    style.head(figure, f"{run.subject}, {run.objective}", 9)
    _below(figure, run, chosen)
    return figure


def _overview(run: RunView) -> Figure:
    """The run on one page: collapse seen, then measured."""
    figure = Figure(figsize=(10.2, 6.2))
    chosen = classes_of(run, 3)
    grid = figure.add_gridspec(2, 3)
    for column, epoch in enumerate((min(run.snapshots), max(run.snapshots))):
        portrait(figure.add_subplot(grid[0, column]), run, epoch, chosen)
    panels: tuple[tuple[int, int, Draw], ...] = (
        (0, 2, curves.decomposition),
        (1, 0, curves.nc1),
        (1, 1, curves.nc2_maximal_angle),
        (1, 2, curves.nc3),
    )
    for row, column, draw in panels:
        axes = figure.add_subplot(grid[row, column])
        draw(axes, run)
        style.legend(axes)
    _head(figure, run)
    _below(figure, run, chosen)
    return figure


def _head(figure: Figure, run: RunView) -> None:
    zero = "" if run.zero_error_epoch is None else f"; red line: zero training error, epoch {run.zero_error_epoch}"
    # a single panel is too narrow for one line
    separator = "\n" if figure.get_figwidth() <= style.PANEL[0] else ", "
    style.head(figure, f"{run.subject}{separator}{run.objective}{zero}", 9 if separator == ", " else 7.5)


def _below(figure: Figure, run: RunView, classes: tuple[int, ...]) -> None:
    handles = legend_handles(run, classes)
    per_row = len(handles) if figure.get_figwidth() > 7 else 4
    figure.legend(handles=handles, loc="outside lower center", ncols=per_row, fontsize=8, handletextpad=0.4)
