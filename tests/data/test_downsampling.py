"""Smaller images: means of blocks, against sums in plain Python; both halves, the fingerprint, and refusals."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from pathlib import Path

import pytest
import torch
from helpers.dataset_files import real_data

from neuralcollapse import InputError
from neuralcollapse import data as datasets
from neuralcollapse.data.downsampling import block_means
from neuralcollapse.figures.study_runs import Study
from neuralcollapse.training.builders import build_network, make_batches
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import load_and_resolve, prepare
from neuralcollapse.training.trainer import train


@pytest.mark.parametrize("side", [1, 2, 3, 4, 6, 12])
def test_pixels_are_means_of_blocks_with_halves_rounded_up(side: int) -> None:
    images = torch.randint(0, 256, (3, 2, 12, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(side))
    found = block_means(images, side)
    assert found.dtype == torch.uint8 and found.shape == (3, 2, 12 // side, 24 // side)
    for n, c, y, x in torch.cartesian_prod(*(torch.arange(size) for size in found.shape)).tolist():
        block = images[n, c, y * side : (y + 1) * side, x * side : (x + 1) * side].flatten().tolist()
        assert int(found[n, c, y, x]) == floor(Fraction(sum(block), side * side) + Fraction(1, 2))


def test_both_halves_are_smaller_and_hold_the_same_examples() -> None:
    whole, smaller = (datasets.load("digits", examples_per_class=5, downsample=side) for side in (1, 2))
    for half, full in ((smaller.train, whole.train), (smaller.test, whole.test)):
        assert tuple(half.images.shape[1:]) == (1, 4, 4)
        assert torch.equal(half.labels, full.labels)
        assert torch.equal(half.images, block_means(full.images, 2))
    pixels = smaller.train.images.double() / 255
    assert smaller.mean[0] == pytest.approx(float(pixels.mean()), rel=1e-12)
    assert smaller.std[0] == pytest.approx(float(pixels.std(correction=0)), rel=1e-12)
    assert datasets.fingerprint(smaller) != datasets.fingerprint(whole)


@pytest.mark.parametrize("side", [3, 5, 16])
def test_blocks_that_do_not_cover_the_images_are_refused(side: int) -> None:
    with pytest.raises(InputError, match=f"--downsample {side} averages blocks .* 8 × 8; take a number that divides"):
        datasets.load("digits", downsample=side)


def test_a_run_trains_on_smaller_images_and_says_so(tmp_path: Path) -> None:
    config = TrainingConfig(
        model="densenet40", width=0.1, examples_per_class=6, epochs=1, precision="32", device="cpu", downsample=2
    )
    run, data = prepare(config, out=tmp_path / "run")
    assert train(run, data) == "finished"
    assert "images 2× smaller" in Study.read(run.path).runs[0].departures
    again, _ = prepare(TrainingConfig(), resume=run.path)
    assert again.config.downsample == 2
    with pytest.raises(InputError, match="expected downsample 2"):
        prepare(TrainingConfig(downsample=4), resume=run.path)


def test_halved_mnist_is_padded_to_halves_of_what_the_paper_pads_to() -> None:
    config = TrainingConfig(
        dataset="mnist", model="densenet40", examples_per_class=2, downsample=2, width=0.1, data_dir=real_data("mnist")
    )
    resolved, data = load_and_resolve(config)
    images, _ = next(iter(make_batches(data.train, data, resolved, torch.device("cpu"), shuffle_seed=None)))
    assert tuple(data.train.images.shape[1:]) == (1, 14, 14) and tuple(images.shape[1:]) == (1, 16, 16)
    black = -data.mean[0] / data.std[0]
    torch.testing.assert_close(images[:, :, 0], torch.full_like(images[:, :, 0], black))
    assert build_network(resolved, data)(images).shape == (20, 10)
