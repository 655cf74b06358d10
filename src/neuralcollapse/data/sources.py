"""The known data sets: where each may lie, how it is recognised, read, and got."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from neuralcollapse._checks import InputError
from neuralcollapse.data import cifar, folder, idx, stl10, svhn
from neuralcollapse.data.archive import is_archive
from neuralcollapse.data.types import Split

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
    return f'with torchvision: python -c "import torchvision.datasets as d; {call}", or {name}'


def _has_idx(other: str) -> Callable[[Path], bool]:
    """MNIST and FashionMNIST have the same file names, so a folder named after the other is not taken."""

    def present(path: Path) -> bool:
        folder_name = (path.parent if path.name == "raw" else path).name
        return folder_name.lower().replace("-", "") != other and idx.has_idx(path)

    return present


def _has_images(path: Path) -> bool:
    if is_archive(path):
        return True
    return all((path / half / name).is_dir() for half in ("train", "test") for name in cifar.CLASS_NAMES)


def _read_images(path: Path, num_classes: int) -> tuple[Split, Split]:
    train, test, names = folder.read_folder(path)
    if names != cifar.CLASS_NAMES:
        raise InputError(f"{path}: expected the classes {', '.join(cifar.CLASS_NAMES)}, found {', '.join(names[:12])}")
    return train, test


SOURCES: dict[str, Source] = {
    "mnist": Source(
        _DIGIT_NAMES,
        (Layout("MNIST", ("MNIST/raw", "mnist", ""), _has_idx("fashionmnist"), idx.read_idx),),
        idx.NEEDED,
        _torchvision("https://ossci-datasets.s3.amazonaws.com/mnist/", "d.MNIST('data', download=True)"),
    ),
    "fashion-mnist": Source(
        _CLOTHES,
        (Layout("FashionMNIST", ("FashionMNIST/raw", "fashion-mnist", ""), _has_idx("mnist"), idx.read_idx),),
        idx.NEEDED,
        "on Debian: apt install dataset-fashion-mnist; "
        + _torchvision("https://github.com/zalandoresearch/fashion-mnist", "d.FashionMNIST('data', download=True)"),
    ),
    "cifar10": Source(
        cifar.CLASS_NAMES,
        (
            Layout("CIFAR10", ("cifar-10-batches-py", ""), cifar.CIFAR10.has_python, cifar.CIFAR10.read_python),
            Layout("CIFAR10", ("cifar-10-batches-bin", ""), cifar.CIFAR10.has_binary, cifar.CIFAR10.read_binary),
            Layout(
                "CIFAR10 (JPEG)",
                ("cifar10-jpeg", "cifar10-jpeg.tar.xz", "cifar10-jpeg.tar", ""),
                _has_images,
                _read_images,
            ),
        ),
        cifar.NEEDED,
        _torchvision("https://www.cs.toronto.edu/~kriz/cifar.html", "d.CIFAR10('data', download=True)"),
    ),
    "cifar100": Source(
        cifar.FINE_NAMES,
        (
            Layout("CIFAR100", ("cifar-100-python", ""), cifar.CIFAR100.has_python, cifar.CIFAR100.read_python),
            Layout("CIFAR100", ("cifar-100-binary", ""), cifar.CIFAR100.has_binary, cifar.CIFAR100.read_binary),
        ),
        cifar.NEEDED_100,
        _torchvision("https://www.cs.toronto.edu/~kriz/cifar.html", "d.CIFAR100('data', download=True)"),
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
        _torchvision("https://cs.stanford.edu/~acoates/stl10", "d.STL10('data', download=True)"),
    ),
}


def roots(data_dir: Path | None) -> list[Path]:
    """Where to look, in this order: `data_dir`, NEURALCOLLAPSE_DATA, ./data, ~/data, Debian's /usr/share/datasets.

    Raises:
        InputError: `data_dir` is given but does not exist; other data than the user meant must not step in.
    """
    if data_dir is not None and not data_dir.expanduser().exists():
        raise InputError(f"--data-dir {data_dir} does not exist; expected the folder that holds the data set")
    named = os.environ.get("NEURALCOLLAPSE_DATA")
    given = [data_dir] if data_dir is not None else []
    usual = [Path("data"), Path("~/data"), Path("/usr/share/datasets")]
    return [root.expanduser().absolute() for root in given + ([Path(named)] if named else []) + usual]


def find(name: str, data_dir: Path | None) -> tuple[tuple[Layout, Path] | None, list[Path]]:
    """The first place a data set lies in, and the places that were looked at."""
    looked: list[Path] = []
    for root in roots(data_dir):
        for layout in SOURCES[name].layouts:
            for place in layout.places:
                path = root / place if place else root
                if path not in looked:
                    looked.append(path)
                try:
                    if layout.present(path):
                        return (layout, path), looked
                except OSError:
                    continue  # no permission, or a name too long: of no use to this user; the search goes on
    return None, looked
