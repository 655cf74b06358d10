"""Means and bands over seeds against numbers worked out apart; what is averaged, marked and named."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers.panels import beneath_counts
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import neuralcollapse as nc
from neuralcollapse import InputError
from neuralcollapse.plots import style
from neuralcollapse.plots.spectrum import fit_history

ERRORS = {1: 0.3, 2: 0.0, 4: 0.1, 8: 0.0, 16: 0.0}
RATES = {1: 0.1, 2: 0.1, 4: 0.1, 8: 0.01, 16: 0.01}


def run(factor: float = 1.0, epochs: tuple[int, ...] = (1, 2, 4, 8, 16), **labels: Any) -> nc.History:
    lines = [
        {
            "epoch": epoch,
            "nc1": factor / epoch,
            "nc2.equinorm_means": factor / epoch,
            "nc2.equinorm_classifier": factor / epoch**2,
            "test_accuracy": 1 - 0.1 * factor / epoch,
            "train_error": ERRORS[epoch],
            "learning_rate": RATES[epoch],
        }
        for epoch in epochs
    ]
    return nc.History.from_records(lines, **{"loss": "mse", "dataset": "d", "network": "n", **labels})


def seeds() -> nc.History:
    return run(1.0, seed=0) + run(4.0, seed=1) + run(2.0, seed=2, epochs=(1, 2, 4))


def curves(ax: Axes) -> list[Any]:
    return [line for line in ax.lines if line.get_gid() == "curve"]


def axes() -> Axes:
    return Figure().add_subplot()


def counts(ax: Axes) -> list[str]:
    """What the panel says of the number of seeds."""
    return [text.get_text() for text in ax.texts if text.get_gid() == "n"]


def test_the_mean_on_a_logarithmic_axis_is_geometric_and_the_band_a_deviation_of_logarithms() -> None:
    ax = axes()
    assert seeds().plot("nc1", ax=ax) is ax
    *thin, mean = curves(ax)
    assert [list(line.get_xdata()) for line in thin] == [[1, 2, 4, 8, 16], [1, 2, 4, 8, 16], [1, 2, 4]]
    assert list(mean.get_xdata()) == [1, 2, 4]  # what all three measured
    logs = [math.log(factor) for factor in (1.0, 4.0, 2.0)]
    middle = sum(logs) / 3
    deviation = math.sqrt(sum((each - middle) ** 2 for each in logs) / 2)
    np.testing.assert_allclose(mean.get_ydata(), [math.exp(middle) / epoch for epoch in (1, 2, 4)], rtol=1e-12)
    ((path,),) = (band.get_paths() for band in ax.collections)
    heights = path.vertices[path.vertices[:, 0] == 1][:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((math.exp(middle - deviation), math.exp(middle + deviation)))
    assert ax.get_legend_handles_labels()[1][0] == "mean" and counts(ax) == ["n = 3"]


@pytest.mark.parametrize(("errorbar", "ends"), [("se", math.exp(math.log(2) / math.sqrt(3))), ("range", 2.0)])
def test_other_bands(errorbar: Any, ends: float) -> None:
    ax = seeds().plot("nc1", errorbar=errorbar, seeds=False, ax=axes())
    assert len(curves(ax)) == 1
    ((path,),) = (band.get_paths() for band in ax.collections)
    heights = path.vertices[path.vertices[:, 0] == 1][:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((2 / ends, 2 * ends))
    assert not seeds().plot("nc1", errorbar=None, ax=axes()).collections


def test_shares_and_linear_axes_have_arithmetic_means() -> None:
    ax = seeds().plot("test_error", ax=axes())
    assert ax.get_yscale() == "linear"
    np.testing.assert_allclose(curves(ax)[-1].get_ydata(), [0.1 * 7 / 3 / epoch for epoch in (1, 2, 4)])
    two = run(seed=0).plot("train_error", ax=axes())
    assert two.get_yscale() == "log"
    assert [value for value in curves(two)[0].get_ydata() if value > style.BELOW] == [0.3, 0.1]


def test_a_band_that_ends_by_rounding_just_above_zero_does_not_stretch_the_axis() -> None:
    errors = (0.0, 0.1, 0.1), (0.0, 0.0, 0.1)  # of the second its standard error equals the mean
    lines = [
        nc.History.from_records(
            [{"epoch": place + 1, "train_error": each[seed]} for place, each in enumerate(errors)],
            run=str(seed), seed=seed,
        )
        for seed in range(3)
    ]  # fmt: skip
    ax = (lines[0] + lines[1] + lines[2]).plot("train_error", errorbar="se", ax=axes())
    assert 0.001 < ax.get_ylim()[0] < 0.034


RISES, FALLS = [each / 49 for each in range(50)], [1 - each / 49 for each in range(50)]


@pytest.mark.parametrize("percent", [True, False])  # a linear axis, a logarithmic one
@pytest.mark.parametrize("gap", [slice(0), slice(20, 30)])
@pytest.mark.parametrize(
    "shape",
    [
        FALLS,
        RISES,
        [max(0.05, 1 - 8 * each) for each in RISES],  # falls at once and lies along the lower edge
        [1 - (1 - each) ** 12 for each in RISES],  # rises at once and lies along the upper edge
        [0.05] + [1.0] * 48 + [0.05],
    ],
)
def test_the_number_of_seeds_stands_where_no_curve_is(shape: list[float], gap: slice, percent: bool) -> None:
    values = np.array(shape)
    values[gap] = np.nan
    name = "test_error" if percent else "cdnv"
    lines = [
        nc.History.from_records(
            [{"epoch": 1 + place, "test_accuracy": 1 - each / factor, "cdnv": 0.01 ** (1 - each / factor)}
             for place, each in enumerate(values)],
            loss=loss, seed=seed,
        )
        for loss in ("mse", "ce") for seed, factor in enumerate((1.0, 1.1))
    ]  # fmt: skip
    ax = Figure(figsize=(2.4, 2)).add_subplot()
    (lines[0] + lines[1] + lines[2]).plot(name, hue="loss", ax=ax, events=False)
    numbers: list[Any] = [text for text in ax.texts if text.get_gid() == "n"]
    ax.figure.draw_without_rendering()  # type: ignore[union-attr]
    assert len({text.xy for text in numbers}) == 1 and not beneath_counts(ax)
    heights = {text.get_text(): text.get_window_extent().y0 for text in numbers}
    assert heights["n = 2"] > heights["n = 1"], "as the legend has them, whatever the corner"


def test_where_every_corner_is_taken_the_number_of_seeds_stands_below_left() -> None:
    lines = [{"epoch": 1 + each, "test_accuracy": each % 2} for each in range(60)]
    ax = Figure(figsize=(1.2, 1)).add_subplot()
    both = nc.History.from_records(lines, seed=0) + nc.History.from_records(lines, seed=1)
    both.plot("test_error", ax=ax, events=False)
    (text,) = (text for text in ax.texts if text.get_gid() == "n")
    assert text.xy == (0, 0)  # type: ignore[attr-defined]


def test_only_what_differs_in_the_seed_alone_is_averaged() -> None:
    history = run(1.0, seed=0, width=1.0) + run(2.0, seed=1, width=1.0) + run(8.0, seed=0, width=0.5)
    ax = history.plot("nc1", ax=axes())
    firsts = [line.get_ydata()[0] for line in curves(ax)]
    assert firsts == pytest.approx([1.0, 2.0, math.sqrt(2), 8.0])
    assert counts(ax) == ["n = 1–2"]
    apart = history.plot("nc1", hue="width", ax=axes())
    assert apart.get_legend_handles_labels()[1][:2] == ["width 0.5", "width 1"]
    assert counts(apart) == ["n = 1", "n = 2"], "each in its colour"
    assert len({note.get_color() for note in apart.texts}) == 2
    assert not counts(run(seed=0).plot("nc1", ax=axes()))


def test_losses_share_a_panel_each_in_its_colour_and_dashes_tell_the_rest() -> None:
    history = run(2.0, loss="ce", run="a") + run(1.0, loss="mse", run="b")
    names = ["nc2.equinorm_means", "nc2.equinorm_classifier"]
    ax = history.plot(names, hue="loss", style="metric", ax=axes())
    found = {(to_hex(line.get_color()), line.get_linestyle()): line.get_ydata()[1] for line in curves(ax)}
    mse, ce = style.COLORS["mse"].lower(), style.COLORS["ce"].lower()
    assert found == {(mse, "-"): 0.5, (ce, "-"): 1.0, (mse, "--"): 0.25, (ce, "--"): 0.5}
    assert ax.get_legend_handles_labels()[1][:4] == ["MSE", "cross-entropy", "class means", "classifier"]


def test_both_events_and_the_divisions_of_the_rate_are_marked() -> None:
    ax = run().plot("nc1", ax=axes())
    others = (None, "curve", "event")
    marks = {line.get_gid(): list(line.get_xdata()) for line in ax.lines if line.get_gid() not in others}
    assert marks == {"first zero error": [2], "error stays zero": [8], "rate divided": [8, 8]}
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["first zero error", "error stays zero", "learning rate divided"]
    assert not run().plot("nc1", events=False, ax=axes()).get_legend_handles_labels()[1]
    two = (run(loss="mse") + run(loss="ce", run="other")).plot("nc1", hue="loss", ax=axes())
    raised = [line for line in two.lines if line.get_gid() == "error stays zero"]
    assert len({line.get_transform().transform((0, 1))[1] for line in raised}) == 2  # one above the other


def test_layers_have_a_curve_each_and_a_map() -> None:
    lines = [
        {"epoch": epoch, "layer": layer, "nc1": value / epoch}
        for epoch in (1, 3)
        for layer, value in (("a", 4.0), ("b", 1.0))
    ]
    history = nc.History.from_records(lines)
    ax = history.plot("nc1", hue="layer", ax=axes())
    assert ax.get_legend_handles_labels()[1][:2] == ["a", "b"] and len({line.get_color() for line in curves(ax)}) == 2
    shown = history.plot_layers("nc1", ax=axes())
    (mesh,) = shown.collections
    np.testing.assert_allclose(mesh.get_array(), [[4.0, 4 / 3], [1.0, 1 / 3]])
    assert [label.get_text() for label in shown.get_yticklabels()] == ["a", "b"]
    with pytest.raises(InputError, match=r"one metric of one run, got 1 metrics of 2 runs: history\.select"):
        (history + nc.History.from_records(lines, run="other")).plot_layers("nc1", ax=axes())


def test_what_is_unknown_is_named() -> None:
    with pytest.raises(InputError, match=r"these runs did not measure mse\.path_ratio; history\.metrics lists"):
        run().plot("mse.path_ratio", ax=axes())
    with pytest.raises(InputError, match=r"unknown metric 'nc11' \(did you mean 'nc1'\?\)"):
        run().plot("nc11", ax=axes())
    with pytest.raises(InputError, match=r"unknown column 'los' \(did you mean 'loss'\?\)"):
        run().plot("nc1", hue="los", ax=axes())
    with pytest.raises(InputError, match="the closed form is that of snr alone, got 'nc1'"):
        run().plot("nc1", theory="projected", ax=axes())


def near_collapse(noise: float) -> nc.Report:
    """Features, and a classifier, about the three vertices of a simplex."""
    generator, vertices = np.random.default_rng(0), nc.simplex_etf(3, 4).numpy()
    labels = np.arange(30) % 3
    features = vertices[labels] + noise * generator.standard_normal((30, 4))
    weight = vertices + noise * generator.standard_normal((3, 4))
    return nc.measure_features(features, labels, weight=weight, bias=np.zeros(3))


def places_of_dots(ax: Axes) -> np.ndarray:
    """Where the dots of a drawn report stand, a row each, in shares of the panel's width and height."""
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    pixels = [dot.get_transform().transform(dot.get_xydata())[0] for dot in dots]
    return ax.transAxes.inverted().transform(pixels)


