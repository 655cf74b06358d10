"""Features in files that are wrong: one sentence with the file and the value, nothing executed, nothing left behind."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.feature_tables import PARQUET, Save, layer, npy, npz, parquet_lists, safetensors

from neuralcollapse import InputError
from neuralcollapse._errors import install
from neuralcollapse.files.measure_files import measure_files
from neuralcollapse.files.options import FileOptions


def needed(save: Save) -> Save:
    """The format, or a skip where its package is not installed."""
    pytest.importorskip("pyarrow" if save in PARQUET else "safetensors")
    return save


def refused(path: Path, options: FileOptions, *parts: str) -> None:
    """One sentence that names the file, or the value."""
    with pytest.raises(InputError) as error:
        measure_files(path, options)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def changed(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


WRONG: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "nan": ({"features": changed(layer()["features"], (50, 2), np.nan)}, "features", ("NaN or infinity in row 50",)),
    "infinity": ({"features": changed(layer()["features"], (95, 0), -np.inf)}, "features", ("in row 95",)),
    "label too large": ({"labels": changed(layer()["labels"], 60, 4)}, "labels", ("0..3, got 4 in row 60",)),
    "label negative": ({"labels": changed(layer()["labels"], 3, -1)}, "labels", ("0..3, got -1 in row 3",)),
    "label huge": ({"labels": changed(layer()["labels"].astype("uint64"), 9, 2**63)}, "labels", ("in row 9",)),
    "labels short": ({"labels": layer()["labels"][:-1]}, "labels", ("shape (96,)", "(95,)")),
    "labels of two axes": ({"labels": np.stack([layer()["labels"]] * 2, 1)}, "labels", ("(96,)", "(96, 2)")),
    "labels floating": ({"labels": layer()["labels"].astype(float)}, "labels", ("integer labels", "float64")),
    "labels bool": ({"labels": layer()["labels"] > 0}, "labels", ("integer labels", "bool")),
    "features of integers": ({"features": layer()["features"].astype(int)}, "features", ("floating-point", "int64")),
    "features of one axis": ({"features": layer()["features"][:, 0]}, "features", ("(n, p)", "(96,)")),
    "no rows": ({"features": np.zeros((0, 6)), "labels": np.zeros(0, int)}, "features", ("(n, p)", "(0, 6)")),
    "no columns": ({"features": np.zeros((96, 0))}, "features", ("(n, p)", "(96, 0)")),
    "weight of other dim": ({"weight": np.ones((4, 7))}, "weight", ("(4, 6)", "(4, 7)")),
    "weight of one axis": ({"weight": np.ones(6)}, "weight", ("(C, p)", "(6,)")),
    "weight of integers": ({"weight": np.ones((4, 6), int)}, "weight", ("floating-point", "int64")),
    "weight nan": ({"weight": np.full((4, 6), np.nan)}, "weight", ("finite classifier weight",)),
    "bias short": ({"bias": np.zeros(3)}, "weight", ("(4,)", "(3,)")),
    "bias of two axes": ({"bias": np.zeros((4, 1))}, "bias", ("(C,)", "(4, 1)")),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize("save", [npy, npz, safetensors], ids=lambda save: save.__name__)
@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays_are_named(case: str, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralcollapse.files.features.BLOCK_BYTES", 11 * 6 * 8)
    changes, where, parts = WRONG[case]
    path, options = needed(save)(tmp_path, {**layer(), **changes})
    refused(path, options, f"{where}.npy" if save is npy else path.name, *parts)


@pytest.mark.parametrize("kind", [object, complex, "U3", "longdouble", [("a", float)], "datetime64[s]"], ids=str)
@pytest.mark.parametrize("save", [npy, npz], ids=lambda save: save.__name__)
def test_arrays_of_no_numbers_are_refused(save: Save, kind: Any, tmp_path: Path) -> None:
    path, options = save(tmp_path, {**layer(), "features": np.zeros((96, 6), dtype=kind)})
    refused(path, options, path.name, "numeric features", "pickled" if kind is object else "got")


class _Explosive:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", ["layer.npy", "layer.npz", "layer.safetensors"])
def test_nothing_pickled_is_executed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("stored.npz", features=np.array([[_Explosive()]], dtype=object), labels=np.zeros(1, int))
    with zipfile.ZipFile("stored.npz") as stored, zipfile.ZipFile("packed.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in stored.namelist():
            packed.writestr(member, stored.read(member))
    for file in ("stored.npz", "packed.npz"):
        refused(Path(file), FileOptions(classes=2, save=tmp_path / "x.safetensors"), file, "pickled objects")
    Path(name).write_bytes(pickle.dumps(_Explosive()))
    refused(Path(name), FileOptions(labels=Path(name)), name, "not a readable")
    assert not Path("executed").exists()


def test_damaged_npy_files_are_named(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer())
    whole = path.read_bytes()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 6)})
    negative = header.getvalue().replace(b"1099511627776", b"-1           ")
    wrong = (b"", b"\x93NUMPY", whole[:60], whole[:-1], whole[6:], header.getvalue(), negative)
    for content in (*wrong, b"\x93NUMPY\x09\x00" + whole[8:], whole.replace(b"descr", b"dexcr")):
        path.write_bytes(content)
        refused(path, options, "features.npy is not a readable .npy")


def test_damaged_npz_files_are_named(tmp_path: Path) -> None:
    path, options = npz(tmp_path, layer())
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("features.npy").header_offset
    for content in (b"", b"PK", whole[:700], whole[:-30], whole[100:], whole[: len(whole) // 2]):
        path.write_bytes(content)
        refused(path, options, "layer.npz is not a readable .npz")
    path.write_bytes(whole[:start] + b"XX" + whole[start + 2 :])
    refused(path, options, "layer.npz is not a readable .npz", "file header")
    np.savez_compressed(path, **layer())
    packed = bytearray(path.read_bytes())
    packed[len(packed) // 3 : len(packed) // 3 + 8] = b"\xff" * 8
    path.write_bytes(packed)
    refused(path, options, "layer.npz is not a readable .npz")


def test_damaged_safetensors_files_are_named(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path, options = safetensors(tmp_path, layer())
    whole = path.read_bytes()
    far = json.dumps({"features": {"dtype": "F64", "shape": [96, 6], "data_offsets": [0, 1 << 50]}}).encode()
    for content in (
        b"",
        b"\x10",
        whole[:100],
        whole[:-1],
        struct.pack("<Q", 1 << 60),
        struct.pack("<Q", len(far)) + far,
    ):
        path.write_bytes(content)
        refused(path, options, "layer.safetensors is not a readable .safetensors")


@pytest.mark.skipif(not hasattr(torch, "float8_e4m3fn"), reason="needs float8")
def test_eight_bit_features_are_refused(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(
        {"features": torch.ones(4, 2).to(torch.float8_e4m3fn), "labels": torch.arange(4)}, tmp_path / "f.safetensors"
    )
    refused(tmp_path / "f.safetensors", FileOptions(), "f.safetensors", "F8_E4M3")


def test_damaged_parquet_files_are_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path, options = parquet_lists(tmp_path, layer())
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:200], whole[:-1], whole[4:]):
        path.write_bytes(content)
        refused(path, options, "table.parquet is not a readable Parquet file")
    broken = bytearray(whole)
    broken[4:60] = b"\xff" * 56  # the first page's header
    path.write_bytes(broken)
    refused(path, options, "table.parquet is not a readable Parquet file")


def test_wrong_parquet_columns_are_named(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    np.save(tmp_path / "weight.npy", np.ones((4, 2)))
    options = FileOptions(weight=tmp_path / "weight.npy")
    label = pa.array([0, 1, 2])
    path = tmp_path / "wrong.parquet"
    fixed = pa.list_(pa.float32(), 2)
    two = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    rows = pa.array([[1.0], *two[1:]])
    for columns, parts in (
        ({"features": rows, "label": label}, ("1 features in every row", "2 in row 1")),  # the weight is not blamed
        ({"features": pa.array([[1.0, 2.0], [3.0], [4.0, 5.0]]), "label": label}, ("2 features", "1 in row 1")),
        ({"features": pa.array([[1.0, 2.0], None, [4.0, 5.0]]), "label": label}, ("features", "none in row 1")),
        ({"features": pa.array([[1.0, 2.0], [3.0, None], two[0]]), "label": label}, ("missing one in row 1",)),
        ({"features": pa.array([*two[:2], [3.0, None]], fixed), "label": label}, ("missing one in row 2",)),
        ({"features": pa.array([None, *two[1:]], fixed), "label": label}, ("none in row 0",)),
        ({"features": pa.array([[], [], []], pa.list_(pa.float64())), "label": label}, ("(n, p)", "(3, 0)")),
        (
            {"features": pa.array([["a"], ["b"], ["c"]]), "label": label},
            ("numbers in column features", "string"),
        ),
        ({"features": pa.array([[1], [2], [3]]), "label": label}, ("floating-point", "int64")),
        ({"features": pa.array(two), "label": pa.array([0, None, 2])}, ("label", "none in row 1")),
        ({"features": pa.array(two), "label": pa.array(["a", "b", "c"])}, ("column label", "string")),
        ({"features": pa.array(two), "label": pa.array([0.0, 1.0, 2.0])}, ("integer labels", "float64")),
        ({"features": pa.array(two)}, ("has no labels", "but features", "--labels")),
        ({"embedding": pa.array(two), "label": label}, ("has no features", "embedding")),
    ):
        pq.write_table(pa.table(columns), path)
        refused(path, options, "wrong.parquet", *parts)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(tmp_path / "table.parquet", FileOptions(), "table.parquet", install("pyarrow"))


def test_a_file_that_may_not_be_read_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "layer.npz", **layer())

    def forbidden(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    refused(tmp_path / "layer.npz", FileOptions(), f"cannot read {tmp_path / 'layer.npz'}: Permission denied")


def test_absent_and_foreign_files_are_named(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer())
    (tmp_path / "layer.csv").write_text("1,2")
    refused(tmp_path / "absent.npz", FileOptions(), "no file", "absent.npz")
    refused(tmp_path, FileOptions(), "is a folder", tmp_path.name)
    refused(tmp_path / "layer.csv", FileOptions(), "layer.csv", ".npy, .npz, .safetensors, .pt or .parquet", "'.csv'")
    refused(path, replace(options, labels=tmp_path / "absent.npy"), "no file", "absent.npy")
    refused(path, replace(options, weight=tmp_path / "layer.csv"), "layer.csv")
    refused(path, replace(options, labels=None), "features.npy has no labels", "--labels")
    refused(path, replace(options, weight=None, bias=None), "features.npy has no weight", "--weight")
    refused(path, replace(options, weight=None), "bias.npy", "--weight")


def test_sizes_that_no_machine_has_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.zeros((2, 1 << 22), dtype="float16"))
    np.save(tmp_path / "labels.npy", np.arange(2))
    options = FileOptions(labels=tmp_path / "labels.npy", classes=2, save=tmp_path / "part.safetensors")
    refused(tmp_path / "features.npy", options, "features.npy", "4194304 features", "GiB")
    np.save(tmp_path / "features.npy", np.zeros((2, 3), dtype="float16"))
    refused(tmp_path / "features.npy", replace(options, classes=1 << 60), "GiB")
    assert not options.save.exists()  # type: ignore[union-attr]
