"""Small batches gathered into blocks: a product of 4,096 rows costs far less than those of 32 batches of 128."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from neuralcollapse.moments.blocks import LARGEST_SQUARE, padded_rows, rows_per_block

# A batch of less than one part in so many of a block waits for others; a larger one is not worth copying.
_PARTS = 4

# Features, their labels, and whether the rows are the buffer's own memory, which may be written over.
Block = tuple[Tensor, Tensor, bool]


class RowBuffer:
    """Features and labels that wait, in the order they came, until there are enough for a block."""

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self._labels: Tensor | None = None
        self._count = 0

    def add(self, features: Tensor, labels: Tensor) -> Iterator[Block]:
        """Take a batch, features (n, p) and labels (n,); give the blocks that are ready, in the order the rows came.

        A small batch is copied and waits. A large one comes out at once, and so does one of another type than those
        that wait, or of extreme numbers, so that an error comes from the call that gave its cause.
        """
        if not len(features):
            return
        waits = self._may_wait(features)
        if not waits or self._count + len(features) > rows_per_block(features):
            yield from self._waiting()
        if not waits:
            yield features, labels, False
            return
        if self._rows is None or self._labels is None or self._rows.dtype != features.dtype:
            self._rows = padded_rows(features, rows_per_block(features))
            # int64 whatever comes: a later batch's labels may need more room than the first one's type has
            self._labels = labels.new_empty(len(self._rows), dtype=torch.int64)
        part = slice(self._count, self._count + len(features))
        self._rows[part], self._labels[part] = features, labels
        self._count += len(features)

    def empty(self) -> Iterator[Block]:
        """Give the rows that wait, if any, and then their memory back."""
        if self._count:
            yield from self._waiting()
            self._rows = self._labels = None

    def _waiting(self) -> Iterator[Block]:
        if self._count:
            assert self._rows is not None and self._labels is not None
            count, self._count = self._count, 0
            yield self._rows[:count], self._labels[:count], True

    def _may_wait(self, features: Tensor) -> bool:
        if len(features) * _PARTS > rows_per_block(features):
            return False
        if self._rows is not None and self._count and self._rows.dtype != features.dtype:
            return False
        flat = features.reshape(-1)
        return float(torch.dot(flat, flat)) <= LARGEST_SQUARE