def test_a_report_draws_its_numbers() -> None:
    report = near_collapse(0.01)
    ax = report.plot(ax=axes())
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert dots[names.index("NC1")].get_xdata()[0] == report.nc1
    assert dots[names.index("NC3")].get_xdata()[0] == report.nc3
    assert report.nc4_mismatch == 0 and places_of_dots(ax)[names.index("NC4"), 0] == pytest.approx(0)
    assert any(text.get_text() == " 0" for text in ax.texts)


@pytest.mark.parametrize("noises", [(0.01, 1e-5), (1e-5, 0.01)])
def test_two_reports_in_panels_that_share_their_axes(noises: tuple[float, float]) -> None:
    """Every dot stays within its panel, and the first number stays on top."""
    panels = Figure().subplots(1, 2, sharex=True, sharey=True)
    for ax, noise in zip(panels, noises, strict=True):
        near_collapse(noise).plot(ax=ax)
    for ax in panels:
        across, up = places_of_dots(ax).T
        assert np.all(across >= -1e-9) and np.all(across <= 1) and across.min() == pytest.approx(0)  # NC4, which is 0
        assert np.all(np.diff(up) < 0)


def test_layers_of_a_network_in_their_order() -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    loader = [(torch.randn(30, 6), torch.arange(30) % 3)]
    layers = nc.measure_layers(model, loader)
    ax = layers.plot(ax=axes())
    assert list(ax.lines[0].get_ydata()) == [each.report.nc1 for each in layers]
    assert [label.get_text() for label in ax.get_xticklabels()] == [each.name for each in layers]
    with pytest.raises(InputError, match="unknown metric 'nc9'"):
        layers.plot("nc9")


