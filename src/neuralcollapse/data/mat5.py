"""Arrays of numbers in a MATLAB file of version 5 to 7, which is all that SVHN needs of the format.

The format is described in MathWorks' "MAT-File Format": after 128 bytes come elements, each a tag of its type and size
and then that many bytes; an array is an element made of elements, and may be compressed as a whole. SciPy's reader
takes as much memory as a file announces; this one takes no more than there are bytes.
"""

from __future__ import annotations

import math
import mmap
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse._errors import InputError
from neuralcollapse.data.dataset import Array

_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_NOT_NUMBERS = 0x0A00  # flags of complex and of logical arrays
_LARGEST_HEADER = 256  # bytes of an array's header, of whose parts each has a largest size below
_ENOUGH = 4096  # bytes that hold a compressed header


@dataclass(frozen=True)
class MatArray:
    """An array in a file, of which only the header has been read.

    Args:
        path: of the file.
        shape: of the array; dtype: of its numbers, as NumPy writes it without a byte order.
        stored: of the numbers as they lie in the file, often narrower, with its byte order.
        element: the array's element; compressed: whether it is.
        start: where the numbers begin in the element, decompressed.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    stored: np.dtype[Any]
    element: memoryview
    compressed: bool
    start: int

    @property
    def size(self) -> int:
        """Bytes of the numbers as stored."""
        return math.prod(self.shape) * self.stored.itemsize

    def read(self) -> Array:
        """The numbers.

        Raises:
            InputError: they are damaged, or more or fewer than the header says.
        """
        end = self.start + self.size
        content: bytes | memoryview = self.element
        try:
            if self.compressed:
                inflating = zlib.decompressobj()
                content = inflating.decompress(self.element, end + 8)
                if not inflating.eof:  # where zlib compares the checksum
                    raise ValueError("it does not end where the array does")
            if not 0 <= len(content) - end < 8:  # bytes of padding
                raise ValueError(f"{end:,} bytes are announced, {len(content):,} are there")
        except (ValueError, zlib.error, MemoryError) as error:
            raise _damaged(self.path, error) from error
        numbers = np.frombuffer(content, self.stored, math.prod(self.shape), self.start)
        return numbers.astype(self.dtype, copy=False).reshape(self.shape, order="F")


def read_headers(path: Path, names: tuple[str, ...]) -> dict[str, MatArray]:
    """The headers of those arrays of numbers in a file that have one of the names.

    Raises:
        InputError: the file is damaged or of another version.
    """
    found: dict[str, MatArray] = {}
    try:
        with path.open("rb") as file:
            stored = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if bytes(stored[124:128]) not in (b"\0\1IM", b"\1\0MI"):
            raise ValueError("it does not begin as version 5 does")
        order = "<" if bytes(stored[126:128]) == b"IM" else ">"
        position = 128
        while position < len(stored):
            kind, size = struct.unpack_from(f"{order}2I", stored, position)
            start, position = position + 8, position + 8 + size
            if position > len(stored):
                raise ValueError(f"{size:,} bytes are announced where {len(stored) - start:,} are left")
            element, compressed = stored[start:position], kind == _COMPRESSED
            if compressed:
                header = zlib.decompressobj().decompress(element[:_ENOUGH], _LARGEST_HEADER)
                kind = _read_tag(header, 0, order)[0]
            else:
                header = bytes(element[:_LARGEST_HEADER])
                position += -size % 8  # only elements that are not compressed are padded to eight bytes
            if kind != _MATRIX:
                continue
            name, array = _read_header(path, header, order, element, compressed)
            if name in found:
                raise ValueError(f"{name[:20]!r} is there twice")
            if array is not None and name in names:
                found[name] = array
    except (ValueError, struct.error, zlib.error, OSError, MemoryError) as error:
        raise _damaged(path, error) from error
    return found


def _read_header(
    path: Path, header: bytes, order: str, element: memoryview, compressed: bool
) -> tuple[str, MatArray | None]:
    """Name and header of an array; None where it is not one of real numbers."""
    position = 8 if compressed else 0  # behind the element's own tag
    parts = []
    for kind, most in ((_UINT32, 8), (_INT32, 32), (_INT8, 64)):
        found, size, start, position = _read_tag(header, position, order)
        if found != kind or size > most:
            raise ValueError(f"{size:,} bytes of type {found} where at most {most} of type {kind} should be")
        parts.append(header[start : start + size])
    flags, _ = struct.unpack(f"{order}2I", parts[0])
    shape = struct.unpack(f"{order}{len(parts[1]) // 4}i", parts[1])
    name = parts[2].decode("latin-1")
    dtype = _CLASSES.get(flags & 0xFF)
    if dtype is None or flags & _NOT_NUMBERS:
        return name, None
    kind, size, start, _ = _read_tag(header, position, order)
    if kind not in _STORED:
        raise ValueError(f"{name[:20]!r} has numbers of type {kind}")
    stored = np.dtype(order + _STORED[kind])
    if min(shape, default=-1) < 0 or math.prod(shape) * stored.itemsize != size:
        raise ValueError(f"{name[:20]!r} of shape {shape} has {size:,} bytes")
    return name, MatArray(path, shape, dtype, stored, element, compressed, start)


def _read_tag(header: bytes, position: int, order: str) -> tuple[int, int, int, int]:
    """Type and size of an inner element, where its content begins, and where the next element begins."""
    kind, size = struct.unpack_from(f"{order}2I", header, position)
    if kind >> 16:  # the short form: size and type share four bytes, the content has the other four
        if kind >> 16 > 4:
            raise ValueError(f"{kind >> 16} bytes are announced where four are")
        return kind & 0xFFFF, kind >> 16, position + 4, position + 8
    return kind, size, position + 8, position + 8 + size + -size % 8


def _damaged(path: Path, error: BaseException) -> InputError:
    reason = str(error) or type(error).__name__
    return InputError(f"{path} is damaged or not a MATLAB file of version 5 to 7 ({reason}); download it again")
