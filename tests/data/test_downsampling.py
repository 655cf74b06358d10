"""Smaller images: means of blocks, against sums in plain Python; both halves, the fingerprint, and refusals."""

from __future__ import annotations

import io
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.dataset_files import real_data
from rich.console import Console

from neuralcollapse import InputError
from neuralcollapse import data as datasets
from neuralcollapse.cli.run import print_settings
from neuralcollapse.data.downsampling import block_means
from neuralcollapse.figures.study_runs import Study
from neuralcollapse.study.sweep import make_sweep
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
    assert "images of 1/2 the side" in Study.read(run.path).runs[0].departures
    again, _ = prepare(TrainingConfig(), resume=run.path)
    assert again.config.downsample == 2
    with pytest.raises(InputError, match="expected downsample 2"):
        prepare(TrainingConfig(downsample=4), resume=run.path)


@pytest.mark.parametrize(("downsample", "stored", "padded"), [(1, 28, 32), (2, 14, 16), (4, 7, 8)])
def test_smaller_mnist_is_padded_to_as_small_a_part_of_what_the_paper_pads_to(
    downsample: int, stored: int, padded: int
) -> None:
    config = TrainingConfig(
        dataset="mnist",
        model="densenet40",
        examples_per_class=2,
        downsample=downsample,
        width=0.1,
        data_dir=real_data("mnist"),
    )
    resolved, data = load_and_resolve(config)
    images, _ = next(iter(make_batches(data.train, data, resolved, torch.device("cpu"), shuffle_seed=None)))
    assert tuple(data.train.images.shape[1:]) == (1, stored, stored) and tuple(images.shape[1:]) == (1, padded, padded)
    black = -data.mean[0] / data.std[0]
    torch.testing.assert_close(images[:, :, 0, 0], torch.full_like(images[:, :, 0, 0], black))
    assert build_network(resolved, data)(images).shape == (20, 10)


@pytest.mark.parametrize(("height", "width"), [(14, 14), (20, 14), (28, 28)])
def test_images_of_ones_own_are_padded_by_their_own_size(tmp_path: Path, height: int, width: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, height, width), dtype=np.uint8)
    labels = np.arange(8) % 2
    np.savez(tmp_path / "own.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    config = TrainingConfig(dataset="npz", data_dir=tmp_path / "own.npz", model="mlp", width=0.1)
    resolved, data = load_and_resolve(config)
    given, _ = next(iter(make_batches(data.train, data, resolved, torch.device("cpu"), shuffle_seed=None)))
    assert tuple(given.shape[2:]) == ((32, 32) if width == 28 else (height, width))


def test_a_sweep_and_the_line_before_a_run_say_that_images_are_smaller(tmp_path: Path) -> None:
    config = TrainingConfig(examples_per_class=5, downsample=2)
    found = make_sweep(config, "width", (0.1, 0.2), tmp_path)
    assert "images of 1/2 the side" in found.title
    text = io.StringIO()
    print_settings(Console(file=text, width=200), prepare(config, out=tmp_path / "run")[0])
    assert "10 classes, images of 1/2 the side" in text.getvalue()
    assert "down2" in TrainingConfig(downsample=2).name_parts()
