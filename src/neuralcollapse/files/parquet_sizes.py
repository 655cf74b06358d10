"""What a Parquet file says of its sizes, read without Arrow.

Arrow believes every size in a file: a page of a few bytes may announce a gigabyte, which is then taken from memory, and
some contradictions in the metadata end the process instead of raising. So the sizes are looked at first. They are in
Thrift's compact protocol (github.com/apache/thrift, doc/specs/thrift-compact-protocol.md), the fields' numbers in
github.com/apache/parquet-format, parquet.thrift.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DEEPEST = 16  # levels of structures in structures; the metadata have seven
_MAGIC = b"PAR1"


@dataclass(frozen=True)
class Chunk:
    """One column of one row group.

    Args:
        path: the column's name, then where a list nests.
        values: numbers in its pages; size: their bytes when they are unpacked.
    """

    path: tuple[str, ...]
    values: int
    size: int


@dataclass(frozen=True)
class Sizes:
    """Rows of each row group, and every chunk in them."""

    rows: tuple[int, ...]
    chunks: tuple[Chunk, ...]


def read_sizes(path: Path) -> Sizes:
    """Of a whole file; of its pages only the headers are read.

    Raises:
        ValueError: sizes that cannot be.
        Exception: damaged metadata; of any type.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stored:
        (length,) = struct.unpack("<I", stored[-8:-4])
        start = len(stored) - 8 - length
        if stored[-4:] != _MAGIC or start < len(_MAGIC):
            raise ValueError("it does not end as a Parquet file does")
        about = _Reader(stored, start).structure()
        groups = about.get(4, [])
        rows = tuple(group[3] for group in groups)
        if min(rows, default=0) < 0 or sum(rows) != about[3]:
            raise ValueError(f"{about[3]} rows are announced, {sum(rows)} are in the groups")
        return Sizes(rows, tuple(_chunk(stored, column) for group in groups for column in group[1]))


def _chunk(stored: mmap.mmap, column: dict[int, Any]) -> Chunk:
    if 1 in column:
        raise ValueError("a column lies in another file")
    about = column[3]
    name = tuple(part.decode() for part in about[3])
    values = size = 0
    for header in _pages(stored, about):
        # of a data page in version 1, a dictionary, a data page in version 2
        count = max(header[number][1] for number in (5, 7, 8) if number in header)
        if count < 0 or header[2] < 0:
            raise ValueError(f"a page of column {name[0]!r} has {count} values in {header[2]} bytes")
        values, size = values + count, size + header[2]
    return Chunk(name, values, size)


def _pages(stored: mmap.mmap, about: dict[int, Any]) -> Iterator[dict[int, Any]]:
    """The headers of a chunk's pages, one behind the other's content."""
    position = min(about[9], about.get(11) or about[9])
    end = position + about[7]
    if not 0 <= position <= end <= len(stored):
        raise ValueError(f"a column lies at bytes {position} to {end} of {len(stored)}")
    while position < end:
        reader = _Reader(stored, position)
        header = reader.structure()
        if 5 in header or 7 in header or 8 in header:
            yield header
        if header[3] < 0:
            raise ValueError(f"a page has {header[3]} bytes")
        position = reader.position + header[3]


class _Reader:
    """Values of the compact protocol, one behind the other."""

    def __init__(self, stored: mmap.mmap, position: int) -> None:
        self._stored, self.position = stored, position

    def structure(self, depth: int = 0) -> dict[int, Any]:
        """Its fields by number."""
        if depth > _DEEPEST:
            raise ValueError("structures are nested too deep")
        found: dict[int, Any] = {}
        number = 0
        while byte := self._byte():
            step, kind = byte >> 4, byte & 15
            number = number + step if step else self._signed()
            # a field that is true or false says so by its type
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind == 12:
            return self.structure(depth + 1)
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 8:
            return self._bytes(self._varint())
        if kind in (9, 10):
            byte = self._byte()
            length = self._varint() if byte >> 4 == 15 else byte >> 4
            self._require(length)
            return [self._value(byte & 15, depth + 1) for _ in range(length)]
        if kind in (1, 2, 3):
            return self._byte()
        if kind == 7:
            return self._bytes(8)
        raise ValueError(f"a value has type {kind}")

    def _byte(self) -> int:
        self._require(1)
        self.position += 1
        return self._stored[self.position - 1]

    def _bytes(self, length: int) -> bytes:
        self._require(length)
        self.position += length
        return self._stored[self.position - length : self.position]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number has more than 64 bits")
        return value | byte << shift

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _require(self, length: int) -> None:
        if length > len(self._stored) - self.position:
            raise ValueError("it ends too early")
