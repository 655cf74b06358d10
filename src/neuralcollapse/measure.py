"""measure: a model and its data, or features and a classifier, to a Report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ._checks import InputError, check_classifier, check_features, check_labels
from .capture import capture, evaluation, find_classifier
from .formulas.collapse import decisions, nc1, nc2, nc3
from .formulas.mse import decompose_mse
from .formulas.signal_to_noise import snr_singular_values
from .moments import ClassMoments, Weighting
from .report import Report

_CHECK_TOLERANCE = 1e-4


def measure_features(
    features: Tensor | np.ndarray[Any, Any],
    labels: Tensor | np.ndarray[Any, Any],
    weight: Tensor | np.ndarray[Any, Any],
    bias: Tensor | np.ndarray[Any, Any] | None = None,
    *,
    weight_decay: float = 0.0,
    weighting: Weighting = "example",
) -> Report:
    """Measure features that are already in memory.

    Args:
        features: (n, p) that enter the last layer, any floating type; labels: (n,) integers.
        weight: (C, p) of the last layer, which also says how many classes there are; bias: (C,) or None.
        weight_decay: λ of the paper's loss, for the decomposition; 0 because features alone do not tell it.
        weighting: see :class:`ClassMoments`.

    Raises:
        InputError: shapes or values that do not fit, named.

    Example:
        >>> from neuralcollapse import simplex_etf
        >>> frame = simplex_etf(3, 2)
        >>> features = frame.repeat(2, 1) + 0.01 * torch.tensor([[1.0, 0.0]] * 3 + [[-1.0, 0.0]] * 3)
        >>> measure_features(features, torch.arange(6) % 3, frame).nc4_mismatch
        0.0
    """
    features, labels, weight = _tensor(features, "features"), _tensor(labels), _tensor(weight, "weight")
    bias = None if bias is None else _tensor(bias, "bias")
    check_features(features)
    if weight.ndim != 2:
        raise InputError(f"expected a classifier weight of shape (C, p), got {tuple(weight.shape)}")
    check_classifier(weight, bias, len(weight), features.shape[1])
    moments = ClassMoments(len(weight), weighting=weighting)
    moments.update(features, labels)
    tally = _Tally(moments, weight, bias)
    tally.add(features, labels)
    return _report(moments, tally, weight, bias, weight_decay)


def measure(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layer: str | nn.Linear | None = None,
    weight_decay: float = 0.0,
    weighting: Weighting = "example",
    device: torch.device | str | None = None,
    memory_budget: int = 4 << 30,
) -> Report:
    """Measure a classifier on the data a loader gives; the model is left as it was.

    Runs in eval mode without gradients, streams the data once and puts modes, hooks and random states back.
    Features are kept up to ``memory_budget``, because NC4 needs the final class means; beyond it the loader is
    gone through a second time, and an error says so if that pass saw other examples.

    Args:
        model: any module whose logits come from an ``nn.Linear``.
        loader: batches of (inputs, labels), or dictionaries with a ``labels`` entry, whose rest the model takes by
            keyword. Give it training data, unaugmented, as the paper does.
        layer: the classifier or its name; by default the last ``nn.Linear`` that the forward pass executes.
        weight_decay: λ of the paper's loss; SGD decay w on ``MSELoss`` is λ = C·w/2.
        weighting: see :class:`ClassMoments`.
        device: where inputs are sent; by default where the classifier's weights are.
        memory_budget: bytes of features to keep, 4 GiB by default.

    Raises:
        InputError: no classifier, no data, labels that do not fit, features that are not finite.
    """
    with evaluation(model):
        target = torch.device(device) if device is not None else _device_of(model)
        batches = _Batches(model, loader, target)
        classifier = find_classifier(model, batches.run_first, layer)
        weight = classifier.weight.detach()
        bias = None if classifier.bias is None else classifier.bias.detach()
        moments = ClassMoments(len(weight), weighting=weighting)
        kept: list[tuple[Tensor, Tensor]] | None = []
        size, seen = 0, _Fingerprint()
        for features, labels in batches.features(classifier):
            moments.update(features, labels)
            seen.add(features, labels)
            size += features.numel() * features.element_size()
            if kept is not None and size <= memory_budget:
                kept.append((features, labels))
            else:
                kept = None
        if not moments.num_examples:
            raise InputError("expected a loader with at least one batch, got none")
        tally = _Tally(moments, weight, bias)
        if kept is None:
            again = _Fingerprint()
            for features, labels in batches.features(classifier):
                again.add(features, labels)
                tally.add(features, labels)
            seen.require_same(again)
        else:
            for features, labels in kept:
                tally.add(features, labels)
    return _report(moments, tally, weight, bias, weight_decay)


class _Batches:
    """Forward passes over a loader, as (features, labels)."""

    def __init__(self, model: nn.Module, loader: Iterable[Any], device: torch.device) -> None:
        if isinstance(loader, Iterator):
            kind = type(loader).__name__
            raise InputError(f"expected a loader that can be gone through again, got a {kind}: pass a list of batches")
        self._model, self._loader, self._device = model, loader, device

    def run_first(self) -> None:
        for batch in self._loader:
            self._forward(batch)
            return
        raise InputError("expected a loader with at least one batch, got none")

    def features(self, classifier: nn.Linear) -> Iterable[tuple[Tensor, Tensor]]:
        received: list[Tensor] = []
        with capture(classifier, received.append):
            for batch in self._loader:
                received.clear()
                labels = self._forward(batch)
                if not received:
                    raise InputError("expected the forward pass to reach the classifier, it did not for one batch")
                features = received[-1]
                if features.ndim > 2:
                    features, labels = features.flatten(0, -2), labels.flatten()
                check_features(features)
                check_labels(labels, len(features), classifier.out_features)
                yield features, labels

    def _forward(self, batch: Any) -> Tensor:
        if isinstance(batch, Mapping):
            if "labels" not in batch:
                raise InputError(f"expected a 'labels' entry in each batch, got {sorted(batch)}")
            moved = {key: value.to(self._device) for key, value in batch.items()}
            labels = moved.pop("labels")
            self._model(**moved)
            return _tensor(labels)
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError(f"expected batches of (inputs, labels), got {type(batch).__name__}")
        inputs, labels = batch
        self._model(inputs.to(self._device))
        return _tensor(labels).to(self._device)


class _Tally:
    """Shares of the examples: decisions unlike the nearest class mean's, and correct ones. Never class-weighted."""

    def __init__(self, moments: ClassMoments, weight: Tensor, bias: Tensor | None) -> None:
        self._moments, self._weight, self._bias = moments, weight, bias
        self._mismatches, self._correct = 0, 0

    def add(self, features: Tensor, labels: Tensor) -> None:
        result = decisions(features, labels, self._moments, self._weight, self._bias)
        self._mismatches += int((~result.agree).sum())
        self._correct += int(result.correct.sum())

    def shares(self) -> tuple[float, float]:
        """(NC4 mismatch, accuracy)."""
        return self._mismatches / self._moments.num_examples, self._correct / self._moments.num_examples


