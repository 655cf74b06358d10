"""What needs the final class means, example by example: the decisions of NC4, and what each class adds to NC1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from neuralcollapse._errors import InputError
from neuralcollapse._linalg import scaled
from neuralcollapse.metrics.nc1_to_nc4 import between_whitener
from neuralcollapse.metrics.nearest_mean import DecisionRule
from neuralcollapse.moments.class_moments import ClassMoments
from neuralcollapse.moments.row_buffer import RowBuffer


class Totals(NamedTuple):
    """Of all classes together.

    Attributes:
        examples: how many were seen; mismatches: on how many the network and the nearest class mean disagree.
        correct: how many the network classifies correctly; nearest_correct: and the nearest class mean.
    """

    examples: int
    mismatches: int
    correct: int
    nearest_correct: int


COUNTS = Totals._fields


class DecisionCounts:
    """Counts decisions by class, and sums ‖A (h − μ_c)‖² with AᵀA = Σ_B⁺; class weights have no part in either.

    Args:
        moments: of the features that will be added, about their own class means or, with a ``reference``, about its.
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
        about = moments if reference is None else reference
        self.whitener = between_whitener(moments)
        # the same for features divided by the power of two of the means that they are about
        whitener = None if self.whitener is None else scaled(self.whitener, about.exponent - moments.exponent)
        self._rule = DecisionRule(about, weight, bias, whitener)
        self._buffer, self._device = RowBuffer(), moments.device
        self._counts = torch.zeros(len(COUNTS), moments.num_classes, dtype=torch.int64, device=self._device)
        self._squares = self._counts.new_zeros(moments.num_classes, dtype=torch.float64)

    def state_dict(self) -> dict[str, Tensor]:
        """(C,) each: ``examples``, ``mismatches``, ``correct``, ``nearest_correct`` (int64), ``squares`` (float64)."""
        self.decide_waiting()
        return {**dict(zip(COUNTS, self._counts, strict=True)), "squares": self._squares}

    @property
    def counts(self) -> Totals:
        """The counts of all classes together."""
        self.decide_waiting()
        return Totals(*self._counts.sum(dim=1).tolist())

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
        result, labels = self._rule(features, labels), labels.to(self._device, torch.int64)
        found = (torch.ones_like(result.agree), ~result.agree, result.correct, result.nearest_correct)
        self._counts.index_add_(1, labels, torch.stack(found).to(self._device, torch.int64))
        self._squares.index_add_(0, labels, result.squares.to(self._device))
