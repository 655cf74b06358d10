"""Images in folders by class, in a directory or a tar archive: train/<class>/<file> and test/<class>/<file>."""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from neuralcollapse._checks import InputError
from neuralcollapse.lab.datasets.types import Array, Split

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm"}
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_LARGEST_SIDE = 512
"""Networks here are for small images; a larger one is more likely the wrong folder."""
_LARGEST_ARCHIVE = 16 << 30

Files = dict[tuple[str, str], list[tuple[str, Callable[[], bytes]]]]
"""(half, class) → the files' names and how to read each."""


def is_archive(path: Path) -> bool:
    """Whether the name is that of a tar archive."""
    return path.is_file() and path.name.endswith(_ARCHIVES)


def read_folder(path: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """The training half, the test half and the class names, in alphabetical order.

    Raises:
        InputError: no train/ and test/ with one folder per class, a damaged archive, or, when images are read, one that
            is damaged, too large, or of another size than the first.
    """
    files = _archived(path) if is_archive(path) else _on_disk(path)
    halves = {half: tuple(sorted(name for part, name in files if part == half)) for half in ("train", "test")}
    for half, names in halves.items():
        if not names:
            raise InputError(f"{path}: expected {half}/<class>/<image> in it, found none; sort the images that way")
    if len(halves["train"]) < 2:
        raise InputError(f"{path}: expected at least two classes in train/, found {len(halves['train'])}")
    if unknown := sorted(set(halves["test"]) - set(halves["train"])):
        raise InputError(f"{path}: test/ has classes that train/ has not: {', '.join(unknown[:5])}")
    names = halves["train"]
    reader = _ImageReader(path)
    return reader.split(files, "train", names), reader.split(files, "test", names), names


def _on_disk(path: Path) -> Files:
    files: Files = {}
    for half in ("train", "test"):
        for file in sorted((path / half).glob("*/*")):
            if file.suffix.lower() in _IMAGES and file.is_file():
                files.setdefault((half, file.parent.name), []).append((str(file), file.read_bytes))
    return files


def _archived(path: Path) -> Files:
    """Read every image's bytes in one pass; nothing is extracted, no name in the archive becomes a path."""
    files: Files = {}
    size = 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts[-3:]
                if not member.isfile() or len(parts) < 3 or PurePosixPath(parts[2]).suffix.lower() not in _IMAGES:
                    continue
                half, name, _ = parts
                size += member.size
                if size > _LARGEST_ARCHIVE:
                    raise InputError(f"{path} holds more than {_LARGEST_ARCHIVE >> 30} GiB of images; extract it first")
                content = archive.extractfile(member)
                if half in ("train", "test") and content is not None:
                    files.setdefault((half, name), []).append((f"{path}: {member.name}", _constant(content.read())))
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path} is damaged or incomplete ({error}); fetch it again") from error
    for entries in files.values():
        entries.sort(key=lambda entry: entry[0])
    return files


def _constant(content: bytes) -> Callable[[], bytes]:
    return lambda: content


class _ImageReader:
    """Decodes images; all must have the size and the channels of the first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mode: str | None = None
        self._size: tuple[int, int] | None = None
        self._first = ""

    def split(self, files: Files, half: str, class_names: tuple[str, ...]) -> Split:
        entries = [entry for name in class_names for entry in files.get((half, name), [])]
        labels = [label for label, name in enumerate(class_names) for _ in files.get((half, name), [])]

        def read(chosen: Array) -> Array:
            return np.stack([self._decode(*entries[index]) for index in chosen])

        return Split(np.array(labels, dtype=np.int64), read)

    def _decode(self, name: str, content: Callable[[], bytes]) -> Array:
        try:
            with Image.open(io.BytesIO(content())) as image:
                if max(image.size) > _LARGEST_SIDE:
                    raise InputError(
                        f"{name} has {image.size[0]}×{image.size[1]} pixels, more than {_LARGEST_SIDE} a side"
                    )
                if self._size is None:
                    self._mode = "L" if image.mode in ("1", "L", "I;16") else "RGB"
                    self._size, self._first = image.size, name
                if image.size != self._size:
                    here, first = ("×".join(map(str, size)) for size in (image.size, self._size))
                    raise InputError(
                        f"{name} has {here} pixels, {self._first} has {first}; all images must be of one size"
                    )
                pixels = np.asarray(image.convert(self._mode), dtype=np.uint8)
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{name} is no readable image ({type(error).__name__})") from error
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
