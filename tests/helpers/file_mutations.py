"""A fuzzer of files: small valid ones of every format that is read, changed at random, read in a process of its own.

Whatever is in a file, reading it gives arrays that fit one another or one `InputError` in one line that names the file;
no warning of another library, no memory beyond that of a small file, no file that takes seconds; and what a format has
checksums for is either as it was written or refused. As a script it reads a range of the mutations and prints each
fault as a line of JSON; the test starts it, and starts it again behind a file that ended it. A mutation follows from
the format's name and a number.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import random
import resource
import signal
import struct
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers import dataset_files as write
from helpers import feature_tables as tables
from PIL import Image
from scipy.io import savemat

from neuralcollapse import ClassMoments, InputError
from neuralcollapse import data as datasets
from neuralcollapse.files.features import open_classifier, open_examples
from neuralcollapse.files.shards import Counts, RowRange, read_shard, write_counts, write_moments

SEED = 0
MEMORY = 256 << 10  # KiB that reading a file of some kilobytes may add
SECONDS = 10

Content = list[Any]
Change = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Case:
    """A format.

    Args:
        make: writes valid files into a folder.
        target: the file there that is changed.
        read: what the folder holds.
        whole: whether every change of what is read must be found, because the format has checksums.
        inside: applies a change behind the checksums, as someone who means harm would.
    """

    make: Callable[[Path], object]
    target: str
    read: Callable[[Path], Content]
    whole: bool = False
    inside: Callable[[bytes, Change], bytes] | None = None


def _features(name: str, **options: Path) -> Callable[[Path], Content]:
    def read(folder: Path) -> Content:
        own = {key: folder / value for key, value in options.items()}
        examples = open_examples(folder / name, own.get("labels"))
        classifier = open_classifier(folder / name, own.get("weight"), own.get("bias"))
        blocks = list(examples.blocks(0, examples.shape[0]))
        features = torch.cat([block.features for block in blocks])
        labels = torch.cat([block.labels for block in blocks])
        assert tuple(features.shape) == examples.shape and labels.shape == features.shape[:1]
        found: Content = [features, labels]
        if classifier is not None:
            assert classifier.weight.ndim == 2 and classifier.weight.is_floating_point()
            found += [classifier.weight, classifier.bias]
        return found

    return read


def _dataset(name: str, inner: str = "") -> Callable[[Path], Content]:
    def read(folder: Path) -> Content:
        data = datasets.load(name, folder / inner)
        for half in (data.train, data.test):
            assert (
                half.images.dtype == torch.uint8 and half.images.ndim == 4 and half.images.shape[0] == len(half.labels)
            )
            assert half.labels.dtype == torch.int64 and int(half.labels.min()) >= 0
            assert int(half.labels.max()) < len(data.class_names)
        return [data.train.images, data.train.labels, data.test.images, data.test.labels, data.class_names]

    return read


def _part(folder: Path) -> Content:
    saved = read_shard(folder / "part.safetensors")
    content, rows = saved.content, saved.rows
    if isinstance(content, ClassMoments):
        return [*content.state_dict().values(), rows]
    return [*(content.state[name] for name in sorted(content.state)), content.against, rows]


def _npy(folder: Path) -> None:
    tables.npy(folder, tables.layer(24))


def _npz(method: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / "layer.npz", "w", method) as archive:
            for name, array in tables.layer(24).items():
                file = io.BytesIO()
                np.save(file, array)
                archive.writestr(f"{name}.npy", file.getvalue())

    return make


def _inside_zip(content: bytes, change: Change) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(made, "w") as changed:
        names = archive.namelist()
        for number, name in enumerate(names):
            own = archive.read(name)
            kind = archive.getinfo(name).compress_type
            changed.writestr(name, change(own) if number == len(content) % len(names) else own, kind)
    return made.getvalue()


def _inside(unpack: Callable[[bytes], bytes], pack: Callable[[bytes], bytes]) -> Callable[[bytes, Change], bytes]:
    return lambda content, change: pack(change(unpack(content)))


def _inside_mat(content: bytes, change: Change) -> bytes:
    """The first element's bytes, changed and packed again."""
    (size,) = struct.unpack_from("<I", content, 132)
    packed = zlib.compress(change(zlib.decompress(content[136 : 136 + size])))
    return content[:132] + struct.pack("<I", len(packed)) + packed + content[136 + size :]


