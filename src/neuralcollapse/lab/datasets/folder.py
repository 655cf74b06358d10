"""Images in folders by class, in a directory or a tar archive: train/<class>/<file> and test/<class>/<file>."""

from __future__ import annotations

import io
import lzma
import tarfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.lab.datasets.types import Array, Split

_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm"}
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM")  # Pillow knows others, some of which start a program
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_LARGEST_SIDE = 512  # networks here are for small images; a larger one is more likely the wrong folder
_LARGEST_SET = 8 << 30  # bytes of an unpacked archive, or of one half's pixels in memory

Files = dict[tuple[str, str], list[tuple[str, Callable[[], bytes]]]]
"""(half, class) → the files' names and how to read each."""


def is_archive(path: Path) -> bool:
    """Whether the path is a file named like a tar archive."""
    return path.name.endswith(_ARCHIVES) and path.is_file()


def read_folder(path: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """The training half, the test half and the class names, in alphabetical order; images are decoded when asked for.

    Raises:
        InputError: no train/ and test/ with one folder per class, a damaged archive, or, when images are read, one that
            is damaged, too large, or of another size than the first.
    """
    files = _archived(path) if is_archive(path) else _on_disk(path)
    halves = {half: tuple(sorted(name for part, name in files if part == half)) for half in ("train", "test")}
    for half, names in halves.items():
        if not names:
            raise InputError(
                f"{path} is not split into train/ and test/: expected train/<class>/<image> and test/<class>/<image> "
                f"in it, found no image under {half}/"
            )
    if len(halves["train"]) < 2:
        raise InputError(f"{path}: expected at least two classes in train/, found only {halves['train'][0]}")
    if unknown := sorted(set(halves["test"]) - set(halves["train"])):
        raise InputError(f"{path}: test/ has classes that train/ has not: {', '.join(unknown[:5])}")
    names = halves["train"]
    decoder = _Decoder()
    return _split(files, "train", names, decoder), _split(files, "test", names, decoder), names


def _is_image(name: str) -> bool:
    return not name.startswith(".") and PurePosixPath(name).suffix.lower() in _ENDINGS


def _on_disk(path: Path) -> Files:
    files: Files = {}
    for half in ("train", "test"):
        for file in sorted((path / half).glob("*/*")):
            if _is_image(file.name) and file.is_file():
                files.setdefault((half, file.parent.name), []).append((str(file), file.read_bytes))
    return files


def _archived(path: Path) -> Files:
    """Read every image's bytes in one pass; nothing is extracted, no name in the archive becomes a path."""
    files: Files = {}
    size = 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                size += member.size
                if size > _LARGEST_SET:
                    raise InputError(f"{path} holds more than {_LARGEST_SET >> 30} GiB; extract it and name the folder")
                half, name, file = ("", "", *PurePosixPath(member.name).parts)[-3:]
                if half in ("train", "test") and _is_image(file) and (content := archive.extractfile(member)):
                    files.setdefault((half, name), []).append((f"{path}: {member.name}", _constant(content.read())))
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        reason = f"{type(error).__name__} in {path.stat().st_size:,} bytes"
        raise InputError(f"{path} is damaged or incomplete ({reason}); fetch it again") from error
    for entries in files.values():
        entries.sort(key=lambda entry: entry[0])
    return files


def _constant(content: bytes) -> Callable[[], bytes]:
    return lambda: content


def _split(files: Files, half: str, class_names: tuple[str, ...], decoder: _Decoder) -> Split:
    entries = [entry for name in class_names for entry in files.get((half, name), [])]
    labels = [label for label, name in enumerate(class_names) for _ in files.get((half, name), [])]

    def read(chosen: Array) -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about pictures that are refused below anyway
            images = [decoder.decode(name, content, len(chosen)) for name, content in (entries[i] for i in chosen)]
        channels = max(len(image) for image in images)
        return np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in images])

    return Split(np.array(labels, dtype=np.int64), read)


class _Decoder:
    """Decodes images to uint8 (1 or 3, height, width); all must have the size of the first."""

    def __init__(self) -> None:
        self._first: tuple[str, tuple[int, int]] | None = None

    def decode(self, name: str, content: Callable[[], bytes], total: int) -> Array:
        from PIL import Image

        try:
            with Image.open(io.BytesIO(content()), formats=_FORMATS) as image:
                self._check(name, image.size, image.mode, total)
                gray = image.mode in ("1", "L", "LA")
                pixels = np.asarray(image.convert("L" if gray else "RGB"))
        except InputError:
            raise
        except Exception as error:  # Pillow raises whatever the damaged bytes led it to
            raise InputError(f"{name} is damaged or no image ({type(error).__name__}); replace or remove it") from error
        return pixels[None] if gray else pixels.transpose(2, 0, 1)

    def _check(self, name: str, size: tuple[int, int], mode: str, total: int) -> None:
        here = f"{size[0]} × {size[1]} pixels"
        if max(size) > _LARGEST_SIDE:
            raise InputError(f"{name} has {here}, expected at most {_LARGEST_SIDE} a side; make the images smaller")
        if mode.startswith(("I", "F")):
            raise InputError(f"{name} has pixels of more than 8 bits (mode {mode}); convert it to 8 bits")
        if 3 * total * size[0] * size[1] > _LARGEST_SET:
            raise InputError(f"{total:,} images of {here} do not fit in memory; make them fewer or smaller")
        first, expected = self._first = self._first or (name, size)
        if size != expected:
            shape = f"{expected[0]} × {expected[1]}"
            raise InputError(f"{name} has {here}, {first} has {shape}; expected all images in one size")
