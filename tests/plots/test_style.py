"""Colours told apart by colour-blind readers, ticks that do not touch, frames that cut nothing off unsaid."""

from __future__ import annotations

import itertools

import matplotlib
import numpy as np
import pytest
from helpers.colours import difference, least_difference
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neuralcollapse.plots import style
from neuralcollapse.plots.options import Drawing


@pytest.mark.parametrize(
    ("one", "other", "expected"),  # of the table in Sharma, Wu & Dalal (2005)
    [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
        ((90.8027, -2.0831, 1.4410), (91.1528, -1.6435, 0.0447), 1.4441),
    ],
)
def test_the_measure_of_differences_is_the_published_one(one: tuple, other: tuple, expected: float) -> None:
    assert difference(np.array(one), np.array(other)) == pytest.approx(expected, abs=5e-5)


def test_colours_of_one_panel_are_far_apart_for_colour_blind_readers() -> None:
    """Twice as far, at least, as the red and the vermilion of earlier figures were in deuteranopia: 9."""
    losses, parts = [style.COLORS[name] for name in ("mse", "ce")], list(dict.fromkeys(list(style.COLORS.values())[2:]))
    assert least_difference("#D00000", "#D55E00") < 10
    for group in (losses, parts, list(style.CLASS_COLORS)):
        for one, other in itertools.combinations(group, 2):
            assert least_difference(one, other) > 20, (one, other)


def test_one_colour_has_one_meaning() -> None:
    meanings = {**style.COLORS, **{f"class {place}": color for place, color in enumerate(style.CLASS_COLORS)}}
    del meanings["mse.ls_perp_share"]  # a share of the same part
    for (one, first), (other, second) in itertools.combinations(meanings.items(), 2):
        assert least_difference(first, second) > 10, (one, other)


@pytest.mark.parametrize("span", [(0.02, 0.5), (1e-7, 30.0), (0.9, 210.0), (1.0, 1.5), (3e-5, 2e-4), (1e-12, 1e12)])
@pytest.mark.parametrize("size", [(1.3, 0.9), (5.5, 1.9), (3.2, 2.4)])
def test_labels_of_ticks_do_not_touch(span: tuple[float, float], size: tuple[float, float]) -> None:
    figure = Figure(figsize=size, layout="constrained")
    renderer = FigureCanvasAgg(figure).get_renderer()
    ax = figure.add_subplot()
    ax.tick_params(labelsize=7)
    for which in ("x", "y"):
        style.log_axis(ax, which)
    ax.set(xlim=span, ylim=span)
    figure.draw_without_rendering()
    for axis in (ax.xaxis, ax.yaxis):
        shown = [label for label in axis.get_ticklabels() if label.get_text()]
        boxes = [label.get_window_extent(renderer) for label in shown]
        assert len(boxes) >= 1
        assert not [1 for one, other in itertools.combinations(boxes, 2) if one.overlaps(other)], [
            label.get_text() for label in shown
        ]


def test_a_narrow_panel_of_thousands_of_epochs_has_a_tick_at_each_power_of_ten() -> None:
    figure = Figure(figsize=(1.37, 1.0), layout="constrained")
    ax = figure.add_subplot()
    ax.tick_params(labelsize=7)
    style.log_axis(ax, "x")
    ax.set(xlim=(0.94, 3500))
    ax.set_yticks([])
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "10", "100", "1000"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.02, "0.02"), (1.0, "1"), (500.0, "500"), (1e-5, "10⁻⁵"), (2e-4, "2·10⁻⁴"), (1e4, "10⁴")]
)
def test_ticks_are_numbers_one_reads(value: float, text: str) -> None:
    assert style.number(value) == text


def test_what_a_logarithm_cannot_show_is_marked_on_the_edges() -> None:
    ax = Figure().add_subplot()
    style.log_axis(ax, "y")
    style.line(ax, [1, 2, 3, 4, 5], [np.inf, 0.5, 0.0, np.nan, 0.1], color="k")
    curve, zero, infinite = ax.lines
    np.testing.assert_array_equal(curve.get_ydata(), [1 / style.BELOW, 0.5, style.BELOW, np.nan, 0.1])
    assert (list(zero.get_xdata()), list(zero.get_ydata())) == ([3], [0.0])
    assert (list(infinite.get_xdata()), list(infinite.get_ydata())) == ([1], [1.0])
    assert {each.get_gid() for each in (zero, infinite)} == {"edge"} and not zero.get_clip_on()
    style.fit([ax])
    low, high = ax.get_ylim()
    assert 0.05 < low < 0.1 and 0.5 < high < 1.0


def test_a_first_epoch_far_above_the_others_is_named_and_does_not_stretch_the_frame() -> None:
    panels = list(Figure().subplots(1, 2))
    for ax, first in zip(panels, (10.0, 0.5), strict=True):
        style.log_axis(ax, "y")
        style.line(ax, [1, 2, 3], [first, 0.4, 0.01], color="k")
    style.fit(panels)
    assert panels[0].get_ylim() == panels[1].get_ylim() and 0.5 < panels[0].get_ylim()[1] < 1
    assert [text.get_text() for text in panels[0].texts] == ["↑ 10"] and not panels[1].texts
    style.line(panels[1], [1, 2], [0.5, 5.0], color="k")  # a later value is never left outside
    style.fit(panels)
    assert panels[0].get_ylim()[1] > 10 and not panels[0].texts


@pytest.mark.parametrize(
    "span", [(0.9, 1.1), (1e-5, 2e-5), (1.1e-5, 1.9e-5), (0.3, 3.0), (1.0, 1e6), (0.6, 1.7), (3e4, 3.1e4)]
)
@pytest.mark.parametrize("size", [(1.7, 1.3), (5.5, 1.9)])
@pytest.mark.parametrize("percent", [False, True])
def test_an_axis_has_two_labels_at_least_however_narrow_its_range(
    span: tuple[float, float], size: tuple[float, float], percent: bool
) -> None:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    ax.tick_params(labelsize=7)
    style.log_axis(ax, "xy", percent)
    ax.set(xlim=span, ylim=span)
    figure.draw_without_rendering()
    low, high = span
    for axis in (ax.xaxis, ax.yaxis):
        at = axis.get_majorticklocs()
        texts = [label.get_text() for label in axis.get_ticklabels()]
        assert len(set(texts)) == len(texts) >= 2
        assert (at >= low * (1 - 1e-8)).all() and (at <= high * (1 + 1e-8)).all()


def test_a_panel_of_a_study_names_every_decade_of_its_epochs() -> None:
    with matplotlib.rc_context(style.rc(Drawing())):
        figure = Figure(figsize=(0.85, 0.9))
        FigureCanvasAgg(figure)
        ax = figure.add_axes((0.0, 0.2, 1.0, 0.8))
        style.log_axis(ax, "x")
        ax.set_xlim(1 / 1.06, 3300 * 1.06)
        np.testing.assert_allclose(ax.get_xticks(), [1, 10, 100, 1000])
