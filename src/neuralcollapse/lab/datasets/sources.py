"""The known data sets: where each may lie, how it is recognised, read, and got."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from neuralcollapse.lab.datasets import cifar, folder, idx, stl10, svhn
from neuralcollapse.lab.datasets.types import Split

_DIGIT_NAMES = tuple(str(digit) for digit in range(10))
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

Reader = Callable[[Path, int], tuple[Split, Split]]


@dataclass(frozen=True)
class Layout:
    """One form a data set comes in.

    Args:
        title: what results from it are called.
        places: paths under a root where it may lie, in the order of the search.
        present: whether it lies at a path.
        read: the path and the number of classes to the two halves.
    """

    title: str
    places: tuple[str, ...]
    present: Callable[[Path], bool]
    read: Reader


@dataclass(frozen=True)
class Source:
    """A data set known by name.

    Args:
        class_names: one per label.
        layouts: the forms it comes in, in the order of the search.
        needed: the files, in words.
        get: how to get them, in words.
    """

    class_names: tuple[str, ...]
    layouts: tuple[Layout, ...]
    needed: str
    get: str


def _torchvision(name: str, call: str) -> str:
    return f'with torchvision: python -c "import torchvision.datasets as d; d.{call}", or {name}'


def _has_images(path: Path) -> bool:
    if folder.is_archive(path):
        return True
    return all((path / half / name).is_dir() for half in ("train", "test") for name in cifar.CLASS_NAMES)


def _read_images(path: Path, num_classes: int) -> tuple[Split, Split]:
    train, test, names = folder.read_folder(path)
    if names != cifar.CLASS_NAMES:
        from neuralcollapse._checks import InputError

        raise InputError(f"{path}: expected the classes {', '.join(cifar.CLASS_NAMES)}, found {', '.join(names[:12])}")
    return train, test


SOURCES: dict[str, Source] = {
    "mnist": Source(
        _DIGIT_NAMES,
        (Layout("MNIST", ("MNIST/raw", "mnist", ""), idx.has_idx, idx.read_idx),),
        idx.NEEDED,
        _torchvision("https://ossci-datasets.s3.amazonaws.com/mnist/", "MNIST('data', download=True)"),
    ),
    "fashion-mnist": Source(
        _CLOTHES,
        (Layout("FashionMNIST", ("FashionMNIST/raw", "fashion-mnist", ""), idx.has_idx, idx.read_idx),),
        idx.NEEDED,
        "on Debian: apt install dataset-fashion-mnist; "
        + _torchvision("https://github.com/zalandoresearch/fashion-mnist", "FashionMNIST('data', download=True)"),
    ),
    "cifar10": Source(
        cifar.CLASS_NAMES,
        (
            Layout("CIFAR10", ("cifar-10-batches-py", ""), cifar.has_python, cifar.read_python),
            Layout("CIFAR10", ("cifar-10-batches-bin", ""), cifar.has_binary, cifar.read_binary),
            Layout("CIFAR10 (JPEG)", ("cifar10-jpeg", "cifar10-jpeg.tar.xz", ""), _has_images, _read_images),
        ),
        cifar.NEEDED,
        _torchvision("https://www.cs.toronto.edu/~kriz/cifar.html", "CIFAR10('data', download=True)"),
    ),
    "svhn": Source(
        _DIGIT_NAMES,
        (Layout("SVHN", ("", "svhn", "SVHN"), svhn.has_svhn, svhn.read_svhn),),
        svhn.NEEDED,
        _torchvision(
            "http://ufldl.stanford.edu/housenumbers", "[d.SVHN('data', s, download=True) for s in ('train', 'test')]"
        ),
    ),
    "stl10": Source(
        stl10.CLASS_NAMES,
        (Layout("STL10", ("stl10_binary", ""), stl10.has_stl10, stl10.read_stl10),),
        stl10.NEEDED,
        _torchvision("https://cs.stanford.edu/~acoates/stl10", "STL10('data', download=True)"),
    ),
}


def roots(data_dir: Path | None) -> list[Path]:
    """Where to look: in `data_dir` alone when it is given, else in the usual places."""
    if data_dir is not None:
        return [data_dir.expanduser()]
    named = os.environ.get("NEURALCOLLAPSE_DATA")
    usual = [Path("data"), Path("~/data").expanduser(), Path("/usr/share/datasets")]
    return ([Path(named).expanduser()] if named else []) + usual


def find(name: str, data_dir: Path | None) -> tuple[tuple[Layout, Path] | None, list[Path]]:
    """The first place a data set lies in, and the places that were looked at."""
    looked: list[Path] = []
    for root in roots(data_dir):
        for layout in SOURCES[name].layouts:
            for place in layout.places:
                path = root / place if place else root
                if path not in looked:
                    looked.append(path)
                if path.exists() and layout.present(path):
                    return (layout, path), looked
    return None, looked
