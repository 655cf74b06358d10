"""measure: a model and its data, or features and a classifier, to a Report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ._checks import InputError, as_labels, as_tensor, check_classifier, check_features
from ._networks import observed
from .capture import evaluation
from .formulas.collapse import nc1, nc2, nc3
from .formulas.mse import decompose_mse
from .formulas.signal_to_noise import snr_singular_values
from .metrics import chosen, compute_metrics
from .moments import ClassMoments, Weighting
from .passes import Batches, Fingerprint, NoData, Tally, jointly
from .report import Report


def measure_features(
    features: Tensor | np.ndarray[Any, Any],
    labels: Tensor | np.ndarray[Any, Any],
    weight: Tensor | np.ndarray[Any, Any],
    bias: Tensor | np.ndarray[Any, Any] | None = None,
    *,
    weight_decay: float = 0.0,
    weighting: Weighting = "example",
    metrics: str | Sequence[str] = "default",
    ood: Tensor | np.ndarray[Any, Any] | None = None,
    reference: ClassMoments | None = None,
) -> Report:
    """Measure features that are already in memory.

    Args:
        features: (n, p) that enter the last layer, any floating type; labels: (n,) integers.
        weight: (C, p) of the last layer, which also says how many classes there are; bias: (C,) or None.
        weight_decay: λ of the paper's loss, for the decomposition; 0 because features alone do not tell it.
        weighting: see :class:`ClassMoments`.
        metrics: later metrics to add, by name or ``"all"`` (see :mod:`neuralcollapse.metrics`).
        ood: (m, p) features of out-of-distribution data, for NC5.
        reference: moments of the training features: these features, of another split, are then measured about their
            class means. The loss keeps these features' own.

    Raises:
        InputError: shapes or values that do not fit, named.

    Example:
        >>> from neuralcollapse import simplex_etf
        >>> frame = simplex_etf(3, 2)
        >>> features = frame.repeat(2, 1) + 0.01 * torch.tensor([[1.0, 0.0]] * 3 + [[-1.0, 0.0]] * 3)
        >>> measure_features(features, torch.arange(6) % 3, frame).nc4_mismatch
        0.0
    """
    chosen(metrics)
    features, labels, weight = as_tensor(features, "features"), as_labels(labels), as_tensor(weight, "weight")
    bias = None if bias is None else as_tensor(bias, "bias")
    check_features(features)
    if weight.ndim != 2:
        raise InputError(f"expected a classifier weight of shape (C, p), got {tuple(weight.shape)}")
    check_classifier(weight, bias, len(weight), features.shape[1])
    own = ClassMoments(len(weight), weighting=weighting)
    own.update(features, labels)
    moments, centres = _about(own, reference)
    tally = Tally(centres, weight, bias)
    tally.add(features, labels)
    ood_mean = None
    if ood is not None:
        outside = as_tensor(ood, "ood")
        check_features(outside, features.shape[1])
        ood_mean = outside.double().mean(dim=0)
    return make_report(
        moments, weight, bias, weight_decay=weight_decay, metrics=metrics, ood_mean=ood_mean, tally=tally, own=own
    )


def measure(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layer: str | nn.Linear | None = None,
    weight_decay: float = 0.0,
    weighting: Weighting = "example",
    device: torch.device | str | None = None,
    memory_budget: int = 4 << 30,
    metrics: str | Sequence[str] = "default",
    ood: Iterable[Any] | None = None,
    reference: ClassMoments | None = None,
    next_token: bool = False,
    distributed: bool = False,
) -> Report:
    """Measure a classifier on the data a loader gives; the model is left as it was.

    Runs in eval mode without gradients, streams the data once and puts modes, hooks and random states back. Wrappers
    (``torch.compile``, DataParallel, DDP, FSDP) are taken off meanwhile, and weights that FSDP spread over processes
    gathered. Of several threads one at a time measures.
    Features are kept up to ``memory_budget``, because NC4 needs the final class means; beyond it the loader is
    gone through a second time, and an error says so if that pass saw other examples.

    Args:
        model: any module whose logits come from an ``nn.Linear``.
        loader: batches of (inputs, labels), a third entry being left out; or dictionaries and data classes with
            ``labels`` or ``label``, whose rest the model takes by keyword, without entries it does not take. Whatever
            can be moved in them is moved, the rest is passed on. Give it training data, unaugmented, as the paper does.
            Generators of the loader, its samplers, data set and transforms are put back; state of another kind, such
            as a sampler's own counter, is not.
        layer: the classifier or its name; by default the last ``nn.Linear`` that the forward pass executes.
        weight_decay: λ of the paper's loss; SGD decay w on ``MSELoss`` is λ = C·w/2.
        weighting: see :class:`ClassMoments`.
        device: where inputs are sent; by default where the classifier's weights are.
        memory_budget: bytes of features to keep, 4 GiB by default.
        metrics: later metrics to add, by name or ``"all"`` (see :mod:`neuralcollapse.metrics`).
        ood: loader of out-of-distribution data for NC5; its labels, if any, are not looked at.
        reference: ``report.moments`` of the training data: this loader's data, of another split, are then measured
            about their class means. The loss keeps this split's own.
        next_token: the class of a position in a sequence is the label of the next one, as in causal language models.
            Positions labelled −100 are left out in either case.
        distributed: every process of ``torch.distributed`` calls this with its own shard of the data, and each gets
            the report on all of it, or the error of any; numbers of batches may differ. A sampler that repeats examples
            to even the shards out has them counted twice.

    Raises:
        InputError: no classifier, no data, labels that do not fit, features that are not finite.
    """
    chosen(metrics)
    with observed(model, loader, ood) as model, evaluation(model):
        target = torch.device(device) if device is not None else _device_of(model)
        batches = Batches(model, loader, target, next_token=next_token)
        first = jointly(lambda: _first_pass(batches, layer, weighting, memory_budget), distributed)
        if distributed:
            first = _share_classifier(first, model, weighting)
            assert first is not None
            first.moments.all_reduce()
        if first is None:
            raise NoData
        own, classifier = first.moments, first.classifier
        if not own.num_examples:
            raise InputError("expected a loader with at least one example, got only empty batches")
        # copies: weights that were gathered from several processes are taken away when the block is left
        weight = classifier.weight.detach().clone()
        bias = None if classifier.bias is None else classifier.bias.detach().clone()
        moments, centres = _about(own, reference)
        tally = Tally(centres, weight, bias)
        jointly(lambda: _second_pass(batches, first, tally), distributed)
        if distributed:
            tally.all_reduce()
        ood_mean = (
            None if ood is None else _mean_of(Batches(model, ood, target, labelled=False), classifier, distributed)
        )
    return make_report(
        moments, weight, bias, weight_decay=weight_decay, metrics=metrics, ood_mean=ood_mean, tally=tally, own=own
    )


def make_report(
    moments: ClassMoments,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    weight_decay: float = 0.0,
    metrics: str | Sequence[str] = "default",
    ood_mean: Tensor | None = None,
    tally: Tally | None = None,
    own: ClassMoments | None = None,
) -> Report:
    """The report that moments and a classifier give.

    Args:
        moments: of the features; weight: (C, p); bias: (C,) or None.
        weight_decay: λ of the paper's loss.
        metrics: later metrics to add.
        ood_mean: (p,) mean of out-of-distribution features.
        tally: counts over the examples; without it NC4 and the accuracies are None.
        own: the moments about the features' own means, for the loss, where ``moments`` are about others.

    Raises:
        InputError: what does not fit, named.
    """
    check_classifier(weight, bias, moments.num_classes, moments.means.shape[1])
    own = moments if own is None else own

    def share(count: int) -> float:
        assert tally is not None
        return count / tally.examples

    return Report(
        num_examples=moments.num_examples,
        num_classes=moments.num_classes,
        classes_present=int(moments.present.sum()),
        dim=moments.means.shape[1],
        weighting=moments.weighting,
        accuracy=None if tally is None else share(tally.correct),
        nearest_mean_accuracy=None if tally is None else share(tally.nearest_correct),
        nc1=nc1(moments),
        nc2=nc2(moments, weight),
        nc3=nc3(moments, weight),
        nc4_mismatch=None if tally is None else share(tally.mismatches),
        mse=decompose_mse(own, weight, bias, weight_decay=weight_decay),
        snr=snr_singular_values(moments),
        extra=compute_metrics(moments, metrics, weight=weight, ood_mean=ood_mean),
        moments=own,
    )


def _about(own: ClassMoments, reference: ClassMoments | None) -> tuple[ClassMoments, ClassMoments]:
    """(moments about the reference's class means, the moments whose means decide NC4)."""
    return (own, own) if reference is None else (own.around(reference), reference)


@dataclass
class _Pass:
    """What the first pass over the data leaves."""

    classifier: nn.Linear
    moments: ClassMoments
    seen: Fingerprint
    kept: list[tuple[Tensor, Tensor]] | None


def _first_pass(
    batches: Batches, layer: str | nn.Linear | None, weighting: Weighting, memory_budget: int
) -> _Pass | None:
    """Moments of all features, and the features while they fit; None without data."""
    done: _Pass | None = None
    size = 0
    for features, labels, classifier in batches.features(layer):
        if done is None:
            done = _empty_pass(classifier, weighting)
        done.moments.update(features, labels)
        done.seen.add(features, labels)
        size += features.numel() * features.element_size()
        if done.kept is not None and size <= memory_budget:
            done.kept.append((features, labels))
        else:
            done.kept = None
    return done


def _empty_pass(classifier: nn.Linear, weighting: Weighting) -> _Pass:
    classes = classifier.out_features
    return _Pass(classifier, ClassMoments(classes, weighting=weighting), Fingerprint(classes), [])


def _second_pass(batches: Batches, first: _Pass, tally: Tally) -> None:
    """NC4 over the features kept, or over another pass that must see the same."""
    if first.kept is not None:
        for features, labels in first.kept:
            tally.add(features, labels)
        tally.settle()
        return
    again = Fingerprint(first.classifier.out_features)
    for features, labels, _ in batches.features(first.classifier):
        again.add(features, labels)
        tally.add(features, labels)
    tally.settle()
    first.seen.require_same(again)


def _share_classifier(mine: _Pass | None, model: nn.Module, weighting: Weighting) -> _Pass:
    """The pass itself; a process that saw no data takes the classifier that the others found."""
    linear = {module: name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    names: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(names, None if mine is None else linear.get(mine.classifier))
    if mine is not None:
        return mine
    name = next((name for name in names if name is not None), None)
    if name is None:
        raise NoData
    found = next(module for module, its_name in linear.items() if its_name == name)
    return _empty_pass(found, weighting)


def _mean_of(batches: Batches, classifier: nn.Linear, distributed: bool) -> Tensor:
    """The mean feature of unlabelled data."""
    moments = ClassMoments(1, scatter="trace")

    def stream() -> None:
        for features, labels, _ in batches.features(classifier):
            moments.update(features, labels)

    jointly(stream, distributed)
    if distributed:
        moments.all_reduce()
    if not moments.num_examples:
        raise InputError("expected out-of-distribution data with at least one batch, got none")
    return moments.means[0]


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