class _Fingerprint:
    """What a pass saw, whatever the order and the batches: per class the count and one projection of the features."""

    def __init__(self) -> None:
        self._sums: dict[int, list[float]] = {}
        self._direction: Tensor | None = None

    def add(self, features: Tensor, labels: Tensor) -> None:
        if self._direction is None:
            generator = torch.Generator().manual_seed(0)
            self._direction = torch.rand(features.shape[1], generator=generator).to(features)
        values = (features @ self._direction.to(features)).double()
        for label in torch.unique(labels).tolist():
            chosen = values[labels == label]
            total = self._sums.setdefault(label, [0.0, 0.0, 0.0])
            for i, term in enumerate((float(len(chosen)), float(chosen.sum()), float(chosen.abs().sum()))):
                total[i] += term

    def require_same(self, other: _Fingerprint) -> None:
        for label in sorted(self._sums.keys() | other._sums.keys()):
            count, total, size = self._sums.get(label, [0.0, 0.0, 0.0])
            count2, total2, _ = other._sums.get(label, [0.0, 0.0, 0.0])
            if count != count2 or abs(total - total2) > _CHECK_TOLERANCE * size:
                raise InputError(
                    f"expected both passes over the loader to give the same examples, class {label} differed "
                    f"({int(count)} then {int(count2)} examples): turn off augmentation and sampling, or raise "
                    "memory_budget so that one pass suffices"
                )


def _report(moments: ClassMoments, tally: _Tally, weight: Tensor, bias: Tensor | None, weight_decay: float) -> Report:
    mismatch, accuracy = tally.shares()
    return Report(
        num_examples=moments.num_examples,
        num_classes=moments.num_classes,
        classes_present=int(moments.present.sum()),
        dim=moments.means.shape[1],
        weighting=moments.weighting,
        accuracy=accuracy,
        nc1=nc1(moments),
        nc2=nc2(moments, weight),
        nc3=nc3(moments, weight),
        nc4_mismatch=mismatch,
        mse=decompose_mse(moments, weight, bias, weight_decay=weight_decay),
        snr=snr_singular_values(moments),
        means=moments.means,
        global_mean=moments.global_mean,
    )


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _tensor(value: Any, name: str = "labels") -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        value = value.copy()  # torch warns of memory it must not write to
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError) as error:
        kind = getattr(value, "dtype", type(value).__name__)
        raise InputError(f"expected numeric {name}, got {kind}") from error
