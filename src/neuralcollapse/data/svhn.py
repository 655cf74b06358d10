"""SVHN, cropped digits: `train_32x32.mat` and `test_32x32.mat` (format: ufldl.stanford.edu/housenumbers)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from neuralcollapse._errors import InputError
from neuralcollapse.data.binary_files import require_size
from neuralcollapse.data.dataset import Split, check_labels
from neuralcollapse.data.mat5 import read_headers

FILES = ("train_32x32.mat", "test_32x32.mat")


def read_svhn(folder: Path, num_classes: int) -> tuple[Split, Split]:
    """`X` (32, 32, 3, n) uint8 and `y` (n, 1), in which 10 stands for the digit 0."""
    train, test = (_split(folder / name, num_classes) for name in FILES)
    return train, test


def _split(path: Path, num_classes: int) -> Split:
    found = read_headers(path, ("X", "y"))
    if absent := [name for name in ("X", "y") if name not in found]:
        raise InputError(f"{path}: expected arrays of numbers called X and y, found no {' and no '.join(absent)}")
    images, labels = found["X"], found["y"]
    if images.dtype != "u1" or images.stored != "u1" or images.shape[:3] != (32, 32, 3) or len(images.shape) != 4:
        dtype = np.dtype(images.dtype)
        raise InputError(f"{path}: expected X of type uint8 and shape (32, 32, 3, n), got {dtype} {images.shape}")
    if math.prod(labels.shape) != images.shape[3]:
        size = math.prod(labels.shape)
        raise InputError(f"{path}: expected {images.shape[3]:,} labels, as many as images, found {size:,}")
    require_size(path, images.size)
    values = labels.read().ravel()
    values = check_labels(np.where(values == 10, values.dtype.type(0), values), num_classes, str(path))
    return Split.of_arrays(images.read().transpose(3, 2, 0, 1), values)
