"""An array in a file that is read in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Rows(Protocol):
    """An array whose first axis is read in blocks; only one block is in memory at a time."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""

    @property
    def dtype(self) -> str:
        """PyTorch's name of it, such as "bfloat16"."""

    def blocks(self, start: int, stop: int, step: int) -> Iterator[Tensor]:
        """Rows start … stop − 1, in order, ``step`` at a time; the last block may be shorter.

        Raises:
            InputError: they cannot be read.
        """


Arrays = dict[str, Callable[[], Rows]]
"""The arrays of a file by name, each opened when it is called for; the others are never read."""


@dataclass(frozen=True)
class ArrayRows:
    """The rows of a NumPy array, which may be mapped from a file."""

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
            # a copy: PyTorch accepts neither a read-only map nor another byte order
            yield torch.from_numpy(np.array(self.array[first : min(first + step, stop)], dtype=native, order="C"))
