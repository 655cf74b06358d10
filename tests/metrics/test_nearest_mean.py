"""The decisions of NC4 and the distances to class means, against NumPy in float64, however they are made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import neuralcollapse as nc
from neuralcollapse.measuring.decision_counts import DecisionCounts
from neuralcollapse.metrics.nc1_to_nc4 import between_whitener
from neuralcollapse.metrics.nearest_mean import DecisionRule

FEW, MANY = 10, 300
"""Numbers of classes below and above the limit from which products are those of residuals about class means."""


def drawn(classes: int, dim: int, count: int, offset: float = 0.0, spread: float = 0.5, seed: int = 0) -> tuple:
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, dim)) + offset
    labels = rng.integers(classes, size=count)
    labels[:classes] = np.arange(classes)
    features = (means[labels] + spread * rng.normal(size=(count, dim))).astype(np.float32)
    weight = rng.normal(size=(classes, dim)).astype(np.float32)
    return features, labels, weight, rng.normal(size=classes).astype(np.float32)


def by_hand(features: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray, means: np.ndarray) -> tuple:
    """The network's class and that of the nearest mean, from sums written out in float64."""
    rows = features.astype(np.float64)
    present = np.unique(labels)
    centred = (means[present] - means[present].mean(axis=0)).astype(np.longdouble)
    # −½‖h − μ_c‖², less what is the same for all classes, which for large features would hide the rest
    closeness = (rows - means[present].mean(axis=0)) @ centred.T - 0.5 * (centred**2).sum(axis=1)
    return (rows @ weight.T.astype(np.float64) + bias).argmax(axis=1), present[closeness.argmax(axis=1)]


