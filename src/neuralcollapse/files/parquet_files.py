"""Columns of Parquet files, decoded in batches of rows.

A page and a dictionary of each column are in memory as well, most often 2 MiB: one column of lists takes less memory
than thousands of columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralcollapse._errors import InputError, install
from neuralcollapse._files import readable
from neuralcollapse.files.parquet_sizes import Sizes, read_sizes
from neuralcollapse.files.rows import Arrays, Rows

_KIND = "Parquet file"
_ROWS_TO_CHECK = 4096  # at once, where the lengths of lists differ
_LARGEST_RATIO, _RATIO_FROM = 1000, 64 << 20  # uncompressed bytes to the file's, for columns of at least so many bytes


def parquet_arrays(path: Path, prefix: str) -> Arrays:
    """The columns of a Parquet file by name, and `features` and `labels`.

    Args:
        prefix: the features are the column of lists of this name, or the columns whose names begin with it, in the
            order of the numbers that all of them end in, or else in the file's order.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{path} needs pyarrow: {install('pyarrow')}") from None
    with readable(path, _KIND):
        sizes = read_sizes(path)
        # checksums of pages are compared, if the writer left any
        file = pyarrow.parquet.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        names = list(file.schema_arrow.names)
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: expected each column once, got {twice[0]} {names.count(twice[0])} times")
    found: Arrays = {name: partial(_open, path, file, sizes, [name], False) for name in names}
    if "label" in found:
        found.setdefault("labels", found["label"])
    if features := [prefix] if prefix in names else _by_number(names, prefix):
        found["features"] = partial(_open, path, file, sizes, features, True)
    return found


def _by_number(names: list[str], prefix: str) -> list[str]:
    chosen = [name for name in names if name.startswith(prefix) and name not in ("label", "labels")]
    numbers = {name: name.removeprefix(prefix).lstrip("_-.") for name in chosen}
    if all(number.isascii() and number.isdigit() for number in numbers.values()):
        # of two numbers without leading zeros the longer is the larger, whatever its length
        chosen.sort(key=lambda name: (len(numbers[name].lstrip("0")), numbers[name].lstrip("0")))
    return chosen


def _open(path: Path, file: Any, sizes: Sizes, names: list[str], matrix: bool) -> Rows:
    """A matrix, of several columns or of one column of lists; or one column as a vector."""
    from pyarrow import types

    with readable(path, _KIND):
        kinds = [file.schema_arrow.field(name).type for name in names]
        is_list = matrix and len(kinds) == 1 and hasattr(kinds[0], "value_type")
        values = [kinds[0].value_type] if is_list else kinds
        for name, kind, value in zip(names, kinds, values, strict=True):
            if not (types.is_floating(value) or types.is_integer(value)):
                raise InputError(f"{path}: expected numbers in column {name}, got {kind}")
        dtype = np.result_type(*[value.to_pandas_dtype() for value in values])
    _require_sizes(path, sizes, names, dtype.itemsize)
    columns, count = _Columns(path, file, sizes.rows, names, matrix), sum(sizes.rows)
    if not is_list:
        return Rows((count, len(names)) if matrix else (count,), dtype.name, columns.blocks)
    # where a list's type does not say its length, the first row does
    width = getattr(kinds[0], "list_size", None) or columns.first_length()
    lists = replace(columns, list_length=width)
    # by our own reader of the metadata: asked for a column, Arrow ends the process where its statistics are damaged
    numbers = sum(chunk.entries for chunk in sizes.chunks if chunk.path[0] == names[0])
    if width and numbers != count * width:  # before anything is compared with the first row's length
        for _ in lists.blocks(0, count, _ROWS_TO_CHECK):
            pass  # the row whose length is another is named
    return Rows((count, width), dtype.name, lists.blocks)


