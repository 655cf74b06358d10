"""Arrays of .npy and .npz files, mapped where they lie; nothing that is pickled is ever read."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from neuralcollapse._checks import InputError

from .rows import Arrays, Rows, first_line, numeric_rows

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_ENCRYPTED = 1
# Of the header before a member of a zip file: signature, 22 bytes that its directory repeats, two lengths.
_LOCAL_HEADER = struct.Struct("<4s22x2H")


def npy_arrays(path: Path, name: str) -> Arrays:
    """The array of an .npy, which has no name of its own, as ``name``."""
    return {name: partial(_map, path, name, 0, path.stat().st_size)}


def npz_arrays(path: Path) -> Arrays:
    """The arrays of an .npz by name: stored members are mapped, compressed ones read whole."""
    with _readable(path, ".npz"), zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    return {info.filename.removesuffix(".npy"): partial(_open_member, path, info) for info in members}


def _open_member(path: Path, info: zipfile.ZipInfo) -> Rows:
    name = info.filename.removesuffix(".npy")
    if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & _ENCRYPTED:
        with _readable(path, ".npz"), path.open("rb") as file:
            file.seek(info.header_offset)
            signature, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if signature != b"PK\3\4":
                raise ValueError(f"{info.filename} does not begin where the directory says")
        start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        return _map(path, name, start, info.file_size)
    with _readable(path, ".npz"), zipfile.ZipFile(path) as archive:
        with archive.open(info) as member:
            _header(path, name, member, info.file_size)
        with archive.open(info) as member:
            return numeric_rows(path, name, npy.read_array(member, allow_pickle=False))


def _map(path: Path, name: str, start: int, size: int) -> Rows:
    """The array whose .npy file of ``size`` bytes begins at byte ``start`` of ``path``."""
    with _readable(path, path.suffix), path.open("rb") as file:
        file.seek(start)
        shape, fortran, dtype = _header(path, name, file, size)
        if 0 in shape:
            return numeric_rows(path, name, np.empty(shape, dtype))
        order = "F" if fortran else "C"
        mapped = np.memmap(path, dtype, "r", file.tell(), shape, order)  # type: ignore[call-overload]
    return numeric_rows(path, name, mapped)


def _header(path: Path, name: str, file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type that a .npy says it holds, once ``size`` bytes are seen to have room for it."""
    start = file.tell()
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the format is not one of numbers")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise InputError(f"{path}: expected numeric {name}, got pickled objects, which are never read")
    needed, there = math.prod(shape) * dtype.itemsize, size - (file.tell() - start)
    if min(shape, default=0) < 0 or needed > there:
        raise ValueError(f"{name} of shape {shape} takes {needed:,} bytes, {max(there, 0):,} are there")
    return shape, fortran, dtype


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    """Say what is wrong with a file in one sentence."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: its compressed arrays do not fit in memory; save them with numpy.savez") from error
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        OSError,
        ValueError,
        OverflowError,
        NotImplementedError,  # a compression that zipfile does not have
        RuntimeError,  # an encrypted member
    ) as error:
        raise InputError(f"{path} is no readable {kind}: {first_line(error)}; was it written completely?") from error
