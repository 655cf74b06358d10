"""Two passes over a loader, for one layer or several: moments first, then the decisions that NC4 counts.

The decisions need the final class means. Features are kept in memory for them up to a budget; beyond it the network
runs over the loader a second time, and a fingerprint tells whether that pass saw the same examples.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from neuralcollapse._checks import InputError
from neuralcollapse.measuring.batches import examples_repeated, length_of, times_of_labels
from neuralcollapse.measuring.bootstrap import RESAMPLES, Sample, Settings
from neuralcollapse.measuring.confidence import with_intervals
from neuralcollapse.measuring.decision_counts import DecisionCounts
from neuralcollapse.measuring.forward import Batch, FeatureReader
from neuralcollapse.measuring.options import MeasureOptions
from neuralcollapse.measuring.per_class import check_class_names, names_on
from neuralcollapse.measuring.processes import on_all_processes
from neuralcollapse.measuring.report import Report, make_report
from neuralcollapse.metrics.least_squares import least_squares_classifier
from neuralcollapse.moments.blocks import rows_per_block
from neuralcollapse.moments.class_moments import ClassMoments

# The largest relative difference of a fingerprint between two passes over the same examples.
_SAME = 1e-4
# A classifier with so many times the classes that the labels reach was probably not trained on these labels.
_TOO_MANY = 4
# Batches are taken together until they are so many blocks of the moments.
_BLOCKS = 4


def run_passes(
    reader: FeatureReader,
    loader: Iterable[Any],
    options: MeasureOptions,
    notes: tuple[str, ...] = (),
    seen: Counter[int] | None = None,
) -> dict[str, Report]:
    """By name the reports on every layer that the reader reads; the classifier's own layer comes last.

    That layer is measured with the network's classifier, the others with their least-squares ones.

    Args:
        notes: on how the network was prepared, for the reports.
        seen: how often each label came in a pass over the loader that was made for that.
    """
    distributed = options.distributed
    passes = _TwoPasses(reader, loader, options, seen)
    if options.kept:
        on_all_processes(passes.count, distributed)
        passes.choose_classes()
    on_all_processes(passes.first, distributed)
    if distributed:
        passes.share()
    own, head = passes.moments, reader.head
    reader.require_examples(own[head.name].num_examples if head is not None and head.name in own else 0, loader)
    assert head is not None
    classifiers: dict[str, tuple[Tensor | None, Tensor | None]] = {}
    about: dict[str, ClassMoments] = {}
    counts: dict[str, DecisionCounts] = {}
    for name, moments in own.items():
        reference = options.reference_of(name)
        about[name] = moments if reference is None else moments.around(reference)
        if name != head.name:
            classifiers[name] = least_squares_classifier(moments, options.weight_decay)
        else:
            classifiers[name] = (None, None) if head.weights is None else (head.weights.weight, head.weights.bias)
        counts[name] = DecisionCounts(about[name], *classifiers[name], reference=reference)
    on_all_processes(lambda: passes.second(counts), distributed)
    if distributed:
        for decisions in counts.values():
            decisions.all_reduce()
        reader.add_counts_of_all()
    if options.kept:
        passes.require_counted(own[head.name])
    kept = (options.kept.note,) if options.kept else ()
    if distributed and (repeated := examples_repeated(loader)):
        kept = (*kept, f"{repeated} of the examples count twice: the loader's DistributedSampler repeats them")
    if passes.others and options.batch_norm == "re-estimate":
        kept = (*kept, "the loader samples: statistics were re-estimated from other examples than those measured")
    ood_means = {} if options.ood is None else _ood_means(reader, options.ood, own, distributed)
    reports = {
        name: make_report(
            about[name],
            *classifiers[name],
            weight_decay=options.weight_decay,
            metrics=options.metrics,
            ood_mean=ood_means.get(name),
            decisions=counts[name],
            own=moments,
            layer=name,
            notes=(*reader.notes_of(name), *kept, *notes),
            class_names=_names(loader, options, moments.num_classes),
        )
        for name, moments in own.items()
    }
    last = reports[head.name]
    if options.confidence is not None:
        sample = passes.sample(head.name, *classifiers[head.name])
        settings = Settings(options.weighting, options.weight_decay, options.metrics)
        last = with_intervals(last, sample, settings, options.confidence, RESAMPLES, passes.tell_resamples)
    doubts = _doubts(last, reader, whole=not options.kept)
    for doubt in doubts:
        warnings.warn(doubt, UserWarning, stacklevel=3)
    return {**reports, head.name: replace(last, notes=(*last.notes, *doubts))}


def _names(loader: Iterable[Any], options: MeasureOptions, classes: int) -> Sequence[str] | None:
    """The names of the classes, if given, or as many as there are classes on the loader's data set."""
    if options.class_names is not None:
        return options.class_names
    found = names_on(loader)
    return found if found is not None and len(found) == classes else None


