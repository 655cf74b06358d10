"""Reading whole files with errors that name them."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.lab.datasets.types import Array, Split


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked when it ends in .gz.

    Raises:
        InputError: the file is damaged or must not be read.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        size = path.stat().st_size
        raise InputError(f"{path} is damaged or incomplete after {size:,} bytes ({error}); fetch it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def records(path: Path, size: int, count: int | None = None) -> Array:
    """A file of fixed-size records as uint8 (n, size).

    Raises:
        InputError: the file does not hold a whole number of records, or not as many as expected.
    """
    content = np.frombuffer(read_bytes(path), dtype=np.uint8)
    expected = None if count is None else size * count
    if content.size % size or content.size == 0 or (expected is not None and content.size != expected):
        wanted = f"{expected:,} bytes" if expected is not None else f"a multiple of {size:,} bytes"
        raise InputError(f"{path}: expected {wanted}, found {content.size:,}; fetch it again")
    return content.reshape(-1, size)


def in_memory(images: Array, labels: Array) -> Split:
    """A split whose images are already read, (n, channels, height, width)."""
    return Split(labels.astype(np.int64), lambda chosen: images[chosen])


def check_labels(labels: Array, num_classes: int, where: str) -> Array:
    """The labels as int64.

    Raises:
        InputError: one of them is outside 0 … c-1.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        first = wrong[0]
        raise InputError(f"{where}: expected labels in 0..{num_classes - 1}, got {labels[first]} at example {first}")
    return labels.astype(np.int64)
