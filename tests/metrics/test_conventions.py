"""Numbers of published code under our names, on six shared feature sets, against formulas written out apart."""

from __future__ import annotations

import itertools
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from helpers.feature_sets import SETS, feature_set
from reference import conventions as reference
from reference.conventions import FeatureSet

import neuralcollapse as nc
from neuralcollapse.metrics import duality, feature_rank, geometry, margins, silhouette
from neuralcollapse.metrics.registry import compute_metrics


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
    margin = nc.measure_features(*arguments, weighting=weighting, metrics="cosine_margin").cosine_margin
    assert margin == pytest.approx(reference.cosine_margin(data, data.centre(centre)), rel=1e-10)


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


@pytest.mark.parametrize("size", [2, 3, 10])
def test_at_a_simplex_etf(size: int) -> None:
    """Three times a simplex in three more dimensions than it needs, and within classes ±s in two of these."""
    frame = 3.0 * nc.simplex_etf(size, size + 2)
    spread = 0.01 * torch.eye(size + 2, dtype=torch.float64)[-2:]
    features = torch.cat([frame + shift for shift in (*spread, *-spread)])
    labels = torch.arange(size).repeat(4)
    moments = nc.ClassMoments(size, weighting="class")
    moments.update(features, labels)
    near = {"abs": 1e-12}
    assert duality.alignment_cosine(moments, frame) == pytest.approx(0.0, **near)
    assert duality.principal_angles(moments, frame).tolist() == pytest.approx([0.0] * (size - 1), abs=1e-9)
    assert duality.duality_products(moments, frame).tolist() == pytest.approx([9.0] * size, rel=1e-12)
    assert duality.bias_collapse(moments, frame) == pytest.approx(0.0, **near)
    assert duality.bias_collapse(moments, frame, torch.ones(size)) == pytest.approx(size**0.5, rel=1e-12)
    assert geometry.log_equinorm(frame) == pytest.approx(0.0, **near)
    # a root of Σ has C − 1 singular values 3/√(C−1) and two of s/√2
    singular = np.array([3.0 / math.sqrt(size - 1)] * (size - 1) + [0.01 / math.sqrt(2)] * 2 + [0.0])
    shares = singular / singular.sum() + 1e-7
    assert feature_rank.rankme(moments) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-9)
    root = 0.01 / math.sqrt(2)
    ratio = (3.0 + 2 * root) ** 2 / (9.0 + 2 * root**2)
    assert feature_rank.numerical_rank(moments) == pytest.approx(ratio, rel=1e-9)
    assert feature_rank.class_effective_rank(moments) == pytest.approx(2.0, rel=1e-9)
    collapsed = frame.repeat(2, 1), torch.arange(size).repeat(2)
    margins_of = margins.cosine_margins(*collapsed, frame)
    assert margins_of.tolist() == pytest.approx([size / (size - 1)] * 2 * size, rel=1e-12)
    assert silhouette.silhouette(*collapsed) == 1.0


def test_silhouette_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    data = feature_set("missing class")
    got = silhouette.silhouette(data.features, data.labels)
    assert got == pytest.approx(metrics.silhouette_score(data.features, data.labels), rel=1e-12)


@pytest.mark.wrong_input
def test_what_has_no_margin_or_angle_warns_or_is_refused() -> None:
    features, labels = torch.eye(4, 3), torch.arange(4) % 2
    with pytest.raises(nc.InputError, match=r"expected a classifier weight of shape .C, p. with C ≥ 2"):
        margins.cosine_margins(features, labels, torch.ones(1, 3))
    with pytest.warns(UserWarning, match="the cosine margin is undefined: row 0 of 2 is zero"):
        assert margins.cosine_margins(features, labels, torch.ones(2, 3)).isnan().all()
    with pytest.warns(UserWarning, match="the silhouette is undefined: all examples are of one class"):
        assert np.isnan(silhouette.silhouette(features, torch.zeros(4, dtype=torch.int64)))
    moments = nc.ClassMoments(3)
    moments.update(torch.eye(6, 3), torch.arange(6) % 3)
    with pytest.warns(UserWarning, match="the principal angles are undefined: the classifier's rows span fewer"):
        assert duality.principal_angles(moments, torch.ones(3, 3)).isnan().all()


