"""STL10, its labelled part: `train_X.bin` and the like (format: cs.stanford.edu/~acoates/stl10)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.data.files import LARGEST_LABELS, check_labels, records
from neuralcollapse.data.types import Split

CLASS_NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
_SIZE = 96
_FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")
NEEDED = ", ".join(_FILES)


def has_stl10(folder: Path) -> bool:
    """Whether the folder holds all four files."""
    return all((folder / name).is_file() for name in _FILES)


def read_stl10(folder: Path, num_classes: int) -> tuple[Split, Split]:
    """Images of three channels of 96 × 96 pixels, *column* by column; labels 1 … 10, a byte each."""
    train, test = (_split(folder, part, num_classes) for part in ("train", "test"))
    return train, test


def _split(folder: Path, part: str, num_classes: int) -> Split:
    path = folder / f"{part}_y.bin"
    labels = records(path, 1, largest=LARGEST_LABELS)[:, 0].astype(np.int64)
    if labels.min() < 1 or labels.max() > num_classes:
        raise InputError(f"{path}: expected labels in 1..{num_classes}, found {labels.min()}..{labels.max()}")
    content = records(folder / f"{part}_X.bin", 3 * _SIZE * _SIZE, count=len(labels))
    images = content.reshape(-1, 3, _SIZE, _SIZE).swapaxes(2, 3)
    return Split(check_labels(labels - 1, num_classes, str(path)), lambda chosen: images[chosen])
