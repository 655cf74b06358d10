"""The layer-peeled minimum: its closed form, from every start, and what it looks like."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import neuralcollapse as nc
from neuralcollapse.theory.unconstrained_features import Minimum, UnconstrainedFeatures

DECAYS = {"weight_decay": 5e-3, "feature_decay": 2e-3}


def moments_of(found: Minimum) -> nc.ClassMoments:
    moments = nc.ClassMoments(len(found.weight))
    moments.update(found.features, found.labels)
    return moments


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("counts", [(6, 6, 6, 6), (12, 5, 5, 2)])
def test_ten_starts_reach_the_closed_form(counts: tuple[int, ...], bias: bool) -> None:
    model = UnconstrainedFeatures(counts, dim=6, bias=bias, **DECAYS)
    want = model.minimum_loss()
    for seed in range(10):
        assert model.minimise(seed).loss == pytest.approx(want, rel=1e-8)


def test_the_closed_form_by_hand() -> None:
    """C balanced classes of N, no bias: C singular values √N, each less n √(λ_W λ_H)."""
    model = UnconstrainedFeatures((4, 4, 4), dim=3, weight_decay=0.01, feature_decay=0.04, bias=False)
    kept = 2 - 12 * 0.02
    assert model.minimum_loss() == pytest.approx(3 * ((12 * 0.02) ** 2 / 24 + 0.02 * kept), rel=1e-14)
    assert model.critical_decay() == pytest.approx(2 / 12, rel=1e-14)
    centred = UnconstrainedFeatures((4, 4, 4), dim=2, weight_decay=0.01, feature_decay=0.04)
    assert centred.target_singular_values().tolist() == pytest.approx([2, 2, 0], abs=1e-7)


def test_with_a_bias_the_minimum_is_a_simplex() -> None:
    found = UnconstrainedFeatures((6, 6, 6, 6), dim=6, **DECAYS).minimise()
    moments = moments_of(found)
    assert nc.nc1(moments) < 1e-10 and nc.nc3(moments, found.weight) < 1e-10
    nc2 = nc.nc2(moments, found.weight)
    assert max(nc2.maximal_angle_means, nc2.maximal_angle_classifier, nc2.equinorm_means) < 1e-5
    torch.testing.assert_close(moments.global_mean, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-6)


def test_without_a_bias_the_minimum_is_an_orthogonal_frame() -> None:
    """And a simplex once the global mean is taken off."""
    found = UnconstrainedFeatures((6, 6, 6, 6), dim=6, bias=False, **DECAYS).minimise()
    means = moments_of(found).means
    gram = means @ means.T / means.square().sum(dim=1).mean()
    torch.testing.assert_close(gram, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-5)
    assert nc.nc2(moments_of(found), found.weight).maximal_angle_means < 1e-5


@pytest.mark.parametrize("bias", [True, False])
def test_above_the_critical_decay_the_minimum_is_zero(bias: bool) -> None:
    model = UnconstrainedFeatures((5, 5, 5), dim=4, weight_decay=0.1, feature_decay=0.1, bias=bias)
    critical = model.critical_decay()
    for factor in (0.9, 1.1):
        decay = factor * critical
        found = UnconstrainedFeatures((5, 5, 5), dim=4, weight_decay=decay, feature_decay=decay, bias=bias).minimise()
        assert (float(found.features.abs().max()) < 1e-4) == (factor > 1)


@pytest.mark.parametrize("counts", [(1, 9), (2, 5, 13), (4, 4, 4)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("loss", ["mse", "ce"])
def test_the_critical_decay_of_every_model(loss: Any, bias: bool, counts: tuple[int, ...]) -> None:
    """The largest singular value of the gradient at outputs without features, by NumPy; and what minimising finds."""
    labels = np.arange(len(counts)).repeat(counts)
    targets = np.eye(len(counts))[labels].T
    best = np.array(counts) / sum(counts) if bias else np.full(len(counts), 0.0 if loss == "mse" else 1 / len(counts))
    want = np.linalg.svd((best[:, None] - targets) / sum(counts), compute_uv=False)[0]
    sizes: dict[str, Any] = {"dim": len(counts), "loss": loss, "bias": bias}
    model = UnconstrainedFeatures(counts, weight_decay=0.1, feature_decay=0.1, **sizes)
    assert model.critical_decay() == pytest.approx(want, rel=1e-12)
    for factor in (0.8, 1.1):
        found = UnconstrainedFeatures(counts, weight_decay=factor * want, feature_decay=factor * want, **sizes)
        assert (float(found.minimise().features.abs().max()) < 1e-3) == (factor > 1)


def test_counts_are_taken_as_arrays_too() -> None:
    for counts in (np.array([3, 4]), torch.tensor([3, 4])):
        assert UnconstrainedFeatures(counts, 2, **DECAYS).counts == (3, 4)  # type: ignore[arg-type]


def test_cross_entropy_collapses_to_a_simplex_from_every_start() -> None:
    model = UnconstrainedFeatures((5, 5, 5), dim=5, loss="ce", **DECAYS)
    minima = [model.minimise(seed) for seed in range(4)]
    assert [found.loss for found in minima] == pytest.approx([minima[0].loss] * 4, rel=1e-8)
    for found in minima:
        moments = moments_of(found)
        assert nc.nc1(moments) < 1e-8 and nc.nc3(moments, found.weight) < 1e-8
        assert nc.nc2(moments, found.weight).maximal_angle_means < 1e-4


def test_a_narrow_model_keeps_as_many_directions_as_it_has() -> None:
    model = UnconstrainedFeatures((6, 6, 6, 6), dim=2, **DECAYS)
    assert min(model.minimise(seed).loss for seed in range(4)) == pytest.approx(model.minimum_loss(), rel=1e-8)


def test_the_objective_by_hand() -> None:
    model = UnconstrainedFeatures((1, 1), dim=1, weight_decay=0.5, feature_decay=0.25)
    weight, features = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [-1.0]])
    # logits (1, 2) and (−1, −2) against (1, 0) and (0, 1)
    want = 0.5 * (4 + 1 + 9) / 2 + 0.25 * 5 + 0.125 * 2
    assert float(model.objective(weight, features, torch.zeros(2))) == pytest.approx(want)
    crossed = UnconstrainedFeatures((1, 1), dim=1, weight_decay=0.5, feature_decay=0.25, loss="ce")
    fit = math.log(1 + math.e)  # either example prefers the wrong class by 1
    assert float(crossed.objective(weight, features, torch.zeros(2))) == pytest.approx(fit + 1.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": (3,)}, "at least two classes"),
        ({"counts": (3, 0)}, "counts of at least 1, got 0"),
        ({"dim": 0}, "dim of at least 1, got 0"),
        ({"feature_decay": 0.0}, r"positive feature_decay, got 0\.0"),
        ({"loss": "hinge"}, "got 'hinge'"),
        ({"bias": "no"}, "bias to be True or False, got 'no'"),
        ({"counts": np.ones((2, 2), int)}, "counts of at least two classes"),
    ],
)
def test_impossible_models_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(nc.InputError, match=message):
        UnconstrainedFeatures(**{"counts": (3, 3), "dim": 2, **DECAYS, **change})
    with pytest.raises(nc.InputError, match="got 'ce'"):
        UnconstrainedFeatures((3, 3), 2, loss="ce", **DECAYS).minimum_loss()


@pytest.mark.parametrize("bias", [True, False])
def test_plain_gradient_descent_falls_to_the_minimum(bias: bool) -> None:
    model = UnconstrainedFeatures((4, 4, 4), dim=4, weight_decay=0.05, feature_decay=0.01, bias=bias)
    states = model.descend(learning_rate=0.5, steps=3000, every=500)
    assert [state.steps for state in states] == [0, 500, 1000, 1500, 2000, 2500, 3000]
    losses = [state.loss for state in states]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(model.minimum_loss(), rel=1e-8)
    assert bias or not states[-1].bias.any()
    with pytest.raises(nc.InputError, match="too large: f is not finite"):
        model.descend(learning_rate=1e6, steps=100)
    with pytest.raises(nc.InputError, match="positive step"):
        model.descend(learning_rate=0.0, steps=100)
