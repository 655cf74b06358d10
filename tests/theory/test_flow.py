"""The flow of actual features: its right side by autograd, its path by the closed form, its steps at first order."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

import neuralcollapse as nc
from neuralcollapse.theory.flow import descend, flow_direction, integrate, renormalize

CLASSES, SAMPLES, DIM = 4, 9, 7
LABELS = torch.arange(CLASSES).repeat_interleave(SAMPLES)
RENORMALIZED = ("projected", "multiplicative")
over_renormalized = pytest.mark.parametrize("renormalization", RENORMALIZED)
over_decays = pytest.mark.parametrize("decay", [0.0, 0.1])


def features(seed: int = 0, offset: float = 0.0) -> torch.Tensor:
    """Σ_W = I, singular values about one."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(CLASSES, DIM, generator=generator, dtype=torch.float64)[LABELS]
    x = x + torch.randn(len(LABELS), DIM, generator=generator, dtype=torch.float64)
    return renormalize(x - x.mean(dim=0) + offset, LABELS)


def least_squares_loss(x: torch.Tensor, decay: float) -> torch.Tensor:
    """min over W of ½ Ave ‖W (h − μ) + 1/C − y‖² + (λ/2)‖W‖², by normal equations autograd can follow."""
    centred = x - x.mean(dim=0)
    targets = torch.eye(CLASSES, dtype=torch.float64)[LABELS] - 1 / CLASSES
    gram = centred.T @ centred / len(x) + decay * torch.eye(DIM, dtype=torch.float64)
    weight = torch.linalg.solve(gram, centred.T @ targets / len(x))
    return 0.5 * (centred @ weight - targets).square().sum() / len(x) + 0.5 * decay * weight.square().sum()


def within(x: torch.Tensor) -> torch.Tensor:
    means = torch.stack([x[label == LABELS].mean(dim=0) for label in range(CLASSES)])
    return (x - means[LABELS]).T @ (x - means[LABELS]) / len(x)


def tangent(x: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """The part of a vector in the kernel of dΣ_W, from its Jacobian by autograd and a least-squares solve."""
    jacobian = torch.autograd.functional.jacobian(within, x).reshape(DIM * DIM, -1)
    normal = torch.linalg.lstsq(jacobian.T, vector.reshape(-1, 1), driver="gelsd").solution
    return vector - (jacobian.T @ normal).reshape(vector.shape)


@over_decays
@pytest.mark.parametrize("offset", [0.0, 2.0])
def test_the_direction_is_minus_the_projected_gradient(decay: float, offset: float) -> None:
    x = features(1, offset).requires_grad_()
    (gradient,) = torch.autograd.grad(least_squares_loss(x, decay), x)
    x = x.detach()
    scale = float(gradient.abs().max())
    found = flow_direction(x, LABELS, weight_decay=decay)
    torch.testing.assert_close(found, -tangent(x, gradient), rtol=0, atol=1e-12 * max(1.0, scale))
    plain = flow_direction(x, LABELS, weight_decay=decay, renormalization="none")
    torch.testing.assert_close(plain, -gradient, rtol=0, atol=1e-12)


def test_the_multiplicative_direction_is_that_of_whitening_again_after_a_small_step() -> None:
    x, small = features(2), 1e-4
    step = small * flow_direction(x, LABELS, renormalization="none")
    both = [(renormalize(x + sign * step, LABELS) - x) / (sign * small) for sign in (1.0, -1.0)]
    found = flow_direction(x, LABELS, renormalization="multiplicative")
    torch.testing.assert_close(found, (both[0] + both[1]) / 2, rtol=1e-7, atol=1e-9)


@over_renormalized
@over_decays
def test_features_follow_the_closed_form_until_tenfold(renormalization: Any, decay: float) -> None:
    x = features(3)
    moments = nc.ClassMoments(CLASSES)
    moments.update(x, LABELS)
    start = nc.snr_singular_values(moments).singular_values.numpy()
    path = nc.CentralPath(
        start, num_classes=CLASSES, samples_per_class=SAMPLES, weight_decay=decay, flow=renormalization
    )
    end = float(np.max(path.time(10 * start)))
    times = np.concatenate([[0.0], np.geomspace(end / 1e4, end, 6)])
    flow = integrate(x, LABELS, torch.from_numpy(times), weight_decay=decay, renormalization=renormalization)
    np.testing.assert_allclose(flow.singular_values, path.singular_values(times), rtol=1e-8)
    np.testing.assert_allclose(flow.loss, path.loss(times), rtol=1e-8)
    assert (flow.singular_values[-1] >= 9.999 * flow.singular_values[0]).all()
    assert float(flow.drift.max()) < 1e-10
    # M̄ = U Ω Vᵀ with U and V standing still: M̄(t) V₀ has orthogonal columns along U₀
    means = torch.stack([torch.stack([f[c == LABELS].mean(dim=0) for c in range(CLASSES)]) for f in flow.features])
    centred = means - means.mean(dim=1, keepdim=True)
    left, _, right = torch.linalg.svd(centred[0], full_matrices=False)
    for later, omega in zip(centred, flow.singular_values, strict=True):
        rotated = (left.T @ later @ right.T)[: CLASSES - 1, : CLASSES - 1] / omega
        torch.testing.assert_close(rotated, torch.eye(CLASSES - 1, dtype=torch.float64), rtol=0, atol=1e-8)


@over_renormalized
def test_discrete_steps_converge_at_first_order(renormalization: Any) -> None:
    x, end = features(4), 40.0
    moments = nc.ClassMoments(CLASSES)
    moments.update(x, LABELS)
    start = nc.snr_singular_values(moments).singular_values.numpy()
    path = nc.CentralPath(start, num_classes=CLASSES, samples_per_class=SAMPLES, flow=renormalization)
    want = path.singular_values(end)
    counts = np.array([50, 100, 200, 400])
    errors = []
    for count in counts:
        flow = descend(
            x, LABELS, learning_rate=end / count, steps=int(count), every=int(count), renormalization=renormalization
        )
        assert float(flow.drift.max()) < 1e-10
        errors.append(float(np.abs(flow.singular_values[-1].numpy() - want).max()))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.05)


