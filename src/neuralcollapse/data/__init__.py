"""Data sets by name, read into memory as uint8, and the batches made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neuralcollapse._checks import InputError
from neuralcollapse.data.archive import is_archive
from neuralcollapse.data.batches import Batches
from neuralcollapse.data.corruption import Corruption, class_sizes, noisy_labels
from neuralcollapse.data.digits import read_digits
from neuralcollapse.data.folder import read_folder
from neuralcollapse.data.npz import read_npz
from neuralcollapse.data.sources import SOURCES, find
from neuralcollapse.data.types import Array, Dataset, ImageData, Split, fingerprint, pixel_statistics, printable

__all__ = ["Batches", "Corruption", "Dataset", "Found", "ImageData", "available", "fingerprint", "load", "names"]


@dataclass(frozen=True)
class Found:
    """What `available` says of one data set.

    Args:
        name: what `--dataset` takes.
        title: what results from it are called; empty when it was not found.
        path: where it lies, or the first place that was looked at.
        train: training examples of each class.
        test: test examples.
        problem: why it cannot be used; empty when it can.
    """

    name: str
    title: str
    path: str
    train: tuple[int, ...] = ()
    test: int = 0
    problem: str = ""


def names() -> tuple[str, ...]:
    """The names `load` takes."""
    return ("digits", *SOURCES, "folder", "npz")


def load(
    name: str,
    data_dir: Path | None = None,
    examples_per_class: int | None = None,
    seed: int = 0,
    corruption: Corruption | None = None,
    test_examples_per_class: int | None = None,
) -> Dataset:
    """Read a data set.

    Args:
        name: one of `names()`; `folder` and `npz` are one's own data, at `data_dir`.
        data_dir: where to look before NEURALCOLLAPSE_DATA, ./data, ~/data and /usr/share/datasets.
        examples_per_class: balance the training half by taking this many examples of each class, drawn by `seed`;
            None for all.
        seed: of that draw; a class's draw does not depend on the other classes.
        corruption: what is then done to the training half: imbalance, where the largest class has `examples_per_class`,
            or as many as the smallest class on disk; wrong labels.
        test_examples_per_class: the same of the test half, alike for every seed; None, the default, for all of it.

    Raises:
        InputError: an unknown name, missing or damaged data, or fewer examples of a class than asked for.

    >>> data = load("digits", examples_per_class=10)
    >>> tuple(data.train.images.shape), len(data.test.labels)
    ((100, 1, 8, 8), 300)
    """
    title, path, train, test, class_names = _open(name, data_dir)
    corruption = corruption or Corruption()
    chosen = np.arange(len(train.labels))
    if examples_per_class is not None:
        chosen = balanced(train.labels, class_names, examples_per_class, seed)
    if corruption.imbalance is not None:
        largest = int(np.bincount(train.labels[chosen], minlength=len(class_names)).min())
        chosen = _drawn(train.labels, class_sizes(largest, len(class_names), corruption), seed)
    tested = np.arange(len(test.labels))
    if test_examples_per_class is not None:
        tested = balanced(test.labels, class_names, test_examples_per_class, 0, option="--test-examples-per-class")
    with _memory_for(name):
        halves = [_in_memory(train, chosen), _in_memory(test, tested)]
    if corruption.label_noise:
        changed = noisy_labels(train.labels[chosen], len(class_names), corruption.label_noise, seed)
        halves[0] = ImageData(halves[0].images, torch.from_numpy(changed))
    channels, height, width = halves[0].images.shape[1:]
    if halves[1].images.shape[1] != channels:  # gray pictures in one half only
        halves = [ImageData(half.images.expand(-1, 3, height, width).contiguous(), half.labels) for half in halves]
    mean, std = pixel_statistics(halves[0].images)
    return Dataset(name, title, halves[0], halves[1], class_names, mean, std, path)


def available(data_dir: Path | None = None) -> list[Found]:
    """Every data set known by name, and one's own at `data_dir`: where it is, with its counts, or what is wrong.

    Raises:
        InputError: `data_dir` does not exist; never for what is wrong with one of the data sets.
    """
    places = {name: find(name, data_dir) for name in SOURCES}
    result = []
    for name in ("digits", *SOURCES, *_own_kind(data_dir)):
        found, looked = places.get(name, (None, []))
        if name in SOURCES and found is None:
            result.append(Found(name, "", printable(str(looked[0])), problem="not found"))
            continue
        try:
            title, path, train, test, class_names = _open(name, data_dir)
            counts = np.bincount(train.labels, minlength=len(class_names))
            result.append(Found(name, title, printable(path), tuple(counts.tolist()), len(test.labels)))
        except (InputError, OSError) as error:
            path = str(found[1] if found else data_dir)
            result.append(Found(name, "", printable(path), problem=printable(str(error))))
    return result


def balanced(
    labels: Array,
    class_names: tuple[str, ...],
    examples_per_class: int,
    seed: int,
    option: str = "--examples-per-class",
) -> Array:
    """Indices, in stored order, of `examples_per_class` examples of each class; a larger draw contains the smaller.

    An error names the `option` that asked for them.

    Raises:
        InputError: a class has fewer, or the number or the seed is no usable one.
    """
    if examples_per_class < 1 or seed < 0:
        raise InputError(f"expected at least 1 example per class and seed 0 or more, got {examples_per_class}, {seed}")
    for label, name in enumerate(class_names):
        members = np.count_nonzero(labels == label)
        if members < examples_per_class:
            class_name = str(label) if name == str(label) else f"{label} ({name})"
            raise InputError(
                f"{examples_per_class:,} examples of each class were asked for, class {class_name} has "
                f"{members:,}; lower {option}"
            )
    return _drawn(labels, [examples_per_class] * len(class_names), seed)


def _drawn(labels: Array, sizes: Sequence[int], seed: int) -> Array:
    """Indices, in stored order, of as many examples of each class as `sizes` says; each class has them."""
    chosen = []
    for label, size in enumerate(sizes):
        members = np.flatnonzero(labels == label)
        # a bit generator's raw stream, unlike its distributions, never changes between versions of NumPy
        keys = np.random.PCG64([seed, label]).random_raw(len(members))
        chosen.append(members[np.argsort(keys, kind="stable")[:size]])
    return np.sort(np.concatenate(chosen))


@contextmanager
def _memory_for(name: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise InputError(f"{name} does not fit in memory; take fewer examples or a machine with more") from error


def _open(name: str, data_dir: Path | None) -> tuple[str, str, Split, Split, tuple[str, ...]]:
    """Title, path, the two halves, class names; both halves have examples."""
    with _memory_for(name):
        title, path, train, test, class_names = _opened(name, data_dir)
    for half, split in (("training", train), ("test", test)):
        if not len(split.labels):
            raise InputError(f"{path}: the {half} half of {name} is empty")
    return printable(title), path, train, test, tuple(map(printable, class_names))


def _opened(name: str, data_dir: Path | None) -> tuple[str, str, Split, Split, tuple[str, ...]]:
    if name == "digits":
        return "digits", "scikit-learn", *read_digits(), tuple(str(digit) for digit in range(10))
    if name in ("folder", "npz"):
        return _open_own(name, data_dir)
    if name not in SOURCES:
        raise InputError(f"unknown data set {name!r}; expected one of {', '.join(names())}")
    found, looked = find(name, data_dir)
    source = SOURCES[name]
    if found is None:
        places = ", ".join(map(str, looked))
        raise InputError(
            f"{name} not found: looked for {source.needed} in {places}; get it {source.get}; "
            "then name its folder with --data-dir or NEURALCOLLAPSE_DATA"
        )
    layout, path = found
    train, test = layout.read(path, len(source.class_names))
    return layout.title, str(path), train, test, source.class_names


def _open_own(name: str, data_dir: Path | None) -> tuple[str, str, Split, Split, tuple[str, ...]]:
    if data_dir is None:
        raise InputError(f"--dataset {name} needs --data-dir, the {'file' if name == 'npz' else 'folder or archive'}")
    path = data_dir.expanduser()
    if name == "npz":
        if not path.is_file():
            raise InputError(f"no file {path}; --dataset npz expects --data-dir to name an .npz")
        return path.stem, str(path), *read_npz(path)
    if not path.is_dir() and not is_archive(path):
        raise InputError(
            f"no folder or tar archive {path}; --dataset folder expects --data-dir with train/<class> and test/<class>"
        )
    return path.resolve().name.split(".tar")[0], str(path), *read_folder(path)


def _own_kind(data_dir: Path | None) -> tuple[str, ...]:
    """Under which name, if any, `data_dir` itself would be read."""
    if data_dir is None:
        return ()
    path = data_dir.expanduser()
    if path.suffix == ".npz":
        return ("npz",)
    return ("folder",) if is_archive(path) or ((path / "train").is_dir() and (path / "test").is_dir()) else ()


def _in_memory(split: Split, chosen: Array) -> ImageData:
    images = np.ascontiguousarray(split.read(chosen))
    if 0 in images.shape:
        raise InputError(f"expected images with pixels, got shape {images.shape}")
    return ImageData(torch.from_numpy(images), torch.from_numpy(split.labels[chosen]))
