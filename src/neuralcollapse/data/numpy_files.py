"""Arrays of .npy and .npz files, memory-mapped where they lie; pickled content is never read."""

from __future__ import annotations

import math
import os
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from neuralcollapse._errors import InputError
from neuralcollapse._files import readable, shortened
from neuralcollapse.data.binary_files import machine_memory

_CHUNK = 1 << 20
# Of the header before a member of a zip file: the lengths of its name and of its extra field.
_LOCAL_HEADER = struct.Struct("<26x2H")
# Of the end of the directory of a zip file: the number of members.
_DIRECTORY_END = struct.Struct("<10xH10x")
_MANY_MEMBERS = 0xFFFF  # stands there when the number does not fit

NumpyArrays = dict[str, Callable[[], np.ndarray[Any, Any]]]
"""The arrays of a file by name, each opened when it is called for."""


def npy_arrays(path: Path, name: str) -> NumpyArrays:
    """The array of an .npy file, which has no name of its own, as `name`."""
    return {name: partial(_map, path, name, 0, path.stat().st_size)}


def npz_arrays(path: Path) -> NumpyArrays:
    """The arrays of an .npz file by name: stored members are mapped, compressed ones are read whole.

    The checksum of a member is compared when it is opened.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    with _readable(path), path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            archive.open(info).close()  # raises where the directory and the member's own header differ
            if info.filename in members:
                raise ValueError(f"{info.filename!r} is there twice")
            members[info.filename] = info
        file.seek(-_DIRECTORY_END.size - len(archive.comment), os.SEEK_END)
        (announced,) = _DIRECTORY_END.unpack(file.read(_DIRECTORY_END.size))
        if announced not in (len(members), _MANY_MEMBERS):
            raise ValueError(f"{announced} members are announced where {len(members)} are")
    names = [name.removesuffix(".npy") for name in members if name.endswith(".npy")]
    return {name: partial(_open_member, path, name, members[f"{name}.npy"]) for name in names}


def _open_member(path: Path, name: str, info: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
    stored = info.compress_type == zipfile.ZIP_STORED
    if not stored and info.file_size > (there := machine_memory()):
        sizes = f"this machine's {there / 2**30:.1f} GiB, got {info.file_size / 2**30:.1f} GiB"
        raise InputError(f"{path}: expected {name} that fits in {sizes}")
    with _readable(path), path.open("rb") as file, zipfile.ZipFile(file) as archive, archive.open(info) as member:
        if not stored:
            shape, fortran, dtype = _read_header(path, name, member, info.file_size)
        content = bytearray()
        while chunk := member.read(_CHUNK):  # to the end, where zipfile compares the checksum
            if not stored:
                content += chunk
        if not stored:
            return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
        file.seek(info.header_offset)
        start = info.header_offset + 30 + sum(_LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size)))
    return _map(path, name, start, info.file_size)


def _map(path: Path, name: str, start: int, size: int) -> np.ndarray[Any, Any]:
    """The array whose .npy file of `size` bytes begins at byte `start` of `path`."""
    with _readable(path), path.open("rb") as file:
        file.seek(start)
        shape, fortran, dtype = _read_header(path, name, file, size)
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")  # type: ignore[call-overload, no-any-return]


def _read_header(path: Path, name: str, file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is in Fortran's order, and type of an .npy of `size` bytes, which must be just as many."""
    begin = file.tell()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's parser, and of headers that Python 2 wrote
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            shape, fortran, dtype = read(file)
        except MemoryError:  # Python's parser, about deeply nested text
            raise ValueError(f"the header of {name} is not a dictionary") from None
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        what = "pickled objects, which are never read" if dtype.hasobject else f"type {shortened(str(dtype), 40)}"
        raise InputError(f"{path}: expected numeric {name}, got {what}")
    needed, there = math.prod(shape) * dtype.itemsize, size - (file.tell() - begin)
    if needed != there:
        raise ValueError(f"{name} of shape {shape} takes {needed:,} bytes where {max(there, 0):,} are")
    return shape, fortran, dtype


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    with readable(path, f"{path.suffix} file", "; was it written completely?"):
        try:
            yield
        except MemoryError as error:
            raise InputError(f"{path}: its compressed arrays do not fit in memory; save them by numpy.savez") from error
