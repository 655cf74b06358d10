"""Features, labels and a classifier from .npy, .npz, .safetensors and Parquet files.

Features and labels are read in blocks of rows, so that they may be larger than memory. Files are not trusted: nothing
in them is executed, and an error names the file, what was expected and what was found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from neuralcollapse._errors import InputError
from neuralcollapse._files import shortened
from neuralcollapse.data.numpy_files import npy_arrays, npz_arrays
from neuralcollapse.files.parquet_files import parquet_arrays
from neuralcollapse.files.rows import Arrays, Rows, array_rows
from neuralcollapse.files.safetensors_files import safetensors_arrays

BLOCK_BYTES = 64 << 20
_NAMES = ("features", "labels", "weight", "bias")
_ENDINGS = ".npy, .npz, .safetensors or .parquet"
_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Block:
    """Consecutive rows: features (m, p), labels (m,) int64, and the number of the first row in its file."""

    start: int
    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class LabelledFeatures:
    """Labelled features in files, of which one block is in memory at a time.

    Args:
        path: of the features; labels_path: of the labels, often the same.
        features: (n, p); labels: (n,) or (n, 1).
    """

    path: Path
    labels_path: Path
    features: Rows
    labels: Rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Numbers of examples and of features, (n, p)."""
        return self.features.shape

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Rows start … stop − 1 in blocks of at most `BLOCK_BYTES` of features."""
        size: int = getattr(torch, self.features.dtype).itemsize
        step = max(1, min(BLOCK_BYTES // (size * self.shape[1]), BLOCK_BYTES // torch.int64.itemsize))
        pairs = zip(self.features.blocks(start, stop, step), self.labels.blocks(start, stop, step), strict=True)
        for features, labels in pairs:
            yield Block(start, features, labels.to(torch.int64).reshape(-1))
            start += len(features)


@dataclass(frozen=True)
class Classifier:
    """The last layer's weight (C, p), its bias (C,) or None, and the path of the weight's file."""

    path: Path
    weight: Tensor
    bias: Tensor | None


def open_examples(path: Path, labels: Path | None = None, columns: str = "features") -> LabelledFeatures:
    """Features of one file, with labels from it or from a file of their own; only headers are read yet.

    Args:
        columns: those of the features in a Parquet file, see `parquet_arrays`.

    Raises:
        InputError: a file that is absent, damaged, or has no such arrays; shapes or types that do not fit.
    """
    arrays = _arrays(path, "features", columns)
    _require(path, arrays, ("features",) if labels is not None else ("features", "labels"))
    features = arrays["features"]()
    if len(features.shape) != 2 or 0 in features.shape:
        raise InputError(f"{path}: expected features of shape (n, p), got {features.shape}")
    if features.dtype not in _FLOATS:
        raise InputError(f"{path}: expected floating-point features, got {features.dtype}")
    labels_path = path if labels is None else labels
    label_rows = arrays["labels"]() if labels is None else _only_array(labels, "labels")
    count = features.shape[0]
    if label_rows.shape not in ((count,), (count, 1)):
        raise InputError(f"{labels_path}: expected one label per example, shape ({count},), got {label_rows.shape}")
    if not label_rows.dtype.startswith(("int", "uint")):
        raise InputError(f"{labels_path}: expected integer labels, got {label_rows.dtype}")
    return LabelledFeatures(path, labels_path, features, label_rows)


def open_classifier(features: Path | None, weight: Path | None = None, bias: Path | None = None) -> Classifier | None:
    """The classifier in `weight`, or in the features' own file; None where neither has one.

    The bias comes from `bias`, or from the weight's file, if it has one.

    Raises:
        InputError: as `open_examples`.
    """
    path = weight or features
    # a table or a single array has no classifier beside the features
    arrays = {} if path is None or (weight is None and path.suffix in (".npy", ".parquet")) else _arrays(path, "weight")
    if path is None or (weight is None and "weight" not in arrays):
        if bias is not None:
            raise InputError(f"expected a weight to go with the bias of {bias}, got none: name its file by --weight")
        return None
    weight_rows = arrays["weight"]() if weight is None else _only_array(weight, "weight")
    read = _read_whole(path, "weight", weight_rows)
    if bias is not None:
        return Classifier(path, read, _read_whole(bias, "bias", _only_array(bias, "bias")))
    return Classifier(path, read, _read_whole(path, "bias", arrays["bias"]()) if "bias" in arrays else None)


def _read_whole(path: Path, name: str, rows: Rows) -> Tensor:
    """A weight or a bias, which is small."""
    shape = "(C, p)" if name == "weight" else "(C,)"
    if len(rows.shape) != (2 if name == "weight" else 1) or 0 in rows.shape:
        raise InputError(f"{path}: expected a classifier {name} of shape {shape}, got {rows.shape}")
    if rows.dtype not in _FLOATS:
        raise InputError(f"{path}: expected a floating-point classifier {name}, got {rows.dtype}")
    return next(rows.blocks(0, rows.shape[0], rows.shape[0]))


def _arrays(path: Path, name: str, columns: str = "features") -> Arrays:
    """The arrays of a file of any format; the one of an .npy file is called `name`."""
    if not path.is_file():
        raise InputError(f"no file {path}; expected one ending in {_ENDINGS} with {name} in it")
    if path.suffix in (".npy", ".npz"):
        arrays = npy_arrays(path, name) if path.suffix == ".npy" else npz_arrays(path)
        return {key: partial(array_rows, array) for key, array in arrays.items()}
    if path.suffix == ".safetensors":
        return safetensors_arrays(path)
    if path.suffix == ".parquet":
        return parquet_arrays(path, columns)
    raise InputError(f"{path}: expected a file ending in {_ENDINGS}, got {path.suffix or 'no ending'!r}")


def _only_array(path: Path, name: str) -> Rows:
    """An array from a file that was given for it: the one of this name, or the only one there."""
    arrays = _arrays(path, name)
    if len(arrays) == 1 and not arrays.keys() & set(_NAMES):
        return next(iter(arrays.values()))()
    _require(path, arrays, (name,))
    return arrays[name]()


def _require(path: Path, arrays: Arrays, wanted: tuple[str, ...]) -> None:
    if absent := [name for name in wanted if name not in arrays]:
        found = shortened(", ".join(sorted(arrays)) or "nothing", 200)
        hint = "; name the file of the labels by --labels" if "labels" in absent else ""
        raise InputError(f"{path} has no {' and no '.join(absent)}, but {found}{hint}")
