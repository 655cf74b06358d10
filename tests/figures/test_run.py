"""The figures show what the run directory holds: the drawn data are read back from the axes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.run_directories import CONFIG, DIM, make_run, record, snapshot
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neuralcollapse import InputError, figures
from neuralcollapse._files import append_line
from neuralcollapse.figures import curves
from neuralcollapse.figures.history import read_history
from neuralcollapse.figures.portrait import portrait_legend, project
from neuralcollapse.figures.run import draw_panels
from neuralcollapse.training.run_directory import Run

EPOCHS = (1, 2, 5, 10, 30)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", [record(epoch) for epoch in EPOCHS])


def drawn(draw: Any, run: Run) -> dict[str, tuple[list[float], list[float]]]:
    axes = Figure().add_subplot()
    assert draw(read_history(run), axes) is axes
    return {
        str(line.get_label()): (list(np.asarray(line.get_xdata())), list(np.asarray(line.get_ydata())))
        for line in axes.lines
    }


@pytest.mark.parametrize(
    ("draw", "keys"),
    [
        (curves.decomposition, ("mse.total", "mse.nc1", "mse.nc23", "mse.ls_perp")),
        (curves.nc1, ("nc1",)),
        (curves.nc2_equinorm, ("nc2.equinorm_means", "nc2.equinorm_classifier")),
        (curves.nc2_equiangularity, ("nc2.equiangularity_means", "nc2.equiangularity_classifier")),
        (curves.nc2_maximal_angle, ("nc2.maximal_angle_means", "nc2.maximal_angle_classifier")),
        (curves.nc3, ("nc3",)),
        (curves.nc4, ("nc4_mismatch",)),
        (curves.accuracy, ("train_error",)),
    ],
)
def test_each_curve_is_the_histories_numbers(run: Run, draw: Any, keys: tuple[str, ...]) -> None:
    lines = drawn(draw, run)
    zero = lines.pop("_zero_error")
    assert zero[0] == [10, 10]  # 0.3 − 0.03 · 10 is the first error of zero
    for (x, y), key in zip(lines.values(), keys, strict=False):
        assert x == list(EPOCHS)
        assert y == [line[key] for line in run.history()]
    assert len(lines) == len(keys) + (draw is curves.accuracy)


def test_the_spectrum_is_drawn_whole(run: Run) -> None:
    axes = Figure().add_subplot()
    curves.snr(read_history(run), axes)
    ranks = [list(np.asarray(line.get_ydata())) for line in axes.lines if line.get_label() != "_zero_error"]
    assert ranks == [[epoch * rank for epoch in EPOCHS] for rank in (4.0, 3.0, 2.0, 1.0)]


def test_what_a_logarithm_cannot_show_is_marked_at_the_edges(tmp_path: Path) -> None:
    values = {1: math.inf, 2: 0.5, 5: 0.0, 10: math.nan, 30: 0.1}
    run = make_run(tmp_path / "run", [record(epoch, nc1=value, train_error=0.1) for epoch, value in values.items()])
    axes = Figure().add_subplot()
    curves.nc1(read_history(run), axes)
    line, zero, infinite = axes.lines
    np.testing.assert_array_equal(line.get_ydata(), [np.nan, 0.5, np.nan, np.nan, 0.1])
    assert (list(zero.get_xdata()), zero.get_marker(), list(zero.get_ydata())) == ([5], "v", [0.0])
    assert (list(infinite.get_xdata()), infinite.get_marker(), list(infinite.get_ydata())) == ([1], "^", [1.0])


@given(seed=st.integers(0, 1000), count=st.sampled_from([2, 3, 4]), turn=st.integers(0, 1000))
def test_a_collapsed_network_is_the_simplex_however_it_is_turned(seed: int, count: int, turn: int) -> None:
    content = snapshot(0.0, seed)
    rotation = np.linalg.qr(np.random.default_rng(turn).normal(size=(DIM, DIM)))[0]
    for name in ("class_means", "weight", "features"):
        content[name] = content[name] @ rotation
    view = project(content, tuple(range(count)))
    np.testing.assert_allclose(np.linalg.norm(view.simplex, axis=1), 1, atol=1e-12)
    cosines = view.simplex @ view.simplex.T
    np.testing.assert_allclose(cosines[~np.eye(count, dtype=bool)], -1 / (count - 1), atol=1e-12)
    np.testing.assert_allclose(view.means, view.simplex, atol=1e-5)
    np.testing.assert_allclose(view.classifier, view.simplex, atol=1e-5)
    for label, features in enumerate(view.features):
        np.testing.assert_allclose(features, np.repeat(view.simplex[[label]], 6, axis=0), atol=1e-5)


def test_all_figures_are_written_and_the_same_run_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    first, again = figures.draw_run(run.path), figures.draw_run(run.path, tmp_path / "again")
    names = ["overview", "portrait", "portrait-3d", "nc2", "decomposition", "nc1", "nc3", "nc4", "accuracy", "snr"]
    assert [path.name for path in first] == [f"{name}.{ending}" for name in names for ending in ("png", "svg")]
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert {path.name for path in (run.path / "figures").iterdir()} == {path.name for path in first}


def test_robustness_is_drawn_where_it_was_measured(run: Run, tmp_path: Path) -> None:
    """A run without it, like those made before it could be asked for, has the other figures."""
    assert not [path for path in figures.draw_run(run.path) if path.stem == "robustness"]
    values = {1: 0.02, 2: math.nan, 5: 0.05, 10: 0.07, 30: 0.09}
    columns = [{"robustness": mean, "robustness.median": mean / 2} for mean in values.values()]
    lines = [record(epoch, **column) for epoch, column in zip(EPOCHS, columns, strict=True)]
    attacked = make_run(tmp_path / "attacked", lines)
    assert [path.suffix for path in figures.draw_run(attacked.path) if path.stem == "robustness"] == [".png", ".svg"]
    found = drawn(curves.robustness, attacked)
    assert found["_zero_error"][0] == [10, 10]
    for name, factor in (("mean", 1), ("median", 0.5)):
        assert found[name][0] == list(EPOCHS)
        np.testing.assert_array_equal(found[name][1], [factor * value for value in values.values()])


def test_one_epoch_is_enough(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [record(1)])
    assert len(figures.draw_run(run.path)) == 20


def test_without_snapshots_there_is_no_portrait_and_that_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [record(1), record(2)], snapshots=False)
    with pytest.warns(UserWarning, match="no snapshots, so there is no portrait"):
        paths = figures.draw_run(run.path)
    assert not [path for path in paths if "portrait" in path.name or "overview" in path.name]


def test_a_measurement_that_is_absent_is_named(tmp_path: Path) -> None:
    line = record(1)
    del line["nc3"]
    run = make_run(tmp_path / "run", [line])
    with pytest.raises(InputError, match="'nc3' in every line"):
        figures.draw_run(run.path)


def test_names_of_classes_are_not_read_as_formulas() -> None:
    handles = portrait_legend((0, 1, 2), ["$x", "7"])
    assert [str(handle.get_label()) for handle in handles[4:]] == [r"\$x", "class 7", "class 2"]


def test_a_long_title_stays_inside_the_figure(tmp_path: Path) -> None:
    options = {"imbalance": "exponential", "imbalance_ratio": 50.0, "label_noise": 0.25, "head": "etf"}
    config = dataclasses.replace(CONFIG, **options, optimizer="adamw", weight_decay=0.01)
    run = Run.create(tmp_path / "run", config)
    append_line(run.history_path, record(1, train_error=0.0))
    figure = draw_panels(run, read_history(run), curves.nc1)
    (title,) = (text for text in figure.texts if "imbalance" in text.get_text())
    for words in ("exponential imbalance 50:1", "25 % label noise", "fixed ETF head", "AdamW (decay 0.01)"):
        assert words in " ".join(title.get_text().split())
    box = title.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
