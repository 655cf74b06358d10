"""NC1 to NC4, the SNR spectrum and the simplex ETF: against references, at exact collapse, under symmetries."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict

import numpy as np
import pytest
import torch
from helpers.cases import Case, Data, data, named, over_cases, over_weightings
from hypothesis import given
from hypothesis import strategies as st
from reference import collapse as reference
from reference import exact
from reference.moments import Moments, class_moments
from torch import Tensor

import neuralcollapse as nc
from neuralcollapse._checks import InputError
from neuralcollapse.measuring.decision_counts import DecisionCounts

NC2_FIELDS = (
    ("equinorm", reference.equinorm),
    ("equiangularity", reference.equiangularity),
    ("maximal_angle", reference.maximal_angle),
)


def both(case: Case, weighting: str) -> tuple[nc.ClassMoments, Moments, Data]:
    d = data(case)
    moments = nc.ClassMoments(case.num_classes, weighting=weighting)
    moments.update(torch.from_numpy(d.features), torch.from_numpy(d.labels))
    return moments, class_moments(d.features, d.labels, case.num_classes, weighting), d


@over_cases
@over_weightings
def test_nc1_matches_the_reference(case: Case, weighting: str) -> None:
    moments, want, _ = both(case, weighting)
    assert float(nc.nc1(moments)) == pytest.approx(reference.nc1(want), rel=1e-10)


@over_cases
@over_weightings
def test_nc2_matches_the_reference(case: Case, weighting: str) -> None:
    moments, want, d = both(case, weighting)
    got = nc.nc2(moments, torch.from_numpy(d.weight))
    for name, formula in NC2_FIELDS:
        for side, rows in (("means", reference.centred_means(want)), ("classifier", d.weight[want.present])):
            value = float(getattr(got, f"{name}_{side}"))
            assert value == pytest.approx(formula(rows), rel=1e-10, abs=1e-12), f"{name}_{side}"


@over_cases
@over_weightings
def test_nc3_matches_the_reference(case: Case, weighting: str) -> None:
    moments, want, d = both(case, weighting)
    assert float(nc.nc3(moments, torch.from_numpy(d.weight))) == pytest.approx(reference.nc3(want, d.weight), rel=1e-10)


@over_cases
def test_nc4_matches_the_reference_with_its_bias(case: Case) -> None:
    _, want, d = both(case, "example")
    tensors = [torch.from_numpy(value) for value in (d.features, d.labels, d.weight)]
    for bias in (d.bias, np.zeros_like(d.bias)):
        expected = reference.nc4_mismatch(want, d.features, d.weight, bias, d.labels)
        assert float(nc.nc4_mismatch(*tensors, torch.from_numpy(bias))) == pytest.approx(expected, abs=1e-12)
    assert float(nc.nc4_mismatch(*tensors)) == pytest.approx(expected, abs=1e-12)


@over_cases
@over_weightings
def test_snr_matches_the_reference(case: Case, weighting: str) -> None:
    moments, want, d = both(case, weighting)
    if np.linalg.matrix_rank(want.within) < case.dim:
        fractions = exact.Moments(case.num_classes, exact.rational(d.features), d.labels.tolist(), weighting)
        expected = np.array(exact.snr(fractions))
    else:
        expected = reference.snr_singular_values(want)
    got = snr(moments)
    assert nc.snr_singular_values(moments).space == ("limit" if np.isinf(expected).any() else "full")
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-10)
    assert bool((got[1:] <= got[:-1]).all()), "descending"


def snr(moments: nc.ClassMoments) -> Tensor:
    return nc.snr_singular_values(moments).singular_values


def test_dead_units_change_nothing_of_the_spectrum() -> None:
    """The case from which projecting before whitening made 4.83, 3.86, 1.30 of 14.20, 4.76, 1.60, and its loss."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(4).repeat_interleave(30)
    means = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    mixing = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    features = means[labels] + 0.3 * torch.randn(120, 6, generator=generator, dtype=torch.float64) @ mixing
    alone, beside = nc.ClassMoments(4), nc.ClassMoments(4)
    alone.update(features, labels)
    beside.update(torch.cat([torch.zeros(120, 2).double(), features, torch.full((120, 1), 0.7).double()], 1), labels)
    torch.testing.assert_close(snr(beside), snr(alone), rtol=1e-10, atol=0.0)
    fractions = exact.Moments(4, exact.rational(features), labels.tolist(), "example")
    np.testing.assert_allclose(snr(alone), exact.snr(fractions), rtol=1e-10)
    loss = nc.decompose_mse(beside, torch.zeros(4, 9)).ls
    assert loss == pytest.approx(float((0.5 / (4 + snr(beside).square())).sum()), rel=1e-10)


