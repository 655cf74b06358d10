"""The images in a tar archive, read in one pass: nothing is extracted, no name in it becomes a path."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from neuralcollapse._checks import InputError
from neuralcollapse.data.files import opened

_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_BLOCK = tarfile.BLOCKSIZE
_LARGEST_HEADER = 128 << 10  # bytes; a long name has a few thousand
_MOST_LINKS = 40  # one after the other, as Linux follows them
# Images hardly shrink, so that an archive that unpacks to far more than it has is none of images.
_LARGEST_RATIO, _RATIO_FROM, _LARGEST = 200, 256 << 20, 8 << 30

Name = tuple[str, ...]
"""The parts of a path in an archive."""


@dataclass(frozen=True)
class Archive:
    """What is in an archive.

    Args:
        files: each file and, where it was wanted, its content, else an empty one; None for a link to no file.
        folders: the folders.
    """

    files: dict[Name, bytes | None]
    folders: list[Name]


def is_archive(path: Path) -> bool:
    """Whether the path is a file named like a tar archive."""
    return path.name.endswith(_ENDINGS) and path.is_file()


def read_archive(path: Path, wanted: Callable[[str], bool], largest: int) -> Archive:
    """Read a whole archive; of two members with one name the later counts, as it does when an archive is extracted.

    Args:
        wanted: whether a file of that name is to be read.
        largest: bytes of such a file at most.

    Raises:
        InputError: a damaged archive, or one that takes more memory than its size lets expect.
    """
    files: dict[Name, bytes | None] = {}
    folders: list[Name] = []
    links: dict[Name, Name] = {}
    try:
        with opened(path) as unpacked:
            file = _Bounded(path, unpacked)
            with tarfile.open(fileobj=file, mode="r:", errorlevel=1) as archive:
                for member in archive:
                    archive.members.clear()  # type: ignore[attr-defined]  # else it keeps the header of each
                    name = _name(member.name)
                    if name is None:
                        continue
                    for other in (links, files):
                        other.pop(name, None)
                    if member.isdir():
                        folders.append(name)
                    elif member.issym() or member.islnk():
                        target = member.linkname
                        if member.issym() and not target.startswith("/"):
                            target = "/".join([*name[:-1], target])
                        links[name] = _name(target) or ()
                    elif not member.isfile():
                        files[name] = None
                    elif not wanted(member.name):
                        files[name] = b""
                    elif member.issparse() or member.size > largest:
                        what = "is stored as sparse" if member.issparse() else f"has {member.size:,} bytes"
                        raise InputError(f"{path}: {member.name} {what}, expected a plain file of at most {largest:,}")
                    else:
                        files[name] = file.content(member.offset_data, member.size)
                # a damaged header ends the loop as the end does, which zeros mark
                file.seek(archive.offset)
                if file.read(_BLOCK) != bytes(_BLOCK):
                    raise tarfile.ReadError("no mark of its end")
            while file.read(_LARGEST_HEADER):  # to the end, where a packed file has its checksum
                pass
    except InputError:
        raise
    except Exception as error:  # tarfile raises whatever the damaged bytes led it to
        reason = f"{type(error).__name__} in {path.stat().st_size:,} bytes"
        raise InputError(f"{path} is damaged or incomplete ({reason}); fetch it again") from error
    for name, end in links.items():
        for _ in range(_MOST_LINKS):
            end = links.get(end, end)
        files[name] = files.get(end)
    return Archive(files, folders)


def _name(text: str) -> Name | None:
    """The parts of a path, "." and ".." followed; None for one that leads out of the archive, or is its top."""
    parts: list[str] = []
    for part in PurePosixPath(text).parts:
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part != "/":
            parts.append(part)
    return tuple(parts) or None


class _Bounded(io.RawIOBase):
    """An unpacked archive, of which neither too much is read at once nor in all."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file
        self._end = min(_LARGEST, max(_RATIO_FROM, _LARGEST_RATIO * path.stat().st_size))

    def content(self, start: int, size: int) -> bytes:
        """Of a member."""
        self.seek(start)
        self._require(start + size)
        content = self._file.read(size)
        if len(content) < size:
            raise EOFError
        return content

    def read(self, size: int = -1) -> bytes:
        """What tarfile itself reads, which is headers."""
        if not 0 <= size <= _LARGEST_HEADER:
            raise InputError(f"{self._path} has a header of more than {_LARGEST_HEADER:,} bytes; fetch it again")
        self._require(self.tell() + size)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_SET:
            self._require(offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def _require(self, end: int) -> None:
        if end > self._end:
            raise InputError(
                f"{self._path} unpacks to more than {self._end / 2**30:.3g} GiB, which images do not; "
                "extract it and name the folder"
            )
