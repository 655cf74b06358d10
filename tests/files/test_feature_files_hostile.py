"""Feature files of every number type are the arrays they were made of; damaged and hostile ones are one sentence."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.feature_tables import layer, npy, npz, npz_compressed, parquet_lists

from neuralcollapse import InputError
from neuralcollapse.files.features import open_classifier, open_examples
from neuralcollapse.files.measure_files import measure_files
from neuralcollapse.files.options import FileOptions
from neuralcollapse.files.parquet_sizes import read_sizes

INTEGERS = ["i1", "u1", "<i2", ">i2", "<u2", ">u2", "<i4", ">i4", "<u4", ">u4", "<i8", ">i8", "<u8", ">u8"]
FLOATS = ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]


def refused(path: Path, options: FileOptions, *parts: str) -> str:
    """One sentence that names the file."""
    with pytest.raises(InputError) as error:
        measure_files(path, options)
    message = str(error.value)
    assert "\n" not in message and len(message) < 600 and all(part in message for part in parts), message
    return message


def content(path: Path, options: FileOptions) -> tuple[np.ndarray, np.ndarray]:
    examples = open_examples(path, options.labels, options.columns)
    blocks = list(examples.blocks(0, examples.shape[0]))
    return torch.cat([each.features for each in blocks]).numpy(), torch.cat([each.labels for each in blocks]).numpy()


@pytest.mark.parametrize("save", [npy, npz, npz_compressed], ids=lambda save: save.__name__)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", FLOATS)
def test_features_of_every_type_and_order(save: Any, kind: str, order: Any, tmp_path: Path) -> None:
    features = np.asarray(layer()["features"], dtype=kind, order=order)
    found, _ = content(*save(tmp_path, {**layer(), "features": features}))
    assert found.dtype == features.dtype.newbyteorder("=") and np.array_equal(found, features)


@pytest.mark.parametrize("save", [npy, npz, npz_compressed], ids=lambda save: save.__name__)
@pytest.mark.parametrize("kind", INTEGERS)
def test_labels_of_every_type(save: Any, kind: str, tmp_path: Path) -> None:
    _, found = content(*save(tmp_path, {**layer(), "labels": layer()["labels"].astype(kind)}))
    assert found.dtype == np.int64 and np.array_equal(found, layer()["labels"])


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("form", ["safetensors", "parquet"])
def test_labels_of_every_type_in_tables_and_tensors(form: str, kind: str, tmp_path: Path) -> None:
    arrays = {**layer(), "labels": layer()["labels"].astype(kind)}
    if form == "parquet":
        pytest.importorskip("pyarrow")
        path, options = parquet_lists(tmp_path, arrays)
    else:
        path, options = tmp_path / "layer.safetensors", FileOptions()
        pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    _, found = content(path, options)
    assert found.dtype == np.int64 and np.array_equal(found, layer()["labels"])


@pytest.mark.parametrize("label", [2**63, 2**64 - 100, 2**64 - 1])
@pytest.mark.parametrize("form", ["npy", "npz", "safetensors", "parquet"])
def test_labels_beyond_int64_are_named_as_they_are(form: str, label: int, tmp_path: Path) -> None:
    """They are not the negative numbers of the same bits, of which −100 leaves an example out elsewhere."""
    labels = np.array([0, 1, label], dtype=np.uint64)
    arrays = {"features": np.ones((3, 2)), "labels": labels, "weight": np.ones((2, 2)), "bias": np.ones(2)}
    np.save(tmp_path / "weight.npy", arrays["weight"])
    options = FileOptions(weight=tmp_path / "weight.npy")
    if form == "npy":
        path, options = tmp_path / "features.npy", replace(options, labels=tmp_path / "labels.npy")
        np.save(path, arrays["features"])
        np.save(tmp_path / "labels.npy", labels)
    elif form == "npz":
        path = tmp_path / "layer.npz"
        np.savez(path, **arrays)
    elif form == "safetensors":
        path = tmp_path / "layer.safetensors"
        pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    else:
        pytest.importorskip("pyarrow")
        path, parquet = parquet_lists(tmp_path, arrays)
        options = replace(parquet, weight=options.weight)
    with pytest.raises(InputError, match=f"expected labels below 2⁶³, got {label}"):
        measure_files(path, options)


@pytest.mark.parametrize("values", [[0.0, 1.0, 2.7], [0.0, 1.0, 2.0], [True, False, True], [1j, 2, 3]])
@pytest.mark.parametrize("form", ["npy", "npz", "packed", "safetensors", "parquet"])
def test_labels_that_are_no_integers(form: str, values: list[Any], tmp_path: Path) -> None:
    arrays = {"features": np.ones((3, 2)), "labels": np.array(values), "weight": np.ones((3, 2))}
    options = FileOptions()
    if isinstance(values[0], complex) and form in ("parquet", "safetensors"):
        pytest.skip("the format has no complex numbers")
    if form == "npy":
        path, options = npy(tmp_path, arrays)
        options = FileOptions(labels=options.labels, weight=options.weight)
    elif form == "parquet":
        pytest.importorskip("pyarrow")
        path, options = parquet_lists(tmp_path, {**arrays, "bias": np.zeros(3)})
    elif form == "safetensors":
        path = tmp_path / "layer.safetensors"
        pytest.importorskip("safetensors.numpy").save_file(arrays, path)
    else:
        path, options = (npz if form == "npz" else npz_compressed)(tmp_path, arrays)
    refused(path, options, str(tmp_path), "label")


def archive_bytes(folder: Path, method: int = zipfile.ZIP_STORED) -> tuple[Path, bytes]:
    path = folder / "layer.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in layer(24).items():
            file = io.BytesIO()
            np.save(file, array)
            archive.writestr(f"{name}.npy", file.getvalue())
    return path, path.read_bytes()


def every_array(path: Path) -> list[np.ndarray]:
    """What `measure` reads of a file, all of it."""
    classifier = open_classifier(path)
    assert classifier is not None and classifier.bias is not None
    return [*content(path, FileOptions()), classifier.weight.numpy(), classifier.bias.numpy()]


METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("method", METHODS)
def test_a_flipped_bit_of_an_npz_changes_nothing_or_is_found(tmp_path: Path, method: int) -> None:
    """One bit of every third byte: of contents, names, sizes, places, checksums, and what lies between them."""
    path, whole = archive_bytes(tmp_path, method)
    expected = every_array(path)
    found = 0
    places = range(method % 3, len(whole), 3)
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << (place * 5 % 8)
        path.write_bytes(changed)
        try:
            assert all(map(np.array_equal, every_array(path), expected)), place
        except InputError as error:
            assert str(path) in str(error)
            found += 1
    assert found > 0.8 * len(places)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("where", ["first", "last"])
def test_a_checksum_holds_whatever_part_is_measured(tmp_path: Path, method: int, where: str) -> None:
    """The wrong bit is in a row that the job does not read; stored members are mapped, and others unpacked."""
    path, whole = archive_bytes(tmp_path)
    row = layer(24)["features"][23 if where == "first" else 0].tobytes()
    changed = whole.replace(row, bytes([row[0] ^ 2]) + row[1:])
    path.write_bytes(changed)
    if method:  # the same flip before it is packed, with the checksum of what was meant
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            sums = {info.filename: info.CRC for info in archive.infolist()}
        packed, _ = archive_bytes(tmp_path, method)
        with zipfile.ZipFile(packed) as archive:
            info = archive.getinfo("features.npy")
        stored = packed.read_bytes()
        packed.write_bytes(stored.replace(struct.pack("<I", info.CRC), struct.pack("<I", sums["features.npy"] ^ 1)))
    options = FileOptions(shard="1/2" if where == "first" else "2/2", classes=4, save=tmp_path / "x.safetensors")
    refused(path, options, "layer.npz is not a readable .npz")
    assert not (tmp_path / "x.safetensors").exists()


def test_a_zip_that_misses_or_repeats_members_is_refused(tmp_path: Path) -> None:
    path, whole = archive_bytes(tmp_path)
    end = whole.rindex(b"PK\5\6")
    for count in (3, 5, 0):
        path.write_bytes(whole[: end + 8] + struct.pack("<2H", count, count) + whole[end + 12 :])
        refused(path, FileOptions(), f"{count} members are announced where 4 are")
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("features.npy", "labels.npy", "weight.npy"):
            archive.writestr(name, b"")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("weight.npy", b"")
    refused(path, FileOptions(), "'weight.npy' is there twice")


def with_header(text: str, version: int = 1, body: bytes = bytes(96 * 6 * 8)) -> bytes:
    encoded = text.encode("utf-8" if version == 3 else "latin-1")
    return (
        b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(encoded)) + encoded + body
    )


GOOD = "{'descr': '<f8', 'fortran_order': False, 'shape': (96, 6), }"


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD + " " * 50 + "\n",
        "{'shape': (96L, 6L), 'fortran_order': False, 'descr': '<f8'}",  # Python 2; another order
        '{"descr": "<f8", "fortran_order": False, "shape": (96, 6)}'.replace('"', "'"),
        "{ 'descr' : '<f8' ,'fortran_order':False,'shape':( 96 ,6 )}",
        "{'descr': '<f8', 'fortran_order': True, 'shape': (96, 6,), }",
    ],
)
def test_headers_as_various_programs_write_them(tmp_path: Path, text: str, version: int) -> None:
    path, options = npy(tmp_path, layer())
    path.write_bytes(with_header(text, version))
    assert content(path, options)[0].shape == (96, 6)


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace(")", "("),
        GOOD.replace("96", "9" * 400),
        GOOD.replace("96", "9" * 5000),
        GOOD.replace("96", "-96"),
        GOOD.replace("96", "96.0"),
        GOOD.replace("(96, 6)", "(96, 6"),
        GOOD.replace("(96, 6)", "[96, 6]"),
        GOOD.replace("(96, 6)", "(96, 2)"),  # fewer numbers than are there: a smaller p without a word
        GOOD.replace("(96, 6)", "(95, 6)"),
        GOOD.replace("(96, 6)", "(96, 6, 1 << 40)"),
        GOOD.replace("False", "None"),
        GOOD.replace("False", "__import__('os').system('touch ran')"),
        GOOD.replace("'descr'", "'desc'"),
        GOOD.replace("}", ""),
        GOOD.replace("{", "{" + "(" * 3000),
        GOOD + GOOD,
        GOOD.replace("}", "'more': 1}"),
        GOOD.replace("'<f8'", "'<f8\\d'"),
        "\0" * 60,
        "",
        " " * 60_000,
    ],
)
def test_headers_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    path, options = npy(tmp_path, layer())
    path.write_bytes(with_header(text))
    refused(path, options, "features.npy")
    with zipfile.ZipFile(tmp_path / "layer.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", with_header(text))
        archive.writestr("labels.npy", (tmp_path / "labels.npy").read_bytes())
    refused(tmp_path / "layer.npz", FileOptions(classes=4, save=Path("x.safetensors")), "layer.npz")
    assert not Path("ran").exists()


def test_a_compressed_array_larger_than_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "layer.npz", **{**layer(), "features": np.zeros((96, 30_000), "f4")})
    monkeypatch.setattr("neuralcollapse.data.numpy_files.machine_memory", lambda: 8 << 20)
    tracemalloc.start()
    try:
        refused(tmp_path / "layer.npz", FileOptions(), "layer.npz: expected features that fits in this machine's")
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def table(folder: Path, columns: dict[str, Any], **options: Any) -> tuple[Path, FileOptions]:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), folder / "t.parquet", **options)
    np.save(folder / "w.npy", np.ones((3, 2)))
    return folder / "t.parquet", FileOptions(weight=folder / "w.npy")


ROWS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]


@pytest.mark.parametrize("name", [b"zz\xffabel", b"\x80zlabel", b"zzl\xc3\x28el"])
def test_parquet_names_that_are_no_text(tmp_path: Path, name: bytes) -> None:
    path, options = table(tmp_path, {"features": ROWS, "zzlabel": [0, 1, 2]}, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"zzlabel", name))
    refused(path, options, "t.parquet is not a readable Parquet file")


def test_parquet_columns_with_numbers_of_any_length_are_in_order(tmp_path: Path) -> None:
    names = ["f9", "f10", "f0009x", "f" + "9" * 5000, "f1" + "0" * 5000, "f00"]
    ordered = ["f00", "f9", "f10", "f" + "9" * 5000, "f1" + "0" * 5000]
    columns = {name: [float(index)] * 3 for index, name in enumerate(names) if name != "f0009x"}
    path, _ = table(tmp_path, {**columns, "label": [0, 1, 2]})
    assert content(path, FileOptions(columns="f"))[0][0].tolist() == [float(names.index(name)) for name in ordered]


@pytest.mark.parametrize("kind", ["one row", "equal rows", "zstd"])
def test_parquet_files_that_unpack_to_gigabytes(tmp_path: Path, kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    numbers = 12 << 20
    rows = 1 if kind == "one row" else numbers >> 4
    lists = pa.ListArray.from_arrays(np.linspace(0, numbers, rows + 1).astype("i4"), pa.array(np.zeros(numbers)))
    columns = {"features": lists, "label": pa.array(np.zeros(rows, int))}
    path, options = table(tmp_path, columns, compression="zstd", use_dictionary=kind != "zstd")
    assert path.stat().st_size < 1 << 16
    before = pa.total_allocated_bytes()
    refused(path, options, "t.parquet: expected columns that unpack to at most 1000 times its")
    assert pa.total_allocated_bytes() - before < 1 << 20


@pytest.mark.parametrize("announced", [1 << 30, (1 << 31) - 1, -1])
def test_a_parquet_page_that_announces_more_than_its_column(tmp_path: Path, announced: int) -> None:
    """The metadata are right, the page's own header is not."""
    path, options = table(tmp_path, {"features": ROWS, "label": [0, 1, 2]}, use_dictionary=False, compression="none")
    whole = path.read_bytes()

    def varint(number: int) -> bytes:
        number, made = (number << 1) ^ (number >> 63), b""
        while number > 127:
            number, made = number >> 7, made + bytes([number & 127 | 128])
        return made + bytes([number])

    # type 0, then the unpacked size; rows of two float64 take 48 bytes and their levels
    assert whole[4:7] == b"\x15\x00\x15"
    end = next(index for index in range(7, 12) if whole[index] < 128) + 1
    path.write_bytes(whole[:7] + varint(announced) + whole[end:])
    refused(path, options, "t.parquet")


