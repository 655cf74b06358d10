"""An array in a file that is read in blocks of rows."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """An array whose first axis is read in blocks; only one block is in memory at a time.

    Args:
        shape: of the whole array.
        dtype: PyTorch's name of its type, such as "bfloat16".
        blocks: takes start, stop and step; gives rows start … stop − 1, in order, `step` at a time, the last block
            perhaps shorter; raises an InputError where they cannot be read.
    """

    shape: tuple[int, ...]
    dtype: str
    blocks: Callable[[int, int, int], Iterator[Tensor]]


Arrays = dict[str, Callable[[], Rows]]
"""The arrays of a file by name, each opened when it is called for; the others are never read."""


def array_rows(open_array: Callable[[], np.ndarray[Any, Any]]) -> Rows:
    """The rows of a NumPy array, which may be mapped from a file."""
    array = open_array()
    native = array.dtype.newbyteorder("=")

    def blocks(start: int, stop: int, step: int) -> Iterator[Tensor]:
        for first in range(start, stop, step):
            # a copy: PyTorch accepts neither a read-only map nor another byte order
            yield torch.from_numpy(np.array(array[first : min(first + step, stop)], dtype=native, order="C"))
            # pages read are this process's memory until they are given back
            if isinstance(array, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
                array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]

    return Rows(array.shape, array.dtype.name, blocks)
