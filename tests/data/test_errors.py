"""Missing, damaged and contradictory data: one line that names the file, what was expected and what was found."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers import dataset_files as write

from neuralcollapse import data as datasets
from neuralcollapse._checks import InputError


@pytest.fixture(autouse=True)
def _nothing_to_find(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test writes can be found."""
    empty = tmp_path_factory.mktemp("empty")
    monkeypatch.chdir(empty)
    monkeypatch.setenv("HOME", str(empty))
    monkeypatch.delenv("NEURALCOLLAPSE_DATA", raising=False)


def message(*arguments: object, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        datasets.load(*arguments, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    return text


def mnist(folder: Path, labels: list[int] | None = None) -> Path:
    given = list(range(10)) if labels is None else labels
    images = write.random_images(10, 4, 4)
    return write.write_idx(folder, (images, given), (images, range(10)))


def cifar(folder: Path, kind: str) -> Path:
    images = write.random_images(12, 3, 32, 32).reshape(6, 2, 3, 32, 32)
    writer = write.write_cifar_binary if kind == "bin" else write.write_cifar_python
    return writer(folder, images, np.zeros((6, 2), dtype=int))


def truncate(path: Path, by: int = 1) -> str:
    path.write_bytes(path.read_bytes()[:-by])
    return str(path)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn", "stl10"])
def test_missing_data_says_where_it_looked_and_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("NEURALCOLLAPSE_DATA", str(tmp_path / "named"))
    monkeypatch.setattr(
        "neuralcollapse.data.registry.search_roots", lambda given: [tmp_path / "given", tmp_path / "named"]
    )
    text = message(name, tmp_path)
    assert text.startswith(f"{name} not found")
    assert all(str(tmp_path / root) in text for root in ("given", "named"))
    assert "torchvision" in text and "--data-dir" in text and "NEURALCOLLAPSE_DATA" in text


def test_the_search_goes_from_the_environment_to_the_usual_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURALCOLLAPSE_DATA", str(tmp_path / "named"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "home/data/mnist", tmp_path / "data/MNIST/raw", tmp_path / "named"):
        mnist(place)
        assert datasets.load("mnist").source == str(place)


def test_a_given_folder_is_the_only_one_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tmp_path / "given"
    given.mkdir()
    monkeypatch.setenv("NEURALCOLLAPSE_DATA", str(mnist(tmp_path / "named")))
    text = message("mnist", given)
    assert str(given) in text and str(tmp_path / "named") not in text
    mnist(given / "mnist")
    assert datasets.load("mnist", given).source == str(given / "mnist")


def test_digits_need_no_folder(tmp_path: Path) -> None:
    assert message("digits", tmp_path) == (
        f"--data-dir {tmp_path} is not used: digits come with scikit-learn; leave it out"
    )
    assert datasets.available(tmp_path)[0].problem == ""


def test_mnist_is_not_taken_for_fashion_mnist(tmp_path: Path) -> None:
    assert "not found" in message("fashion-mnist", mnist(tmp_path / "mnist"))
    assert "not found" in message("mnist", mnist(tmp_path / "FashionMNIST" / "raw"))


def test_a_data_dir_that_does_not_exist_is_said_so(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert f"{gone} does not exist" in message("mnist", gone)
    with pytest.raises(InputError, match="does not exist"):
        datasets.available(gone)


def test_unknown_name() -> None:
    assert "imagenet" in message("imagenet") and "digits" in message("imagenet")


@pytest.mark.parametrize("name", ["folder", "npz"])
def test_own_data_need_a_path_that_exists(tmp_path: Path, name: str) -> None:
    assert "--data-dir" in message(name)
    assert str(tmp_path / "gone") in message(name, tmp_path / "gone")


def test_truncated_idx(tmp_path: Path) -> None:
    path = truncate(mnist(tmp_path) / "train-images-idx3-ubyte", 3)
    text = message("mnist", tmp_path)
    assert path in text and "160 bytes" in text and "157" in text


def test_idx_shorter_than_its_header(tmp_path: Path) -> None:
    path = mnist(tmp_path) / "t10k-images-idx3-ubyte"
    path.write_bytes(b"\x00\x00\x08\x03\x00")
    assert str(path) in message("mnist", tmp_path)


def test_truncated_gzip(tmp_path: Path) -> None:
    path = mnist(tmp_path) / "train-images-idx3-ubyte"
    zipped = path.with_name(path.name + ".gz")
    zipped.write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()
    assert str(zipped) in message("mnist", tmp_path)


def test_images_and_labels_exchanged(tmp_path: Path) -> None:
    images = mnist(tmp_path) / "train-images-idx3-ubyte"
    images.write_bytes((tmp_path / "train-labels-idx1-ubyte").read_bytes())
    text = message("mnist", tmp_path)
    assert str(images) in text and "00000803" in text and "00000801" in text


def test_idx_labels_out_of_range_or_too_few(tmp_path: Path) -> None:
    text = message("mnist", mnist(tmp_path / "a", [0, 1, 2, 3, 4, 5, 6, 17, 8, 9]))
    assert "train-labels" in text and "0..9" in text and "17" in text and "example 7" in text
    text = message("mnist", mnist(tmp_path / "b", [0, 1, 2]))
    assert "train-images" in text and "3 images" in text and "10" in text


def test_empty_idx(tmp_path: Path) -> None:
    nothing = np.zeros((0, 4, 4))
    write.write_idx(tmp_path, (nothing, []), (nothing, []))
    assert "empty" in message("mnist", tmp_path)


def test_truncated_cifar_binary(tmp_path: Path) -> None:
    path = truncate(cifar(tmp_path, "bin") / "data_batch_3.bin")
    text = message("cifar10", tmp_path)
    assert path in text and "3,073" in text and "6,145" in text


def test_truncated_cifar_pickle(tmp_path: Path) -> None:
    path = truncate(cifar(tmp_path, "py") / "data_batch_3", 50)
    size = (tmp_path / "data_batch_3").stat().st_size
    text = message("cifar10", tmp_path)
    assert path in text and f"{size:,}" in text


@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar100_with_a_label_too_large_or_a_file_cut_short(tmp_path: Path, version: str) -> None:
    images, name = write.random_images(3, 3, 32, 32), "test.bin" if version == "binary" else "test"
    write.write_cifar100(tmp_path, (images, [0, 1, 99]), (images, [0, 1, 100]), version=version)
    text = message("cifar100", tmp_path)
    assert str(tmp_path / name) in text and "0..99" in text and "100" in text
    assert truncate(tmp_path / name) in message("cifar100", tmp_path)


class _Runs:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize(
    "content", [{b"data": _Runs()}, {b"data": 3, b"labels": [1]}, [1, 2], {b"data": eval, b"labels": []}]
)
def test_a_foreign_pickle_runs_nothing(tmp_path: Path, content: object) -> None:
    path = cifar(tmp_path, "py") / "test_batch"
    path.write_bytes(pickle.dumps(content))
    assert str(path) in message("cifar10", tmp_path)
    for name in ("train", "test"):
        (tmp_path / name).write_bytes(pickle.dumps(content))
    assert str(tmp_path / "train") in message("cifar100", tmp_path)
    assert not Path("ran").exists()


@pytest.mark.parametrize("labels", [[0], [0, 10], [0, -1], [0, "1"]])
def test_cifar_pickle_with_wrong_labels(tmp_path: Path, labels: list) -> None:
    path = cifar(tmp_path, "py") / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), dtype=np.uint8), b"labels": labels}))
    text = message("cifar10", tmp_path)
    assert str(path) in text and "labels" in text


