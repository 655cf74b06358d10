"""Neural Regression Collapse against the formulas of its paper, with γ by a search, and linear CKA against kernels."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import neuralcollapse as nc


def reference(h: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[float, float, float]:
    """By Gram–Schmidt, the eigenvectors of the covariance, and a fine grid of γ refined once."""
    unit = h / np.sqrt((h**2).sum(axis=1))[:, None]
    covariance = np.cov(h.T, bias=True)
    components = np.linalg.eigh(covariance)[1][:, -y.shape[1] :].T
    spans = []
    for rows in (components, w):
        basis: list[np.ndarray] = []
        for row in rows:
            for _ in range(2):
                row = row - sum((row @ b) * b for b in basis)
            basis.append(row / np.linalg.norm(row))
        spans.append(np.array(basis))
    nrc1, nrc2 = (float(np.mean([np.sum((v - b.T @ (b @ v)) ** 2) for v in unit])) for b in spans)
    values, vectors = np.linalg.eigh(np.cov(y.T, bias=True).reshape(y.shape[1], -1))
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    gram = w @ w.T / np.linalg.norm(w @ w.T)

    def distance(gamma: float) -> float:
        target = root - np.sqrt(gamma) * np.eye(len(root))
        return float(np.linalg.norm(gram - target / np.linalg.norm(target)) ** 2)

    grid = np.linspace(0, values[0], 2001)
    best = grid[np.argmin([distance(g) for g in grid])]
    fine = np.linspace(max(0, best - values[0] / 2000), min(values[0], best + values[0] / 2000), 2001)
    return nrc1, nrc2, min(map(distance, fine))


@pytest.mark.parametrize("seed", range(6))
def test_the_numbers_are_those_of_the_formulas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 3)) + 1.0
    features = targets @ rng.normal(size=(3, 7)) + 0.3 * rng.normal(size=(60, 7))
    weight = rng.normal(size=(3, 7))
    if seed > 2:  # near the structure that the theory predicts, where γ is inside its range
        values, vectors = np.linalg.eigh(np.cov(targets.T, bias=True))
        roots = np.sqrt(np.maximum(np.sqrt(values) - 0.5 * np.sqrt(values[0]), 0))
        weight = (vectors * roots) @ vectors.T @ np.linalg.qr(rng.normal(size=(7, 3)))[0].T
    found = nc.measure_regression(features, targets, weight)
    nrc1, nrc2, nrc3 = reference(features, targets, weight)
    assert (found.nrc1, found.nrc2) == pytest.approx((nrc1, nrc2), rel=1e-10)
    assert found.nrc3 == pytest.approx(nrc3, rel=1e-5, abs=1e-10)
    assert found.nrc3 <= nrc3 + 1e-12


def test_at_collapse_all_vanish() -> None:
    """Features W⁺-like images of centred targets, and W of the Gram matrix that the theory predicts."""
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(50, 2)) @ np.array([[2.0, 0.3], [0.3, 1.0]])
    targets -= targets.mean(axis=0)
    values, vectors = np.linalg.eigh(targets.T @ targets / 50)
    gram = vectors @ np.diag(np.sqrt(values) - 0.1) @ vectors.T
    root = np.linalg.cholesky(gram)
    frame = np.linalg.qr(rng.normal(size=(6, 2)))[0].T
    found = nc.measure_regression(targets @ frame, targets, root @ frame)
    assert (found.nrc1, found.nrc2, found.nrc3) == pytest.approx((0, 0, 0), abs=1e-12)
    assert found.gamma == pytest.approx(0.01, rel=1e-6)


def test_one_target_and_degenerate_features() -> None:
    found = nc.measure_regression(torch.randn(9, 4), torch.randn(9), torch.randn(1, 4))
    assert found.nrc3 == 0.0 and 0.0 < found.nrc1 < 1.0
    with pytest.warns(
        UserWarning, match="NRC1 and NRC2 are undefined: a feature is zero; NRC3 is undefined: all targets"
    ):
        found = nc.measure_regression(torch.zeros(3, 4), torch.ones(3, 2), torch.randn(2, 4))
    assert np.isnan(found.nrc1) and np.isnan(found.nrc3)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(4, 3), torch.ones(3, 2), torch.ones(2, 3)), "expected at least two examples and targets of shape"),
        ((torch.ones(4, 3), torch.ones(4, 2), torch.ones(3, 3)), "expected a classifier weight of shape .2, 3."),
        ((torch.full((4, 3), torch.nan), torch.ones(4, 2), torch.ones(2, 3)), "expected finite features and targets"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple[torch.Tensor, ...], message: str) -> None:
    with pytest.raises(nc.InputError, match=message):
        nc.measure_regression(*arguments)


def test_linear_cka_is_that_of_the_centred_kernels() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(30, 5)) + 4.0, rng.normal(size=(30, 8))
    other[:, :5] += one
    centring = np.eye(30) - 1 / 30
    first, second = (centring @ side @ side.T @ centring for side in (one, other))
    want = np.sum(first * second) / np.sqrt(np.sum(first * first) * np.sum(second * second))
    assert nc.linear_cka(one, other) == pytest.approx(want, rel=1e-12)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert nc.linear_cka(3 * one @ turn - 1, other) == pytest.approx(want, rel=1e-10)
    with pytest.warns(UserWarning, match="CKA is undefined"):
        assert np.isnan(nc.linear_cka(np.ones((4, 2)), rng.normal(size=(4, 2))))
    with pytest.raises(nc.InputError, match="features of the same examples, got 30 and 29"):
        nc.linear_cka(one, other[:29])


@pytest.mark.parametrize("power", [-290, -160, -20, 20, 160, 290])
def test_the_scale_of_features_does_not_matter(power: int) -> None:
    """Unit length is that of features of any size, though their squares vanish or overflow."""
    rng = np.random.default_rng(1)
    features, targets, weight = rng.normal(size=(40, 5)), rng.normal(size=(40, 2)), rng.normal(size=(2, 5))
    found, want = nc.measure_regression(features * 10.0**power, targets, weight), reference(features, targets, weight)
    assert (found.nrc1, found.nrc2) == pytest.approx(want[:2], rel=1e-10)
    sizes = 10.0 ** rng.integers(-150, 0, size=(40, 1))
    spread = nc.measure_regression(features * sizes, targets, weight)
    assert spread.nrc2 == pytest.approx(want[1], rel=1e-10)


@pytest.mark.parametrize("value", [0.1, 0.7, 1e5 / 3, 1e-200, -3e200])
@pytest.mark.parametrize("count", [3, 10, 49, 1000])
def test_cka_of_a_side_that_does_not_vary_is_undefined(count: int, value: float) -> None:
    """The mean of equal numbers is off by a rounding, which is no variation."""
    other = np.random.default_rng(0).normal(size=(count, 2))
    for sides in ((np.full((count, 3), value), other), (other, np.full((count, 1), value))):
        with pytest.warns(UserWarning, match="CKA is undefined: the features of one side are all equal"):
            assert np.isnan(nc.linear_cka(*sides))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_cka_refuses_what_is_not_finite(bad: float) -> None:
    rows, wrong = np.ones((4, 2)), np.ones((4, 2))
    wrong[2, 1] = bad
    with pytest.raises(nc.InputError, match="expected finite others, got NaN or infinity in row 2"):
        nc.linear_cka(rows, wrong)
    with pytest.raises(nc.InputError, match="expected finite features, got NaN or infinity in row 2"):
        nc.linear_cka(wrong, rows)


def without_first_components() -> dict[str, tuple[np.ndarray, str]]:
    """Features of 6 columns whose first 2 components are not unique, and what the warning says."""
    rng = np.random.default_rng(0)
    line, cross = np.outer(rng.normal(size=12), rng.normal(size=6)), np.tile(np.eye(3, 6), (4, 1))
    cross[::2] *= -1
    few, alike = "features vary in fewer than 2 directions", "features vary alike in the principal components 2 and 3"
    return {
        "constant": (np.tile(rng.normal(size=6), (12, 1)), few),
        "on a line that misses the origin": (line + rng.normal(size=6), few),
        "the same in float32": ((line + rng.normal(size=6)).astype(np.float32), few),
        "two alike": (cross * [3.0, 1, 1, 1, 1, 1] + [0, 2.0, 0, 0, 0, 0], alike),
        "a feature of rounding": (np.hstack([line[:, :5] * 1e-3 + 1, np.full((12, 1), 1e6)]), few),
    }


@pytest.mark.parametrize("kind", without_first_components())
def test_nrc1_of_features_without_first_components_is_undefined(kind: str) -> None:
    """Otherwise it would be that of whichever directions the decomposition gives: a rotation changes it."""
    features, why = without_first_components()[kind]
    rng = np.random.default_rng(1)
    targets, weight = rng.normal(size=(12, 2)), rng.normal(size=(2, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    sides = (
        [(features, weight)] if features.dtype == np.float32 else [(features, weight), (features @ turn, weight @ turn)]
    )
    for rows, layer in sides:
        with pytest.warns(UserWarning, match=f"^NRC1 is undefined: {why}$"):
            found = nc.measure_regression(rows, targets, layer)
        unit = rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1)[:, None]
        basis = np.linalg.qr(layer.T)[0]
        assert np.isnan(found.nrc1)
        assert found.nrc2 == pytest.approx(np.mean(np.sum((unit - unit @ basis @ basis.T) ** 2, axis=1)), rel=1e-9)


@pytest.mark.parametrize("turned", [False, True])
def test_nrc1_where_every_choice_of_components_gives_the_same(turned: bool) -> None:
    rng = np.random.default_rng(2)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0] if turned else np.eye(6)
    line, cross = np.outer([1.0, -3, 2], rng.normal(size=6)), np.vstack([np.eye(3, 6), -np.eye(3, 6)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        on_line = nc.measure_regression(line @ turn, rng.normal(size=(3, 2)), rng.normal(size=(2, 6)))
        # unit vectors along three axes, alike in all: two components have two thirds of them
        alike = nc.measure_regression(cross @ turn, rng.normal(size=(6, 2)), rng.normal(size=(2, 6)))
        # as many targets as features: the components are all directions, though features do not vary
        whole = nc.measure_regression(np.ones((4, 2)), rng.normal(size=(4, 2)), np.eye(2))
    assert (on_line.nrc1, alike.nrc1, whole.nrc1) == pytest.approx((0, 1 / 3, 0), abs=1e-12)


def test_a_small_feature_beside_a_large_constant_one_is_a_direction() -> None:
    """Rounding is relative to each feature's own size."""
    rng = np.random.default_rng(3)
    features = np.hstack([np.full((30, 1), 1e6), rng.normal(size=(30, 1)), np.full((30, 1), 3.0)]).astype(np.float32)
    wide = features.astype(float)
    want = 1 - np.mean(wide[:, 1] ** 2 / (wide**2).sum(axis=1))
    assert nc.measure_regression(features, rng.normal(size=30), rng.normal(size=(1, 3))).nrc1 == pytest.approx(want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_depend_on_one_another_span_no_direction_of_rounding(dtype: type) -> None:
    rng = np.random.default_rng(4)
    features, factors = rng.normal(size=(40, 6)), (rng.normal(size=(3, 2)), rng.normal(size=(2, 6)))
    basis = np.linalg.qr(factors[1].T)[0]
    unit = features / np.linalg.norm(features, axis=1)[:, None]
    want = np.mean(np.sum((unit - unit @ basis @ basis.T) ** 2, axis=1))
    weight = (factors[0] @ factors[1]).astype(dtype)
    assert nc.measure_regression(features, rng.normal(size=(40, 3)), weight).nrc2 == pytest.approx(want, rel=1e-6)
