"""Arrays of .npy and .npz files, mapped where they lie; nothing that is pickled is ever read."""

from __future__ import annotations

import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.files.rows import ArrayRows, first_line, require_memory

_ENCRYPTED = 1
# Of the header before a member of a zip file: signature, version, flags, compression, 16 bytes, two lengths.
_LOCAL_HEADER = struct.Struct("<4s2x2H16x2H")
# Of the end of its directory: the number of members.
_MEMBERS = struct.Struct("<10xH10x")
_MANY_MEMBERS = 0xFFFF  # what stands there when the number does not fit
_CHUNK = 1 << 20
# The dictionary in the header of an .npy file, read without Python's parser: a bracket that does not close, or a
# number of a thousand digits, is then as wrong as any other text.
_LARGEST_HEADER = 10_000
_FIELD = re.compile(r"'(descr|fortran_order|shape)'\s*:\s*('[^']*'|\[[^:]*\]|True|False|\([0-9L,\s]*\))\s*,?\s*")
_SHAPE = re.compile(r"\(\s*((?:[0-9]{1,18}L?\s*,\s*)*)([0-9]{1,18}L?\s*)?\)")
_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")

NumpyArrays = dict[str, Callable[[], ArrayRows]]
"""The arrays of a file by name, each opened when it is called for."""


def npy_arrays(path: Path, name: str) -> NumpyArrays:
    """The array of an .npy, which has no name of its own, as ``name``."""
    return {name: partial(_map, path, name, 0, path.stat().st_size)}


def npz_arrays(path: Path) -> NumpyArrays:
    """The arrays of an .npz by name: stored members are mapped, compressed ones read whole.

    Every member is stored with a checksum, and each is compared with it when it is opened.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    with _readable(path, ".npz"), path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            _local_header(file, info)
            if info.filename in members:
                raise ValueError(f"{info.filename!r} is there twice")
            members[info.filename] = info
        _require_all(file, archive, len(members))
    names = [name for name in members if name.endswith(".npy")]
    return {name.removesuffix(".npy"): partial(_open_member, path, members[name]) for name in names}


def _local_header(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where a member's content begins, once its own header is seen to say the same as the directory."""
    file.seek(info.header_offset)
    signature, flags, compression, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if signature != b"PK\3\4":
        raise ValueError(f"{info.filename!r} does not begin where the directory says")
    name = file.read(name_length).decode("utf-8" if flags & 0x800 else "cp437")
    if (name, flags, compression) != (info.orig_filename, info.flag_bits, info.compress_type):
        raise ValueError(f"the directory and the header of {info.filename!r} differ")
    return file.tell() + int(extra_length)


def _require_all(file: IO[bytes], archive: zipfile.ZipFile, members: int) -> None:
    """Raise where the directory of a zip file announces more members than there are."""
    file.seek(-_MEMBERS.size - len(archive.comment), 2)
    (announced,) = _MEMBERS.unpack(file.read(_MEMBERS.size))
    if announced not in (members, _MANY_MEMBERS):
        raise ValueError(f"{announced} members are announced, {members} are there")


def _open_member(path: Path, info: zipfile.ZipInfo) -> ArrayRows:
    name = info.filename.removesuffix(".npy")
    if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & _ENCRYPTED:
        with _readable(path, ".npz"), path.open("rb") as file:
            start = _local_header(file, info)
            file.seek(start)
            _require_checksum(file, info)
        return _map(path, name, start, info.file_size)
    require_memory(path, name, info.file_size)
    with _readable(path, ".npz"), zipfile.ZipFile(path) as archive, archive.open(info) as member:
        shape, fortran, dtype = _header(path, name, member, info.file_size)
        content = bytearray()
        while chunk := member.read(_CHUNK):  # to the end, where the checksum is compared
            content += chunk
        return ArrayRows(np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C"))


def _require_checksum(file: IO[bytes], info: zipfile.ZipInfo) -> None:
    found, left = 0, info.file_size
    while left and (chunk := file.read(min(_CHUNK, left))):
        found = zlib.crc32(chunk, found)
        left -= len(chunk)
    if left or found != info.CRC:
        raise ValueError(f"the content of {info.filename!r} is not what its checksum says")


def _map(path: Path, name: str, start: int, size: int) -> ArrayRows:
    """The array whose .npy file of ``size`` bytes begins at byte ``start`` of ``path``."""
    with _readable(path, path.suffix), path.open("rb") as file:
        file.seek(start)
        shape, fortran, dtype = _header(path, name, file, size)
        if 0 in shape:
            return ArrayRows(np.empty(shape, dtype))
        order = "F" if fortran else "C"
        return ArrayRows(np.memmap(path, dtype, "r", file.tell(), shape, order))  # type: ignore[call-overload]


def _header(path: Path, name: str, file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type that a .npy says it holds, once the rest of its ``size`` bytes is seen to be just that."""
    begin = file.read(8)
    if begin[:6] != b"\x93NUMPY" or begin[6:] not in (b"\1\0", b"\2\0", b"\3\0"):
        raise ValueError(f"{name} does not begin as an .npy of numbers does")
    (length,) = struct.unpack("<H", file.read(2)) if begin[6] == 1 else struct.unpack("<I", file.read(4))
    if length > _LARGEST_HEADER:
        raise ValueError(f"{name} has a header of {length:,} bytes")
    text = file.read(length).decode("utf-8" if begin[6] == 3 else "latin-1")
    fields = dict(_FIELD.findall(text))
    if len(fields) != 3 or not re.fullmatch(r"\{\s*\}\s*", _FIELD.sub("", text)):
        raise ValueError(f"{name} has the header {text[:80]!r}")
    descr, shaped = fields["descr"].strip("'"), _SHAPE.fullmatch(fields["shape"])
    if not _NUMBERS.fullmatch(descr):
        what = "pickled objects, which are never read" if "O" in descr else f"type {descr[:40]!r}"
        raise InputError(f"{path}: expected numeric {name}, got {what}")
    if not shaped or fields["fortran_order"] not in ("True", "False"):
        raise ValueError(f"{name} has the header {text[:80]!r}")
    shape = tuple(int(number) for number in re.findall("[0-9]+", shaped[0]))
    dtype = np.dtype(descr)
    needed, there = math.prod(shape) * dtype.itemsize, size - 8 - (2 if begin[6] == 1 else 4) - length
    if needed != there:
        raise ValueError(f"{name} of shape {shape} takes {needed:,} bytes, {max(there, 0):,} are there")
    return shape, fields["fortran_order"] == "True", dtype


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    """Say what is wrong with a file in one sentence."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: its compressed arrays do not fit in memory; save them with numpy.savez") from error
    except Exception as error:  # zipfile and what unpacks for it raise whatever the damaged bytes led them to
        raise InputError(f"{path} is no readable {kind}: {first_line(error)}; was it written completely?") from error
