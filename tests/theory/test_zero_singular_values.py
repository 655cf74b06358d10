"""A singular value that is 0 stays 0, and what then becomes of Corollary 2."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import neuralcollapse as nc
from neuralcollapse.theory.flow import integrate, renormalize

FLOWS = ("projected", "multiplicative")


@pytest.mark.parametrize("flow", FLOWS)
def test_zero_stays_zero_and_the_others_go_on_as_without_it(flow: Any) -> None:
    options: dict[str, Any] = {"num_classes": 4, "samples_per_class": 10, "flow": flow}
    times = np.array([0.0, 3.0, 1e3, 1e9])
    with_zero = nc.CentralPath([0.5, 0.0, 2.0], **options)
    without = nc.CentralPath([0.5, 2.0], **options)
    values = with_zero.singular_values(times)
    assert bool((values[:, 1] == 0).all())
    np.testing.assert_array_equal(values[:, [0, 2]], without.singular_values(times))
    np.testing.assert_allclose(with_zero.loss(times), without.loss(times) + 0.5 / 4, rtol=1e-14)
    assert bool(np.isinf(with_zero.condition(times)).all())
    assert nc.CentralPath(0.0, **options).singular_values(5.0) == 0


def test_it_is_the_limit_of_small_ones() -> None:
    """ω(t)/ω_0 → exp(t/c₁), which is also the derivative at 0 that tensors carry."""
    t, c1 = 300.0, 10 * 4**2
    start = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    clock = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    values = nc.CentralPath(start, num_classes=4, samples_per_class=10).singular_values(clock)
    by_start, by_time = torch.autograd.grad(values[0], (start, clock))
    assert by_start[0].item() == pytest.approx(math.exp(t / c1), rel=1e-14) and by_start[1] == 0 and by_time == 0
    small = nc.CentralPath(1e-9, num_classes=4, samples_per_class=10).singular_values(t)
    assert small / 1e-9 == pytest.approx(math.exp(t / c1), rel=1e-12)


@pytest.mark.parametrize("flow", FLOWS)
def test_features_in_fewer_dimensions_stay_there(flow: Any) -> None:
    """The flow of all features, of four classes whose means begin in a plane."""
    labels = torch.arange(60) % 4
    white = renormalize(torch.randn(60, 5, dtype=torch.float64), labels)
    means = torch.stack([white[labels == c].mean(dim=0) for c in range(4)])
    plane = torch.tensor([[1.0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0], [0, 0.6, 0, 0, 0], [0, -0.6, 0, 0, 0]]).double()
    x = (white - means[labels]) + plane[labels]
    moved = integrate(x, labels, torch.tensor([0.0, 400.0, 4000.0]).double(), renormalization=flow)
    omega = moved.singular_values
    assert float(omega[:, 2].max()) < 1e-9 * float(omega[-1, 1])
    path = nc.CentralPath([*omega[0, :2].tolist(), 0.0], num_classes=4, samples_per_class=15, flow=flow)
    np.testing.assert_allclose(path.singular_values(np.array([400.0, 4000.0]))[:, :2], omega[1:, :2], rtol=1e-8)


def test_corollary_2_without_one_direction() -> None:
    """NC3 vanishes, NC1 is infinite, and the class means do not become a simplex."""
    path = nc.CentralPath([0.0, 1.0, 2.0], num_classes=4, samples_per_class=10)
    late = path.metrics(1e15)
    whole = nc.CentralPath([1.0, 2.0, 3.0], num_classes=4, samples_per_class=10).metrics(1e15)
    assert late.nc3 < 1e-6 and late.nc1 == np.inf
    assert late.maximal_angle_means > 0.2 > 1e-3 > whole.maximal_angle_means


def test_no_time_leads_away_from_zero() -> None:
    path = nc.CentralPath([0.0, 1.0], num_classes=3, samples_per_class=10)
    with pytest.raises(nc.InputError, match="begins and stays at 0"):
        path.time([0.0, 2.0])
    with pytest.raises(nc.InputError, match="positive, finite singular values, got -1"):
        nc.CentralPath([-1.0, 1.0], num_classes=3, samples_per_class=10)


@pytest.mark.parametrize("time", [1e3, 1e5, 2e5, 1e8])
def test_the_gradient_at_zero_is_a_number_at_any_time(time: float) -> None:
    """The loss is even in ω_j, so that its derivative there is 0, however fast ω_j would leave 0."""
    start = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    path = nc.CentralPath(start, num_classes=4, samples_per_class=10)
    path.loss(torch.tensor(time, dtype=torch.float64)).backward()
    assert start.grad is not None and start.grad[0] == 0 and bool(torch.isfinite(start.grad).all())