def test_damaged_svhn(tmp_path: Path) -> None:
    images = write.random_images(3, 32, 32, 3)
    write.write_svhn(tmp_path, (images, [1, 2, 3]), (images, [1, 2]))
    text = message("svhn", tmp_path)
    assert "test_32x32.mat" in text and "3 labels" in text and "2" in text
    write.write_svhn(tmp_path, (images, [1, 2, 11]), (images, [1, 2, 3]))
    assert "11" in message("svhn", tmp_path)
    path = truncate(tmp_path / "train_32x32.mat", 2000)
    assert path in message("svhn", tmp_path)
    (tmp_path / "train_32x32.mat").write_bytes(b"")
    assert path in message("svhn", tmp_path)


def test_damaged_stl10(tmp_path: Path) -> None:
    images = write.random_images(2, 96, 96, 3)
    write.write_stl10(tmp_path, (images, [1, 10]), (images, [0, 10]))
    text = message("stl10", tmp_path)
    assert "test_y.bin" in text and "1..10" in text and "0..10" in text
    path = truncate(tmp_path / "train_X.bin", 5)
    text = message("stl10", tmp_path)
    assert path in text and "55,296" in text and "55,291" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test_labels": None}, ["test_labels"]),
        ({"train_labels": np.arange(11) % 3}, ["train_labels", "12", "11"]),
        ({"train_labels": np.arange(12) % 3 + 1}, ["0..3", "0"]),
        ({"train_labels": np.arange(12) % 3 - 1}, ["-1"]),
        ({"train_labels": np.arange(12) * 10**15}, ["no example of 1"]),
        ({"train_labels": np.arange(12) / 2}, ["float64"]),
        ({"test_labels": np.array([0, 1, 2, 0, 1, 9])}, ["test_labels", "0..2", "9", "example 5"]),
        ({"train_images": np.zeros((12, 6, 5))}, ["train_images", "uint8", "float64"]),
        ({"train_images": np.zeros((12, 3, 6, 5), dtype=np.uint8)}, ["train_images", "(12, 3, 6, 5)"]),
        ({"test_images": write.random_images(6, 5, 6)}, ["differ", "(6, 5)", "(5, 6)"]),
        ({"train_labels": np.array([object()] * 12)}, ["train_labels", "pickled objects"]),
    ],
)
def test_wrong_npz(tmp_path: Path, changes: dict, words: list[str]) -> None:
    path = write.write_npz(tmp_path / "own.npz", **changes)
    text = message("npz", path)
    assert str(path) in text and all(word in text for word in words)


