"""Numbers of published code under our names, on six shared feature sets, against formulas written out apart."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pytest
import torch
from reference import conventions as reference
from reference.conventions import FeatureSet

import neuralcollapse as nc

SETS = ("balanced", "unbalanced", "more classes than features", "collapsed float32", "missing class", "digits")


@cache
def feature_set(name: str) -> FeatureSet:
    """One of the six; float32 features come as their values in float64."""
    if name == "digits":
        return _digits()
    rng = np.random.default_rng(SETS.index(name))
    counts = {
        "balanced": (15,) * 5,
        "unbalanced": (60, 25, 9, 4, 2),
        "more classes than features": (6, 9, 4, 7, 5, 8, 3, 6, 4),
        "collapsed float32": (20, 14, 18, 11),
        "missing class": (12, 0, 8, 15, 6),
    }[name]
    dim, spread = (4, 0.4) if name == "more classes than features" else (9, 1e-3 if "collapsed" in name else 0.4)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    features = 1.0 + rng.normal(size=(len(counts), dim))[labels] + spread * rng.normal(size=(len(labels), dim))
    if "float32" in name:
        features = features.astype(np.float32).astype(np.float64)
    return FeatureSet(features, labels, 0.5 * rng.normal(size=(len(counts), dim)), 0.2 * rng.normal(size=len(counts)))


def _digits() -> FeatureSet:
    """What a small perceptron, trained for a few steps from a fixed seed, makes of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images / 16.0)[:300], torch.tensor(labels)[:300]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = torch.nn.Sequential(torch.nn.Linear(64, 24), torch.nn.Tanh()).double()
        head = torch.nn.Linear(24, 10).double()
        optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.5, momentum=0.9)
        for _ in range(60):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(body(inputs)), targets).backward()
            optimizer.step()
    arrays = (body(inputs), targets, head.weight, head.bias)
    return FeatureSet(*(array.detach().numpy() for array in arrays))


def measured(data: FeatureSet, weighting: str, names: list[str]) -> dict[str, float]:
    features = torch.from_numpy(data.features)
    options = {"weighting": weighting, "metrics": names}
    return nc.measure_features(features, data.labels, data.weight, data.bias, **options).extra


@pytest.mark.parametrize("weighting", ["example", "class"])
@pytest.mark.parametrize("name", SETS)
def test_each_convention_is_its_formula(name: str, weighting: str) -> None:
    data = feature_set(name)
    want = reference.every(data, weighting) | reference.of_examples(data, weighting)
    got = measured(data, weighting, list(want))
    for metric, value in want.items():
        assert got[metric] == pytest.approx(value, rel=1e-10, abs=1e-12, nan_ok=True), metric


@pytest.mark.parametrize("name", SETS)
def test_float32_features_give_the_same_to_their_precision(name: str) -> None:
    data = feature_set(name)
    narrow = FeatureSet(data.features.astype(np.float32).astype(np.float64), data.labels, data.weight, data.bias)
    want = reference.every(narrow, "class") | reference.of_examples(narrow, "class")
    features = torch.from_numpy(narrow.features).float()
    options = {"weighting": "class", "metrics": list(want)}
    got = nc.measure_features(features, data.labels, data.weight, data.bias, **options).extra
    for metric, value in want.items():
        assert got[metric] == pytest.approx(value, rel=2e-5, abs=1e-8, nan_ok=True), metric


@pytest.mark.parametrize(("weighting", "centre"), [("mixed", "class"), ("mixed-example-mean", "example")])
@pytest.mark.parametrize("name", SETS)
def test_a_report_of_mixed_weighting(name: str, weighting: str, centre: str) -> None:
    """NC1 and its kin are mixed, NC2 and NC3 are about its centre, and the loss still adds up, by example."""
    data = feature_set(name)
    arguments = (torch.from_numpy(data.features), data.labels, data.weight, data.bias)
    report = nc.measure_features(*arguments, weighting=weighting, metrics="all")
    by_example = nc.measure_features(*arguments)
    w, b = reference.covariances(data, "example", "class", centre)
    count = len(data.classes)
    assert report.nc1 == pytest.approx(reference.nc1(w, b, count), rel=1e-10)
    assert report.variability_ratio == pytest.approx(np.trace(w) / np.trace(b), rel=1e-10)
    assert report.variability_collapse_index == pytest.approx(reference.collapse_index(w, b, count), rel=1e-10)
    rows, means = data.rows(), data.means() - data.centre(centre)
    squared = ((rows / np.linalg.norm(rows) - means / np.linalg.norm(means)) ** 2).sum()
    assert report.nc3 == pytest.approx(squared, rel=1e-10)
    assert report.mse.total == pytest.approx(report.mse.nc1 + report.mse.nc23 + report.mse.ls_perp, rel=1e-9)
    assert report.mse.total == pytest.approx(by_example.mse.total, rel=1e-12)
    assert report.nc4_mismatch == by_example.nc4_mismatch
    assert "mixed weighting" in str(report)


