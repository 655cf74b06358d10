"""Images in folders by class, in a directory or a tar archive: train/<class>/… and test/<class>/…, however deep."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from neuralcollapse._errors import InputError
from neuralcollapse.data.archive import is_archive, read_archive
from neuralcollapse.data.dataset import LARGEST_SIDE, Array, Split, printable

HALVES = ("train", "test")
LARGEST_SET = 8 << 30
"""Bytes of one half's pixels in memory."""
_ENDINGS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"),
}
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")  # some others that Pillow knows start a program
_LARGEST_IMAGE = 16 << 20  # bytes of an image's file, more than one of the largest side needs in any format

Read = Callable[[], bytes]


def read_folder(path: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """The training half, the test half and the class names, in alphabetical order; images are decoded when asked for.

    Classes and images are those of torchvision's `ImageFolder` in the same order, with every ending that Pillow reads
    safely. Hidden files and folders, files that are not images and links to no file are left out, with a warning that
    counts and names them.

    Raises:
        InputError: no train/ and test/ with one folder per class, a class without images, a damaged archive, or, when
            images are read, one that is damaged, too large, or of another size than the first.
    """
    found = _ImageFolders(path)
    if is_archive(path):
        _scan_archive(path, found)
    else:
        _scan_directory(path, found)
    train, test = (found.classes(half) for half in HALVES)
    for half, names in zip(HALVES, (train, test), strict=True):
        if not names:
            raise InputError(
                f"{path} is not split into train/ and test/: expected train/<class>/<image> and test/<class>/<image> "
                f"in it, found no image under {half}/"
            )
    if len(train) < 2:
        raise InputError(f"{path}: expected at least two classes in train/, found only {train[0]}")
    if unknown := sorted(set(test) - set(train)):
        raise InputError(f"{path}: test/ has classes that train/ has not: {', '.join(unknown[:5])}")
    if left_out := found.left_out():
        # always from this line, so that Python shows it once where an archive is opened as one data set, then another
        warnings.warn(printable(f"{path}: left out {left_out}"), UserWarning, stacklevel=1)
    decoder = _Decoder()
    return _split(found, "train", train, decoder), _split(found, "test", train, decoder), train


class _ImageFolders:
    """The images of each class in a folder or an archive, and what is left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._images: dict[tuple[str, str], list[tuple[tuple[str, str], str, Read]]] = {}
        self._left_out: dict[str, list[str]] = {}

    def add_class(self, half: str, name: str) -> None:
        """A folder of a class, which must then have images."""
        self._images.setdefault((half, name), [])

    def add(self, parts: tuple[str, ...], name: str, read: Read | None) -> None:
        """A file at half/class/…, called `name` in messages; `read` is None for a link to no file."""
        if len(parts) > 2 and not parts[1].startswith("."):
            self.add_class(*parts[:2])
        image = _is_image(parts[-1])
        if any(part.startswith(".") for part in parts):
            if image:  # other hidden files are the system's own, and say nothing about the data
                self.leave_out("hidden", parts)
        elif read is None:
            self.leave_out("leading to no file", parts)
        elif not image:
            self.leave_out("without the ending of an image", parts)
        elif len(parts) < 3:
            self.leave_out("in no folder of a class", parts)
        else:
            order = ("/".join(parts[2:-1]), parts[-1])  # as in torchvision's ImageFolder: by folder, then by file
            self._images[parts[0], parts[1]].append((order, name, read))

    def leave_out(self, reason: str, parts: tuple[str, ...]) -> None:
        """Record a file or a whole folder that is not read."""
        self._left_out.setdefault(reason, []).append("/".join(parts))

    def left_out(self) -> str:
        """How many files and folders were left out for each reason, with one of their names; empty if none were."""
        return ", ".join(
            f"{len(names):,} {reason} ({names[0]}{', …' if len(names) > 1 else ''})"
            for reason, names in sorted(self._left_out.items())
        )

    def classes(self, half: str) -> tuple[str, ...]:
        """Their names in alphabetical order.

        Raises:
            InputError: one has no images.
        """
        names = tuple(sorted(name for part, name in self._images if part == half))
        if empty := [name for name in names if not self._images[half, name]]:
            left_out = f"; left out: {self.left_out()}" if self._left_out else ""
            raise InputError(
                f"{self._path}: expected images in every class, {half}/{empty[0]} has none: add some or remove that "
                f"folder{left_out}"
            )
        return names

    def images(self, half: str, name: str) -> list[tuple[str, Read]]:
        """Name and content of each image of a class, in order."""
        return [(file, read) for _, file, read in sorted(self._images.get((half, name), []), key=lambda each: each[0])]


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _ENDINGS


def _scan_directory(path: Path, found: _ImageFolders) -> None:
    def scan(folder: Path, parts: tuple[str, ...], above: tuple[tuple[int, int], ...]) -> None:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return found.leave_out("leading back to a folder above", parts)
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            inner, file = (*parts, name), folder / name
            if os.path.isfile(file):
                found.add(inner, str(file), partial(_read_file, file))
            elif not os.path.isdir(file):
                found.add(inner, str(file), None)
            elif name.startswith("."):
                found.leave_out("hidden", inner)
            else:
                if len(inner) == 2:
                    found.add_class(*inner)
                scan(file, inner, (*above, identity))

    for half in HALVES:
        if (path / half).is_dir():
            try:
                scan(path / half, (half,), ())
            except RecursionError:
                raise InputError(f"{path}: expected folders a few levels deep, found hundreds") from None
            except OSError as error:
                raise InputError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


def _read_file(file: Path) -> bytes:
    with file.open("rb") as opened:
        content = opened.read(_LARGEST_IMAGE + 1)
    if len(content) > _LARGEST_IMAGE:
        raise InputError(f"{file} has more than {_LARGEST_IMAGE >> 20} MiB; make the image smaller")
    return content


def _scan_archive(path: Path, found: _ImageFolders) -> None:
    archive = read_archive(path, _is_image, _LARGEST_IMAGE)
    top = _top_folder(path, [*archive.files, *archive.folders])
    for name in dict.fromkeys((*archive.folders, *archive.files)):
        parts = name[len(top) :]
        if name[: len(top)] != top or not parts or parts[0] not in HALVES:
            continue
        if name in archive.files:
            content = archive.files[name]
            found.add(parts, f"{path}: {'/'.join(name)}", None if content is None else partial(bytes, content))
        elif any(part.startswith(".") for part in parts):
            found.leave_out("hidden", parts)
        elif len(parts) > 1:
            found.add_class(*parts[:2])


def _top_folder(path: Path, names: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The outermost folder of an archive that has both train/ and test/."""
    above: dict[str, set[tuple[str, ...]]] = {half: set() for half in HALVES}
    for name in names:
        for depth, part in enumerate(name):
            if part in HALVES:
                above[part].add(name[:depth])
    both = sorted(above["train"] & above["test"], key=lambda folder: (len(folder), folder))
    if len(both) > 1 and len(both[0]) == len(both[1]):
        first, second = ("/".join(folder) for folder in both[:2])
        raise InputError(f"{path} holds more than one data set: {first} and {second}; extract it and name one's folder")
    return both[0] if both else ()


def _split(found: _ImageFolders, half: str, class_names: tuple[str, ...], decoder: _Decoder) -> Split:
    groups = [found.images(half, name) for name in class_names]
    entries = [image for group in groups for image in group]
    labels = np.repeat(np.arange(len(groups), dtype=np.int64), [len(group) for group in groups])

    def read(chosen: Array) -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about pictures that are refused below anyway
            images = [decoder.decode(*entries[int(index)], len(chosen)) for index in chosen]
        channels = max(len(image) for image in images)
        return np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in images])

    return Split(labels, read)


