"""The later metrics where their values are known: at a simplex ETF and an orthogonal frame; symmetries; bad input."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from helpers.cases import data, named, over_weightings
from hypothesis import given
from hypothesis import strategies as st
from reference import later
from torch import Tensor

import neuralcollapse as nc
from neuralcollapse._checks import InputError
from neuralcollapse.metrics import duality, energy, feature_rank, frames, margins, out_of_distribution, variability
from neuralcollapse.metrics.registry import METRICS, compute_metrics

seeds = st.integers(0, 2**31)
over_sizes = pytest.mark.parametrize("size", [2, 3, 10, 100])


def rotation(size: int, seed: int = 0) -> Tensor:
    noise = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(noise).Q


def collapsed(means: Tensor, spread: float = 0.0) -> nc.ClassMoments:
    """Four examples a class; a spread sets two apart in the last direction, and two in the one before."""
    moments = nc.ClassMoments(len(means))
    for sign in (1.0, -1.0):
        for direction in (-1, -2):
            shifted = means.clone()
            shifted[:, direction] += sign * spread
            moments.update(shifted, torch.arange(len(means)))
    return moments


def spread_alone() -> nc.ClassMoments:
    """Moments without a covariance."""
    moments = nc.ClassMoments(3, scatter="trace")
    moments.update(torch.eye(3).double(), torch.arange(3))
    return moments


@over_sizes
def test_at_a_simplex_etf(size: int) -> None:
    """3 times a rotated simplex ETF in two more dimensions than it needs, means and classifier alike."""
    frame = 3.0 * nc.simplex_etf(size, size + 1) @ rotation(size + 1)
    moments = collapsed(frame)
    distance = math.sqrt(2 * size / (size - 1))
    near = {"abs": 1e-13 * size, "rel": 1e-12}
    assert variability.cdnv(moments) == variability.variability_ratio(moments) == 0.0
    assert variability.variability_collapse_index(moments) == pytest.approx(0.0, **near)
    assert feature_rank.stable_rank(moments) == pytest.approx(size - 1, rel=1e-12)
    assert feature_rank.effective_rank(moments) == pytest.approx(size - 1, rel=1e-12)
    assert frames.etf_error(frame) == pytest.approx(0.0, **near)
    assert frames.etf_distance(frame) == pytest.approx(0.0, **near)
    log, riesz = energy.hyperspherical_energy(frame), energy.hyperspherical_energy(frame, "riesz")
    assert (log.mean, riesz.mean) == pytest.approx((-math.log(distance), 1 / distance), rel=1e-12, abs=1e-14)
    if size > 2:  # of two directions the log kernel is constant, and its mean may be 0
        assert (log.variation, riesz.variation) == pytest.approx((0.0, 0.0), **near)
    assert margins.one_vs_rest_margin(frame) == pytest.approx(size / (size - 1), rel=1e-12)
    assert frames.frame_error(frame) == pytest.approx(0.0, **near)
    assert math.isnan(frames.welch_excess(frame))
    assert duality.duality_error(moments, frame) == pytest.approx(0.0, **near)
    assert duality.nc3_trace(moments, frame) == pytest.approx(0.0, **near)
    assert duality.uniform_duality(moments, frame) == pytest.approx(0.0, **near)
    assert duality.alignment_distance(moments, frame) == pytest.approx(0.0, **near)
    assert duality.nc0(frame) == pytest.approx(0.0, **near)
    assert nc.nc1(moments, divide=False) == 0.0
    assert nc.nc3(moments, frame, squared=False) == pytest.approx(0.0, **near)


@over_sizes
def test_variability_of_a_simplex_with_known_spread(size: int) -> None:
    """Means 3·ETF, and within each class a variance of s²/2 in each of two directions outside their span."""
    spread = 0.25
    means = torch.zeros(size, size + 1, dtype=torch.float64)
    means[:, : size - 1] = 3.0 * nc.simplex_etf(size, size - 1)
    moments = collapsed(means, spread)
    within, between = spread**2, 9.0  # traces
    assert variability.variability_ratio(moments) == pytest.approx(within / between, rel=1e-12)
    assert variability.cdnv(moments) == pytest.approx(within / (9.0 * 2 * size / (size - 1)), rel=1e-12)
    assert variability.variability_collapse_index(moments) == pytest.approx(0.0, abs=1e-12)
    assert feature_rank.stable_rank(moments) == pytest.approx((within + between) / (9.0 / (size - 1)), rel=1e-12)
    singular = [3.0 / math.sqrt(size - 1)] * (size - 1) + [spread / math.sqrt(2)] * 2
    share = [value / sum(singular) for value in singular]
    want = math.exp(-sum(q * math.log(q) for q in share))
    assert feature_rank.effective_rank(moments) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("size", [3, 10, 100])
def test_at_an_orthogonal_frame(size: int) -> None:
    """Uncentred class means e_c: as a frame they are orthogonal, centred they are a simplex."""
    frame = 2.0 * rotation(size, seed=1)
    moments = collapsed(frame)
    # ⟨I/√C, (I − 11ᵀ/C)/√(C−1)⟩ = √((C−1)/C)
    assert frames.etf_error(frame) == pytest.approx(math.sqrt(2 - 2 * math.sqrt((size - 1) / size)), rel=1e-10)
    assert frames.etf_distance(frame) == pytest.approx(math.sqrt(2 - 2 * math.sqrt((size - 1) / size)), rel=1e-10)
    log = energy.hyperspherical_energy(frame)
    assert (log.mean, log.variation) == pytest.approx((-0.5 * math.log(2), 0.0), abs=1e-12)
    riesz = energy.hyperspherical_energy(frame, "riesz")
    assert (riesz.mean, riesz.variation) == pytest.approx((math.sqrt(0.5), 0.0), abs=1e-12)
    # the nearest point of the others' hull is their average, 1/(C−1) each
    assert margins.one_vs_rest_margin(frame) == pytest.approx(math.sqrt(size / (size - 1)), rel=1e-12)
    # ⟨I/√C, I_{C−1}/√(C−1)⟩ is that of the simplex above: one of its C equal singular values is not a tight frame's
    assert frames.frame_error(frame) == pytest.approx(math.sqrt(2 - 2 * math.sqrt((size - 1) / size)), rel=1e-10)
    assert duality.nc0(frame) == pytest.approx(2.0 * math.sqrt(size), rel=1e-12)
    # the centred means are a simplex; the classifier is not centred, which W M̄ᵀ does not see
    assert duality.duality_error(moments, frame) == pytest.approx(0.0, abs=1e-12)
    assert duality.nc3_trace(moments, frame) == pytest.approx(0.0, abs=1e-12)
    cosine = math.sqrt((size - 1) / size)
    assert duality.alignment_distance(moments, frame) == pytest.approx(math.sqrt(2 - 2 * cosine), rel=1e-12)
    assert duality.uniform_duality(moments, frame) == pytest.approx(0.0, abs=1e-12)
    outside = frame.sum(dim=0)
    assert out_of_distribution.nc5(moments, outside) == pytest.approx(1 / math.sqrt(size), rel=1e-12)
    assert out_of_distribution.nc5(collapsed(frame[:-1]), frame[-1]) == pytest.approx(0.0, abs=1e-12)
    assert nc.nc3(moments, frame, centred=False) == pytest.approx(0.0, abs=1e-12)
    assert nc.nc3(moments, frame) == pytest.approx(2 - 2 * cosine, rel=1e-10)


@pytest.mark.parametrize("cosine", [-1.0, -0.5, 0.0, 0.6])
def test_frame_error_of_two_directions(cosine: float) -> None:
    """UᵀU has the eigenvalues 1 ± cos: the share of the lesser is what a frame of one dimension has not."""
    frame = torch.tensor([[2.0, 0.0, 0.0], [3 * cosine, 3 * math.sqrt(1 - cosine**2), 0.0]], dtype=torch.float64)
    powers = np.array([1 + abs(cosine), 1 - abs(cosine)]) / math.sqrt(2 + 2 * cosine**2)
    want = math.hypot(powers[0] - 1, powers[1])
    assert frames.frame_error(frame) == pytest.approx(want, rel=1e-12, abs=1e-14)


def test_frame_error_is_that_of_the_matrices() -> None:
    """With fewer and with more vectors than features, from NumPy's p × p matrices."""
    rng = np.random.default_rng(0)
    for count, dim in ((2, 5), (3, 3), (4, 7), (5, 4), (9, 3)):
        rows = rng.normal(size=(count, dim))
        assert frames.frame_error(rows) == pytest.approx(later.frame_error(rows), rel=1e-10)


