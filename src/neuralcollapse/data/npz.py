"""Any data set in one .npz: train_images, train_labels, test_images, test_labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuralcollapse._errors import InputError
from neuralcollapse.data.dataset import HALVES, Array, Split, check_labels
from neuralcollapse.data.numpy_files import npz_arrays


def read_npz(path: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """Images uint8 (n, height, width) or (n, height, width, channels), labels integers 0 … c-1.

    Raises:
        InputError: a damaged file, an absent array, or one of another type or shape.
    """
    names = [f"{half}_{kind}" for half in HALVES for kind in ("images", "labels")]
    found = npz_arrays(path)
    if absent := [name for name in names if name not in found]:
        expected = f"{', '.join(names[:-1])} and {names[-1]}"
        raise InputError(f"{path} has no {' and no '.join(absent)}; expected {expected}")
    arrays = {name: found[name]() for name in names}
    for half in HALVES:
        images, labels = arrays[f"{half}_images"], arrays[f"{half}_labels"]
        shaped = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
        if images.dtype != np.uint8 or not shaped or 0 in images.shape:
            got = f"{images.dtype} {images.shape}"
            raise InputError(f"{path}: expected {half}_images uint8 (n, height, width[, 1 or 3 channels]), got {got}")
        if labels.shape == (len(images), 1):
            labels = arrays[f"{half}_labels"] = labels[:, 0]
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            got = f"{labels.dtype} {labels.shape}"
            raise InputError(f"{path}: expected {half}_labels of {len(images):,} integers, got {got}")
    num_classes = _count_classes(path, arrays["train_labels"])
    shapes = [arrays[f"{half}_images"].shape[1:] for half in HALVES]
    if shapes[0] != shapes[1]:
        raise InputError(f"{path}: train_images and test_images differ in shape: {' and '.join(map(str, shapes))}")

    def split(half: str) -> Split:
        images = arrays[f"{half}_images"]
        labels = check_labels(arrays[f"{half}_labels"], num_classes, f"{path}, {half}_labels")
        return Split.of_arrays(images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2), labels)

    return split("train"), split("test"), tuple(str(label) for label in range(num_classes))


def _count_classes(path: Path, labels: Array) -> int:
    present = np.unique(labels)
    if present[0] < 0:
        raise InputError(f"{path}, train_labels: expected labels from 0 on, got {present[0]}")
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if gaps.size:
        last = present[-1]
        raise InputError(f"{path}, train_labels: expected every label of 0..{last}, got no example of {gaps[0]}")
    return len(present)