def _require_sizes(path: Path, sizes: Sizes, names: list[str], itemsize: int) -> None:
    """Raise where a column announces more numbers than so small a file can hold; a few bytes can announce a billion."""
    chosen, most = set(names), max(_LARGEST_RATIO * path.stat().st_size, _RATIO_FROM)
    for chunk in sizes.chunks:
        # a column's name may have dots, and Arrow joins the names of nested ones by dots
        if not any(".".join(chunk.path[:end]) in chosen for end in range(1, len(chunk.path) + 1)):
            continue
        size = max(itemsize * chunk.values, chunk.size)
        if size > most:
            raise InputError(
                f"{path}: expected columns that unpack to at most {_LARGEST_RATIO} times its "
                f"{path.stat().st_size:,} bytes, got {size:,}; save them as .npy"
            )


@dataclass(frozen=True)
class _Columns:
    """Columns of a file, read as a matrix or a vector; of one column of lists also the length that each has."""

    path: Path
    file: Any
    group_rows: tuple[int, ...]
    names: list[str]
    matrix: bool
    list_length: int | None = None

    def first_length(self) -> int:
        for batch, _ in self._batches(0, 1, 1):
            with readable(self.path, _KIND):
                return int(batch.column(0).value_lengths()[0].as_py() or 0)
        return 0

    def blocks(self, start: int, stop: int, step: int) -> Iterator[Tensor]:
        pending: list[np.ndarray[Any, Any]] = []
        size = 0
        for batch, first in self._batches(start, stop, step):
            with readable(self.path, _KIND):
                values = self._numbers(batch, first)
            while len(values):  # batches end where row groups do, blocks do not
                pending.append(values[: step - size])
                size += len(pending[-1])
                values = values[len(pending[-1]) :]
                if size == step or (first + len(batch) == stop and not len(values)):
                    # always a copy: Arrow's memory is read-only, and lives only as long as its batch
                    yield torch.from_numpy(np.concatenate(pending))
                    pending, size = [], 0

    def _batches(self, start: int, stop: int, step: int) -> Iterator[tuple[Any, int]]:
        """Record batches of rows start … stop − 1, each with the number of its first row."""
        ends = list(accumulate(self.group_rows, initial=0))
        groups = [group for group in range(len(ends) - 1) if ends[group + 1] > start and ends[group] < stop]
        first = ends[groups[0]] if groups else 0
        with readable(self.path, _KIND):
            batches = self.file.iter_batches(batch_size=step, row_groups=groups, columns=self.names)
        while first < stop:
            with readable(self.path, _KIND):
                batch = next(batches, None)
                if batch is None:
                    raise ValueError(f"it ends at row {first} of {ends[-1]}")
            low, high = max(start - first, 0), min(stop - first, len(batch))
            if low < high:
                yield batch.slice(low, high - low), first + low
            first += len(batch)

    def _numbers(self, batch: Any, first: int) -> np.ndarray[Any, Any]:
        columns = []
        for name in self.names:
            column = batch.column(name)
            if column.null_count:
                row = first + column.is_null().to_numpy(zero_copy_only=False).argmax()
                raise InputError(f"{self.path}: expected a value in every row of {name}, got none in row {row}")
            if (expected := self.list_length) is not None:
                lengths = column.value_lengths().to_numpy(zero_copy_only=False)
                if (other := lengths != expected).any():
                    row = int(other.argmax())
                    found = f"{lengths[row]} in row {first + row}"
                    raise InputError(f"{self.path}: expected {expected} features in every row, got {found}")
                column = column.flatten()
                if column.null_count:
                    missing = column.is_null().to_numpy(zero_copy_only=False).argmax()
                    row = first + int(missing) // expected
                    raise InputError(f"{self.path}: expected numbers in {name}, got a missing one in row {row}")
            columns.append(column.to_numpy(zero_copy_only=False))
        if self.list_length is not None:
            return np.asarray(columns[0]).reshape(-1, self.list_length)
        return np.stack(columns, axis=1) if self.matrix else np.asarray(columns[0])
