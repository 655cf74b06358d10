"""measure: a model and its data, or features and a classifier, to a Report."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralcollapse._checks import (
    InputError,
    as_classifier,
    as_labels,
    as_number,
    as_tensor,
    check_classifier,
    check_features,
)
from neuralcollapse.measuring.engine import about_reference, classes_of, read_all, tally_of
from neuralcollapse.measuring.passes import Tally
from neuralcollapse.measuring.preparation import innermost, observed
from neuralcollapse.measuring.reading import Choice, Features, Layer, Reader, check_num_classes
from neuralcollapse.measuring.report import NO_CLASSIFIER, Report
from neuralcollapse.metrics.collapse import nc1, nc2, nc3
from neuralcollapse.metrics.mse import decompose_mse
from neuralcollapse.metrics.registry import chosen, compute_metrics
from neuralcollapse.metrics.signal_to_noise import snr_singular_values
from neuralcollapse.moments.class_moments import ClassMoments, Weighting, require_moments


def measure_features(
    features: Tensor | np.ndarray[Any, Any],
    labels: Tensor | np.ndarray[Any, Any],
    weight: Tensor | np.ndarray[Any, Any] | None = None,
    bias: Tensor | np.ndarray[Any, Any] | None = None,
    *,
    num_classes: int | None = None,
    layer: str = "features given",
    weight_decay: float = 0.0,
    weighting: Weighting = "example",
    metrics: str | Sequence[str] | None = "default",
    ood: Tensor | np.ndarray[Any, Any] | None = None,
    reference: ClassMoments | None = None,
) -> Report:
    """Measure features that are already in memory.

    Args:
        features: (n, p) that enter the last layer, any floating type; labels: (n,) integers.
        weight: (C, p) of the last layer, which also says how many classes there are; bias: (C,) or None. Without a
            weight, what needs a classifier is None in the report.
        num_classes: C where there is no weight; by default one more than the largest label.
        layer: what the report calls the layer.
        weight_decay: λ of the paper's loss, for the decomposition; 0 because features alone do not tell it.
        weighting: see :class:`ClassMoments`.
        metrics: later metrics to add, by name or ``"all"`` (see :mod:`neuralcollapse.metrics.registry`).
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
    check_num_classes(num_classes)
    weight_decay = as_number(weight_decay, "weight decay")
    features, labels = as_tensor(features, "features"), as_labels(labels)
    weight = None if weight is None else as_tensor(weight, "weight")
    bias = None if bias is None else as_tensor(bias, "bias")
    check_features(features)
    if weight is None:
        if bias is not None:
            raise InputError("expected weight with bias, got bias alone")
        classes = classes_of(labels) if num_classes is None else num_classes
    else:
        if weight.ndim != 2:
            raise InputError(f"expected a classifier weight of shape (C, p), got {tuple(weight.shape)}")
        classes = len(weight)
        if num_classes not in (None, classes):
            raise InputError(f"expected num_classes = {classes}, the rows of the weight, got {num_classes}")
        check_classifier(weight, bias, classes, features.shape[1])
    own = ClassMoments(classes, weighting=weighting)
    own.update(features, labels)
    moments, centres = about_reference(own, reference)
    tally = tally_of(centres, weight, bias)
    tally.add(features, labels)
    ood_mean = None
    if ood is not None:
        outside = as_tensor(ood, "ood")
        check_features(outside, features.shape[1])
        ood_mean = outside.double().mean(dim=0)
    return make_report(
        moments,
        weight,
        bias,
        weight_decay=weight_decay,
        metrics=metrics,
        ood_mean=ood_mean,
        tally=tally,
        own=own,
        layer=layer,
        notes=() if weight is not None else (NO_CLASSIFIER,),
    )