def _doubts(report: Report, reader: FeatureReader, whole: bool) -> list[str]:
    """Sentences on what makes it likely that the layer measured is not the classifier of these data.

    Args:
        whole: whether all classes are measured; the network's own accuracy is that of all.
    """
    doubts: list[str] = []
    reached = int(report.moments.present.nonzero().max()) + 1
    if report.nc3 is not None and _TOO_MANY * reached <= report.num_classes:
        doubts.append(
            f"the classifier {report.layer!r} has {report.num_classes:,} classes, the labels reach only {reached - 1}: "
            "is it the one that was trained on them?"
        )
    if whole and reader.network_examples and report.accuracy is not None:
        network = reader.network_correct / reader.network_examples
        largest = float(report.moments.counts.max()) / report.num_examples
        # three standard deviations above the accuracy of always answering the largest class
        chance = largest + 3.0 * math.sqrt(largest * (1.0 - largest) / report.num_examples)
        if report.accuracy <= chance < network:
            doubts.append(
                f"W h + b of {report.layer!r} classifies {report.accuracy:.2%} correctly, which is chance; what the "
                f"network returns {network:.2%}: is it the right layer?"
            )
    return doubts


class _TwoPasses:
    """The first pass makes moments, and keeps features while they fit; the second makes decisions.

    Args:
        before: how often each label came in an earlier pass, if there was one.

    Attributes:
        moments: by layer, about its own class means.
        others: whether the earlier pass saw other examples, though as many.
    """

    def __init__(
        self, reader: FeatureReader, loader: Iterable[Any], options: MeasureOptions, before: Counter[int] | None
    ) -> None:
        self._reader, self._loader, self._options = reader, loader, options
        self._before, self.others = before, False
        self.moments: dict[str, ClassMoments] = {}
        self._seen: dict[str, Fingerprint] = {}
        self._kept: list[tuple[dict[str, Tensor], Tensor]] | None = []
        self._classes = 0
        self._counts = torch.zeros(0, dtype=torch.int64)  # of each class, where few or frequent ones are left out
        self._keeps: Tensor | None = None

    def count(self) -> None:
        """The examples of each class, for which the network does not run."""
        length = length_of(self._loader)
        for number, labels in enumerate(self._reader.labels(self._loader), start=1):
            if labels.numel() and int(labels.max()) >= len(self._counts):
                self._counts = _longer(self._counts, int(labels.max()) + 1)
            self._counts += torch.bincount(labels, minlength=len(self._counts))
            self._tell(number, length, 0)
        present = self._counts.nonzero()[:, 0]
        self._compare(Counter(dict(zip(present.tolist(), self._counts[present].tolist(), strict=True))))

    def _compare(self, labels: Counter[int]) -> None:
        """Raise if the pass before gave more or fewer examples; tell if it gave others.

        A loader that samples, or leaves a last batch out, gives as many others each time, which statistics of batches
        bear; one that gives its batches only once has none left, or a rest.
        """
        before, self._before = self._before, labels
        if before is None:
            return
        if before.total() != labels.total():
            raise InputError(
                f"expected all passes over the loader to give the same examples, got {before.total():,} in one and "
                f"{labels.total():,} in the next: give a loader that can be gone through again, or a list of batches"
            )
        self.others |= before != labels

    def choose_classes(self) -> None:
        """Which classes have so many examples, on all processes together, as the options want."""
        if self._options.distributed:
            found: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(found, self._counts)
            longest = max(map(len, found))
            self._counts = torch.stack([_longer(counts, longest) for counts in found]).sum(dim=0)
        self._keeps = self._options.kept.keeps(self._counts)

    def require_counted(self, moments: ClassMoments) -> None:
        """Raise if the pass that counted saw other examples than the first one."""
        assert self._keeps is not None
        longest = max(len(self._counts), moments.num_classes)
        counted, seen = (_longer(each, longest) for each in (self._counts * self._keeps, moments.counts.cpu()))
        differ = (counted != seen).nonzero()[:, 0].tolist()
        if differ:
            label = differ[0]
            raise InputError(
                f"expected all passes over the loader to give the same examples, class {label} differed "
                f"({int(counted[label])} then {int(seen[label])} examples): turn off sampling"
            )

    def _batches(self, passes: int, found: Counter[int] | None = None) -> Generator[Batch]:
        """What the network gives of each batch, of the classes that are measured; tells the progress after each.

        Args:
            passes: of the network that have ended.
            found: gets how often each label came, where a pass was before.
        """
        length = length_of(self._loader)
        with closing(self._reader.batches(self._loader)) as batches:
            for number, batch in enumerate(batches, start=1):
                if found is not None and self._before is not None:
                    found.update(times_of_labels(batch.labels))
                yield batch if self._keeps is None else self._chosen(batch, self._keeps)
                self._tell(number, length, passes + bool(self._options.kept))

    def _chosen(self, batch: Batch, keeps: Tensor) -> Batch:
        """The examples of the classes that are kept."""
        labels = batch.labels.cpu()
        if not bool((labels < len(keeps)).all()):  # the pass that counted has not seen it
            raise InputError("expected all passes over the loader to give the same examples: turn off sampling")
        which = keeps[labels].to(batch.labels.device)
        features = {name: rows[which.to(rows.device)] for name, rows in batch.features.items()}
        return replace(batch, features=features, labels=batch.labels[which])

    def _tell(self, number: float, of: int | None, stages: int) -> None:
        """Tell that so many batches of a pass are done, after so many stages of all."""
        if self._options.progress is not None and of:
            self._options.progress((stages + min(1.0, number / of)) / self._options.stages)

    def tell_resamples(self, share: float) -> None:
        """Tell that this share of the resamples is done, after all passes."""
        self._tell(share, 1 if length_of(self._loader) else None, self._options.stages - 1)

    def first(self) -> None:
        """Moments of all features, a fingerprint of the examples, and the features themselves while they fit."""
        size, found = 0, Counter[int]()
        with closing(self._batches(0, found)) as batches:
            for layers, labels in _in_blocks(batches):
                self._widen(self._reader.classes or classes_of(labels))
                if self._reader.classes is not None and size == 0:  # the first batch says it at once
                    check_class_names(self._options.class_names, self._reader.classes, exactly=True)
                for name, features in layers.items():
                    if name not in self.moments:
                        self._check_room(name, features.shape[1])
                        self._begin(name)
                    self.moments[name].update(features, labels)
                    size += features.numel() * features.element_size()
                if self._kept is not None:
                    self._kept.append((layers, labels))
                else:
                    self._see(layers, labels)
                if self._kept is not None and size > self._options.memory_budget:
                    if self._options.confidence is not None:
                        raise InputError(
                            f"expected features that fit memory_budget = {self._options.memory_budget:,.0f} bytes, for "
                            "confidence= measures them again and again: raise it, or measure without"
                        )
                    for kept in self._kept:
                        self._see(*kept)
                    self._kept = None
        self._compare(found)

    def _see(self, features: dict[str, Tensor], labels: Tensor) -> None:
        """Take the fingerprint of a batch; where all are kept, which needs none, a tenth of the time is saved."""
        for name, rows in features.items():
            self._seen[name].add(rows, labels)

    def _check_room(self, name: str, dim: int) -> None:
        """Refuse a layer, other than the classifier's, whose p × p scatter is beyond the memory budget."""
        scatters, budget = self._classes if self._options.weighting == "class" else 1, self._options.memory_budget
        need = 8 * dim * dim * scatters
        if need > budget and self._reader.head is not None and name != self._reader.head.name:
            raise InputError(
                f"expected the layer {name!r} to fit memory_budget = {budget:,.0f} bytes, its {dim:,} features need "
                f"{need:,}: use spatial='mean', or raise it"
            )

    def _begin(self, name: str) -> None:
        self.moments[name] = ClassMoments(self._classes, weighting=self._options.weighting)
        self._seen[name] = Fingerprint(self._classes)

    def _widen(self, classes: int) -> None:
        """Make room for more classes than labels have named so far."""
        if classes > self._classes:
            self._classes = classes
            for name, moments in self.moments.items():
                self.moments[name] = _widened(moments, classes)
                self._seen[name].add_classes_up_to(classes)

    def share(self) -> None:
        """Merge what all processes saw; one without data takes the layer that the others found."""
        head = self._reader.head
        found: list[Any] = [None] * dist.get_world_size()
        mine = (None if head is None else head.point, list(self.moments), self._classes, self.others)
        dist.all_gather_object(found, mine)
        self.others = any(others for *_, others in found)
        with_data = [rank for rank, (point, *_) in enumerate(found) if point is not None]
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
            self._reader.share_head(first)
        self._widen(max(classes for _, _, classes, _ in found))
        for name in found[first][1]:
            if name not in self.moments:
                self._begin(name)
            self.moments[name].all_reduce()

    def sample(self, layer: str, weight: Tensor | None, bias: Tensor | None) -> Sample:
        """The features of a layer, to be resampled; with ``confidence`` they are kept."""
        kept = self._kept
        assert kept is not None
        labels = torch.cat([labels for _, labels in kept]).to(torch.int64).cpu()
        return Sample(labels, lambda: (rows[layer] for rows, _ in kept), self._classes, weight, bias)

    def second(self, counts: dict[str, DecisionCounts]) -> None:
        """Decisions on the features kept, or on those of another pass, which must see the same examples."""
        if self._kept is not None:
            for number, (features, labels) in enumerate(self._kept, start=1):
                for name, rows in features.items():
                    counts[name].add(rows, labels)
                of = len(self._kept) if length_of(self._loader) else None
                self._tell(number, of, 1 + bool(self._options.kept))
        else:
            again = {name: Fingerprint(self._classes) for name in self._seen}
            with closing(self._batches(1)) as batches:
                for layers, labels in _in_blocks(batches):
                    for name, rows in layers.items():
                        again[name].add(rows, labels)
                        counts[name].add(rows, labels)
            for name, seen in self._seen.items():
                seen.require_same(again[name])
        for decisions in counts.values():
            decisions.decide_waiting()


