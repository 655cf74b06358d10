"""SVHN, cropped digits: `train_32x32.mat` and `test_32x32.mat` (format: ufldl.stanford.edu/housenumbers)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.lab.datasets.files import check_labels, in_memory
from neuralcollapse.lab.datasets.types import Split

_FILES = ("train_32x32.mat", "test_32x32.mat")
NEEDED = " and ".join(_FILES)


def has_svhn(folder: Path) -> bool:
    """Whether the folder holds both files."""
    return all((folder / name).is_file() for name in _FILES)


def read_svhn(folder: Path, num_classes: int) -> tuple[Split, Split]:
    """`X` (32, 32, 3, n) uint8 and `y` (n, 1), in which 10 stands for the digit 0."""
    train, test = (_split(folder / name, num_classes) for name in _FILES)
    return train, test


def _split(path: Path, num_classes: int) -> Split:
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=["X", "y"])
    except Exception as error:  # scipy raises whatever the damaged bytes led it to
        reason = f"{type(error).__name__} in {path.stat().st_size:,} bytes"
        raise InputError(f"{path} is damaged or no MATLAB file ({reason}); fetch it again") from error
    images, labels = content.get("X"), content.get("y")
    if images is None or labels is None:
        raise InputError(f"{path}: expected the variables X and y")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise InputError(
            f"{path}: expected X of type uint8 and shape (32, 32, 3, n), got {images.dtype} {images.shape}"
        )
    if labels.dtype.kind not in "iuf" or labels.size != images.shape[3]:
        raise InputError(f"{path}: expected {images.shape[3]:,} labels, as many as images, found {labels.size:,}")
    labels = labels.astype(np.int64).ravel()
    return in_memory(
        images.transpose(3, 2, 0, 1), check_labels(np.where(labels == 10, 0, labels), num_classes, str(path))
    )