def _inside_tar(content: bytes, change: Change) -> bytes:
    """The whole archive, with the sums of its headers made right again."""
    changed = bytearray(change(content))
    for start in range(0, len(changed) - 511, 512):
        block = changed[start : start + 512]
        if block[257:262] == b"ustar":
            total = sum(block[:148]) + 8 * 32 + sum(block[156:])
            changed[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(changed)


def _inside_png(content: bytes, change: Change) -> bytes:
    """The pixels and the header, with right sums."""
    position, made = 8, content[:8]
    while position + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, position)
        body = content[position + 8 : position + 8 + size]
        kind = content[position + 4 : position + 8]
        body = zlib.compress(change(zlib.decompress(body))) if kind == b"IDAT" else change(body) if body else body
        made += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        position += 12 + size
    return made


def _safetensors(folder: Path) -> None:
    tables.safetensors(folder, tables.layer(24))


def _parquet(kind: str, **options: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        arrays = tables.layer(24)
        rows = arrays["features"]
        columns: dict[str, Any] = {
            "fixed": lambda: {"features": pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])},
            "lists": lambda: {"features": pa.array(list(rows))},
            "columns": lambda: {f"features_{j}": pa.array(column) for j, column in enumerate(rows.T)},
        }[kind]()
        pq.write_table(pa.table({**columns, "label": pa.array(arrays["labels"])}), folder / "t.parquet", **options)

    return make


def _idx(zipped: bool) -> Callable[[Path], object]:
    images, labels = write.random_images(12, 5, 4), np.arange(12) % 10
    return lambda folder: write.write_idx(folder / "mnist", (images, labels), (images[:4], labels[:4]), zipped=zipped)


def _cifar(kind: str) -> Callable[[Path], object]:
    images, labels = write.random_images(6, 3, 32, 32).reshape(6, 1, 3, 32, 32), np.arange(6).reshape(6, 1)
    if kind == "bin":
        return lambda folder: write.write_cifar_binary(folder, images, labels)
    if kind == "py2":
        return lambda folder: write.write_cifar_python(folder, images, labels)

    def make(folder: Path) -> None:
        write.write_cifar_python(folder, images, labels)
        content = {b"data": images[0].reshape(1, -1), b"labels": [3], b"filenames": [b"a.png"]}
        (folder / "data_batch_2").write_bytes(pickle.dumps(content, int(kind)))

    return make


def _stl10(folder: Path) -> None:
    write.write_stl10(folder, (write.random_images(2, 96, 96, 3), [3, 10]), (write.random_images(1, 96, 96, 3), [1]))


def _svhn(packed: bool) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        images = write.random_images(3, 32, 32, 3)
        write.write_svhn(folder, (images, [1, 10, 3]), (images, [4, 5, 6]))
        content = {"y": np.array([[1.0], [10.0], [3.0]]), "X": np.moveaxis(images, 0, -1), "other": "text"}
        savemat(folder / "train_32x32.mat", content, do_compression=packed)

    return make


def _folder(kind: str, **options: Any) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        write.write_folder(folder / "set", write.pictures(2))
        file = io.BytesIO()
        Image.fromarray(write.random_images(1, 8, 8, 3)[0]).save(file, kind, **options)
        (folder / "set/train/ant/0001.png").write_bytes(file.getvalue())

    return make