class _Decoder:
    """Decodes images to uint8 (1 or 3, height, width); all must have the size of the first."""

    def __init__(self) -> None:
        self._first: tuple[str, tuple[int, int]] | None = None

    def decode(self, name: str, read: Read, total: int) -> Array:
        from PIL import Image

        try:
            content = read()
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
            self._check(name, image.size, image.mode, total)
            if image.format == "PNG":  # whose pixels Pillow decodes without comparing their checksums
                image.verify()
                image = Image.open(io.BytesIO(content), formats=_FORMATS)  # a verified image cannot be decoded
            gray = image.mode in ("1", "L", "LA")
            pixels = np.asarray(image.convert("L" if gray else "RGB"))
        except InputError:
            raise
        except Image.DecompressionBombError as error:
            raise InputError(f"{name} has millions of pixels, expected at most {LARGEST_SIDE} a side") from error
        except Exception as error:  # Pillow raises errors of any type for damaged bytes
            what = f"is damaged or not an image ({type(error).__name__})"
            raise InputError(f"{name} {what}; replace or remove it") from error
        return pixels[None] if gray else pixels.transpose(2, 0, 1)

    def _check(self, name: str, size: tuple[int, int], mode: str, total: int) -> None:
        here = f"{size[0]} × {size[1]} pixels"
        if max(size) > LARGEST_SIDE:
            raise InputError(f"{name} has {here}, expected at most {LARGEST_SIDE} a side; make the images smaller")
        if mode.startswith(("I", "F")):
            raise InputError(f"{name} has pixels of more than 8 bits (mode {mode}); convert it to 8 bits")
        if 3 * total * size[0] * size[1] > LARGEST_SET:
            raise InputError(f"{total:,} images of {here} do not fit in memory; make them fewer or smaller")
        first, expected = self._first = self._first or (name, size)
        if size != expected:
            shape = f"{expected[0]} × {expected[1]}"
            raise InputError(f"{name} has {here}, {first} has {shape}; expected all images in one size")