# --- float32 and narrower ---


def collapsed(spread: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(4).repeat_interleave(torch.tensor([9, 12, 7, 10]))
    means = torch.randn(4, 6, generator=generator, dtype=torch.float64) + 0.3
    noise = torch.randn(len(labels), 6, generator=generator, dtype=torch.float64)
    return (means[labels] + spread * noise).to(dtype), labels


@over_weightings
@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_nc1_of_float32_features_collapsed_to_rounding(weighting: str, scale: float) -> None:
    features, labels = collapsed(1e-7, torch.float32)
    features = features * scale
    moments = nc.ClassMoments(4, weighting=weighting)
    for rows in torch.arange(len(labels)).split(11):
        moments.update(features[rows], labels[rows])
    want = reference.nc1_mpmath(features.double().numpy(), labels.numpy(), weighting)
    assert 1e-17 < want < 1e-12
    assert float(nc.nc1(moments)) == pytest.approx(want, rel=1e-3)


@over_weightings
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_nc1_of_half_precision_features(weighting: str, dtype: torch.dtype) -> None:
    features, labels = collapsed(0.05, dtype)
    moments = nc.ClassMoments(4, weighting=weighting)
    moments.update(features, labels)
    want = reference.nc1_mpmath(features.double().numpy(), labels.numpy(), weighting)
    assert float(nc.nc1(moments)) == pytest.approx(want, rel=1e-4)


@over_weightings
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nc1_over_a_between_class_spread_of_1e5(weighting: str, dtype: torch.dtype) -> None:
    """The trap of §9: a pseudo-inverse with a default cutoff drops the small direction, or keeps a false one."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(4).repeat(10)
    means = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    means *= torch.tensor([300.0, 30.0, 1.0] + [0.0] * 5)  # eigenvalues of Σ_B over a factor of 1e5
    noise = torch.randn(40, 8, generator=generator, dtype=torch.float64)
    features = (means[labels] + 0.05 * noise).to(dtype)
    moments = nc.ClassMoments(4, weighting=weighting)
    moments.update(features, labels)
    want = reference.nc1_mpmath(features.double().numpy(), labels.numpy(), weighting)
    assert float(nc.nc1(moments)) == pytest.approx(want, rel=1e-3 if dtype == torch.float32 else 1e-8)


# --- exact collapse ---


def etf_rows(num_classes: int, dim: int) -> Tensor:
    return nc.simplex_etf(num_classes, dim).double()


@pytest.mark.parametrize(("num_classes", "dim"), [(2, 1), (2, 5), (3, 2), (10, 9), (10, 64), (5, 5)])
def test_simplex_etf_is_one(num_classes: int, dim: int) -> None:
    rows = etf_rows(num_classes, dim)
    assert rows.shape == (num_classes, dim)
    gram = rows @ rows.T
    norm = float(gram[0, 0])
    want = (torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes) * norm * num_classes / (num_classes - 1)
    torch.testing.assert_close(gram, want, rtol=1e-12, atol=1e-12)


def test_simplex_etf_needs_room() -> None:
    with pytest.raises(InputError):
        nc.simplex_etf(10, 8)
    with pytest.raises(InputError):
        nc.simplex_etf(1, 8)


@pytest.mark.parametrize(("num_classes", "dim"), [(2, 4), (4, 3), (10, 32)])
@over_weightings
def test_exact_values_at_a_collapsed_simplex(num_classes: int, dim: int, weighting: str) -> None:
    rows = etf_rows(num_classes, dim)
    labels = torch.arange(num_classes).repeat(6)
    features = 3.0 * rows[labels] + 0.25
    moments = nc.ClassMoments(num_classes, weighting=weighting)
    moments.update(features, labels)
    for name, value in asdict(nc.nc2(moments, 2.0 * rows)).items():
        assert float(value) == pytest.approx(0.0, abs=1e-12), name
    assert 0.0 <= float(nc.nc3(moments, 2.0 * rows)) < 1e-20
    assert 0.0 <= float(nc.nc1(moments)) < 1e-24
    assert float(nc.nc4_mismatch(features, labels, rows)) == 0.0
    assert float(nc.nc4_mismatch(features, labels, -rows)) == 1.0
    assert float(snr(moments).min()) > 1e9


def test_snr_of_noiseless_features_is_infinite() -> None:
    labels = torch.arange(3).repeat(4)
    moments = nc.ClassMoments(3)
    moments.update(torch.eye(3, dtype=torch.float64)[labels], labels)  # representable exactly: Σ_W is zero
    assert snr(moments).tolist() == [math.inf, math.inf]
    assert float(nc.nc1(moments)) == 0.0


@over_weightings
@pytest.mark.parametrize("noise", [0.5, 0.01])
def test_exact_values_of_isotropic_noise_around_a_simplex(weighting: str, noise: float) -> None:
    """Σ_W = σ² I and equal norms r: NC1 = σ² (C − 1)² / (r² C)·… and ω = r √(C/(C−1)) / σ, by hand."""
    num_classes = dim = 4
    rows = etf_rows(num_classes, dim)
    radius2 = float(rows[0] @ rows[0])
    step = noise * math.sqrt(dim) * torch.cat([torch.eye(dim), -torch.eye(dim)]).double()  # covariance σ² I
    labels = torch.arange(num_classes).repeat_interleave(2 * dim)
    moments = nc.ClassMoments(num_classes, weighting=weighting)
    moments.update(rows[labels] + step.repeat(num_classes, 1), labels)
    # Σ_B has C − 1 eigenvalues r² /(C − 1), for its trace is r².
    want = noise**2 * (num_classes - 1) * (num_classes - 1) / radius2 / num_classes
    assert float(nc.nc1(moments)) == pytest.approx(want, rel=1e-10)
    omega = math.sqrt(radius2 * num_classes / (num_classes - 1)) / noise
    torch.testing.assert_close(snr(moments), torch.full((3,), omega, dtype=torch.float64), rtol=1e-10, atol=0.0)


def test_equiangularity_is_unbiased_over_ordered_pairs() -> None:
    """Cosines 0, 0 and 1/√2 by hand: six ordered pairs, divisor five."""
    weight = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [1.0, 0.0, 1.0]], dtype=torch.float64)
    labels = torch.arange(3).repeat(2)
    moments = nc.ClassMoments(3)
    moments.update(torch.randn(6, 3, dtype=torch.float64), labels)
    average = 1 / (3 * math.sqrt(2))
    want = math.sqrt((4 * average**2 + 2 * (1 / math.sqrt(2) - average) ** 2) / 5)
    got = nc.nc2(moments, weight)
    assert float(got.equiangularity_classifier) == pytest.approx(want, rel=1e-12)
    norms = np.array([1.0, 2.0, math.sqrt(2)])
    assert float(got.equinorm_classifier) == pytest.approx(norms.std(ddof=1) / norms.mean(), rel=1e-12)


def test_nc4_counts_the_bias() -> None:
    features = torch.tensor([[1.0], [2.0], [9.0], [10.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    weight = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    assert float(nc.nc4_mismatch(features, labels, weight, torch.tensor([11.0, 0.0], dtype=torch.float64))) == 0.0
    assert float(nc.nc4_mismatch(features, labels, weight)) == 0.5


# --- what cannot be negative, and what cannot be computed ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@over_weightings
@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=6, max_size=6),
    repeats=st.lists(st.integers(1, 9), min_size=3, max_size=3),
)
def test_repeated_examples_have_no_negative_nc1(
    dtype: torch.dtype, weighting: str, values: list[float], repeats: list[int]
) -> None:
    """Copies of one vector: rounding of the mean must not leave a negative trace."""
    means = torch.tensor(values, dtype=dtype).reshape(3, 2) + 2e3 * torch.tensor([[0.1, 0], [0, 0.3], [0.7, 0.9]])
    labels = torch.arange(3).repeat_interleave(torch.tensor(repeats))
    moments = nc.ClassMoments(3, weighting=weighting)
    moments.update(means.to(dtype)[labels], labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # means may fall onto one line
        assert float(nc.nc1(moments)) >= 0.0


def assert_infinite_naming_1_and_3(features: Tensor, labels: Tensor, weighting: str, batch: int = 1000) -> None:
    moments = nc.ClassMoments(5, weighting=weighting)
    for rows in torch.arange(len(labels)).split(batch):
        moments.update(features[rows], labels[rows])
    with pytest.warns(UserWarning, match=r"\b1\b.*\b3\b"):
        assert float(nc.nc1(moments)) == math.inf


def five_classes(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Deviations and means of random features, the means of classes 1 and 3 the same."""
    generator = torch.Generator().manual_seed(4)
    means = torch.randn(5, 6, generator=generator).to(dtype)
    means[3] = means[1]
    return torch.randn(5, 6, generator=generator).to(dtype), means


over_widths = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


@over_weightings
@over_widths
def test_coinciding_class_means_give_infinity_and_are_named(weighting: str, dtype: torch.dtype) -> None:
    """Deviations that cancel, up to the rounding of the features themselves."""
    deviations, means = five_classes(dtype)
    labels = torch.arange(5).repeat_interleave(10)
    features = means[labels] + torch.cat([deviations, -deviations]).repeat(5, 1)
    assert_infinite_naming_1_and_3(features, labels, weighting)


@over_weightings
@over_widths
@pytest.mark.parametrize("batch", [1000, 13])
def test_the_same_examples_under_two_labels_coincide_in_any_order(
    weighting: str, dtype: torch.dtype, batch: int
) -> None:
    """Classes 1 and 3 hold exactly the same vectors, shuffled: their means differ by the rounding of sums alone."""
    deviations, means = five_classes(dtype)
    labels = torch.arange(5).repeat_interleave(5)
    features = means[labels] + deviations.repeat(5, 1)
    order = torch.randperm(75, generator=torch.Generator().manual_seed(1)) % 25
    assert_infinite_naming_1_and_3(features[order], labels[order], weighting, batch)


@over_weightings
def test_close_but_distinct_means_of_float32_features_do_not_coincide(weighting: str) -> None:
    """A separation of 1e-5 of the offset is a hundred roundings of float32, and is measured, not called zero."""
    generator = torch.Generator().manual_seed(8)
    labels = torch.arange(3).repeat(40)
    noise = 1e-3 * torch.randn(120, 8, generator=generator, dtype=torch.float64)
    features = (100.0 + 1e-3 * torch.randn(3, 8, generator=generator, dtype=torch.float64)[labels] + noise).float()
    moments = nc.ClassMoments(3, weighting=weighting)
    moments.update(features, labels)
    want = reference.nc1_mpmath(features.double().numpy(), labels.numpy(), weighting)
    assert float(nc.nc1(moments)) == pytest.approx(want, rel=1e-3)


def test_snr_is_infinite_only_along_the_direction_without_noise() -> None:
    """Noise along the first axis only: by hand, the limit of noise ε → 0 along the second."""
    means = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    noise = torch.tensor([[0.5, 0.0], [-0.5, 0.0]], dtype=torch.float64)
    moments = nc.ClassMoments(3)
    moments.update(means.repeat_interleave(2, 0) + noise.repeat(3, 1), torch.arange(3).repeat_interleave(2))
    # M̄M̄ᵀ = diag(2, 6), Σ_W = diag(1/4, 0)
    assert snr(moments).tolist() == pytest.approx([math.inf, math.sqrt(2.0) / 0.5])


@over_weightings
@over_widths
def test_more_classes_than_features_that_lie_in_a_hyperplane(weighting: str, dtype: torch.dtype) -> None:
    """What layer normalisation leaves: five features that fill four dimensions, measured as the four would be."""
    generator = torch.Generator().manual_seed(9)
    labels = torch.arange(9).repeat_interleave(12)
    means = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    inside = means[labels] + 0.3 * torch.randn(108, 4, generator=generator, dtype=torch.float64)
    axes = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    moments = nc.ClassMoments(9, weighting=weighting)
    moments.update((inside @ axes[:4] + 3.0 * axes[4]).to(dtype), labels)
    want = class_moments(inside.numpy(), labels.numpy(), 9, weighting)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    assert nc.nc1(moments) == pytest.approx(reference.nc1(want), rel=tolerance)
    torch.testing.assert_close(
        snr(moments), torch.from_numpy(reference.snr_singular_values(want)), rtol=tolerance, atol=0.0
    )


def test_more_classes_than_features_whose_noise_alone_leaves_the_hyperplane() -> None:
    """Along the last axis features vary and class means do not: that axis separates nothing."""
    labels = torch.arange(9).repeat(2)
    means = torch.randn(9, 4, dtype=torch.float64)
    moments = nc.ClassMoments(9)
    moments.update(torch.cat([means[labels], torch.tensor([[1.0]] * 9 + [[-1.0]] * 9)], dim=1), labels)
    with pytest.warns(UserWarning, match="the 9 class means are affinely dependent"):
        assert nc.nc1(moments) == math.inf


def test_one_class_alone_says_so() -> None:
    moments = nc.ClassMoments(3)
    moments.update(torch.randn(5, 4), torch.ones(5, dtype=torch.int64))
    weight = torch.randn(3, 4)
    for formula in (nc.nc1, lambda m: nc.nc2(m, weight).maximal_angle_means, lambda m: nc.nc3(m, weight)):
        with pytest.warns(UserWarning, match="undefined: all examples are of one class"):
            assert math.isnan(formula(moments))


@pytest.mark.wrong_input
def test_a_classifier_of_the_wrong_shape_is_named() -> None:
    moments, _, d = both(named("balanced"), "example")
    wrong = torch.from_numpy(d.weight.T.copy())
    for call in (
        lambda: nc.nc2(moments, wrong),
        lambda: nc.nc3(moments, wrong),
        lambda: nc.decompose_mse(moments, wrong),
        lambda: nc.nc4_mismatch(torch.from_numpy(d.features), torch.from_numpy(d.labels), wrong),
    ):
        with pytest.raises(InputError, match=r"\(7, 4\)"):
            call()


def test_a_row_of_zeros_leaves_the_angles_undefined_and_is_named() -> None:
    case = named("balanced")
    d = data(case)
    moments = nc.ClassMoments(case.num_classes)
    moments.update(torch.from_numpy(d.features), torch.from_numpy(d.labels))
    weight = torch.from_numpy(d.weight).clone()
    weight[2] = 0.0
    with pytest.warns(UserWarning, match="classifier row of class 2 is zero"):
        found = nc.nc2(moments, weight)
    assert math.isnan(found.equiangularity_classifier) and math.isnan(found.maximal_angle_classifier)
    assert math.isfinite(found.equinorm_classifier) and math.isfinite(found.maximal_angle_means)
    assert math.isfinite(nc.nc3(moments, weight))
    with pytest.warns(UserWarning, match="the classifier is zero"):
        assert math.isnan(nc.nc3(moments, 0 * weight))


def test_labels_of_several_types_are_counted_alike() -> None:
    """A first batch of uint8 labels, then labels that uint8 cannot hold."""
    classes, dim = 300, 4
    means = torch.randn(classes, dim, dtype=torch.float64)
    moments = nc.ClassMoments(classes)
    moments.update(means, torch.arange(classes))
    decisions = DecisionCounts(
        moments, means, -0.5 * means.square().sum(dim=1)
    )  # argmax ⟨μ_c, h⟩ − ½‖μ_c‖² is the nearest mean
    for labels in (torch.arange(9, dtype=torch.uint8), torch.arange(290, 300)):
        decisions.add(means[labels.long()], labels)
    assert decisions.counts == (19, 0, 19, 19)


@pytest.mark.parametrize("seed", range(6))
def test_a_near_copy_of_a_unit_in_float32_is_no_infinite_signal(seed: int) -> None:
    """0.3 h rounded to float32 is no exact copy of h: what rounding leaves between them is neither noise nor signal."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(150) % 5
    features = torch.randn(5, 8, generator=generator)[labels] + 0.01 * torch.randn(150, 8, generator=generator)
    alone, beside = nc.ClassMoments(5), nc.ClassMoments(5)
    alone.update(features.double(), labels)
    beside.update(torch.cat([features, 0.3 * features[:, :1], features[:, 1:2] - 0.7 * features[:, 2:3]], 1), labels)
    torch.testing.assert_close(snr(beside), snr(alone), rtol=0.02, atol=0.0)


@pytest.mark.parametrize("size", [1e-25, 1e-10, 1.0, 1e25, 1e50])
def test_nc3_of_moments_in_float32_does_not_depend_on_the_size_of_the_weight(size: float) -> None:
    """Squares of its rows would leave the range of float32."""
    rng = np.random.default_rng(0)
    means, weight = rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=(3, 4))
    moments = nc.ClassMoments(3, dtype=torch.float32)
    moments.update(means, np.arange(3))
    centred = means.astype(np.float64) - means.mean(axis=0, dtype=np.float64)
    want = np.linalg.norm(weight / np.linalg.norm(weight) - centred / np.linalg.norm(centred)) ** 2
    assert nc.nc3(moments, weight * size) == pytest.approx(want, rel=1e-6)
