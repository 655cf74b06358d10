"""MNIST and FashionMNIST: IDX files, plain or gzipped (format: yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.data.files import (
    LARGEST_FILE,
    LARGEST_LABELS,
    check_labels,
    in_memory,
    opened,
    read_exactly,
    require_size,
)
from neuralcollapse.data.types import LARGEST_SIDE, Array, Split

_PARTS = {"train": "train", "test": "t10k"}
_UNSIGNED_BYTE = 0x08
NEEDED = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (or .gz)"


def has_idx(folder: Path) -> bool:
    """Whether the folder holds all four files."""
    return all(_find(folder, part, kind) for part in _PARTS.values() for kind in ("images", "labels"))


def read_idx(folder: Path, num_classes: int) -> tuple[Split, Split]:
    """The training and the test half."""
    return _split(folder, "train", num_classes), _split(folder, "t10k", num_classes)


def _split(folder: Path, part: str, num_classes: int) -> Split:
    images, labels = _find(folder, part, "images"), _find(folder, part, "labels")
    assert images is not None and labels is not None  # has_idx was asked before
    values = check_labels(_array(labels, (None,)), num_classes, str(labels))
    return in_memory(_array(images, (len(values), None, None))[:, None], values)


def _find(folder: Path, part: str, kind: str) -> Path | None:
    dimensions = 3 if kind == "images" else 1
    for stem in (f"{part}-{kind}-idx{dimensions}-ubyte", f"{part}-{kind}.idx{dimensions}-ubyte"):
        for ending in ("", ".gz"):
            if (folder / (stem + ending)).is_file():
                return folder / (stem + ending)
    return None


def _array(path: Path, expected: tuple[int | None, ...]) -> Array:
    """Magic number (0, 0, type, dimensions), the sizes as big-endian 32-bit integers, then the bytes.

    Args:
        expected: the sizes, of which the first is a number where labels have told how many images there are.
    """
    dimensions = len(expected)
    magic = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    with opened(path) as file:
        header = file.read(4 + 4 * dimensions)
        if header[:4] != magic or len(header) < 4 + 4 * dimensions:
            raise InputError(f"{path} is no IDX file: expected magic number {magic.hex()}, found {header[:4].hex()}")
        shape = struct.unpack(f">{dimensions}I", header[4:])
        if expected[0] not in (None, shape[0]):
            raise InputError(f"{path}: expected {expected[0]:,} images, as many as labels, found {shape[0]:,}")
        if max(shape[1:], default=0) > LARGEST_SIDE:
            raise InputError(f"{path}: expected images of at most {LARGEST_SIDE} pixels a side, found {shape[1:]}")
        require_size(path, math.prod(shape), LARGEST_LABELS if dimensions == 1 else LARGEST_FILE)
        return np.frombuffer(read_exactly(path, file, math.prod(shape)), dtype=np.uint8).reshape(shape)
