"""Loading a data set by its name, whole or a balanced, imbalanced or mislabelled draw; and listing those found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neuralcollapse._errors import InputError
from neuralcollapse.data.archive import is_archive, without_ending
from neuralcollapse.data.corruption import Corruption, class_sizes, noisy_labels
from neuralcollapse.data.dataset import HALVES, Array, Dataset, ImageData, Split, pixel_statistics, printable
from neuralcollapse.data.digits import read_digits
from neuralcollapse.data.downsampling import block_means
from neuralcollapse.data.folder import read_folder
from neuralcollapse.data.npz import read_npz
from neuralcollapse.data.registry import DATASETS, check_name, find, search_roots


class NoData(InputError):
    """A data set is missing or cannot be read, whatever is then asked of it; another one may be there."""


@dataclass(frozen=True)
class Found:
    """One data set as `available` lists it.

    Args:
        name: what `--dataset` takes.
        title: what results from it are called; empty when it was not found.
        path: where it lies, or the first path that was searched.
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


@dataclass(frozen=True)
class _Stored:
    """A data set on disk, with examples in both halves."""

    title: str
    source: str
    train: Split
    test: Split
    class_names: tuple[str, ...]


def load(
    name: str,
    data_dir: Path | None = None,
    examples_per_class: int | None = None,
    seed: int = 0,
    corruption: Corruption | None = None,
    test_examples_per_class: int | None = None,
    downsample: int = 1,
) -> Dataset:
    """Read a data set.

    Args:
        name: one of `names()`; `folder` and `npz` are one's own data, at `data_dir`.
        data_dir: where to look; by default in NEURALCOLLAPSE_DATA, ./data, ~/data and /usr/share/datasets.
        examples_per_class: balance the training half by taking this many examples of each class, drawn by `seed`;
            None for all.
        seed: of that draw; a class's draw does not depend on the other classes.
        corruption: what is then done to the training half: imbalance, where the largest class has `examples_per_class`,
            or as many as the smallest class on disk; wrong labels.
        test_examples_per_class: the same of the test half, with the same draw for every seed; None for all of it.
        downsample: average blocks of this many pixels by as many, for smaller images; 1 leaves them as they are.

    Raises:
        InputError: an unknown name, a `data_dir` that does not exist or that `digits` do not need, fewer examples of a
            class than asked for, or blocks that do not cover the images.
        NoData: the data are missing or damaged; an InputError as well.

    >>> data = load("digits", examples_per_class=10)
    >>> tuple(data.train.images.shape), len(data.test.labels)
    ((100, 1, 8, 8), 300)
    """
    stored = _open(name, data_dir)
    class_names, labels = stored.class_names, stored.train.labels
    corruption = corruption or Corruption()
    chosen = np.arange(len(labels))
    if examples_per_class is not None:
        chosen = balanced(labels, class_names, examples_per_class, seed)
    if corruption.imbalance is not None:
        largest = int(np.bincount(labels[chosen], minlength=len(class_names)).min())
        chosen = _draw(labels, class_sizes(largest, len(class_names), corruption), seed)
    tested = np.arange(len(stored.test.labels))
    if test_examples_per_class is not None:
        tested = balanced(stored.test.labels, class_names, test_examples_per_class, 0, "--test-examples-per-class")
    with _enough_memory(name):
        train, test = _read_images(stored.train, chosen, downsample), _read_images(stored.test, tested, downsample)
        if corruption.label_noise:
            changed = noisy_labels(labels[chosen], len(class_names), corruption.label_noise, seed)
            train = ImageData(train.images, torch.from_numpy(changed))
        if (sizes := [tuple(half.images.shape[2:]) for half in (train, test)])[0] != sizes[1]:
            listed = " and ".join(f"{height} × {width}" for height, width in sizes)
            raise NoData(f"{stored.source}: training and test images differ in size: {listed} pixels")
        if train.images.shape[1] != test.images.shape[1]:  # gray pictures in one half only
            train, test = (
                ImageData(half.images.expand(-1, 3, *half.images.shape[2:]).contiguous(), half.labels)
                for half in (train, test)
            )
    mean, std = pixel_statistics(train.images)
    return Dataset(name, stored.title, train, test, class_names, mean, std, stored.source)


def available(data_dir: Path | None = None) -> list[Found]:
    """Every data set known by name, and one's own at `data_dir`: where it is, with its counts, or what is wrong.

    Raises:
        InputError: `data_dir` does not exist; never for what is wrong with one of the data sets.
    """
    search_roots(data_dir)
    own = Path() if data_dir is None else data_dir.expanduser()
    shown = ["digits", *DATASETS]
    if own.suffix == ".npz":
        shown.append("npz")
    elif data_dir is not None and (is_archive(own) or all((own / half).is_dir() for half in HALVES)):
        shown.append("folder")
    return [_look_at(name, data_dir) for name in shown]


