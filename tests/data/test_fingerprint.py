"""The fingerprint tells data apart by content alone: any change of it, and nothing else, gives another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import dataset_files as write

from neuralcollapse import data as datasets
from neuralcollapse.data import Corruption, Dataset, ImageData, fingerprint


def data() -> Dataset:
    return datasets.load("digits", examples_per_class=5)


def changed(half: ImageData, what: str) -> ImageData:
    images, labels = half.images.clone(), half.labels.clone()
    if what == "pixel":
        images[-1, 0, -1, -1] ^= 1
    elif what == "label":
        labels[0] = (labels[0] + 1) % 10
    elif what == "order":
        images[[0, 1]] = images[[1, 0]]
    elif what == "shape":
        images = images.reshape(len(images), 1, 4, 16)
    else:
        images, labels = images[:-1], labels[:-1]
    return ImageData(images, labels)


def test_it_is_the_hash_of_names_pixels_and_labels_in_this_order() -> None:
    """Pinned, because runs store it."""
    found = data()
    expected = hashlib.sha256(json.dumps([str(digit) for digit in range(10)]).encode())
    for half in (found.train, found.test):
        images, labels = half.images.numpy(), half.labels.numpy()
        expected.update(f"{images.shape} uint8 {labels.shape}".encode() + images.tobytes() + labels.tobytes())
    assert fingerprint(found) == expected.hexdigest() == fingerprint(data())


@pytest.mark.parametrize("half", ["train", "test"])
@pytest.mark.parametrize("what", ["pixel", "label", "order", "shape", "fewer"])
def test_every_change_of_content_gives_another(half: str, what: str) -> None:
    assert fingerprint(replace(data(), **{half: changed(getattr(data(), half), what)})) != fingerprint(data())


@pytest.mark.parametrize(
    "change",
    [
        lambda found: replace(found, class_names=(*found.class_names[:-1], "nine")),
        lambda found: replace(found, train=found.test, test=found.train),
        lambda found: datasets.load("digits", examples_per_class=5, seed=1),
        lambda found: datasets.load("digits", examples_per_class=5, corruption=Corruption(label_noise=0.1)),
    ],
)
def test_other_names_halves_draws_and_labels_give_another(change: Callable[[Dataset], Dataset]) -> None:
    assert fingerprint(change(data())) != fingerprint(data())


def test_where_and_how_data_are_stored_changes_nothing(tmp_path: Path) -> None:
    files = write.pictures(3)
    folder = datasets.load("folder", write.write_folder(tmp_path / "a", files))
    again = datasets.load("folder", write.write_folder(tmp_path / "elsewhere", files))
    archive = datasets.load("folder", write.write_archive(tmp_path / "b.tar.gz", files))
    assert fingerprint(folder) == fingerprint(archive) == fingerprint(again)
    strided = ImageData(folder.train.images.to(memory_format=torch.channels_last), folder.train.labels)
    assert fingerprint(replace(folder, train=strided)) == fingerprint(folder)


def test_names_that_are_no_text_and_empty_halves_have_one(tmp_path: Path) -> None:
    found = replace(data(), class_names=tuple(np.bytes_(b"\xff").decode("utf-8", "surrogateescape") for _ in range(10)))
    assert fingerprint(found) != fingerprint(data())
    empty = ImageData(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    assert fingerprint(replace(data(), test=empty)) != fingerprint(data())
