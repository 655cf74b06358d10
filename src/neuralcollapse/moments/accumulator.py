"""Rows added to statistics: gathered into blocks, centred at their class means, then multiplied."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neuralcollapse._checks import not_finite
from neuralcollapse._linalg import full_precision, power_of_two, scaled
from neuralcollapse.moments.blocks import BLOCK_ROWS, LARGEST_SQUARE, padded_rows, rows_per_block, squared_norms
from neuralcollapse.moments.row_buffer import RowBuffer
from neuralcollapse.moments.statistics import Statistics

# Within torch.inference_mode() PyTorch makes tensors that can't be changed outside it; statistics outlive the block.
outlives_inference_mode = torch.inference_mode(mode=False)

# Up to this many classes are all taken, and on an accelerator summed by a product with the one-hot matrix.
_ONE_HOT_LIMIT = 64
# A class's first mean, which products are centred at, comes from one row in this many: a prime, so that rows in a cycle
# of their classes give some of each.
_SAMPLE = 17
# Fewer rows a class than this, and centring the rows at once is cheaper than a product over classes afterwards.
_FEW_ROWS = 64
# Fewer rows a class than this, and rows are centred at once whatever their number, a block after the other: folding the
# means of so many classes in afterwards costs five products of as many rows.
_VERY_FEW_ROWS = 4
# Features of a size between 2^-32 and 2^32 are taken as they are: their squares are far from float32's limits.
_MODERATE = 32


class _TooLarge(Exception):
    """Features that are finite, but too large to be squared at the statistics' present scale."""


