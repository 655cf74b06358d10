"""Features and labels of each batch: which layer is read, which positions are examples, and what is checked."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from neuralcollapse._checks import (
    InputError,
    as_count,
    as_switch,
    as_tensor,
    check_classifier,
    check_features,
    check_labels,
    shown,
)
from neuralcollapse.measuring.classifier import Search, place_of
from neuralcollapse.measuring.head import ITSELF, WAYS_OUT, Head, classes_last, of_relation
from neuralcollapse.measuring.hooks import Side, Tap, clean_names
from neuralcollapse.measuring.passes import Batches
from neuralcollapse.measuring.relations import Weights, relate, returned
from neuralcollapse.measuring.report import NO_CLASSIFIER

# The label that PyTorch's losses leave out by default, and Transformers' collators pad with.
_IGNORED = -100
# Batches whose logits are compared on many examples; on later ones it is one.
_COMPARED = 2

Array = np.ndarray[Any, Any]
Layer = str | nn.Module
Features = Layer | tuple[Layer, str]


class Examples:
    """Which positions of a batch are examples, and their labels.

    Args:
        labels: (n,), or one for each position, (n, T) or (n, H, W); those of −100 are left out.
        next_token: the label of a position in a sequence is that of the next one.
        labelled: False where labels say nothing: all positions are examples, of class 0.
    """

    def __init__(self, labels: Tensor, next_token: bool = False, labelled: bool = True) -> None:
        self.shape, self._next, self._labelled, self._given = labels.shape, next_token, labelled, labels
        labels = (labels[..., 1:] if next_token else labels).flatten()
        kept = labels != _IGNORED
        self._kept = None if not labelled or bool(kept.all()) else kept
        self.labels = labels if self._kept is None else labels[self._kept]

    def of(self, features: Tensor) -> Tensor:
        """(examples, p) of (…, p) features, one for each label.

        Raises:
            InputError: they are not one for each label.
        """
        if features.ndim == 2 and self._next:
            shape = tuple(features.shape)
            raise InputError(f"next_token=True needs features of shape (batch, length, features), got {shape}")
        if features.shape[:-1] != self.shape:
            if (features.ndim == 2 and len(self.shape) < 2) or features.shape[:-1].numel() != self.shape.numel():
                raise self._misfit(features)
            features = features.reshape(*self.shape, features.shape[-1])
        if self._next:
            features = features[..., :-1, :]
        features = features.reshape(-1, features.shape[-1])
        return features if self._kept is None else features[self._kept.to(features.device)]

    def _misfit(self, features: Tensor) -> InputError:
        shape, got = tuple(features.shape[:-1]), tuple(self.shape)
        if features.ndim == 2:
            try:
                check_labels(self._given, len(features), torch.iinfo(torch.int64).max)
            except InputError as error:
                return error
        return InputError(f"expected a label for each position, {shape}, got shape {got}")


@dataclass(frozen=True)
class Choice:
    """Which layer is measured, as the caller names it: options of :func:`neuralcollapse.measure`."""

    layer: Layer | None = None
    features: Features | None = None
    weight: Tensor | Array | None = None
    bias: Tensor | Array | None = None
    num_classes: int | None = None

    def __post_init__(self) -> None:
        if self.layer is not None and self.features is not None:
            raise InputError(f"expected layer= or features=, got both, {shown(self.layer)} and {shown(self.features)}")
        if self.weight is not None and self.features is None:
            raise InputError("expected features= with weight=, the module whose output they are, got weight= alone")
        if self.bias is not None and self.weight is None:
            raise InputError("expected weight= with bias=, got bias= alone")
        if self.num_classes is not None and (self.features is None or self.weight is not None):
            raise InputError("expected num_classes= only where features= are measured without a classifier")
        check_num_classes(self.num_classes)

    @property
    def weights(self) -> Weights | None:
        """The classifier given."""
        if self.weight is None:
            return None
        weight = as_tensor(self.weight, "weight").detach()
        bias = None if self.bias is None else as_tensor(self.bias, "bias").detach()
        if weight.ndim != 2 or not weight.is_floating_point():
            got = f"{tuple(weight.shape)} of {weight.dtype}"
            raise InputError(f"expected a floating classifier weight of shape (C, p), got {got}")
        check_classifier(weight, bias, *weight.shape)
        return Weights(weight, bias)

    def point(self) -> tuple[Layer, Side]:
        """The module of ``features=``, and whether they are what it is given or what it gives."""
        if not isinstance(self.features, tuple):
            assert self.features is not None
            return self.features, "output"
        if len(self.features) != 2 or self.features[1] not in ("input", "output"):
            raise InputError(f"expected features= to be a module, or (module, 'input'), got {self.features!r}")
        return self.features[0], self.features[1]  # type: ignore[return-value]


def check_num_classes(number: int | None) -> None:
    """Raise unless it is None or an integer from 2 on."""
    if number is not None:
        as_count(number, "num_classes", least=2)


class Stages(Protocol):
    """Other layers that are read in the same pass."""

    def placed(self) -> AbstractContextManager[object]:
        """With their hooks on."""

    def take(self, examples: Examples, head: Head) -> dict[str, Tensor]:
        """By name the (examples, p) features of the pass just made."""

    def notes_of(self, name: str) -> tuple[str, ...]:
        """What a reader of the layer's numbers must know."""


