"""The exact reference against limits and definitions that share nothing with how it computes."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from reference import collapse, exact

SHAPES = ((3, 7, 5), (3, 7, 8), (3, 7, 9), (4, 2, 12), (2, 3, 4), (5, 3, 6))


def problem(seed: int, classes: int, dim: int, examples: int) -> tuple[np.ndarray, np.ndarray, exact.Moments]:
    """With a constant and a doubled unit, so that Σ_W is singular in each of its ways."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, examples)])
    features = np.round(rng.normal(size=(classes, dim))[labels] + rng.normal(size=(len(labels), dim)), 2)
    features = np.column_stack([features, np.full(len(labels), 0.5), 2 * features[:, 0]])
    return features, labels, exact.Moments(classes, exact.rational(features), labels.tolist(), "example")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(2))
def test_the_spectrum_is_the_limit_of_its_definition(seed: int, shape: tuple[int, int, int]) -> None:
    """(Σ_W + εI)^{-1/2} M̄ for ε = 1e-60: what is infinite grows like 1e30, the rest has settled."""
    *_, m = problem(seed, *shape)
    with mpmath.workdps(160):
        noise = exact.numbers(m.within) + mpmath.mpf(10) ** -60 * mpmath.eye(len(m.within))
        means = exact.numbers(m.centred)
        values = sorted(mpmath.eigsy(means * (noise**-1) * means.T, eigvals_only=True), reverse=True)
        limit = [float(mpmath.sqrt(max(mpmath.mpf(0), v))) for v in values]
    with mpmath.workdps(exact.DIGITS):
        found = exact.snr(m)
    assert len(found) == min(len(m.present) - 1, exact.rank(m.total))
    for value, near in zip(found, limit, strict=False):
        assert near > 1e20 if math.isinf(value) else near == pytest.approx(value, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_least_norm_classifier_is_the_limit_of_small_decay(shape: tuple[int, int, int]) -> None:
    *_, m = problem(3, *shape)
    exactly = exact.least_squares(m, Fraction(0))
    nearly = exact.least_squares(m, Fraction(1, 10**40))
    for one, other in zip(exactly, nearly, strict=True):
        assert [float(v) for v in one] == pytest.approx([float(v) for v in other], rel=1e-12, abs=1e-20)


@pytest.mark.parametrize("decay", [0.0, 0.25])
def test_the_parts_of_the_loss_are_sums_over_examples(decay: float) -> None:
    features, labels, m = problem(4, 3, 4, 12)
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, features.shape[1])), rng.normal(size=3)
    loss = exact.decompose(m, exact.rational(weight), exact.rational(bias), Fraction(decay))
    optimum = np.array([[float(v) for v in row] for row in loss.optimum])
    extended = np.column_stack([features, np.ones(len(features))])
    target = np.eye(3)[labels]

    def direct(w: np.ndarray) -> float:
        return float(0.5 * ((extended @ w.T - target) ** 2).sum() / len(labels) + 0.5 * decay * (w**2).sum())

    assert direct(np.column_stack([weight, bias])) == pytest.approx(float(loss.total), rel=1e-12)
    assert direct(optimum) == pytest.approx(float(loss.ls), rel=1e-9)
    for _ in range(20):
        assert direct(optimum + 0.01 * rng.normal(size=optimum.shape)) > float(loss.ls)


@pytest.mark.parametrize("weighting", ["example", "class"])
def test_nc1_is_that_of_the_other_reference(weighting: str) -> None:
    rng = np.random.default_rng(5)
    labels = np.concatenate([np.arange(4), rng.integers(0, 4, 20)])
    features = rng.normal(size=(4, 5))[labels] + 0.5 * rng.normal(size=(24, 5))
    m = exact.Moments(4, exact.rational(features), labels.tolist(), weighting)
    assert exact.nc1(m) == pytest.approx(collapse.nc1_mpmath(features, labels, weighting), rel=1e-14)


def test_vci_by_whitening_with_a_pseudo_inverse() -> None:
    *_, m = problem(6, 3, 3, 15)
    total, between = (np.array([[float(v) for v in row] for row in a]) for a in (m.total, m.between))
    share = np.trace(np.linalg.pinv(total, rcond=1e-12) @ between)
    assert exact.variability_collapse_index(m) == pytest.approx(1 - share / 2, rel=1e-9)
