"""What needs the final class means, example by example: the decisions of NC4, and what each class adds to NC1."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from neuralcollapse._errors import InputError
from neuralcollapse._linalg import full_precision, scaled
from neuralcollapse.metrics.nc1_to_nc4 import between_whitener
from neuralcollapse.metrics.nearest_mean import DecisionRule
from neuralcollapse.moments.blocks import classes_per_block, padded_rows, rows_per_block
from neuralcollapse.moments.class_moments import ClassMoments
from neuralcollapse.moments.row_buffer import RowBuffer

COUNTS = ("examples", "mismatches", "correct", "nearest_correct")


class DecisionCounts:
    """Counts decisions by class, and sums ‖A (h − μ_c)‖² with AᵀA = Σ_B⁺; class weights have no part in either.

    Args:
        moments: of the features that will be added, about their own or a reference's class means.
        weight: (C, p) and bias: (C,) or None of the classifier. Without a weight only the nearest class mean's
            decisions mean anything.
        reference: whose class means decide, where these are not those of ``moments``.

    Attributes:
        whitener: A, of :func:`neuralcollapse.metrics.nc1_to_nc4.between_whitener`.
    """

    def __init__(
        self,
        moments: ClassMoments,
        weight: Tensor | None,
        bias: Tensor | None = None,
        *,
        reference: ClassMoments | None = None,
    ) -> None:
        weight = moments.means.new_zeros(moments.means.shape) if weight is None else weight
        self._rule = DecisionRule(moments if reference is None else reference, weight, bias)
        self._buffer = RowBuffer()
        self._exponent, moments = moments.exponent, moments.at_unit_scale()
        self._means, self.whitener = moments.means, between_whitener(moments)
        self._near: dict[torch.dtype, tuple[Tensor, Tensor]] = {}
        self._counts = torch.zeros(len(COUNTS), moments.num_classes, dtype=torch.int64, device=self._means.device)
        self._squares = self._counts.new_zeros(moments.num_classes, dtype=torch.float64)

    def state_dict(self) -> dict[str, Tensor]:
        """(C,) each: ``examples``, ``mismatches``, ``correct``, ``nearest_correct`` (int64), ``squares`` (float64)."""
        self.decide_waiting()
        return {**dict(zip(COUNTS, self._counts, strict=True)), "squares": self._squares}

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """(examples, mismatches, correct, nearest_correct) of all classes together."""
        self.decide_waiting()
        examples, mismatches, correct, nearest_correct = self._counts.sum(dim=1).tolist()
        return examples, mismatches, correct, nearest_correct

    @property
    def examples(self) -> int:
        """How many were seen."""
        return self.counts[0]

    @property
    def mismatches(self) -> int:
        """On how many the network and the nearest class mean disagree."""
        return self.counts[1]

    @property
    def correct(self) -> int:
        """How many the network classifies correctly."""
        return self.counts[2]

    @property
    def nearest_correct(self) -> int:
        """How many the nearest class mean classifies correctly."""
        return self.counts[3]

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Count a batch. Examples may wait for others, to be decided together.

        Raises:
            InputError: wrong shapes, a label out of range, NaN or infinity.
        """
        self._rule.check(features, labels)
        for block in self._buffer.add(features, labels):
            self._decide(*block)

    def decide_waiting(self) -> None:
        """Decide the examples that wait; asking for a count does it too."""
        for block in self._buffer.empty():
            self._decide(*block)

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Add what was counted elsewhere against the same class means and classifier, as ``state_dict`` gives it.

        Raises:
            InputError: another number of classes.
        """
        classes = self._counts.shape[1]
        for name in (*COUNTS, "squares"):
            if state[name].shape != (classes,):
                raise InputError(f"expected counts of {classes} classes, got {name} {tuple(state[name].shape)}")
        self._counts += torch.stack([state[name] for name in COUNTS]).to(self._counts)
        self._squares += state["squares"].to(self._squares)

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Add the counts of all processes."""
        self.decide_waiting()
        accelerated = dist.get_backend(group) == "nccl"
        device = torch.device("cuda", torch.cuda.current_device()) if accelerated else torch.device("cpu")
        for own in (self._counts, self._squares):
            total = own.to(device, copy=True)
            dist.all_reduce(total, group=group)
            own.copy_(total)

    def _decide(self, features: Tensor, labels: Tensor, _own: bool) -> None:
        labels = labels.to(self._means.device, torch.int64)
        result = self._rule(features, labels)
        found = (torch.ones_like(result.agree), ~result.agree, result.correct, result.nearest_correct)
        self._counts.index_add_(1, labels, torch.stack(found).long())
        if self.whitener is None:
            return
        step = rows_per_block(features)
        for start in range(0, len(features), step):
            part = labels[start : start + step]
            self._squares.index_add_(0, part, self._distances(features[start : start + step], part))

    def _distances(self, features: Tensor, labels: Tensor) -> Tensor:
        """(n,) ‖A (h − μ_c)‖²; the class mean is subtracted first, because in collapse products would cancel."""
        assert self.whitener is not None
        work = torch.float64 if features.dtype == torch.float64 else torch.float32
        with full_precision(self._means.device):
            found = self._distances_in(work, features, labels)
            if not bool(torch.isfinite(found.sum())):  # extreme features leave the range of float32
                found = self._distances_in(torch.float64, features, labels)
        return found

    def _distances_in(self, work: torch.dtype, features: Tensor, labels: Tensor) -> Tensor:
        """The same by products of this type.

        Features less a mean of their own type are exact where they are near it (Sterbenz). What the mean lost by that
        type is taken off the few products: a third of the time that features less the mean in float64 take.
        """
        assert self.whitener is not None
        if len(self._means) > classes_per_block(self._means.shape[1]):  # too many to keep
            classes, which = torch.unique(labels, return_inverse=True)
            near, lost = self._near_means(work, self._means[classes])
        else:
            if work not in self._near:
                self._near[work] = self._near_means(work, self._means)
            (near, lost), which = self._near[work], labels
        rows = scaled(features.detach().to(self._means.device, work), -self._exponent)
        spread = torch.sub(rows, near.index_select(0, which), out=padded_rows(rows, len(rows)))
        products = (spread @ self.whitener.T.to(work)).double() - lost[which]
        return products.square().sum(dim=1)

    def _near_means(self, work: torch.dtype, means: Tensor) -> tuple[Tensor, Tensor]:
        """(k, p) means in another type, and (k, r) A times what they lost by that."""
        assert self.whitener is not None
        near = means.to(work)
        lost = (means.double() - near.double()).to(work) @ self.whitener.T.to(work)
        return near, lost.double()
