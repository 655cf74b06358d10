"""One last layer, saved in every format that features are read from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuralcollapse import Report
from neuralcollapse.files.measure_files import measure_files
from neuralcollapse.files.options import FileOptions

Arrays = dict[str, np.ndarray]


def layer(examples: int = 96, classes: int = 4, dim: int = 6, dtype: str = "float64") -> Arrays:
    """A noisy last layer of uneven classes; the classifier is neither optimal nor collapsed."""
    rng = np.random.default_rng(7)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, examples - classes) ** 2 % classes])
    means = rng.normal(size=(classes, dim)) + 3.0
    features = (means[labels] + 0.8 * rng.normal(size=(examples, dim))).astype(dtype)
    weight = means - means.mean(axis=0) + 0.3 * rng.normal(size=(classes, dim))
    bias = -weight @ features.astype("float64").mean(axis=0)
    return {"features": features, "labels": labels, "weight": weight, "bias": bias}


def npy(folder: Path, arrays: Arrays) -> tuple[Path, FileOptions]:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    paths = {name: folder / f"{name}.npy" for name in ("labels", "weight", "bias")}
    return folder / "features.npy", FileOptions(**paths)


def npz(folder: Path, arrays: Arrays) -> tuple[Path, FileOptions]:
    np.savez(folder / "layer.npz", **arrays)
    return folder / "layer.npz", FileOptions()


def npz_compressed(folder: Path, arrays: Arrays) -> tuple[Path, FileOptions]:
    np.savez_compressed(folder / "layer.npz", **arrays)
    return folder / "layer.npz", FileOptions()


def safetensors(folder: Path, arrays: Arrays) -> tuple[Path, FileOptions]:
    from safetensors.torch import save_file

    save_file({name: torch.tensor(array) for name, array in arrays.items()}, folder / "layer.safetensors")
    return folder / "layer.safetensors", FileOptions()


def parquet_lists(folder: Path, arrays: Arrays) -> tuple[Path, FileOptions]:
    """A column of fixed-size lists, in row groups that end where no block does."""
    import pyarrow as pa

    dim = arrays["features"].shape[1]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(arrays["features"].reshape(-1)), dim)
    return _table(folder, arrays, {"features": lists, "label": pa.array(arrays["labels"])})


def parquet_variable_lists(folder: Path, arrays: Arrays) -> tuple[Path, FileOptions]:
    """A column of lists whose type does not say how long they are."""
    import pyarrow as pa

    lists = pa.array(list(arrays["features"]), pa.list_(pa.from_numpy_dtype(arrays["features"].dtype)))
    return _table(folder, arrays, {"features": lists, "labels": pa.array(arrays["labels"].astype("uint8"))})


def parquet_columns(folder: Path, arrays: Arrays) -> tuple[Path, FileOptions]:
    """A column for each feature, in the order of their names, which is not that of their numbers."""
    import pyarrow as pa

    columns = {f"feat_{j}": pa.array(column) for j, column in enumerate(arrays["features"].T)}
    columns = {name: columns[name] for name in sorted(columns)} | {"label": pa.array(arrays["labels"])}
    return _table(folder, arrays, columns, columns="feat")


def _table(folder: Path, arrays: Arrays, content: dict[str, Any], **options: Any) -> tuple[Path, FileOptions]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A long table is one group; that of many columns is not, because a page of each is in memory at a time.
    rows = 35 if len(arrays["labels"]) < 1000 else 4096 if "columns" in options else None
    pq.write_table(pa.table(content), folder / "table.parquet", row_group_size=rows)
    np.savez(folder / "classifier.npz", weight=arrays["weight"], bias=arrays["bias"])
    return folder / "table.parquet", FileOptions(weight=folder / "classifier.npz", **options)


Save = Callable[[Path, Arrays], tuple[Path, FileOptions]]
FORMATS: tuple[Save, ...] = (npy, npz, npz_compressed, safetensors)
PARQUET: tuple[Save, ...] = (parquet_lists, parquet_variable_lists, parquet_columns)


def same_report(found: Report | None, expected: Report, without: tuple[str, ...] = ()) -> None:
    """The two reports agree in every number, to 1e-12."""
    assert found is not None
    numbers, others = found.to_dict(), expected.to_dict()
    assert numbers.keys() == others.keys()
    for name in numbers.keys() - set(without):
        if isinstance(others[name], float | list) and name != "notes":
            np.testing.assert_allclose(numbers[name], others[name], rtol=1e-12, atol=1e-12, err_msg=name)  # type: ignore[arg-type]
        else:
            assert numbers[name] == others[name], name


def jobs(path: Path, options: FileOptions, folder: Path, kind: str, number: int, **changes: Any) -> list[Path]:
    """What each job of an array saves."""
    saved = []
    for part in range(1, number + 1):
        saved.append(folder / f"{kind}-{part}.safetensors")
        own = replace(options, shard=f"{part}/{number}", save=saved[-1], **changes)
        assert measure_files(path, own).report is None
    return saved
