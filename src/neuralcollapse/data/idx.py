"""MNIST and FashionMNIST: IDX files, plain or gzipped (format: yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from neuralcollapse._errors import InputError
from neuralcollapse.data.binary_files import LARGEST_FILE, LARGEST_LABELS, opened, read_exactly, require_size
from neuralcollapse.data.dataset import LARGEST_SIDE, Array, Split, check_labels

_HALVES = ("train", "t10k")
NEEDED = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (or .gz)"


def has_idx(folder: Path) -> bool:
    """Whether the folder holds all four files."""
    return all(_find(folder, half, kind) for half in _HALVES for kind in ("images-idx3", "labels-idx1"))


def read_idx(folder: Path, num_classes: int) -> tuple[Split, Split]:
    """The training and the test half."""
    halves = []
    for half in _HALVES:
        images, labels = _find(folder, half, "images-idx3"), _find(folder, half, "labels-idx1")
        assert images is not None and labels is not None  # has_idx was asked before
        values = check_labels(_read_array(labels, (None,)), num_classes, str(labels))
        halves.append(Split.of_arrays(_read_array(images, (len(values), None, None))[:, None], values))
    return halves[0], halves[1]


def _find(folder: Path, half: str, kind: str) -> Path | None:
    names = (f"{half}-{form}-ubyte{ending}" for form in (kind, kind.replace("-idx", ".idx")) for ending in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_array(path: Path, expected: tuple[int | None, ...]) -> Array:
    """Magic number (0, 0, type, dimensions), the sizes as big-endian 32-bit integers, then the bytes.

    Args:
        expected: the size of each dimension, None where it is not known.
    """
    dimensions = len(expected)
    magic = bytes([0, 0, 8, dimensions])  # 8 is the type of unsigned bytes
    with opened(path) as file:
        header = file.read(4 + 4 * dimensions)
        if header[:4] != magic or len(header) < 4 + 4 * dimensions:
            raise InputError(f"{path} is not an IDX file: expected the bytes {magic.hex()}, got {header[:4].hex()}")
        shape = struct.unpack(f">{dimensions}I", header[4:])
        if expected[0] not in (None, shape[0]):
            raise InputError(f"{path}: expected {expected[0]:,} images, as many as labels, got {shape[0]:,}")
        if max(shape[1:], default=0) > LARGEST_SIDE:
            raise InputError(f"{path}: expected images of at most {LARGEST_SIDE} pixels a side, got {shape[1:]}")
        require_size(path, math.prod(shape), LARGEST_LABELS if dimensions == 1 else LARGEST_FILE)
        return np.frombuffer(read_exactly(path, file, math.prod(shape)), dtype=np.uint8).reshape(shape)
