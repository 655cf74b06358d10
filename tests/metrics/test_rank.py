"""What rounding can decide: which class means coincide, which directions carry noise, and which carry anything."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from helpers.numeric_cases import move_to_finite
from reference import exact
from torch import Tensor

import neuralcollapse as nc
from neuralcollapse.metrics.rank import directions


def of(features: Tensor, labels: Tensor, weighting: str = "example") -> nc.ClassMoments:
    moments = nc.ClassMoments(int(labels.max()) + 1, weighting=weighting)  # type: ignore[arg-type]
    moments.update(features, labels)
    return moments


def exact_moments(features: Tensor, labels: Tensor, weighting: str = "example") -> exact.Moments:
    rows = exact.rational(features.double().numpy())
    return exact.Moments(int(labels.max()) + 1, rows, labels.tolist(), weighting)


@pytest.mark.parametrize("weighting", ["example", "class"])
@pytest.mark.parametrize(
    ("labels", "dim", "spread", "infinite"),
    [([0, 1, 2, 3, 3], 6, 4e-7, 3), ([0, 0, 1, 1, 2, 3, 4], 9, 2e-6, 4), ([0, 0, 1, 2], 4, 1e-6, 2)],
)
def test_few_examples_collapsed_to_rounding_have_an_infinite_spectrum(
    labels: list[int], dim: int, spread: float, infinite: int, weighting: str
) -> None:
    """n examples of k classes have noise in n − k directions, and the class means reach outside them.

    Where moving features by less than two roundings would bring a class mean inside, nothing can decide.
    """
    truth, decided = torch.tensor(labels), 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        means = torch.randn(int(truth.max()) + 1, dim, generator=generator)
        features = means[truth] * (1.0 + spread * torch.randn(len(truth), dim, generator=generator))
        if move_to_finite(exact_moments(features, truth, weighting)) > 2 * torch.finfo(features.dtype).eps:
            decided += 1
            values = nc.snr_singular_values(of(features, truth, weighting)).singular_values
            assert values.tolist() == [math.inf] * infinite, f"seed {seed}"
    assert decided > 8


@pytest.mark.parametrize("weighting", ["example", "class"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("size", "gap"), [(2.0**15, 2.0**-6), (2.0**20, 2.0**-12)])
def test_means_apart_in_a_small_feature_do_not_coincide_beside_a_large_one(
    size: float, gap: float, dtype: torch.dtype, weighting: str
) -> None:
    """Rounding is relative to each feature's own size: the large feature, in which the two agree, has no say."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(24) % 3
    large = size * torch.tensor([1.0, 1.0, 2.0])[labels]
    small = (
        gap * torch.tensor([1.0, 2.0, 4.0])[labels] * (1 + 2.0**-4 * torch.randint(-2, 3, (24,), generator=generator))
    )
    features = torch.stack([large, small], dim=1).to(dtype)
    moments, want = of(features, labels, weighting), exact_moments(features, labels, weighting)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nc.nc1(moments) == pytest.approx(exact.nc1(want), rel=1e-5)
        pairs = [(0, 1), (0, 2), (1, 2)]
        apart = [float(exact.dot(d, d)) for a, b in pairs for d in [np.subtract(want.centred[a], want.centred[b])]]
        spreads = [float(exact.trace(want.class_scatter[c])) for c in range(3)]
        cdnv = sum((spreads[a] + spreads[b]) / (2 * d) for (a, b), d in zip(pairs, apart, strict=True)) / 3
        assert nc.compute_metrics(moments, "cdnv")["cdnv"] == pytest.approx(cdnv, rel=1e-5)


@pytest.mark.parametrize("power", [300, 450])
@pytest.mark.parametrize("weight_decay", [1.8, 40.0])
def test_a_penalty_of_no_account_leaves_the_outputs_their_digits(power: int, weight_decay: float) -> None:
    """A constant feature does the bias's work, one is the sum of two, and the mean is far above the spread."""
    generator = torch.Generator().manual_seed(power)
    labels = torch.arange(12) % 3
    free = torch.tensor([-70.0, 9.0, 40.0]) + torch.randint(-64, 65, (12, 3), generator=generator) / 256
    columns = [free, torch.full((12, 1), 0.5), free[:, :1] + free[:, 1:2]]
    features = torch.cat(columns, dim=1).double() * 2.0**power
    weight, bias = nc.least_squares_classifier(of(features, labels), weight_decay)
    rows = exact.rational(features.numpy())
    moments = exact.Moments(3, rows, labels.tolist(), "example")
    optimum = exact.least_squares(moments, exact.Fraction(weight_decay))
    want = [[float(exact.dot(row, [*h, exact.Fraction(1)])) for row in optimum] for h in rows]
    np.testing.assert_allclose((features @ weight.T + bias).numpy(), want, rtol=0.0, atol=2e-12)


@pytest.mark.parametrize("seed", range(4))
def test_two_rules_of_rank_for_two_questions(seed: int) -> None:
    """Layer normalisation leaves p − 1 directions and some units of rounding in the last one, which is not counted.

    Noise as small as one rounding is noise for the spectrum all the same: were it taken for none, ω would be infinite.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(300) % 12
    raw = torch.randn(12, 8, generator=generator)[labels] + 0.2 * torch.randn(300, 8, generator=generator)
    normalised = torch.nn.functional.layer_norm(raw, (8,))
    moments = of(normalised, labels)
    assert directions(moments) == 7
    assert nc.nc1(moments) < 1.0
    means = torch.randn(12, 8, generator=generator, dtype=torch.float64)
    noise = torch.finfo(torch.float32).eps * torch.randn(300, 8, generator=generator, dtype=torch.float64)
    at_rounding = nc.snr_singular_values(of((means[labels] * (1.0 + noise)).float(), labels)).singular_values
    assert len(at_rounding) == 8 and bool(at_rounding.isfinite().all())
