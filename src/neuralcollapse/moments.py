"""ClassMoments: counts, class means and centred scatter of labelled features, streamed and merged exactly."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from ._checks import InputError, check_features, check_labels, first_bad_row
from ._linalg import full_precision

Weighting = Literal["example", "class"]

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


class ClassMoments:
    """The first and second class moments of features, which every metric of Neural Collapse is computed from.

    Scatter is centred from the start and merged by the pairwise formula of Chan, Golub & LeVeque (1983), never
    derived from raw sums: during collapse the spread within a class is far below the rounding of ``E‖h‖²``.

    Features of 16 or 32 bits are multiplied in float32, *after* subtracting a class mean, so that products carry the
    relative precision of the spread itself; sums are kept in ``dtype``. float64 features are multiplied in float64.

    Args:
        num_classes: C, the number of classes that labels may name.
        dim: p, the feature dimension; taken from the first batch when None.
        weighting: ``"example"``, the default because it is the training loss's own: each example counts 1/n, so
            class c has π_c = n_c/n. ``"class"``: each present class counts alike, each of its examples 1/(C n_c);
            its state holds one p × p scatter per class.
        dtype: type of the state; float64 by default, so that long streams lose nothing.
        device: where the state lives; the first batch's device when None.

    Example:
        >>> moments = ClassMoments(num_classes=2)
        >>> moments.update(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]))
        >>> moments.means.tolist()
        [[2.0], [5.0]]
    """

    def __init__(
        self,
        num_classes: int,
        dim: int | None = None,
        *,
        weighting: Weighting = "example",
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> None:
        if num_classes < 1:
            raise InputError(f"expected at least one class, got num_classes = {num_classes}")
        if dim is not None and dim < 1:
            raise InputError(f"expected a positive feature dimension, got dim = {dim}")
        if weighting not in ("example", "class"):
            raise InputError(f"expected weighting 'example' or 'class', got {weighting!r}")
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"expected a state of float32 or float64, got {dtype}")
        self.num_classes = num_classes
        self.dim = dim
        self.weighting: Weighting = weighting
        self.dtype = dtype
        self.device = torch.device(device) if device is not None else None
        # The coarsest precision any product was made in: rank decisions need it (see _linalg).
        self.eps = torch.finfo(dtype).eps
        if dim is not None:
            self._allocate(dim, self.device or torch.device("cpu"))

    def _allocate(self, dim: int, device: torch.device) -> None:
        self.dim, self.device = dim, device
        self._counts = torch.zeros(self.num_classes, dtype=torch.int64, device=device)
        self._means = torch.zeros(self.num_classes, dim, dtype=self.dtype, device=device)
        shape = (dim, dim) if self.weighting == "example" else (self.num_classes, dim, dim)
        self._scatter = torch.zeros(shape, dtype=self.dtype, device=device)

    def _like(self) -> ClassMoments:
        return ClassMoments(self.num_classes, self.dim, weighting=self.weighting, dtype=self.dtype, device=self.device)

    def update(self, features: Float[Tensor, "n p"], labels: Integer[Tensor, " n"]) -> None:
        """Add a batch of examples.

        Args:
            features: (n, p), any floating type; moved to the state's device.
            labels: (n,), integers in 0 … C−1.

        Raises:
            InputError: wrong shapes or types, a label out of range, NaN or infinity. The state is then unchanged.
        """
        check_features(features, self.dim)
        labels = labels.to(features.device)
        check_labels(labels, features.shape[0], self.num_classes)
        if self.dim is None:
            self._allocate(features.shape[1], self.device or features.device)
        features, labels = features.detach().to(self.device), labels.to(self.device, torch.int64)
        if features.dtype != torch.float64 or self.dtype == torch.float32:
            features = features.to(torch.float32)
        if len(features):
            # An autocast or TF32 around the caller's own loop must not narrow these products.
            with full_precision(features.device):
                self._update(features, labels)

    def _update(self, features: Tensor, labels: Tensor) -> None:
        """Gather sums and products of all rows around one shift per class, in blocks; then fold them in at once."""
        classes, index = torch.unique(labels, return_inverse=True)
        counts = torch.bincount(index, minlength=len(classes))
        # Near the class mean and in the features' type: subtracting it from nearby features is exact (Sterbenz).
        shift = _shift(features, index, counts)
        dim = features.shape[1]
        block_bytes = _BLOCK_BYTES.get(features.device.type, _ACCELERATOR_BLOCK_BYTES)
        rows = min(len(features), max(256, block_bytes // (features.element_size() * dim)))
        # Buffers for all blocks: fresh memory for each would cost as much as the passes over it.
        residuals, product = torch.empty_like(features[:rows]), features.new_zeros(dim, dim)
        sums = torch.zeros(len(classes), dim, dtype=self.dtype, device=features.device)
        shape = (dim, dim) if self.weighting == "example" else (len(classes), dim, dim)
        scatter = torch.zeros(shape, dtype=self.dtype, device=features.device)
        for start in range(0, len(features), rows):
            block, which = features[start : start + rows], index[start : start + rows]
            residual = residuals[: len(block)]
            if len(classes) <= _ONE_HOT_LIMIT:
                one_hot = torch.nn.functional.one_hot(which, len(classes)).to(features.dtype)
                # one pass, and no less exact: each row of the product has a single term
                torch.addmm(block, one_hot, shift, alpha=-1, out=residual)
                sums += one_hot.T @ residual
            else:
                torch.sub(block, shift[which], out=residual)
                sums.index_add_(0, which, residual.to(self.dtype))
            if self.weighting == "example":
                scatter += _gram(residual, product)
            else:
                _add_by_class(scatter, residual, which)
        # The mean's distance from the shift is recovered from the small residuals and taken off the scatter again.
        rest = sums / counts.to(self.dtype)[:, None]
        if not bool(torch.isfinite(rest).all()):
            finite = bool(torch.isfinite(features).all())
            where = "an overflow of their class sums" if finite else f"NaN or infinity in row {first_bad_row(features)}"
            raise InputError(f"expected finite features, got {where}")
        self.eps = max(self.eps, torch.finfo(features.dtype).eps)
        excess = rest * counts.to(self.dtype).sqrt()[:, None]
        self._fold(classes, counts, shift.to(self.dtype) + rest, scatter, excess)

    def _fold(self, classes: Tensor, counts: Tensor, means: Tensor, scatter: Tensor, excess: Tensor) -> None:
        """Merge the moments of ``classes`` into the state: S += S' − eᵀe + Σ_c (n n'/(n+n')) δ_c δ_cᵀ.

        e, one row a class, is what S' holds too much because it was not centred at the mean itself.
        """
        before = self._counts[classes].to(self.dtype)
        added = counts.to(self.dtype)
        total = (before + added).clamp(min=1)
        delta = means - self._means[classes]
        scaled = delta * (before * added / total).sqrt()[:, None]
        if self.weighting == "example":
            self._scatter += scatter
            self._scatter.addmm_(torch.cat([scaled, excess]).T, torch.cat([scaled, -excess]))
        else:
            outer = scaled[:, :, None] * scaled[:, None, :] - excess[:, :, None] * excess[:, None, :]
            self._scatter[classes] += scatter + outer
        self._means[classes] += delta * (added / total)[:, None]
        self._counts[classes] += counts

    def merge(self, other: ClassMoments) -> None:
        """Add another state, as if its examples had been seen here; exact and associative up to rounding.

        Raises:
            InputError: the two differ in classes, dimension or weighting.
        """
        for name in ("num_classes", "weighting"):
            if getattr(self, name) != getattr(other, name):
                raise InputError(f"expected {name} = {getattr(self, name)}, got {getattr(other, name)}")
        if other.dim is None:
            return
        if self.dim is None:
            self._allocate(other.dim, self.device or other.means.device)
        if self.dim != other.dim:
            raise InputError(f"expected moments with dim = {self.dim}, got {other.dim}")
        self.eps = max(self.eps, other.eps)
        classes = torch.arange(self.num_classes, device=self.device)
        self._fold(
            classes,
            other._counts.to(self.device),
            other._means.to(self.device, self.dtype),
            other._scatter.to(self.device, self.dtype),
            torch.zeros_like(self._means),
        )

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Merge the states of all processes; every process then holds the same result, bit for bit.

        States are broadcast one rank after the other and folded in rank order, so memory stays at two states.
        Shards may be uneven; a process that saw nothing may not even know the feature dimension.

        Raises:
            InputError: no process group, or, on every process, states that do not fit one another.
        """
        if not dist.is_available() or not dist.is_initialized():
            raise InputError("expected an initialised torch.distributed process group, got none")
        summaries: list[dict[str, Any]] = [{}] * dist.get_world_size(group)
        mine = {"dim": self.dim, "num_classes": self.num_classes, "weighting": self.weighting, "dtype": self.dtype}
        dist.all_gather_object(summaries, {**mine, "eps": self.eps}, group=group)
        # Every process sees every summary, so that all refuse together and none waits for another.
        for name in mine:
            found = {str(summary[name]) for summary in summaries if summary[name] is not None}
            if len(found) > 1:
                raise InputError(f"expected the same {name} on all processes, got {' and '.join(sorted(found))}")
        dim = next((summary["dim"] for summary in summaries if summary["dim"] is not None), None)
        if dim is None:
            return
        if self.dim is None:
            accelerated = dist.get_backend(group) == "nccl"
            own = torch.device("cuda", torch.cuda.current_device()) if accelerated else torch.device("cpu")
            self._allocate(dim, self.device or own)
        result = self._like()
        for rank in range(len(summaries)):
            source = self if dist.get_rank(group) == rank else self._like()
            global_rank = rank if group is None else dist.get_global_rank(group, rank)
            for tensor in (source._counts, source._means, source._scatter):
                dist.broadcast(tensor, src=global_rank, group=group)
            result.merge(source)
        self._counts, self._means, self._scatter = result._counts, result._means, result._scatter
        self.eps = max(summary["eps"] for summary in summaries)

    def _require(self) -> None:
        if self.dim is None or not bool(self._counts.any()):
            raise InputError("expected at least one example, got none: call update() with features and labels first")

    @property
    def num_examples(self) -> int:
        """n, the number of examples seen."""
        return 0 if self.dim is None else int(self._counts.sum())

    @property
    def counts(self) -> Integer[Tensor, " c"]:
        """(C,) examples per class."""
        self._require()
        return self._counts

    @property
    def present(self) -> Bool[Tensor, " c"]:
        """(C,) boolean: the classes that have at least one example."""
        return self.counts > 0

    @property
    def weights(self) -> Float[Tensor, " c"]:
        """(C,) class weights π_c, which sum to one; zero for absent classes."""
        mass = self.counts if self.weighting == "example" else self.present
        mass = mass.to(self.dtype)
        return mass / mass.sum()

    @property
    def means(self) -> Float[Tensor, "c p"]:
        """(C, p) class means μ_c; zero rows for absent classes, which no formula uses."""
        self._require()
        return self._means

    @property
    def global_mean(self) -> Float[Tensor, " p"]:
        """(p,) μ_G = Σ_c π_c μ_c."""
        return self.weights @ self.means

    @property
    def centred_means(self) -> Float[Tensor, "c p"]:
        """(C, p) μ_c − μ_G, the rows of M̄ᵀ; zero rows for absent classes."""
        return (self.means - self.global_mean) * self.present[:, None]

    @property
    def within_covariance(self) -> Float[Tensor, "p p"]:
        """(p, p) Σ_W = Ave (h − μ_c)(h − μ_c)ᵀ, divisor n (or C n_c by class), never n − 1."""
        self._require()
        if self.weighting == "example":
            covariance = self._scatter / self.num_examples
        else:
            covariance = torch.einsum("c,cpq->pq", self.weights / self._counts.clamp(min=1), self._scatter)
        covariance = covariance.triu() + covariance.triu(1).T
        covariance.diagonal().clamp_(min=0.0)  # identical examples leave rounding of either sign
        return covariance

    @property
    def between_covariance(self) -> Float[Tensor, "p p"]:
        """(p, p) Σ_B = Σ_c π_c (μ_c − μ_G)(μ_c − μ_G)ᵀ."""
        scaled = self.centred_means * self.weights.sqrt()[:, None]
        return scaled.T @ scaled


def _gram(rows: Tensor, product: Tensor) -> Tensor:
    """The upper triangle of rowsᵀ rows, in strips: at p = 512 five eighths of the whole product's work."""
    for start in range(0, len(product), _STRIP):
        strip = slice(start, start + _STRIP)
        torch.mm(rows[:, strip].T, rows[:, start:], out=product[strip, start:])
    return product


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
