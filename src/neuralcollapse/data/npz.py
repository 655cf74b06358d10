"""Any data set in one .npz: train_images, train_labels, test_images, test_labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.data.files import check_labels, in_memory
from neuralcollapse.data.types import Array, Split
from neuralcollapse.files.numpy_files import npz_arrays

NEEDED = "train_images, train_labels, test_images and test_labels"
_CHANNELS = (1, 3)


def read_npz(path: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """Images uint8 (n, height, width) or (n, height, width, channels), labels integers 0 … c-1.

    Raises:
        InputError: a damaged file, an absent array, or one of another type or shape.
    """
    names = [f"{half}_{kind}" for half in ("train", "test") for kind in ("images", "labels")]
    found = npz_arrays(path)
    if absent := [name for name in names if name not in found]:
        raise InputError(f"{path} has no {' and no '.join(absent)}; expected {NEEDED}")
    arrays = {name: found[name]().array for name in names}
    for half in ("train", "test"):
        _check(path, half, arrays[f"{half}_images"], arrays[f"{half}_labels"])
    num_classes = _count_classes(path, arrays["train_labels"])
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        shapes = (arrays[f"{half}_images"].shape[1:] for half in ("train", "test"))
        raise InputError(f"{path}: train_images and test_images differ in shape: {' and '.join(map(str, shapes))}")
    train, test = (
        in_memory(
            _channels_first(arrays[f"{half}_images"]),
            check_labels(arrays[f"{half}_labels"], num_classes, f"{path}, {half}_labels"),
        )
        for half in ("train", "test")
    )
    return train, test, tuple(str(label) for label in range(num_classes))


def _check(path: Path, half: str, images: Array, labels: Array) -> None:
    shaped = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in _CHANNELS)
    if images.dtype != np.uint8 or not shaped or 0 in images.shape:
        found = f"{images.dtype} {images.shape}"
        raise InputError(f"{path}: expected {half}_images uint8 (n, height, width[, 1 or 3 channels]), got {found}")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or not len(labels):
        found = f"{labels.dtype} {labels.shape}"
        raise InputError(f"{path}: expected {half}_labels of {len(images):,} integers, got {found}")


def _count_classes(path: Path, labels: Array) -> int:
    present = np.unique(labels)
    if present[0] < 0:
        raise InputError(f"{path}, train_labels: expected labels from 0 on, got {present[0]}")
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if gaps.size:
        last = present[-1]
        raise InputError(f"{path}, train_labels: expected every label of 0..{last}, no example has {gaps[0]}")
    return len(present)


def _channels_first(images: Array) -> Array:
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
