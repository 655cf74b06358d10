"""CIFAR10 and CIFAR100: the binary and the Python version (formats: www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.data.files import check_labels, in_memory, records
from neuralcollapse.data.pickles import read_pickle
from neuralcollapse.data.types import Array, Split

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FINE_NAMES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
    "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
    "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
    "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
    "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip
"""CIFAR100's hundred fine labels, in the order of its `fine_label_names`."""
NEEDED = "data_batch_1..5 and test_batch (or .bin), or a folder or .tar.xz of images train/<class>, test/<class>"
NEEDED_100 = "train and test (or .bin)"
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Files:
    """One of the two data sets as published.

    Args:
        train, test: the names of the files, without the .bin of the binary version.
        label_bytes: bytes before the pixels of a binary record, of which the last is the label.
        label_key: where the Python version has the labels.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    label_key: bytes

    def has_binary(self, folder: Path) -> bool:
        """Whether the folder holds the files of the binary version."""
        return all((folder / f"{name}.bin").is_file() for name in (*self.train, *self.test))

    def has_python(self, folder: Path) -> bool:
        """Whether the folder holds the files of the Python version."""
        return all((folder / name).is_file() for name in (*self.train, *self.test))

    def read_binary(self, folder: Path, num_classes: int) -> tuple[Split, Split]:
        """Records of the label bytes and 3072 pixels, channel by channel, row by row."""
        train, test = (self._binary_split(folder, names, num_classes) for names in (self.train, self.test))
        return train, test

    def read_python(self, folder: Path, num_classes: int) -> tuple[Split, Split]:
        """Pickled dictionaries with `data`, uint8 (n, 3072), and a list of labels."""
        train, test = (self._python_split(folder, names, num_classes) for names in (self.train, self.test))
        return train, test

    def _binary_split(self, folder: Path, names: tuple[str, ...], num_classes: int) -> Split:
        paths = [folder / f"{name}.bin" for name in names]
        parts = [records(path, self.label_bytes + _PIXELS) for path in paths]
        for path, part in zip(paths, parts, strict=True):
            check_labels(part[:, self.label_bytes - 1], num_classes, str(path))
        whole = np.concatenate(parts)
        return in_memory(whole[:, self.label_bytes :].reshape(-1, 3, 32, 32), whole[:, self.label_bytes - 1])

    def _python_split(self, folder: Path, names: tuple[str, ...], num_classes: int) -> Split:
        batches = (_python_batch(folder / name, self.label_key, num_classes) for name in names)
        images, labels = zip(*batches, strict=True)
        return in_memory(np.concatenate(images).reshape(-1, 3, 32, 32), np.concatenate(labels))


CIFAR10 = Files(tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",), 1, b"labels")
CIFAR100 = Files(("train",), ("test",), 2, b"fine_labels")  # a coarse label comes before the fine one


def _python_batch(path: Path, label_key: bytes, num_classes: int) -> tuple[Array, Array]:
    stored = bytes(records(path, 1)[:, 0].data)
    try:
        content = read_pickle(stored)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle can raise anything; nothing in it was called
        reason = f"{type(error).__name__} in {len(stored):,} bytes"
        raise InputError(f"{path} is damaged or no CIFAR batch ({reason}); fetch it again") from error
    images, labels = (content.get(key) if isinstance(content, dict) else None for key in (b"data", label_key))
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (_PIXELS,):
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(f"{path}: expected data of type uint8 and shape (n, {_PIXELS}), found {found}")
    if (
        not isinstance(labels, list)
        or len(labels) != len(images)
        or not all(type(label) is int and abs(label) < 1 << 63 for label in labels)
    ):
        found = f"{len(labels):,} entries" if isinstance(labels, list) else type(labels).__name__
        raise InputError(f"{path}: expected a list of {len(images):,} integer labels, found {found}")
    return images, check_labels(np.array(labels), num_classes, str(path))
