"""The tensors of :class:`neuralcollapse.ClassMoments`, and how rows and other moments are added to them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from neuralcollapse._checks import InputError, first_bad_row
from neuralcollapse._linalg import power_of_two, rounding_bound, scaled

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
# Features of a size between 2^-32 and 2^32 are taken as they are: their squares are far from float32's limits.
_MODERATE = 32
# A residual whose square is above this is too large to be multiplied in float32.
LARGEST_SQUARE = 2.0**100
# Float32 products begin once every direction varies by so many times the rounding they will bring.
_RESOLVED = 1000.0
# The first decision about that is made when a scatter holds this many rows for each feature, then at twice as many, …
_ROWS_TO_RESOLVE = 2


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


class _TooLarge(Exception):
    """Features that are finite, but too large to be squared at the state's present scale."""


class State:
    """Sufficient statistics of labelled features, kept for features divided by a power of two.

    That power is 1 unless features are so large or small that their squares leave the range of their type.

    Attributes:
        exponent: e, or None before any feature other than zero; all else is that of features · 2^-e.
        counts: (C,) int64; means: (C, p).
        traces: (C,) Σ_i ‖h_{i,c} − μ_c‖².
        scatter: Σ (h − μ_c)(h − μ_c)ᵀ, its upper triangle: (p, p), (C, p, p) if ``by_class``, empty if not ``full``.
    """

    def __init__(
        self, classes: int, dim: int, full: bool, by_class: bool, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.full, self.by_class = full, by_class
        self.exponent: int | None = None
        self.counts = torch.zeros(classes, dtype=torch.int64, device=device)
        self.means = torch.zeros(classes, dim, dtype=dtype, device=device)
        self.traces = self.means.new_zeros(classes)
        self._products = _Products(self.means.new_zeros(self.scatter_shape(classes)))

    @classmethod
    def of(cls, tensors: dict[str, Tensor], full: bool, by_class: bool) -> State:
        """Around tensors that exist, named as :meth:`tensors` names them, which it then changes."""
        means = tensors["means"]
        state = cls(0, means.shape[1], full, by_class, means.dtype, means.device)
        state.counts, state.means, state.traces = tensors["counts"], means, tensors["variances"]
        state._products = _Products(tensors["scatter"])
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
        copy._products = _Products(self.scatter.clone(), self._products)
        copy.exponent = self.exponent
        return copy

    def unscaled(self) -> State:
        """The same tensors, not copies, as those of features that needed no power of two."""
        same = State.of(self.tensors(), self.full, self.by_class)
        same.settle_about(0, self.eps)
        return same

    def settle_about(self, exponent: int, product_eps: float) -> None:
        """Say at which power of two the tensors are, and how precise the products in the scatter."""
        self.exponent = exponent if exponent or bool(self.means.any() or self.traces.any()) else None
        self._products.rows = int(self.counts.sum())
        self._products.coarse = self._products.resolved = product_eps > torch.finfo(self.means.dtype).eps

    @property
    def eps(self) -> float:
        """The coarsest relative precision of the products in the scatter."""
        return torch.finfo(torch.float32 if self._products.coarse else self.means.dtype).eps

    def rescale(self, exponent: int) -> None:
        """Take another power of two; exact, but for what then falls below the smallest number."""
        if self.exponent is not None and self.exponent != exponent:
            shift = self.exponent - exponent
            self.means = scaled(self.means, shift)
            self.traces = scaled(self.traces, 2 * shift)
            self._products = _Products(scaled(self.scatter, 2 * shift), self._products)
        self.exponent = exponent

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
        if self.exponent is None:
            self._fit(features[:_BLOCK_ROWS])  # the first rows mostly tell; where they do not, squares do below
        if self.exponent != 0 or features.dtype == torch.float64:
            self._fit(features)
        while True:
            rows = scaled(features, -(self.exponent or 0))
            try:
                self._add(rows, labels, own or rows is not features)
                return
            except _TooLarge:
                if not bool(torch.isfinite(features).all()):
                    row = first_bad_row(features)
                    raise InputError(f"expected finite features, got NaN or infinity in row {row}") from None
                # a residual is as large as the features, or as the means that they are centred at
                held = power_of_two(self.means)
                sizes = (power_of_two(features), None if held is None else held + (self.exponent or 0))
                self.rescale(max((size for size in sizes if size is not None), default=0))

    def _fit(self, features: Tensor) -> None:
        """Choose the power of two by the first features that are not zero, and a larger one for larger features."""
        needed = power_of_two(features)
        if needed is None:
            return
        if self.exponent is None:
            self.exponent = 0 if abs(needed) <= _MODERATE else needed
        elif needed > self.exponent + 2 * _MODERATE:
            self.rescale(needed)

    def _add(self, features: Tensor, labels: Tensor, own: bool) -> None:
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
        norms = squared_norms(residual)
        _require_moderate(norms)
        if self.full and not self.by_class:
            self._products.add(residual)
        elif self.full:
            _add_by_class(self.scatter, residual, labels)
        self.traces.index_add_(0, labels, norms.to(self.means.dtype))
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
        # What is in the state already decides for these rows, too; else the first of them do.
        products.resolved, products.decides = self._products.resolved, not self._products.rows
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
            norms = squared_norms(residual)
            if not own:
                _require_moderate(norms)
            traces.index_add_(0, which, norms.to(self.means.dtype))
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
        self._products.fold(products)

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
        exponents = [state.exponent for state in (self, other) if state.exponent is not None]
        if exponents:
            self.rescale(max(exponents))
            if other.exponent != max(exponents):
                other = other.clone()
                other.rescale(max(exponents))
        self._fold(
            torch.arange(len(self.counts), device=device),
            other.counts.to(device),
            other.means.to(device, dtype),
            other.traces.to(device, dtype),
            other.scatter.to(device, dtype),
            None,
        )
        self._products.fold(other._products)

    def move(self, reference: State, present: Tensor) -> None:
        """Take the means of another's classes that are ``present``; traces and scatter are about them from then on."""
        exponents = [state.exponent for state in (self, reference) if state.exponent is not None]
        if exponents:
            self.rescale(max(exponents))
        shift = (reference.exponent or 0) - (self.exponent or 0)
        means = scaled(reference.means.to(self.means), shift) * present[:, None]
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
    """A scatter that the upper triangle of rowsᵀ rows is added to.

    Rows of float32 are multiplied in float64 at first. Products in float32, summed over a block before they are added,
    take half the time; they begin once the scatter shows every direction to vary by far more than their rounding.

    Args:
        total: the scatter.
        like: another to go on from, whose rows are in it.
    """

    def __init__(self, total: Tensor, like: _Products | None = None) -> None:
        self._total = total
        self._sum: Tensor | None = None
        self._waiting = 0
        self.rows: int = 0 if like is None else like.rows
        # whether float32 would do from here on, whether it was used, and whether to look at rows while they are added
        self.decides = True
        self.resolved: bool = False if like is None else like.resolved
        self.coarse: bool = False if like is None else like.coarse

    @property
    def total(self) -> Tensor:
        """The scatter itself, with all that was added."""
        self._settle()
        self._sum = None  # whoever reads has mostly finished adding
        return self._total

    def add(self, rows: Tensor) -> None:
        """Add rows of the scatter's type, or of float32."""
        if rows.dtype == self._total.dtype:
            _add_gram(self._total, rows)
            self.rows += len(rows)
            return
        while len(rows) and not self.resolved:
            step = self._boundary(self.rows) - self.rows if self.decides else len(rows)
            part, rows = rows[:step].to(self._total.dtype), rows[step:]
            _add_gram(self._total, part)
            self.rows += len(part)
            if self.decides and len(part) == step:
                self.resolved = _resolved(self._total, self.rows)
        if len(rows):
            self._add_coarse(rows)

    def fold(self, other: _Products) -> None:
        """Note that the total now holds another's, too."""
        before, self.rows = self.rows, self.rows + other.rows
        self.coarse, self.resolved = self.coarse or other.coarse, self.resolved or other.resolved
        flat = other._total.ndim == 2 and len(other._total) > 0
        if flat and not self.resolved and self._boundary(before) <= self.rows:
            self.resolved = _resolved(self._total, self.rows)

    def _boundary(self, rows: int) -> int:
        """At how many rows the scatter is looked at next, to see whether products of float32 can begin."""
        boundary = _ROWS_TO_RESOLVE * len(self._total)
        while boundary <= rows:
            boundary *= 2
        return boundary

    def _add_coarse(self, rows: Tensor) -> None:
        self.coarse = True
        if self._waiting + len(rows) > _BLOCK_ROWS:
            self._settle()
        if self._sum is None:
            self._sum = rows.new_zeros(self._total.shape)
        _add_gram(self._sum, rows)
        self._waiting += len(rows)
        self.rows += len(rows)

    def _settle(self) -> None:
        """Empty the float32 sum into the scatter."""
        if self._sum is not None and self._waiting:
            for strip in _strips(len(self._sum)):
                self._total[strip, strip.start :] += self._sum[strip, strip.start :]
            self._sum.zero_()
            self._waiting = 0


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
    part = scatter[live][:, live]
    scale = part.diagonal().rsqrt()
    correlation = (part * scale * scale[:, None]).triu_()
    correlation += correlation.triu(1).T
    bound = rounding_bound(correlation, torch.finfo(torch.float32).eps)
    correlation.diagonal().sub_(_RESOLVED * bound)
    return int(torch.linalg.cholesky_ex(correlation).info) == 0


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
        if bool(torch.isfinite(features).all()):
            raise _TooLarge
        raise InputError(f"expected finite features, got NaN or infinity in row {first_bad_row(features)}")


def _require_moderate(norms: Tensor) -> None:
    # not finite where a row is not, which the means then show
    if float(norms.amax()) > LARGEST_SQUARE:
        raise _TooLarge


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
    # in the scatter's own precision, because what each class has is too little to tell whether less would do
    padded = scatter.new_zeros(len(classes), int(counts.max()), rows.shape[1])
    padded[place[order], slot] = rows[order].to(scatter.dtype)
    scatter[classes] += padded.mT @ padded
