"""Small batches gathered into blocks: a product of 4,096 rows costs far less than those of 32 batches of 128."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from neuralcollapse.moments.accumulator import LARGEST_SQUARE, block_of, padded_rows

# A batch of less than this share of a block waits for others; a larger one is not worth copying.
_SHARE = 4

Use = Callable[[Tensor, Tensor, bool], None]


class Waiting:
    """Rows and their labels, in the order they came, until there are enough for a block."""

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self._labels: Tensor | None = None
        self.count = 0

    def gather(self, features: Tensor, labels: Tensor, use: Use) -> None:
        """Keep a small batch; call ``use`` with what makes a block, in the order the rows came.

        Args:
            features: (n, p); labels: (n,).
            use: takes features, labels and whether the rows are the buffer's own, to be written over.
        """
        if not len(features):
            return
        waits = self._takes(features)
        if not waits or self.count + len(features) > block_of(features):
            self.flush(use)
        if waits:
            self._add(features, labels)
        else:
            use(features, labels, False)

    def flush(self, use: Use) -> None:
        """Call ``use`` with all that wait, which then do no longer."""
        if self.count:
            assert self._rows is not None and self._labels is not None
            count, self.count = self.count, 0
            use(self._rows[:count], self._labels[:count], True)

    def finish(self, use: Use) -> None:
        """As ``flush``, for who is mostly done with adding: the memory is given back."""
        if self.count:
            self.flush(use)
            self._rows = self._labels = None

    def _takes(self, features: Tensor) -> bool:
        """Whether the batch is small, of the type of those that wait, and of numbers whose products stay moderate.

        Anything else is to be dealt with at once, so that an error comes from the call that gave its cause.
        """
        if not 0 < len(features) * _SHARE <= block_of(features):
            return False
        if self._rows is not None and self.count and self._rows.dtype != features.dtype:
            return False
        flat = features.reshape(-1)
        return float(torch.dot(flat, flat)) <= LARGEST_SQUARE

    def _add(self, features: Tensor, labels: Tensor) -> None:
        """Copy a batch that fits."""
        if self._rows is None or self._labels is None or self._rows.dtype != features.dtype:
            self._rows = padded_rows(features, block_of(features))
            # int64 whatever comes: a later batch's labels may need more room than the first one's type has
            self._labels = labels.new_empty(len(self._rows), dtype=torch.int64)
        part = slice(self.count, self.count + len(features))
        self._rows[part], self._labels[part] = features, labels
        self.count += len(features)
