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

from neuralcollapse._errors import InputError, suggest
from neuralcollapse._files import shortened
from neuralcollapse.data.numpy_files import npy_arrays, npz_arrays
from neuralcollapse.files.options import split_key
from neuralcollapse.files.parquet_files import parquet_arrays
from neuralcollapse.files.rows import Arrays, Rows, array_rows
from neuralcollapse.files.safetensors_files import safetensors_arrays
from neuralcollapse.files.torch_files import ENDINGS, torch_arrays

BLOCK_BYTES = 16 << 20
_NAMES = ("features", "labels", "weight", "bias")
_ENDINGS = ".npy, .npz, .safetensors, .pt or .parquet"
_HEADS = ("fc", "classifier", "head", "lm_head", "score", "out_proj", "linear")
"""What the last layer is called in torchvision, timm and Transformers, where several weights fit the features."""
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
            classes = labels.to(torch.int64).reshape(-1)
            if labels.dtype == torch.uint64 and bool((classes < 0).any()):
                row = int((classes < 0).nonzero()[0])
                found = f"{labels.reshape(-1)[row].item()} in row {start + row}"
                raise InputError(f"{self.labels_path}: expected labels below 2⁶³, got {found}")
            yield Block(start, features, classes)
            start += len(features)


@dataclass(frozen=True)
class Classifier:
    """The last layer's weight (C, p) and bias (C,) or None; path is the weight's, found names them in a state dict."""

    path: Path
    weight: Tensor
    bias: Tensor | None
    found: str = ""


def is_features(path: Path) -> bool:
    """Whether a path is that of a file of features, by its ending; it need not be there."""
    return path.suffix in (".npy", ".npz", ".safetensors", ".parquet", *ENDINGS) and not path.is_dir()


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
    labels_path = path if labels is None else split_key(labels)[0]
    label_rows = arrays["labels"]() if labels is None else _only_array(labels, "labels")
    count = features.shape[0]
    if label_rows.shape not in ((count,), (count, 1)):
        raise InputError(f"{labels_path}: expected one label per example, shape ({count},), got {label_rows.shape}")
    if not label_rows.dtype.startswith(("int", "uint")):
        raise InputError(f"{labels_path}: expected integer labels, got {label_rows.dtype}")
    return LabelledFeatures(path, labels_path, features, label_rows)


def open_classifier(
    features: Path | None, weight: Path | None = None, bias: Path | None = None, dim: int | None = None
) -> Classifier | None:
    """The classifier in `weight`, or in the features' own file; None where neither has one.

    The bias comes from `bias`, or from the weight's file, if it has one.

    Args:
        features: the file of the features.
        weight: FILE or FILE:KEY; of a state dict without KEY, the one weight that fits the features.
        bias: FILE or FILE:KEY.
        dim: p, where it is known.

    Raises:
        InputError: as `open_examples`.
    """
    path, key = (features, None) if weight is None else split_key(weight)
    # of the features' own file: neither a table nor a single array has a classifier beside the features
    arrays = {} if path is None or (weight is None and path.suffix in (".npy", ".parquet")) else _arrays(path, "weight")
    if path is None or (weight is None and "weight" not in arrays):
        if bias is not None:
            raise InputError(f"expected a weight to go with the bias of {bias}, got none: name its file by --weight")
        return None
    name = "weight" if weight is None else _weight_name(path, arrays, key, dim)
    beside = f"{name.removesuffix('weight')}bias" if name.endswith("weight") else "bias"
    read = _read_whole(path, "weight", arrays[name]())
    found = "" if name == key or len(arrays) == 1 or name == "weight" else name
    if bias is not None:
        return Classifier(path, read, _read_whole(split_key(bias)[0], "bias", _only_array(bias, "bias")), found)
    if beside not in arrays:
        return Classifier(path, read, None, found)
    found = found and f"{found} and {beside}"
    return Classifier(path, read, _read_whole(path, "bias", arrays[beside]()), found)


