"""A data set: its two halves as they lie on disk, and in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuralcollapse._errors import InputError

Array = np.ndarray

HALVES = ("train", "test")
LARGEST_SIDE = 512
"""Pixels. The networks here are for small images; a larger one is more likely a wrong or hostile file."""


@dataclass(frozen=True)
class Split:
    """The training or the test half of a data set on disk, whose images are read when they are asked for.

    Args:
        labels: (n,) int64.
        read: gives for indices (m,) the uint8 images (m, channels, height, width).
    """

    labels: Array
    read: Callable[[Array], Array]

    @classmethod
    def of_arrays(cls, images: Array, labels: Array) -> Split:
        """Make a split of images (n, channels, height, width) that are already read."""
        return cls(labels.astype(np.int64), lambda chosen: images[chosen])


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
        test: the test half.
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


def check_labels(labels: Array, num_classes: int, where: str) -> Array:
    """The labels as int64.

    Raises:
        InputError: one of them is not an integer, or is outside 0 … c-1.
    """
    if labels.dtype.kind not in "iuf":
        raise InputError(f"{where}: expected integer labels, got {labels.dtype}")
    if labels.dtype.kind == "f" and (fractions := np.flatnonzero(labels != np.rint(labels))).size:
        first = fractions[0]
        raise InputError(f"{where}: expected integer labels, got {labels[first]} at example {first}")
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        first = wrong[0]
        raise InputError(f"{where}: expected labels in 0..{num_classes - 1}, got {labels[first]} at example {first}")
    return labels.astype(np.int64)


def printable(text: str) -> str:
    """The same text with escapes for characters that cannot be printed: file names may hold any bytes."""
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

    It does not depend on where the files lie or in which format they were read, and changes with a single pixel, a
    label, or the order of two examples.
    """
    found = hashlib.sha256(json.dumps(data.class_names).encode())
    for half in (data.train, data.test):
        images, labels = half.images.cpu().contiguous().numpy(), half.labels.cpu().numpy().astype("<i8")
        found.update(f"{images.shape} {images.dtype} {labels.shape}".encode())
        found.update(images.data)
        found.update(labels.data)
    return found.hexdigest()
