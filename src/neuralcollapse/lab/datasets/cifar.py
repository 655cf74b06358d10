"""CIFAR10: the binary and the Python version (format: www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

import codecs
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.lab.datasets.files import check_labels, in_memory, read_bytes, records
from neuralcollapse.lab.datasets.types import Array, Split

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_PIXELS = 3 * 32 * 32
_BINARY = (tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",))
_PYTHON = (tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",))
NEEDED = "data_batch_1..5 and test_batch (or .bin), or a folder or .tar.xz of images train/<class>, test/<class>"

# What pickled dictionaries of byte strings, lists and NumPy arrays need, and nothing that runs anything.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
    ("numpy.core.numeric", "_frombuffer"): np.zeros(0).__reduce_ex__(5)[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}


def has_binary(folder: Path) -> bool:
    """Whether the folder holds the six files of the binary version."""
    return all((folder / name).is_file() for part in _BINARY for name in part)


def has_python(folder: Path) -> bool:
    """Whether the folder holds the six files of the Python version."""
    return all((folder / name).is_file() for part in _PYTHON for name in part)


def read_binary(folder: Path, num_classes: int) -> tuple[Split, Split]:
    """Records of one label byte and 3072 pixels, channel by channel, row by row."""
    train, test = (_binary_split(folder, part, num_classes) for part in _BINARY)
    return train, test


def read_python(folder: Path, num_classes: int) -> tuple[Split, Split]:
    """Pickled dictionaries with `data`, uint8 (n, 3072), and `labels`."""
    train, test = (_python_split(folder, part, num_classes) for part in _PYTHON)
    return train, test


def _binary_split(folder: Path, names: tuple[str, ...], num_classes: int) -> Split:
    parts = [records(folder / name, 1 + _PIXELS) for name in names]
    for name, part in zip(names, parts, strict=True):
        check_labels(part[:, 0], num_classes, str(folder / name))
    whole = np.concatenate(parts)
    return in_memory(whole[:, 1:].reshape(-1, 3, 32, 32), whole[:, 0])


def _python_split(folder: Path, names: tuple[str, ...], num_classes: int) -> Split:
    images, labels = zip(*(_python_batch(folder / name, num_classes) for name in names), strict=True)
    return in_memory(np.concatenate(images).reshape(-1, 3, 32, 32), np.concatenate(labels))


def _python_batch(path: Path, num_classes: int) -> tuple[Array, Array]:
    stored = read_bytes(path)
    try:
        content = _Unpickler(io.BytesIO(stored), encoding="bytes").load()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle can raise anything; nothing outside _ALLOWED was called
        reason = f"{type(error).__name__} in {len(stored):,} bytes"
        raise InputError(f"{path} is damaged or no CIFAR10 batch ({reason}); fetch it again") from error
    images, labels = (content.get(key) if isinstance(content, dict) else None for key in (b"data", b"labels"))
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (_PIXELS,):
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(f"{path}: expected data of type uint8 and shape (n, {_PIXELS}), found {found}")
    if not isinstance(labels, list) or len(labels) != len(images) or not all(type(label) is int for label in labels):
        found = f"{len(labels):,} entries" if isinstance(labels, list) else type(labels).__name__
        raise InputError(f"{path}: expected a list of {len(images):,} integer labels, found {found}")
    return images, check_labels(np.array(labels), num_classes, str(path))


class _Unpickler(pickle.Unpickler):
    """Refuses every name but the few that arrays need, so that a foreign file cannot run anything."""

    def find_class(self, module: str, name: str) -> Any:
        key = (module.replace("numpy._core.", "numpy.core."), name)  # NumPy 2 renamed it
        if key not in _ALLOWED:
            raise InputError(f"refused, it asks for {module}.{name}, which no CIFAR10 batch needs")
        return _ALLOWED[key]
