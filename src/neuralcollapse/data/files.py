"""Reading whole files, never more of one than its format allows, with errors that name it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.data.types import Array, Split

LARGEST_FILE = 2 << 30
"""Bytes of one file of a published data set; the largest of them has 0.2 GiB, unpacked."""
LARGEST_LABELS = 1 << 25
"""Bytes of a file of labels alone, which take eight times as many in memory."""
_CHUNK = 1 << 20
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".tgz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file to read, unpacked on the way when its ending says that it is packed.

    Raises:
        InputError: the file is damaged or must not be read, here or while it is being read.
    """
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        size = path.stat().st_size
        raise InputError(f"{path} is damaged or incomplete after {size:,} bytes ({error}); fetch it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit in memory; was it written completely?") from error


def read_exactly(path: Path, file: IO[bytes], size: int) -> bytearray:
    """The rest of a file, which must have `size` bytes.

    Memory is taken as the bytes come, and no more than `size` of them are kept, so that neither a number in a header
    nor what a small file unpacks to decides it alone. Packed files are read to their end, where their checksum is.

    Raises:
        InputError: the file holds more or less.
    """
    content = bytearray()
    while len(content) <= size and (chunk := file.read(min(_CHUNK, size + 1 - len(content)))):
        content += chunk
    if len(content) != size:
        found = f"more than {size:,}" if len(content) > size else f"{len(content):,}"
        raise InputError(f"{path}: expected {size:,} bytes, found {found}; fetch it again")
    return content


def records(path: Path, size: int, count: int | None = None, largest: int = LARGEST_FILE) -> Array:
    """A plain file of fixed-size records as uint8 (n, size).

    Raises:
        InputError: the file does not hold a whole number of records, or not as many as expected.
    """
    with opened(path) as file:
        found = path.stat().st_size
        expected = found if count is None else size * count
        if found % size or not found or found != expected:
            wanted = f"{expected:,} bytes" if count is not None else f"a multiple of {size:,} bytes"
            raise InputError(f"{path}: expected {wanted}, found {found:,}; fetch it again")
        require_size(path, expected, largest)
        return np.frombuffer(read_exactly(path, file, expected), dtype=np.uint8).reshape(-1, size)


def require_size(path: Path, size: int, largest: int = LARGEST_FILE) -> None:
    """Raise where a file would have more bytes, unpacked, than any published one by far."""
    if size > largest:
        raise InputError(f"{path}: expected at most {largest:,} bytes, found {size:,}; fetch it again")


def in_memory(images: Array, labels: Array) -> Split:
    """A split whose images are already read, (n, channels, height, width)."""
    return Split(labels.astype(np.int64), lambda chosen: images[chosen])


def check_labels(labels: Array, num_classes: int, where: str) -> Array:
    """The labels as int64.

    Raises:
        InputError: one of them is no integer, or outside 0 … c-1.
    """
    if labels.dtype.kind not in "iuf":
        raise InputError(f"{where}: expected integer labels, got {labels.dtype}")
    if labels.dtype.kind == "f" and (broken := np.flatnonzero(labels != np.rint(labels))).size:
        first = broken[0]
        raise InputError(f"{where}: expected integer labels, got {labels[first]} at example {first}")
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        first = wrong[0]
        raise InputError(f"{where}: expected labels in 0..{num_classes - 1}, got {labels[first]} at example {first}")
    return labels.astype(np.int64)
