"""Passes over a loader: features and labels of each batch, what was seen, and the decisions NC4 counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from neuralcollapse._checks import InputError
from neuralcollapse.measuring.batches import Call, Prepared, moved, read_batch, require_loader, unshared
from neuralcollapse.metrics.nearest_mean import DecisionRule
from neuralcollapse.moments.class_moments import ClassMoments
from neuralcollapse.moments.row_buffer import Waiting

Result = TypeVar("Result")

_CHECK_TOLERANCE = 1e-4


class NoData(InputError):
    """A loader without batches."""

    def __init__(self) -> None:
        super().__init__("expected a loader with at least one batch, got none")


class Batches:
    """Forward passes of a model over a loader.

    Args:
        model: in eval mode and observed: see ``hooks.evaluation`` and ``preparation.observed``.
        loader: batches as ``batches.read_batch`` reads them.
        device: where inputs and labels go.
        labelled: False where labels are not wanted: batches may then be of inputs alone.
    """

    def __init__(self, model: nn.Module, loader: Iterable[Any], device: torch.device, *, labelled: bool = True) -> None:
        self._model, self._loader, self._device = model, loader, device
        self.labelled = labelled

    def __iter__(self) -> Iterator[tuple[Tensor, Any]]:
        """Run each batch, and give its labels and what the model returned; hooks on the model have then fired."""
        for call in self._calls():
            yield self._forward(call)

    def _calls(self) -> Iterator[Call]:
        """What the network is to be called with for each batch."""
        prepared = self._loader if isinstance(self._loader, Prepared) else None
        loader = self._loader if prepared is None else prepared.loader
        require_loader(loader)
        for number, batch in enumerate(unshared(loader)):
            place = f"batch {number}"
            ready = moved(batch, self._device, place) if prepared is None else prepared.transfer(batch)
            yield read_batch(ready, self._model, labelled=self.labelled, place=place)

    def _forward(self, call: Call) -> tuple[Tensor, Any]:
        """(labels, the network's output); labels are empty where they are not wanted."""
        with self._loader.context() if isinstance(self._loader, Prepared) else nullcontext():
            output = self._model(*call.arguments, **call.named)
        labels = torch.empty(0) if call.labels is None else call.labels
        return labels.to(self._device), output


class Tally:
    """Counts of examples: decisions unlike the nearest class mean's, and correct ones. Never class-weighted.

    Args:
        moments: whose class means decide; weight: (C, p) and bias: (C,) or None of the classifier.
    """

    def __init__(self, moments: ClassMoments, weight: Tensor, bias: Tensor | None = None) -> None:
        self._rule = DecisionRule(moments, weight, bias)
        self._waiting = Waiting()
        self._counts = [0, 0, 0, 0]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """(examples, mismatches, correct, nearest_correct)."""
        self.settle()
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
        """How many the network gets right."""
        return self.counts[2]

    @property
    def nearest_correct(self) -> int:
        """How many the nearest class mean gets right."""
        return self.counts[3]

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Raises:
            InputError: wrong shapes, a label out of range, NaN or infinity.
        """
        self._rule.check(features, labels)
        self._waiting.gather(features, labels, self._decide)

    def settle(self) -> None:
        """Decide the examples that wait for others; reading the counts does it too."""
        self._waiting.finish(self._decide)

    def add_counts(self, *counts: int) -> None:
        """Add what was counted elsewhere, in the order of ``counts``."""
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


class Fingerprint:
    """What a pass saw, whatever the order and the batches: per class the count and one projection of the features."""

    def __init__(self, num_classes: int) -> None:
        # per class: examples, sum of the projections, sum of their sizes
        self._sums = torch.zeros(num_classes, 3, dtype=torch.float64)
        self._direction: Tensor | None = None

    def add(self, features: Tensor, labels: Tensor) -> None:
        """See a batch."""
        if self._direction is None:
            generator = torch.Generator().manual_seed(0)
            self._direction = torch.rand(features.shape[1], generator=generator).to(features.device)
        # Features of 16 bits are projected in float32, and in float64 those whose sums float32 can't hold.
        work = features if features.dtype == torch.float64 else features.float()
        with torch.autocast(features.device.type, enabled=False):
            values = (work @ self._direction.to(work.dtype)).double().cpu()
            if not bool(torch.isfinite(values).all()):
                values = (work.double() @ self._direction.double()).cpu()
        self._sums.index_add_(
            0, labels.cpu().long(), torch.stack([torch.ones_like(values), values, values.abs()], dim=1)
        )

    def widen(self, num_classes: int) -> None:
        """Make room for more classes."""
        self._sums = torch.cat([self._sums, self._sums.new_zeros(num_classes - len(self._sums), 3)])

    def require_same(self, other: Fingerprint) -> None:
        """Raise where another pass saw other examples."""
        count, total, size = self._sums.T
        count2, total2, _ = other._sums.T
        # so written that numbers which are not finite differ too
        same = (count == count2) & ((total - total2).abs() <= _CHECK_TOLERANCE * size)
        differ = (~same).nonzero()[:, 0].tolist()
        if differ:
            label = differ[0]
            raise InputError(
                f"expected both passes over the loader to give the same examples, class {label} differed "
                f"({int(count[label])} then {int(count2[label])} examples): turn off augmentation and sampling, or "
                "raise memory_budget so that one pass suffices"
            )


def jointly(work: Callable[[], Result], distributed: bool) -> Result:
    """``work()``; when distributed, an error on one process is an error on all, so that none waits for another.

    Raises:
        InputError: no process group; or what a process refused, with its rank.
        RuntimeError: any other error of another process, by its rank and type; the process itself raises it as it is.
    """
    if not distributed:
        return work()
    if not dist.is_available() or not dist.is_initialized():
        raise InputError("expected an initialised torch.distributed process group for distributed=True, got none")
    result: Result | None = None
    mine: Exception | None = None
    told: tuple[bool, str] | None = None
    reports: list[tuple[bool, str] | None] = [None] * dist.get_world_size()
    try:
        try:
            result = work()
        except Exception as error:
            refused = isinstance(error, InputError)
            mine, told = error, (refused, str(error) if refused else f"{type(error).__name__}: {error}")
        try:
            dist.all_gather_object(reports, told)
        except RuntimeError as error:
            if mine is not None:
                raise mine from None
            raise RuntimeError(f"expected all processes to measure, one has ended: {error}") from error
        failed = next(((rank, report) for rank, report in enumerate(reports) if report is not None), None)
        if failed is None:
            return result  # type: ignore[return-value]
        if mine is not None and not isinstance(mine, InputError):
            raise mine
        rank, (refused, text) = failed
        raise (InputError if refused else RuntimeError)(f"process {rank}: {text}") from mine
    finally:
        mine = None  # an error that its own frame holds would keep the network until Python looks for cycles
