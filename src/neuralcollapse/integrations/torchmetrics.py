"""A torchmetrics ``Metric``: features and labels in, every number of the report out.

metric = NeuralCollapse(model.fc, metrics="all")
for inputs, labels in loader:
    metric.update(features_of(inputs), labels)
metric.compute()["nc1"]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuralcollapse._checks import InputError
from neuralcollapse.measure import make_report
from neuralcollapse.metrics import chosen
from neuralcollapse.moments import ClassMoments, Weighting
from neuralcollapse.passes import Tally

try:
    import torchmetrics
except ImportError:
    raise InputError("this integration needs torchmetrics: pip install 'neuralcollapse[torchmetrics]'") from None


class _Reference:
    """The classifier itself, also in a copy of the metric; a metric of its own copy would measure stale weights."""

    def __init__(self, classifier: nn.Linear) -> None:
        self.classifier = classifier

    def __deepcopy__(self, _memo: object) -> _Reference:
        return self


class NeuralCollapse(torchmetrics.Metric):
    """Every number of :class:`neuralcollapse.Report`, from features that enter the classifier and their labels.

    Processes are synchronised by merging their moments, which is exact for shards of any sizes. Features stay where
    they were seen: each process counts NC4 and accuracy on its own, about the merged class means.

    Args:
        classifier: the last layer; its weights are read at ``compute``, and it is neither copied nor trained by this.
        metrics: later metrics to add, by name or ``"all"`` (see :mod:`neuralcollapse.metrics`).
        weight_decay: λ of the paper's loss.
        weighting: see :class:`neuralcollapse.ClassMoments`.
        keep_features: keep them until ``compute``, for NC4 and the accuracies; False leaves those out, and memory at
            one state whatever the number of examples.
        **options: of ``torchmetrics.Metric``.

    Raises:
        InputError: an unknown metric; from ``update`` and ``compute`` what ``ClassMoments`` and the report refuse.
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
        metrics: str | Sequence[str] = "default",
        weight_decay: float = 0.0,
        weighting: Weighting = "example",
        keep_features: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not isinstance(classifier, nn.Linear):
            raise InputError(f"expected the classifier, an nn.Linear, got {type(classifier).__name__}")
        chosen(metrics)
        self._reference = _Reference(classifier)
        self._metrics, self._weight_decay, self._weighting = metrics, weight_decay, weighting
        self._keep = keep_features
        empty = ClassMoments(classifier.out_features, classifier.in_features, weighting=weighting)
        for name, tensor in empty.state_dict().items():
            self.add_state(name, tensor, dist_reduce_fx=None)
        self.add_state("features", [], dist_reduce_fx=None)
        self.add_state("labels", [], dist_reduce_fx=None)

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            features: (n, p) that enter the classifier; labels: (n,).
        """
        moments = ClassMoments.from_state_dict(self._state(), weighting=self._weighting, trusted=True)
        moments.update(features, labels)
        for name, tensor in moments.state_dict().items():
            setattr(self, name, tensor.to(self.counts.device))
        if self._keep:
            self.features.append(features.detach())
            self.labels.append(labels.detach())

    def compute(self) -> dict[str, Tensor]:
        """As :meth:`neuralcollapse.Report.numbers` names them."""
        moments = self._merged()
        classifier = self._reference.classifier
        weight = classifier.weight.detach()
        bias = None if classifier.bias is None else classifier.bias.detach()
        tally = None
        if self._keep:
            tally = Tally(moments, weight, bias)
            for features, labels in zip(self.features, self.labels, strict=True):
                tally.add(features, labels)
            if self._is_synced:
                tally.all_reduce(self.process_group)
        report = make_report(moments, weight, bias, weight_decay=self._weight_decay, metrics=self._metrics, tally=tally)
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in report.numbers().items()}

    def _state(self, index: int | None = None) -> dict[str, Tensor]:
        names = ("counts", "means", "variances", "scatter", "eps")
        return {name: getattr(self, name) if index is None else getattr(self, name)[index] for name in names}

    def _merged(self) -> ClassMoments:
        """The moments; where processes were synchronised, of the stacked states of all."""
        if not self._is_synced:
            return ClassMoments.from_state_dict(self._state(), weighting=self._weighting)
        first, *others = range(len(self.counts))
        merged = ClassMoments.from_state_dict(self._state(first), weighting=self._weighting)
        for index in others:
            merged.merge(ClassMoments.from_state_dict(self._state(index), weighting=self._weighting, trusted=True))
        return merged

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any = None) -> None:
        """Gather the moments alone: features are many, need not agree in number, and need not travel."""
        reductions = self._reductions
        self._reductions = {name: how for name, how in reductions.items() if name not in ("features", "labels")}
        try:
            if dist_sync_fn is None:
                super()._sync_dist(process_group=process_group)
            else:
                super()._sync_dist(dist_sync_fn, process_group)
        finally:
            self._reductions = reductions
