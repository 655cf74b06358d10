"""Gradient flow without renormalization: its invariant, rates and closed form, against integration and SymPy."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
import torch
from torch import Tensor

from neuralcollapse import InputError
from neuralcollapse.theory.clock import fit_clock
from neuralcollapse.theory.flow import integrate
from neuralcollapse.theory.unrenormalized import UnrenormalizedPath, growth_rates

C, N, P = 4, 12, 6
LABELS = torch.arange(C * N) % C


def general(seed: int = 0) -> Tensor:
    """Features whose means and covariances share no direction."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(C * N, P, P, generator=generator, dtype=torch.float64)[:, 0] @ torch.randn(
        P, P, generator=generator, dtype=torch.float64
    )
    return noise + torch.randn(C, P, generator=generator, dtype=torch.float64)[LABELS]


def aligned() -> tuple[Tensor, np.ndarray, np.ndarray]:
    """(features, ω_j, τ_j) whose class means lie along eigenvectors of Σ_W, of different variances."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(C * N, P, generator=generator, dtype=torch.float64)
    means = torch.zeros(C, P, dtype=torch.float64).index_add_(0, LABELS, noise) / N
    deviations = noise - means[LABELS]
    values, vectors = torch.linalg.eigh(deviations.T @ deviations / len(noise))
    spread = torch.tensor([0.5, 1.0, 2.0, 3.0, 0.7, 1.3], dtype=torch.float64)
    white = (deviations @ vectors) * values.rsqrt() * spread
    basis = torch.linalg.qr(torch.eye(C, dtype=torch.float64) - 1.0 / C)[0][:, : C - 1]
    size = torch.tensor([3.0, 1.5, 2.6], dtype=torch.float64)
    x = white.clone()
    x[:, : C - 1] += (basis * size)[LABELS]
    sigma = spread[: C - 1]
    return x, (size / sigma).numpy(), (size**2 / C + sigma**2).numpy()


def test_the_total_covariance_stands_still() -> None:
    flow = integrate(general(), LABELS, torch.tensor([0.0, 50.0, 500.0]), renormalization="none")
    centred = flow.features - flow.features.mean(dim=1, keepdim=True)
    products = centred.mT @ centred
    torch.testing.assert_close(products[1:], products[:1].expand(2, -1, -1), rtol=1e-8, atol=1e-8)
    assert float(flow.singular_values[2, -1]) > 1.5 * float(flow.singular_values[0, -1])  # it does move


@pytest.mark.parametrize("seed", range(5))
def test_rates_are_the_derivatives_of_the_flow(seed: int) -> None:
    x, step = general(seed), 1e-2
    flow = integrate(x, LABELS, torch.tensor([0.0, step, 2 * step]), renormalization="none")
    logs = flow.singular_values.log()
    found = (-3 * logs[0] + 4 * logs[1] - logs[2]) / (2 * step)  # one-sided, of second order
    torch.testing.assert_close(growth_rates(x, LABELS), found, rtol=1e-4, atol=1e-9)


def test_along_the_directions_of_the_covariance_growth_is_exponential() -> None:
    x, omega, tau = aligned()
    order = np.argsort(-omega)
    np.testing.assert_allclose(growth_rates(x, LABELS).numpy(), (1 / (C * N * C * tau))[order], rtol=1e-10)
    times = torch.tensor([0.0, 30.0, 100.0, 200.0], dtype=torch.float64)
    flow = integrate(x, LABELS, times, renormalization="none")
    path = UnrenormalizedPath(omega, 1 / (C * N * C * tau)).singular_values(times)
    np.testing.assert_allclose(flow.singular_values.numpy(), -np.sort(-path, axis=1), rtol=1e-8)


def test_rates_do_not_depend_on_rotation_and_scale_like_one_over_the_variance() -> None:
    x = general()
    turn = torch.linalg.qr(torch.randn(P, P, dtype=torch.float64))[0]
    expected = growth_rates(x, LABELS)
    torch.testing.assert_close(growth_rates(x @ turn + 3.0, LABELS), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(growth_rates(4 * x, LABELS), expected / 16, rtol=1e-9, atol=0)


def test_one_direction_by_sympy() -> None:
    """m² + C σ² is conserved, ω = m/σ grows exponentially, ρ = ω²/(C + ω²) is logistic."""
    m, s, c, n = sp.symbols("m s C n", positive=True)
    w = m / c / (s**2 + m**2 / c)
    rate_m, rate_s = w * (1 - w * m) / n, -(w**2) * s / n
    assert sp.simplify(m * rate_m + c * s * rate_s) == 0
    omega, tau = m / s, m**2 / c + s**2
    growth = (sp.diff(omega, m) * rate_m + sp.diff(omega, s) * rate_s) / omega
    assert sp.simplify(growth - 1 / (n * c * tau)) == 0
    rho = omega**2 / (c + omega**2)
    change = sp.diff(rho, m) * rate_m + sp.diff(rho, s) * rate_s
    assert sp.simplify(change - 2 * rho * (1 - rho) / (n * c * tau)) == 0


def test_a_clock_of_equal_growth_is_found() -> None:
    start, clock = np.array([3.0, 1.5, 0.4]), np.array([0.0, 0.5, 2.0, 2.5, 6.0])
    fit = fit_clock(np.arange(1.0, 6), start * np.exp(clock)[:, None], num_classes=C, samples_per_class=N, flow="none")
    np.testing.assert_allclose(fit.times / (C**2 * N), clock, rtol=1e-6, atol=1e-9)
    assert fit.residual.max() < 1e-6
    np.testing.assert_allclose(fit.predicted_condition, 7.5)


def test_what_cannot_be_is_named() -> None:
    x = general()
    x[:, 2] = 0
    with pytest.raises(InputError, match="vary in every direction"):
        growth_rates(x, LABELS)
    with pytest.raises(InputError, match="below 1e308, got 1000"):
        UnrenormalizedPath([1.0], 1.0).singular_values(1000.0)
    with pytest.raises(InputError, match=r"λ = 0 alone, got 0\.1"):
        fit_clock([1.0, 2], [[1.0], [2]], num_classes=C, samples_per_class=N, flow="none", weight_decay=0.1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="positive, finite rates, got 0"):
        UnrenormalizedPath([1.0], 0.0)
    with pytest.raises(InputError, match="one rate or 2 of them, got 3"):
        UnrenormalizedPath([1.0, 2.0], [1.0, 1.0, 1.0])
    with pytest.raises(InputError, match="row of positive, finite singular values"):
        UnrenormalizedPath([[1.0]], 1.0)
    with pytest.raises(InputError, match="one singular value or 2 of them, got 3"):
        UnrenormalizedPath([2.0, 1.0], 1.0).time([1.0, 2.0, 3.0])
    path = UnrenormalizedPath([1.0, 4.0], [1.0, 2.0])
    lazily_negated = torch.tensor([1 - 1j], dtype=torch.complex128).conj().imag
    np.testing.assert_array_equal(path.singular_values(lazily_negated), path.singular_values([1.0]))
    start = np.array([2.0, 1.0])
    kept = UnrenormalizedPath(start, 1.0)
    start[:] = -5
    assert kept.singular_values(0.0).tolist() == [2.0, 1.0]
    np.testing.assert_allclose(path.time(path.singular_values(1.5)), 1.5)