@pytest.mark.parametrize("dim", [1, 3, 300, 1000, 2500])
def test_energy_in_any_number_of_dimensions(dim: int) -> None:
    """The kernel of exponent p − 2 leaves the range of floats; its variation does not, which is that of mpmath."""
    mp = pytest.importorskip("mpmath").mp
    vectors = torch.randn(6, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(dim))
    if dim == 1:
        vectors = torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
    found = energy.hyperspherical_energy(vectors, "riesz_p_2")
    with mp.workdps(40):
        rows = [[mp.mpf(v) for v in row] for row in vectors.tolist()]
        norms = [mp.sqrt(mp.fdot(row, row)) for row in rows]
        unit = [[v / norm for v in row] for row, norm in zip(rows, norms, strict=True)]
        apart = [
            mp.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True))) for a in unit for b in unit if a is not b
        ]
        values = [(-1 if dim < 2 else 1) * d ** (2 - dim) for d in apart]
        mean = sum(values) / len(values)
        spread = mp.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) / abs(mean)
        assert found.mean == pytest.approx(float(mean), rel=1e-10, abs=1e-300)
        assert found.variation == pytest.approx(float(spread), rel=1e-9, abs=1e-12)


def test_the_kernel_of_p_less_two_in_one_and_in_two_dimensions() -> None:
    """In the plane sign(0) is 0, whatever coincides; on the line the kernel is −‖u − u'‖, finite where two coincide."""
    found = energy.hyperspherical_energy(torch.randn(5, 2), "riesz_p_2")
    assert found.mean == 0.0 and math.isnan(found.variation)
    assert energy.hyperspherical_energy(torch.ones(3, 2), "riesz_p_2").mean == 0.0
    found = energy.hyperspherical_energy(torch.tensor([[1.0], [2.0], [-3.0]]), "riesz_p_2")
    # of six ordered pairs four are 2 apart and two coincide
    assert (found.mean, found.variation) == pytest.approx((-4 / 3, np.std([2, 2, 2, 2, 0, 0], ddof=1) * 3 / 4))
    with pytest.warns(UserWarning, match="two directions coincide"):
        assert energy.hyperspherical_energy(torch.ones(3, 3), "riesz_p_2").mean == math.inf


