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
from pathlib import Path

import numpy as np

from neuralcollapse._files import readable
from neuralcollapse.data.binary_files import require_size
from neuralcollapse.data.dataset import Array

_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_NOT_NUMBERS = 0x0A00  # flags of complex and of logical arrays
_LARGEST_HEADER = 256  # bytes of an array's header, of whose parts each has a largest size below
_ENOUGH = 4096  # bytes that hold a compressed header


def read_mat5(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    """The arrays of real numbers in a file that have one of the names.

    Raises:
        InputError: the file is damaged, of another version, or far larger than any published one.
    """
    found: dict[str, Array] = {}
    with readable(path, "MATLAB file of version 5 to 7", "; download it again"), path.open("rb") as file:
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
            name, dtype, shape, numbers, start = _read_header(header, order, 8 if compressed else 0)
            if name in found:
                raise ValueError(f"{name[:20]!r} is there twice")
            if name in names and dtype is not None:
                require_size(path, math.prod(shape) * numbers.itemsize)
                content = _read_content(element, compressed, start + math.prod(shape) * numbers.itemsize)
                array = np.frombuffer(content, numbers, math.prod(shape), start)
                found[name] = array.astype(dtype, copy=False).reshape(shape, order="F")
    return found


def _read_header(
    header: bytes, order: str, position: int
) -> tuple[str, str | None, tuple[int, ...], np.dtype[np.generic], int]:
    """Read what stands before an array's numbers, from a position on.

    Returns:
        The name; the type, None of what is not real numbers; the shape; the type as stored, which is often narrower;
        and where the numbers begin.
    """
    parts = []
    for kind, most in ((_UINT32, 8), (_INT32, 32), (_INT8, 64)):
        found, size, start, position = _read_tag(header, position, order)
        if found != kind or size > most:
            raise ValueError(f"{size:,} bytes of type {found} where at most {most} of type {kind} should be")
        parts.append(header[start : start + size])
    flags, _ = struct.unpack(f"{order}2I", parts[0])
    shape = struct.unpack(f"{order}{len(parts[1]) // 4}i", parts[1])
    name = parts[2].decode("latin-1")
    if flags & 0xFF not in _CLASSES or flags & _NOT_NUMBERS:
        return name, None, shape, np.dtype("u1"), position
    kind, size, start, _ = _read_tag(header, position, order)
    if kind not in _STORED:
        raise ValueError(f"{name[:20]!r} has numbers of type {kind}")
    numbers = np.dtype(order + _STORED[kind])
    if numbers.itemsize > np.dtype(_CLASSES[flags & 0xFF]).itemsize:
        raise ValueError(f"{name[:20]!r} is stored wider than its type")
    if min(shape, default=-1) < 0 or math.prod(shape) * numbers.itemsize != size:
        raise ValueError(f"{name[:20]!r} of shape {shape} has {size:,} bytes")
    return name, _CLASSES[flags & 0xFF], shape, numbers, start


def _read_content(element: memoryview, compressed: bool, end: int) -> bytes | memoryview:
    """The bytes of an array, which must end at `end` but for padding."""
    content: bytes | memoryview = element
    if compressed:
        inflating = zlib.decompressobj()
        content = inflating.decompress(element, end + 8)
        if not inflating.eof:  # where zlib compares the checksum
            raise ValueError("it does not end where the array does")
    if not 0 <= len(content) - end < 8:
        raise ValueError(f"{end:,} bytes are announced where {len(content):,} are")
    return content


def _read_tag(header: bytes, position: int, order: str) -> tuple[int, int, int, int]:
    """Type and size of an inner element, where its content begins, and where the next element begins."""
    kind, size = struct.unpack_from(f"{order}2I", header, position)
    if kind >> 16:  # the short form: size and type share four bytes, the content has the other four
        if kind >> 16 > 4:
            raise ValueError(f"{kind >> 16} bytes are announced where four are")
        return kind & 0xFFFF, kind >> 16, position + 4, position + 8
    return kind, size, position + 8, position + 8 + size + -size % 8
