"""One table of cases that the tests of moments, metrics and decomposition all run over."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest


@dataclass(frozen=True)
class Case:
    """Random features around random class means, and a classifier that is neither optimal nor collapsed."""

    name: str
    counts: tuple[int, ...]
    dim: int
    offset: float = 0.0
    spread: float = 0.5
    dead_units: int = 0
    weight_decay: float = 5e-4

    @property
    def num_classes(self) -> int:
        return len(self.counts)


@dataclass(frozen=True)
class Data:
    features: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


CASES = (
    Case("balanced", (12, 12, 12, 12), 7),
    Case("balanced-no-decay", (12, 12, 12, 12), 7, weight_decay=0.0),
    Case("imbalanced-50-to-1", (100, 2, 30, 11), 6),
    Case("class-missing", (9, 0, 14, 5), 5),
    Case("class-missing-no-decay", (9, 0, 14, 5), 5, weight_decay=0.0),
    Case("one-example", (1, 20, 8), 5),
    Case("more-features-than-examples", (3, 4, 5), 30),
    Case("more-classes-than-features", (4, 3, 5, 6, 4, 3, 7, 5), 3),
    Case("two-classes", (15, 6), 4),
    Case("singular-no-decay", (3, 4, 5), 30, weight_decay=0.0),
    Case("dead-units-no-decay", (10, 14, 9), 8, dead_units=3, weight_decay=0.0),
    Case("large-offset", (10, 14, 9), 6, offset=100.0),
    Case("large-offset-no-decay", (10, 14, 9), 6, offset=100.0, weight_decay=0.0),
    Case("nearly-collapsed", (20, 12, 16), 9, spread=1e-4),
    Case("strong-decay", (12, 7, 9), 6, weight_decay=0.3),
    Case("many-classes", (3, 5, 4, 6, 2, 7, 3, 0, 4, 5, 3, 6, 4, 2, 5, 3), 4),
    Case("many-classes-no-decay", (3, 5, 4, 6, 2, 7, 3, 4, 5, 3, 6, 4, 2, 5, 3), 4, weight_decay=0.0),
)
WEIGHTINGS = ("example", "class")

over_cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
over_weightings = pytest.mark.parametrize("weighting", WEIGHTINGS)


@cache
def data(case: Case) -> Data:
    """The examples of a case, shuffled; the same in every test."""
    rng = np.random.default_rng(CASES.index(case) if case in CASES else 99)
    labels = rng.permutation(np.repeat(np.arange(case.num_classes), case.counts))
    means = rng.normal(size=(case.num_classes, case.dim)) + case.offset
    features = means[labels] + case.spread * rng.normal(size=(len(labels), case.dim))
    if case.dead_units:
        features[:, -case.dead_units :] = 0.0
    weight = 0.4 * rng.normal(size=(case.num_classes, case.dim))
    # The loss of a random classifier grows with the offset squared; a trained bias takes that out.
    bias = 0.3 * rng.normal(size=case.num_classes) - weight @ features.mean(axis=0)
    return Data(features, labels, weight, bias)


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)
