"""How many rows, or classes, are worked on at a time, and how large their squares may be."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Blocks of at most so many bytes stay in a processor's cache between the passes an update makes over them, and of at
# most so many rows keep sums in float32 exact, which for narrow features are made term by term; an accelerator wants
# them large enough to be kept busy.
BLOCK_BYTES, BLOCK_ROWS = 8 << 20, 4096
ACCELERATOR_BLOCK_BYTES, ACCELERATOR_BLOCK_ROWS = 256 << 20, 1 << 17
# Work over class means goes in blocks of this many bytes, so that a hundred thousand classes need no second copy.
MEANS_BYTES = 64 << 20
# Rows this many numbers longer than a multiple of the cache's own stride are read faster by products.
PADDING = 16
# Rows whose square is above this are too large to be multiplied in float32.
LARGEST_SQUARE = 2.0**100


def rows_per_block(features: Tensor) -> int:
    """How many rows of features are worked on at a time."""
    on_cpu = features.device.type == "cpu"
    size, most = (BLOCK_BYTES, BLOCK_ROWS) if on_cpu else (ACCELERATOR_BLOCK_BYTES, ACCELERATOR_BLOCK_ROWS)
    return min(most, max(256, size // (features.element_size() * features.shape[1])))


def classes_per_block(dim: int) -> int:
    """How many class means of dimension p are worked on at a time."""
    return max(1, MEANS_BYTES // (8 * dim))


def slices(count: int, size: int) -> Iterator[slice]:
    """Slices of this size, but for the last, that cover 0 … count − 1."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def padded_rows(like: Tensor, count: int) -> Tensor:
    """(count, p) uninitialised rows, laid out for fast products."""
    whole = like.new_empty(count, like.shape[1] + PADDING)
    whole[:, like.shape[1] :] = 0.0  # class sums on the CPU take whole rows, the padding too
    return whole[:, : like.shape[1]]


def squared_norms(rows: Tensor) -> Tensor:
    """(n,) ‖row‖² in float64, each as exact as the rows' own type."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1).double().square()
    return norms