class Reader:
    """(features by layer, labels) of each batch.

    Args:
        model: in eval mode, see :func:`neuralcollapse.measuring.hooks.evaluation`.
        choice: what the caller says of the layer.
        next_token: see :class:`Examples`.
        stages: other layers to read in the same pass.

    Attributes:
        head: what is measured, once a batch has been read.
        network: (correct, examples) of what the network itself returns, where the classifier is not known to give it.
    """

    def __init__(
        self, model: nn.Module, choice: Choice, next_token: bool = False, stages: Stages | None = None
    ) -> None:
        self._model, self._choice, self._stages = model, choice, stages
        self._next = as_switch(next_token, "next_token")
        self._modules = clean_names(model)
        self.head: Head | None = None
        self.network = [0, 0]
        self.empty = True
        self._compared = 0
        self._given = choice.weights
        self._place = ""
        self._side: Side = "input"
        if choice.features is not None:
            layer, self._side = choice.point()
            self._place = place_of(self._modules, layer, "features")

    @property
    def classes(self) -> int | None:
        """C, where a classifier or the caller tells it."""
        if self.head is not None and self.head.weights is not None:
            return len(self.head.weights.weight)
        return self._choice.num_classes

    def notes_of(self, name: str) -> tuple[str, ...]:
        """What must be known to read a layer's numbers."""
        if self.head is not None and name == self.head.name:
            return self.head.notes
        return () if self._stages is None else self._stages.notes_of(name)

    def share_head(self, source: int) -> None:
        """Take the classifier of the process ``source``, where this one has seen no data."""
        shared: list[Any] = [None if self.head is None else self.head.moved(torch.device("cpu"))]
        dist.broadcast_object_list(shared, src=source)
        if self.head is None:
            device = next((each.device for each in self._model.parameters()), torch.device("cpu"))
            self.head = shared[0].moved(device)

    def add_counts_of_all(self) -> None:
        """Sum ``network`` over the processes."""
        counts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(counts, self.network)
        self.network = [sum(column) for column in zip(*counts, strict=True)]

    def batches(self, batches: Batches) -> Generator[tuple[dict[str, Tensor], Tensor]]:
        """Run each batch, and give what was read of it; to be closed, so that no hook is left after an error."""
        passes = iter(batches)
        while True:
            # the search watches until the layer is known, then one tap takes its place
            searched = self.head is None and self._choice.features is None
            search = Search(self._model, self._choice.layer) if searched else None
            with self._tap().placed() if search is None else search.placed() as watching, _placed(self._stages):
                for labels, output in passes:
                    self.empty = False
                    read = self._read(watching, labels, output, batches.labelled)
                    if read is not None:
                        yield read
                    if search is not None and self.head is not None:
                        break
                else:
                    return

    def _tap(self) -> Tap:
        if self.head is None:
            return Tap(self._model, self._modules[self._place], self._place, self._side)
        return Tap(self._model, self._modules[self.head.place], self.head.name, self.head.side, self.head.call)

    def _read(
        self, watching: Search | Tap, labels: Tensor, output: Any, labelled: bool
    ) -> tuple[dict[str, Tensor], Tensor] | None:
        left: Tensor | None
        if isinstance(watching, Search):
            if not labels.numel():
                watching.begin()
                return None
            self.head, entered, left = watching.settle(output, labels)
        else:
            entered, left = watching.take()
        if self.head is None:
            self.head = self._of_features(entered, output, labels)
        head = self.head
        features = head.features(entered, left, output)
        examples = Examples(
            labels if labelled else features.new_zeros(features.shape[:-1]), self._next and labelled, labelled
        )
        rows = examples.of(features)
        check_features(rows)
        found = examples.labels.to(rows.device)
        if labelled:
            self._check_labels(found, len(rows))
        head.check(features, left, output, 64 if self._compared < _COMPARED else 1)
        self._compared += 1
        if labelled and head.weights is not None and head.relation is None:
            self._count(output, examples)
        read = {} if self._stages is None else self._stages.take(examples, head)
        # a copy, as features are: a loader may write its next batch into the same memory
        return {**read, head.name: rows}, found.to(torch.int64, copy=True)

    def _check_labels(self, labels: Tensor, examples: int) -> None:
        assert self.head is not None
        classes = self.classes
        if classes == 1:
            raise InputError(
                f"expected a classifier with a row for each class, {self.head.name!r} gives one logit: give "
                f"features=({self.head.place!r}, 'input'), and weight= of two rows, −w/2 and w/2, if the classifier is "
                "to be measured too"
            )
        most = torch.iinfo(torch.int64).max
        if self.head.by_labels and classes is not None:
            check_labels(labels, examples, most)
            if labels.numel() and int(labels.max()) >= classes:
                raise InputError(
                    f"expected labels in 0..{classes - 1}, as of the first batch, by which {self.head.target!r} of "
                    f"{self.head.name!r} was taken for the logits among what the network returns, got "
                    f"{int(labels.max())}: {WAYS_OUT}"
                )
        check_labels(labels, examples, most if classes is None else classes)

    def _of_features(self, entered: Tensor, output: Any, labels: Tensor) -> Head:
        """What ``features=`` and ``weight=`` name, with what the network's output is of it."""
        head = Head(f"{self._side} of {self._place or ITSELF}", self._place, self._side)
        ways = [first for first in (False, True) if entered.ndim > 2 or not first]
        if self._given is None:
            ways = [way for way in ways if classes_last(entered, way).shape[:-1].numel() == labels.numel()]
            if len(ways) != 1:
                shape = tuple(entered.shape)
                raise InputError(
                    f"expected the {head.name} to be (n, p) features, or a row for each label, got shape {shape}: "
                    "name a module after the positions are pooled"
                )
            return replace(head, channels_first=ways[0], notes=(NO_CLASSIFIER,))
        dim = self._given.weight.shape[1]
        ways = [way for way in ways if classes_last(entered, way).shape[-1] == dim]
        if not ways:
            raise InputError(
                f"expected the {head.name} to have the {dim} features of weight=, got {tuple(entered.shape)}"
            )
        # a network that computes in bfloat16 and returns float32 shows in no type: the coarser comparison comes second
        for error in (0.0, 4.0 * torch.finfo(torch.bfloat16).eps):
            for weights in (self._given, self._given.cosine()):
                for way in ways:
                    logits = weights.logits(classes_last(entered, way))
                    for target in returned(output):
                        relation = relate(logits, target.tensor, error)
                        if relation is not None:
                            found = replace(head, channels_first=way, error=error)
                            return of_relation(found, weights, relation, target.name)
        note = "W h + b of the weight given is not what the network returns"
        return replace(head, channels_first=ways[0], weights=self._given, notes=(note,))

    def _count(self, output: Any, examples: Examples) -> None:
        """Count what the network's own output gets right."""
        for each in returned(output):
            for channels_first in (False, True):
                logits = classes_last(each.tensor, channels_first)
                if logits.ndim > 1 and logits.shape[:-1].numel() == examples.shape.numel():
                    decided = examples.of(logits.argmax(dim=-1, keepdim=True).float())[:, 0]
                    self.network[0] += int((decided == examples.labels.to(decided)).sum())
                    self.network[1] += len(decided)
                    return


def _placed(stages: Stages | None) -> AbstractContextManager[object]:
    return nullcontext() if stages is None else stages.placed()