def _longer(by_class: Tensor, classes: int) -> Tensor:
    """A tensor with a row a class, for more classes, of which there are no examples: their rows are zeros."""
    return torch.cat([by_class, by_class.new_zeros(classes - len(by_class), *by_class.shape[1:])])


def _in_blocks(batches: Iterable[Batch]) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """(features by layer, labels) of several batches together: batches of 128 one by one take 1.4 times as long."""
    waiting: list[Batch] = []
    room = 0
    for batch in batches:
        if waiting and (room <= 0 or _kinds(batch) != _kinds(waiting[0])):
            yield _together(waiting)
            waiting = []
        if not waiting:
            room = _BLOCKS * min(rows_per_block(rows) for rows in batch.features.values())
        waiting.append(batch)
        room -= len(batch.labels)
    if waiting:
        yield _together(waiting)


def _kinds(batch: Batch) -> list[object]:
    """What has to be the same for batches to be taken together."""
    return [(name, rows.shape[1], rows.dtype, rows.device) for name, rows in batch.features.items()]


def _together(batches: list[Batch]) -> tuple[dict[str, Tensor], Tensor]:
    names = batches[0].features if len(batches) > 1 else ()
    joined = {name: torch.cat([each.features[name] for each in batches]) for name in names}
    return joined or batches[0].features, torch.cat([each.labels for each in batches])


