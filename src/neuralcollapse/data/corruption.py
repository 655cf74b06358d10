"""Imbalanced classes and wrong labels, made from the training half by a seed and recorded in the run.

Training and measuring use the labels made here, so that the training error is the error on them. The test half is left
as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuralcollapse._errors import InputError, Named
from neuralcollapse.data.dataset import Array

DEFAULT_RATIO = 100.0
"""The strongest imbalance of Cui et al. (2019), up to their 200, that most long-tail studies report."""


@dataclass(frozen=True)
class Corruption:
    """What is done to a training half; by default nothing.

    Args:
        imbalance: a name of `IMBALANCES`, or None for classes as they come.
        imbalance_ratio: ρ, examples of the largest class over those of the smallest, at least 1.
        label_noise: share of the examples whose label is changed, 0 to 1; see `noisy_labels`.
    """

    imbalance: str | None = None
    imbalance_ratio: float = DEFAULT_RATIO
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        if self.imbalance is not None:
            IMBALANCES[self.imbalance]  # an InputError if there is none of that name
        if not 1 <= self.imbalance_ratio < float("inf"):
            raise InputError(f"--imbalance-ratio must be a number of at least 1, got {self.imbalance_ratio:g}")
        if not 0 <= self.label_noise <= 1:
            raise InputError(f"--label-noise must be a share from 0 to 1, got {self.label_noise:g}")


def exponential(num_classes: int, ratio: float) -> Array:
    """ρ^(-c/(C-1)): each class smaller than the one before by the same factor (Cui et al., 2019, section 5.1)."""
    return np.asarray(ratio ** (-np.arange(num_classes) / max(num_classes - 1, 1)))


def step(num_classes: int, ratio: float) -> Array:
    """1 for the first half of the classes, 1/ρ for the others (Buda, Maki & Mazurowski, 2018, with μ = 1/2)."""
    return np.where(np.arange(num_classes) < (num_classes + 1) // 2, 1.0, 1 / ratio)


def class_sizes(largest: int, num_classes: int, corruption: Corruption) -> list[int]:
    """Examples of each class, the first class the largest; rounded down.

    Raises:
        InputError: a class would have no example.
    """
    shares = IMBALANCES[str(corruption.imbalance)](num_classes, corruption.imbalance_ratio)
    sizes = [int(largest * share + 1e-9) for share in shares.tolist()]
    if min(sizes) < 1:
        raise InputError(
            f"--imbalance-ratio {corruption.imbalance_ratio:g} leaves a class without examples when the largest has "
            f"{largest:,}; take a ratio of at most {largest}"
        )
    return sizes


def noisy_labels(labels: Array, num_classes: int, share: float, seed: int) -> Array:
    """A share of the labels changed: round(share · n) examples, drawn by `seed`.

    Each of them gets one of the other classes with equal probability (symmetric noise). A share of 1 means random
    labels: every label is drawn from all classes, its own included, and tells nothing (Zhang et al., 2017).

    Args:
        labels: (n,), from 0 to c - 1.
        num_classes: c.
        share: 0 to 1.
        seed: of the draw.
    """
    # the third word makes this stream another than those that draw each class's examples; it is raw as those are
    stream = np.random.PCG64([seed, 0, 1])
    keys, draws = stream.random_raw(len(labels)), stream.random_raw(len(labels))
    if share == 1:
        return (draws % np.uint64(num_classes)).astype(np.int64)
    chosen = np.argsort(keys, kind="stable")[: round(share * len(labels))]
    changed = labels.copy()
    if num_classes > 1:
        changed[chosen] += 1 + (draws[chosen] % np.uint64(num_classes - 1)).astype(np.int64)
    return changed % num_classes


IMBALANCES = Named("imbalance", {"step": step, "exponential": exponential})
"""Each gives, for a number of classes and ρ, the size of each class relative to the largest."""
