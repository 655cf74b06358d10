"""Data sets by name, read into memory as uint8, and the batches made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neuralcollapse._checks import InputError
from neuralcollapse.lab.datasets.batches import Batches
from neuralcollapse.lab.datasets.digits import read_digits
from neuralcollapse.lab.datasets.folder import is_archive, read_folder
from neuralcollapse.lab.datasets.npz import read_npz
from neuralcollapse.lab.datasets.sources import SOURCES, find
from neuralcollapse.lab.datasets.types import Array, Dataset, ImageData, Split, pixel_statistics

__all__ = ["Batches", "Dataset", "Found", "ImageData", "available", "load", "names"]


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


def load(name: str, data_dir: Path | None = None, examples_per_class: int | None = None, seed: int = 0) -> Dataset:
    """Read a data set.

    Args:
        name: one of `names()`; `folder` and `npz` are one's own data, at `data_dir`.
        data_dir: where to look; None for NEURALCOLLAPSE_DATA, ./data, ~/data and /usr/share/datasets.
        examples_per_class: balance the training half by taking this many examples of each class, drawn by `seed`;
            None for all. The test half always stays whole.
        seed: of that draw; a class's draw does not depend on the other classes.

    Raises:
        InputError: an unknown name, missing or damaged data, or fewer examples of a class than asked for.
    """
    title, path, train, test, class_names = _open(name, data_dir)
    chosen = np.arange(len(train.labels))
    if examples_per_class is not None:
        chosen = balanced(train.labels, len(class_names), examples_per_class, seed)
    data = _in_memory(train, chosen)
    mean, std = pixel_statistics(data.images)
    held_out = _in_memory(test, np.arange(len(test.labels)))
    return Dataset(name, title, data, held_out, class_names, mean, std, path)


def available(data_dir: Path | None = None) -> list[Found]:
    """Every data set known by name: where it was found, with its counts, or what is wrong; never raises for one."""
    result = []
    for name in ("digits", *SOURCES):
        place = "" if name == "digits" else str(_first_place(name, data_dir))
        try:
            title, path, train, test, class_names = _open(name, data_dir)
            counts = np.bincount(train.labels, minlength=len(class_names))
            result.append(Found(name, title, path, tuple(counts.tolist()), len(test.labels)))
        except InputError as error:
            absent = name in SOURCES and find(name, data_dir)[0] is None
            result.append(Found(name, "", place, problem="not found" if absent else str(error)))
    return result


def balanced(labels: Array, num_classes: int, examples_per_class: int, seed: int) -> Array:
    """Indices, in stored order, of `examples_per_class` examples of each class.

    Raises:
        InputError: a class has fewer.
    """
    chosen = []
    for label in range(num_classes):
        members = np.flatnonzero(labels == label)
        if len(members) < examples_per_class:
            raise InputError(f"expected {examples_per_class} examples of each class, class {label} has {len(members)}")
        # a bit generator's raw stream, unlike its distributions, never changes between versions of NumPy
        keys = np.random.PCG64([seed, label]).random_raw(len(members))
        chosen.append(members[np.argsort(keys, kind="stable")[:examples_per_class]])
    return np.sort(np.concatenate(chosen))


def _open(name: str, data_dir: Path | None) -> tuple[str, str, Split, Split, tuple[str, ...]]:
    """Title, path, the two halves, class names."""
    if name == "digits":
        return "digits", "scikit-learn", *read_digits(), tuple(str(digit) for digit in range(10))
    if name in ("folder", "npz"):
        return _open_own(name, data_dir)
    if name not in SOURCES:
        raise InputError(f"unknown data set {name!r}; expected one of {', '.join(names())}")
    found, looked = find(name, data_dir)
    source = SOURCES[name]
    if found is None:
        gone = "" if data_dir is None or data_dir.expanduser().exists() else f"there is no folder {data_dir}; "
        places = ", ".join(map(str, looked))
        raise InputError(
            f"{name} not found: {gone}looked for {source.needed} in {places}; get it {source.get}; "
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
        raise InputError(f"no folder {path}; --dataset folder expects train/<class> and test/<class> in --data-dir")
    return path.name.split(".")[0] or str(path), str(path), *read_folder(path)


def _first_place(name: str, data_dir: Path | None) -> Path:
    found, looked = find(name, data_dir)
    return found[1] if found else looked[0]


def _in_memory(split: Split, chosen: Array) -> ImageData:
    images = np.ascontiguousarray(split.read(chosen))
    return ImageData(torch.from_numpy(images.copy()), torch.from_numpy(split.labels[chosen].copy()))