def _widened(moments: ClassMoments, classes: int) -> ClassMoments:
    """The same moments with more classes, of which there are no examples yet."""
    if moments.dim is None:
        return ClassMoments(classes, weighting=moments.weighting)
    state = moments.state_dict()
    for name, tensor in state.items():
        by_class = tensor.ndim > 0 and len(tensor) == moments.num_classes and (name != "scatter" or tensor.ndim == 3)
        if by_class:
            state[name] = _longer(tensor, classes)
    return ClassMoments.from_state_dict(state, weighting=moments.weighting, trusted=True)


def _ood_means(
    reader: FeatureReader, loader: Iterable[Any], layers: Iterable[str], distributed: bool
) -> dict[str, Tensor]:
    """By layer the mean feature of out-of-distribution data."""
    moments = {name: ClassMoments(1, scatter="trace") for name in layers}

    def run() -> None:
        with closing(reader.batches(loader, labelled=False)) as batches:
            for batch in batches:
                for name, features in batch.features.items():
                    try:
                        moments[name].update(features, batch.labels)
                    except InputError as error:
                        raise InputError(f"out-of-distribution data (ood=): {error}") from error

    on_all_processes(run, distributed)
    for each in moments.values():
        if distributed:
            each.all_reduce()
        if not each.num_examples:
            raise InputError("expected out-of-distribution data (ood=) with at least one example, got none")
    return {name: each.means[0] for name, each in moments.items()}


