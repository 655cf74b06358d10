"""The tensors of :class:`neuralcollapse.ClassMoments`, and how rows and other moments are added to them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ._checks import InputError, first_bad_row

# Blocks of at most so many bytes stay in a processor's cache between the passes an update makes over them, and of at
# most so many rows keep sums in float32 exact, which for narrow features are made term by term; an accelerator wants
# them large enough to be kept busy.
_BLOCK_BYTES, _BLOCK_ROWS = 8 << 20, 4096
_ACCELERATOR_BLOCK_BYTES, _ACCELERATOR_BLOCK_ROWS = 256 << 20, 1 << 17
# Products of features with themselves are made in strips of this many columns, of the upper triangle alone.
_STRIP = 128
# Up to this many classes a product with the one-hot matrix sums classes faster than scattered additions do.
_ONE_HOT_LIMIT = 64
# A class's first mean, which products are centred at, comes from one row in this many: a prime, so that rows in a cycle
# of their classes give some of each.
_SAMPLE = 17
# Rows this many numbers longer than a multiple of the cache's own stride are read faster by products.
_PADDING = 16
# Fewer rows a class than this, and centring the rows at once is cheaper than a product over classes afterwards.
_FEW_ROWS = 64
# Work over class means goes in blocks of this many bytes, so that a hundred thousand classes need no second copy.
_MEANS_BYTES = 64 << 20


def block_of(features: Tensor) -> int:
    """How many rows of features a block holds."""
    on_cpu = features.device.type == "cpu"
    size = _BLOCK_BYTES if on_cpu else _ACCELERATOR_BLOCK_BYTES
    most = _BLOCK_ROWS if on_cpu else _ACCELERATOR_BLOCK_ROWS
    return min(most, max(256, size // (features.element_size() * features.shape[1])))


def block_rows(dim: int) -> int:
    """How many classes a block of means holds."""
    return max(1, _MEANS_BYTES // (8 * dim))


def padded_rows(like: Tensor, count: int) -> Tensor:
    """(count, p) without content, laid out for fast products."""
    whole = like.new_empty(count, like.shape[1] + _PADDING)
    whole[:, like.shape[1] :] = 0.0  # sums of classes take whole rows, see _class_sums
    return whole[:, : like.shape[1]]


class State:
    """Sufficient statistics of labelled features.

    Attributes:
        counts: (C,) int64; means: (C, p).
        traces: (C,) Σ_i ‖h_{i,c} − μ_c‖².
        scatter: Σ (h − μ_c)(h − μ_c)ᵀ, its upper triangle: (p, p), (C, p, p) if ``by_class``, empty if not ``full``.
    """

    def __init__(
        self, classes: int, dim: int, full: bool, by_class: bool, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.full, self.by_class = full, by_class
        self.counts = torch.zeros(classes, dtype=torch.int64, device=device)
        self.means = torch.zeros(classes, dim, dtype=dtype, device=device)
        self.traces = self.means.new_zeros(classes)
        self._products = _Products(self.means.new_zeros(self.scatter_shape(classes)))

    @classmethod
    def of(cls, counts: Tensor, means: Tensor, traces: Tensor, scatter: Tensor, full: bool, by_class: bool) -> State:
        """Around tensors that exist, which it then changes."""
        state = cls(0, means.shape[1], full, by_class, means.dtype, means.device)
        state.counts, state.means, state.traces, state._products = counts, means, traces, _Products(scatter)
        return state

    @property
    def scatter(self) -> Tensor:
        """With all products added."""
        return self._products.total

    def like(self) -> State:
        """Another of no examples."""
        classes, dim = self.means.shape
        return State(classes, dim, self.full, self.by_class, self.means.dtype, self.means.device)

    def clone(self) -> State:
        """A copy that shares no memory."""
        copy = self.like()
        copy.counts, copy.means, copy.traces = self.counts.clone(), self.means.clone(), self.traces.clone()
        copy._products = _Products(self.scatter.clone())
        return copy

    def tensors(self) -> dict[str, Tensor]:
        """By name, as they are saved and sent."""
        return {"counts": self.counts, "means": self.means, "variances": self.traces, "scatter": self.scatter}

    def scatter_shape(self, classes: int) -> tuple[int, ...]:
        """Of the scatter for so many classes."""
        dim = self.means.shape[1]
        if not self.full:
            return (0, 0)
        return (classes, dim, dim) if self.by_class else (dim, dim)

    def add(self, features: Tensor, labels: Tensor, *, own: bool = False) -> None:
        """Add rows of float32 or float64, at least one, with labels in range; unchanged where a row is not finite.

        ``own`` says that nobody needs the rows afterwards, whose memory then serves the work.
        """
        # Few classes are all taken, as a view, also those without a row: cheaper than finding out which have one.
        classes: Tensor | slice = slice(None)
        index = labels
        if len(self.counts) > _ONE_HOT_LIMIT:
            classes, index = torch.unique(labels, return_inverse=True)
        counts = torch.bincount(index, minlength=len(self.counts[classes]))
        rows = block_of(features)
        if len(features) <= rows and len(features) < _FEW_ROWS * len(counts):
            self._add_batch(features, labels, classes, index, counts)
        else:
            self._add_blocks(features, classes, index, counts, own)

    def _add_batch(
        self, features: Tensor, labels: Tensor, classes: Tensor | slice, index: Tensor, counts: Tensor
    ) -> None:
        """Add few rows a class by one product, whose centre makes it the growth of the merged scatter.

        With n' rows of mean m' beside n of mean m and δ = m' − m, rows centred at m' − √(n/(n+n')) δ have the scatter
        S' + n n'/(n+n') δδᵀ, which is what merging adds: a sum of squares, nothing cancels.
        """
        one_hot = _one_hot(index, len(counts), features.dtype)
        before, added = self.counts[classes].double(), counts.double()
        old = self.means[classes].double()
        # First about something near, in the features' type, where the difference is exact (Sterbenz): the mean so far,
        # or a class's first row. All that follows are small numbers, whose own rounding is as small.
        near = old.to(features.dtype, copy=True)
        new = (before == 0) & (added > 0)
        if bool(new.any()):
            near[new] = features[_first_rows(index, len(counts))[new]]
        residual = features - near[index]
        if one_hot is None:
            sums = residual.new_zeros(near.shape).index_add_(0, index, residual)
        else:
            sums = one_hot.T @ residual
        rest = sums.double() / added.clamp(min=1)[:, None]
        _require_finite(rest, features)
        total = (before + added).clamp(min=1)
        # m' − m and m' − √(n/(n+n')) δ, both less what was taken off; where a class is new, m does not matter
        delta = (near.double() - old + rest) * (added > 0)[:, None]
        centre = rest - (before / total).sqrt()[:, None] * delta
        residual -= centre.to(features.dtype)[index]
        if self.full and not self.by_class:
            self._products.add(residual)
        elif self.full:
            _add_by_class(self.scatter, residual, labels)
        self.traces.index_add_(0, labels, squared_norms(residual).to(self.means.dtype))
        self.means[classes] += (delta * (added / total)[:, None]).to(self.means.dtype)
        self.counts[classes] += counts

    def _add_blocks(self, features: Tensor, classes: Tensor | slice, index: Tensor, counts: Tensor, own: bool) -> None:
        """Gather sums and products of all rows around one shift per class, in blocks; then fold them in at once."""
        # Near the class mean and in the features' type: subtracting it from nearby features is exact (Sterbenz).
        shift = _shift(features, index, counts)
        dim, rows = features.shape[1], block_of(features)
        # Buffers for all blocks: fresh memory for each would cost as much as the passes over it.
        residuals = features if own else padded_rows(features, min(rows, len(features)))
        sums = torch.zeros(len(counts), dim, dtype=self.means.dtype, device=features.device)
        traces = torch.zeros(len(counts), dtype=self.means.dtype, device=features.device)
        products = _Products(self.means.new_zeros(self.scatter_shape(len(counts))))
        for start in range(0, len(features), rows):
            block, which = features[start : start + rows], index[start : start + rows]
            residual = block if own else residuals[: len(block)]
            one_hot = _one_hot(which, len(counts), features.dtype)
            if one_hot is None:
                torch.sub(block, shift[which], out=residual)
                sums.index_add_(0, which, residual.to(self.means.dtype))
            else:
                # one pass, and no less exact: each entry of the product is a single term
                torch.addmm(block, one_hot, shift, alpha=-1, out=residual)
                sums += _class_sums(residual, which, one_hot)
            traces.index_add_(0, which, squared_norms(residual).to(self.means.dtype))
            if not self.full:
                continue
            if not self.by_class:
                products.add(residual)
            else:
                _add_by_class(products.total, residual, which)
        # The mean's distance from the shift is recovered from the small residuals and taken off the scatter again.
        rest = sums / counts.clamp(min=1).to(self.means.dtype)[:, None]
        _require_finite(rest, features)
        excess = rest * counts.to(self.means.dtype).sqrt()[:, None]
        which = torch.arange(len(self.counts), device=counts.device)[classes] if isinstance(classes, slice) else classes
        self._fold(which, counts, shift.to(self.means.dtype) + rest, traces, products.total, excess)

    def _fold(
        self, classes: Tensor, counts: Tensor, means: Tensor, traces: Tensor, scatter: Tensor, excess: Tensor | None
    ) -> None:
        """Merge the moments of ``classes`` into the state: S += S' − eᵀe + Σ_c (n n'/(n+n')) δ_c δ_cᵀ.

        e, one row a class, is what S' holds too much because it was not centred at the mean itself.
        """
        if self.full and not self.by_class:
            self.scatter.add_(scatter)
        step = block_rows(self.means.shape[1])
        for start in range(0, len(classes), step):
            part = slice(start, start + step)
            which = classes[part]
            before, added = self.counts[which].to(self.means.dtype), counts[part].to(self.means.dtype)
            total = (before + added).clamp(min=1)
            delta = means[part] - self.means[which]
            scaled = delta * (before * added / total).sqrt()[:, None]
            over = torch.zeros_like(scaled) if excess is None else excess[part]
            growth = (squared_norms(scaled) - squared_norms(over)).to(traces.dtype)
            self.traces[which] += (traces[part] + growth).clamp_(min=0.0)
            if self.full and not self.by_class:
                self.scatter.addmm_(scaled.T, scaled)
                if excess is not None:
                    self.scatter.addmm_(over.T, over, alpha=-1)
            elif self.full:
                outer = scaled[:, :, None] * scaled[:, None, :] - over[:, :, None] * over[:, None, :]
                self.scatter[which] += scatter[part] + outer
            self.means[which] += delta * (added / total)[:, None]
            self.counts[which] += counts[part]

    def merge(self, other: State) -> None:
        """Add another of the same shapes."""
        dtype, device = self.means.dtype, self.means.device
        self._fold(
            torch.arange(len(self.counts), device=device),
            other.counts.to(device),
            other.means.to(device, dtype),
            other.traces.to(device, dtype),
            other.scatter.to(device, dtype),
            None,
        )

    def move(self, means: Tensor) -> None:
        """Take (C, p) other means, about which traces and scatter are from then on."""
        for start in range(0, len(means), block_rows(means.shape[1])):
            block = slice(start, start + block_rows(means.shape[1]))
            distance = (self.means[block] - means[block]) * self.counts[block].to(means.dtype).sqrt()[:, None]
            self.traces[block] += squared_norms(distance).to(self.traces.dtype)
            if self.full and not self.by_class:
                self.scatter.addmm_(distance.T, distance)
            elif self.full:
                self.scatter[block] += distance[:, :, None] * distance[:, None, :]
        self.means = means


class _Products:
    """A scatter that the upper triangle of rowsᵀ rows is added to; of float32 rows to a sum of a block's rows first."""

    def __init__(self, total: Tensor) -> None:
        self._total = total
        self._sum: Tensor | None = None
        self._rows = 0

    @property
    def total(self) -> Tensor:
        """The scatter itself, with all that was added."""
        self._settle()
        self._sum = None  # who reads is mostly done with adding
        return self._total

    def add(self, rows: Tensor) -> None:
        """Add rows of the scatter's type, or of float32."""
        if rows.dtype == self._total.dtype:
            _add_gram(self._total, rows)
            return
        if self._rows + len(rows) > _BLOCK_ROWS:
            self._settle()
        if self._sum is None:
            self._sum = rows.new_zeros(self._total.shape)
        _add_gram(self._sum, rows)
        self._rows += len(rows)

    def _settle(self) -> None:
        """Empty the float32 sum into the scatter."""
        if self._sum is not None and self._rows:
            for strip in _strips(len(self._sum)):
                self._total[strip, strip.start :] += self._sum[strip, strip.start :]
            self._sum.zero_()
            self._rows = 0


def _strips(size: int) -> Iterator[slice]:
    for start in range(0, size, _STRIP):
        yield slice(start, start + _STRIP)


def _add_gram(total: Tensor, rows: Tensor) -> None:
    """Add the upper triangle of rowsᵀ rows, in strips: at p = 512 five eighths of the whole product's work."""
    for strip in _strips(len(total)):
        total[strip, strip.start :].addmm_(rows[:, strip].T, rows[:, strip.start :])


def mirror_upper(matrix: Tensor) -> None:
    """Write the upper triangle of a square matrix over the lower one, without memory for another."""
    for strip in _strips(len(matrix)):
        matrix[strip.stop :, strip] = matrix[strip, strip.stop :].T
        corner = matrix[strip, strip]
        corner.copy_(corner.triu() + corner.triu(1).T)


def _one_hot(index: Tensor, classes: int, dtype: torch.dtype) -> Tensor | None:
    """(n, classes), or None where there are so many classes that products with it cost more than scattered sums."""
    if classes > _ONE_HOT_LIMIT:
        return None
    return torch.nn.functional.one_hot(index, classes).to(dtype)


def _class_sums(rows: Tensor, index: Tensor, one_hot: Tensor) -> Tensor:
    """(classes, p) sums of each class's rows, which lie as :func:`padded_rows` lays them."""
    if rows.device.type != "cpu":  # where additions scattered over threads would come in another order each time
        return one_hot.T @ rows
    # Scattered additions are fast over memory without gaps: the padding is added too, and left out of the result.
    whole = rows.as_strided((len(rows), rows.stride(0)), (rows.stride(0), 1))
    return whole.new_zeros(one_hot.shape[1], whole.shape[1]).index_add_(0, index, whole)[:, : rows.shape[1]]


def _first_rows(index: Tensor, classes: int) -> Tensor:
    """(classes,) the first row of each; of no meaning where a class has none."""
    rows = torch.arange(len(index), device=index.device)
    first = torch.full((classes,), len(index) - 1, device=index.device)
    return first.scatter_reduce_(0, index, rows, "amin")


def squared_norms(rows: Tensor) -> Tensor:
    """(n,) in float64, each as exact as the rows' own type."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1).double().square()
    return norms


def _require_finite(means: Tensor, features: Tensor) -> None:
    if not math.isfinite(float(means.sum())) and not bool(torch.isfinite(means).all()):
        finite = bool(torch.isfinite(features).all())
        where = "an overflow of their class sums" if finite else f"NaN or infinity in row {first_bad_row(features)}"
        raise InputError(f"expected finite features, got {where}")


def _shift(features: Tensor, index: Tensor, counts: Tensor) -> Tensor:
    """(k, p): for each class the mean of a sixteenth of its rows, or of all where that would be too few.

    A mean of m of a class's n rows is off by δ with m ‖δ‖² at most the class's scatter, so taking n δδᵀ off again
    cancels at worst n/m times the scatter: 32 roundings, whatever the order of the rows.
    """
    sample = slice(None, None, _SAMPLE)
    members = torch.bincount(index[sample], minlength=len(counts))
    if not bool((members * (2 * _SAMPLE) >= counts).all()):
        sample, members = slice(None), counts
    one_hot = _one_hot(index[sample], len(counts), features.dtype)
    if one_hot is None:
        sums = features.new_zeros(len(counts), features.shape[1]).index_add_(0, index[sample], features[sample])
    else:
        sums = one_hot.T @ features[sample]
    return sums / members.clamp(min=1).to(features.dtype)[:, None]


def _add_by_class(scatter: Tensor, rows: Tensor, index: Tensor) -> None:
    """Add each class's rowsᵀ rows to its own slice, by one batched product of the rows of each, zero-padded."""
    classes, place = torch.unique(index, return_inverse=True)
    counts = torch.bincount(place, minlength=len(classes))
    order = torch.argsort(place, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    slot = torch.arange(len(order), device=index.device) - starts[place[order]]
    padded = rows.new_zeros(len(classes), int(counts.max()), rows.shape[1])
    padded[place[order], slot] = rows[order]
    scatter[classes] += padded.mT @ padded