def measure(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layer: Layer | None = None,
    features: Features | None = None,
    weight: Tensor | np.ndarray[Any, Any] | None = None,
    bias: Tensor | np.ndarray[Any, Any] | None = None,
    num_classes: int | None = None,
    weight_decay: float = 0.0,
    weighting: Weighting = "example",
    device: torch.device | str | None = None,
    memory_budget: int = 4 << 30,
    metrics: str | Sequence[str] | None = "default",
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

    The classifier is found by comparing: it is the layer whose output is what the network returns and whose output is
    W h + b of its input h, both checked on the first batches and, on one example, on every later one. The report names
    it. Where no layer is that, or more than one may be, an error says which ran and what to do. Several threads may
    measure one model; they wait for one another.

    Args:
        model: any module that returns logits, alone or among other tensors.
        loader: batches of (inputs, labels), a third entry being left out; or dictionaries and data classes with
            ``labels`` or ``label``, whose rest the model takes by keyword, without entries it does not take. Whatever
            can be moved in them is moved, the rest is passed on. Give it training data, unaugmented, as the paper does.
            Generators of the loader, its samplers, data set and transforms are put back; state of another kind, such
            as a sampler's own counter, is not.
        layer: the classifier or its name, instead of finding it: any module whose input is the features and whose
            output is W h + b, or a cosine classifier. Its output need not be the network's; the report then says so.
        features: the module whose output is the features, or its name, where no layer is the classifier;
            ``(module, "input")`` where they are what enters it.
        weight, bias: (C, p) and (C,) of the classifier of those ``features``, such as tied embeddings. Without them
            there is none, and what needs one is None in the report.
        num_classes: C where there is no classifier; by default one more than the largest label.
        weight_decay: λ of the paper's loss; SGD decay w on ``MSELoss`` is λ = C·w/2.
        weighting: see :class:`ClassMoments`.
        device: where inputs are sent; by default where the model's first parameter is.
        memory_budget: bytes of features to keep, 4 GiB by default.
        metrics: later metrics to add, by name or ``"all"`` (see :mod:`neuralcollapse.metrics.registry`).
        ood: loader of out-of-distribution data for NC5; its labels, if any, are not looked at.
        reference: ``report.moments`` of the training data: this loader's data, of another split, are then measured
            about their class means. The loss keeps this split's own.
        next_token: the class of a position in a sequence is the label of the next one, as in causal language models.
            Positions labelled −100 are left out in either case.
        distributed: every process of ``torch.distributed`` calls this with its own shard of the data, and each gets
            the report on all of it, or the error of any; numbers of batches may differ. A sampler that repeats examples
            to even the shards out has them counted twice.

    Raises:
        InputError: no classifier or several, no data, labels that do not fit, features that are not finite.
    """
    with observed(model, loader, ood) as inside:
        choice = Choice(innermost(layer), innermost(features), weight, bias, num_classes)
        reports = reports_of(
            inside,
            loader,
            Reader(inside, choice, next_token),
            weight_decay=weight_decay,
            weighting=weighting,
            device=device,
            memory_budget=memory_budget,
            metrics=metrics,
            ood=ood,
            reference=None if reference is None else lambda _: reference,
            distributed=distributed,
        )
    (report,) = reports.values()
    return report


def reports_of(
    model: nn.Module,
    loader: Iterable[Any],
    reader: Reader,
    *,
    metrics: str | Sequence[str] | None,
    weight_decay: float,
    **options: Any,
) -> dict[str, Report]:
    """By name the reports on every layer that ``reader`` reads; options are those of :func:`read_all`."""
    chosen(metrics)
    weight_decay = as_number(weight_decay, "weight decay")
    found = read_all(model, loader, reader, weight_decay=weight_decay, **options)
    reports = {
        name: make_report(
            each.moments,
            each.weight,
            each.bias,
            weight_decay=weight_decay,
            metrics=metrics,
            ood_mean=each.ood_mean,
            tally=each.tally,
            own=each.own,
            layer=name,
            notes=each.notes,
        )
        for name, each in found.items()
    }
    last = next(reversed(reports))
    return {**reports, last: _remarked(reports[last], reader)}


def make_report(
    moments: ClassMoments,
    weight: Tensor | np.ndarray[Any, Any] | None = None,
    bias: Tensor | np.ndarray[Any, Any] | None = None,
    *,
    weight_decay: float = 0.0,
    metrics: str | Sequence[str] | None = "default",
    ood_mean: Tensor | np.ndarray[Any, Any] | None = None,
    tally: Tally | None = None,
    own: ClassMoments | None = None,
    layer: str = "features given",
    notes: Sequence[str] = (),
) -> Report:
    """The report that moments and a classifier give.

    Args:
        moments: of the features; weight: (C, p), or None where there is no classifier; bias: (C,) or None.
        weight_decay: λ of the paper's loss.
        metrics: later metrics to add.
        ood_mean: (p,) mean of out-of-distribution features.
        tally: decisions on the examples; None where only moments are there, which leaves out NC4 and the accuracies.
        own: moments about the features' own class means, for the loss, where ``moments`` are about others'.
        layer: what the features are called; notes: what a reader must know of them.

    Raises:
        InputError: a weight or bias that does not fit the moments, a negative λ.
    """
    require_moments(moments)
    dim, own = moments.means.shape[1], moments if own is None else own
    require_moments(own, "own")
    if weight is not None:
        weight, bias = as_classifier(weight, bias, moments.num_classes, dim)
    elif bias is not None:
        raise InputError("expected weight with bias, got bias alone")

    def share(count: int) -> float:
        assert tally is not None
        return count / tally.examples

    # where there is no classifier one stands in for it, and what comes of it is left out
    two = nc2(moments, moments.means.new_ones(moments.num_classes, dim) if weight is None else weight)
    loss = decompose_mse(
        own, own.means.new_zeros(own.num_classes, dim) if weight is None else weight, bias, weight_decay=weight_decay
    )
    if weight is None:
        two = replace(two, equinorm_classifier=None, equiangularity_classifier=None, maximal_angle_classifier=None)
        loss = replace(loss, total=None, ls_perp=None)
    decided = tally if weight is not None else None
    return Report(
        layer=layer,
        notes=tuple(notes),
        num_examples=moments.num_examples,
        num_classes=moments.num_classes,
        classes_present=int(moments.present.sum()),
        dim=dim,
        weighting=moments.weighting,
        accuracy=None if decided is None else share(decided.correct),
        nearest_mean_accuracy=None if tally is None else share(tally.nearest_correct),
        nc1=nc1(moments),
        nc2=two,
        nc3=None if weight is None else nc3(moments, weight),
        nc4_mismatch=None if decided is None else share(decided.mismatches),
        mse=loss,
        snr=snr_singular_values(moments),
        extra=compute_metrics(moments, metrics, weight=weight, ood_mean=ood_mean),
        moments=own,
    )


# A classifier with so many times the classes that labels reach is likely another than the one that was trained on them.
_FAR = 4


def _remarked(report: Report, reader: Reader) -> Report:
    """With what makes a wrong layer likely said in the report and by a warning."""
    notes: list[str] = []
    reached = int(report.moments.present.nonzero().max()) + 1
    if report.nc3 is not None and _FAR * reached <= report.num_classes:
        notes.append(
            f"the classifier {report.layer!r} has {report.num_classes:,} classes, the labels reach only {reached - 1}: "
            "is it the one that was trained on them?"
        )
    correct, examples = reader.network
    if examples and report.accuracy is not None:
        network = correct / examples
        largest = float(report.moments.counts.max()) / report.num_examples
        # three standard deviations above always naming the largest class
        chance = largest + 3.0 * math.sqrt(largest * (1.0 - largest) / report.num_examples)
        if report.accuracy <= chance < network:
            notes.append(
                f"W h + b of {report.layer!r} classifies {report.accuracy:.2%} correctly, which is chance; what the "
                f"network returns {network:.2%}: is it the right layer?"
            )
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=4)
    return replace(report, notes=(*report.notes, *notes)) if notes else report