def _look_at(name: str, data_dir: Path | None) -> Found:
    path = "scikit-learn" if name == "digits" else str(data_dir)
    if name in DATASETS:
        found, searched = find(name, data_dir)
        path = str(searched[-1] if found else searched[0])
        if found is None:
            return Found(name, "", printable(path), problem="not found")
    try:
        stored = _open(name, None if name == "digits" else data_dir)
    except (InputError, OSError) as error:
        return Found(name, "", printable(path), problem=printable(str(error)))
    counts = np.bincount(stored.train.labels, minlength=len(stored.class_names)).tolist()
    return Found(name, stored.title, printable(stored.source), tuple(counts), len(stored.test.labels))


def balanced(
    labels: Array,
    class_names: tuple[str, ...],
    examples_per_class: int,
    seed: int,
    option: str = "--examples-per-class",
) -> Array:
    """Indices, in stored order, of `examples_per_class` examples of each class; a larger draw contains the smaller.

    Args:
        option: the one that asked for them, for messages.

    Raises:
        InputError: a class has fewer, or the number or the seed cannot be used.
    """
    if examples_per_class < 1 or seed < 0:
        raise InputError(f"expected at least 1 example per class and seed 0 or more, got {examples_per_class}, {seed}")
    for label, name in enumerate(class_names):
        members = np.count_nonzero(labels == label)
        if members < examples_per_class:
            class_name = str(label) if name == str(label) else f"{label} ({name})"
            raise InputError(
                f"expected at least {examples_per_class:,} examples of each class for {option}, got "
                f"{members:,} of class {class_name}; lower {option}"
            )
    return _draw(labels, [examples_per_class] * len(class_names), seed)


def _draw(labels: Array, sizes: Sequence[int], seed: int) -> Array:
    """Indices, in stored order, of `sizes[label]` examples of each class, which must have as many."""
    chosen = []
    for label, size in enumerate(sizes):
        members = np.flatnonzero(labels == label)
        # a bit generator's raw stream, unlike its distributions, never changes between versions of NumPy
        keys = np.random.PCG64([seed, label]).random_raw(len(members))
        chosen.append(members[np.argsort(keys, kind="stable")[:size]])
    return np.sort(np.concatenate(chosen))


def _open(name: str, data_dir: Path | None) -> _Stored:
    """Find a data set and read its labels; images of folders are read later."""
    check_name(name)
    with _enough_memory(name):
        if name == "digits":
            if data_dir is not None:
                raise InputError(f"--data-dir {data_dir} is not used: digits come with scikit-learn; leave it out")
            stored = _Stored("digits", "scikit-learn", *read_digits(), tuple(str(digit) for digit in range(10)))
        elif name in DATASETS:
            source = DATASETS[name]
            found, searched = find(name, data_dir)
            if found is None:
                raise NoData(
                    f"{name} not found: looked for {source.needed} in {', '.join(map(str, searched))}; "
                    f"get it {source.get}; then name its folder with --data-dir or NEURALCOLLAPSE_DATA"
                )
            with _reading():
                halves = found.read(searched[-1], len(source.class_names))
            stored = _Stored(found.title, str(searched[-1]), *halves, source.class_names)
        else:
            stored = _open_own(name, data_dir)
    for half, split in (("training", stored.train), ("test", stored.test)):
        if not len(split.labels):
            raise NoData(f"{stored.source}: the {half} half of {name} is empty")
    return stored


def _open_own(name: str, data_dir: Path | None) -> _Stored:
    if data_dir is None:
        raise InputError(f"--dataset {name} needs --data-dir, the {'file' if name == 'npz' else 'folder or archive'}")
    path = data_dir.expanduser()
    if name == "npz":
        if not path.is_file():
            raise NoData(f"no file {path}; --dataset npz expects --data-dir to name an .npz")
        with _reading():
            return _Stored(printable(path.stem), str(path), *read_npz(path))
    if not path.is_dir() and not is_archive(path):
        raise NoData(
            f"no folder or tar archive {path}; --dataset folder expects --data-dir with train/<class> and test/<class>"
        )
    with _reading():
        train, test, class_names = read_folder(path)
    title = printable(without_ending(path.resolve().name))
    return _Stored(title, str(path), train, test, tuple(map(printable, class_names)))


def _read_images(split: Split, chosen: Array, downsample: int) -> ImageData:
    with _reading():
        images = np.ascontiguousarray(split.read(chosen))
        if 0 in images.shape:
            raise InputError(f"expected images with pixels, got shape {images.shape}")
    return ImageData(block_means(torch.from_numpy(images), downsample), torch.from_numpy(split.labels[chosen]))


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever is wrong is wrong with the data, not with what is asked of them."""
    try:
        yield
    except InputError as error:
        raise NoData(str(error)) from error


@contextmanager
def _enough_memory(name: str) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise NoData(f"{name} does not fit in memory; take fewer examples or a machine with more") from error
