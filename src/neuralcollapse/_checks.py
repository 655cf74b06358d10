"""Validation of what comes from outside: one sentence that names the value and what was expected."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class InputError(ValueError):
    """A mistake in the input, said in one sentence; the command line prints it without a traceback."""


def as_tensor(value: Any, name: str = "labels") -> Tensor:
    """A tensor of what is one already, or an array, or a list of numbers."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        value = value.copy()  # torch warns of memory it must not write to
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError) as error:
        kind = getattr(value, "dtype", type(value).__name__)
        raise InputError(f"expected numeric {name}, got {kind}") from error


def check_features(features: Tensor, dim: int | None = None) -> None:
    """Raise unless ``features`` is a floating (n, p) tensor, with p = ``dim`` where that is known."""
    if features.ndim != 2:
        raise InputError(f"expected features of shape (n, p), got {tuple(features.shape)}")
    if not features.is_floating_point():
        raise InputError(f"expected floating-point features, got {features.dtype}")
    if dim is not None and features.shape[1] != dim:
        raise InputError(f"expected features with p = {dim} columns, got {features.shape[1]}")


def check_labels(labels: Tensor, examples: int, num_classes: int) -> None:
    """Raise unless ``labels`` is an integer (n,) tensor with values in 0 … C−1."""
    if labels.ndim != 1 or labels.shape[0] != examples:
        raise InputError(f"expected one label per example, shape ({examples},), got {tuple(labels.shape)}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"expected integer labels, got {labels.dtype}")
    if examples:
        low, high = (int(v) for v in torch.aminmax(labels))
        if low < 0 or high >= num_classes:
            bad = low if low < 0 else high
            raise InputError(f"expected labels in 0..{num_classes - 1}, got {bad}")


def check_classifier(weight: Tensor, bias: Tensor | None, num_classes: int, dim: int) -> None:
    """Raise unless ``weight`` is a finite (C, p) tensor and ``bias`` a finite (C,) tensor or None."""
    if tuple(weight.shape) != (num_classes, dim):
        raise InputError(f"expected a classifier weight of shape ({num_classes}, {dim}), got {tuple(weight.shape)}")
    if bias is not None and tuple(bias.shape) != (num_classes,):
        raise InputError(f"expected a classifier bias of shape ({num_classes},), got {tuple(bias.shape)}")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and not bool(torch.isfinite(value).all()):
            raise InputError(f"expected a finite classifier {name}, got NaN or infinity in it")


def check_weight_decay(weight_decay: float) -> None:
    """Raise unless λ is a finite number ≥ 0."""
    if not 0.0 <= weight_decay < float("inf"):
        raise InputError(f"expected a finite weight decay of at least 0, got {weight_decay}")


def first_bad_row(features: Tensor) -> int:
    """The index of the first row holding NaN or infinity."""
    return int((~torch.isfinite(features).all(dim=1)).nonzero()[0])
