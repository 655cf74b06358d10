"""measure: a model and its data, or features and a classifier, to a Report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from neuralcollapse._checks import (
    InputError,
    as_count,
    as_labels,
    as_number,
    as_tensor,
    check_classifier,
    check_features,
    check_labels,
    first_bad_row,
    shown,
)
from neuralcollapse.measuring.batch_norm import prepared_with_statistics
from neuralcollapse.measuring.bootstrap import RESAMPLES, Sample, Settings
from neuralcollapse.measuring.confidence import with_intervals
from neuralcollapse.measuring.count_range import CountRange
from neuralcollapse.measuring.decision_counts import DecisionCounts
from neuralcollapse.measuring.engine import classes_of, run_passes
from neuralcollapse.measuring.forward import FeatureReader
from neuralcollapse.measuring.options import MeasureKeywords, MeasureOptions, with_options
from neuralcollapse.measuring.per_class import check_class_names
from neuralcollapse.measuring.report import NO_CLASSIFIER, Report, make_report
from neuralcollapse.metrics.registry import chosen
from neuralcollapse.moments.class_moments import ClassMoments, Weighting


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
    metrics: str | Sequence[str] | None = None,
    ood: Tensor | np.ndarray[Any, Any] | None = None,
    reference: ClassMoments | None = None,
    min_count: int | None = None,
    max_count: int | None = None,
    class_names: Sequence[str] | None = None,
    confidence: float | None = None,
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
        metrics: later metrics to add, by name or ``"all"``; ``nc.METRICS`` lists them.
        ood: (m, p) features of out-of-distribution data, for NC5.
        reference: moments of the training features: these features, of another split, are then measured about their
            class means. The loss and the ranks of the features keep these features' own.
        min_count: leave out classes with fewer examples, and their examples; max_count: those with more. They are then
            classes without examples: the network may still decide for one, the nearest class mean may not.
        class_names: C names, by label, for ``report.per_class``; without a weight there may be more.
        confidence: level of intervals to add, such as 0.95, at the cost of two hundred more reports; see
            :func:`neuralcollapse.confidence_intervals`. A note says where classes have too few examples for them.

    Raises:
        InputError: shapes or values that do not fit, named.

    Example:
        >>> import torch
        >>> from neuralcollapse import simplex_etf
        >>> frame = simplex_etf(3, 2)
        >>> features = frame.repeat(2, 1) + 0.01 * torch.tensor([[1.0, 0.0]] * 3 + [[-1.0, 0.0]] * 3)
        >>> measure_features(features, torch.arange(6) % 3, frame).nc4_mismatch
        0.0
    """
    chosen(metrics)
    if not isinstance(layer, str):
        raise InputError(f"expected layer= to be a name for the report, got {shown(layer)}")
    if num_classes is not None:
        num_classes = as_count(num_classes, "num_classes", least=2)
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
    check_class_names(class_names, classes, exactly=weight is not None)
    notes = () if weight is not None else (NO_CLASSIFIER,)
    if kept := CountRange(min_count, max_count):
        check_labels(labels, len(features), classes)
        which = kept.keeps(torch.bincount(labels.long(), minlength=classes))[labels.long()]
        bad = (~torch.isfinite(features).all(dim=1) & which.to(features.device)).nonzero()
        if len(bad):  # here, where rows still have the numbers that they were given with
            raise InputError(f"expected finite features, got NaN or infinity in row {int(bad[0])}")
        features, labels, notes = features[which.to(features.device)], labels[which], (*notes, kept.note)
    own = ClassMoments(classes, weighting=weighting)
    own.update(features, labels)
    moments = own if reference is None else own.around(reference)
    decisions = DecisionCounts(moments, weight, bias, reference=reference)
    decisions.add(features, labels)
    report = make_report(
        moments,
        weight,
        bias,
        weight_decay=weight_decay,
        metrics=metrics,
        ood_mean=None if ood is None else _ood_mean(ood, features.shape[1]),
        decisions=decisions,
        own=own,
        examples=(features, labels),
        layer=layer,
        notes=notes,
        class_names=class_names,
    )
    if confidence is None:
        return report
    if reference is not None or ood is not None:
        raise InputError("expected confidence= without reference= and ood=, whose own uncertainty is not known")
    sample = Sample.of(features, labels, weight, bias)
    settings = Settings(weighting, weight_decay, metrics)
    return with_intervals(report, sample, settings, confidence, RESAMPLES)


def _ood_mean(ood: Tensor | np.ndarray[Any, Any], dim: int) -> Tensor:
    outside = as_tensor(ood, "ood")
    try:
        check_features(outside, dim)
    except InputError as error:
        raise InputError(f"out-of-distribution data (ood=): {error}") from error
    if not len(outside):
        raise InputError("expected out-of-distribution data (ood=) with at least one example, got none")
    if not bool(outside.isfinite().all()):
        raise InputError(f"expected finite features in ood=, got NaN or infinity in row {first_bad_row(outside)}")
    return outside.double().mean(dim=0)


@with_options
def measure(model: nn.Module, loader: Iterable[Any], **options: Unpack[MeasureKeywords]) -> Report:
    """Measure a classifier on the data a loader gives; the model is left as it was.

    Runs in eval mode without gradients, and puts modes, hooks and random states back. Wrappers
    (``torch.compile``, DataParallel, DDP, FSDP) are taken off meanwhile, and weights that FSDP spread over processes
    are gathered. Threads that measure wait for one another.
    One pass over the loader, if the features fit ``memory_budget``, because NC4 needs the final class means. Otherwise
    the network runs over it a second time, and an error says so if that pass saw other examples;
    ``batch_norm="re-estimate"`` and ``min_count`` each put one more before it, and an error says so if that pass saw
    more or fewer, as of a stream that cannot begin anew.

    The classifier is found by comparing: it is the layer whose output is what the network returns and whose output is
    W h + b of its input h, both checked on the first batches and, on one example, on every later one. The report names
    it. Where no layer is that, or several may be, an error says which ran and what to do.

    Args:
        model: any module that returns logits, alone or among other tensors.
        loader: batches of (inputs, labels), a third entry being ignored; or dictionaries and data classes with
            ``labels`` or ``label``, whose rest the model takes by keyword, without entries it does not take. Tensors
            in them are moved to the device, anything else is passed on. Give it training data, unaugmented, as the
            paper does. Generators of the loader, its samplers, data set and transforms are put back; state of another
            kind, such as a sampler's own counter, is not.
        **options

    Raises:
        InputError: no classifier or several, no data, labels that do not fit, features that are not finite; an unknown
            or impossible option.

    Example:
        >>> import torch
        >>> batches = [(torch.eye(4), torch.tensor([0, 1, 0, 1]))]
        >>> measure(nn.Sequential(nn.Linear(4, 2)), batches, metrics="cdnv").layer
        '0'
    """
    checked = MeasureOptions.of(options, "nc.measure")
    with prepared_with_statistics(model, loader, checked) as ready:
        reader = FeatureReader(ready.model, ready.options)
        (report,) = run_passes(reader, loader, ready.options, ready.notes, ready.seen).values()
    return report
