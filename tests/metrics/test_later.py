"""The later metrics: against separately written references over the table of cases, in every floating type."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.cases import Case, data, named, over_cases, over_weightings
from reference import conventions
from reference import later as reference
from reference.moments import class_moments

import neuralcollapse as nc
from neuralcollapse.metrics.registry import METRICS

OUTSIDE = 5


def outside_of(case: Case) -> np.ndarray:
    """Out-of-distribution features."""
    rng = np.random.default_rng(7)
    return rng.normal(size=(OUTSIDE, case.dim)) + 1.0 + case.offset


def assert_matches(case: Case, features: np.ndarray, given: torch.Tensor, weighting: str, tolerance: float) -> None:
    d = data(case)
    outside = outside_of(case)
    options = {"weighting": weighting, "metrics": "all", "ood": torch.from_numpy(outside)}
    got = nc.measure_features(given, d.labels, d.weight, d.bias, **options).extra
    want = reference.every(
        features, d.labels, class_moments(features, d.labels, case.num_classes, weighting), d.weight, outside
    )
    want |= conventions.every(conventions.FeatureSet(features, d.labels, d.weight, d.bias), weighting)
    without = {"examples"} if weighting == "class" else {"examples", "class_scatter"}
    fewest = min(count for count in case.counts if count)
    asked = {name for name, each in METRICS.items() if not each.needs & without and each.examples_each <= fewest}
    assert got.keys() == want.keys() & asked == asked
    for name in asked:
        assert got[name] == pytest.approx(want[name], rel=tolerance, abs=1e-12, nan_ok=True), name


@over_cases
@over_weightings
def test_every_metric_matches_its_reference(case: Case, weighting: str) -> None:
    features = data(case).features
    assert_matches(case, features, torch.from_numpy(features), weighting, 1e-10)


@over_weightings
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["balanced", "imbalanced-50-to-1", "class-missing", "more-classes-than-features"])
def test_narrow_features_are_measured_as_stored(name: str, dtype: torch.dtype, weighting: str) -> None:
    """The reference sees the rounded features in float64: what remains is the package's own rounding."""
    case = named(name)
    narrow = torch.from_numpy(data(case).features).to(dtype)
    assert_matches(case, narrow.double().numpy(), narrow, weighting, 2e-5)
