"""Label noise and imbalance: how many, which, the same for the same seed, and never in the test half."""

from __future__ import annotations

import numpy as np
import pytest

from neuralcollapse import InputError
from neuralcollapse import data as datasets
from neuralcollapse.data import Corruption
from neuralcollapse.data.corruption import class_sizes, noisy_labels


@pytest.mark.parametrize("share", [0.1, 0.25, 0.9])
def test_exactly_the_share_is_changed_and_to_every_other_class_alike(share: float) -> None:
    labels = np.arange(20_000) % 5
    changed = noisy_labels(labels, 5, share, seed=3)
    wrong = changed != labels
    assert wrong.sum() == round(share * 20_000)
    shifts = np.bincount((changed - labels)[wrong] % 5, minlength=5)
    assert shifts[0] == 0 and np.abs(shifts[1:] / wrong.sum() - 1 / 4).max() < 0.03  # 6 σ at a share of 0.1
    assert np.abs(np.bincount(labels[wrong]) / wrong.sum() - 1 / 5).max() < 0.03
    assert np.array_equal(changed, noisy_labels(labels, 5, share, seed=3))
    assert not np.array_equal(changed, noisy_labels(labels, 5, share, seed=4))


def test_random_labels_say_nothing_of_the_old_ones() -> None:
    labels = np.arange(20_000) % 5
    changed = noisy_labels(labels, 5, 1.0, seed=0)
    table = np.histogram2d(labels, changed, bins=(5, 5))[0] / 20_000
    assert np.abs(table - 1 / 25).max() < 0.01


def test_step_and_exponential_sizes() -> None:
    step = Corruption("step", 10)
    assert class_sizes(500, 10, step) == [500] * 5 + [50] * 5
    assert class_sizes(500, 3, step) == [500, 500, 50]
    # Cui et al. (2019), CIFAR10 with an imbalance factor of 100
    long_tail = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert class_sizes(5000, 10, Corruption("exponential", 100)) == long_tail
    assert class_sizes(7, 4, Corruption("exponential", 1)) == [7] * 4


def test_only_the_training_half_is_touched_and_classes_keep_their_draw() -> None:
    plain = datasets.load("digits", examples_per_class=100, seed=2)
    unbalanced = datasets.load("digits", None, 100, 2, Corruption("exponential", 20))
    noisy = datasets.load("digits", None, 100, 2, Corruption(label_noise=0.5))
    for changed in (unbalanced, noisy):
        assert changed.test.images.equal(plain.test.images) and changed.test.labels.equal(plain.test.labels)
    sizes = np.bincount(unbalanced.train.labels.numpy()).tolist()
    assert sizes == class_sizes(100, 10, Corruption("exponential", 20)) and (sizes[0], sizes[-1]) == (100, 5)
    assert {image.tobytes() for image in unbalanced.train.images.numpy()} <= {
        image.tobytes() for image in plain.train.images.numpy()
    }
    assert noisy.train.images.equal(plain.train.images)
    assert int((noisy.train.labels != plain.train.labels).sum()) == 500


def test_the_smallest_class_on_disk_is_the_largest_of_an_imbalance() -> None:
    counts = np.bincount(datasets.load("digits").train.labels.numpy())
    assert counts.min() < counts.max()
    data = datasets.load("digits", corruption=Corruption("step", 10))
    sizes = np.bincount(data.train.labels.numpy()).tolist()
    assert sizes == [counts.min()] * 5 + [counts.min() // 10] * 5


def test_noise_is_a_share_of_what_is_left_by_an_imbalance() -> None:
    clean = datasets.load("digits", None, 100, 0, Corruption("step", 10))
    both = datasets.load("digits", None, 100, 0, Corruption("step", 10, label_noise=0.2))
    assert int((clean.train.labels != both.train.labels).sum()) == 110


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_noise": 1.5}, "--label-noise must be a share from 0 to 1, got 1.5"),
        ({"label_noise": float("nan")}, "--label-noise must be a share"),
        ({"imbalance": "step", "imbalance_ratio": 0.5}, "--imbalance-ratio must be a number of at least 1, got 0.5"),
        ({"imbalance": "zipf"}, "unknown imbalance 'zipf'; expected one of step, exponential"),
    ],
)
def test_what_cannot_be_done_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Corruption(**arguments)


def test_a_class_without_examples_is_refused() -> None:
    with pytest.raises(
        InputError, match="1000 leaves a class without examples when the largest has 100; take a ratio of at most 100"
    ):
        datasets.load("digits", None, 100, 0, Corruption("step", 1000))
