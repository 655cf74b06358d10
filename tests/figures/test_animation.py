"""The portrait moving: a frame for each measured epoch, and nothing made up between them."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.run_directories import make_run, record, snapshot
from matplotlib.figure import Figure
from PIL import Image

from neuralcollapse import InputError, figures
from neuralcollapse.figures import animate_run
from neuralcollapse.figures.animation import FPS, SECONDS, animate
from neuralcollapse.figures.portrait import project
from neuralcollapse.figures.writing import write_animation
from neuralcollapse.plots.options import Drawing

EPOCHS = (1, 2, 5, 10)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", [record(epoch) for epoch in EPOCHS]).path


def test_gif_and_film_have_a_frame_for_each_epoch(run: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    gif, film = animate_run(run, run / "figures")
    assert (gif, film) == (run / "figures" / "portrait.gif", run / "figures" / "portrait.mp4")
    with Image.open(gif) as image:
        size, durations = image.size, []
        for place in range(image.n_frames):
            image.seek(place)
            durations.append(image.info["duration"])
    assert len(durations) == len(EPOCHS)
    # each is shown until the next, and each decade of epochs, of which there is one here, for as long as any other
    frames = SECONDS * FPS - 1
    for epoch, after, duration in zip(EPOCHS, EPOCHS[1:], durations, strict=False):
        share = math.log10(after / epoch) * frames
        assert abs(duration / 1000 * FPS - share) <= 2.5, epoch  # Pillow keeps hundredths of a second
    assert durations[-1] > 1900  # the end stays on
    reader = imageio_ffmpeg.read_frames(str(film))
    meta = next(reader)
    reader.close()
    assert meta["size"] == size and all(length % 2 == 0 for length in size)
    count, _ = imageio_ffmpeg.count_frames_and_secs(str(film))
    assert count == (SECONDS + 2) * FPS
    assert sorted(path.name for path in gif.parent.iterdir()) == ["portrait.gif", "portrait.mp4"]


def test_without_the_encoder_the_gif_is_still_written(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError, match=r"portrait\.mp4 needs imageio-ffmpeg: pip install '?imageio-ffmpeg"):
        animate_run(run, run / "figures")
    assert [path.name for path in (run / "figures").iterdir()] == ["portrait.gif"]


def test_a_snapshot_without_its_line_in_the_history_is_left_out(run: Path, monkeypatch: Any) -> None:
    """What a process leaves that was killed between the two."""
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    lines = (run / "history.jsonl").read_text().splitlines(keepends=True)
    (run / "history.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match="imageio-ffmpeg"):
        animate_run(run, run / "figures")
    with Image.open(run / "figures" / "portrait.gif") as image:
        assert image.n_frames == len(EPOCHS) - 1


def test_an_encoder_that_fails_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    encoder = run / "encoder"
    encoder.write_text("#!/bin/sh\ncat > /dev/null\nexit 187\n")
    encoder.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(encoder))
    with pytest.raises(InputError, match=r"cannot write .*film\.mp4: the encoder ended with code 187"):
        write_animation(Figure(), lambda _: None, [1], run / "film.mp4", fps=1)
    with pytest.raises(InputError, match=r"cannot write .*film\.gif: No such file or directory"):
        write_animation(Figure(), lambda _: None, [1], run / "absent" / "film.gif", fps=1)
    assert not list(run.glob("*film*")) and not list(run.glob(".*film*"))


def test_one_epoch_does_not_move_and_a_study_is_not_one_run(run: Path, tmp_path: Path) -> None:
    single = make_run(tmp_path / "other" / "run", [record(1)]).path
    with pytest.raises(InputError, match="has 1 measured epochs with a snapshot"):
        animate_run(single, single / "figures")
    with pytest.raises(InputError, match="--animate shows one run"):
        figures.draw(tmp_path / "other", animate=True)


def test_the_film_has_a_legend_names_a_curve_and_cuts_nothing_off(tmp_path: Path, monkeypatch: Any) -> None:
    views = {at: project(snapshot(2 / at), (0, 1, 2), ["cat", "dog", "4"]) for at in (1.0, 3.0, 10.0)}
    nc1 = {at: 1 / at for at in views}
    seen: list[tuple[Figure, float]] = []

    def film(figure: Figure, draw: Any, frames: list[float], path: Path, fps: int) -> Path:
        for frame in dict.fromkeys(frames):
            draw(frame)
            left, right = figure.axes
            (low, high), (bottom, top) = left.get_xlim(), left.get_ylim()
            for features in views[frame].features:
                assert (features > [low, bottom]).all() and (features < [high, top]).all()
            assert not [text for text in left.texts if text.get_gid() == "outside"]
            (dot,) = (line for line in right.lines if line.get_marker() == "o")
            assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (frame, nc1[frame])
            seen.append((figure, high - low))
        return path

    monkeypatch.setattr("neuralcollapse.figures.animation.write_animation", film)
    paths = animate(views, nc1, lambda ax: ax, "epoch", "title", tmp_path / "portrait")
    assert [path.name for path in paths] == ["portrait.gif", "portrait.mp4"]
    widths = [width for _, width in seen[:3]]
    assert widths == sorted(widths, reverse=True) and widths[0] > widths[-1]  # the frame draws in
    (legend,) = seen[0][0].legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["features", "class mean", "classifier", "simplex", "cat", "dog", "class 4"]


def test_two_classes_move_on_a_line(tmp_path: Path) -> None:
    pytest.importorskip("torchdiffeq")
    from neuralcollapse.theory.simulation import simulate

    found = simulate(classes=2, examples_per_class=8, dim=3, frames=4)
    written = figures.draw_simulation(found, tmp_path, Drawing(format=("svg",)))
    assert (tmp_path / "collapse.gif") in written
