"""Rows: one array of a file, read a block of rows at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from neuralcollapse._checks import InputError

Arrays = dict[str, Callable[[], "Rows"]]
"""The arrays of a file by name, each opened when it is called for, so that what nobody asked for is never read."""


class Rows(Protocol):
    """An array whose first axis is read in blocks; only the block at hand is in memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""

    @property
    def dtype(self) -> str:
        """By PyTorch's name, such as "bfloat16"."""

    def blocks(self, start: int, stop: int, step: int) -> Iterator[Tensor]:
        """Rows start … stop − 1, in order, ``step`` at a time; the last block may be shorter.

        Raises:
            InputError: what is there cannot be read.
        """


@dataclass(frozen=True)
class ArrayRows:
    """Of a NumPy array, mapped from a file or in memory."""

    array: np.ndarray[Any, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> str:
        return str(self.array.dtype.name)

    def blocks(self, start: int, stop: int, step: int) -> Iterator[Tensor]:
        native = self.array.dtype.newbyteorder("=")
        for first in range(start, stop, step):
            # a copy: PyTorch takes neither a read-only map, nor another byte order
            yield torch.from_numpy(np.array(self.array[first : min(first + step, stop)], dtype=native, order="C"))


def require_memory(path: Path, name: str, size: int) -> None:
    """Raise where an array that must be in memory whole has more bytes than the machine, instead of being killed."""
    if (there := machine_bytes()) is not None and size > there:
        raise InputError(
            f"{path}: expected {name} that fits in this machine's {there / 2**30:.1f} GiB, got {size / 2**30:.1f} GiB"
        )


def machine_bytes() -> int | None:
    """The machine's memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def whole(rows: Rows) -> Tensor:
    """All rows at once, for what is small."""
    return next(rows.blocks(0, rows.shape[0], max(1, rows.shape[0])), torch.empty(rows.shape))


def first_line(error: BaseException) -> str:
    """What another library says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
