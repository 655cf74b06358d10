"""Where a number has no value, or an infinite one, and where features are so large or small that products of them
leave the range of their type.

0/0 is nan and a limit that is infinite is inf, each with one warning that names the number; nothing else is raised. Two
numbers need none, because their documentation says where they are nan or inf: ω of features without noise, and bounds
that say nothing for so many units (the distance from an ETF below p = C − 1, Welch's excess up to C = p).
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import exact
from torch import Tensor, nn

import neuralcollapse as nc

over_weightings = pytest.mark.parametrize("weighting", ["example", "class"])
SILENT = ("etf_distance", "welch_excess")


def heard(function: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What a call returns, and its warnings, which must all be the package's own."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function()
    foreign = [f"{w.category.__name__}: {w.message}" for w in caught if w.category is not UserWarning]
    assert not foreign, foreign
    return result, [str(w.message) for w in caught]


def rows(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(values: Tensor) -> Tensor:
    """On multiples of 2⁻⁸, so that means over powers of two are exact."""
    return (values * 256).round() / 256


def dead(classes: int, dim: int, value: float) -> tuple[Tensor, Tensor]:
    """All features one number: a dead network."""
    return torch.full((8 * classes, dim), value, dtype=torch.float64), torch.arange(8 * classes) % classes


def same_row(classes: int, dim: int) -> tuple[Tensor, Tensor]:
    return rows(3, 1, dim).expand(8 * classes, dim).clone(), torch.arange(8 * classes) % classes


def equal_means(classes: int, dim: int) -> tuple[Tensor, Tensor]:
    """The same 8 rows in each class: noise, and no signal."""
    return grid(rows(4, 8, dim)).repeat(classes, 1), torch.arange(classes).repeat_interleave(8)


def two_equal(classes: int, dim: int) -> tuple[Tensor, Tensor]:
    """Classes 0 and 1 have the same rows."""
    features = grid(rows(5, classes, 8, dim) + 3 * rows(6, classes, 1, dim))
    features[1] = features[0]
    return features.reshape(-1, dim), torch.arange(classes).repeat_interleave(8)


def at_centre(classes: int, dim: int) -> tuple[Tensor, Tensor]:
    """Class 0 has the mean of all, exactly: the others come in pairs of opposite sign."""
    half = grid(rows(7, classes, 4, dim) + 2 * rows(8, classes, 1, dim))
    half[0] -= half[0].mean(dim=0)
    parts = [torch.cat([half[0], -half[0]])]
    for c in range(1, classes - 1, 2):
        parts += [torch.cat([half[c], half[c]]), -torch.cat([half[c], half[c]])]
    features = torch.cat(parts)
    return features, torch.arange(len(parts)).repeat_interleave(8)


def without_noise(classes: int, dim: int) -> tuple[Tensor, Tensor]:
    """Exact collapse."""
    return grid(rows(9, classes, dim)).repeat_interleave(8, dim=0), torch.arange(classes).repeat_interleave(8)


def one_each(classes: int, dim: int) -> tuple[Tensor, Tensor]:
    return grid(rows(10, classes, dim)), torch.arange(classes)


def dependent(classes: int, dim: int) -> tuple[Tensor, Tensor]:
    """Class means on one line, noise in every direction."""
    line = torch.arange(classes, dtype=torch.float64)[:, None, None] * grid(rows(11, 1, 1, dim))
    half = grid(rows(12, classes, 8, dim))
    return (line + torch.cat([half, -half], dim=1)).reshape(-1, dim), torch.arange(classes).repeat_interleave(16)


KINDS: dict[str, Callable[[int, int], tuple[Tensor, Tensor]]] = {
    "zero": lambda c, p: dead(c, p, 0.0),
    "constant": lambda c, p: dead(c, p, 0.7),
    "large-constant": lambda c, p: dead(c, p, 12345.678),
    "same-row": same_row,
    "equal-means": equal_means,
    "two-equal": two_equal,
    "at-centre": at_centre,
    "without-noise": without_noise,
    "one-each": one_each,
    "dependent": dependent,
}
SIZES = ((2, 1), (2, 5), (3, 2), (5, 8), (7, 3))
over_kinds = pytest.mark.parametrize("kind", KINDS)
over_sizes = pytest.mark.parametrize(("classes", "dim"), SIZES)


def is_right(name: str, got: float, want: float, dtype: torch.dtype) -> bool:
    """Equal in kind, and as close as rounding lets it be."""
    if not math.isfinite(want):
        return math.isnan(got) if math.isnan(want) else got == want
    rtol = 1e-7 if dtype == torch.float64 else 1e-3
    floor = {"mse": rtol, "vari": rtol, "nc1": 1e-12, "cdnv": 1e-12}.get(name[:4].rstrip("."), 1e-6)
    return abs(got - want) <= rtol * abs(want) + floor


@over_kinds
@over_sizes
@pytest.mark.parametrize(
    ("weighting", "dtype", "decay"),
    [("example", torch.float64, 0.0), ("class", torch.float32, 0.0), ("example", torch.float32, 0.1)],
)
def test_reports_of_degenerate_features(
    kind: str, classes: int, dim: int, weighting: Any, dtype: torch.dtype, decay: float
) -> None:
    features, labels = KINDS[kind](classes, dim)
    features = features.to(dtype)
    classes = int(labels.max()) + 1
    if classes < 2:
        pytest.skip("one class")
    weight, bias = rows(1, classes, dim), rows(2, classes)
    want = exact.report(features, labels, weight, bias, weight_decay=decay, weighting=weighting, closeness=1e-5)
    report, _ = heard(
        lambda: nc.measure_features(
            features, labels, weight, bias, weight_decay=decay, weighting=weighting, metrics="all"
        )
    )
    got = report.to_dict()
    wrong = []
    for name, value in want.numbers.items():
        if name.startswith(("gnc2", "uniform")) and not math.isfinite(value):
            continue  # whether directions coincide is for rounding to say
        if name == "variability_collapse_index" and want.moments.signal_rank < want.moments.directions:
            continue  # the rank of Σ_B that is divided by has two readings here
        if name in want.undecided:
            if abs(got[name] - value) > want.undecided[name] + 1e-12:
                wrong.append(f"{name}: {got[name]}, not {value}")
        elif not is_right(name, float(got[name]), value, dtype):
            wrong.append(f"{name}: {got[name]}, not {value}")
    largest = max((v for v in want.snr if math.isfinite(v)), default=0.0)
    spectrum = [float(v) for v in got["snr"]]
    room = (1e-7 if dtype == torch.float64 else 1e-3) * largest + 1e-9
    if len(spectrum) != len(want.snr) or not all(
        g == w if math.isinf(w) else abs(g - w) <= room for g, w in zip(spectrum, want.snr, strict=False)
    ):
        wrong.append(f"snr: {spectrum}, not {want.snr}")
    assert not wrong, "\n".join(wrong)
    assert report.mse.nc1 + report.mse.nc23 + report.mse.ls_perp == pytest.approx(report.mse.total, rel=1e-5)


@over_kinds
@over_sizes
def test_degenerate_reports_print_and_become_json(kind: str, classes: int, dim: int) -> None:
    features, labels = KINDS[kind](classes, dim)
    classes = int(labels.max()) + 1
    for weight in (
        rows(1, classes, dim),
        torch.zeros(classes, dim),
        torch.cat([rows(1, classes - 1, dim), torch.zeros(1, dim)]),
    ):
        try:
            report, _ = heard(lambda w=weight: nc.measure_features(features, labels, w, metrics="all"))  # type: ignore[misc]
        except nc.InputError:
            assert len(labels.unique()) < 2
            continue
        assert "NC1" in str(report)
        assert json.dumps(report.to_dict(), allow_nan=False)
        assert set(report.numbers()) <= set(report.to_dict())


@over_kinds
@over_sizes
def test_what_is_undefined_or_infinite_is_said_once(kind: str, classes: int, dim: int) -> None:
    """Each number alone: one warning where it is nan or infinite, none where it is finite."""
    features, labels = KINDS[kind](classes, dim)
    classes = int(labels.max()) + 1
    if classes < 2:
        pytest.skip("one class")
    weight = rows(1, classes, dim)
    moments = nc.ClassMoments(classes)
    moments.update(features, labels)
    calls: dict[str, Callable[[], float]] = {
        "nc1": lambda: nc.nc1(moments),
        "nc3": lambda: nc.nc3(moments, weight),
        "nc3 of a zero classifier": lambda: nc.nc3(moments, 0 * weight),
    }
    for name, metric in nc.METRICS.items():
        if not metric.needs & {"ood", "examples", "class_scatter"}:
            calls[name] = lambda name=name: nc.compute_metrics(moments, name, weight=weight)[name]  # type: ignore[misc]
    wrong = []
    for name, call in calls.items():
        value, said = heard(call)
        expected = (0, 1) if name.startswith(SILENT) else (0,) if math.isfinite(value) else (1,)
        if len(said) not in expected:
            wrong.append(f"{name} = {value}: {len(said)} warnings {said}")
    found, said = heard(lambda: nc.nc2(moments, weight))
    finite = all(math.isfinite(v) for v in vars(found).values())
    if finite != (not said):
        wrong.append(f"{found}: {said}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("examples", [1, 7])
@pytest.mark.parametrize("classes", [1, 3])
def test_one_class_or_one_example(examples: int, classes: int) -> None:
    """No spread of classes: nan with a warning, or one sentence; never anything else, and the moments stay whole."""
    features, labels = rows(0, examples, 4), torch.full((examples,), classes - 1)
    weight = rows(1, classes, 4)
    moments = nc.ClassMoments(classes)
    moments.update(features, labels)
    calls: list[Callable[[], Any]] = [
        lambda: nc.nc1(moments),
        lambda: nc.nc2(moments, weight),
        lambda: nc.nc3(moments, weight),
        lambda: nc.compute_metrics(moments, "all", weight=weight),
        lambda: nc.measure_features(features, labels, weight, metrics="all"),
        lambda: str(nc.measure_features(features, labels, weight, metrics="all")),
    ]
    for call in calls:
        try:
            heard(call)
        except nc.InputError as error:
            assert "class" in str(error)
    loss = nc.decompose_mse(moments, weight, weight_decay=0.0)
    assert loss.ls == pytest.approx(0.0, abs=1e-12)
    assert loss.nc1 + loss.nc23 + loss.ls_perp == pytest.approx(loss.total, rel=1e-9)
    (spectrum, _) = heard(lambda: nc.snr_singular_values(moments))
    assert len(spectrum.singular_values) == 0
    assert nc.nc4_mismatch(features, labels, weight, moments=moments) in (0.0, 1.0) or examples > 1


@pytest.mark.parametrize(
    "vectors", [torch.zeros(3, 4), torch.zeros(1, 4), torch.ones(1, 4), torch.ones(2, 1), torch.zeros(0, 4)]
)
def test_geometry_of_few_or_zero_vectors(vectors: Tensor) -> None:
    for function in (nc.equinorm, nc.equiangularity, nc.maximal_angle):
        try:
            value, said = heard(lambda f=function: float(f(vectors)))  # type: ignore[misc]
        except nc.InputError:
            continue
        assert math.isfinite(value) or said, f"{function.__name__} is {value}, and nothing is said"


class Features(nn.Module):
    """A network whose features are its input."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.classifier = nn.Linear(weight.shape[1], len(weight), dtype=weight.dtype)
        with torch.no_grad():
            self.classifier.weight.copy_(weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(x)
        return out


@over_kinds
@pytest.mark.parametrize(("classes", "dim"), [(3, 2), (5, 8)])
def test_monitor_goes_on(kind: str, classes: int, dim: int, tmp_path: Path) -> None:
    features, labels = KINDS[kind](classes, dim)
    classes = int(labels.max()) + 1
    model = Features(rows(1, classes, dim).float())
    monitor = nc.Monitor(model, [(features.float(), labels)], path=tmp_path / "log.jsonl", metrics="all")
    try:
        heard(lambda: monitor(1))
    except nc.InputError:
        assert len(labels.unique()) < 2
        return
    heard(lambda: monitor(2))
    assert [json.loads(line)["epoch"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2]


# --- scales ----------------------------------------------------------------------------------------------------------

SCALES = [(torch.float32, s) for s in (1e18, 1e19, 1e30, 1e37, 1e-18, 1e-21, 1e-22, 1e-25, 1e-30, 1e-36)]
SCALES += [(torch.float64, s) for s in (1e77, 1e150, 1e200, 1e300, 1e-100, 1e-150, 1e-200, 1e-300)]
SCALES += [(torch.bfloat16, s) for s in (1e19, 1e30, 1e-22, 1e-30)]
over_scales = pytest.mark.parametrize(("dtype", "scale"), SCALES)


def ordinary(dtype: torch.dtype, scale: float, decay: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features times ``scale`` in ``dtype``, with the classifier divided by it."""
    labels = torch.arange(60) % 4
    features = ((2 * rows(0, 4, 6)[labels] + 0.5 * rows(1, 60, 6)) * scale).to(dtype)
    return features, labels, 0.3 * rows(2, 4, 6) / scale, rows(3, 4)


def assert_exact(report: nc.Report, want: exact.Exact, dtype: torch.dtype, but: tuple[str, ...] = ()) -> None:
    got = report.to_dict()
    rtol = 1e-9 if dtype == torch.float64 else 2e-4
    wrong = []
    for name, value in want.numbers.items():
        if name.startswith(but) or name in want.undecided:
            continue
        made = float(got[name])  # type: ignore[arg-type]
        if not (made == value or abs(made - value) <= rtol * abs(value) or (math.isnan(made) and math.isnan(value))):
            wrong.append(f"{name}: {made:.10g}, not {value:.10g}")
    spectrum = [float(v) for v in got["snr"]]  # type: ignore[union-attr]
    if len(spectrum) != len(want.snr) or not np.allclose(spectrum, want.snr, rtol=rtol, atol=0.0):
        wrong.append(f"snr: {spectrum}, not {want.snr}")
    assert not wrong, "\n".join(wrong)


@over_scales
@over_weightings
def test_scales_from_which_products_overflow_or_vanish(dtype: torch.dtype, scale: float, weighting: Any) -> None:
    features, labels, weight, bias = ordinary(dtype, scale)
    want = exact.report(features.double(), labels, weight, bias, weighting=weighting, closeness=1e-5)
    report, said = heard(
        lambda: nc.measure_features(features, labels, weight, bias, weighting=weighting, metrics="all")
    )
    assert not said, said
    assert_exact(report, want, dtype)
    assert report.accuracy == pytest.approx(want.numbers["accuracy"], abs=want.undecided["accuracy"] + 1e-9)
    assert "NC1" in str(report)
    json.dumps(report.to_dict(), allow_nan=False)


@over_scales
@over_weightings
def test_scales_with_an_ordinary_classifier_and_decay(dtype: torch.dtype, scale: float, weighting: Any) -> None:
    """A diverged or decayed network with weights of order one: its loss may be inf, and all else is right."""
    features, labels, weight, bias = ordinary(dtype, scale)
    weight = weight * scale
    want = exact.report(
        features.double(),
        labels,
        weight,
        bias,
        weighting=weighting,
        weight_decay=5e-4,
        closeness=1e-5,
        with_later=False,
    )
    report, _ = heard(
        lambda: nc.measure_features(features, labels, weight, bias, weighting=weighting, weight_decay=5e-4)
    )
    # a norm of 1e-310 has no digits left, and small parts drown in the rounding of the outputs
    assert_exact(report, want, dtype, but=("mse.weight_ls_norm", "mse.nc23", "mse.nc1"))


@over_scales
def test_a_saved_state_comes_back(dtype: torch.dtype, scale: float, tmp_path: Path) -> None:
    features, labels, weight, bias = ordinary(dtype, scale)
    for weighting in ("example", "class"):
        moments = nc.ClassMoments(4, weighting=weighting)  # type: ignore[arg-type]
        moments.update(features[:25], labels[:25])
        moments.update(features[25:], labels[25:])
        moments.save(tmp_path / "moments.safetensors")
        again = nc.ClassMoments.load(tmp_path / "moments.safetensors")
        one, other = (nc.make_report(m, weight, bias, metrics="all").to_dict() for m in (moments, again))
        assert one == other
        again.update(features, labels)
        assert again.num_examples == 120


@over_scales
def test_monitor_of_a_network_at_that_scale(dtype: torch.dtype, scale: float) -> None:
    if dtype == torch.bfloat16:
        pytest.skip("its classifier has no such weights")
    features, labels, weight, _ = ordinary(dtype, scale)
    model = Features(
        weight.to(dtype) if dtype == torch.float64 or 1e-37 < 1 / scale < 1e37 else rows(2, 4, 6).to(dtype)
    )
    report, _ = heard(lambda: nc.Monitor(model, [(features, labels)])(1))
    base, *_ = ordinary(dtype, 1.0)
    moments = nc.ClassMoments(4)
    moments.update(base, labels)
    assert report.nc1 == pytest.approx(nc.nc1(moments), rel=1e-4)


@pytest.mark.parametrize(
    ("dtype", "first", "second"),
    [
        (torch.float32, 1e-30, 1.0),
        (torch.float32, 1.0, 1e30),
        (torch.float32, 1e25, 1e-25),
        (torch.float64, 1e-200, 1e200),
        (torch.float64, 1.0, 1e180),
        (torch.float64, 1e180, 1.0),
    ],
)
@over_weightings
def test_scales_that_change_between_batches(dtype: torch.dtype, first: float, second: float, weighting: Any) -> None:
    """A network that diverges within an epoch; streamed and merged, in both orders."""
    features, labels, *_ = ordinary(dtype, 1.0)
    features = torch.cat([features[:30] * first, features[30:] * second])
    weight, bias = 0.3 * rows(2, 4, 6) / max(first, second), rows(3, 4)
    want = exact.report(features.double(), labels, weight, bias, weighting=weighting, with_later=False)
    parts = [nc.ClassMoments(4, weighting=weighting) for _ in range(2)]
    parts[0].update(features[:30], labels[:30])
    parts[1].update(features[30:], labels[30:])
    for order in ((0, 1), (1, 0)):
        merged = nc.ClassMoments(4, weighting=weighting)
        streamed = nc.ClassMoments(4, weighting=weighting)
        for i in order:
            merged.merge(parts[i])
            streamed.update(*((features[:30], labels[:30]) if i == 0 else (features[30:], labels[30:])))
        for moments in (merged, streamed):
            assert_exact(nc.make_report(moments, weight, bias), want, dtype)


@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.float32, 1e-40), (torch.float64, 1e-311), (torch.float32, 5e37), (torch.float64, 2e307)]
)
def test_numbers_at_the_very_ends(dtype: torch.dtype, scale: float) -> None:
    """Denormal features are the numbers they are, few digits or not; a class sum may overflow and its mean not."""
    labels = torch.arange(40) % 4
    features = ((rows(0, 4, 3)[labels].clamp(-1.5, 1.5) + 0.5 * rows(1, 40, 3).clamp(-1, 1)) * scale).to(dtype)
    moments = nc.ClassMoments(4)
    moments.update(features, labels)
    with np.errstate(over="ignore"):
        want = exact.report(features.double(), labels, rows(2, 4, 3), with_later=False)
    assert nc.nc1(moments) == pytest.approx(want.numbers["nc1"], rel=1e-3)
    assert nc.snr_singular_values(moments).singular_values.tolist() == pytest.approx(want.snr, rel=1e-3)
    assert nc.decompose_mse(moments, torch.zeros(4, 3)).ls == pytest.approx(want.numbers["mse.ls"], rel=1e-3)


def test_scores_beyond_the_range_of_float32() -> None:
    """⟨w, h⟩ of 1e39 is no infinity that every class shares."""
    features = torch.tensor([[1e20, 0.0], [0.0, 1e20], [1e20, 1e19]])
    weight = torch.tensor([[1e20, 0.0], [0.0, 1e20], [-1e20, -1e20]])
    report, _ = heard(lambda: nc.measure_features(features, torch.tensor([0, 1, 0]), weight))
    assert report.accuracy == 1.0
    assert report.nc4_mismatch == 0.0


def test_loss_parts_are_never_negative() -> None:
    for seed in range(40):
        labels = torch.arange(12) % 12
        features, weight = rows(seed, 12, 3), rows(seed + 1, 12, 3)
        moments = nc.ClassMoments(12)
        moments.update(features, labels)
        loss = nc.decompose_mse(moments, weight)
        assert min(loss.nc1, loss.nc23, loss.ls, loss.ls_perp, loss.total) >= 0


@pytest.mark.wrong_input
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, Fraction, torch.tensor])
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e-30])
def test_decay_of_any_kind_of_number(kind: Callable[[float], Any], scale: float) -> None:
    """λ = 0.5 exactly in each; a narrow type must not narrow what is computed with it."""
    features, labels, weight, bias = ordinary(torch.float64, scale)
    moments = nc.ClassMoments(4)
    moments.update(features, labels)
    want, _ = heard(lambda: nc.decompose_mse(moments, weight, bias, weight_decay=0.5))
    try:
        got, _ = heard(lambda: nc.decompose_mse(moments, weight, bias, weight_decay=kind(0.5)))
    except nc.InputError:
        assert kind in (Fraction, torch.tensor)
        return
    for name in ("total", "nc1", "nc23", "ls", "ls_perp"):
        assert getattr(got, name) == pytest.approx(getattr(want, name), rel=1e-12), name
