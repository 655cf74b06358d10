"""Theorems 1 and 2: the three terms add up to the loss of the examples themselves, and each is what it says."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from helpers.cases import Case, data, named, over_cases, over_weightings
from reference import exact
from reference import mse as reference
from reference.moments import Moments, class_moments

import neuralcollapse as nc
from neuralcollapse._checks import InputError


def moments_of(case: Case, weighting: str, dtype: torch.dtype = torch.float64) -> nc.ClassMoments:
    d = data(case)
    moments = nc.ClassMoments(case.num_classes, weighting=weighting)
    moments.update(torch.from_numpy(d.features).to(dtype), torch.from_numpy(d.labels))
    return moments


def reference_moments(case: Case, weighting: str) -> Moments:
    d = data(case)
    return class_moments(d.features, d.labels, case.num_classes, weighting)


def decompose(case: Case, weighting: str, weight_decay: float):
    d = data(case)
    weight, bias = torch.from_numpy(d.weight), torch.from_numpy(d.bias)
    return nc.decompose_mse(moments_of(case, weighting), weight, bias, weight_decay=weight_decay)


def parts(dec) -> float:
    return float(dec.nc1) + float(dec.nc23) + float(dec.ls_perp)


@over_cases
@over_weightings
@pytest.mark.parametrize("decay", ["of-the-case", "none"])
def test_terms_add_up_to_the_loss_example_by_example(case: Case, weighting: str, decay: str) -> None:
    """Theorem 1 and Theorem 2: L_NC1 + L_NC2/3 + L⊥_LS is the loss of the examples, summed one by one."""
    weight_decay = case.weight_decay if decay == "of-the-case" else 0.0
    d = data(case)
    dec = decompose(case, weighting, weight_decay)
    m = reference_moments(case, weighting)
    want = reference.loss(m, d.features, d.labels, d.weight, d.bias, weight_decay)
    assert parts(dec) == pytest.approx(want, rel=1e-12)
    assert float(dec.total) == pytest.approx(want, rel=1e-12)
    assert float(dec.nc1) + float(dec.nc23) == pytest.approx(float(dec.ls), rel=1e-12)


@over_cases
@over_weightings
def test_each_term_matches_its_reference(case: Case, weighting: str) -> None:
    """Theorem 1 and Theorem 2: each term against its own definition."""
    d = data(case)
    dec = decompose(case, weighting, case.weight_decay)
    want = reference.decompose(
        reference_moments(case, weighting), d.features, d.labels, d.weight, d.bias, case.weight_decay
    )
    # K is the square of what the reference factors, so half of float64's digits may go on an ill-conditioned case.
    np.testing.assert_allclose(dec.weight_ls, want.weight_ls, rtol=1e-6, atol=1e-6 * np.abs(want.weight_ls).max())
    np.testing.assert_allclose(dec.bias_ls, want.bias_ls, rtol=1e-6, atol=1e-6 * np.abs(want.bias_ls).max())
    for name in ("total", "nc1", "nc23", "ls", "ls_perp"):
        scale = 1e-12 * want.total
        assert float(getattr(dec, name)) == pytest.approx(getattr(want, name), rel=1e-10, abs=scale), name


@over_cases
@over_weightings
def test_gradient_of_the_loss_vanishes_at_the_least_squares_classifier(case: Case, weighting: str) -> None:
    d = data(case)
    dec = decompose(case, weighting, case.weight_decay)
    m = reference_moments(case, weighting)
    features, target = torch.from_numpy(d.features), torch.eye(case.num_classes, dtype=torch.float64)[d.labels]
    share = torch.from_numpy(m.example_weights)

    def gradient(weight: torch.Tensor, bias: torch.Tensor) -> float:
        weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        residual = features @ weight.T + bias - target
        loss = 0.5 * (share * residual.square().sum(dim=1)).sum()
        loss = loss + case.weight_decay / 2 * (weight.square().sum() + bias.square().sum())
        return math.hypot(*(float(g.norm()) for g in torch.autograd.grad(loss, (weight, bias))))

    there = gradient(dec.weight_ls, dec.bias_ls)
    nowhere = gradient(torch.zeros_like(dec.weight_ls), torch.zeros_like(dec.bias_ls))
    assert there <= 1e-10 * nowhere


@over_cases
@over_weightings
def test_no_term_is_negative_and_none_is_left_at_the_optimum(case: Case, weighting: str) -> None:
    dec = decompose(case, weighting, case.weight_decay)
    assert min(float(getattr(dec, name)) for name in ("total", "nc1", "nc23", "ls", "ls_perp")) >= 0.0
    again = nc.decompose_mse(moments_of(case, weighting), dec.weight_ls, dec.bias_ls, weight_decay=case.weight_decay)
    assert 0.0 <= float(again.ls_perp) <= 1e-12 * float(dec.total)
    assert float(again.total) == pytest.approx(float(dec.ls), rel=1e-10, abs=1e-14)


@over_weightings
def test_without_a_bias_the_loss_is_that_of_a_zero_bias(weighting: str) -> None:
    case = named("imbalanced-50-to-1")
    d = data(case)
    dec = nc.decompose_mse(moments_of(case, weighting), torch.from_numpy(d.weight), weight_decay=0.01)
    m = reference_moments(case, weighting)
    want = reference.loss(m, d.features, d.labels, d.weight, np.zeros_like(d.bias), 0.01)
    assert float(dec.total) == pytest.approx(want, rel=1e-12)
    assert parts(dec) == pytest.approx(want, rel=1e-12)


@over_weightings
@pytest.mark.parametrize("name", ["balanced", "nearly-collapsed", "large-offset"])
@pytest.mark.parametrize("weight_decay", [0.0, 5e-4])
def test_float32_features_still_add_up(name: str, weighting: str, weight_decay: float) -> None:
    case = named(name)
    d = data(case)
    features = d.features.astype(np.float32)
    weight, bias = d.weight.astype(np.float32), d.bias.astype(np.float32)
    dec = nc.decompose_mse(
        moments_of(case, weighting, torch.float32),
        torch.from_numpy(weight),
        torch.from_numpy(bias),
        weight_decay=weight_decay,
    )
    wide = features.astype(np.float64)
    m = class_moments(wide, d.labels, case.num_classes, weighting)
    want = reference.loss(m, wide, d.labels, weight.astype(np.float64), bias.astype(np.float64), weight_decay)
    assert parts(dec) == pytest.approx(want, rel=1e-5)
    assert float(dec.total) == pytest.approx(want, rel=1e-5)
    assert float(dec.ls_perp) >= 0.0


@pytest.mark.parametrize("num_classes", [2, 4, 7])
def test_loss_on_the_central_path_depends_on_the_snr_alone(num_classes: int) -> None:
    """§5: with zero global mean and λ = 0, L = ½ Σ_j 1/(C + ω_j²)."""
    generator = torch.Generator().manual_seed(num_classes)
    dim, per_class = 9, 30
    labels = torch.arange(num_classes).repeat_interleave(per_class)
    means = torch.randn(num_classes, dim, generator=generator, dtype=torch.float64)
    features = means[labels] + 0.3 * torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    features -= features.mean(dim=0)
    moments = nc.ClassMoments(num_classes)
    moments.update(features, labels)
    dec = nc.decompose_mse(moments, torch.zeros(num_classes, dim, dtype=torch.float64))
    omega = nc.snr_singular_values(moments).singular_values
    assert len(omega) == num_classes - 1
    assert float(dec.ls) == pytest.approx(float(0.5 * (1 / (num_classes + omega**2)).sum()), rel=1e-9)
    torch.testing.assert_close(dec.bias_ls, torch.full_like(dec.bias_ls, 1 / num_classes), rtol=1e-9, atol=0.0)


def test_predictions_on_the_central_path_ignore_a_linear_map() -> None:
    """Theorem 3: W_LS(AH) = W_LS(H) A⁻¹, so L_LS(AH) = L_LS(H), at λ = 0."""
    case = named("imbalanced-50-to-1")
    d = data(case)
    mixing = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + 3 * torch.eye(6)
    mapped = nc.ClassMoments(4)
    mapped.update(torch.from_numpy(d.features) @ mixing.T, torch.from_numpy(d.labels))
    zero = torch.zeros(4, 6, dtype=torch.float64)
    before, after = nc.decompose_mse(moments_of(case, "example"), zero), nc.decompose_mse(mapped, zero)
    assert float(after.ls) == pytest.approx(float(before.ls), rel=1e-10)
    torch.testing.assert_close(after.weight_ls @ mixing, before.weight_ls, rtol=1e-8, atol=1e-9)


@over_cases
@over_weightings
def test_the_least_squares_classifier_solves_the_stacked_system(case: Case, weighting: str) -> None:
    """Ridge regression as ordinary least squares of stacked rows, by NumPy's SVD: √a_i [h_i 1] and √λ I."""
    d = data(case)
    counts = np.bincount(d.labels, minlength=case.num_classes)
    n, present = len(d.labels), int((counts > 0).sum())
    mass = np.full(n, 1 / n) if weighting == "example" else 1 / (present * counts[d.labels])
    extended = np.column_stack([d.features, np.ones(n)])
    penalty = math.sqrt(case.weight_decay) * np.eye(case.dim + 1)
    left = np.vstack([np.sqrt(mass)[:, None] * extended, penalty])
    targets = np.sqrt(mass)[:, None] * np.eye(case.num_classes)[d.labels]
    right = np.vstack([targets, np.zeros((case.dim + 1, case.num_classes))])
    solution = np.linalg.lstsq(left, right, rcond=1e-9)[0].T
    weight, bias = nc.least_squares_classifier(moments_of(case, weighting), case.weight_decay)
    scale = np.abs(solution).max()
    np.testing.assert_allclose(np.column_stack([weight, bias]), solution, rtol=1e-6, atol=1e-7 * scale)


