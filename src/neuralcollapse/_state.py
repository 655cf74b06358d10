"""The tensors of :class:`neuralcollapse.ClassMoments`, and how rows and other moments are added to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._checks import InputError, first_bad_row

# Blocks of this many bytes stay in a processor's cache between the passes an update makes over them; an accelerator
# wants them large enough to be kept busy.
_BLOCK_BYTES = {"cpu": 8 << 20}
_ACCELERATOR_BLOCK_BYTES = 256 << 20
# Products of features with themselves are made in strips of this many columns, of the upper triangle alone.
_STRIP = 128
# Up to this many classes a product with the one-hot matrix sums classes faster than scattered additions do.
_ONE_HOT_LIMIT = 64
# A class's first mean, which products are centred at, comes from one row in this many.
_SAMPLE = 16
# Fewer rows a class than this, and centring the rows at once is cheaper than a product over classes afterwards.
_FEW_ROWS = 64
# Work over class means goes in blocks of this many bytes, so that a hundred thousand classes need no second copy.
_MEANS_BYTES = 64 << 20


def block_rows(dim: int) -> int:
    """How many classes a block of means holds."""
    return max(1, _MEANS_BYTES // (8 * dim))


@dataclass
class State:
    """Sufficient statistics of labelled features.

    Args:
        counts: (C,) int64; means: (C, p).
        traces: (C,) Σ_i ‖h_{i,c} − μ_c‖².
        scatter: Σ (h − μ_c)(h − μ_c)ᵀ, its upper triangle: (p, p), (C, p, p) if ``by_class``, empty if not ``full``.
    """

    counts: Tensor
    means: Tensor
    traces: Tensor
    scatter: Tensor
    full: bool
    by_class: bool

    @classmethod
    def empty(
        cls, classes: int, dim: int, full: bool, by_class: bool, dtype: torch.dtype, device: torch.device
    ) -> State:
        """Of no examples."""
        counts = torch.zeros(classes, dtype=torch.int64, device=device)
        means = torch.zeros(classes, dim, dtype=dtype, device=device)
        state = cls(counts, means, means.new_zeros(classes), means, full, by_class)
        state.scatter = means.new_zeros(state.scatter_shape(classes))
        return state

    def like(self) -> State:
        """Another of no examples."""
        classes, dim = self.means.shape
        return State.empty(classes, dim, self.full, self.by_class, self.means.dtype, self.means.device)

    def clone(self) -> State:
        """A copy that shares no memory."""
        tensors = (self.counts.clone(), self.means.clone(), self.traces.clone(), self.scatter.clone())
        return State(*tensors, self.full, self.by_class)

    def tensors(self) -> dict[str, Tensor]:
        """By name, as they are saved and sent."""
        return {"counts": self.counts, "means": self.means, "variances": self.traces, "scatter": self.scatter}

    def scatter_shape(self, classes: int) -> tuple[int, ...]:
        """Of the scatter for so many classes."""
        dim = self.means.shape[1]
        if not self.full:
            return (0, 0)
        return (classes, dim, dim) if self.by_class else (dim, dim)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add rows of float32 or float64, at least one, with labels in range; unchanged where a row is not finite."""
        classes, index = torch.unique(labels, return_inverse=True)
        counts = torch.bincount(index, minlength=len(classes))
        block_bytes = _BLOCK_BYTES.get(features.device.type, _ACCELERATOR_BLOCK_BYTES)
        rows = max(256, block_bytes // (features.element_size() * features.shape[1]))
        if len(features) <= rows and len(features) < _FEW_ROWS * len(classes):
            self._add_batch(features, classes, index, counts)
        else:
            self._add_blocks(features, classes, index, counts, rows)

    def _add_batch(self, features: Tensor, classes: Tensor, index: Tensor, counts: Tensor) -> None:
        """Add few rows a class by one product, whose centre makes it the growth of the merged scatter.

        With n' rows of mean m' beside n of mean m and δ = m' − m, rows centred at m' − √(n/(n+n')) δ have the scatter
        S' + n n'/(n+n') δδᵀ, which is what merging adds: a sum of squares, nothing cancels.
        """
        one_hot = _one_hot(index, len(classes), torch.float64)
        exact = features.double()
        if one_hot is None:
            sums = exact.new_zeros(len(classes), features.shape[1]).index_add_(0, index, exact)
        else:
            sums = one_hot.T @ exact
        added, before = counts.double(), self.counts[classes].double()
        means = sums / added[:, None]
        _require_finite(means, features)
        total = before + added
        delta = means - self.means[classes]
        centre = means - (before / total).sqrt()[:, None] * delta
        # Near the rows and in their type: the difference is exact (Sterbenz); what rounding the centre lost follows.
        high = centre.to(features.dtype)
        low = (high - centre).to(features.dtype)
        residual = features - high[index]
        residual += low[index]
        if self.full:
            if not self.by_class:
                _add_gram(self.scatter, residual)
            else:
                _add_by_class(self.scatter, residual, classes[index])
        self.traces.index_add_(0, classes[index], squared_norms(residual).to(self.means.dtype))
        self.means[classes] += (delta * (added / total)[:, None]).to(self.means.dtype)
        self.counts[classes] += counts

    def _add_blocks(self, features: Tensor, classes: Tensor, index: Tensor, counts: Tensor, rows: int) -> None:
        """Gather sums and products of all rows around one shift per class, in blocks; then fold them in at once."""
        # Near the class mean and in the features' type: subtracting it from nearby features is exact (Sterbenz).
        shift = _shift(features, index, counts)
        dim = features.shape[1]
        # Buffers for all blocks: fresh memory for each would cost as much as the passes over it.
        residuals = torch.empty_like(features[:rows])
        sums = torch.zeros(len(classes), dim, dtype=self.means.dtype, device=features.device)
        traces = torch.zeros(len(classes), dtype=self.means.dtype, device=features.device)
        scatter = torch.zeros(self.scatter_shape(len(classes)), dtype=self.means.dtype, device=features.device)
        for start in range(0, len(features), rows):
            block, which = features[start : start + rows], index[start : start + rows]
            residual = residuals[: len(block)]
            one_hot = _one_hot(which, len(classes), features.dtype)
            if one_hot is None:
                torch.sub(block, shift[which], out=residual)
                sums.index_add_(0, which, residual.to(self.means.dtype))
            else:
                # one pass, and no less exact: each row of the product has a single term
                torch.addmm(block, one_hot, shift, alpha=-1, out=residual)
                sums += one_hot.T @ residual
            traces.index_add_(0, which, squared_norms(residual).to(self.means.dtype))
            if not self.full:
                continue
            if not self.by_class:
                _add_gram(scatter, residual)
            else:
                _add_by_class(scatter, residual, which)
        # The mean's distance from the shift is recovered from the small residuals and taken off the scatter again.
        rest = sums / counts.to(self.means.dtype)[:, None]
        _require_finite(rest, features)
        excess = rest * counts.to(self.means.dtype).sqrt()[:, None]
        self.fold(classes, counts, shift.to(self.means.dtype) + rest, traces, scatter, excess)

    def fold(
        self, classes: Tensor, counts: Tensor, means: Tensor, traces: Tensor, scatter: Tensor, excess: Tensor | None
    ) -> None:
        """Merge the moments of ``classes`` into the state: S += S' − eᵀe + Σ_c (n n'/(n+n')) δ_c δ_cᵀ.

        e, one row a class, is what S' holds too much because it was not centred at the mean itself.
        """
        if self.full and not self.by_class:
            self.scatter += scatter
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
        self.fold(
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


def _add_gram(scatter: Tensor, rows: Tensor) -> None:
    """Add the upper triangle of rowsᵀ rows, in strips: at p = 512 five eighths of the whole product's work."""
    for start in range(0, len(scatter), _STRIP):
        strip = slice(start, start + _STRIP)
        scatter[strip, start:] += rows[:, strip].T @ rows[:, start:]


def _one_hot(index: Tensor, classes: int, dtype: torch.dtype) -> Tensor | None:
    """(n, classes), or None where there are so many classes that products with it cost more than scattered sums."""
    if classes > _ONE_HOT_LIMIT:
        return None
    return torch.nn.functional.one_hot(index, classes).to(dtype)


def squared_norms(rows: Tensor) -> Tensor:
    """(n,) in float64, each as exact as the rows' own type."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1).double().square()
    return norms


def _require_finite(means: Tensor, features: Tensor) -> None:
    if not bool(torch.isfinite(means).all()):
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
    sums = features.new_zeros(len(counts), features.shape[1]).index_add_(0, index[sample], features[sample])
    return sums / members.to(features.dtype)[:, None]


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