def _weight_name(path: Path, arrays: Arrays, key: str | None, dim: int | None) -> str:
    """Which array of a file of its own is the classifier's weight.

    The one named; else "weight", or the only array; else, in a state dict, the only matrix with a column for each
    feature, or the only one of those in a layer with a usual name of a last layer.

    Raises:
        InputError: there is none, or several fit.
    """
    if key is not None:
        return _named_array(path, arrays, key)
    if "weight" in arrays or (len(arrays) == 1 and not arrays.keys() & set(_NAMES)):
        return "weight" if "weight" in arrays else next(iter(arrays))
    shapes = {name: arrays[name]().shape for name in arrays if name.endswith(".weight")}
    fitting = [name for name, shape in shapes.items() if len(shape) == 2 and dim in (None, shape[1])]
    usual = [name for name in fitting if name.split(".")[-2] in _HEADS]
    for names in (fitting, usual):
        if len(names) == 1:
            return names[0]
    _require(path, arrays, () if shapes else ("weight",))
    of = "a weight (C, p)" if dim is None else f"a classifier's weight with {dim} columns, one for each feature"
    listed = [f"{name} {tuple(shapes[name])}" for name in fitting or shapes]
    got = f"{len(fitting)} that fit" if fitting else "none"
    raise InputError(
        f"{path}: expected {of}, got {got}: {shortened(', '.join(listed), 300)}; name it as --weight {path}:KEY"
    )


def _named_array(path: Path, arrays: Arrays, key: str) -> str:
    """The array of that name, or the only one whose name ends with it, as ``fc.weight`` in ``module.fc.weight``."""
    ending = [name for name in arrays if name.endswith(f".{key}")]
    if key in arrays or len(ending) == 1:
        return key if key in arrays else ending[0]
    hint = suggest(key, arrays) or f"; it holds {shortened(', '.join(sorted(arrays)) or 'nothing', 200)}"
    raise InputError(f"{path} has {'several' if ending else 'no'} {key!r}{hint}")


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
    if path.is_dir():
        hint = f"; see a run by `neuralcollapse report {path}`" if (path / "config.json").is_file() else ""
        raise InputError(f"{path} is a folder; expected a file ending in {_ENDINGS} with {name} in it{hint}")
    if not path.is_file():
        raise InputError(f"no file {path}; expected one ending in {_ENDINGS} with {name} in it")
    if path.suffix in (".npy", ".npz"):
        arrays = npy_arrays(path, name) if path.suffix == ".npy" else npz_arrays(path)
        return {key: partial(array_rows, array) for key, array in arrays.items()}
    if path.suffix == ".safetensors":
        return safetensors_arrays(path)
    if path.suffix in ENDINGS:
        return torch_arrays(path)
    if path.suffix == ".parquet":
        return parquet_arrays(path, columns)
    raise InputError(f"{path}: expected a file ending in {_ENDINGS}, got {path.suffix or 'no ending'!r}")


def _only_array(path: Path, name: str) -> Rows:
    """An array from a FILE that was given for it: the one of this name, or the only one there; or that of FILE:KEY."""
    path, key = split_key(path)
    arrays = _arrays(path, name)
    if key is not None:
        return arrays[_named_array(path, arrays, key)]()
    if len(arrays) == 1 and not arrays.keys() & set(_NAMES):
        return next(iter(arrays.values()))()
    _require(path, arrays, (name,))
    return arrays[name]()


def _require(path: Path, arrays: Arrays, wanted: tuple[str, ...]) -> None:
    if absent := [name for name in wanted if name not in arrays]:
        if {"counts", "means", "scatter"} <= arrays.keys():
            raise InputError(f"{path} holds saved moments, not {absent[0]}: use `measure --merge {path} --weight FILE`")
        found = shortened(", ".join(sorted(arrays)) or "nothing", 200)
        hint = "; name the file of the labels by --labels" if "labels" in absent else ""
        raise InputError(f"{path} has no {' and no '.join(absent)}, but {found}{hint}")