class Fingerprint:
    """What a pass saw, in any order and batches: of each class, the number of examples and a sum of projections."""

    def __init__(self, num_classes: int) -> None:
        # per class: examples, sum of the projections of their features, sum of the projections' sizes
        self._sums = torch.zeros(num_classes, 3, dtype=torch.float64)
        self._direction: Tensor | None = None

    def add(self, features: Tensor, labels: Tensor) -> None:
        """See a batch."""
        if self._direction is None:
            generator = torch.Generator().manual_seed(0)
            self._direction = torch.rand(features.shape[1], generator=generator).to(features.device)
        # Features of 16 bits are projected in float32; in float64 those whose projections float32 can't hold.
        work = features if features.dtype == torch.float64 else features.float()
        with torch.autocast(features.device.type, enabled=False):
            values = (work @ self._direction.to(work.dtype)).double().cpu()
            if not bool(torch.isfinite(values).all()):
                values = (work.double() @ self._direction.double()).cpu()
        rows = torch.stack([torch.ones_like(values), values, values.abs()], dim=1)
        self._sums.index_add_(0, labels.cpu().long(), rows)

    def add_classes_up_to(self, num_classes: int) -> None:
        """Make room for more classes."""
        self._sums = _longer(self._sums, num_classes)

    def require_same(self, other: Fingerprint) -> None:
        """Raise if another pass saw other examples."""
        count, total, size = self._sums.T
        count2, total2, _ = other._sums.T
        # written so that numbers that are not finite differ too
        same = (count == count2) & ((total - total2).abs() <= _SAME * size)
        differ = (~same).nonzero()[:, 0].tolist()
        if differ:
            label = differ[0]
            raise InputError(
                f"expected both passes over the loader to give the same examples, class {label} differed "
                f"({int(count[label])} then {int(count2[label])} examples): turn off augmentation and sampling, or "
                "raise memory_budget so that one pass suffices"
            )


def classes_of(labels: Tensor) -> int:
    """One more than the largest label; 1 for labels that are no classes, which the checks of labels then name."""
    if not labels.numel() or labels.is_floating_point() or labels.is_complex():
        return 1
    return max(int(labels.long().max()), 0) + 1
