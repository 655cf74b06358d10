"""Balanced draws and the order of the batches: what they may and what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralcollapse import data as datasets
from neuralcollapse._checks import InputError
from neuralcollapse.data import Batches, ImageData
from neuralcollapse.data.loading import balanced

LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=60).map(lambda drawn: np.array([0, 1, 2, 3, *drawn]))
NAMES = ("a", "b", "c", "d")


def numbered(count: int, size: int = 4, channels: int = 1) -> ImageData:
    """Images whose pixels and label are their own index."""
    index = torch.arange(count)
    return ImageData(index.to(torch.uint8)[:, None, None, None].repeat(1, channels, size, size), index)


def batches(data: ImageData, **options: object) -> Batches:
    channels = data.images.shape[1]
    return Batches(data, (0.0,) * channels, (1.0,) * channels, **({"batch_size": 4} | options))  # type: ignore[arg-type]


def order(of: Batches, epoch: int) -> list[int]:
    return [label for _, labels in of.epoch(epoch) for label in labels.tolist()]


@given(LABELS, st.integers(0, 2**63), st.data())
def test_draws_are_balanced_sorted_and_repeatable(labels: np.ndarray, seed: int, data: st.DataObject) -> None:
    each = data.draw(st.integers(1, int(np.bincount(labels).min())))
    chosen = balanced(labels, NAMES, each, seed)
    assert np.bincount(labels[chosen], minlength=4).tolist() == [each] * 4
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, balanced(labels, NAMES, each, seed))
    assert set(balanced(labels, NAMES, 1, seed)) <= set(chosen)


@given(LABELS, st.integers(0, 2**63))
def test_a_class_is_drawn_whatever_the_others(labels: np.ndarray, seed: int) -> None:
    def ranks(values: np.ndarray) -> list[list[int]]:
        """Which members of each class were taken, counted within the class."""
        chosen = balanced(values, NAMES, 1, seed)
        return [np.searchsorted(np.flatnonzero(values == c), chosen[values[chosen] == c]).tolist() for c in range(4)]

    assert ranks(labels) == ranks(np.sort(labels))


def test_seeds_draw_differently() -> None:
    labels = np.repeat(np.arange(4), 100)
    draws = {tuple(balanced(labels, NAMES, 10, seed)) for seed in range(20)}
    assert len(draws) == 20
    counts = np.zeros(400)
    for seed in range(400):
        counts[balanced(labels, NAMES, 10, seed)] += 1
    assert counts.min() > 10 and counts.max() < 80  # 40 expected, standard deviation 6


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**63), st.integers(0, 400))
def test_every_epoch_is_a_permutation_in_full_batches(count: int, size: int, seed: int, epoch: int) -> None:
    of = batches(numbered(count), batch_size=size, shuffle_seed=seed)
    sizes = [len(labels) for _, labels in of.epoch(epoch)]
    assert len(sizes) == len(of) and set(sizes[:-1]) <= {size} and sum(sizes) == count
    assert sorted(order(of, epoch)) == list(range(count))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    data = numbered(50)
    of = batches(data, shuffle_seed=3)
    expected = order(of, 7)
    torch.manual_seed(99)
    order(of, 1)
    state = torch.get_rng_state()
    assert order(of, 7) == order(batches(data, shuffle_seed=3, batch_size=9), 7) == expected
    assert torch.get_rng_state().equal(state)
    seen = {tuple(order(batches(data, shuffle_seed=seed), epoch)) for seed in range(15) for epoch in range(15)}
    assert len(seen) == 225


def test_without_a_seed_the_order_is_the_stored_one() -> None:
    of = batches(numbered(10))
    assert order(of, 0) == order(of, 5) == list(range(10))
    assert [label for _, labels in of for label in labels.tolist()] == list(range(10))


def test_images_are_normalised_after_padding_and_keep_to_their_labels() -> None:
    data = numbered(10, size=28)
    of = Batches(
        data, (0.25,), (0.5,), batch_size=3, device="cpu", shuffle_seed=1, pad_to=(32, 32), channels_last=False
    )
    for images, labels in of.epoch(2):
        assert images.dtype == torch.float32 and images.shape[1:] == (1, 32, 32)
        inner = (labels.float() / 255 - 0.25) / 0.5
        torch.testing.assert_close(images[:, 0, 2:30, 2:30], inner[:, None, None].expand(-1, 28, 28))
        border = images.clone()
        border[:, :, 2:30, 2:30] = -0.5
        torch.testing.assert_close(border, torch.full_like(border, -0.5))  # a black pixel, normalised


def test_height_and_width_are_padded_each_to_its_own() -> None:
    images = torch.full((2, 1, 3, 6), 255, dtype=torch.uint8)
    of = Batches(ImageData(images, torch.arange(2)), (0.0,), (1.0,), batch_size=2, pad_to=(5, 6))
    (given, _), *_ = of
    expected = torch.zeros(2, 1, 5, 6)
    expected[:, :, 1:4] = 1
    assert torch.equal(given, expected)


def test_channels_have_their_own_normalisation_and_the_wanted_layout() -> None:
    data = numbered(8, channels=3)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 1.0)
    plain, last = (Batches(data, mean, std, batch_size=8, channels_last=flag) for flag in (False, True))
    (images, labels), (other, _) = next(iter(plain)), next(iter(last))
    for channel in range(3):
        torch.testing.assert_close(images[:, channel, 0, 0], (labels / 255 - mean[channel]) / std[channel])
    assert images.is_contiguous() and other.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(images, other)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"pad_to": (3, 9)}, {"pad_to": (9, 3)}])
def test_impossible_batches(options: dict) -> None:
    with pytest.raises(InputError):
        batches(numbered(4), **options)


def test_a_smaller_test_half_is_balanced_and_the_same_for_every_seed() -> None:
    whole = datasets.load("digits")
    first, second = (datasets.load("digits", seed=seed, test_examples_per_class=12) for seed in (0, 3))
    assert torch.bincount(first.test.labels).tolist() == [12] * 10
    assert torch.equal(first.test.images, second.test.images)
    stored = {image.numpy().tobytes() for image in whole.test.images}
    assert all(image.numpy().tobytes() in stored for image in first.test.images)
    with pytest.raises(InputError, match=r"at least 100 examples of each class .*lower --test-examples-per-class"):
        datasets.load("digits", test_examples_per_class=100)