def class_means(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    rows = features.astype(np.float64)
    return np.stack([rows[labels == c].mean(axis=0) if (labels == c).any() else rows[0] * 0 for c in range(classes)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize(("classes", "dim"), [(2, 1), (FEW, 40), (FEW, 3), (MANY, 20)])
def test_decisions_and_squares(classes: int, dim: int, offset: float, dtype: torch.dtype) -> None:
    features, labels, weight, bias = drawn(classes, dim, 3000, offset)
    rows = torch.tensor(features, dtype=dtype)
    moments = nc.ClassMoments(classes)
    moments.update(rows, labels)
    whitener = between_whitener(moments)
    found = DecisionRule(moments, torch.tensor(weight), torch.tensor(bias), whitener)(rows, torch.tensor(labels))
    means = moments.means.numpy()
    np.testing.assert_allclose(means, class_means(features, labels, classes), rtol=1e-6, atol=1e-6)
    predicted, nearest = by_hand(features, labels, weight, bias, means)
    assert np.array_equal(found.agree.numpy(), predicted == nearest)
    assert np.array_equal(found.correct.numpy(), predicted == labels)
    assert np.array_equal(found.nearest_correct.numpy(), nearest == labels)
    if whitener is not None:
        wanted = (((features.astype(np.float64) - means[labels]) @ whitener.numpy().T) ** 2).sum(axis=1)
        np.testing.assert_allclose(found.squares.numpy(), wanted, rtol=2e-5 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("classes", [FEW, MANY])
def test_what_float32_cannot_decide_is_decided_in_float64(classes: int) -> None:
    """Pairs of rows that differ by one unit in the last place of one entry, far less than products are rounded."""
    rng = np.random.default_rng(1)
    dim, count = 512, 2000
    features, labels, weight, bias = drawn(classes, dim, count, spread=1.0, seed=1)
    for row in range(0, classes, 2):
        place = rng.integers(dim)
        weight[row + 1] = weight[row]
        weight[row + 1, place] = np.nextafter(weight[row, place], np.float32(9.0))
    bias[:] = 0.0
    moments = nc.ClassMoments(classes)
    moments.update(features, labels)
    found = DecisionRule(moments, torch.tensor(weight))(torch.tensor(features), torch.tensor(labels))
    predicted, _ = by_hand(features, labels, weight, bias, class_means(features, labels, classes))
    assert len(set((predicted % 2).tolist())) == 2
    assert np.array_equal(found.correct.numpy(), predicted == labels)


def test_labels_of_a_class_without_a_mean() -> None:
    features, labels, weight, bias = drawn(FEW, 12, 400)
    kept = labels != 4
    moments = nc.ClassMoments(FEW)
    moments.update(features[kept], labels[kept])
    means = class_means(features[kept], labels[kept], FEW)
    predicted, _ = by_hand(features, labels, weight, bias, means)
    present = np.array([c for c in range(FEW) if c != 4])
    distances = ((features.astype(np.float64)[:, None] - means[present]) ** 2).sum(axis=2)
    wanted = (predicted != present[distances.argmin(axis=1)]).mean()
    assert nc.nc4_mismatch(features, labels, weight, bias, moments=moments) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("power", [-80, 0, 70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_means_of_a_reference_of_any_size(power: int, dtype: torch.dtype) -> None:
    """A test set of another size than the training set, whose power of two is another one."""
    features, labels, weight, bias = drawn(FEW, 16, 500)
    train = nc.ClassMoments(FEW)
    train.update(features, labels)
    # some examples as large as that power of two, which their own class mean is not
    scale = np.where(np.arange(500) % 50 == 7, 2.0**power, 1.0)
    outside = torch.tensor(features * scale[:, None], dtype=dtype)
    report = nc.measure_features(outside, labels, weight, bias, reference=train)
    means = class_means(features, labels, FEW)
    predicted, nearest = by_hand(outside.double().numpy(), labels, weight, bias, means)
    assert report.nc4_mismatch == pytest.approx((predicted != nearest).mean(), abs=1e-12)
    assert report.accuracy == pytest.approx((predicted == labels).mean(), abs=1e-12)
    whitener = between_whitener(train).numpy()
    squares = (((outside.double().numpy() - means[labels]) @ whitener.T) ** 2).sum(axis=1)
    for row in report.per_class:
        wanted = squares[labels == row.label].mean() / FEW
        assert row.nc1 == pytest.approx(wanted, rel=1e-4)


def test_a_block_beyond_float32_between_ordinary_ones() -> None:
    features, labels, weight, bias = drawn(FEW, 16, 600)
    moments = nc.ClassMoments(FEW)
    moments.update(features, labels)
    large = features.copy()
    large[300:310] *= np.float32(1e36)
    rule = DecisionRule(moments, torch.tensor(weight), torch.tensor(bias), between_whitener(moments))
    found = rule(torch.tensor(large), torch.tensor(labels))
    predicted, nearest = by_hand(large, labels, weight, bias, class_means(features, labels, FEW))
    assert np.array_equal(found.agree.numpy(), predicted == nearest)
    assert bool(torch.isfinite(found.squares).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_class_and_means_in_float32(dtype: torch.dtype) -> None:
    """Without a rank of Σ_B nothing is summed, whatever the type of the moments."""
    features, labels, weight, bias = drawn(3, 5, 60)
    moments = nc.ClassMoments(3, dtype=torch.float32)
    moments.update(features, labels)
    rows, one = torch.tensor(features[labels == 1], dtype=dtype), torch.full((int((labels == 1).sum()),), 1)
    own = nc.ClassMoments(3, dtype=torch.float32)
    own.update(rows, one)
    counts = DecisionCounts(own.around(moments), torch.tensor(weight), torch.tensor(bias), reference=moments)
    counts.add(rows, one)
    predicted, nearest = by_hand(features, labels, weight, bias, class_means(features, labels, 3))
    chosen = labels == 1
    assert counts.counts == (
        chosen.sum(),
        (predicted != nearest)[chosen].sum(),
        (predicted == 1)[chosen].sum(),
        (nearest == 1)[chosen].sum(),
    )
    assert not counts.state_dict()["squares"].any()


def test_without_a_classifier_the_nearest_mean_still_decides() -> None:
    features, labels, _, bias = drawn(FEW, 16, 300)
    report = nc.measure_features(features, labels)
    nothing = np.zeros((FEW, 16), np.float32)
    _, nearest = by_hand(features, labels, nothing, bias, class_means(features, labels, FEW))
    assert report.nearest_mean_accuracy == pytest.approx((nearest == labels).mean(), abs=1e-12)
    assert report.accuracy is None and report.nc4_mismatch is None