def test_the_closed_form_is_laid_over_the_spectrum_of_squared_error_only() -> None:
    times = np.array([0.0, 0.5, 1.0, 2.0])
    path = nc.CentralPath(np.array([3.0, 2.0, 1.0]), samples_per_class=10, num_classes=4)
    omega = path.singular_values(times)
    lines = [
        {"epoch": place, "snr": list(row), "num_examples": 40, "num_classes": 4}
        for place, row in enumerate(omega, start=1)
    ]
    ax = nc.History.from_records(lines, loss="mse").plot("snr", theory="projected", ax=axes())
    predicted = [line.get_ydata() for line in ax.lines if line.get_marker() == "None" and len(line.get_ydata()) == 4]
    np.testing.assert_allclose(np.transpose(predicted), omega, rtol=1e-6)  # a run that is the path, whatever its clock
    with pytest.raises(InputError, match="describes training with the MSE loss; run was trained with ce"):
        nc.History.from_records(lines, loss="ce").plot("snr", theory="projected", ax=axes())


def test_the_losses_of_the_closed_form_are_those_that_are_decomposed() -> None:
    from neuralcollapse.plots.spectrum import SQUARED_ERROR
    from neuralcollapse.training.losses import LOSSES

    assert [name for name, loss in LOSSES.items() if loss.decomposed] == list(SQUARED_ERROR)


