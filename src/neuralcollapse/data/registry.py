"""The data sets known by name. A new one is an entry of `DATASETS`, and a reader if its format is new."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from neuralcollapse._errors import InputError, suggest
from neuralcollapse.data import cifar, idx, stl10, svhn
from neuralcollapse.data.archive import is_archive
from neuralcollapse.data.dataset import Split
from neuralcollapse.data.folder import read_folder

_DIGIT_NAMES = tuple(str(digit) for digit in range(10))
_CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


@dataclass(frozen=True)
class Format:
    """A format in which a data set is distributed.

    Args:
        title: what results from it are called.
        paths: where it may lie below a root folder, in the order of the search; "" is the root itself.
        present: tells whether it lies at a path.
        read: reads the training and the test half from a path; it is told the number of classes.
    """

    title: str
    paths: tuple[str, ...]
    present: Callable[[Path], bool]
    read: Callable[[Path, int], tuple[Split, Split]]


@dataclass(frozen=True)
class Source:
    """A data set known by name.

    Args:
        class_names: one per label.
        formats: those it is distributed in, in the order of the search.
        needed: its files, for the message that they are missing.
        get: how to get them, for the same message.
    """

    class_names: tuple[str, ...]
    formats: tuple[Format, ...]
    needed: str
    get: str


def has_files(*names: str) -> Callable[[Path], bool]:
    """A function that says whether a folder holds all of these files."""
    return lambda folder: all((folder / name).is_file() for name in names)


def _torchvision(page: str, call: str) -> str:
    return f'with torchvision: python -c "import torchvision.datasets as d; {call}", or {page}'


def _has_idx(other: str, path: Path) -> bool:
    """MNIST and FashionMNIST have the same file names, so a folder named like the other one is not taken."""
    folder_name = (path.parent if path.name == "raw" else path).name
    return folder_name.lower().replace("-", "") != other and idx.has_idx(path)


def _read_cifar10_images(path: Path, _num_classes: int) -> tuple[Split, Split]:
    train, test, names = read_folder(path)
    if names != cifar.CLASS_NAMES:
        raise InputError(f"{path}: expected the classes {', '.join(cifar.CLASS_NAMES)}, got {', '.join(names[:12])}")
    return train, test


def _cifar_formats(title: str, files: cifar.CifarFiles, python_folder: str, binary_folder: str) -> tuple[Format, ...]:
    names = (*files.train, *files.test)
    return (
        Format(title, (python_folder, ""), has_files(*names), files.read_python),
        Format(title, (binary_folder, ""), has_files(*(f"{name}.bin" for name in names)), files.read_binary),
    )


DATASETS: dict[str, Source] = {
    "mnist": Source(
        _DIGIT_NAMES,
        (Format("MNIST", ("MNIST/raw", "mnist", ""), partial(_has_idx, "fashionmnist"), idx.read_idx),),
        idx.NEEDED,
        _torchvision("https://ossci-datasets.s3.amazonaws.com/mnist/", "d.MNIST('data', download=True)"),
    ),
    "fashion-mnist": Source(
        _CLOTHES,
        (Format("FashionMNIST", ("FashionMNIST/raw", "fashion-mnist", ""), partial(_has_idx, "mnist"), idx.read_idx),),
        idx.NEEDED,
        "on Debian: apt install dataset-fashion-mnist; "
        + _torchvision("https://github.com/zalandoresearch/fashion-mnist", "d.FashionMNIST('data', download=True)"),
    ),
    "cifar10": Source(
        cifar.CLASS_NAMES,
        (
            *_cifar_formats("CIFAR10", cifar.CIFAR10, "cifar-10-batches-py", "cifar-10-batches-bin"),
            Format(
                "CIFAR10 (JPEG)",
                ("cifar10-jpeg", "cifar10-jpeg.tar.xz", "cifar10-jpeg.tar", ""),
                lambda path: is_archive(path) or all((path / "train" / name).is_dir() for name in cifar.CLASS_NAMES),
                _read_cifar10_images,
            ),
        ),
        "data_batch_1..5 and test_batch (or .bin), or a folder or .tar.xz of images train/<class>, test/<class>",
        _torchvision("https://www.cs.toronto.edu/~kriz/cifar.html", "d.CIFAR10('data', download=True)"),
    ),
    "cifar100": Source(
        cifar.FINE_NAMES,
        _cifar_formats("CIFAR100", cifar.CIFAR100, "cifar-100-python", "cifar-100-binary"),
        "train and test (or .bin)",
        _torchvision("https://www.cs.toronto.edu/~kriz/cifar.html", "d.CIFAR100('data', download=True)"),
    ),
    "svhn": Source(
        _DIGIT_NAMES,
        (Format("SVHN", ("", "svhn", "SVHN"), has_files(*svhn.FILES), svhn.read_svhn),),
        " and ".join(svhn.FILES),
        _torchvision(
            "http://ufldl.stanford.edu/housenumbers", "[d.SVHN('data', s, download=True) for s in ('train', 'test')]"
        ),
    ),
    "stl10": Source(
        stl10.CLASS_NAMES,
        (Format("STL10", ("stl10_binary", ""), has_files(*stl10.FILES), stl10.read_stl10),),
        ", ".join(stl10.FILES),
        _torchvision("https://cs.stanford.edu/~acoates/stl10", "d.STL10('data', download=True)"),
    ),
}


def names() -> tuple[str, ...]:
    """The names that `load` takes: `digits` is part of scikit-learn, `folder` and `npz` are one's own data."""
    return ("digits", *DATASETS, "folder", "npz")


def check_name(name: str) -> None:
    """Raise InputError unless `load` takes this name."""
    if name not in names():
        raise InputError(f"unknown data set {name!r}{suggest(name, names())}; expected one of {', '.join(names())}")


def search_roots(data_dir: Path | None) -> list[Path]:
    """Where to look: `data_dir` alone, or NEURALCOLLAPSE_DATA, ./data, ~/data and Debian's /usr/share/datasets.

    Raises:
        InputError: `data_dir` is given but does not exist; data from elsewhere would not be what was asked for.
    """
    if data_dir is not None:
        if not data_dir.expanduser().exists():
            raise InputError(f"--data-dir {data_dir} does not exist; expected the folder that holds the data set")
        return [data_dir.expanduser().absolute()]
    named = os.environ.get("NEURALCOLLAPSE_DATA")
    roots = [*([Path(named)] if named else []), Path("data"), Path("~/data"), Path("/usr/share/datasets")]
    return [root.expanduser().absolute() for root in roots]


def find(name: str, data_dir: Path | None) -> tuple[Format | None, list[Path]]:
    """The format in which a data set was found, or None; and the paths searched, of which the last is where it lies."""
    searched: list[Path] = []
    for root in search_roots(data_dir):
        for found in DATASETS[name].formats:
            for below in found.paths:
                path = root / below if below else root
                if path not in searched:
                    searched.append(path)
                try:
                    if found.present(path):
                        return found, [*searched, path]
                except OSError:
                    continue  # no permission, or a name too long: this user cannot read it; the search goes on
    return None, searched