def _archive(ending: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        write.write_archive(folder / f"set{ending}", write.pictures(2) | {"train/ant/notes.txt": b"text"}, "top/")

    return make


def _moments(folder: Path) -> None:
    arrays = tables.layer(24)
    moments = ClassMoments(4)
    moments.update(torch.tensor(arrays["features"]), torch.tensor(arrays["labels"]))
    write_moments(folder / "part.safetensors", moments, [RowRange("ab", 0, 24, 30, "x.npy")])


def _counts(folder: Path) -> None:
    state = {"examples": [9, 15], "mismatches": [1, 2], "correct": [8, 12], "nearest_correct": [9, 10]}
    tensors = {name: torch.tensor(values) for name, values in state.items()}
    tensors["squares"] = torch.tensor([3.5, 0.25], dtype=torch.float64)
    write_counts(folder / "part.safetensors", Counts(tensors, "cd"), [RowRange("ab", 0, 24, 30, "x.npy")])


_LAYER, _TABLE = _features("layer.npz"), _features("t.parquet")
_TARGETS = {"idx": "mnist/train-images-idx3-ubyte", "labels": "mnist/train-labels-idx1-ubyte"}
_MNIST, _CIFAR, _SET, _SVHN = _dataset("mnist"), _dataset("cifar10"), _dataset("folder", "set"), _dataset("svhn")
_GZIP = _inside(gzip.decompress, gzip.compress)
_OWN = {"labels": Path("labels.npy"), "weight": Path("weight.npy"), "bias": Path("bias.npy")}

CASES = {
    "npy": Case(_npy, "features.npy", _features("features.npy", **_OWN)),
    "npy labels": Case(_npy, "labels.npy", _features("features.npy", **_OWN)),
    "npz": Case(_npz(zipfile.ZIP_STORED), "layer.npz", _LAYER, whole=True, inside=_inside_zip),
    "npz deflated": Case(_npz(zipfile.ZIP_DEFLATED), "layer.npz", _LAYER, whole=True, inside=_inside_zip),
    "npz bzip2": Case(_npz(zipfile.ZIP_BZIP2), "layer.npz", _LAYER, whole=True, inside=_inside_zip),
    "npz lzma": Case(_npz(zipfile.ZIP_LZMA), "layer.npz", _LAYER, whole=True, inside=_inside_zip),
    "safetensors": Case(_safetensors, "layer.safetensors", _features("layer.safetensors")),
    "parquet lists": Case(_parquet("lists"), "t.parquet", _TABLE),
    "parquet fixed": Case(_parquet("fixed", compression="zstd", row_group_size=10), "t.parquet", _TABLE),
    "parquet columns": Case(_parquet("columns", write_page_checksum=True), "t.parquet", _TABLE),
    "idx": Case(_idx(False), _TARGETS["idx"], _MNIST),
    "idx labels": Case(_idx(False), _TARGETS["labels"], _MNIST),
    "idx gz": Case(_idx(True), _TARGETS["idx"] + ".gz", _MNIST, whole=True, inside=_GZIP),
    "cifar python 2": Case(_cifar("py2"), "data_batch_2", _CIFAR),
    "cifar pickle 2": Case(_cifar("2"), "data_batch_2", _CIFAR),
    "cifar pickle 5": Case(_cifar("5"), "data_batch_2", _CIFAR),
    "cifar binary": Case(_cifar("bin"), "data_batch_2.bin", _CIFAR),
    "stl10": Case(_stl10, "train_X.bin", _dataset("stl10")),
    "stl10 labels": Case(_stl10, "train_y.bin", _dataset("stl10")),
    "svhn": Case(_svhn(False), "train_32x32.mat", _SVHN),
    "svhn packed": Case(_svhn(True), "train_32x32.mat", _SVHN, inside=_inside_mat),
    "png": Case(_folder("PNG"), "set/train/ant/0001.png", _SET, whole=True, inside=_inside_png),
    "jpeg": Case(_folder("JPEG"), "set/train/ant/0001.png", _SET),
    "gif": Case(_folder("GIF"), "set/train/ant/0001.png", _SET),
    "bmp": Case(_folder("BMP"), "set/train/ant/0001.png", _SET),
    "tiff": Case(_folder("TIFF"), "set/train/ant/0001.png", _SET),
    "tiff lzw": Case(_folder("TIFF", compression="tiff_lzw"), "set/train/ant/0001.png", _SET),
    "tiff jpeg": Case(_folder("TIFF", compression="jpeg"), "set/train/ant/0001.png", _SET),
    "webp": Case(_folder("WEBP"), "set/train/ant/0001.png", _SET),
    "webp lossless": Case(_folder("WEBP", lossless=True), "set/train/ant/0001.png", _SET),
    "ppm": Case(_folder("PPM"), "set/train/ant/0001.png", _SET),
    "tar": Case(_archive(".tar"), "set.tar", _dataset("folder", "set.tar"), inside=_inside_tar),
    "tar gz": Case(
        _archive(".tar.gz"),
        "set.tar.gz",
        _dataset("folder", "set.tar.gz"),
        whole=True,
        inside=_inside(gzip.decompress, gzip.compress),
    ),
    "tar xz": Case(
        _archive(".tar.xz"),
        "set.tar.xz",
        _dataset("folder", "set.tar.xz"),
        whole=True,
        inside=_inside(lzma.decompress, lzma.compress),
    ),
    "tar bz2": Case(
        _archive(".tar.bz2"),
        "set.tar.bz2",
        _dataset("folder", "set.tar.bz2"),
        whole=True,
        inside=_inside(bz2.decompress, bz2.compress),
    ),
    "npz data set": Case(
        lambda folder: write.write_npz(folder / "own.npz"), "own.npz", _dataset("npz", "own.npz"), True, _inside_zip
    ),
    "moments": Case(_moments, "part.safetensors", _part),
    "counts": Case(_counts, "part.safetensors", _part),
}

_NUMBERS = (0, 1, 2, 127, 128, 255, 1 << 15, (1 << 16) - 1, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40,
            (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip
_TEXTS = (b"9" * 400, b"(" * 60, b"[", b"{", b"}", b"'", b'"', b"\xff", b"\0", b"-1", b"2.7", b"\n", b"1e999", b"None")


def changed(content: bytes, rng: random.Random) -> bytes:
    """The bytes with one to a few changes; half of all changes lie near the beginning or the end."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size = len(made)
        near = rng.choice((size, size, min(size, 64), min(size, 400)))
        place = rng.randrange(near) if near else 0
        place = size - 1 - place if rng.random() < 0.3 and size else place
        kind = rng.randrange(10)
        if kind < 3 and size:
            made[place] ^= 1 << rng.randrange(8)
        elif kind == 3 and size:
            made[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 4:
            width = rng.choice((2, 4, 8))
            number = rng.choice(_NUMBERS) % (1 << 8 * width)
            made[place : place + width] = number.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 5:
            del made[place : place + rng.choice((1, 2, 4, 8, 100))]
        elif kind == 6:
            made[place:place] = rng.choice(_TEXTS)
        elif kind == 7:
            text = rng.choice(_TEXTS)
            made[place : place + len(text)] = text
        elif kind == 8:
            other = rng.randrange(size) if size else 0
            length = rng.choice((1, 4, 30, 200))
            made[place:place] = made[other : other + length]
        elif kind == 9 and rng.random() < 0.3:
            del made[place:]
    return bytes(made)


def mutations(case: Case, original: bytes, name: str, first: int, last: int) -> Iterator[tuple[int, bytes, bool]]:
    """Number and content of each mutation, and whether it goes behind the checksums."""
    for number in range(first, last):
        rng = random.Random(f"{SEED} {name} {number}")
        if case.inside is not None and number % 2:
            yield number, case.inside(original, lambda content, rng=rng: changed(content, rng)), True
        else:
            yield number, changed(original, rng), False


def fault(case: Case, folder: Path, expected: Content | None) -> tuple[str, bool]:
    """What is wrong with how the folder is read, empty if nothing is; and whether it is read."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = case.read(folder)
        except InputError as error:
            found, text = None, str(error)
            if "\n" in text or len(text) > 1500 or str(folder) not in text:
                return f"the message {text[:300]!r}", False
        except BaseException as error:
            return f"{type(error).__name__}: {error}"[:300], False
    for warning in caught:
        if warning.category is not UserWarning or f"{folder}" not in str(warning.message):
            return f"the warning {warning.category.__name__}: {warning.message}"[:300], False
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if more > MEMORY:
        return f"{more >> 10} MiB of memory", found is not None
    if found is not None and expected is not None and not same(found, expected):
        return "other content than was written, in spite of a checksum", True
    return "", found is not None


def same(found: Content, expected: Content) -> bool:
    """Whether all entries are equal."""
    pairs = zip(found, expected, strict=False)
    equal = (torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a is b or a == b
             for a, b in pairs)  # fmt: skip
    return len(found) == len(expected) and all(equal)


class _TooLong(BaseException):
    pass


def main(progress: Path, name: str, first: int, last: int) -> None:
    """Read the mutations first … last − 1 of a case; print faults, and at last how many were read."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        case.make(folder)
        target = folder / case.target
        original = target.read_bytes()
        said, read = fault(case, folder, None)
        assert read and not said, f"{name} is not read unchanged: {said}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = case.read(folder)
        count = 0
        for number, content, inside in mutations(case, original, name, first, last):
            progress.write_text(json.dumps([name, number]))
            target.write_bytes(content)
            signal.alarm(SECONDS)
            said, read = fault(case, folder, expected if case.whole and not inside else None)
            signal.alarm(0)
            count += read
            if said:
                print(json.dumps({"case": name, "number": number, "fault": said.replace(made, "DIR")}), flush=True)
            if "memory" in said:
                os._exit(3)  # the peak hides what the next ones take
        print(json.dumps({"case": name, "files": last - first, "read": count}), flush=True)


def _stop(*_: object) -> None:
    raise _TooLong(f"more than {SECONDS} seconds")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))  # so that not the whole machine suffers
    signal.signal(signal.SIGALRM, _stop)
    for each in json.loads(sys.argv[2]):
        main(Path(sys.argv[1]), *each)