@pytest.mark.parametrize("power", [-290, -160, -20, 160, 290])
def test_numbers_of_unit_features_do_not_depend_on_their_scale(power: int) -> None:
    data = feature_set("balanced")
    names, size = ["alignment_cosine_unit", "cosine_margin"], 10.0**power
    features, labels = (torch.as_tensor(each) for each in (data.features, data.labels))
    want = nc.measure_features(features, labels, data.weight, metrics=names).extra
    found = nc.measure_features(features * size, labels, data.weight, metrics=names).extra
    assert found == pytest.approx(want, rel=1e-9)
    centre = np.full(features.shape[1], 0.25)
    got = margins.cosine_margins(features * size, labels, data.weight, centre=centre * size)
    torch.testing.assert_close(got, margins.cosine_margins(features - 0.25, labels, data.weight, centre=0 * centre))


def test_a_zero_among_unit_features_stays_zero() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 0.0], [-3.0, 0.0], [0.0, -4.0]])
    given = {"metrics": ["alignment_cosine_unit"]}
    found = nc.measure_features(features, [0, 0, 1, 1], torch.eye(2), **given).extra["alignment_cosine_unit"]
    # class means (½, 0) and (−½, −½): centred (½, ¼) and its opposite
    assert found == pytest.approx(1 - (2 / math.sqrt(5) - 1 / math.sqrt(5)) / 2, rel=1e-10)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    features, labels = torch.randn(6, 3), torch.arange(6) % 2
    features[4, 1] = bad
    with pytest.raises(nc.InputError, match="expected finite features, got NaN or infinity in row 4"):
        silhouette.silhouette(features, labels)
    with pytest.raises(nc.InputError, match="expected finite features, got NaN or infinity in row 4"):
        margins.cosine_margins(features, labels, torch.eye(2, 3))
    with pytest.raises(nc.InputError, match="expected a finite centre, got NaN or infinity in it"):
        margins.cosine_margins(torch.randn(6, 3), labels, torch.eye(2, 3), centre=features[4])


@pytest.mark.parametrize("shape", [(), (1,), (2,), (6, 3), (1, 3)])
def test_a_centre_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(nc.InputError, match=r"expected a centre of shape \(3,\), got"):
        margins.cosine_margins(torch.randn(6, 3), torch.arange(6) % 2, torch.eye(2, 3), centre=torch.ones(shape))


@pytest.mark.parametrize("weighting", ["example", "class", "mixed", "mixed-example-mean"])
def test_metrics_of_examples_about_a_reference(weighting: str) -> None:
    """The margin is about the training mean, the silhouette of the examples alone; unit features have no means."""
    training, test = feature_set("unbalanced"), feature_set("balanced")
    test = FeatureSet(test.features + 0.5, test.labels, test.weight, test.bias)
    moments = nc.ClassMoments(len(training.weight), weighting=weighting)
    moments.update(torch.from_numpy(training.features), torch.from_numpy(training.labels))
    arguments = (torch.from_numpy(test.features), torch.from_numpy(test.labels), test.weight)
    options = {"weighting": weighting, "reference": moments}
    report = nc.measure_features(*arguments, metrics=["cosine_margin", "silhouette"], **options)
    shares = np.bincount(test.labels) / len(test.labels)
    shares = np.full(len(shares), 1 / len(shares)) if weighting in ("class", "mixed") else shares
    centre = shares @ training.means()
    assert report.cosine_margin == pytest.approx(reference.cosine_margin(test, centre), rel=1e-10)
    assert report.silhouette == pytest.approx(reference.silhouette(test), rel=1e-10)
    with pytest.raises(
        nc.InputError, match="'alignment_cosine_unit' makes class means of features of unit length, which"
    ):
        nc.measure_features(*arguments, metrics="alignment_cosine_unit", **options)
    own = nc.ClassMoments(len(test.weight), weighting=weighting)
    own.update(*arguments[:2])
    about = own.around(moments)
    moved = [about, about.at_unit_scale(), pickle.loads(pickle.dumps(about)), about.reweighted("example")]
    for each in moved if weighting != "example" else moved[:3]:
        with pytest.raises(nc.InputError, match="which no reference= holds: measure it without reference="):
            compute_metrics(each, ["alignment_cosine_unit"], weight=test.weight, examples=arguments[:2])