@pytest.mark.parametrize("broken", [[1.0], [], [9.0, 5.0, 4.0, 2.0], [float("inf"), 4.5]])
def test_epochs_with_other_numbers_of_singular_values_are_named(broken: list[float]) -> None:
    """They are not in the fit, which is that of the others, and nobody takes it for one of all epochs."""
    pytest.importorskip("scipy")
    lines = [{"epoch": e, "num_examples": 30, "num_classes": 3, "snr": [2.0 * e, 1.5 * e]} for e in (1, 2, 3, 4, 8)]
    others = nc.History.from_records([line for line in lines if line["epoch"] != 3], loss="mse")
    lines[2]["snr"] = broken
    with pytest.warns(UserWarning, match=r"leaves out epoch 3 of .*: not 2 finite singular values"):
        fit = fit_history(nc.History.from_records(lines, loss="mse").to_frame())
    assert np.array_equal(fit.epochs, [1, 2, 4, 8])
    assert np.array_equal(fit.residual, fit_history(others.to_frame()).residual)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("panels", ["shared", "one"])
def test_a_second_drawing_cuts_off_nothing_of_the_first(panels: str, order: tuple[int, int]) -> None:
    """Panels with `sharex` and `sharey`, or two histories in one panel: the last drawn must not set the range alone."""
    histories = [run(1.0, seed=0), run(1e-4, seed=0, epochs=(2, 4))]
    figure = Figure()
    drawn = list(figure.subplots(1, 2, sharex=True, sharey=True)) if panels == "shared" else [figure.add_subplot()] * 2
    for which in order:
        histories[which].plot("nc1", ax=drawn[which])
    values = [1.0 / epoch for epoch in (1, 16)] + [1e-4 / epoch for epoch in (2, 4)]
    for ax in drawn:
        low, high = ax.get_ylim()
        assert low < min(values) and max(values) < high
        assert ax.get_xlim()[0] < 1 and ax.get_xlim()[1] > 16
