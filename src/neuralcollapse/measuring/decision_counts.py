"""Counts of the examples on which the network, the nearest class mean and the labels agree: NC4 and the accuracies."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from neuralcollapse.metrics.nearest_mean import DecisionRule
from neuralcollapse.moments.class_moments import ClassMoments
from neuralcollapse.moments.row_buffer import RowBuffer


class DecisionCounts:
    """Counts decisions, example by example; class weights have no part in it.

    Args:
        moments: whose class means decide; weight: (C, p) and bias: (C,) or None of the classifier. Without a weight
            only the nearest class mean's decisions mean anything.
    """

    def __init__(self, moments: ClassMoments, weight: Tensor | None, bias: Tensor | None = None) -> None:
        weight = moments.means.new_zeros(moments.means.shape) if weight is None else weight
        self._rule = DecisionRule(moments, weight, bias)
        self._buffer = RowBuffer()
        self._counts = [0, 0, 0, 0]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """(examples, mismatches, correct, nearest_correct)."""
        self.decide_waiting()
        examples, mismatches, correct, nearest_correct = self._counts
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

    def add_counts(self, *counts: int) -> None:
        """Add what was counted elsewhere, in the order of :attr:`counts`."""
        self._counts = [mine + other for mine, other in zip(self._counts, counts, strict=True)]

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Add the counts of all processes."""
        gathered: list[tuple[int, ...]] = [()] * dist.get_world_size(group)
        dist.all_gather_object(gathered, self.counts, group=group)
        self._counts = [sum(column) for column in zip(*gathered, strict=True)]

    def _decide(self, features: Tensor, labels: Tensor, _own: bool) -> None:
        result = self._rule(features, labels)
        wrong = int((~result.agree).sum())
        self.add_counts(len(features), wrong, int(result.correct.sum()), int(result.nearest_correct.sum()))
