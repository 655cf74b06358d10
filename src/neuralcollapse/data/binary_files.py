"""Reading binary files whole, but never more of one than its format allows."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from neuralcollapse._errors import InputError
from neuralcollapse.data.dataset import Array

LARGEST_FILE = 2 << 30
"""Bytes of one file of a published data set; the largest of them has 0.2 GiB uncompressed."""
LARGEST_LABELS = 1 << 25
"""Bytes of a file of labels, which take eight times as many in memory."""
_CHUNK = 1 << 20
_OPENERS: dict[str, Any] = {".gz": gzip.open, ".tgz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file to read, decompressed on the way if its ending is that of a compressed file.

    Raises:
        InputError: the file is damaged or cannot be read, when it is opened or during the block.
    """
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        end = f"after {path.stat().st_size:,} bytes ({error})"
        raise InputError(f"{path} is damaged or incomplete {end}; download it again") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit in memory; was it written completely?") from error


def read_exactly(path: Path, file: IO[bytes], size: int) -> bytearray:
    """The rest of a file, which must have `size` bytes.

    Memory is taken as the bytes come, and at most `size` of them: a wrong number in a header, or a small file that
    decompresses to gigabytes, takes no more. Compressed files are read to their end, where their checksum is.

    Raises:
        InputError: the file holds more or less.
    """
    content = bytearray()
    while len(content) <= size and (chunk := file.read(min(_CHUNK, size + 1 - len(content)))):
        content += chunk
    if len(content) != size:
        found = f"more than {size:,}" if len(content) > size else f"{len(content):,}"
        raise InputError(f"{path}: expected {size:,} bytes, got {found}; download it again")
    return content


def records(path: Path, size: int, count: int | None = None, largest: int = LARGEST_FILE) -> Array:
    """An uncompressed file of records of one size as uint8 (n, size).

    Raises:
        InputError: the file does not hold a whole number of records, or not as many as expected.
    """
    with opened(path) as file:
        found = path.stat().st_size
        expected = found if count is None else size * count
        if found % size or not found or found != expected:
            wanted = f"{expected:,} bytes" if count is not None else f"a multiple of {size:,} bytes"
            raise InputError(f"{path}: expected {wanted}, got {found:,}; download it again")
        require_size(path, expected, largest)
        return np.frombuffer(read_exactly(path, file, expected), dtype=np.uint8).reshape(-1, size)


def require_size(path: Path, size: int, largest: int = LARGEST_FILE) -> None:
    """Raise where a file has, uncompressed, far more bytes than any published one."""
    if size > largest:
        raise InputError(f"{path}: expected at most {largest:,} bytes, got {size:,}; download it again")


def machine_memory() -> float:
    """Bytes of memory of this machine; infinity where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf
