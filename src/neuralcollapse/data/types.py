"""What a reader gives and what the laboratory works with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray

LARGEST_SIDE = 512
"""Pixels; the networks here are for small images, and a larger one is more likely the wrong file or a bomb."""


@dataclass(frozen=True)
class Split:
    """The training or the test half of a data set on disk; images are read when asked for.

    Args:
        labels: (n,) int64.
        read: indices (m,) to uint8 images (m, channels, height, width).
    """

    labels: Array
    read: Callable[[Array], Array]


@dataclass(frozen=True)
class ImageData:
    """Images and labels in memory: uint8 (n, channels, height, width) and int64 (n,)."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Args:
        name: what `--dataset` takes.
        title: what figures and tables call it; a re-encoded copy is named as such.
        train: the training half, balanced where that was asked for.
        test: the held-out half, whole.
        class_names: one name per label.
        mean: mean of each channel over the training images, pixels in 0 … 1.
        std: standard deviation of each channel; 1 for a constant channel.
        source: where it was read from.
    """

    name: str
    title: str
    train: ImageData
    test: ImageData
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str


def printable(text: str) -> str:
    """The same text, with an escape for what cannot be shown: names of files may be any bytes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def pixel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, pixels in 0 … 1, exact from the counts of the 256 values."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = torch.bincount(images[:, channel].flatten().int(), minlength=256).double()
        share = counts / counts.sum()
        mean = share @ values
        means.append(float(mean))
        deviations.append(float((share @ (values - mean).square()).sqrt()) or 1.0)
    return tuple(means), tuple(deviations)


def fingerprint(data: Dataset) -> str:
    """SHA-256, in hexadecimal, of what a network is trained and tested on: class names, images and labels.

    It is the same wherever the files lie and in whichever form they were read, and another one when a single pixel, a
    label, or the order of two examples is another.
    """
    found = hashlib.sha256(json.dumps(data.class_names).encode())
    for half in (data.train, data.test):
        images, labels = half.images.cpu().contiguous().numpy(), half.labels.cpu().numpy().astype("<i8")
        found.update(f"{images.shape} {images.dtype} {labels.shape}".encode())
        found.update(images.data)
        found.update(labels.data)
    return found.hexdigest()
