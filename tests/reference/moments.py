"""Class moments, one example at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Moments:
    """What the formulas need; absent classes have weight 0 and a mean that nothing may use (NaN)."""

    counts: np.ndarray
    present: np.ndarray
    example_weights: np.ndarray
    class_weights: np.ndarray
    means: np.ndarray
    global_mean: np.ndarray
    within: np.ndarray
    between: np.ndarray


def class_moments(features: np.ndarray, labels: np.ndarray, num_classes: int, weighting: str) -> Moments:
    n, p = features.shape
    counts = np.array([sum(1 for y in labels if y == c) for c in range(num_classes)])
    present = np.flatnonzero(counts)
    if weighting == "example":
        example_weights = np.full(n, 1.0 / n)
    else:
        example_weights = np.array([1.0 / (len(present) * counts[y]) for y in labels])

    means = np.full((num_classes, p), np.nan)
    class_weights = np.zeros(num_classes)
    for c in present:
        members = features[labels == c]
        # Means of differences from one member: a plain sum would lose a small spread around a large offset.
        means[c] = members[0] + (members - members[0]).mean(axis=0)
        class_weights[c] = example_weights[labels == c].sum()
    global_mean = sum(class_weights[c] * means[c] for c in present)

    within, between = np.zeros((p, p)), np.zeros((p, p))
    for weight, h, y in zip(example_weights, features, labels, strict=True):
        within += weight * np.outer(h - means[y], h - means[y])
    for c in present:
        between += class_weights[c] * np.outer(means[c] - global_mean, means[c] - global_mean)
    return Moments(counts, present, example_weights, class_weights, means, global_mean, within, between)
