"""One engine for all measuring from a network: two passes over a loader, for one layer or several."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from neuralcollapse._checks import InputError, as_device, as_number, as_switch
from neuralcollapse.measuring.head import Head
from neuralcollapse.measuring.hooks import evaluation
from neuralcollapse.measuring.passes import Batches, Fingerprint, NoData, Tally, jointly
from neuralcollapse.measuring.reading import Reader
from neuralcollapse.metrics.least_squares import least_squares_classifier
from neuralcollapse.moments.class_moments import ClassMoments, Weighting


@dataclass(frozen=True)
class Found:
    """What a report on one layer is made of.

    Attributes:
        moments: about the class means they are measured from; own: about the features' own, which differ where there
            is a reference.
        weight, bias: of the classifier, or None; tally: its decisions.
    """

    moments: ClassMoments
    own: ClassMoments
    weight: Tensor | None
    bias: Tensor | None
    tally: Tally
    ood_mean: Tensor | None
    notes: tuple[str, ...]


def read_all(
    model: nn.Module,
    loader: Iterable[Any],
    reader: Reader,
    *,
    weight_decay: float,
    weighting: Weighting,
    device: torch.device | str | None,
    memory_budget: float,
    ood: Iterable[Any] | None,
    reference: Callable[[str], ClassMoments] | None,
    distributed: bool,
    check_room: Callable[[str, int, int], None] | None = None,
) -> dict[str, Found]:
    """By name what ``reader`` finds at each layer; the classifier's own layer comes last.

    Args:
        reader: of the model; its classifier's layer has the network's own classifier, the others least-squares ones.
        reference: by layer the moments to measure about.
        check_room: is told a layer's name, features and classes before its scatter is made, to refuse it.
        others: of :func:`neuralcollapse.measure`.
    """
    memory_budget = as_number(memory_budget, "memory_budget")
    distributed = as_switch(distributed, "distributed")
    with evaluation(model):
        target = as_device(device) if device is not None else _device_of(model)
        batches = Batches(model, loader, target)
        passed = jointly(lambda: _first_pass(reader, batches, weighting, memory_budget, check_room), distributed)
        if distributed:
            _share(passed, reader, weighting)
        head, own = reader.head, passed.moments
        if head is None and reader.empty:
            raise NoData
        if head is None or not own[head.name].num_examples:
            raise InputError("expected a loader with at least one example, got only empty batches")
        around = {name: about_reference(m, None if reference is None else reference(name)) for name, m in own.items()}
        classifiers = {name: _classifier(name, own[name], head, weight_decay) for name in own}
        tallies = {name: tally_of(around[name][1], *classifiers[name]) for name in own}
        jointly(lambda: _second_pass(reader, batches, passed, tallies), distributed)
        if distributed:
            for tally in tallies.values():
                tally.all_reduce()
            reader.add_counts_of_all()
        means = {} if ood is None else _ood_means(reader, Batches(model, ood, target, labelled=False), own, distributed)
    return {
        name: Found(moments, own[name], *classifiers[name], tallies[name], means.get(name), reader.notes_of(name))
        for name, (moments, _) in around.items()
    }


def about_reference(own: ClassMoments, reference: ClassMoments | None) -> tuple[ClassMoments, ClassMoments]:
    """(moments about the reference's class means, the moments whose means decide NC4)."""
    return (own, own) if reference is None else (own.around(reference), reference)


def tally_of(centres: ClassMoments, weight: Tensor | None, bias: Tensor | None) -> Tally:
    """Without a classifier only the decisions of the nearest class mean are of use."""
    return Tally(centres, centres.means.new_zeros(centres.means.shape) if weight is None else weight, bias)


def _classifier(
    name: str, moments: ClassMoments, head: Head, weight_decay: float
) -> tuple[Tensor | None, Tensor | None]:
    """(weight, bias): the network's at its own layer, the least-squares ones elsewhere."""
    if name != head.name:
        return least_squares_classifier(moments, weight_decay)
    return (None, None) if head.weights is None else (head.weights.weight, head.weights.bias)


@dataclass
class _Pass:
    """What the first pass over the data leaves, by layer."""

    moments: dict[str, ClassMoments] = field(default_factory=dict)
    seen: dict[str, Fingerprint] = field(default_factory=dict)
    kept: list[tuple[dict[str, Tensor], Tensor]] | None = field(default_factory=list)
    classes: int = 0

    def widen(self, classes: int) -> None:
        """Make room for more classes than labels have named so far."""
        if classes > self.classes:
            self.classes = classes
            for name, moments in self.moments.items():
                self.moments[name] = _widened(moments, classes)
                self.seen[name].widen(classes)


def _first_pass(
    reader: Reader,
    batches: Batches,
    weighting: Weighting,
    memory_budget: float,
    check_room: Callable[[str, int, int], None] | None,
) -> _Pass:
    """Moments of all features, and the features while they fit."""
    done = _Pass()
    size = 0
    with closing(reader.batches(batches)) as stream:
        for features, labels in stream:
            done.widen(reader.classes or classes_of(labels))
            for name, values in features.items():
                if name not in done.moments:
                    if check_room is not None:
                        check_room(name, values.shape[1], done.classes)
                    done.moments[name] = ClassMoments(done.classes, weighting=weighting)
                    done.seen[name] = Fingerprint(done.classes)
                done.moments[name].update(values, labels)
                done.seen[name].add(values, labels)
                size += values.numel() * values.element_size()
            if done.kept is not None and size <= memory_budget:
                done.kept.append((features, labels))
            else:
                done.kept = None
    return done


def _second_pass(reader: Reader, batches: Batches, first: _Pass, tallies: dict[str, Tally]) -> None:
    """NC4 over the features kept, or over another pass that must see the same."""
    again = {name: Fingerprint(first.classes) for name in first.seen}
    kept = first.kept
    with closing(reader.batches(batches) if kept is None else _each(kept)) as stream:
        for features, labels in stream:
            for name, values in features.items():
                if kept is None:
                    again[name].add(values, labels)
                tallies[name].add(values, labels)
    for name, tally in tallies.items():
        tally.settle()
        if kept is None:
            first.seen[name].require_same(again[name])


def _each(kept: list[tuple[dict[str, Tensor], Tensor]]) -> Generator[tuple[dict[str, Tensor], Tensor]]:
    yield from kept


def _widened(moments: ClassMoments, classes: int) -> ClassMoments:
    """The same with more classes, of which there are no examples yet."""
    if moments.dim is None:
        return ClassMoments(classes, weighting=moments.weighting)
    added = classes - moments.num_classes
    state = moments.state_dict()
    for name, tensor in state.items():
        by_class = tensor.ndim > 0 and len(tensor) == moments.num_classes and (name != "scatter" or tensor.ndim == 3)
        if by_class:
            state[name] = torch.cat([tensor, tensor.new_zeros(added, *tensor.shape[1:])])
    return ClassMoments.from_state_dict(state, weighting=moments.weighting, trusted=True)


def _share(mine: _Pass, reader: Reader, weighting: Weighting) -> None:
    """Merge what all processes saw; one that saw no data takes the layer that the others found."""
    names = list(mine.moments)
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, (None if reader.head is None else reader.head.point, names, mine.classes))
    with_data = [rank for rank, (point, _, _) in enumerate(found) if point is not None]
    if not with_data:
        return
    first = with_data[0]
    for rank in with_data[1:]:
        if found[rank][:2] != found[first][:2]:
            raise InputError(
                f"expected all processes to measure the same layers, process {first} found "
                f"{', '.join(found[first][1])} and process {rank} {', '.join(found[rank][1])}: name them"
            )
    if len(with_data) < len(found):
        reader.share_head(first)
    mine.widen(max(classes for _, _, classes in found))
    for name in found[first][1]:
        if name not in mine.moments:
            mine.moments[name] = ClassMoments(mine.classes, weighting=weighting)
            mine.seen[name] = Fingerprint(mine.classes)
        mine.moments[name].all_reduce()


def _ood_means(reader: Reader, batches: Batches, known: Iterable[str], distributed: bool) -> dict[str, Tensor]:
    """By layer the mean feature of unlabelled data."""
    means = {name: ClassMoments(1, scatter="trace") for name in known}

    def stream() -> None:
        with closing(reader.batches(batches)) as passes:
            for features, labels in passes:
                for name, values in features.items():
                    means[name].update(values, labels)

    jointly(stream, distributed)
    for moments in means.values():
        if distributed:
            moments.all_reduce()
        if not moments.num_examples:
            raise InputError("expected out-of-distribution data with at least one batch, got none")
    return {name: moments.means[0] for name, moments in means.items()}


def classes_of(labels: Tensor) -> int:
    """One more than the largest label; 1 where that can't be, which the checks of labels then name."""
    if not labels.numel() or labels.is_floating_point() or labels.is_complex():
        return 1
    return max(int(labels.long().max()), 0) + 1


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
