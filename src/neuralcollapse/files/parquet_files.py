"""Columns of Parquet files, decoded a batch of rows at a time.

Of each column a page and a dictionary are in memory too, most often 2 MiB: a column of lists is leaner than thousands.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralcollapse._checks import InputError
from neuralcollapse.files.parquet_sizes import Sizes, read_sizes
from neuralcollapse.files.rows import Arrays, Rows, first_line

_LABELS = ("label", "labels")
_LARGEST_RATIO, _RATIO_FROM = 1000, 64 << 20  # of unpacked to packed bytes, from so many unpacked ones on


def parquet_arrays(path: Path, prefix: str) -> Arrays:
    """``features`` and ``labels`` of a Parquet file.

    Args:
        prefix: names the features: one column of lists, or the columns beginning with it, which are taken in the
            order of the numbers they end in where all do, else in the file's.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{path} needs pyarrow: pip install 'neuralcollapse[parquet]'") from None
    with _readable(path):
        sizes = read_sizes(path)
        # where a writer has left checksums of the pages, they are compared
        file = pyarrow.parquet.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        names = list(file.schema_arrow.names)
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: expected each column once, got {twice[0]} {names.count(twice[0])} times")
    found: Arrays = {name: partial(_open, path, file, sizes, [name], True) for name in names}
    if "label" in found:
        found.setdefault("labels", found["label"])
    features = [prefix] if prefix in names else _by_number(names, prefix)
    if features:
        found["features"] = partial(_open, path, file, sizes, features, False)
    return found


def _by_number(names: list[str], prefix: str) -> list[str]:
    chosen = [name for name in names if name.startswith(prefix) and name not in _LABELS]
    endings = {name: name.removeprefix(prefix).lstrip("_-.") for name in chosen}
    if all(ending.isascii() and ending.isdigit() for ending in endings.values()):
        # of two numbers without leading zeros the longer is the larger, whatever its length
        chosen.sort(key=lambda name: (len(endings[name].lstrip("0")), endings[name].lstrip("0")))
    return chosen


def _open(path: Path, file: Any, sizes: Sizes, names: list[str], flat: bool) -> Rows:
    """One column as a vector if ``flat``, else columns, or one column of lists, as a matrix."""
    from pyarrow import types

    with _readable(path):
        kinds = [file.schema_arrow.field(name).type for name in names]
        is_list = not flat and len(kinds) == 1 and hasattr(kinds[0], "value_type")
        values = [kinds[0].value_type] if is_list else kinds
        for name, kind, value in zip(names, kinds, values, strict=True):
            if not (types.is_floating(value) or types.is_integer(value)):
                raise InputError(f"{path}: expected numbers in column {name}, got {kind}")
        dtype = np.result_type(*[value.to_pandas_dtype() for value in values])
    _require_sizes(path, sizes, names, dtype.itemsize)
    count = sum(sizes.rows)
    rows = _ColumnRows(path, file, sizes.rows, tuple(names), is_list, (count,), dtype.name)
    if flat:
        return rows
    # a list whose type does not say its length says it in its rows
    width = getattr(kinds[0], "list_size", None) or rows.first_length() if is_list else len(names)
    return replace(rows, shape=(count, width))


def _require_sizes(path: Path, sizes: Sizes, names: list[str], itemsize: int) -> None:
    """Raise where a column has more numbers than can come from so small a file; a few bytes can announce a billion."""
    chosen, most = set(names), max(_LARGEST_RATIO * path.stat().st_size, _RATIO_FROM)
    for chunk in sizes.chunks:
        # a name may have dots, and so many parts
        if not any(".".join(chunk.path[:end]) in chosen for end in range(1, len(chunk.path) + 1)):
            continue
        size = max(itemsize * chunk.values, chunk.size)
        if size > most:
            raise InputError(
                f"{path}: expected columns that unpack to at most {_LARGEST_RATIO} times its "
                f"{path.stat().st_size:,} bytes, got {size:,}; save them as .npy"
            )


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say what is wrong with a file in one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # pyarrow raises whatever the damaged bytes led it to
        raise InputError(f"{path} is no readable Parquet file: {first_line(error)}") from error


@dataclass(frozen=True)
class _ColumnRows:
    path: Path
    file: Any
    group_rows: tuple[int, ...]
    names: tuple[str, ...]
    is_list: bool
    shape: tuple[int, ...]
    dtype: str

    def first_length(self) -> int:
        for batch, _ in self._batches(0, 1, 1):
            with _readable(self.path):
                return int(batch.column(0).value_lengths()[0].as_py() or 0)
        return 0

    def blocks(self, start: int, stop: int, step: int) -> Iterator[Tensor]:
        pending: list[np.ndarray[Any, Any]] = []
        size = 0
        for batch, first in self._batches(start, stop, step):
            with _readable(self.path):
                values = self._values(batch, first)
            while len(values):  # batches end where row groups do; blocks do not
                pending.append(values[: step - size])
                size += len(pending[-1])
                values = values[len(pending[-1]) :]
                if size == step:
                    yield _joined(pending)
                    pending, size = [], 0
        if pending:
            yield _joined(pending)

    def _batches(self, start: int, stop: int, step: int) -> Iterator[tuple[Any, int]]:
        """Record batches of rows start … stop − 1, each with the number of its first row."""
        groups: list[int] = []
        first, end = 0, 0
        for group, rows in enumerate(self.group_rows):
            if end + rows > start and end < stop:
                first = first if groups else end
                groups.append(group)
            end += rows
        with _readable(self.path):
            batches = self.file.iter_batches(batch_size=step, row_groups=groups, columns=list(self.names))
        while True:
            with _readable(self.path):
                batch = next(batches, None)
            if batch is None:
                raise InputError(f"{self.path} is no readable Parquet file: it ends at row {first} of {self.shape[0]}")
            low, high = max(start - first, 0), min(stop - first, len(batch))
            if low < high:
                yield batch.slice(low, high - low), first + low
            first += len(batch)
            if first >= stop:
                return

    def _values(self, batch: Any, first: int) -> np.ndarray[Any, Any]:
        columns = []
        for name in self.names:
            column = batch.column(name)
            if column.null_count:
                row = first + column.is_null().to_numpy(zero_copy_only=False).argmax()
                raise InputError(f"{self.path}: expected a value in every row of {name}, got none in row {row}")
            if self.is_list:
                lengths = column.value_lengths().to_numpy(zero_copy_only=False)
                if (other := lengths != self.shape[1]).any():
                    row = int(other.argmax())
                    raise InputError(
                        f"{self.path}: expected {self.shape[1]} features in every row, "
                        f"got {lengths[row]} in row {first + row}"
                    )
                column = column.flatten()
                if column.null_count:
                    missing = column.is_null().to_numpy(zero_copy_only=False).argmax()
                    row = first + int(missing) // self.shape[1]
                    raise InputError(f"{self.path}: expected numbers in {name}, got a missing one in row {row}")
            columns.append(column.to_numpy(zero_copy_only=False))
        if len(self.shape) == 1:
            return np.asarray(columns[0])
        return columns[0].reshape(-1, self.shape[1]) if self.is_list else np.stack(columns, axis=1)


def _joined(parts: list[np.ndarray[Any, Any]]) -> Tensor:
    # always a copy: Arrow's memory is read-only, and lives only as long as its batch
    return torch.from_numpy(np.concatenate(parts))
