"""The images in a tar archive, read in one pass: nothing is extracted, and no name in it is used as a path."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from neuralcollapse._errors import InputError
from neuralcollapse.data.binary_files import opened

_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_LARGEST_HEADER = 128 << 10  # bytes; a long name has a few thousand
_MOST_LINKS = 40  # one after the other, as Linux follows them
# Images hardly compress: an archive that unpacks to far more bytes than it has does not hold images.
LARGEST_UNPACKED, _LARGEST_RATIO, _RATIO_FROM = 8 << 30, 200, 256 << 20

Name = tuple[str, ...]
"""A path in an archive, as the names of its folders and its file."""
Files = dict[Name, bytes | None]
"""The content of each wanted file; of any other file it is empty, of a link to no file None."""


def without_ending(name: str) -> str:
    """The name of an archive without its ending; that of anything else as it is."""
    return next((name.removesuffix(ending) for ending in _ENDINGS if name.endswith(ending)), name)


def is_archive(path: Path) -> bool:
    """Whether the path is a file named like a tar archive."""
    return path.name.endswith(_ENDINGS) and path.is_file()


def read_archive(path: Path, wanted: Callable[[str], bool], largest: int) -> tuple[Files, list[Name]]:
    """Read a whole archive; of two members with one name the later is kept, as when it is extracted.

    Args:
        wanted: whether a file of that name is to be read.
        largest: most bytes of such a file.

    Returns:
        The files and the folders.

    Raises:
        InputError: a damaged archive, or one that unpacks to far more than images of its size do.
    """
    files: Files = {}
    folders: list[Name] = []
    links: dict[Name, Name | None] = {}
    try:
        with opened(path) as unpacked:
            file = _BoundedFile(path, unpacked)
            with tarfile.open(fileobj=file, mode="r:", errorlevel=1) as archive:  # type: ignore[call-overload]
                for member in archive:
                    archive.members.clear()  # type: ignore[attr-defined]  # else it keeps the header of each
                    name = _resolved(member.name)
                    if name is None:
                        continue
                    links.pop(name, None)
                    files.pop(name, None)
                    if member.isdir():
                        folders.append(name)
                    elif member.islnk():
                        links[name] = _resolved(member.linkname)
                    elif member.issym():
                        links[name] = _resolved(str(PurePosixPath(*name[:-1], member.linkname)))
                    elif not member.isfile():
                        files[name] = None
                    elif not wanted(member.name):
                        files[name] = b""
                    elif member.issparse() or member.size > largest:
                        what = "a sparse one" if member.issparse() else f"{member.size:,}"
                        limit = f"a plain file of at most {largest:,} bytes"
                        raise InputError(f"{path}: expected {member.name} to be {limit}, got {what}")
                    else:
                        files[name] = file.content(member.offset_data, member.size)
                # tarfile ends at a damaged header as at the end, which a block of zeros marks
                file.seek(archive.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("no mark of its end")
            while file.read(_LARGEST_HEADER):  # to the end, where a compressed file has its checksum
                pass
    except InputError:
        raise
    except Exception as error:  # tarfile raises errors of any type for damaged bytes
        reason = f"{type(error).__name__} in {path.stat().st_size:,} bytes"
        raise InputError(f"{path} is damaged or incomplete ({reason}); download it again") from error
    for name, target in links.items():
        for _ in range(_MOST_LINKS):
            target = links.get(target, target) if target else None
        files[name] = files.get(target) if target else None
    return files, folders


def _resolved(text: str) -> Name | None:
    """A path without "." and ".."; None for one that leads out of the archive, or is its top folder."""
    names = PurePosixPath(posixpath.normpath(text.lstrip("/"))).parts
    return None if not names or names[0] == ".." else names


class _BoundedFile:
    """An unpacked archive for tarfile, with limits on what is read at once and altogether."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self._end = min(LARGEST_UNPACKED, max(_RATIO_FROM, _LARGEST_RATIO * path.stat().st_size))

    def content(self, start: int, size: int) -> bytes:
        """The content of a member."""
        self.seek(start)
        self._require(start + size)
        content = self._file.read(size)
        if len(content) < size:
            raise EOFError
        return content

    def read(self, size: int) -> bytes:
        """Read for tarfile itself, which asks for headers only."""
        if size > _LARGEST_HEADER:
            raise InputError(f"{self._path} has a header of more than {_LARGEST_HEADER:,} bytes; download it again")
        self._require(self.tell() + size)
        return self._file.read(size)

    def seek(self, offset: int) -> int:
        self._require(offset)
        return self._file.seek(offset)

    def tell(self) -> int:
        return self._file.tell()

    def _require(self, end: int) -> None:
        if end > self._end:
            limit = f"{self._end / 2**30:.3g} GiB, which images do not"
            raise InputError(f"{self._path} unpacks to more than {limit}; extract it and name the folder")