def test_without_renormalization_the_loss_falls_and_the_covariance_is_left() -> None:
    x = features(5)
    flow = integrate(x, LABELS, torch.tensor([0.0, 10.0, 100.0]), renormalization="none")
    assert (flow.loss.diff() < 0).all() and float(flow.drift[-1]) > 1e-3
    steps = descend(x, LABELS, learning_rate=1.0, steps=20, every=5, renormalization="none")
    assert steps.times.tolist() == [0.0, 5.0, 10.0, 15.0, 20.0] and (steps.loss.diff() < 0).all()


def test_the_global_mean_stands_still_and_changes_nothing() -> None:
    x = features(6)
    times = torch.tensor([0.0, 50.0])
    near, far = (integrate(x + shift, LABELS, times) for shift in (0.0, 3.0))
    torch.testing.assert_close(far.features - 3.0, near.features, rtol=0, atol=1e-8)


def test_progress_is_told_the_time() -> None:
    seen: list[float] = []
    integrate(features(), LABELS, torch.tensor([0.0, 5.0]), progress=seen.append)
    assert min(seen) >= 0.0 and max(seen) > 4.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS.clamp(max=2)}, r"as many examples each, got \[9, 9, 18\]"),
        ({"features": 2 * features()}, "within-class covariance I, it is off by 3"),
        ({"features": torch.full((36, 7), float("nan"), dtype=torch.float64)}, "finite features"),
        ({"features": torch.eye(36, 2, dtype=torch.float64)}, "at least C − 1 = 3 dimensions, got p = 2"),
        ({"times": torch.tensor([1.0, 0.0])}, "rising, finite times"),
        ({"times": torch.tensor([0.0, float("inf")]), "renormalization": "none"}, "rising, finite times"),
        ({"weight_decay": -1.0}, "weight decay of at least 0"),
        ({"renormalization": "sometimes"}, "got 'sometimes'"),
    ],
)
def test_impossible_flows_are_named(change: dict[str, Any], message: str) -> None:
    arguments = {"features": features(), "labels": LABELS, "times": torch.tensor([0.0, 1.0]), **change}
    with pytest.raises(nc.InputError, match=message):
        integrate(**arguments)


def test_a_singular_covariance_cannot_be_renormalized() -> None:
    x = features()
    x[:, 2] = 0.0
    with pytest.raises(nc.InputError, match="nonsingular within-class covariance") as caught:
        renormalize(x, LABELS)
    found = re.search(r"got eigenvalues from (\S+) to (\S+);", str(caught.value))
    assert found is not None and abs(float(found[1])) <= 1e-14 * float(found[2])  # zero, up to rounding
    with pytest.raises(nc.InputError, match="positive step"):
        descend(features(), LABELS, learning_rate=0.0, steps=3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(4))
def test_features_that_do_not_vary_in_a_direction_have_no_classifier(seed: int, dtype: torch.dtype) -> None:
    """A column that two others make up: rounding leaves Σ_T a little off singular, which no solver notices."""
    x = features(seed).to(dtype)
    x[:, -1] = 0.1 * x[:, 0] + 0.7 * x[:, 1]
    with pytest.raises(nc.InputError, match="a singular total covariance"):
        flow_direction(x, LABELS, renormalization="none")
    with pytest.raises(nc.InputError, match="a singular total covariance"):
        integrate(x, LABELS, torch.tensor([0.0, 1.0]), renormalization="none")
    assert bool(torch.isfinite(flow_direction(x, LABELS, renormalization="none", weight_decay=0.1)).all())
    with pytest.raises(nc.InputError, match="nonsingular within-class covariance"):
        flow_direction(x, LABELS, weight_decay=0.1)
