"""Fig. 1 of the paper over time: the portrait of a run, with a frame for each epoch that has a snapshot."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from neuralcollapse._checks import InputError
from neuralcollapse.figures import style
from neuralcollapse.figures.curves import nc1
from neuralcollapse.figures.history import column, read_history
from neuralcollapse.figures.portrait import portrait, portrait_classes, portrait_legend, project
from neuralcollapse.figures.titles import objective, subject
from neuralcollapse.figures.writing import write_animation
from neuralcollapse.training.run_directory import Run

FPS = 6
"""Frames per second: much changes in an epoch at first, so they pass slowly enough to follow."""
_PAUSE = 2 * FPS  # the last epoch is shown for two seconds


@matplotlib.rc_context(style.RC)
def animate_run(run_dir: Path, out: Path | None = None) -> list[Path]:
    """Write `portrait.gif` and `portrait.mp4`: three classes in the plane of their simplex, with error and NC1.

    Every frame is a measured epoch. Nothing is drawn between two of them: how the network went from one to the other
    was not measured, and may be far from a straight line.

    Args:
        run_dir: the run directory, with snapshots of at least two epochs.
        out: the folder of the files; by default `figures/` in the run directory.

    Raises:
        InputError: no run, fewer than two snapshots, or no imageio-ffmpeg for the MP4; the GIF is then still written.
    """
    run = Run.open(run_dir)
    history = read_history(run)
    # a process that was killed may have left a snapshot without its line of the history
    epochs = [epoch for epoch in run.snapshots() if epoch in history.index]
    if len(epochs) < 2:
        raise InputError(f"{run_dir} has {len(epochs)} measured epochs with a snapshot; an animation needs at least 2")
    classes = portrait_classes(run.snapshot(epochs[-1]), 3)
    views = {epoch: project(run.snapshot(epoch), classes) for epoch in epochs}
    extent = np.concatenate([np.abs(np.concatenate(view.features)).ravel() for view in views.values()])
    reach = float(np.clip(np.quantile(extent, 0.98), 1.15, 1.6))  # one for all frames: nothing jumps
    measured = dict(zip(history.index, column(history, "nc1"), strict=True))

    figure = Figure(figsize=(4.6, 5.8))  # an even number of dots both ways, as the film's format wants
    grid = figure.add_gridspec(2, 1, height_ratios=(3.4, 1))
    above, below = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    nc1(history, below).set_ylabel("NC1")
    below.lines[0].set_alpha(0.35)
    (now,) = below.plot([], [], marker="o", color=style.BLACK, markersize=6, zorder=5)
    figure.suptitle(f"{subject(run.config)}\n{objective(run.config)}", fontsize=8)
    handles = portrait_legend(classes, run.config.class_names)
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=7)

    def draw(epoch: int) -> None:
        above.clear()
        portrait(views[epoch], above, reach=reach)
        error = 100 * history.at[epoch, "train_error"]
        above.set_title(f"epoch {epoch}   training error {error:.3g} %   NC1 {measured[epoch]:.2g}", fontsize=9)
        now.set_data([epoch], [measured[epoch]])

    draw(epochs[0])
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once: no frame shifts, and each is drawn in a quarter of the time
    folder = run.path / "figures" if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    frames = [*epochs, *[epochs[-1]] * _PAUSE]
    return [write_animation(figure, draw, frames, folder / name, FPS) for name in ("portrait.gif", "portrait.mp4")]
