"""Fig. 1 of the paper over time: the portrait of a run or of a flow, with NC1 beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuralcollapse._checks import InputError
from neuralcollapse.figures.overview import explain
from neuralcollapse.figures.portrait import Projection, portrait, portrait_classes, project
from neuralcollapse.figures.study_runs import Study
from neuralcollapse.figures.writing import write_animation
from neuralcollapse.plots import style
from neuralcollapse.plots.options import Drawing
from neuralcollapse.training.run_directory import Run

FPS, SECONDS = 8, 8
"""Frames per second, and the length of the film without its end, which is shown for two seconds."""


def animate_run(run_dir: Path, folder: Path) -> list[Path]:
    """Write `portrait.gif` and `portrait.mp4` of a run with snapshots of at least two epochs.

    Raises:
        InputError: no run, fewer than two snapshots, or no imageio-ffmpeg for the MP4; the GIF is then still written.
    """
    run, study = Run.open(run_dir), Study.read(run_dir)
    history = study.history()
    nc1 = history.select(metric="nc1").to_frame().set_index("epoch")["value"].to_dict()
    # a process that was killed may have left a snapshot without its line of the history
    epochs = [epoch for epoch in run.snapshots() if epoch in nc1]
    if len(epochs) < 2:
        raise InputError(f"{run_dir} has {len(epochs)} measured epochs with a snapshot; an animation needs at least 2")
    classes = portrait_classes(run.snapshot(epochs[-1]), 3)
    views = {float(epoch): project(run.snapshot(epoch), classes, run.config.class_names) for epoch in epochs}
    title = f"{study.runs[0].model_title} on {study.runs[0].records.dataset}, {study.runs[0].loss_title} loss"

    def curve(ax: Axes) -> Axes:
        return history.plot("nc1", hue="loss", legend=False, ax=ax)

    return animate(views, nc1, curve, "epoch", title, folder / "portrait")


def animate(
    views: Mapping[float, Projection],
    nc1: Mapping[float, float],
    curve: Callable[[Axes], Axes],
    clock: str,
    title: str,
    path: Path,
    endings: Sequence[str] = ("gif", "mp4"),
) -> list[Path]:
    """Write a film, by default as GIF and MP4: a portrait that moves, its legend, and NC1 with a dot that moves along.

    The film's time is the logarithm of the epoch, so that each decade is as long as any other. Every frame is what was
    measured last: between two measurements nothing was, so nothing is made up. The frame draws in as the classes
    collapse, never out, and nothing is cut off.

    Args:
        views: by epoch or time, rising.
        nc1: of every one of them.
        curve: draws NC1.
        clock: what the axis of time is called, "epoch" or "time".
        title: above it.
        path: of the files, without an ending; endings: what to write.
    """
    times = list(views)
    axes = views[times[0]].means.shape[1]  # one where there are two classes
    frame, low, high = {}, np.full(axes, np.inf), np.full(axes, -np.inf)
    for at in reversed(times):  # backwards, a frame that grows
        middle, half = views[at].frame(limit=np.inf)
        low, high = np.minimum(low, middle - half), np.maximum(high, middle + half)
        frame[at] = (low + high) / 2, 0.5 * float((high - low).max())
    with matplotlib.rc_context(style.rc(Drawing(style="iclr"))):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")  # an even number of dots both ways, for the film
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        curve(right).set_xlabel(clock)
        (now,) = right.plot([], [], "o", color=style.BLACK, zorder=6)
        style.title(figure, title)
        explain(figure, views[times[0]], right)

        def draw(at: float) -> None:
            left.clear()
            portrait(views[at], left, frame=frame[at])
            left.set_title(f"{clock} {at:.4g}")
            right.set_title(f"NC1 {nc1[at]:.2g}", pad=10)
            now.set_data([at], [nc1[at]])

        draw(times[0])
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once: no frame shifts, and each is drawn in a quarter of the time
        clocked = np.geomspace(times[0], times[-1], FPS * SECONDS)
        frames = [times[int(np.searchsorted(times, at * (1 + 1e-9), side="right")) - 1] for at in clocked]
        frames += [times[-1]] * (2 * FPS)
        path.parent.mkdir(parents=True, exist_ok=True)
        return [write_animation(figure, draw, frames, path.with_name(f"{path.name}.{end}"), FPS) for end in endings]
