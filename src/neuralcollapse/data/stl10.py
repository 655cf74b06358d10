"""STL10, its labelled part: `train_X.bin` and the like (format: cs.stanford.edu/~acoates/stl10)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuralcollapse._errors import InputError
from neuralcollapse.data.binary_files import LARGEST_LABELS, records
from neuralcollapse.data.dataset import Split

CLASS_NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
FILES = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin")
_SIZE = 96


def read_stl10(folder: Path, num_classes: int) -> tuple[Split, Split]:
    """Images of three channels of 96 × 96 pixels, *column* by column; labels 1 … 10, a byte each."""
    halves = []
    for half in ("train", "test"):
        path = folder / f"{half}_y.bin"
        labels = records(path, 1, largest=LARGEST_LABELS)[:, 0].astype(np.int64)
        if labels.min() < 1 or labels.max() > num_classes:
            raise InputError(f"{path}: expected labels in 1..{num_classes}, got {labels.min()}..{labels.max()}")
        content = records(folder / f"{half}_X.bin", 3 * _SIZE * _SIZE, count=len(labels))
        halves.append(Split.of_arrays(content.reshape(-1, 3, _SIZE, _SIZE).swapaxes(2, 3), labels - 1))
    return halves[0], halves[1]