class Accumulator:
    """Adds labelled rows to :class:`Statistics`.

    Small batches wait in a buffer. A block of rows is centred before it is multiplied, in one of two ways: few rows a
    class about the class means so far, so that one product is the growth of the scatter (:meth:`_add_batch`); many rows
    about a shift near their own class means, merged with what is there (:meth:`_add_blocks`).
    """

    def __init__(self, statistics: Statistics) -> None:
        self._statistics, self._buffer = statistics, RowBuffer()

    @property
    def statistics(self) -> Statistics:
        """With all rows that waited."""
        for block in self._buffer.empty():
            self._use(*block)
        return self._statistics

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add rows of float32 or float64 with labels in range."""
        for block in self._buffer.add(features, labels):
            self._use(*block)

    @outlives_inference_mode
    def _use(self, features: Tensor, labels: Tensor, may_overwrite: bool) -> None:
        """Add rows, at least one; nothing changes where one is not finite.

        ``may_overwrite`` says that nobody needs the rows afterwards, whose memory then serves the work.
        """
        state = self._statistics
        if state.exponent is None:
            self._fit(features[:BLOCK_ROWS])  # the first rows mostly tell; where they do not, squares do below
        if state.exponent != 0 or features.dtype == torch.float64:
            self._fit(features)
        # An autocast or TF32 around the caller's own loop must not narrow these products.
        with full_precision(features.device):
            while True:
                rows = scaled(features, -(state.exponent or 0))
                rows = rows if rows is features else rows.contiguous()
                try:
                    self._add(rows, labels, may_overwrite or rows is not features)
                    return
                except _TooLarge:
                    if not bool(torch.isfinite(features).all()):
                        raise not_finite(features) from None
                    # a residual is as large as the features, or as the means that they are centred at
                    held = power_of_two(state.means)
                    sizes = (power_of_two(features), None if held is None else held + (state.exponent or 0))
                    state.rescale(max((size for size in sizes if size is not None), default=0))

    def _fit(self, features: Tensor) -> None:
        """Choose the power of two by the first features that are not zero, and a larger one for larger features."""
        needed = power_of_two(features)
        if needed is None:
            return
        state = self._statistics
        if state.exponent is None:
            state.exponent = 0 if abs(needed) <= _MODERATE else needed
        elif needed > state.exponent + 2 * _MODERATE:
            state.rescale(needed)

    def _add(self, features: Tensor, labels: Tensor, may_overwrite: bool) -> None:
        # Few classes are all taken, as a view, also those without a row: cheaper than finding out which have one.
        of_class = self._statistics.counts
        classes: Tensor | slice = slice(None)
        index = labels
        if len(of_class) > _ONE_HOT_LIMIT:
            classes, index = torch.unique(labels, return_inverse=True)
        counts = torch.bincount(index, minlength=len(of_class[classes]))
        # As many as are summed in float32, though they may be more than stay in the cache.
        batch = max(BLOCK_ROWS, rows_per_block(features))
        if len(features) <= batch and len(features) < _FEW_ROWS * len(counts):
            self._add_batch(features, labels, classes, index, counts)
        elif len(features) < _VERY_FEW_ROWS * len(counts):
            # Once a block is added, no later one may be found wrong. Residuals are at most six times so long as these.
            for rows in (features, self._statistics.means[classes]):
                _require_moderate(36.0 * squared_norms(rows))
            for start in range(0, len(features), batch):
                self._add(features[start : start + batch], labels[start : start + batch], may_overwrite)
        else:
            self._add_blocks(features, classes, index, counts, may_overwrite)

    def _add_batch(
        self, features: Tensor, labels: Tensor, classes: Tensor | slice, index: Tensor, counts: Tensor
    ) -> None:
        """Add few rows a class by one product, whose centre makes it the growth of the merged scatter.

        With n' rows of mean m' beside n of mean m and δ = m' − m, rows centred at m' − √(n/(n+n')) δ have the scatter
        S' + n n'/(n+n') δδᵀ, which is what merging adds: a sum of squares, nothing cancels.
        """
        state = self._statistics
        before, added = state.counts[classes].double(), counts.double()
        old = state.means[classes].double()
        # First about something near, in the features' type, where the difference is exact (Sterbenz): the mean so far,
        # or a class's first row. All that follows are small numbers, whose own rounding is as small.
        near = old.to(features.dtype, copy=True)
        new = (before == 0) & (added > 0)
        if bool(new.any()):
            near[new] = features[_first_rows(index, len(counts))[new]]
        # index_select, here and below, takes rows in a third of the time that near[index] does
        residual = padded_rows(features, len(features))
        torch.sub(features, near.index_select(0, index), out=residual)
        rest = _class_sums(residual, index, len(counts)).double() / added.clamp(min=1)[:, None]
        _require_finite(rest, features)
        total = (before + added).clamp(min=1)
        # m' − m and m' − √(n/(n+n')) δ, both less what was taken off; where a class is new, m does not matter
        delta = near.double().sub_(old).add_(rest).mul_((added > 0)[:, None])
        centre = rest.addcmul_(delta, (before / total).sqrt()[:, None], value=-1)
        residual -= centre.to(features.dtype).index_select(0, index)
        norms = squared_norms(residual)
        _require_moderate(norms)
        state.add_products(residual, labels)
        state.traces.index_add_(0, labels, norms.to(state.means.dtype))
        state.means[classes] += delta.mul_((added / total)[:, None]).to(state.means.dtype)
        state.counts[classes] += counts

    def _add_blocks(
        self, features: Tensor, classes: Tensor | slice, index: Tensor, counts: Tensor, may_overwrite: bool
    ) -> None:
        """Gather sums and products of all rows around one shift per class, in blocks; then fold them in at once."""
        state = self._statistics
        # Near the class mean and in the features' type: subtracting it from nearby features is exact (Sterbenz).
        shift = _shift(features, index, counts)
        rows = rows_per_block(features)
        # Buffers for all blocks: fresh memory for each would cost as much as the passes over it.
        residuals = features if may_overwrite else padded_rows(features, min(rows, len(features)))
        shifts = features.new_empty(min(rows, len(features)), features.shape[1])
        block = state.empty(len(counts))
        sums, block.counts = block.means, counts
        # Rows that were added before have told whether float32 will do; without any, the first of these tell.
        block.resolved, block.tests_float32 = state.resolved, not state.rows
        for start in range(0, len(features), rows):
            part, which = features[start : start + rows], index[start : start + rows]
            residual = part if may_overwrite else residuals[: len(part)]
            torch.sub(part, torch.index_select(shift, 0, which, out=shifts[: len(part)]), out=residual)
            if len(counts) > _ONE_HOT_LIMIT:  # sums of their own for a block would be many and of few rows
                sums.index_add_(0, which, residual.to(sums.dtype))
            else:
                sums += _class_sums(residual, which, len(counts))
            norms = squared_norms(residual)
            if not may_overwrite:  # rows that may be overwritten were checked, or rescaled, before they came here
                _require_moderate(norms)
            block.traces.index_add_(0, which, norms.to(sums.dtype))
            block.add_products(residual, which)
        # The mean's distance from the shift is recovered from the small residuals and taken off the scatter again.
        rest = sums / counts.clamp(min=1).to(sums.dtype)[:, None]
        _require_finite(rest, features)
        excess = rest * counts.to(sums.dtype).sqrt()[:, None]
        block.means = shift.to(sums.dtype) + rest
        which = torch.arange(len(state.counts), device=counts.device)[classes]
        state.merge_classes(which, block, excess)


def _class_sums(rows: Tensor, index: Tensor, classes: int) -> Tensor:
    """(classes, p) sums of each class's rows, which are contiguous, or lie as :func:`padded_rows` lays them."""
    if rows.device.type != "cpu" and classes <= _ONE_HOT_LIMIT:
        # where additions scattered over threads would come in another order each time
        return torch.nn.functional.one_hot(index, classes).to(rows.dtype).T @ rows
    # Scattered additions are fast over memory without gaps: the padding is added too, and left out of the result.
    whole = rows.as_strided((len(rows), rows.stride(0)), (rows.stride(0), 1))
    return whole.new_zeros(classes, whole.shape[1]).index_add_(0, index, whole)[:, : rows.shape[1]]


def _first_rows(index: Tensor, classes: int) -> Tensor:
    """(classes,) the first row of each; of no meaning where a class has none."""
    rows = torch.arange(len(index), device=index.device)
    first = torch.full((classes,), len(index) - 1, device=index.device)
    return first.scatter_reduce_(0, index, rows, "amin")


def _require_finite(means: Tensor, features: Tensor) -> None:
    if not math.isfinite(float(means.sum())) and not bool(torch.isfinite(means).all()):
        if bool(torch.isfinite(features).all()):
            raise _TooLarge
        raise not_finite(features)


def _require_moderate(norms: Tensor) -> None:
    if not float(norms.amax()) <= LARGEST_SQUARE:  # nan where a row is not finite
        raise _TooLarge


def _shift(features: Tensor, index: Tensor, counts: Tensor) -> Tensor:
    """(k, p): for each class the mean of a seventeenth of its rows, or of all where that would be too few.

    A mean of m of a class's n rows is off by δ with m ‖δ‖² at most the class's scatter, so taking n δδᵀ off again
    cancels at worst n/m ≤ 34 times the scatter, and loses a factor of 34 in relative precision at most.
    """
    sample = slice(None, None, _SAMPLE)
    members = torch.bincount(index[sample], minlength=len(counts))
    if not bool((members * (2 * _SAMPLE) >= counts).all()):
        sample, members = slice(None), counts
    sums = _class_sums(features[sample].contiguous(), index[sample], len(counts))
    return sums / members.clamp(min=1).to(features.dtype)[:, None]
