"""Forward passes over a loader: the features and labels of each batch, checked."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from neuralcollapse._checks import InputError, check_features, check_labels
from neuralcollapse.measuring.batches import (
    LARGEST_LABEL,
    Call,
    Examples,
    PreparedLoader,
    calls,
    device_of,
    no_batches,
    run,
)
from neuralcollapse.measuring.classifier import ClassifierSearch, name_of
from neuralcollapse.measuring.head import ITSELF, WAYS_OUT, ClassifierHead, Weights, classes_last, with_classifier
from neuralcollapse.measuring.hooks import FeatureHook
from neuralcollapse.measuring.layer_outputs import LayerOutputs
from neuralcollapse.measuring.options import MeasureOptions
from neuralcollapse.measuring.preparation import unwrapped
from neuralcollapse.measuring.relations import relate, returned
from neuralcollapse.measuring.report import NO_CLASSIFIER

# In so many batches logits are compared on many examples, in later ones on one.
_COMPARED_BATCHES = 2
_COARSE = "W h + b of the weight given agrees with what the network returns to within 1.6 % only"

# Classes that are counted before any network has said how many there are: half a GiB of counts.
_MOST_COUNTED = 1 << 26


@dataclass(frozen=True)
class Batch:
    """What one forward pass gave.

    Attributes:
        features: by layer, (examples, p); the classifier's own layer comes last.
        labels: (examples,); output: what the network returned, where it is kept.
    """

    features: dict[str, Tensor]
    labels: Tensor
    output: Any


class FeatureReader:
    """Runs a network over a loader, and reads the features and labels of each batch.

    Args:
        model: inside ``preparation.prepared``.
        options: which features are read.
        layers: other layers to read in the same pass.
        head: the classifier, if it is known. It is found in the first batch otherwise.
        keep_output: give what the network returned with each batch. The logits of a language model are many times as
            large as its features, and batches may wait for others.

    Attributes:
        head: where the features are read, once a batch was read.
        batches_seen: how many batches there were; left_out_labels: whether any label was −100.
        network_correct, network_examples: the accuracy of what the network returns, counted where it is not known to
            be that of the classifier.
    """

    def __init__(
        self,
        model: nn.Module,
        options: MeasureOptions,
        layers: LayerOutputs | None = None,
        head: ClassifierHead | None = None,
        *,
        keep_output: bool = False,
    ) -> None:
        self._model, self._options, self._layers, self.head = model, options, layers, head
        self._keep_output = keep_output
        self._device = device_of(model) if options.device is None else torch.device(options.device)
        self.batches_seen, self.left_out_labels = 0, False
        self.network_correct, self.network_examples = 0, 0
        self._compared = 0
        given = options.classifier()
        self._weights = None if given is None else Weights(*given)
        self._place, (module, self._side) = "", options.feature_module
        if module is not None:
            self._place = name_of(dict(model.named_modules()), unwrapped(module), "features")

    @property
    def classes(self) -> int | None:
        """C, where a classifier or the caller tells it."""
        if self.head is not None and self.head.weights is not None:
            return len(self.head.weights.weight)
        return self._options.num_classes

    def notes_of(self, name: str) -> tuple[str, ...]:
        """Sentences for the report on a layer."""
        if self.head is not None and name == self.head.name:
            return self.head.notes
        return () if self._layers is None else self._layers.notes_of(name)

    def require_examples(self, number: int, loader: Iterable[Any]) -> None:
        """Raise, with the reason, if the number of examples that the loader gave is 0."""
        if number:
            return
        if not self.batches_seen:
            raise no_batches(loader)
        if self.left_out_labels:
            raise InputError("expected at least one example, all labels are −100, which leaves their examples out")
        raise InputError("expected a loader with at least one example, got only empty batches")

    def share_head(self, source: int) -> None:
        """Take the classifier of the process ``source``, if this one has seen no data."""
        shared: list[Any] = [None if self.head is None else self.head.moved(torch.device("cpu"))]
        dist.broadcast_object_list(shared, src=source)
        if self.head is None:
            self.head = shared[0].moved(device_of(self._model))

    def add_counts_of_all(self) -> None:
        """Sum the counts of what the network returns over the processes."""
        counts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(counts, (self.network_correct, self.network_examples))
        self.network_correct, self.network_examples = (sum(column) for column in zip(*counts, strict=True))

    def labels(self, loader: Iterable[Any]) -> Iterator[Tensor]:
        """(examples,) int64 labels of each batch, for which the network does not run."""
        for call in calls(loader, self._model, torch.device("cpu")):
            assert call.labels is not None
            found = Examples(call.labels, self._options.next_token).labels
            check_labels(found, len(found), _MOST_COUNTED if self.classes is None else self.classes)
            yield found.to(torch.int64)

    def batches(self, loader: Iterable[Any], *, labelled: bool = True) -> Generator[Batch]:
        """Run the network on each batch, and read it; batches without labels may be inputs alone.

        Close the generator, so that no hook is left after an error.
        """
        context = loader.context if isinstance(loader, PreparedLoader) else nullcontext
        remaining = iter(calls(loader, self._model, self._device, labelled=labelled))
        while True:
            # a search watches until the classifier is known, then one tap takes its place
            watching = self._watching()
            with watching.attached(), nullcontext() if self._layers is None else self._layers.attached():
                for call in remaining:
                    self.batches_seen += 1
                    with context():
                        output = run(self._model, call, self.batches_seen - 1)
                    batch = self._read(watching, call, output, labelled)
                    del output  # before the next pass makes another
                    if batch is not None:
                        yield batch
                    if isinstance(watching, ClassifierSearch) and self.head is not None:
                        break
                else:
                    return

    def _watching(self) -> ClassifierSearch | FeatureHook:
        head = self.head
        if head is not None:
            return FeatureHook(self._model, head.place, head.name, head.side, head.call)
        if self._options.features is None:
            return ClassifierSearch(self._model, unwrapped(self._options.layer))
        return FeatureHook(self._model, self._place, self._place, self._side)

    def _read(self, watching: ClassifierSearch | FeatureHook, call: Call, output: Any, labelled: bool) -> Batch | None:
        labels = torch.empty(0) if call.labels is None else call.labels.to(self._device)
        left: Tensor | None
        if isinstance(watching, ClassifierSearch):
            if not labels.numel():
                watching.begin()
                return None
            self.head, entered, left = watching.identify(output, labels)
        else:
            entered, left = watching.captured()
        if self.head is None:
            self.head = self._head_of_features(entered, output, labels)
        head = self.head
        features = head.features(entered, left, output)
        given = labels if labelled else features.new_zeros(features.shape[:-1])
        examples = Examples(given, self._options.next_token and labelled, labelled)
        rows = examples.of(features)
        check_features(rows)
        found = examples.labels.to(rows.device)
        if labelled:
            self.left_out_labels |= examples.left_out
            self._check_labels(found, len(rows))
        head.check(features, left, output, 64 if self._compared < _COMPARED_BATCHES else 1)
        self._compared += 1
        if labelled and head.weights is not None and head.relation is None:
            self._count_network(output, examples)
        others = {} if self._layers is None else self._layers.captured(examples, head)
        # labels are copied, as features are: a loader may write its next batch into the same memory
        kept = output if self._keep_output else None
        return Batch({**others, head.name: rows}, found.to(torch.int64, copy=True), kept)

    def _check_labels(self, labels: Tensor, examples: int) -> None:
        assert self.head is not None
        classes = self.classes
        if classes == 1:
            raise InputError(
                f"expected a classifier with a row for each class, {self.head.name!r} gives one logit: give "
                f"features=({self.head.place!r}, 'input'), and weight= of two rows, −w/2 and w/2, if the classifier is "
                "to be measured too"
            )
        if self.head.by_labels and classes is not None:
            check_labels(labels, examples, LARGEST_LABEL)
            if labels.numel() and int(labels.max()) >= classes:
                raise InputError(
                    f"expected labels in 0..{classes - 1}, as of the first batch, by which {self.head.target!r} of "
                    f"{self.head.name!r} was taken for the logits among what the network returns, got "
                    f"{int(labels.max())}: {WAYS_OUT}"
                )
        check_labels(labels, examples, LARGEST_LABEL if classes is None else classes)

    def _head_of_features(self, entered: Tensor, output: Any, labels: Tensor) -> ClassifierHead:
        """The head that ``features=`` and ``weight=`` name, with what the network's output is of it."""
        head = ClassifierHead(f"{self._side} of {self._place or ITSELF}", self._place, self._side)
        layouts = [channels_first for channels_first in (False, True) if entered.ndim > 2 or not channels_first]
        if self._weights is None:
            layouts = [each for each in layouts if classes_last(entered, each).shape[:-1].numel() == labels.numel()]
            if len(layouts) != 1:
                shape = tuple(entered.shape)
                raise InputError(
                    f"expected the {head.name} to be (n, p) features, or a row for each label, got shape {shape}: "
                    "name a module after the positions are pooled"
                )
            return replace(head, channels_first=layouts[0], notes=(NO_CLASSIFIER,))
        dim = self._weights.weight.shape[1]
        layouts = [each for each in layouts if classes_last(entered, each).shape[-1] == dim]
        if not layouts:
            raise InputError(
                f"expected the {head.name} to have the {dim} features of weight=, got {tuple(entered.shape)}"
            )
        # no type shows that a network computes in bfloat16 and returns float32: a coarser comparison comes second
        for error in (0.0, 4.0 * torch.finfo(torch.bfloat16).eps):
            for weights in (self._weights, self._weights.cosine()):
                for channels_first in layouts:
                    logits = weights.logits(classes_last(entered, channels_first))
                    for target in returned(output):
                        relation = relate(logits, target.tensor, error)
                        if relation is not None:
                            notes = (_COARSE,) if error and not self._is_narrow(entered, target.tensor) else ()
                            found = replace(head, channels_first=channels_first, tolerance=error, notes=notes)
                            return with_classifier(found, weights, relation, target.name)
        note = "W h + b of the weight given is not what the network returns"
        return replace(head, channels_first=layouts[0], weights=self._weights, notes=(note,))

    def _is_narrow(self, *values: Tensor) -> bool:
        """Whether the network, or what it gives, is of a 16-bit type, whose rounding explains a coarse agreement."""
        held = (*values, *self._model.parameters())
        return any(each.is_floating_point() and each.element_size() < 4 for each in held)

    def _count_network(self, output: Any, examples: Examples) -> None:
        """Count the examples that the network's own output classifies correctly."""
        for each in returned(output):
            for channels_first in (False, True):
                logits = classes_last(each.tensor, channels_first)
                if logits.ndim > 1 and logits.shape[:-1].numel() == examples.shape.numel():
                    decided = examples.of(logits.argmax(dim=-1, keepdim=True).float())[:, 0]
                    self.network_correct += int((decided == examples.labels.to(decided)).sum())
                    self.network_examples += len(decided)
                    return
