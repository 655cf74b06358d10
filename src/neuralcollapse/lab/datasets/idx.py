"""MNIST and FashionMNIST: IDX files, plain or gzipped (format: yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.lab.datasets.files import check_labels, in_memory, read_bytes
from neuralcollapse.lab.datasets.types import Array, Split

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
    values = check_labels(_array(labels, dimensions=1), num_classes, str(labels))
    pixels = _array(images, dimensions=3)
    if len(pixels) != len(values):
        raise InputError(f"{images}: expected {len(values):,} images, as many as labels, found {len(pixels):,}")
    return in_memory(pixels[:, None], values)


def _find(folder: Path, part: str, kind: str) -> Path | None:
    dimensions = 3 if kind == "images" else 1
    for stem in (f"{part}-{kind}-idx{dimensions}-ubyte", f"{part}-{kind}.idx{dimensions}-ubyte"):
        for ending in ("", ".gz"):
            if (folder / (stem + ending)).is_file():
                return folder / (stem + ending)
    return None


def _array(path: Path, dimensions: int) -> Array:
    """Magic number (0, 0, type, dimensions), the sizes as big-endian 32-bit integers, then the bytes."""
    content = read_bytes(path)
    header = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]) or len(content) < header:
        expected = bytes([0, 0, _UNSIGNED_BYTE, dimensions]).hex()
        raise InputError(f"{path} is no IDX file: expected magic number {expected}, found {content[:4].hex()}")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected_size = int(np.prod(shape, dtype=object))
    if len(content) - header != expected_size:
        found = len(content) - header
        raise InputError(f"{path}: expected {expected_size:,} bytes after the header, found {found:,}; fetch it again")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