def test_parquet_sizes_are_those_that_arrow_gives(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(0)
    columns = {"features": list(rng.normal(size=(1000, 3))), "a.b": rng.normal(size=1000), "label": np.arange(1000) % 7}
    for options in (
        {},
        {"data_page_version": "2.0", "compression": "gzip"},
        {"use_dictionary": False, "data_page_size": 99},
    ):
        path, _ = table(tmp_path, columns, row_group_size=300, **options)
        sizes, about = read_sizes(path), pq.ParquetFile(path).metadata
        groups = [about.row_group(group) for group in range(about.num_row_groups)]
        assert sizes.rows == tuple(group.num_rows for group in groups) == (300, 300, 300, 100)
        expected = [group.column(index) for group in groups for index in range(group.num_columns)]
        for chunk, column in zip(sizes.chunks, expected, strict=True):
            assert ".".join(chunk.path) == column.path_in_schema
            dictionary = chunk.values - column.num_values  # counted too, because it is unpacked as well
            assert 0 <= dictionary <= column.num_values and chunk.size <= column.total_uncompressed_size


def test_a_flipped_bit_of_a_parquet_page_with_a_checksum_is_found(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"use_dictionary": False, "compression": "none", "write_page_checksum": True}
    path, options = table(tmp_path, {"features": ROWS, "label": [0, 1, 2]}, **plain)
    whole = path.read_bytes()
    for value in (2.0, 3.0, 4.0, 5.0):  # of the ends there are copies in the page's header
        place = whole.index(struct.pack("<d", value)) + 3
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(path, options, "t.parquet is not a readable Parquet file")


@pytest.mark.parametrize(
    "header",
    [
        {"features": {"dtype": "F64", "shape": [10**400, 2], "data_offsets": [0, 48]}},
        {"features": {"dtype": "F64", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 48]}},
        {"features": {"dtype": "F99", "shape": [3, 2], "data_offsets": [0, 48]}},
        {"features": {"dtype": "F64", "shape": [-3, -2], "data_offsets": [0, 48]}},
        {"features": {"dtype": "C64", "shape": [3, 2], "data_offsets": [0, 48]}},
        [1, 2],
        {"features": 3},
    ],
)
def test_safetensors_headers_that_are_none(tmp_path: Path, header: Any) -> None:
    pytest.importorskip("safetensors")
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = tmp_path / "layer.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(48))
    refused(path, FileOptions(labels=path, classes=2, save=tmp_path / "x.safetensors"), "layer.safetensors")


def test_too_little_memory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, options = npz(tmp_path, layer())

    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("neuralcollapse.files.features.LabelledFeatures.blocks", fails)
    refused(path, options, "layer.npz", "do not fit in memory")
