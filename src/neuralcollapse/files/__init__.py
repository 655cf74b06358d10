"""Features, labels and a classifier from .npy, .npz, .safetensors and Parquet files, streamed in blocks.

Files are untrusted: nothing in them is executed, and what does not fit is said in one sentence with the file's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from neuralcollapse._checks import InputError
from neuralcollapse.files.numpy_files import npy_arrays, npz_arrays
from neuralcollapse.files.parquet_files import parquet_arrays
from neuralcollapse.files.rows import Arrays, Rows, whole
from neuralcollapse.files.safetensors_files import safetensors_arrays

BLOCK_BYTES = 64 << 20
_ROLES = ("features", "labels", "weight", "bias")
_ENDINGS = ".npy, .npz, .safetensors or .parquet"
_FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Block:
    """Consecutive rows: features (m, p), labels (m,) int64, and the number of the first in its file."""

    start: int
    features: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Examples:
    """Labelled features in files, of which only a block is in memory at a time.

    Args:
        path: of the features; labels_path: of the labels, often the same.
        features: (n, p); labels: (n,).
    """

    path: Path
    labels_path: Path
    features: Rows
    labels: Rows

    @property
    def rows(self) -> int:
        """n."""
        return self.features.shape[0]

    @property
    def dim(self) -> int:
        """p."""
        return self.features.shape[1]

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Rows start … stop − 1 in blocks of at most ``BLOCK_BYTES`` of features."""
        size: int = getattr(torch, self.features.dtype).itemsize
        step = max(1, min(BLOCK_BYTES // (size * self.dim), BLOCK_BYTES // torch.int64.itemsize))
        pairs = zip(self.features.blocks(start, stop, step), self.labels.blocks(start, stop, step), strict=True)
        for features, labels in pairs:
            yield Block(start, features, labels.to(torch.int64))
            start += len(features)


@dataclass(frozen=True)
class Classifier:
    """weight (C, p) and bias (C,) or None of the last layer; path is the weight's."""

    path: Path
    weight: Tensor
    bias: Tensor | None


def open_examples(path: Path, labels: Path | None = None, columns: str = "features") -> Examples:
    """Features of one file, with labels from it or from a file of their own; nothing but headers is read yet.

    Args:
        columns: of a Parquet file, see `parquet_arrays`.

    Raises:
        InputError: a file that is absent, damaged, or has no such arrays; shapes or types that do not fit.
    """
    arrays = _arrays(path, "features", columns)
    wanted = ("features",) if labels is not None else ("features", "labels")
    _require(path, arrays, wanted)
    features = arrays["features"]()
    labels_path = path if labels is None else labels
    label_rows = arrays["labels"]() if labels is None else _own(labels, "labels")
    if len(features.shape) != 2 or 0 in features.shape:
        raise InputError(f"{path}: expected features of shape (n, p), got {features.shape}")
    if features.dtype not in _FLOATS:
        raise InputError(f"{path}: expected floating-point features, got {features.dtype}")
    if label_rows.shape != features.shape[:1]:
        raise InputError(
            f"{labels_path}: expected one label per example, shape ({features.shape[0]},), got {label_rows.shape}"
        )
    if not label_rows.dtype.startswith(("int", "uint")):
        raise InputError(f"{labels_path}: expected integer labels, got {label_rows.dtype}")
    return Examples(path, labels_path, features, label_rows)


def open_classifier(features: Path | None, weight: Path | None = None, bias: Path | None = None) -> Classifier | None:
    """The classifier of ``weight``, else of the features' own file; None where that has none either.

    The bias comes from ``bias``, else from the file of the weight, if it has one.

    Raises:
        InputError: as `open_examples`.
    """
    path = weight or features
    # labels and weights are no columns of a table
    if path is None or (weight is None and path.suffix in (".npy", ".parquet")):
        arrays: Arrays = {}
    else:
        arrays = _arrays(path, "weight")
    if weight is not None:
        weight_rows = _own(weight, "weight")
    elif "weight" in arrays:
        weight_rows = arrays["weight"]()
    else:
        if bias is not None:
            raise InputError(f"expected a weight to go with the bias of {bias}, got none: name its file by --weight")
        return None
    assert path is not None
    bias_rows = _own(bias, "bias") if bias is not None else arrays["bias"]() if "bias" in arrays else None
    for name, rows, ndim, where in (("weight", weight_rows, 2, path), ("bias", bias_rows, 1, bias or path)):
        if rows is None:
            continue
        if len(rows.shape) != ndim or 0 in rows.shape:
            shape = "(C, p)" if ndim == 2 else "(C,)"
            raise InputError(f"{where}: expected a classifier {name} of shape {shape}, got {rows.shape}")
        if rows.dtype not in _FLOATS:
            raise InputError(f"{where}: expected a floating-point classifier {name}, got {rows.dtype}")
    return Classifier(path, whole(weight_rows), None if bias_rows is None else whole(bias_rows))


def _arrays(path: Path, name: str, columns: str = "features") -> Arrays:
    """The arrays of any file; the one of an .npy is called ``name``."""
    if not path.is_file():
        raise InputError(f"no file {path}; expected one ending in {_ENDINGS} with {name} in it")
    if path.suffix == ".npy":
        return dict(npy_arrays(path, name))
    if path.suffix == ".npz":
        return dict(npz_arrays(path))
    if path.suffix == ".safetensors":
        return safetensors_arrays(path)
    if path.suffix == ".parquet":
        return parquet_arrays(path, columns)
    raise InputError(f"{path}: expected a file ending in {_ENDINGS}, got {path.suffix or 'no ending'!r}")


def _own(path: Path, name: str) -> Rows:
    """An array from a file given for it: by its name, or the only one there."""
    arrays = _arrays(path, name)
    if len(arrays) == 1 and not arrays.keys() & set(_ROLES):
        return next(iter(arrays.values()))()
    _require(path, arrays, (name,))
    return arrays[name]()


def _require(path: Path, arrays: Arrays, wanted: tuple[str, ...]) -> None:
    if absent := [name for name in wanted if name not in arrays]:
        found = ", ".join(sorted(arrays)) or "nothing"
        if len(found) > 200:
            found = f"{found[:200]} …"
        where = "; labels can be named by --labels" if "labels" in absent else ""
        raise InputError(f"{path} has no {' and no '.join(absent)}, found {found}{where}")
