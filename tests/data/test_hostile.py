"""Files that mean harm: no more memory than a set of their size needs, no crash, one sentence."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import dataset_files as write
from PIL import Image
from scipy.io import loadmat, savemat

from neuralcollapse import InputError
from neuralcollapse import data as datasets
from neuralcollapse.data.mat5 import read_mat5
from neuralcollapse.data.pickles import read_pickle

MOST = 48 << 20


@pytest.fixture(autouse=True)
def _nothing_to_find(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralcollapse.data.registry.search_roots", lambda given: [given])


def refused(name: str, path: Path, *parts: str) -> str:
    """One sentence, and little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            datasets.load(name, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600 and all(part in text for part in parts), text
    assert peak < MOST, f"{peak >> 20} MiB"
    found = {item.name: item for item in datasets.available(path)}
    assert found[name].problem == text and found["digits"].test == 300  # and the others are listed all the same
    return text


def cifar(folder: Path, batch: bytes) -> Path:
    images, labels = write.random_images(6, 3, 32, 32).reshape(6, 1, 3, 32, 32), np.arange(6).reshape(6, 1)
    write.write_cifar_python(folder, images, labels)
    (folder / "data_batch_4").write_bytes(batch)
    return folder


def text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value


DEEP_KEY = b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s."
ENCODED = b"\x80\x02](c_codecs\nencode\nq\x00X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
ENCODED += b"q\x01X\x06\0\0\0latin1q\x02" + b"h\x00h\x01h\x02\x86R" * 2000 + b"e."


@pytest.mark.parametrize(
    "batch",
    [
        b"\x80\x02]r\xff\xff\xff\x07.",  # the place of the memo that took 2 GiB
        b"\x80\x02]r\xff\xff\xff\xff.",
        b"\x80\x02]p99999999999\n.",
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",  # a byte array, bytes and a text longer than the file
        b"\x80\x05\x8e" + struct.pack("<Q", 1 << 40) + b".",
        b"\x80\x02X\xff\xff\xff\x7fa.",
        b"\x80\x04\x95" + struct.pack("<Q", (1 << 63) - 1) + b"].",  # a frame
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # an integer of 2 GiB
        b"I" + b"9" * 5000 + b"\n.",
        b"\x80\x02cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02cnumpy\ndtype\n" + text(b"V2147483647") + b"\x85R.",
        DEEP_KEY,  # whose hash ended Python
        ENCODED,  # which took 2 GiB for 1 MiB of text
        b"\x80\x02" + b"(" * 100_000,
        b"\x80\x02cos\nsystem\n" + text(b"touch ran") + b"\x85R.",
        b"\x80\x02cneuralcollapse\nInputError\n)R.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02c_codecs\nencode\nN}q\x00" + text(b"room") + b"J\xff\xff\xff\x7fs\x86b.",  # a state of a function
        b"\x80\x02c_codecs\nencode\n}" + text(b"room") + b"K\x01sb.",
        b"\x80\x02cnumpy\ndtype\nN}" + text(b"code") + b"K\x01s\x86b.",  # and of a type
        b"\x80\x02cnumpy\ndtype\n}" + text(b"code") + b"K\x01sb.",
        b"",
        b".",
    ],
)
def test_pickles_that_mean_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    refused("cifar10", cifar(tmp_path, batch), "data_batch_4")
    assert not Path("ran").exists()


@pytest.mark.parametrize("protocol", range(1, 6))
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickles_are_read_as_python_reads_them(protocol: int, order: Any) -> None:
    arrays = {kind: np.arange(12).reshape(3, 4).astype(kind, order=order) for kind in ("u1", ">i4", "<f8", "f2", "?")}
    content = {
        b"labels": [1, -2, 1 << 40, 255, 70_000],
        b"words": ["ä", b"\xff", None, True, 2.5, (1, (2, ()))],
        **arrays,
    }
    found = read_pickle(pickle.dumps(content, protocol))
    assert found.keys() == content.keys() and found[b"labels"] == content[b"labels"]
    assert found[b"words"] == content[b"words"]
    for kind, array in arrays.items():
        assert found[kind].dtype == array.dtype and np.array_equal(found[kind], array)


@pytest.mark.parametrize("protocol", range(1, 6))
def test_a_batch_pickled_again_by_python_3_is_read(protocol: int) -> None:
    """Up to protocol 2 it calls a function for each of its ten thousand names."""
    content = {b"filenames": [b"%06d.png" % number for number in range(10_000)], b"labels": [1] * 10_000}
    assert read_pickle(pickle.dumps(content, protocol)) == content


@pytest.mark.parametrize("labels", [[2.7], [10**400], [True], ["1"], [b"1"], [None], (1,)])
def test_labels_of_a_pickle_that_are_no_integers(tmp_path: Path, labels: Any) -> None:
    content = {b"data": np.zeros((1, 3072), np.uint8), b"labels": labels}
    refused("cifar10", cifar(tmp_path, pickle.dumps(content)), "data_batch_4", "integer labels")


def mnist(folder: Path) -> Path:
    images = write.random_images(3, 4, 4)
    return write.write_idx(folder, (images, [0, 1, 2]), (images, [0, 1, 2]))


def zeros(size: int, before: bytes = b"") -> bytes:
    """So many zeros in a gzip file."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(before)] + [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b"".join([*parts, packer.flush()])


@pytest.mark.parametrize(
    ("part", "header", "words"),
    [
        ("train-images-idx3", (3, 4, 4), ["expected 48 bytes", "more than 48"]),
        ("train-images-idx3", (1 << 30, 4, 4), ["expected 3 images", "1,073,741,824"]),
        ("train-images-idx3", (3, 1 << 15, 1 << 15), ["512 pixels"]),
        ("train-images-idx3", (3, 0xFFFFFFFF, 0), ["512 pixels"]),
        ("t10k-labels-idx1", (3,), ["expected 3 bytes", "more than 3"]),
        ("t10k-labels-idx1", (0xFFFFFFFF,), ["at most", "4,294,967,295"]),
    ],
)
def test_idx_files_that_unpack_to_more_than_they_say(
    tmp_path: Path, part: str, header: tuple[int, ...], words: list[str]
) -> None:
    mnist(tmp_path)
    (tmp_path / f"{part}-ubyte").unlink()
    before = bytes([0, 0, 8, len(header)]) + struct.pack(f">{len(header)}I", *header)
    (tmp_path / f"{part}-ubyte.gz").write_bytes(zeros(256 << 20, before))
    refused("mnist", tmp_path, part, *words)


@pytest.mark.parametrize("position", [0.3, 0.6, 0.9])
def test_a_flipped_bit_in_gzip_is_found(tmp_path: Path, position: float) -> None:
    images = write.random_images(10, 8, 8)
    write.write_idx(tmp_path, (images, range(10)), (images, range(10)), zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 16
    path.write_bytes(content)
    refused("mnist", tmp_path, "train-images-idx3-ubyte.gz")


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


@pytest.mark.parametrize(
    ("name", "size"), [("train_X.bin", 1 << 43), ("test_X.bin", 1 << 33), ("train_y.bin", 1 << 40)]
)
def test_stl10_of_terabytes(tmp_path: Path, name: str, size: int) -> None:
    images = write.random_images(2, 96, 96, 3)
    write.write_stl10(tmp_path, (images, [1, 2]), (images, [1, 2]))
    sparse(tmp_path / name, size)
    refused("stl10", tmp_path, name, f"{size:,}")


@pytest.mark.parametrize("ending", ["", ".bin"])
def test_cifar_of_terabytes(tmp_path: Path, ending: str) -> None:
    cifar(tmp_path, b"")
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name + ending))
    sparse(tmp_path / f"data_batch_1{ending}", 3073 << 30)
    refused("cifar10", tmp_path, "data_batch_1", f"{3073 << 30:,}")


def svhn(folder: Path, **changes: Any) -> Path:
    images = np.moveaxis(write.random_images(3, 32, 32, 3), 0, -1)
    for part in ("train", "test"):
        content = {"X": images, "y": np.array([[1], [10], [3]], np.uint8)} | (changes if part == "test" else {})
        savemat(folder / f"{part}_32x32.mat", content, do_compression=True)
    return folder


KINDS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_matlab_files_are_read_as_scipy_reads_them(tmp_path: Path, kind: str, packed: bool) -> None:
    arrays = {"X": np.arange(24).reshape(2, 3, 4).astype(kind), "y": np.arange(3).reshape(3, 1).astype(kind)}
    arrays |= {"one": np.ones((1, 1), kind), "empty": np.ones((0, 2), kind)}
    others = {"words": "text", "cells": np.array([1, "a"], object), "parts": {"a": 1}, "z": np.ones(2) * 1j}
    savemat(tmp_path / "a.mat", {**others, **arrays}, do_compression=packed)
    found, expected = read_mat5(tmp_path / "a.mat", (*arrays, *others)), loadmat(tmp_path / "a.mat")
    assert found.keys() == arrays.keys()
    for name in arrays:
        assert found[name].dtype == expected[name].dtype and np.array_equal(found[name], expected[name])


def test_matlab_files_of_the_other_byte_order_are_read(tmp_path: Path) -> None:
    """Built by hand from MathWorks' description of the format, numbers stored narrower than they are among them."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(">2I", kind, len(content)) + content + bytes(-len(content) % 8)

    parts = element(6, struct.pack(">2I", 6, 0)) + element(5, struct.pack(">2i", 2, 3)) + element(1, b"y")
    parts += element(3, struct.pack(">6h", 1, 2, 3, 4, 5, -6))
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI" + element(14, parts))
    found = read_mat5(tmp_path / "a.mat", ("y",))["y"]
    assert found.dtype == np.float64 and found.tolist() == [[1, 3, 5], [2, 4, -6]]


@pytest.mark.parametrize("label", [2.7, np.nan, np.inf, -1.0, 11.0, 1e300])
def test_svhn_labels_that_are_none(tmp_path: Path, label: float) -> None:
    refused("svhn", svhn(tmp_path, y=np.array([[1.0], [label], [3.0]])), "test_32x32.mat", "example 1")


@pytest.mark.parametrize("dtype", KINDS)
def test_svhn_labels_of_every_type_are_read(tmp_path: Path, dtype: str) -> None:
    data = datasets.load("svhn", svhn(tmp_path, y=np.array([[1], [10], [3]]).astype(dtype)))
    assert data.test.labels.tolist() == [1, 0, 3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"X": np.zeros((32, 32, 3, 3))}, ["uint8", "float64"]),
        ({"X": np.zeros((32, 32, 3, 3), np.int8)}, ["uint8", "int8"]),
        ({"X": np.zeros((32, 32, 3), np.uint8)}, ["(32, 32, 3)"]),
        ({"X": "text"}, ["no X"]),
        ({"y": np.array([[True], [False], [True]])}, ["no y"]),
        ({"y": np.array([1j, 2, 3])}, ["no y"]),
    ],
)
def test_svhn_of_other_arrays(tmp_path: Path, change: dict[str, Any], words: list[str]) -> None:
    refused("svhn", svhn(tmp_path, **change), "test_32x32.mat", *words)


