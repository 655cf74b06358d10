"""The sizes that a Parquet file announces, read without Arrow.

Arrow takes as much memory as a file announces, which may be gigabytes for a page of a few bytes, and is ended by some
contradictions in the metadata. So the sizes are checked first. The metadata are in Thrift's compact protocol
(github.com/apache/thrift, doc/specs/thrift-compact-protocol.md); parquet.thrift in github.com/apache/parquet-format
says what the numbers of their fields mean.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

_DEEPEST = 16  # levels of structures in structures; the metadata have seven
_MAGIC = b"PAR1"


class Chunk(NamedTuple):
    """One column of one row group.

    Args:
        path: its names, from the outside in.
        values: the numbers in its pages, those of its dictionary too.
        size: their uncompressed bytes.
        entries: the numbers in its pages of data: one for each row, or for each entry of its lists.
    """

    path: tuple[str, ...]
    values: int
    size: int
    entries: int


class Sizes(NamedTuple):
    """The rows of each row group, and every chunk in them."""

    rows: tuple[int, ...]
    chunks: tuple[Chunk, ...]


def read_sizes(path: Path) -> Sizes:
    """The sizes in a file, from its metadata and the headers of its pages.

    Raises:
        ValueError: sizes that contradict one another.
        Exception: damaged metadata; of any type.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stored:
        (length,) = struct.unpack("<I", stored[-8:-4])
        start = len(stored) - 8 - length
        if stored[-4:] != _MAGIC or start < len(_MAGIC):
            raise ValueError("it does not end as a Parquet file does")
        metadata = _Thrift(stored, start).structure()
        groups = metadata.get(4, [])
        rows = tuple(group[3] for group in groups)
        if min(rows, default=0) < 0 or sum(rows) != metadata[3]:
            raise ValueError(f"{metadata[3]} rows are announced where {sum(rows)} are in the groups")
        return Sizes(rows, tuple(_read_chunk(stored, column) for group in groups for column in group[1]))


def _read_chunk(stored: mmap.mmap, column: dict[int, Any]) -> Chunk:
    """Add up the pages of a chunk, which lie one behind the other: each is a header and then its content."""
    if 1 in column:
        raise ValueError("a column lies in another file")
    metadata = column[3]
    name = tuple(part.decode() for part in metadata[3])
    position = min(metadata[9], metadata.get(11) or metadata[9])
    end = position + metadata[7]
    if not 0 <= position <= end <= len(stored):
        raise ValueError(f"a column lies at bytes {position} to {end} of {len(stored)}")
    values = size = entries = 0
    while position < end:
        reader = _Thrift(stored, position)
        header = reader.structure()
        if header[3] < 0:
            raise ValueError(f"a page has {header[3]} bytes")
        position = reader.position + header[3]
        # a data page of version 1, a dictionary, a data page of version 2; other pages have no numbers
        if counts := [header[number][1] for number in (5, 7, 8) if number in header]:
            if max(counts) < 0 or header[2] < 0:
                raise ValueError(f"a page of column {name[0]!r} has {max(counts)} values in {header[2]} bytes")
            values, size = values + max(counts), size + header[2]
            entries += 0 if 7 in header else max(counts)
    return Chunk(name, values, size, entries)


class _Thrift:
    """A reader of values in the compact protocol, one behind the other."""

    def __init__(self, stored: mmap.mmap, position: int) -> None:
        self._stored, self.position = stored, position

    def structure(self, depth: int = 0) -> dict[int, Any]:
        """The fields of a structure by number."""
        if depth > _DEEPEST:
            raise ValueError("structures are nested too deep")
        found: dict[int, Any] = {}
        number = 0
        while byte := self._bytes(1)[0]:
            step, kind = byte >> 4, byte & 15
            number = number + step if step else self._integer()
            # the type of a field that is true or false is its value
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2, 3):
            return self._bytes(1)[0]
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._unsigned())
        if kind in (9, 10):
            byte = self._bytes(1)[0]
            length = self._unsigned() if byte >> 4 == 15 else byte >> 4
            self._require(length)
            return [self._value(byte & 15, depth + 1) for _ in range(length)]
        if kind == 12:
            return self.structure(depth + 1)
        raise ValueError(f"a value has type {kind}")

    def _bytes(self, length: int) -> bytes:
        self._require(length)
        self.position += length
        return self._stored[self.position - length : self.position]

    def _unsigned(self) -> int:
        value = shift = 0
        while (byte := self._bytes(1)[0]) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a number has more than 64 bits")
        return value | byte << shift

    def _integer(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def _require(self, length: int) -> None:
        if length > len(self._stored) - self.position:
            raise ValueError("it ends too early")
