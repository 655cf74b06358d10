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
from neuralcollapse.data.dataset import HALVES, LARGEST_SIDE, Array, Split, printable

LARGEST_SET = 8 << 30
"""Bytes of one half's pixels in memory."""
_ENDINGS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"),
}
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")  # some others that Pillow knows start a program
_LIMIT = f"at most {LARGEST_SIDE} pixels a side"
_LARGEST_IMAGE = 16 << 20  # bytes of an image's file, more than one of the largest side needs in any format

Read = Callable[[], bytes]
_Image = tuple[tuple[str, str], str, Read]  # the order, the name for messages, and what gives the content


def read_folder(path: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """The training half, the test half and the class names, in alphabetical order; images are decoded when asked for.

    Classes and images are those of torchvision's `ImageFolder` in the same order, with every ending that Pillow reads
    safely. Hidden files and folders, files that are not images and links to no file are left out, with a warning that
    counts and names them.

    Raises:
        InputError: no train/ and test/ with one folder per class, a class without images, a damaged archive, or, when
            images are read, one that is damaged, too large, or of another size than the first.
    """
    found = _Images()
    (_scan_archive if is_archive(path) else _scan_directory)(path, found)
    left_out = found.left_out()
    for half in HALVES:
        if not found.classes[half]:
            raise InputError(
                f"{path} is not split into train/ and test/: expected train/<class>/<image> and test/<class>/<image> "
                f"in it, got no image under {half}/"
            )
        if empty := [name for name, images in sorted(found.classes[half].items()) if not images]:
            raise InputError(
                f"{path}: expected images in every class, {half}/{empty[0]} has none: add some or remove that folder"
                + (f"; left out: {left_out}" if left_out else "")
            )
    names = tuple(sorted(found.classes["train"]))
    if len(names) < 2:
        raise InputError(f"{path}: expected at least two classes in train/, got only {names[0]}")
    if unknown := sorted(found.classes["test"].keys() - set(names)):
        raise InputError(f"{path}: test/ has classes that train/ has not: {', '.join(unknown[:5])}")
    if left_out:
        # always from this line, so that Python shows it once where an archive is opened as one data set, then another
        warnings.warn(printable(f"{path}: left out {left_out}"), UserWarning, stacklevel=1)
    decoder = _Decoder()
    train, test = (_split(found.classes[half], names, decoder) for half in HALVES)
    return train, test, names


class _Images:
    """The images found in a folder or an archive, and what is left out.

    `classes` has the images of each class of each half.
    """

    def __init__(self) -> None:
        self.classes: dict[str, dict[str, list[_Image]]] = {half: {} for half in HALVES}
        self._left_out: dict[str, list[str]] = {}

    def add(self, location: tuple[str, ...], title: str, read: Read | None) -> None:
        """Add a file at half/class/…, called `title` in messages; `read` is None for a link to no file."""
        if len(location) > 2 and not location[1].startswith("."):
            self.classes[location[0]].setdefault(location[1], [])
        if any(name.startswith(".") for name in location):
            if _is_image(location[-1]):  # other hidden files are the system's own, and say nothing about the data
                self.leave_out("hidden", location)
        elif read is None:
            self.leave_out("leading to no file", location)
        elif not _is_image(location[-1]):
            self.leave_out("without the ending of an image", location)
        elif len(location) < 3:
            self.leave_out("in no folder of a class", location)
        else:
            order = ("/".join(location[2:-1]), location[-1])  # as in torchvision's ImageFolder: by folder, then by file
            self.classes[location[0]][location[1]].append((order, title, read))

    def add_folder(self, location: tuple[str, ...]) -> bool:
        """Add a folder at half/class/…, whose class must then have images; returns whether to look into the folder."""
        if any(name.startswith(".") for name in location):
            self.leave_out("hidden", location)
            return False
        if len(location) > 1:
            self.classes[location[0]].setdefault(location[1], [])
        return True

    def leave_out(self, reason: str, location: tuple[str, ...]) -> None:
        """Record a file or a whole folder that is not read."""
        self._left_out.setdefault(reason, []).append("/".join(location))

    def left_out(self) -> str:
        """How many files and folders were left out for each reason, with one of their names; empty if none were."""
        return ", ".join(
            f"{len(names):,} {reason} ({names[0]}{', …' if len(names) > 1 else ''})"
            for reason, names in sorted(self._left_out.items())
        )


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _ENDINGS


def _scan_directory(path: Path, found: _Images) -> None:
    def scan(folder: Path, location: tuple[str, ...], above: tuple[tuple[int, int], ...]) -> None:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return found.leave_out("leading back to a folder above", location)
        for name in sorted(os.listdir(folder)):
            inner, file = (*location, name), folder / name
            if os.path.isfile(file):
                found.add(inner, str(file), partial(_read_file, file))
            elif not os.path.isdir(file):
                found.add(inner, str(file), None)
            elif found.add_folder(inner):
                scan(file, inner, (*above, identity))

    for half in HALVES:
        if (path / half).is_dir():
            try:
                scan(path / half, (half,), ())
            except RecursionError:
                raise InputError(f"{path}: expected folders a few levels deep, got hundreds") from None
            except OSError as error:
                raise InputError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


def _read_file(file: Path) -> bytes:
    with file.open("rb") as opened:
        content = opened.read(_LARGEST_IMAGE + 1)
    if len(content) > _LARGEST_IMAGE:
        raise InputError(f"{file} has more than {_LARGEST_IMAGE >> 20} MiB; make the image smaller")
    return content


def _scan_archive(path: Path, found: _Images) -> None:
    files, folders = read_archive(path, _is_image, _LARGEST_IMAGE)
    top = _top_folder(path, [*files, *folders])
    for name in dict.fromkeys((*folders, *files)):
        location = name[len(top) :]
        if name[: len(top)] != top or not location or location[0] not in HALVES:
            continue
        if name in files:
            content = files[name]
            found.add(location, f"{path}: {'/'.join(name)}", None if content is None else partial(bytes, content))
        else:
            found.add_folder(location)


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


def _split(classes: dict[str, list[_Image]], names: tuple[str, ...], decoder: _Decoder) -> Split:
    groups = [sorted(classes.get(name, []), key=lambda image: image[0]) for name in names]
    images = [image for group in groups for image in group]
    labels = np.repeat(np.arange(len(groups), dtype=np.int64), [len(group) for group in groups])

    def read(chosen: Array) -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about pictures that are refused below anyway
            decoded = [decoder.decode(*images[int(index)][1:], len(chosen)) for index in chosen]
        channels = max(len(each) for each in decoded)
        return np.stack([np.broadcast_to(each, (channels, *each.shape[1:])) for each in decoded])

    return Split(labels, read)


class _Decoder:
    """Decodes images to uint8 (1 or 3, height, width), all of which must have the size of the first."""

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
            raise InputError(f"{name}: expected an image of {_LIMIT}, got millions of pixels") from error
        except Exception as error:  # Pillow raises errors of any type for damaged bytes
            reason = type(error).__name__
            raise InputError(f"{name} is damaged or not an image ({reason}); replace or remove it") from error
        return pixels[None] if gray else pixels.transpose(2, 0, 1)

    def _check(self, name: str, size: tuple[int, int], mode: str, total: int) -> None:
        here = f"{size[0]} × {size[1]} pixels"
        if max(size) > LARGEST_SIDE:
            raise InputError(f"{name}: expected an image of {_LIMIT}, got {here}; make the images smaller")
        if mode.startswith(("I", "F")):
            raise InputError(f"{name} has pixels of more than 8 bits (mode {mode}); convert it to 8 bits")
        if 3 * total * size[0] * size[1] > LARGEST_SET:
            raise InputError(f"{total:,} images of {here} do not fit in memory; make them fewer or smaller")
        first, expected = self._first = self._first or (name, size)
        if size != expected:
            shape = f"{expected[0]} × {expected[1]}"
            raise InputError(f"{name}: expected images of one size, {shape} as {first} has, got {here}")
