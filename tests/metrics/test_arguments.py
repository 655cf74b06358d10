"""Metrics take class moments, or features with labels; METRICS can be read; one warning names all that is undefined."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cases import data, named

import neuralcollapse as nc
from neuralcollapse.metrics import duality, feature_rank, out_of_distribution, variability

CASE = data(named("imbalanced-50-to-1"))
FEATURES, LABELS, WEIGHT = CASE.features, CASE.labels, CASE.weight


def moments() -> nc.ClassMoments:
    made = nc.ClassMoments(len(WEIGHT))
    made.update(FEATURES, LABELS)
    return made


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, lambda values: values.tolist()])
@pytest.mark.wrong_input  # lists are none of the annotated types
def test_features_and_labels_in_place_of_moments(convert: object) -> None:
    features, labels, weight = (convert(values) for values in (FEATURES, LABELS, WEIGHT))  # type: ignore[operator]
    whole = moments()
    for metric in (nc.nc1, variability.cdnv, variability.variability_collapse_index, feature_rank.effective_rank):
        assert metric(features, labels) == metric(whole)
    for metric in (nc.nc2, nc.nc3, duality.duality_error, duality.uniform_duality):
        assert metric(features, labels, weight) == metric(whole, weight) == metric(features, labels, weight=weight)
    assert nc.nc3(features, labels, weight, squared=False) == nc.nc3(whole, weight, squared=False)
    mine, theirs = (nc.decompose_mse(*given, weight, weight_decay=0.1) for given in ((features, labels), (whole,)))
    assert (mine.ls, mine.ls_perp, mine.total) == (theirs.ls, theirs.ls_perp, theirs.total)
    assert torch.equal(
        nc.least_squares_classifier(features, labels, 0.1)[0], nc.least_squares_classifier(whole, 0.1)[0]
    )
    got = nc.snr_singular_values(features, labels).singular_values
    assert torch.equal(got, nc.snr_singular_values(whole).singular_values)
    outside = FEATURES[:5].mean(axis=0) + 1.0
    assert out_of_distribution.nc5(features, labels, outside) == out_of_distribution.nc5(whole, outside)


def test_classes_are_those_of_the_weight_where_there_is_one() -> None:
    """The last class has no example: labels alone would make it a row too few."""
    kept = np.less(LABELS, len(WEIGHT) - 1)
    with_all = nc.ClassMoments(len(WEIGHT))
    with_all.update(FEATURES[kept], LABELS[kept])
    assert nc.nc3(FEATURES[kept], LABELS[kept], WEIGHT) == nc.nc3(with_all, WEIGHT)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nc.nc1(FEATURES), "expected moments to be a ClassMoments, .*features need their labels beside them"),
        (lambda: nc.nc1(FEATURES, LABELS[:-1]), "expected one label per example"),
        (lambda: nc.nc1(FEATURES, LABELS + 0.5), "expected integer labels"),
        (lambda: nc.nc1(FEATURES, LABELS - 7), "expected labels in"),
        (lambda: nc.nc3(FEATURES, LABELS, WEIGHT[0]), "expected a classifier weight of shape"),
        (lambda: nc.nc1("features", LABELS), "expected moments to be a ClassMoments"),
        (lambda: nc.nc1(FEATURES, None), "expected moments to be a ClassMoments"),
    ],
)
@pytest.mark.wrong_input
def test_what_is_neither_is_refused(call: object, message: str) -> None:
    with pytest.raises(nc.InputError, match=message):
        call()  # type: ignore[operator]


def test_metrics_are_shown_as_a_table() -> None:
    lines = repr(nc.METRICS).splitlines()
    assert lines[0].split() == ["name", "measures", "good", "source"]
    assert [line.split()[0] for line in lines[1:]] == list(nc.METRICS)
    (cdnv,) = (line for line in lines if line.startswith("cdnv "))
    assert cdnv.split("  ")[-1] == "Galanti 2021" and "class-distance normalised variance" in cdnv
    assert all(metric.measures and metric.source for metric in nc.METRICS.values())


@pytest.mark.parametrize(("wrong", "right"), [("cndv", "cdnv"), ("effective_rnk", "effective_rank"), ("NC5", "nc5")])
def test_an_unknown_metric_suggests_the_nearest(wrong: str, right: str) -> None:
    for call in (lambda: nc.METRICS[wrong], lambda: nc.compute_metrics(moments(), [wrong])):
        with pytest.raises(nc.InputError, match=f"unknown metric '?{wrong}'? .did you mean '{right}'"):
            call()


def warnings_of(call: object) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()  # type: ignore[operator]
    return caught


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: nc.nc1(torch.ones(6, 3), torch.arange(6) % 3), "NC1 is undefined: all features are equal"),
        (
            lambda: nc.nc2(torch.eye(3), torch.arange(3), torch.zeros(3, 3)),
            "the angles of NC2 are undefined: the classifier row of class 0, 1, 2 is zero",
        ),
        (
            lambda: nc.compute_metrics(one_class(), ["cdnv", "margin_means", "effective_rank", "nc1_undivided"]),
            "cdnv, margin_means and nc1_undivided are undefined: all examples are of one class",
        ),
        (
            lambda: nc.compute_metrics(two_equal_means(), ["cdnv", "gnc2_log_means", "nc1_undivided"]),
            "CDNV is infinite: two class means coincide; the hyperspherical energy is infinite: two directions "
            "coincide; NC1 is infinite: the means of classes 0 and 1 coincide",
        ),
    ],
)
def test_one_warning_a_call_names_all_and_points_at_the_line(call: object, text: str) -> None:
    (caught,) = warnings_of(call)
    assert str(caught.message) == text
    assert caught.filename == __file__ and "lambda" in Path(__file__).read_text("utf-8").splitlines()[caught.lineno - 1]


def test_a_report_warns_once() -> None:
    (caught,) = warnings_of(lambda: nc.make_report(one_class(), torch.eye(3), metrics="all"))
    assert "NC1" in str(caught.message) and str(caught.message).endswith("are undefined: all examples are of one class")
    assert caught.filename == __file__


def one_class() -> nc.ClassMoments:
    made = nc.ClassMoments(3)
    made.update(torch.randn(6, 3), torch.ones(6, dtype=torch.int64))
    return made


def two_equal_means() -> nc.ClassMoments:
    made = nc.ClassMoments(3)
    noise = 0.1 * torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    means = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    made.update(means.repeat_interleave(2, 0) + noise.repeat(3, 1), torch.arange(3).repeat_interleave(2))
    return made
