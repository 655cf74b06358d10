"""Fig. 1 moving: the portrait of a run, a frame for each epoch with a snapshot; and how any animation is written."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neuralcollapse._checks import InputError
from neuralcollapse._files import replacing
from neuralcollapse.figures import style
from neuralcollapse.figures.curves import nc1
from neuralcollapse.figures.portrait import classes_of, draw_projection, legend_handles, project
from neuralcollapse.figures.runview import RunView

DPI = 110
_SECOND_FRAMES = 6  # an epoch changes much in the beginning: slow enough to follow
_REST = 12  # the last epoch stays on for two seconds


def animate_run(run_dir: Path, out: Path | None = None) -> list[Path]:
    """Write `portrait.gif` and `portrait.mp4`: three classes in the plane of their simplex, with error and NC1.

    Every frame is a measured epoch. Nothing is drawn between two of them: how the network went from one to the other
    was not measured, and may be far from a straight line.

    Args:
        run_dir: the run directory, with snapshots of at least two epochs.
        out: where the files go; by default `figures/` in the run directory.

    Raises:
        InputError: no run, fewer than two snapshots, or no imageio-ffmpeg for the MP4; the GIF is then still written.
    """
    run = RunView.read(run_dir)
    epochs = sorted(run.snapshots.keys() & set(run.epochs))  # a killed process may leave a snapshot without its record
    if len(epochs) < 2:
        raise InputError(f"{run_dir} has {len(epochs)} analysed epochs with a snapshot; an animation needs at least 2")
    folder = run_dir / "figures" if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(style.RC):  # type: ignore[arg-type]
        figure, frame = _moving_portrait(run, epochs)
        frames = [*epochs, *[epochs[-1]] * _REST]
        gif = write_gif(figure, frame, frames, folder / "portrait.gif", _SECOND_FRAMES)
        return [gif, write_mp4(figure, frame, frames, folder / "portrait.mp4", _SECOND_FRAMES)]


def write_gif(figure: Figure, frame: Callable[[Any], None], frames: list[Any], path: Path, fps: int) -> Path:
    """Write a GIF, whole or not at all; frames alike that follow one another become one that lasts as long.

    Args:
        figure: what `frame` draws into.
        frame: draws one frame.
        frames: what it is called with, one after the other.
        path: the file.
        fps: frames a second.
    """
    return _write(figure, frame, frames, path, PillowWriter(fps=fps))


def write_mp4(figure: Figure, frame: Callable[[Any], None], frames: list[Any], path: Path, fps: int) -> Path:
    """Write an H.264 film that every player shows; arguments as of `write_gif`.

    Raises:
        InputError: imageio-ffmpeg, which brings the encoder, is not installed.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        raise InputError(f"{path} needs imageio-ffmpeg: pip install 'neuralcollapse[video]'") from None
    exact = ["-pix_fmt", "yuv420p", "-fflags", "+bitexact", "-flags:v", "+bitexact"]  # the same bytes every time
    with matplotlib.rc_context({"animation.ffmpeg_path": get_ffmpeg_exe()}):
        return _write(figure, frame, frames, path, FFMpegWriter(fps=fps, codec="libx264", extra_args=exact))


def _write(
    figure: Figure, frame: Callable[[Any], None], frames: list[Any], path: Path, writer: AbstractMovieWriter
) -> Path:
    FigureCanvasAgg(figure)
    try:
        with replacing(path) as temporary, writer.saving(figure, str(temporary), DPI):
            for content in frames:
                frame(content)
                writer.grab_frame()
    except subprocess.CalledProcessError as error:
        raise InputError(f"cannot write {path}: the encoder ended with code {error.returncode}") from error
    return path


def _moving_portrait(run: RunView, epochs: list[int]) -> tuple[Figure, Callable[[int], None]]:
    """The figure, and what draws one epoch into it: above the portrait, below it NC1 so far."""
    chosen = classes_of(run, 3)
    records = {int(record["epoch"]): record for record in run.records}
    views = {epoch: project(run.snapshot(epoch), chosen) for epoch in epochs}
    extent = np.concatenate([np.abs(np.concatenate(view.features)).ravel() for view in views.values()])
    reach = float(np.clip(np.quantile(extent, 0.98), 1.15, 1.6))  # one for all frames: nothing jumps
    figure = Figure(figsize=(4.6, 5.8))  # an even number of dots both ways, as the film's format wants
    grid = figure.add_gridspec(2, 1, height_ratios=(3.4, 1))
    portrait, below = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    nc1(below, run)
    below.set_ylabel("NC1")
    below.lines[0].set_alpha(0.35)
    (now,) = below.plot([], [], marker="o", color=style.BLACK, markersize=6, zorder=5)
    figure.suptitle(f"{run.subject}\n{run.objective}", fontsize=8)
    figure.legend(handles=legend_handles(run, chosen), loc="outside lower center", ncols=4, fontsize=7)

    def frame(epoch: int) -> None:
        portrait.clear()
        draw_projection(portrait, views[epoch], reach=reach)
        record = records[epoch]
        error = 100 * float(record["train_error"])
        portrait.set_title(f"epoch {epoch}   training error {error:.3g} %   NC1 {record['nc1']:.2g}", fontsize=9)
        now.set_data([epoch], [record["nc1"]])

    frame(epochs[0])
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once: no frame shifts, and each is drawn in a quarter of the time
    return figure, frame
