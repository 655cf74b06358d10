"""Write figures and animations to files, each whole or not at all; the same content gives the same bytes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neuralcollapse._checks import InputError
from neuralcollapse._errors import install
from neuralcollapse._files import replacing
from neuralcollapse.figures.captions import latex, readable
from neuralcollapse.plots.options import Drawing

T = TypeVar("T")
_NO_DATE: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


def write_figure(figure: Figure, folder: Path, name: str, caption: str, drawing: Drawing) -> list[Path]:
    """Write a figure in each format, and its caption as `name.tex`, ready for \\input, and `name.txt`."""
    folder.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    if figure.get_suptitle() and not drawing.title:
        figure.suptitle("")
    paths = []
    for ending in dict.fromkeys(drawing.format):
        path = folder / f"{name}.{ending}"
        with replacing(path) as temporary:
            figure.savefig(temporary, format=ending, metadata=_NO_DATE[ending])
        paths.append(path)
    for path, text in (
        (folder / f"{name}.tex", f"\\caption{{{latex(caption)}}}\n"),
        (folder / f"{name}.txt", f"{readable(caption)}\n"),
    ):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def write_animation(figure: Figure, draw: Callable[[T], object], frames: Sequence[T], path: Path, fps: int) -> Path:
    """Write a GIF or, where the name ends in .mp4, a film in H.264, which every player shows.

    Args:
        figure: the figure that `draw` draws into.
        draw: called with each of `frames` in turn.
        frames: one entry for each frame; equal ones in a row become one frame of a GIF that is shown for as long.
        path: the file.
        fps: frames per second.

    Raises:
        InputError: the file cannot be written; or imageio-ffmpeg, which brings the encoder, is not installed or fails.
    """
    writer: AbstractMovieWriter = PillowWriter(fps=fps)
    encoder = ""
    if path.suffix == ".mp4":
        try:
            from imageio_ffmpeg import get_ffmpeg_exe
        except ImportError:
            raise InputError(f"{path} needs imageio-ffmpeg: {install('imageio-ffmpeg')}") from None
        exact = ["-pix_fmt", "yuv420p", "-fflags", "+bitexact", "-flags:v", "+bitexact"]  # the same bytes every time
        writer, encoder = FFMpegWriter(fps=fps, codec="libx264", extra_args=exact), get_ffmpeg_exe()
    FigureCanvasAgg(figure)
    shown: list[T] = []
    try:
        encoding = matplotlib.rc_context({"animation.ffmpeg_path": encoder})
        with encoding, replacing(path) as temporary, writer.saving(figure, str(temporary), dpi=120):
            for frame in frames:
                if shown != [frame]:
                    draw(frame)
                    shown = [frame]
                writer.grab_frame()
    except subprocess.CalledProcessError as error:
        raise InputError(f"cannot write {path}: the encoder ended with code {error.returncode}") from error
    return path
