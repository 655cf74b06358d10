"""SVHN, cropped digits: `train_32x32.mat` and `test_32x32.mat` (format: ufldl.stanford.edu/housenumbers)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuralcollapse._errors import InputError
from neuralcollapse.data.dataset import Split, check_labels
from neuralcollapse.data.mat5 import read_mat5

FILES = ("train_32x32.mat", "test_32x32.mat")


def read_svhn(folder: Path, num_classes: int) -> tuple[Split, Split]:
    """`X` (32, 32, 3, n) uint8 and `y` (n, 1), in which 10 stands for the digit 0."""
    train, test = (_split(folder / name, num_classes) for name in FILES)
    return train, test


def _split(path: Path, num_classes: int) -> Split:
    found = read_mat5(path, ("X", "y"))
    if absent := [name for name in ("X", "y") if name not in found]:
        raise InputError(f"{path}: expected arrays of numbers called X and y, got no {' and no '.join(absent)}")
    images, labels = found["X"], found["y"].ravel()
    if images.dtype != np.uint8 or images.shape[:3] != (32, 32, 3) or images.ndim != 4:
        got = f"{images.dtype} {images.shape}"
        raise InputError(f"{path}: expected X of type uint8 and shape (32, 32, 3, n), got {got}")
    if len(labels) != images.shape[3]:
        raise InputError(f"{path}: expected {images.shape[3]:,} labels, as many as images, got {len(labels):,}")
    labels = check_labels(np.where(labels == 10, labels.dtype.type(0), labels), num_classes, str(path))
    return Split.of_arrays(images.transpose(3, 2, 0, 1), labels)