def test_a_small_spread_in_float32_is_no_rounding_without_decay() -> None:
    """Σ_W is 1e-8 of Σ_B, yet known to seven digits: λ = 0 must not take its directions for noise."""
    case = Case("nearly-collapsed-no-decay", (40, 40, 40), 6, spread=1e-4, weight_decay=0.0)
    d = data(case)
    single = d.features.astype(np.float32)
    moments = nc.ClassMoments(3)
    moments.update(torch.from_numpy(single), torch.from_numpy(d.labels))
    exact = single.astype(np.float64)
    reference_ = class_moments(exact, d.labels, 3, "example")
    want = reference.decompose(reference_, exact, d.labels, d.weight, d.bias, 0.0)
    got = nc.decompose_mse(moments, torch.from_numpy(d.weight), torch.from_numpy(d.bias))
    assert got.nc1 == pytest.approx(want.nc1, rel=1e-4)
    np.testing.assert_allclose(got.weight_ls, want.weight_ls, rtol=1e-3, atol=1e-3 * np.abs(want.weight_ls).max())


def test_the_optimum_of_two_points_by_hand() -> None:
    """Features −1 and 1, λ = 0: W = (∓½), b = ½ fits both exactly; the zero classifier loses ½."""
    moments = nc.ClassMoments(2)
    moments.update(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), torch.tensor([0, 1]))
    dec = nc.decompose_mse(moments, torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    assert dec.weight_ls.flatten().tolist() == pytest.approx([-0.5, 0.5], abs=1e-14)
    assert dec.bias_ls.tolist() == pytest.approx([0.5, 0.5], abs=1e-14)
    assert float(dec.total) == pytest.approx(0.5)
    assert float(dec.ls) == pytest.approx(0.0, abs=1e-14)
    assert float(dec.ls_perp) == pytest.approx(0.5)


@pytest.mark.parametrize("weight_decay", [-1e-3, float("nan"), float("inf")])
def test_an_impossible_weight_decay_is_named(weight_decay: float) -> None:
    with pytest.raises(InputError, match=str(weight_decay).replace(".", r"\.")):
        decompose(named("balanced"), "example", weight_decay)


def test_a_classifier_with_nan_is_refused() -> None:
    case = named("balanced")
    weight = torch.from_numpy(data(case).weight).clone()
    weight[1, 2] = float("nan")
    with pytest.raises(InputError, match="weight"):
        nc.decompose_mse(moments_of(case, "example"), weight)


@pytest.mark.parametrize("spread", [1e-4, 1e-7, 1e-8])
def test_rows_of_classes_without_examples_change_nothing(spread: float) -> None:
    """Four classes, and a classifier of 50 rows on 8 features: the loss near zero keeps its digits, and its sign."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 4
    means = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    features = means[labels] + spread * torch.randn(80, 8, generator=generator, dtype=torch.float64)
    few, many = nc.ClassMoments(4), nc.ClassMoments(50)
    few.update(features, labels)
    many.update(features, labels)
    got, want = nc.decompose_mse(many, torch.zeros(50, 8)), nc.decompose_mse(few, torch.zeros(4, 8))
    assert got.nc23 >= 0.0 and got.ls == pytest.approx(want.ls, rel=1e-6)
    assert got.total == pytest.approx(want.total, rel=1e-12)


@pytest.mark.parametrize("decay", [0.5, 0.01, 1e-8])
@pytest.mark.parametrize("offset", [1e3, 1e6, 1e9])
def test_an_offset_common_to_features_costs_the_decayed_parts_only_its_own_rounding(
    offset: float, decay: float
) -> None:
    """Against the normal equations of the extended features in sixty digits.

    An offset of 10^k leaves 16 − k digits of the spread: so many are right.
    """
    generator = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = generator.normal(size=(30, 4)) + 2 * generator.normal(size=(3, 4))[labels] + offset
    with mpmath.workdps(60):
        extended = mpmath.matrix([[*map(mpmath.mpf, row.tolist()), mpmath.mpf(1)] for row in features])
        targets = mpmath.matrix(np.eye(3)[labels].tolist())
        gram = extended.T * extended / 30 + mpmath.mpf(decay) * mpmath.eye(5)
        optimal = (targets.T * extended / 30) * gram**-1
        misfit = extended * optimal.T - targets
        loss = sum(value**2 for value in misfit) / 60 + mpmath.mpf(decay) / 2 * sum(value**2 for value in optimal)
        want = float(loss)
        weight = np.array([[float(optimal[row, column]) for column in range(4)] for row in range(3)])
    found = nc.decompose_mse(features, labels, np.zeros((3, 4)), weight_decay=decay)
    tolerance = 20 * np.finfo(float).eps * offset
    assert found.ls == pytest.approx(want, rel=tolerance)
    assert found.ls + found.ls_perp == pytest.approx(found.total, rel=tolerance)
    np.testing.assert_allclose(found.weight_ls.numpy(), weight, rtol=0, atol=20 * tolerance * abs(weight).max())


@pytest.mark.parametrize(
    ("power", "weight_decay"),
    [(501, 1e300), (505, 1e306), (540, 1e300), (-498, 1e-300), (-505, 1e-300), (-505, 1e-306), (-520, 1e-308)],
)
def test_a_penalty_as_extreme_as_the_features(power: int, weight_decay: float) -> None:
    """Of features divided by 2^power λ is λ 4^-power, which is an ordinary number here, or far from one."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [4, 3, 5])
    features = (rng.normal(size=(3, 2))[labels] + 0.3 * rng.normal(size=(12, 2))) * 2.0**power
    want = exact.decompose(
        exact.Moments(3, exact.rational(features), labels.tolist(), "example"),
        exact.rational(np.zeros((3, 2))),
        exact.rational(np.zeros(3)),
        Fraction(weight_decay),
    )
    got = nc.decompose_mse(features, labels, np.zeros((3, 2)), np.zeros(3), weight_decay=weight_decay)
    for value, exactly in ((got.nc1, want.nc1), (got.nc23, want.nc23), (got.ls_perp, want.ls_perp)):
        assert value == pytest.approx(float(exactly), rel=1e-9)
