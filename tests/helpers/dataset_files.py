"""Writes small data sets byte by byte, as the pages that publish the formats describe them."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat


def random_images(number: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (number, *shape)).astype(np.uint8)


def idx_bytes(values: np.ndarray) -> bytes:
    """Two zero bytes, 0x08 for unsigned byte, the number of dimensions, each size as MSB-first 32 bits, the bytes."""
    header = b"\x00\x00\x08" + bytes([values.ndim])
    return header + b"".join(size.to_bytes(4, "big") for size in values.shape) + values.tobytes()


def write_idx(folder: Path, train: tuple, test: tuple, *, zipped: bool = False) -> Path:
    """`train` and `test` are (images, labels)."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in (("train", train), ("t10k", test)):
        for stem, values in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = idx_bytes(np.asarray(values, dtype=np.uint8))
            if zipped:
                (folder / f"{stem}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / stem).write_bytes(content)
    return folder


def write_cifar_binary(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    """Six files: <label byte><1024 red><1024 green><1024 blue>, each channel row by row; images (6, m, 3, 32, 32)."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    for name, batch, batch_labels in zip(names, images, labels, strict=True):
        records = (
            bytes([label]) + red.tobytes() + green.tobytes() + blue.tobytes()
            for (red, green, blue), label in zip(batch, batch_labels, strict=True)
        )
        (folder / name).write_bytes(b"".join(records))
    return folder


def python2_batch(images: np.ndarray, labels: list[int]) -> bytes:
    """A CIFAR10 batch as Python 2 and NumPy 1 pickled it (protocol 2, byte strings, numpy.core), opcode by opcode."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING

    data = images.tobytes()
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    shape = b"".join(b"J" + size.to_bytes(4, "little") for size in images.shape)
    array += b"(K\x01" + shape + b"\x86" + dtype + b"\x89T" + len(data).to_bytes(4, "little") + data + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


def write_cifar_python(folder: Path, images: np.ndarray, labels: np.ndarray, *, modern: bool = False) -> Path:
    """Six pickled dictionaries with `data`, one row of 3072 bytes an image, and `labels`; images (6, m, 3, 32, 32)."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name, batch, batch_labels in zip(names, images, labels, strict=True):
        rows, listed = batch.reshape(len(batch), -1), [int(label) for label in batch_labels]
        content = {b"data": rows, b"labels": listed}
        (folder / name).write_bytes(pickle.dumps(content, protocol=5) if modern else python2_batch(rows, listed))
    return folder


def write_cifar100(folder: Path, train: tuple, test: tuple, *, version: str) -> Path:
    """<coarse label><fine label><3072 pixels>, or dictionaries with `data`, `fine_labels`, `coarse_labels` and more.

    `train` and `test` are (images (n, 3, 32, 32), fine labels); the coarse label here is the fine one modulo 20.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, fine) in (("train", train), ("test", test)):
        listed = [int(label) for label in fine]
        coarse = [label % 20 for label in listed]
        if version == "binary":
            records = (bytes([c, f]) + image.tobytes() for c, f, image in zip(coarse, listed, images, strict=True))
            (folder / f"{name}.bin").write_bytes(b"".join(records))
            continue
        content = {
            b"filenames": [b"a_s_%06d.png" % index for index in range(len(listed))],
            b"batch_label": b"training batch 1 of 1",
            b"fine_labels": listed,
            b"coarse_labels": coarse,
            b"data": images.reshape(len(listed), -1),
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def write_svhn(folder: Path, train: tuple, test: tuple) -> Path:
    """X is (32, 32, 3, n), y is (n, 1) with 1 … 10, where 10 is the digit 0; `train`, `test` are (NHWC images, y)."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in (("train", train), ("test", test)):
        content = {"X": np.moveaxis(images, 0, -1), "y": np.asarray(labels, dtype=np.uint8)[:, None]}
        savemat(folder / f"{part}_32x32.mat", content, do_compression=True)
    return folder


def write_stl10(folder: Path, train: tuple, test: tuple) -> Path:
    """Red, green, blue of 96 × 96, each channel column by column; labels 1 … 10; `train`, `test` are (NHWC, labels)."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in (("train", train), ("test", test)):
        with (folder / f"{part}_X.bin").open("wb") as file:
            for image in images:
                for channel in range(3):
                    for column in range(96):
                        file.write(image[:, column, channel].tobytes())
        (folder / f"{part}_y.bin").write_bytes(bytes(labels))
    return folder


def write_npz(path: Path, **changes: np.ndarray) -> Path:
    """Three classes, four training and two test images of 6 × 5 pixels each."""
    arrays = {
        "train_images": random_images(12, 6, 5),
        "train_labels": np.arange(12) % 3,
        "test_images": random_images(6, 6, 5, seed=1),
        "test_labels": np.arange(6) % 3,
    }
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


def picture(shade: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    """A PNG of one shade; in colour, of three different ones."""
    file = io.BytesIO()
    color = (shade, 255 - shade, 7) if mode == "RGB" else shade
    Image.new(mode, size, color).save(file, "PNG")
    return file.getvalue()


def pictures(per_class: int = 3, classes: tuple[str, ...] = ("ant", "bee"), mode: str = "RGB") -> dict[str, bytes]:
    """Names train/<class>/<id>.png and test/<class>/<id>.png with their contents; shade 10·class + id, +100 in test."""
    return {
        f"{half}/{name}/{number:04}.png": picture(10 * label + number + 100 * (half == "test"), mode=mode)
        for half in ("train", "test")
        for label, name in enumerate(classes)
        for number in range(per_class)
    }


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_archive(path: Path, files: dict[str, bytes], prefix: str = "") -> Path:
    ending = path.name.rpartition(".tar")[2].lstrip(".")
    with tarfile.open(path, f"w:{ending}") as archive:
        for name, content in reversed(files.items()):  # so that no reader can rely on the order
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def real_data(*names: str) -> Path:
    """A folder with real data: NEURALCOLLAPSE_DATA; skips the test without."""
    root = os.environ.get("NEURALCOLLAPSE_DATA")
    if root and all((Path(root) / name).exists() for name in names):
        return Path(root)
    pytest.skip(f"needs {' and '.join(names)} in NEURALCOLLAPSE_DATA")
