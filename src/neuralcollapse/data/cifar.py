"""CIFAR10 and CIFAR100: the binary and the Python version (formats: www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuralcollapse._errors import InputError
from neuralcollapse.data.binary_files import records
from neuralcollapse.data.dataset import Array, Split, check_labels
from neuralcollapse.data.pickles import read_pickle

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
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class CifarFiles:
    """The files of one of the two data sets, as published.

    Args:
        train, test: the names of the files of the Python version; those of the binary version end in .bin.
        label_bytes: bytes before the pixels of a binary record, of which the last is the label.
        label_key: where the Python version has the labels.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    label_key: bytes

    def read_binary(self, folder: Path, num_classes: int) -> tuple[Split, Split]:
        """Records of the label bytes and 3072 pixels, channel by channel, row by row."""

        def batch(name: str) -> tuple[Array, Array]:
            path = folder / f"{name}.bin"
            content = records(path, self.label_bytes + _PIXELS)
            labels = content[:, self.label_bytes - 1]
            return content[:, self.label_bytes :], check_labels(labels, num_classes, str(path))

        return _joined(map(batch, self.train)), _joined(map(batch, self.test))

    def read_python(self, folder: Path, num_classes: int) -> tuple[Split, Split]:
        """Pickled dictionaries with `data`, uint8 (n, 3072), and a list of labels."""

        def batch(name: str) -> tuple[Array, Array]:
            return _python_batch(folder / name, self.label_key, num_classes)

        return _joined(map(batch, self.train)), _joined(map(batch, self.test))


CIFAR10 = CifarFiles(tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",), 1, b"labels")
CIFAR100 = CifarFiles(("train",), ("test",), 2, b"fine_labels")  # a coarse label comes before the fine one


def _joined(batches: Iterable[tuple[Array, Array]]) -> Split:
    images, labels = zip(*batches, strict=True)
    return Split.of_arrays(np.concatenate(images).reshape(-1, 3, 32, 32), np.concatenate(labels))


def _python_batch(path: Path, label_key: bytes, num_classes: int) -> tuple[Array, Array]:
    stored = bytes(records(path, 1)[:, 0].data)
    try:
        content = read_pickle(stored)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle can raise anything; nothing in it was called
        reason = f"{type(error).__name__} in {len(stored):,} bytes"
        raise InputError(f"{path} is damaged or not a CIFAR batch ({reason}); download it again") from error
    images, labels = (content.get(key) if isinstance(content, dict) else None for key in (b"data", label_key))
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != (_PIXELS,):
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise InputError(f"{path}: expected data of type uint8 and shape (n, {_PIXELS}), got {found}")
    if (
        not isinstance(labels, list)
        or len(labels) != len(images)
        or not all(type(label) is int and abs(label) < 1 << 63 for label in labels)
    ):
        found = f"{len(labels):,} entries" if isinstance(labels, list) else type(labels).__name__
        raise InputError(f"{path}: expected a list of {len(images):,} integer labels, got {found}")
    return images, check_labels(np.array(labels), num_classes, str(path))
