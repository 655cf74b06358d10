"""A torchmetrics ``Metric``: features and labels in, every number of the report out.

metric = NeuralCollapse(model.fc, metrics="all")
for inputs, labels in loader:
    metric.update(features_of(inputs), labels)
metric.compute()["nc1"]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from neuralcollapse._checks import InputError, as_labels, as_tensor
from neuralcollapse._errors import install, suggest
from neuralcollapse.measuring.decision_counts import DecisionCounts
from neuralcollapse.measuring.options import MeasureOptions
from neuralcollapse.measuring.report import Report, make_report
from neuralcollapse.moments.class_moments import STATE_NAMES, ClassMoments, Weighting

try:
    import torchmetrics
except ImportError:
    raise InputError(f"this integration needs torchmetrics: {install('torchmetrics')}") from None


class _Reference:
    """The classifier itself, which is not copied with the metric: a copy would keep the weights of that moment.

    Where the network is copied that both are part of, the copied metric reads the copied classifier.
    """

    def __init__(self, classifier: nn.Linear, memo: Mapping[int, Any] | None = None) -> None:
        self._classifier, self._memo = classifier, memo

    @property
    def classifier(self) -> nn.Linear:
        if self._memo is not None:  # looked up when first read: it may be copied after the metric
            self._classifier, self._memo = self._memo.get(id(self._classifier), self._classifier), None
        return self._classifier

    def __deepcopy__(self, memo: dict[int, Any]) -> _Reference:
        return _Reference(self.classifier, memo)

    def __reduce__(self) -> tuple[type[_Reference], tuple[nn.Linear]]:
        return _Reference, (self.classifier,)


class NeuralCollapse(torchmetrics.Metric):
    """Every number of :class:`neuralcollapse.Report`, from features that enter the classifier and their labels.

    Processes are synchronised by merging their moments, which is exact for shards of any sizes. Features are not sent:
    each process counts NC4 and the accuracies on its own features, about the merged class means.

    Args:
        classifier: the last layer; its weights are read at ``compute``, and it is neither copied nor trained by this.
            Where a network is copied with the metric in it, the copy's metric reads the copy's classifier.
        metrics: later metrics to add, by name or ``"all"``; ``nc.METRICS`` lists them.
        weight_decay: λ of the paper's loss.
        weighting: see :class:`neuralcollapse.ClassMoments`.
        keep_features: keep the features until ``compute``, for NC4 and the accuracies. False leaves these out, and
            memory does not grow with the number of examples.
        **options: of ``torchmetrics.Metric``.

    Raises:
        InputError: an impossible option; from ``update`` and ``compute``, what ``ClassMoments`` and the report refuse.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = True

    counts: Tensor
    features: list[Tensor]
    labels: list[Tensor]

    def __init__(
        self,
        classifier: nn.Linear,
        *,
        metrics: str | Sequence[str] | None = None,
        weight_decay: float = 0.0,
        weighting: Weighting = "example",
        keep_features: bool = True,
        **options: Any,
    ) -> None:
        try:
            super().__init__(**options)
        except ValueError as error:  # an option that torchmetrics does not have, or of another type
            own = ("metrics", "weight_decay", "weighting", "keep_features")
            hints = [hint for name in options if (hint := suggest(name, own))]
            raise InputError(f"{error}{hints[0] if hints else ''}") from None
        if not isinstance(classifier, nn.Linear):
            hint = ": give its last layer, such as model.fc" if isinstance(classifier, nn.Module) else ""
            raise InputError(f"expected the classifier, an nn.Linear, got {type(classifier).__name__}{hint}")
        checked = MeasureOptions(metrics=metrics, weight_decay=weight_decay, weighting=weighting)
        self._reference = _Reference(classifier)
        self._metrics, self._weight_decay, self._weighting = metrics, checked.weight_decay, weighting
        self._keep = keep_features
        empty = ClassMoments(classifier.out_features, classifier.in_features, weighting=weighting)
        for name, tensor in empty.state_dict().items():
            self.add_state(name, tensor, dist_reduce_fx=None)
        for name in ("features", "labels"):
            if keep_features:
                self.add_state(name, [], dist_reduce_fx=None)
            else:  # no states: by their names a collection tells which metrics may share them
                setattr(self, name, [])

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            features: (n, p) that enter the classifier; labels: (n,).
        """
        features, labels = as_tensor(features, "features"), as_labels(labels)
        moments = ClassMoments.from_state_dict(self._state(), weighting=self._weighting, trusted=True)
        moments.update(features, labels)
        for name, tensor in moments.state_dict().items():
            setattr(self, name, tensor.to(self.counts.device))
        if self._keep:
            # copies: a loader may write its next batch into the same memory
            self.features.append(features.clone())
            self.labels.append(labels.clone())

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Add a batch, and return the numbers of that batch alone; all are NaN if it has one class only.

        With ``dist_sync_on_step`` they are the numbers of the batches of all processes together.
        """
        if self._is_synced:
            return super().forward(features, labels)  # type: ignore[no-any-return] # raises
        features, labels = as_tensor(features, "features"), as_labels(labels)
        self.update(features, labels)
        own = ClassMoments(self.counts.shape[0], weighting=self._weighting, device=self.counts.device)
        own.update(features, labels)
        if self.dist_sync_on_step and dist.is_available() and dist.is_initialized():
            own.all_reduce(self.process_group)
        if int(own.present.sum()) < 2:
            warnings.warn("a batch alone gives no numbers, NaN instead: its examples are of one class", stacklevel=2)
            numbers = dict.fromkeys(self._names(), torch.tensor(torch.nan, dtype=torch.float64))
        else:
            numbers = _tensors(self._report(own, [features], [labels], shared=self.dist_sync_on_step))
        self._forward_cache: Any = numbers
        return numbers

    def compute(self) -> dict[str, Tensor]:
        """All numbers seen so far, named as :meth:`neuralcollapse.Report.numbers` names them.

        A warning says what a report would note, such as that features of 16 bits are too coarse for NC1.
        """
        report = self._report(self._merged(), self.features, self.labels, shared=self._is_synced)
        for note in report.notes:
            warnings.warn(note, UserWarning, stacklevel=2)
        return _tensors(report)

    def merge_state(self, incoming_state: dict[str, Any] | torchmetrics.Metric) -> None:
        """Add what another metric of the same settings has seen, or a state as ``metric_state`` gives it.

        Raises:
            InputError: another kind of metric, or settings that differ.
        """
        if isinstance(incoming_state, torchmetrics.Metric):
            if not isinstance(incoming_state, NeuralCollapse):
                raise InputError(f"expected a NeuralCollapse metric to merge, got {type(incoming_state).__name__}")
            if (incoming_state._weighting, incoming_state._keep) != (self._weighting, self._keep):
                wanted = f"weighting={self._weighting!r}, keep_features={self._keep}"
                got = f"weighting={incoming_state._weighting!r}, keep_features={incoming_state._keep}"
                raise InputError(f"expected a metric with {wanted} to merge, got {got}")
            seen, incoming_state = incoming_state._update_count, incoming_state.metric_state
        else:
            seen = 1
        state: dict[str, Any] = dict(incoming_state)
        missing = sorted(self._defaults.keys() - state.keys() - {"given_eps"})  # which older states lack
        if missing:
            raise InputError(f"expected a state with {', '.join(self._defaults)}, got none of {', '.join(missing)}")
        other = ClassMoments.from_state_dict(
            {name: state[name] for name in STATE_NAMES if name in state}, weighting=self._weighting
        )
        merged = ClassMoments.from_state_dict(self._state(), weighting=self._weighting)
        merged.merge(other)
        for name, tensor in merged.state_dict().items():
            setattr(self, name, tensor.to(self.counts.device))
        if self._keep:
            self.features.extend(state["features"])
            self.labels.extend(state["labels"])
        self._update_count += seen
        self._computed = None

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw the numbers, or ``val``: what ``compute`` or ``forward`` gave, or a list of that over time.

        Returns:
            The figure and the axes. A number that is not finite has no point.
        """
        return self._plot(val, ax)

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> NeuralCollapse:
        """Follow ``.to(device)``, but not a change of type: the sums over examples need their precision."""
        super()._apply(fn, exclude_state=[*exclude_state, *self._defaults])
        device = fn(torch.empty(0, dtype=torch.float64, device=self.counts.device)).device
        for name, default in self._defaults.items():
            value = getattr(self, name)
            if isinstance(default, Tensor):
                self._defaults[name] = default.to(device)
                setattr(self, name, value.to(device))
            else:
                setattr(self, name, [part.to(device) for part in value])
        return self

    def _report(self, moments: ClassMoments, features: list[Tensor], labels: list[Tensor], *, shared: bool) -> Report:
        """The report; NC4 and the accuracies are those of all processes where ``shared``."""
        classifier = self._reference.classifier
        weight = classifier.weight.detach()
        bias = None if classifier.bias is None else classifier.bias.detach()
        decisions = None
        if self._keep:
            decisions = DecisionCounts(moments, weight, bias)
            for rows, classes in zip(features, labels, strict=True):
                decisions.add(rows, classes)
            if shared and dist.is_available() and dist.is_initialized():
                decisions.all_reduce(self.process_group)
        return make_report(
            moments, weight, bias, weight_decay=self._weight_decay, metrics=self._metrics, decisions=decisions
        )

    def _names(self) -> list[str]:
        """The names of the numbers, taken from a report on three points."""
        corners = torch.eye(3, dtype=torch.float64)
        moments = ClassMoments(3, weighting=self._weighting)
        moments.update(corners.repeat(2, 1) + torch.arange(6)[:, None] * corners[0] / 8, torch.arange(6) % 3)
        decisions = DecisionCounts(moments, corners) if self._keep else None
        if decisions is not None:
            decisions.add(corners, torch.arange(3))
        return list(make_report(moments, corners, metrics=self._metrics, decisions=decisions).numbers())

    def _state(self, index: int | None = None) -> dict[str, Tensor]:
        return {name: getattr(self, name) if index is None else getattr(self, name)[index] for name in STATE_NAMES}

    def _merged(self) -> ClassMoments:
        """The moments; after a synchronisation, merged from the states of all processes, which are stacked."""
        if not self._is_synced:
            return ClassMoments.from_state_dict(self._state(), weighting=self._weighting)
        first, *others = range(len(self.counts))
        merged = ClassMoments.from_state_dict(self._state(first), weighting=self._weighting)
        for index in others:
            merged.merge(ClassMoments.from_state_dict(self._state(index), weighting=self._weighting, trusted=True))
        return merged

    def _sync_dist(self, *arguments: Any, **named: Any) -> None:
        """Gather the moments only: features would be large, and differ in number between processes."""
        reductions = self._reductions
        self._reductions = {name: each for name, each in reductions.items() if name not in ("features", "labels")}
        try:
            super()._sync_dist(*arguments, **named)
        finally:
            self._reductions = reductions


def _tensors(report: Report) -> dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in report.numbers().items()}
