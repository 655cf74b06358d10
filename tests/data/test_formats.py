"""Each reader against bytes written by hand from the published format, and against real data where there are any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import dataset_files as write
from sklearn.datasets import load_digits

from neuralcollapse import data as datasets

PER_BATCH = 4


def cifar_content() -> tuple[np.ndarray, np.ndarray]:
    images = write.random_images(6 * PER_BATCH, 3, 32, 32).reshape(6, PER_BATCH, 3, 32, 32)
    return images, (np.arange(6 * PER_BATCH) % 10).reshape(6, PER_BATCH)


def test_digits_are_scikit_learns() -> None:
    data = datasets.load("digits")
    assert len(data.train.labels) == 1497 and len(data.test.labels) == 300
    original = load_digits()
    for half in (data.train, data.test):
        grey = np.round(half.images.numpy()[:, 0] / 255 * 16).astype(int)
        rows = {image.tobytes() + bytes([label]) for image, label in zip(grey, half.labels.tolist(), strict=True)}
        known = zip(original.images.astype(int), original.target.tolist(), strict=True)
        assert rows <= {image.tobytes() + bytes([label]) for image, label in known}
    both = np.concatenate([data.train.images.numpy(), data.test.images.numpy()])
    assert both.max() == 255 and both.min() == 0
    assert np.isclose(both.astype(float).sum() / 255 * 16, original.images.sum(), rtol=1e-2)


def test_digits_are_split_in_proportion() -> None:
    share = np.bincount(load_digits().target) * 300 / 1797
    counts = np.bincount(datasets.load("digits").test.labels.numpy())
    assert np.abs(counts - share).max() <= 1


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("name", "place"),
    [("mnist", "MNIST/raw"), ("mnist", "mnist"), ("fashion-mnist", "FashionMNIST/raw"), ("fashion-mnist", "")],
)
def test_idx(tmp_path: Path, name: str, place: str, zipped: bool) -> None:
    train, test = write.random_images(20, 28, 28), write.random_images(5, 28, 28, seed=1)
    labels = np.arange(20)[::-1] % 10
    write.write_idx(tmp_path / place, (train, labels), (test, labels[:5]), zipped=zipped)
    data = datasets.load(name, tmp_path)
    np.testing.assert_array_equal(data.train.images.numpy(), train[:, None])
    np.testing.assert_array_equal(data.test.images.numpy(), test[:, None])
    assert data.train.labels.tolist() == labels.tolist()
    assert data.source == str(tmp_path / place) and len(data.class_names) == 10


@pytest.mark.parametrize("place", ["cifar-10-batches", ""])
@pytest.mark.parametrize("version", ["bin", "py", "modern py"])
def test_cifar10(tmp_path: Path, place: str, version: str) -> None:
    images, labels = cifar_content()
    ending = version[-3:].strip()
    folder = tmp_path / (f"{place}-{ending}" if place else "")
    if ending == "bin":
        write.write_cifar_binary(folder, images, labels)
    else:
        write.write_cifar_python(folder, images, labels, modern=version != "py")
    data = datasets.load("cifar10", tmp_path)
    assert data.title == "CIFAR10"
    np.testing.assert_array_equal(data.train.images.numpy(), images[:5].reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(data.test.images.numpy(), images[5])
    assert data.train.labels.tolist() == labels[:5].flatten().tolist()
    assert data.class_names[:2] == ("airplane", "automobile")


@pytest.mark.parametrize("place", ["cifar-100", ""])
@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar100_has_the_fine_labels(tmp_path: Path, place: str, version: str) -> None:
    train, test = write.random_images(120, 3, 32, 32), write.random_images(5, 3, 32, 32, seed=1)
    labels = np.arange(120)[::-1] % 100
    folder = tmp_path / (f"{place}-{version}" if place else "")
    write.write_cifar100(folder, (train, labels), (test, labels[:5]), version=version)
    data = datasets.load("cifar100", tmp_path)
    assert data.title == "CIFAR100" and data.source == str(folder) and len(data.class_names) == 100
    np.testing.assert_array_equal(data.train.images.numpy(), train)
    np.testing.assert_array_equal(data.test.images.numpy(), test)
    assert data.train.labels.tolist() == labels.tolist() and data.test.labels.tolist() == labels[:5].tolist()
    # as the data set's page names them, with their published numbers
    known = {0: "apple", 19: "cattle", 29: "dinosaur", 49: "mountain", 71: "sea", 86: "telephone", 99: "worm"}
    assert {number: data.class_names[number] for number in known} == known


@pytest.mark.parametrize("name", ["cifar10-jpeg", "cifar10-jpeg.tar.xz"])
def test_cifar10_as_pictures_is_titled_so(tmp_path: Path, name: str) -> None:
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    files = write.pictures(2, classes)
    if name.endswith("xz"):
        write.write_archive(tmp_path / name, files)
    else:
        write.write_folder(tmp_path / name, files)
    for data_dir in (tmp_path, tmp_path / name):
        data = datasets.load("cifar10", data_dir, examples_per_class=1)
        assert data.title == "CIFAR10 (JPEG)" and data.name == "cifar10" and data.class_names == classes
        assert data.train.labels.tolist() == list(range(10)) and len(data.test.labels) == 20


def test_svhn_reads_ten_as_zero(tmp_path: Path) -> None:
    train, test = write.random_images(11, 32, 32, 3), write.random_images(3, 32, 32, 3, seed=1)
    write.write_svhn(tmp_path, (train, [10, *range(1, 11)]), (test, [3, 10, 1]))
    data = datasets.load("svhn", tmp_path)
    assert data.train.labels.tolist() == [0, *range(1, 10), 0] and data.test.labels.tolist() == [3, 0, 1]
    np.testing.assert_array_equal(data.train.images.numpy(), np.moveaxis(train, -1, 1))


def test_stl10_is_stored_column_by_column(tmp_path: Path) -> None:
    train, test = write.random_images(10, 96, 96, 3), write.random_images(2, 96, 96, 3, seed=1)
    write.write_stl10(tmp_path / "stl10_binary", (train, range(1, 11)), (test, [10, 1]))
    data = datasets.load("stl10", tmp_path)
    np.testing.assert_array_equal(data.train.images.numpy(), np.moveaxis(train, -1, 1))
    assert data.train.labels.tolist() == list(range(10)) and data.test.labels.tolist() == [9, 0]


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3)])
def test_npz(tmp_path: Path, shape: tuple[int, ...]) -> None:
    train, test = write.random_images(12, *shape), write.random_images(6, *shape)
    data = datasets.load("npz", write.write_npz(tmp_path / "own.npz", train_images=train, test_images=test))
    expected = train[:, None] if len(shape) == 2 else np.moveaxis(train, -1, 1)
    np.testing.assert_array_equal(data.train.images.numpy(), expected)
    assert data.title == "own" and data.class_names == ("0", "1", "2") and len(data.test.labels) == 6


@pytest.mark.parametrize("name", ["set", "set.tar", "set.tar.gz", "set.tar.xz"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_folder_and_archive_give_the_same(tmp_path: Path, name: str, mode: str) -> None:
    files = write.pictures(3, mode=mode)
    noise = {"train/ant/._0000.png": b"resource fork", "train/ant/notes.txt": b"not a picture"}
    if name == "set":
        write.write_folder(tmp_path / name, files | noise)
    else:
        write.write_archive(tmp_path / name, files | noise, prefix="top/")
    left_out = r"left out 1 hidden \(train/ant/._0000.png\), 1 without the ending of an image \(train/ant/notes.txt\)"
    with pytest.warns(UserWarning, match=left_out):
        data = datasets.load("folder", tmp_path / name)
    assert data.title == "set" and data.class_names == ("ant", "bee")
    assert data.train.images.shape == (6, 3 if mode == "RGB" else 1, 8, 8)
    assert data.train.images[:, 0, 4, 4].tolist() == [0, 1, 2, 10, 11, 12]
    assert data.test.images[:, 0, 4, 4].tolist() == [100, 101, 102, 110, 111, 112]
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    if mode == "RGB":
        assert data.train.images[3, :, 0, 0].tolist() == [10, 245, 7]


@pytest.mark.parametrize("gray", ["train/bee/0001.png", "test/ant/0000.png"])
def test_a_gray_picture_among_coloured_ones_gets_three_channels(tmp_path: Path, gray: str) -> None:
    files = write.pictures(2) | {gray: write.picture(77, mode="L")}
    data = datasets.load("folder", write.write_folder(tmp_path, files))
    half = data.train if gray.startswith("train") else data.test
    index = 3 if gray.startswith("train") else 0
    assert data.train.images.shape[1] == data.test.images.shape[1] == 3
    assert half.images[index, :, 0, 0].tolist() == [77, 77, 77]


def test_only_gray_training_pictures_follow_a_coloured_test_half(tmp_path: Path) -> None:
    files = write.pictures(2, mode="L") | {"test/ant/0000.png": write.picture(9)}
    data = datasets.load("folder", write.write_folder(tmp_path, files))
    assert data.train.images.shape == (4, 3, 8, 8) and data.test.images[0, :, 0, 0].tolist() == [9, 246, 7]
    assert len(data.mean) == len(data.std) == 3


def test_only_the_chosen_pictures_are_decoded(tmp_path: Path) -> None:
    files = write.pictures(3)
    data = datasets.load("folder", write.write_folder(tmp_path, files), examples_per_class=2)
    kept = [write.picture(int(shade)) for shade in data.train.images[:, 0, 0, 0]]
    left_out = [name for name in files if name.startswith("train") and files[name] not in kept]
    assert len(left_out) == 2
    for name in left_out:
        (tmp_path / name).write_bytes(b"never opened")
    again = datasets.load("folder", tmp_path, examples_per_class=2)
    assert again.train.images.equal(data.train.images)


def test_pixel_statistics_are_those_of_the_training_images(tmp_path: Path) -> None:
    train = write.random_images(12, 6, 5, 3)
    train[..., 2] = 51  # a constant channel is only shifted
    test = write.random_images(6, 6, 5, 3, seed=3)
    data = datasets.load("npz", write.write_npz(tmp_path / "a.npz", train_images=train, test_images=test))
    np.testing.assert_allclose(data.mean, (train / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(data.std[:2], (train / 255).std(axis=(0, 1, 2))[:2], rtol=1e-12)
    assert data.std[2] == 1


def test_real_mnist() -> None:
    root = write.real_data("mnist")
    data = datasets.load("mnist", root)
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(data.train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.mean == pytest.approx((0.1307,), abs=5e-5) and data.std == pytest.approx((0.3081,), abs=5e-5)


def test_real_fashion_mnist() -> None:
    data = datasets.load("fashion-mnist", write.real_data("fashion-mnist"))
    assert data.class_names[data.train.labels[0]] == "Ankle boot"
    assert np.bincount(data.train.labels).tolist() == [6000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.mean == pytest.approx((0.2860,), abs=5e-5) and data.std == pytest.approx((0.3530,), abs=5e-5)


def test_real_cifar10_pictures() -> None:
    data = datasets.load("cifar10", write.real_data("cifar10-jpeg.tar.xz"), examples_per_class=50)
    assert data.title == "CIFAR10 (JPEG)" and np.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.train.images.shape == (500, 3, 32, 32)
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.03)