def test_energy_that_no_float_holds() -> None:
    """Two rows 1e-3 apart in 400 dimensions: 1e1200, with a warning, and the variation of one pair of three."""
    vectors = torch.zeros(3, 400, dtype=torch.float64)
    vectors[:2, 0], vectors[1, 1], vectors[2, 2] = 1.0, 1e-3, 1.0
    with pytest.warns(UserWarning, match="the hyperspherical energy is infinite: no float holds it"):
        found = energy.hyperspherical_energy(vectors, "riesz_p_2")
    # of six values two are x and four vanish: x/3, and √(6/5 · 2/9) x
    assert math.isinf(found.mean) and found.variation == pytest.approx(3 * math.sqrt(6 / 5 * 2 / 9), rel=1e-12)


def test_a_variability_ratio_that_no_float_holds() -> None:
    """About the means of other data, 1e-170 times as large."""
    features, labels = torch.randn(30, 4, dtype=torch.float64), torch.arange(30) % 3
    about, own = nc.ClassMoments(3), nc.ClassMoments(3)
    about.update(1e-170 * features, labels)
    own.update(features, labels)
    with pytest.warns(UserWarning, match="the variability ratio is infinite: no float holds it"):
        assert variability.variability_ratio(own.around(about)) == math.inf


@pytest.mark.parametrize("turns", [5, 8])
def test_more_classes_than_dimensions(turns: int) -> None:
    """C directions around the circle are a tight frame; each one's margin is the distance of its neighbours' chord."""
    angle = 2 * math.pi * torch.arange(turns, dtype=torch.float64) / turns
    frame = torch.stack([angle.cos(), angle.sin()], dim=1)
    assert frames.frame_error(frame) == pytest.approx(0.0, abs=1e-12)
    assert margins.one_vs_rest_margin(frame) == pytest.approx(1 - math.cos(2 * math.pi / turns), rel=1e-12)
    cosines = [abs(math.cos(2 * math.pi * step / turns)) for step in range(1, turns)]
    want = max(cosines) - math.sqrt((turns - 2) / (2 * (turns - 1)))
    assert frames.welch_excess(frame) == pytest.approx(want, rel=1e-12)
    assert math.isnan(frames.etf_distance(frame))


