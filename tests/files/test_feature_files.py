"""Features in files: every format is the array it was made of, in bounded memory; what is wrong is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.feature_tables import FORMATS, PARQUET, Save, layer, npy, npz, parquet_columns, parquet_lists, safetensors

from neuralcollapse import measure_features
from neuralcollapse.files.features import open_classifier, open_examples
from neuralcollapse.files.measure_files import measure_files
from neuralcollapse.files.options import FileOptions


def needed(save: Save) -> Save:
    """The format, or a skip where its package is not installed."""
    pytest.importorskip("pyarrow" if save in PARQUET else "safetensors")
    return save


def same(found: Any, expected: Any, tolerance: float) -> None:
    """The two reports agree in every number."""
    found, expected = found.to_dict(), expected.to_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, float | list):
            np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=tolerance, err_msg=name)
        else:
            assert found[name] == value, name


every_format = pytest.mark.parametrize("save", [*FORMATS, *PARQUET], ids=lambda save: save.__name__)


@every_format
@pytest.mark.parametrize("weighting", ["example", "class"])
@pytest.mark.parametrize("rows", [7, 1000])
def test_every_format_gives_the_report_of_the_arrays(
    save: Save, weighting: Any, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = layer()
    monkeypatch.setattr("neuralcollapse.files.features.BLOCK_BYTES", rows * 6 * 8)
    path, options = needed(save)(tmp_path, arrays)
    options = replace(options, weighting=weighting, weight_decay=1e-3, metrics="all")
    done: list[float] = []
    report = measure_files(path, options, done.append).report
    same(report, measure_features(**arrays, weight_decay=1e-3, weighting=weighting, metrics="all"), 1e-12)
    assert done == sorted(done) and done[-1] == 1.0 and len(done) == 2 * -(-96 // rows)


@every_format
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_narrow_features_are_measured_as_they_are(save: Save, dtype: str, tmp_path: Path) -> None:
    arrays = layer(dtype=dtype)
    path, options = needed(save)(tmp_path, arrays)
    assert open_examples(path, options.labels, options.columns).features.dtype == dtype
    same(measure_files(path, options).report, measure_features(**arrays), 1e-12)


def test_bfloat16_features_are_measured_as_they_are(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    arrays = {name: torch.tensor(array) for name, array in layer().items()}
    arrays["features"] = arrays["features"].bfloat16()
    arrays["weight"] = arrays["weight"].bfloat16()
    save_file(arrays, tmp_path / "layer.safetensors")
    same(measure_files(tmp_path / "layer.safetensors", FileOptions()).report, measure_features(**arrays), 1e-12)


@every_format
def test_blocks_are_the_rows_asked_for(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = layer()
    path, options = needed(save)(tmp_path, arrays)
    examples = open_examples(path, options.labels, options.columns)
    for start, stop, rows in ((0, 96, 96), (30, 41, 4), (35, 70, 35), (34, 36, 1), (95, 96, 10)):
        monkeypatch.setattr("neuralcollapse.files.features.BLOCK_BYTES", rows * 6 * 8)
        blocks = list(examples.blocks(start, stop))
        assert [block.start for block in blocks] == list(range(start, stop, rows))
        assert torch.equal(
            torch.cat([block.features for block in blocks]), torch.tensor(arrays["features"][start:stop])
        )
        assert torch.equal(torch.cat([block.labels for block in blocks]), torch.tensor(arrays["labels"][start:stop]))


def test_columns_of_memory_and_other_byte_orders_are_read_in_order(tmp_path: Path) -> None:
    arrays = layer()
    np.save(tmp_path / "features.npy", np.asfortranarray(arrays["features"]).astype(">f8"))
    np.savez(tmp_path / "rest.npz", **{name: arrays[name] for name in ("labels", "weight", "bias")})
    options = FileOptions(labels=tmp_path / "rest.npz", weight=tmp_path / "rest.npz")
    same(measure_files(tmp_path / "features.npy", options).report, measure_features(**arrays), 1e-12)


def test_a_label_of_every_integer_type_is_read(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer())
    for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        np.save(tmp_path / "labels.npy", layer()["labels"].astype(kind))
        blocks = list(open_examples(path, options.labels).blocks(0, 96))
        assert torch.equal(blocks[0].labels, torch.tensor(layer()["labels"]))


def test_labels_of_one_column_are_read_as_a_vector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """scikit-learn and MATLAB save labels as (n, 1)."""
    arrays = layer()
    path, options = npy(tmp_path, arrays)
    np.save(tmp_path / "labels.npy", arrays["labels"][:, None])
    monkeypatch.setattr("neuralcollapse.files.features.BLOCK_BYTES", 7 * 6 * 8)
    same(measure_files(path, options).report, measure_features(**arrays), 1e-12)


def test_own_files_go_before_the_features_file(tmp_path: Path) -> None:
    path, _ = npz(tmp_path, layer())
    np.save(tmp_path / "w.npy", layer()["weight"] + 1)
    np.savez(tmp_path / "only.npz", layer()["weight"] + 2)  # one array, whatever its name
    np.savez(tmp_path / "both.npz", weight=layer()["weight"] + 3, bias=layer()["bias"] + 1)
    own = open_classifier(path)
    assert own is not None and own.bias is not None
    for name, added in (("w.npy", 1), ("only.npz", 2), ("both.npz", 3)):
        other = open_classifier(path, tmp_path / name)
        assert other is not None and torch.equal(other.weight, torch.tensor(layer()["weight"] + added))
        # never the bias of one classifier with the weight of another
        assert (other.bias is None) == (added < 3)
    np.save(tmp_path / "b.npy", layer()["bias"] + 2)
    other = open_classifier(path, None, tmp_path / "b.npy")
    assert other is not None and torch.equal(other.bias, torch.tensor(layer()["bias"] + 2))  # type: ignore[arg-type]


MEMORY = """
import json, sys
from pathlib import Path
import torch
from neuralcollapse.files import features
from neuralcollapse.files.measure_files import measure_files
from neuralcollapse.files.options import FileOptions

torch.set_num_threads(1)
features.BLOCK_BYTES = 1 << 20

def own():  # not the pages of mapped files, which the system takes back when it wants to
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

def run(path, options):
    most = 0
    def sample(share):
        nonlocal most
        most = max(most, own())
    paths = {name: value if name == "columns" else Path(value) for name, value in options.items()}
    measure_files(Path(path), FileOptions(**paths), sample)
    return most

small, large = json.loads(sys.argv[1])
print(run(*small), run(*large))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    "save", [npy, npz, safetensors, parquet_lists, parquet_columns], ids=lambda save: save.__name__
)
def test_memory_is_bounded_by_the_block(save: Save, tmp_path: Path) -> None:
    """In blocks of 1 MiB, a file of 64 MiB takes little more memory than one of 16 MiB, which fills all buffers."""
    calls = []
    for name, examples in (("small", 1 << 15), ("large", 1 << 17)):
        (tmp_path / name).mkdir()
        path, options = needed(save)(tmp_path / name, layer(examples, dim=64))
        given = {field: getattr(options, field) for field in ("labels", "weight", "bias", "columns")}
        calls.append((str(path), {field: str(value) for field, value in given.items() if value}))
    command = [sys.executable, "-c", MEMORY, json.dumps(calls)]
    paths = os.pathsep.join(path for path in sys.path if path)
    # Arrow's own allocator holds freed memory back, at times 10 MiB of it and at times none.
    environment = {**os.environ, "PYTHONPATH": paths, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    small, large = map(int, done.stdout.split())
    assert large - small < 16 << 10, f"{large - small} KiB"
