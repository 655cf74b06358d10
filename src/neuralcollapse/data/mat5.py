"""Arrays of numbers in a MATLAB file of version 5 to 7, which is all that SVHN needs of the format.

The format is described in MathWorks' "MAT-File Format": after 128 bytes come elements, each a tag of its type and size
and then that many bytes; an array is an element made of elements, and may be compressed as a whole. SciPy's reader
would take as much memory as a file announces; this one takes memory as the bytes come.
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

_HEADER = 128
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_NOT_NUMBERS = 0x0A00  # flags of complex and of logical arrays
_CHUNK = 64 << 10


@dataclass(frozen=True)
class MatArray:
    """An array in a file, of which only the header has been read.

    Args:
        path: of the file.
        shape: of the array; dtype: of its numbers, as NumPy writes it without a byte order.
        stored: of the numbers as they lie in the file, often narrower, with its byte order.
        element: read up to its content.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    stored: np.dtype[Any]
    element: _Element

    @property
    def size(self) -> int:
        """Bytes of the content as stored."""
        return math.prod(self.shape) * self.stored.itemsize

    def read(self) -> Array:
        """The content; it can be read once.

        Raises:
            InputError: it is damaged, or has another size than its header says.
        """
        try:
            content = self.element.read(self.size)
            self.element.finish()
        except (ValueError, zlib.error, MemoryError) as error:
            raise _damaged(self.path, error) from error
        return np.frombuffer(content, self.stored).astype(self.dtype, copy=False).reshape(self.shape, order="F")


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
        position = _HEADER
        while position < len(stored):
            kind, size = struct.unpack_from(f"{order}2I", stored, position)
            start, position = position + 8, position + 8 + size
            if position > len(stored):
                raise ValueError(f"{size:,} bytes are announced where {len(stored) - start:,} are left")
            element = (_CompressedElement if kind == _COMPRESSED else _Element)(stored[start:position], order)
            if kind == _COMPRESSED:
                kind = element.tag()[0]
            else:
                position += -size % 8  # only elements that are not compressed are padded to eight bytes
            if kind != _MATRIX:
                continue
            name, array = _read_header(path, element)
            if name in found:
                raise ValueError(f"{name[:20]!r} is there twice")
            if array is not None and name in names:
                found[name] = array
    except (ValueError, struct.error, zlib.error, OSError, MemoryError) as error:
        raise _damaged(path, error) from error
    return found


class _Element:
    """The bytes of an element, read from its beginning to its end."""

    def __init__(self, stored: memoryview, order: str) -> None:
        self._stored, self._position, self.order = stored, 0, order

    def read(self, size: int) -> bytearray:
        """The next bytes, which must be there."""
        content = self._next(size)
        if len(content) < size:
            raise ValueError(f"{size:,} bytes are announced, {len(content):,} follow")
        return content

    def tag(self) -> tuple[int, int, int]:
        """Type and size of the content that follows, and how many bytes of padding follow it."""
        (kind,) = struct.unpack(f"{self.order}I", self.read(4))
        if kind >> 16:  # the short form: size and type share four bytes, the content has the other four
            return kind & 0xFFFF, kind >> 16, 4 - (kind >> 16)
        (size,) = struct.unpack(f"{self.order}I", self.read(4))
        return kind, size, -size % 8

    def read_small(self, kind: int, most: int) -> bytearray:
        """The content of an inner element of this type with at most so many bytes."""
        found, size, padding = self.tag()
        if found != kind or size > most or padding < 0:
            raise ValueError(f"{size:,} bytes of type {found} where at most {most} of type {kind} should be")
        content = self.read(size)
        self.read(padding)
        return content

    def finish(self) -> None:
        """Raise unless nothing but padding follows."""
        if len(self._next(8)) == 8:
            raise ValueError("more bytes follow than an array's shape says")

    def _next(self, size: int) -> bytearray:
        content = bytearray(self._stored[self._position : self._position + size])
        self._position += len(content)
        return content


class _CompressedElement(_Element):
    """The same of a compressed element, which is decompressed only as far as it is read."""

    def __init__(self, stored: memoryview, order: str) -> None:
        super().__init__(stored, order)
        self._zlib = zlib.decompressobj()

    def finish(self) -> None:
        super().finish()
        if not self._zlib.eof:  # where zlib compares the checksum
            raise ValueError("the compressed bytes end too early")

    def _next(self, size: int) -> bytearray:
        content = bytearray()
        while len(content) < size and not self._zlib.eof:
            compressed = self._zlib.unconsumed_tail or super()._next(_CHUNK)
            content += (found := self._zlib.decompress(compressed, size - len(content)))
            if not compressed and not found:
                break
        return content


def _read_header(path: Path, element: _Element) -> tuple[str, MatArray | None]:
    """Name and header of an array; None where it is not one of real numbers."""
    flags, _ = struct.unpack(f"{element.order}2I", element.read_small(_UINT32, 8))
    sizes = element.read_small(_INT32, 32)
    shape = struct.unpack(f"{element.order}{len(sizes) // 4}i", sizes)
    name = element.read_small(_INT8, 64).decode("latin-1")
    dtype = _CLASSES.get(flags & 0xFF)
    if dtype is None or flags & _NOT_NUMBERS:
        return name, None
    kind, size, _ = element.tag()
    if kind not in _STORED:
        raise ValueError(f"{name[:20]!r} has numbers of type {kind}")
    stored = np.dtype(element.order + _STORED[kind])
    if min(shape, default=-1) < 0 or math.prod(shape) * stored.itemsize != size:
        raise ValueError(f"{name[:20]!r} of shape {shape} has {size:,} bytes")
    return name, MatArray(path, shape, dtype, stored, element)


def _damaged(path: Path, error: BaseException) -> InputError:
    reason = str(error) or type(error).__name__
    return InputError(f"{path} is damaged or not a MATLAB file of version 5 to 7 ({reason}); download it again")