def test_equiangular_lines_meet_the_welch_bound() -> None:
    """The six diagonals of the icosahedron in three dimensions: |cos| = 1/√5 throughout."""
    golden = (1 + math.sqrt(5)) / 2
    rows = [[0.0, 1, golden], [0, 1, -golden], [1, golden, 0], [1, -golden, 0], [golden, 0, 1], [-golden, 0, 1]]
    assert frames.welch_excess(torch.tensor(rows, dtype=torch.float64)) == pytest.approx(0.0, abs=1e-12)
    assert frames.frame_error(torch.tensor(rows, dtype=torch.float64)) == pytest.approx(0.0, abs=1e-12)


def all_of(features: Tensor, labels: Tensor, weight: Tensor, outside: Tensor, weighting: str) -> dict[str, float]:
    options = {"weighting": weighting, "metrics": "all", "ood": outside}
    return nc.measure_features(features, labels, weight, **options).extra  # type: ignore[arg-type]


def assert_same(got: dict[str, float], want: dict[str, float], but: tuple[str, ...] = ()) -> None:
    for name in want.keys() - set(but):
        assert got[name] == pytest.approx(want[name], rel=1e-7, abs=1e-8, nan_ok=True), name


def inputs_of(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d = data(named(name))
    features, labels, weight = (torch.from_numpy(value) for value in (d.features, d.labels, d.weight))
    return features, labels, weight, features[:3] + 1.0


over_shapes = pytest.mark.parametrize(
    "name", ["imbalanced-50-to-1", "class-missing", "more-features-than-examples", "many-classes"]
)


@over_shapes
@over_weightings
@given(seed=seeds)
def test_order_and_names_of_classes_change_nothing(name: str, weighting: str, seed: int) -> None:
    features, labels, weight, outside = inputs_of(name)
    generator = torch.Generator().manual_seed(seed)
    order, names = torch.randperm(len(labels), generator=generator), torch.randperm(len(weight), generator=generator)
    relabelled = torch.empty_like(weight)
    relabelled[names] = weight
    got = all_of(features[order], names[labels[order]], relabelled, outside, weighting)
    assert_same(got, all_of(features, labels, weight, outside, weighting))


@over_shapes
@over_weightings
@given(seed=seeds)
def test_rotation_changes_nothing(name: str, weighting: str, seed: int) -> None:
    features, labels, weight, outside = inputs_of(name)
    turn = rotation(features.shape[1], seed)
    got = all_of(features @ turn, labels, weight @ turn, outside @ turn, weighting)
    assert_same(got, all_of(features, labels, weight, outside, weighting))


@over_shapes
@over_weightings
@given(power=st.integers(-30, 30), weight_power=st.integers(-30, 30))
def test_scale_changes_nothing_but_what_has_a_unit(name: str, weighting: str, power: int, weight_power: int) -> None:
    features, labels, weight, outside = inputs_of(name)
    scale, weight_scale = 2.0**power, 2.0**weight_power
    got = all_of(features * scale, labels, weight * weight_scale, outside * scale, weighting)
    want = all_of(features, labels, weight, outside, weighting)
    powers = {  # of the scales of features and of weight
        "nc0": (0, 1),
        "bias_collapse": (1, 1),
        "duality_product_mean": (1, 1),
        "duality_product_variance": (2, 2),
        "cdnv_fourth_power": (-2, 0),
    }
    assert_same(got, want, but=(*powers, "equinorm_means_log", "equinorm_classifier_log"))
    for name, (first, second) in powers.items():
        assert got[name] == pytest.approx(want[name] * scale**first * weight_scale**second, rel=1e-9), name


UNCENTRED = ("nc5", "nc3_uncentred", "duality_error_uncentred", "bias_collapse", "rankme", "class_numerical_rank")


@over_shapes
@over_weightings
@given(seed=seeds)
def test_translation_changes_only_what_is_not_centred(name: str, weighting: str, seed: int) -> None:
    features, labels, weight, outside = inputs_of(name)
    shift = 10 * torch.randn(features.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    got = all_of(features + shift, labels, weight, outside + shift, weighting)
    assert_same(got, all_of(features, labels, weight, outside, weighting), but=UNCENTRED)


@given(seed=seeds)
def test_collapse_index_is_invariant_under_every_invertible_map(seed: int) -> None:
    features, labels, _, _ = inputs_of("imbalanced-50-to-1")
    mixing = rotation(6, seed) @ torch.diag(torch.logspace(-1, 1, 6).double()) @ rotation(6, seed + 1)
    one, other = nc.ClassMoments(4), nc.ClassMoments(4)
    one.update(features, labels)
    other.update(features @ mixing, labels)
    want = variability.variability_collapse_index(one)
    assert variability.variability_collapse_index(other) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(
    "name",
    sorted(name for name, metric in METRICS.items() if not {"scatter", "class_scatter", "examples"} & {*metric.needs}),
)
def test_moments_without_a_covariance_give_the_same(name: str) -> None:
    features, labels, weight, outside = inputs_of("imbalanced-50-to-1")
    both = [nc.ClassMoments(4, scatter=scatter) for scatter in ("full", "trace")]
    for moments in both:
        for rows in torch.arange(len(labels)).split(10):
            moments.update(features[rows], labels[rows])
    full, trace = (compute_metrics(m, [name], weight=weight, ood_mean=outside.mean(dim=0)) for m in both)
    assert trace[name] == pytest.approx(full[name], rel=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda: compute_metrics(collapsed(torch.eye(3).double()), "cndv"),
            r"unknown metric 'cndv' \(did you mean 'cdnv'\?\); expected 'all' or names that nc\.METRICS lists",
        ),
        (lambda: compute_metrics(collapsed(torch.eye(3).double()), "nc0"), "'nc0' needs a classifier"),
        (lambda: compute_metrics(collapsed(torch.eye(3).double()), "nc5"), "'nc5' needs out-of-distribution data"),
        (lambda: compute_metrics(spread_alone(), "stable_rank"), "scatter='full'"),
        (lambda: variability.cdnv(nc.ClassMoments(3, 2)), "expected at least one example"),
        (lambda: frames.etf_error(torch.ones(1, 3)), "expected at least 2 vectors"),
        (lambda: energy.hyperspherical_energy(torch.eye(3), "cubic"), "expected the kernel 'log', 'riesz'"),
        (lambda: duality.nc0(torch.full((2, 2), torch.nan)), "expected a finite classifier weight"),
        (
            lambda: out_of_distribution.nc5(collapsed(torch.eye(3).double()), torch.ones(4)),
            "expected a finite out-of-distribution",
        ),
        (lambda: duality.nc3_trace(collapsed(torch.eye(3).double()), torch.ones(2, 3)), "expected"),
    ],
)
@pytest.mark.wrong_input
def test_what_is_not_defined_is_refused(function: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        function()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (lambda: variability.cdnv(collapsed(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 0.5)), math.inf),
        (lambda: variability.variability_ratio(collapsed(torch.ones(3, 2), 0.5)), math.inf),
        (lambda: frames.etf_error(torch.zeros(3, 2)), math.nan),
        (lambda: duality.nc3_trace(collapsed(torch.eye(3).double()), torch.zeros(3, 3)), math.nan),
        (lambda: out_of_distribution.nc5(collapsed(torch.eye(3).double()), torch.zeros(3)), math.nan),
        (lambda: energy.hyperspherical_energy(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])).mean, math.inf),
    ],
)
def test_degenerate_arrangements_warn(function: object, value: float) -> None:
    with pytest.warns(UserWarning, match=r"undefined|infinite"):
        assert function() == pytest.approx(value, nan_ok=True)  # type: ignore[operator]


def test_all_leaves_the_margin_out_for_many_classes() -> None:
    moments = collapsed(nc.simplex_etf(200, 199))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "margin_means" not in compute_metrics(moments)
    assert compute_metrics(collapsed(nc.simplex_etf(10, 9)))["margin_means"] == pytest.approx(10 / 9)


def test_examples_may_be_arrays() -> None:
    """For metrics that need the examples beside the moments."""
    rows, labels, weight = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2, np.eye(2, 3)
    moments = nc.ClassMoments(2)
    moments.update(rows, labels)
    names = ["alignment_cosine_unit", "cosine_margin", "silhouette"]
    found = compute_metrics(moments, names, weight=weight, examples=(rows, labels))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    means = np.array([unit[labels == c].mean(axis=0) for c in range(2)])
    means = (means - means.mean(axis=0)) / np.linalg.norm(means - means.mean(axis=0), axis=1, keepdims=True)
    assert found["alignment_cosine_unit"] == pytest.approx(1 - np.mean(np.sum(means * weight, axis=1)), rel=1e-10)
