"""docs/conventions.md: every name in its tables is proved on the six shared feature sets, by formulas written apart."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.feature_sets import SETS, feature_set
from reference import collapse, conventions, later
from reference.conventions import FeatureSet
from reference.moments import class_moments
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

import neuralcollapse as nc

PAGE = Path(__file__).parents[2] / "docs" / "conventions.md"
OF_OTHER_TESTS = {
    "nc.detection",  # of scores, not of features: test_out_of_distribution
    "nc.measure_regression",  # of targets that are numbers: test_regression
    "nc.compare",
    "nc2",
    "metrics.margins.cosine_margins",  # whose mean is cosine_margin
}


def outside_of(data: FeatureSet) -> np.ndarray:
    return 0.5 + np.random.default_rng(1).normal(size=(7, data.features.shape[1]))


def older(data: FeatureSet, weighting: str) -> dict[str, float]:
    """What the papers measure themselves, by our names."""
    m = class_moments(data.features, data.labels, len(data.weight), weighting)
    found = later.every(data.features, data.labels, m, data.weight, outside_of(data))
    nearest = collapse.nc4_mismatch(m, data.features, data.weight, data.bias, data.labels)
    return {**found, "nc1": collapse.nc1(m), "nc3": collapse.nc3(m, data.weight), "nc4_mismatch": nearest}


@pytest.mark.parametrize("weighting", ["example", "class"])
@pytest.mark.parametrize("name", SETS)
def test_the_papers_own_numbers(name: str, weighting: str) -> None:
    data = feature_set(name)
    want = older(data, weighting)
    names = [each for each in want if each in nc.METRICS]
    given = (torch.from_numpy(data.features), data.labels, data.weight, data.bias)
    options = {"weighting": weighting, "ood": torch.from_numpy(outside_of(data)), "metrics": names}
    got = nc.measure_features(*given, **options).numbers()
    for metric, value in want.items():
        if metric != "nc4_mismatch" or weighting == "example":  # by class it is a mean of shares
            assert got[metric] == pytest.approx(value, rel=1e-10, abs=1e-12, nan_ok=True), metric


@pytest.mark.parametrize("name", SETS)
def test_numbers_beside_the_registry(name: str) -> None:
    """Linear CKA by whole Gram matrices, NECO by scikit-learn, distances from means by loops."""
    data = feature_set(name)
    features, outside = data.features, outside_of(data)
    other = np.tanh(features @ np.random.default_rng(2).normal(size=(features.shape[1], 5)))
    centre = np.eye(len(features)) - 1 / len(features)
    a, b = (centre @ x @ x.T @ centre for x in (features, other))
    cka = np.trace(a @ b) / np.sqrt(np.trace(a @ a) * np.trace(b @ b))
    assert nc.linear_cka(torch.from_numpy(features), torch.from_numpy(other)) == pytest.approx(cka, rel=1e-10)
    made = nc.ClassMoments(len(data.weight))
    made.update(torch.from_numpy(features), torch.from_numpy(data.labels))
    scaler = StandardScaler().fit(features)
    count = min(len(data.classes) - 1, features.shape[1])
    basis = PCA(count).fit(scaler.transform(features)).components_
    rows = scaler.transform(outside)
    neco = np.linalg.norm(rows @ basis.T, axis=1) / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(nc.neco_scores(made, outside, dimensions=count), neco, rtol=1e-7)
    nearest = [-min(float((h - m) @ (h - m)) for m in data.means()) for h in outside]
    np.testing.assert_allclose(nc.nearest_mean_scores(made, outside), nearest, rtol=1e-10)


def test_every_name_of_the_page_is_proved() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ") and "---" not in line]
    named: set[str] = set()
    for cell in (row.split(" | ")[-1] for row in rows):
        named |= set(re.findall(r"`([^`]+)`", cell)) - {"_mixed", "_mixed_example_mean"}
    named = {name for name in named if "=" not in name}
    data = feature_set("balanced")
    proved = set(conventions.every(data, "class")) | set(conventions.of_examples(data, "class"))
    proved |= set(older(data, "class")) | {"nc.linear_cka", "nc.neco_scores", "nc.nearest_mean_scores"} | OF_OTHER_TESTS
    open_ends = {name for name in named if "…" in name or "{" in name}
    for name in open_ends:
        start = re.split(r"[…{]", name)[0]
        assert any(each.startswith(start) for each in proved), name
    assert named - open_ends <= proved, sorted(named - open_ends - proved)