def test_mixed_moments_merge_save_and_load(tmp_path: object) -> None:
    data = feature_set("unbalanced")
    whole, part = nc.ClassMoments(5, weighting="mixed"), nc.ClassMoments(5, weighting="mixed")
    features, labels = torch.from_numpy(data.features), torch.from_numpy(data.labels)
    whole.update(features[:40], labels[:40])
    part.update(features[40:], labels[40:])
    whole.merge(part)
    whole.save(f"{tmp_path}/moments.safetensors")
    loaded = nc.ClassMoments.load(f"{tmp_path}/moments.safetensors")
    assert loaded.weighting == "mixed"
    assert nc.nc1(loaded) == nc.nc1(whole) == pytest.approx(reference.nc1(*_mixed(data), 5), rel=1e-10)


def _mixed(data: FeatureSet) -> tuple[np.ndarray, ...]:
    return reference.covariances(data, "example", "class", "class")


def test_moments_by_class_hold_every_weighting_and_by_example_not_that_by_class() -> None:
    data = feature_set("unbalanced")
    by_class = nc.ClassMoments(5, weighting="class")
    by_class.update(torch.from_numpy(data.features), torch.from_numpy(data.labels))
    for weighting in ("example", "mixed", "mixed-example-mean"):
        own = nc.ClassMoments(5, weighting=weighting)
        own.update(torch.from_numpy(data.features), torch.from_numpy(data.labels))
        assert nc.nc1(by_class.reweighted(weighting)) == pytest.approx(nc.nc1(own), rel=1e-12)
    with pytest.raises(nc.InputError, match="a scatter for each class: measure with weighting='class'"):
        own.reweighted("class")


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            "class_numerical_rank",
            r"'class_numerical_rank' needs a scatter of each class \(weighting='class'\), got none",
        ),
        ("silhouette", r"'silhouette' needs the examples themselves \(nc.measure_features\), got none"),
    ],
)
def test_what_moments_do_not_hold_is_refused(names: str, message: str) -> None:
    moments = nc.ClassMoments(2)
    moments.update(torch.randn(6, 3), torch.arange(6) % 2)
    with pytest.raises(nc.InputError, match=message):
        nc.compute_metrics(moments, names)


def test_a_class_of_one_example_has_no_variance_of_divisor_n_minus_one() -> None:
    features, labels = torch.randn(5, 3), torch.tensor([0, 0, 1, 1, 2])
    with pytest.warns(UserWarning, match=r"with divisor n_c − 1.* undefined: class 2 has one example"):
        found = nc.measure_features(
            features, labels, metrics=["cdnv_unbiased", "variability_ratio_unbiased"], weighting="class"
        ).extra
    assert all(np.isnan(value) for value in found.values())


def test_scales_that_overflow_give_the_same_numbers() -> None:
    """Features times 2^600: what does not depend on their unit stays, the other numbers follow theirs."""
    data = feature_set("balanced")
    names = list(reference.every(data, "class"))
    small = measured(data, "class", names)
    large = FeatureSet(data.features * 2.0**600, data.labels, data.weight, data.bias)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = measured(large, "class", names)
    of_unit = {
        "equinorm_means_log",
        "duality_product_mean",
        "duality_product_variance",
        "bias_collapse",
        "cdnv_fourth_power",
    }
    for name in set(names) - of_unit:
        assert got[name] == pytest.approx(small[name], rel=1e-9), name
    assert got["duality_product_mean"] == pytest.approx(small["duality_product_mean"] * 2.0**600, rel=1e-9)