def centred_rank(features: np.ndarray, weights: np.ndarray, name: str) -> float:
    """Stable or effective rank of the matrix of weighted features less their weighted mean."""
    singular = np.linalg.svd((features - weights @ features) * np.sqrt(weights)[:, None], compute_uv=False)
    if name == "effective_rank":
        return reference.entropy_rank(singular)
    return float((singular**2).sum() / singular.max() ** 2)


@pytest.mark.parametrize("weighting", ["example", "class"])
@pytest.mark.parametrize("examples", [36, 7])
def test_ranks_of_features_are_their_own_whatever_the_reference(examples: int, weighting: str) -> None:
    """No class mean enters them; 7 examples span fewer directions than there are features."""
    rng = np.random.default_rng(examples)
    labels = rng.permutation(np.arange(examples) % 3)
    features = rng.normal(size=(3, 9))[labels] + 0.3 * rng.normal(size=(examples, 9)) + 1.0
    test = FeatureSet(features, labels, rng.normal(size=(3, 9)), np.zeros(3))
    training = nc.ClassMoments(3, weighting=weighting)
    training.update(torch.from_numpy(features[::-1].copy() + rng.normal(size=9)), torch.from_numpy(labels[::-1].copy()))
    names = ["stable_rank", "effective_rank", "rankme"] + ["class_numerical_rank"] * (weighting == "class")
    given = (torch.from_numpy(features), torch.from_numpy(labels))
    options = {"weighting": weighting, "reference": training}
    counts = np.bincount(labels)
    weights = 1 / (3 * counts[labels]) if weighting == "class" else np.full(examples, 1 / examples)
    want = {name: centred_rank(features, weights, name) for name in names[:2]}
    want |= {"rankme": reference.rankme(test, weighting), "class_numerical_rank": reference.numerical_rank(test)}
    own = nc.ClassMoments(3, weighting=weighting)
    own.update(*given)
    about = own.around(training)
    found = nc.measure_features(*given, metrics="all", **options)
    streamed = nc.measure(torch.nn.Identity(), [given], features="", metrics=names, **options)
    for each in (found.extra, streamed.extra, compute_metrics(about, names, own=own)):
        assert {name: each[name] for name in names} == pytest.approx({name: want[name] for name in names}, rel=1e-10)
    assert not set(names) & set(compute_metrics(about))
    for name in names:
        with pytest.raises(nc.InputError, match="expected moments about the features' own class means for "):
            compute_metrics(about, name)
    if weighting == "class":
        shifted = [features[labels == c] - training.means[c].numpy() for c in range(3)]
        by_class = [reference.entropy_rank(np.linalg.svd(rows, compute_uv=False)) for rows in shifted]
        assert found.class_effective_rank == pytest.approx(sum(by_class) / 3, rel=1e-10)


def test_a_number_that_is_not_signed_is_never_negative_and_one_that_is_may_be() -> None:
    """On random features and on their opposites, of several scales, which turn the sign of what has one."""
    generator, negative = torch.Generator().manual_seed(0), set()
    for dim, scale in itertools.product((1, 2, 3, 6), (0.1, 10.0)):
        features = scale * torch.randn(60, dim, generator=generator, dtype=torch.float64)
        labels, weight = torch.arange(60) % 4, scale * torch.randn(4, dim, generator=generator)
        outside = torch.randn(5, dim, generator=generator)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for rows in (weight, -weight):
                options = {"weighting": "class", "ood": outside, "metrics": list(nc.METRICS)}
                found = nc.measure_features(features, labels, rows, **options).extra
                negative |= {name for name, value in found.items() if value < 0.0}
    assert negative == {name for name, metric in nc.METRICS.items() if metric.signed}