def packed_element(shape: tuple[int, ...], announced: int, megabytes: int, name: bytes = b"X") -> bytes:
    """A compressed array of zeros of a MATLAB file."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<2I", kind, len(content)) + content + bytes(-len(content) % 8)

    head = element(6, struct.pack("<2I", 9, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, name)
    packer = zlib.compressobj(9)
    parts = [packer.compress(struct.pack("<2I", 14, 1 << 31) + head + struct.pack("<2I", 2, announced))]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(megabytes)] + [packer.flush()]
    content = b"".join(parts)
    return struct.pack("<2I", 15, len(content)) + content


@pytest.mark.parametrize(
    ("shape", "announced"),
    [((32, 32, 3, 3), 32 * 32 * 3 * 3), ((32, 32, 3, 1 << 20), 3072 << 20), ((32, 32, 3, 3), 1 << 31), ((-1, 5), 8)],
)
def test_svhn_that_unpacks_to_more_than_it_says(tmp_path: Path, shape: tuple[int, ...], announced: int) -> None:
    path = svhn(tmp_path) / "train_32x32.mat"
    stored = path.read_bytes()
    (size,) = struct.unpack_from("<I", stored, 132)
    path.write_bytes(stored[:128] + packed_element(shape, announced & 0xFFFFFFFF, 256) + stored[136 + size :])
    refused("svhn", tmp_path, "train_32x32.mat")


@pytest.mark.parametrize(
    "content", [b"", b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400), bytes(4096), b"\x89HDF"]
)
def test_matlab_files_of_other_versions(tmp_path: Path, content: bytes) -> None:
    (svhn(tmp_path) / "train_32x32.mat").write_bytes(content)
    refused("svhn", tmp_path, "train_32x32.mat", "version 5 to 7")


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, **more: Any) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    for key, value in more.items():
        setattr(member, key, value)
    return member.tobuf(tarfile.PAX_FORMAT)


def archive(path: Path, extra: bytes, zeros_after: int) -> Path:
    """An archive of a few pictures, and behind them one member more of so many zeros."""
    write.write_archive(path.with_suffix(".plain.tar"), write.pictures(2))
    stored = path.with_suffix(".plain.tar").read_bytes().rstrip(b"\0")
    stored += bytes(-len(stored) % 512) + extra
    opener: Callable[..., Any] = {".gz": gzip.open, ".xz": lzma.open, ".tar": open}[path.suffix]
    with opener(path, "wb") as file:
        file.write(stored)
        for _ in range(zeros_after >> 20):
            file.write(bytes(1 << 20))
        file.write(bytes(1024))
    path.with_suffix(".plain.tar").unlink()
    return path


SPARSE = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 33), "GNU.sparse.numblocks": "1"}


@pytest.mark.parametrize(
    ("name", "extra", "size"),
    [
        (
            "a.tar",
            header("train/ant/9.png", 512, pax_headers={**SPARSE, "GNU.sparse.name": "train/ant/9.png"}),
            1 << 20,
        ),
        ("a.tar.gz", header("train/ant/9.png", 256 << 20), 256 << 20),
        ("a.tar.gz", header("long", 256 << 20, tarfile.XHDTYPE), 256 << 20),
        ("a.tar.gz", header("long", 256 << 20, tarfile.GNUTYPE_LONGNAME), 256 << 20),
        ("a.tar.xz", header("train/ant/9.txt", 300 << 20), 300 << 20),
        ("a.tar", header("train/ant/9.png", 8 << 30), 1 << 20),
        ("a.tar", header("train/ant/9.png", 1 << 50), 1 << 20),
    ],
)
def test_archives_that_unpack_to_more_than_images_do(tmp_path: Path, name: str, extra: bytes, size: int) -> None:
    refused("folder", archive(tmp_path / name, extra, size), str(tmp_path / name))


def huge_picture(kind: str, side: int) -> bytes:
    """A few bytes that announce side × side pixels."""
    made = io.BytesIO()
    Image.new("RGB", (8, 8)).save(made, kind)
    content = made.getvalue()
    if kind == "PNG":
        head = b"IHDR" + struct.pack(">2I", side, side) + content[24:29]
        return content[:12][:8] + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + content[33:]
    if kind == "GIF":
        return content[:6] + struct.pack("<2H", side, side) + content[10:]
    if kind == "BMP":
        return content[:18] + struct.pack("<2i", side, side) + content[26:]
    if kind == "PPM":
        return b"P6 %d %d 255\n" % (side, side) + bytes(100)
    if kind == "JPEG":
        place = content.index(b"\xff\xc0") + 5
        return content[:place] + struct.pack(">2H", side, side) + content[place + 4 :]
    changed = bytearray(content)
    (place,) = struct.unpack_from("<I", content, 4)
    for entry in range(struct.unpack_from("<H", content, place)[0]):
        tag, form = struct.unpack_from("<2H", content, place + 2 + 12 * entry)
        if tag in (256, 257):
            struct.pack_into("<H" if form == 3 else "<I", changed, place + 2 + 12 * entry + 8, side)
    return bytes(changed)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "PPM", "JPEG", "TIFF"])
@pytest.mark.parametrize("side", [600, 9_000, 60_000])
def test_pictures_are_measured_before_they_are_decoded(tmp_path: Path, kind: str, side: int) -> None:
    files = write.pictures(2) | {"train/ant/0001.png": huge_picture(kind, side)}
    tracemalloc.start()
    try:
        with pytest.raises(
            InputError, match=r"0001.png: expected an image of at most 512 pixels a side, got .* pixels"
        ):
            datasets.load("folder", write.write_folder(tmp_path, files))
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()


def test_a_file_that_may_not_be_read_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    os.symlink("/proc/self/mem", tmp_path / "train-labels-idx1-ubyte")  # which opens, and fails when it is read
    if not Path("/proc/self/mem").is_file():
        pytest.skip("needs /proc")
    refused("mnist", tmp_path, "train-labels-idx1-ubyte")


@pytest.mark.parametrize("where", ["read", "decode"])
def test_too_little_memory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    if where == "read":
        monkeypatch.setattr("neuralcollapse.data.loading.read_npz", fails)
    else:
        monkeypatch.setattr(np, "ascontiguousarray", fails)
    with pytest.raises(InputError, match="npz does not fit in memory"):
        datasets.load("npz", write.write_npz(tmp_path / "own.npz"))