def test_damaged_npz(tmp_path: Path) -> None:
    path = truncate(write.write_npz(tmp_path / "own.npz"), 30)
    assert path in message("npz", Path(path))
    Path(path).write_bytes(b"no zip")
    assert path in message("npz", Path(path))


def test_pictures_without_a_split(tmp_path: Path) -> None:
    unsplit = {name.removeprefix("train/"): content for name, content in write.pictures().items()}
    text = message("folder", write.write_folder(tmp_path / "a", unsplit))
    assert "not split into train/ and test/" in text
    assert "not split" in message("folder", write.write_archive(tmp_path / "a.tar.gz", unsplit))
    only_train = {name: content for name, content in write.pictures().items() if name.startswith("train")}
    assert "under test/" in message("folder", write.write_folder(tmp_path / "b", only_train))


def test_classes_that_do_not_match(tmp_path: Path) -> None:
    extra = write.pictures() | {"test/cat/1.png": write.picture(3)}
    assert "cat" in message("folder", write.write_folder(tmp_path / "a", extra))
    assert "two classes" in message("folder", write.write_folder(tmp_path / "b", write.pictures(2, ("ant",))))
    archive = write.write_archive(tmp_path / "cifar10-jpeg.tar.xz", write.pictures())
    assert "airplane" in message("cifar10", archive)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (write.picture(1, (8, 9)), ["8 × 9", "8 × 8", "train/ant/0000.png", "one size"]),
        (write.picture(1, (2000, 1)), ["2000 × 1", "512"]),
        (write.picture(1, mode="I;16"), ["8 bits"]),
        (write.picture(1)[:40], ["damaged"]),
        (b"", ["damaged"]),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", ["damaged"]),
    ],
)
@pytest.mark.parametrize("archive", [False, True])
def test_a_wrong_picture_is_named(tmp_path: Path, archive: bool, content: bytes, words: list[str]) -> None:
    files = write.pictures() | {"train/bee/0001.png": content}
    path = write.write_archive(tmp_path / "a.tar", files) if archive else write.write_folder(tmp_path / "a", files)
    text = message("folder", path)
    assert "train/bee/0001.png" in text and all(word in text for word in words)


def test_more_pictures_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write.pictures()
    path = write.write_archive(tmp_path / "a.tar.gz", files)
    monkeypatch.setattr("neuralcollapse.data.archive.LARGEST_UNPACKED", sum(map(len, files.values())) - 1)
    assert "GiB" in message("folder", path)
    monkeypatch.setattr("neuralcollapse.data.folder.LARGEST_SET", 6 * 8 * 8 * 3 - 1)
    assert "memory" in message("folder", write.write_folder(tmp_path / "b", files))


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz"])
def test_truncated_archive(tmp_path: Path, ending: str) -> None:
    path = write.write_archive(tmp_path / f"a.{ending}", write.pictures())
    stored = path.read_bytes()
    for size in (0, 10, len(stored) // 3):
        path.write_bytes(stored[:size])
        assert str(path) in message("folder", path)


def test_too_few_examples_of_a_class(tmp_path: Path) -> None:
    path = write.write_folder(tmp_path, write.pictures() | {"train/ant/9.png": write.picture(5)})
    text = message("folder", path, examples_per_class=4)
    assert "got 3 of class 1 (bee)" in text


@pytest.mark.parametrize("options", [{"examples_per_class": 0}, {"examples_per_class": 2, "seed": -1}])
def test_impossible_draws(options: dict) -> None:
    message("digits", **options)


def test_available_lists_what_is_broken_with_the_reason(tmp_path: Path) -> None:
    truncate(mnist(tmp_path / "mnist") / "train-images-idx3-ubyte")
    mnist(tmp_path / "fashion-mnist")
    found = {item.name: item for item in datasets.available(tmp_path)}
    assert found["digits"].train[0] == 148 and found["digits"].test == 300
    assert "train-images-idx3-ubyte" in found["mnist"].problem and not found["mnist"].train
    assert found["fashion-mnist"].train == (1,) * 10 and not found["fashion-mnist"].problem
    assert found["stl10"].problem == "not found"


def test_available_lists_ones_own_data(tmp_path: Path) -> None:
    path = write.write_folder(tmp_path / "a", write.pictures())
    assert (datasets.available(path)[-1].name, datasets.available(path)[-1].train) == ("folder", (3, 3))
    path = write.write_npz(tmp_path / "own.npz")
    assert (datasets.available(path)[-1].name, datasets.available(path)[-1].train) == ("npz", (4, 4, 4))


def test_halves_of_different_sizes_are_refused(tmp_path: Path) -> None:
    images = write.random_images(10, 4, 4), write.random_images(10, 4, 6)
    write.write_idx(tmp_path, (images[0], range(10)), (images[1], range(10)))
    assert message("mnist", tmp_path).endswith("training and test images differ in size: 4 × 4 and 4 × 6 pixels")
