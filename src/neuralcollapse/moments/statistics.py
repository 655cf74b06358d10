"""The sufficient statistics of labelled features: what they hold, how they merge, how products are added to them."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralcollapse._linalg import rounding_bound, scaled, scaled_symmetric
from neuralcollapse.moments.blocks import BLOCK_ROWS, LARGEST_SQUARE, classes_per_block, slices, squared_norms

# Products of features with themselves are made in strips of this many columns, of the upper triangle alone.
# At p = 512 narrow ones leave out more of the lower triangle: 153 ms for 50,000 rows, where 128 columns take 161.
_STRIP = 64
# Float32 products begin once every direction varies by so many times the rounding they will bring.
_RESOLVED = 1000.0
# The first decision about that is made when a scatter holds this many rows for each feature, then at twice as many, …
_ROWS_TO_RESOLVE = 2


class Statistics:
    """Counts, means and scatter of each class, kept for features divided by a power of two.

    That power is 1 unless features are so large or small that their squares leave the range of their type.

    Rows of float32 are multiplied in float64 at first. Products in float32, summed over a block of rows before they are
    added to the scatter, take half the time; they begin once the scatter shows every direction to vary by far more than
    their rounding.

    Attributes:
        exponent: e, or None before any feature other than zero; all else is that of features · 2^-e.
        counts: (C,) int64; means: (C, p).
        traces: (C,) Σ_i ‖h_{i,c} − μ_c‖².
        scatter: Σ (h − μ_c)(h − μ_c)ᵀ, its upper triangle: (p, p), (C, p, p) if ``by_class``, empty if not ``full``.
        rows: how many rows are in the scatter.
        resolved: whether products in float32 would do from here on; ``coarse``: whether any were used.
        tests_float32: whether to find that out while rows are added.
    """

    def __init__(
        self, classes: int, dim: int, full: bool, by_class: bool, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.full, self.by_class = full, by_class
        self.exponent: int | None = None
        self.counts = torch.zeros(classes, dtype=torch.int64, device=device)
        self.means = torch.zeros(classes, dim, dtype=dtype, device=device)
        self.traces = self.means.new_zeros(classes)
        shape = (0, 0) if not full else (classes, dim, dim) if by_class else (dim, dim)
        self._scatter = self.means.new_zeros(shape)
        self._float32_sum: Tensor | None = None  # of products that are not in the scatter yet, and of how many rows
        self._rows_in_sum = 0
        self.rows = 0
        self.tests_float32, self.resolved, self.coarse = True, False, False

    @classmethod
    def of(cls, tensors: dict[str, Tensor], full: bool, by_class: bool) -> Statistics:
        """Wraps existing tensors, named as :meth:`tensors` names them, which it then changes."""
        means = tensors["means"]
        made = cls(0, means.shape[1], False, by_class, means.dtype, means.device)
        made.full = full
        made.counts, made.means, made.traces = tensors["counts"], means, tensors["variances"]
        made._scatter = tensors["scatter"]
        return made

    @property
    def scatter(self) -> Tensor:
        """With all products added."""
        self._add_float32_sum()
        self._float32_sum = None  # who reads the scatter has mostly finished adding
        return self._scatter

    @property
    def product_eps(self) -> float:
        """The coarsest relative precision of the products in the scatter."""
        return torch.finfo(torch.float32 if self.coarse else self.means.dtype).eps

    def tensors(self) -> dict[str, Tensor]:
        """By name, as they are saved and sent."""
        return {"counts": self.counts, "means": self.means, "variances": self.traces, "scatter": self.scatter}

    def empty(self, classes: int | None = None) -> Statistics:
        """Others of no examples, of as many classes or of so many."""
        count, dim = self.means.shape
        count = count if classes is None else classes
        return Statistics(count, dim, self.full, self.by_class, self.means.dtype, self.means.device)

    def clone(self) -> Statistics:
        """A copy that shares no memory."""
        copy = Statistics.of({name: value.clone() for name, value in self.tensors().items()}, self.full, self.by_class)
        copy.exponent, copy.rows, copy.resolved, copy.coarse = self.exponent, self.rows, self.resolved, self.coarse
        return copy

    def without_exponent(self) -> Statistics:
        """The same tensors, not copies, as those of features that needed no power of two."""
        same = Statistics.of(self.tensors(), self.full, self.by_class)
        same.set_scale_and_precision(0, self.product_eps)
        return same

    def set_scale_and_precision(self, exponent: int, product_eps: float) -> None:
        """Say at which power of two the tensors are, and how precise the products in the scatter."""
        self.exponent = exponent if exponent or bool(self.means.any() or self.traces.any()) else None
        self.rows = int(self.counts.sum())
        self.coarse = self.resolved = product_eps > torch.finfo(self.means.dtype).eps

    def rescale(self, exponent: int) -> None:
        """Take another power of two; exact, but for what then falls below the smallest number."""
        if self.exponent is not None and self.exponent != exponent:
            shift = self.exponent - exponent
            self.means = scaled(self.means, shift)
            self.traces = scaled(self.traces, 2 * shift)
            self._scatter, self.tests_float32 = scaled(self.scatter, 2 * shift), True
        self.exponent = exponent

    def merge(self, other: Statistics) -> None:
        """Add others of the same shapes."""
        exponents = [each.exponent for each in (self, other) if each.exponent is not None]
        if exponents:
            self.rescale(max(exponents))
            if other.exponent != max(exponents):
                other = other.clone()
                other.rescale(max(exponents))
        self.merge_classes(torch.arange(len(self.counts), device=self.means.device), other)

    def merge_classes(self, classes: Tensor, other: Statistics, excess: Tensor | None = None) -> None:
        """Add others, of ``classes`` alone, at the same power of two: S += S' − eᵀe + Σ_c (n n'/(n+n')) δ_c δ_cᵀ.

        e, one row a class, is what S' holds too much where it was not centred at the mean itself.
        """
        like = self.means
        counts, means = other.counts.to(like.device), other.means.to(like)
        traces, scatter = other.traces.to(like), other.scatter.to(like)
        if self.full and not self.by_class:
            self.scatter.add_(scatter)
        for part in slices(len(classes), classes_per_block(like.shape[1])):
            which = classes[part]
            before, added = self.counts[which].to(like.dtype), counts[part].to(like.dtype)
            total = (before + added).clamp(min=1)
            delta = means[part] - self.means[which]
            weighted = delta * (before * added / total).sqrt()[:, None]
            over = torch.zeros_like(weighted) if excess is None else excess[part]
            growth = (squared_norms(weighted) - squared_norms(over)).to(like.dtype)
            self.traces[which] += (traces[part] + growth).clamp_(min=0.0)
            if self.full and not self.by_class:
                self.scatter.addmm_(weighted.T, weighted)
                if excess is not None:
                    self.scatter.addmm_(over.T, over, alpha=-1)
            elif self.full:
                outer = weighted[:, :, None] * weighted[:, None, :] - over[:, :, None] * over[:, None, :]
                self.scatter[which] += scatter[part] + outer
            self.means[which] += delta * (added / total)[:, None]
            self.counts[which] += counts[part]
        before_rows, self.rows = self.rows, self.rows + other.rows
        self.coarse, self.resolved = self.coarse or other.coarse, self.resolved or other.resolved
        if self.full and not self.by_class and not self.resolved and self._next_decision(before_rows) <= self.rows:
            self.resolved = _resolved(self._scatter, self.rows)

    def move_means(self, reference: Statistics, present: Tensor) -> None:
        """Take the means of another's classes that are ``present``; traces and scatter are about them from then on."""
        exponents = [each.exponent for each in (self, reference) if each.exponent is not None]
        if exponents:
            self.rescale(max(exponents))
        shift = (reference.exponent or 0) - (self.exponent or 0)
        means = scaled(reference.means.to(self.means), shift) * present[:, None]
        for block in slices(len(means), classes_per_block(means.shape[1])):
            distance = (self.means[block] - means[block]) * self.counts[block].to(means.dtype).sqrt()[:, None]
            self.traces[block] += squared_norms(distance).to(self.traces.dtype)
            if self.full and not self.by_class:
                self.scatter.addmm_(distance.T, distance)
            elif self.full:
                self.scatter[block] += distance[:, :, None] * distance[:, None, :]
        self.means = means

    def add_products(self, rows: Tensor, labels: Tensor) -> None:
        """Add the products of centred rows, of the scatter's type or of float32, to the scatter."""
        if not self.full:
            return
        if self.by_class:
            _add_by_class(self.scatter, rows, labels)
            return
        if rows.dtype == self._scatter.dtype:
            _add_gram(self._scatter, rows)
            self.rows += len(rows)
            return
        while len(rows) and not self.resolved:
            step = self._next_decision(self.rows) - self.rows if self.tests_float32 else len(rows)
            part, rows = rows[:step].to(self._scatter.dtype), rows[step:]
            _add_gram(self._scatter, part)
            self.rows += len(part)
            if self.tests_float32 and len(part) == step:
                self.resolved = _resolved(self._scatter, self.rows)
        if len(rows):
            self.coarse = True
            if self._rows_in_sum + len(rows) > BLOCK_ROWS:
                self._add_float32_sum()
            if self._float32_sum is None:
                self._float32_sum = rows.new_zeros(self._scatter.shape)
            _add_gram(self._float32_sum, rows)
            self._rows_in_sum += len(rows)
            self.rows += len(rows)

    def _next_decision(self, rows: int) -> int:
        """At how many rows the scatter is looked at next, to see whether products of float32 can begin."""
        boundary = _ROWS_TO_RESOLVE * len(self._scatter)
        while boundary <= rows:
            boundary *= 2
        return boundary

    def _add_float32_sum(self) -> None:
        if self._float32_sum is not None and self._rows_in_sum:
            for strip in slices(len(self._float32_sum), _STRIP):
                self._scatter[strip, strip.start :] += self._float32_sum[strip, strip.start :]
            self._float32_sum.zero_()
            self._rows_in_sum = 0


def _resolved(scatter: Tensor, rows: int) -> bool:
    """Whether every direction in which rows vary does so by far more than the rounding of float32 products.

    The scatter's upper triangle is looked at with each feature scaled to unit variance, because rounding is relative
    to each feature's own size.
    """
    variances = scatter.diagonal() / rows
    live = variances > 0.0
    low, high = (float(value) for value in torch.aminmax(torch.where(live, variances, 1.0)))
    if not bool(live.any()) or low < 1.0 / LARGEST_SQUARE or high > LARGEST_SQUARE:
        return False
    correlation = scaled_symmetric(scatter, live, scatter.diagonal()[live].rsqrt())
    mirror_upper(correlation)
    bound = rounding_bound(correlation, torch.finfo(torch.float32).eps)
    correlation.diagonal().sub_(_RESOLVED * bound)
    return int(torch.linalg.cholesky_ex(correlation).info) == 0


def _add_gram(total: Tensor, rows: Tensor) -> None:
    """Add the upper triangle of rowsᵀ rows, in strips: at p = 512 nine sixteenths of the whole product's work."""
    for strip in slices(len(total), _STRIP):
        total[strip, strip.start :].addmm_(rows[:, strip].T, rows[:, strip.start :])


def mirror_upper(matrix: Tensor) -> None:
    """Write the upper triangle of a square matrix over the lower one, without memory for another."""
    for strip in slices(len(matrix), _STRIP):
        matrix[strip.stop :, strip] = matrix[strip, strip.stop :].T
        corner = matrix[strip, strip]
        corner.copy_(corner.triu() + corner.triu(1).T)


def _add_by_class(scatter: Tensor, rows: Tensor, index: Tensor) -> None:
    """Add each class's rowsᵀ rows to its own slice, by one batched product of the rows of each, zero-padded."""
    classes, place = torch.unique(index, return_inverse=True)
    counts = torch.bincount(place, minlength=len(classes))
    order = torch.argsort(place, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    slot = torch.arange(len(order), device=index.device) - starts[place[order]]
    # in the scatter's own precision, because what each class has is too little to tell whether less would do
    padded = scatter.new_zeros(len(classes), int(counts.max()), rows.shape[1])
    padded[place[order], slot] = rows[order].to(scatter.dtype)
    scatter[classes] += padded.mT @ padded
