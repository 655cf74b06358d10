"""Silhouette of the classes: how much nearer an example is to its own class than to the nearest other one."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from neuralcollapse._checks import Array, as_labels, as_tensor, check_features, check_finite, check_labels
from neuralcollapse._linalg import of_moderate_size
from neuralcollapse.metrics.undefined import warn_undefined

# Distances of this many pairs of examples are held at a time.
_PAIRS = 1 << 22


def silhouette(features: Float[Tensor, "n p"] | Array, labels: Integer[Tensor, " n"] | Array) -> float:
    """Ave over examples of (b − a) / max(a, b), from −1 to 1; 1 at collapse.

    a is the mean distance to the others of the example's class, b the least, over other classes, mean distance to the
    examples of one; an example alone in its class counts 0. The work grows like n² p.

    Args:
        features: (n, p); labels: (n,).

    Returns:
        The average; nan, with a warning, for fewer than two classes.

    Raises:
        InputError: shapes that do not fit one another, NaN or infinity.

    Source: Rousseeuw (1987), Silhouettes: a graphical aid to the interpretation and validation of cluster analysis.
    """
    features, labels = as_tensor(features, "features"), as_labels(labels)
    check_features(features)
    check_finite(features)
    check_labels(labels, len(features), 2**62)
    classes, own = torch.unique(labels.to(features.device), return_inverse=True)
    if len(classes) < 2:
        warn_undefined("the silhouette", "all examples are of one class")
        return float("nan")
    rows = of_moderate_size(features).double()
    rows = rows - rows.mean(dim=0)
    members = torch.nn.functional.one_hot(own).to(rows)
    counts, total = members.sum(dim=0), 0.0
    for part, index in zip(*(each.split(max(1, _PAIRS // len(rows))) for each in (rows, own)), strict=True):
        # differences are taken, not ‖a‖² + ‖b‖² − 2ab, which cancels at collapse
        sums = torch.cdist(part, rows, compute_mode="donot_use_mm_for_euclid_dist") @ members
        inside = sums.gather(1, index[:, None])[:, 0] / (counts[index] - 1).clamp(min=1)
        outside = (sums / counts).scatter(1, index[:, None], torch.inf).amin(dim=1)
        largest = torch.maximum(inside, outside)
        width = torch.where(largest > 0, (outside - inside) / largest, 0.0)
        total += float((width * (counts[index] > 1)).sum())
    return total / len(rows)
