"""Wrong input to measure() and measure_features(): one line that names the value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.cases import data, named
from helpers.networks import Network, batches_of, inputs_and_labels, loader
from torch import nn

import neuralcollapse as nc
from neuralcollapse._checks import InputError


def test_a_model_without_a_linear_layer_is_named() -> None:
    for layer in (None, "1"):
        with pytest.raises(InputError, match=r"nn\.Linear"):
            nc.measure(nn.Sequential(nn.Flatten(), nn.ReLU()), loader(), layer=layer)


@pytest.mark.parametrize("layer", ["body", "body.1", "nowhere", ""])
def test_a_layer_that_is_no_linear_is_named(layer: str) -> None:
    with pytest.raises(InputError, match=repr(layer)):
        nc.measure(Network(), loader(), layer=layer)


def test_a_linear_layer_that_is_never_reached_is_refused() -> None:
    model = Network()
    model.spare = nn.Linear(6, 3)
    assert nc.measure(model, loader()).dim == 6  # the spare one, registered last, is not taken
    with pytest.raises(InputError, match="reach"):
        nc.measure(model, loader(), layer="spare")


@pytest.mark.parametrize("layer", [None, "head"])
def test_an_empty_loader_is_refused(layer: str | None) -> None:
    with pytest.raises(InputError, match="at least one"):
        nc.measure(Network(), [], layer=layer)


def test_empty_features_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        nc.measure_features(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(3, 4))


def test_nan_features_are_named_with_their_row() -> None:
    d = data(named("balanced"))
    features = d.features.copy()
    features[17, 2] = np.nan
    with pytest.raises(InputError, match=r"NaN.*17"):
        nc.measure_features(features, d.labels, d.weight, d.bias)
    inputs, labels = inputs_and_labels()
    inputs[30, 0] = float("inf")
    with pytest.raises(InputError, match="finite"):
        nc.measure(Network(), batches_of(inputs, labels))


WRONG_FEATURES = {
    "label-too-large": ({"labels": np.array([0, 1, 2, 7])}, "7"),
    "label-negative": ({"labels": np.array([0, 1, 2, -1])}, "-1"),
    "float-labels": ({"labels": np.array([0.0, 1.0, 2.0, 0.0])}, "integer labels"),
    "one-hot-labels": ({"labels": np.eye(4, 3, dtype=np.int64)}, "(4, 3)"),
    "too-few-labels": ({"labels": np.array([0, 1])}, "(2,)"),
    "text-labels": ({"labels": np.array(["a", "b", "c", "a"])}, "labels"),
    "flat-features": ({"features": np.zeros(4)}, "(4,)"),
    "integer-features": ({"features": np.zeros((4, 2), dtype=np.int64)}, "int64"),
    "weight-transposed": ({"weight": np.zeros((2, 3))}, "(2, 3)"),
    "flat-weight": ({"weight": np.zeros(3)}, "(3,)"),
    "bias-too-long": ({"bias": np.zeros(4)}, "(4,)"),
    "nan-weight": ({"weight": np.full((3, 2), np.nan)}, "weight"),
    "infinite-bias": ({"bias": np.full(3, np.inf)}, "bias"),
    "negative-decay": ({"weight_decay": -0.1}, "-0.1"),
    "unknown-weighting": ({"weighting": "classes"}, "classes"),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize("name", WRONG_FEATURES)
def test_wrong_features_are_named_in_one_line(name: str) -> None:
    change, names = WRONG_FEATURES[name]
    arguments: dict[str, Any] = {
        "features": np.arange(8.0).reshape(4, 2) ** 2,
        "labels": np.array([0, 1, 2, 0]),
        "weight": np.ones((3, 2)),
        "bias": np.zeros(3),
    }
    with pytest.raises(InputError) as error:
        nc.measure_features(**(arguments | change))
    assert names in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("batch", "names"),
    [
        (torch.zeros(4, 5), "Tensor"),
        ((torch.zeros(4, 5),), "inputs, labels"),
        ((torch.zeros(4, 5), torch.zeros(4)), "float32"),
        ((torch.zeros(4, 5), torch.zeros(3, dtype=torch.int64)), "(3,)"),
        ((torch.zeros(4, 5), torch.full((4,), 3)), "3"),
        ({"inputs": torch.zeros(4, 5)}, "labels"),
    ],
    ids=["no-labels", "one-entry", "float-labels", "too-few-labels", "label-too-large", "dictionary-without-labels"],
)
@pytest.mark.parametrize("layer", [None, "head"])
def test_wrong_batches_are_named(batch: Any, names: str, layer: str | None) -> None:
    with pytest.raises(InputError) as error:
        nc.measure(Network(), [batch], layer=layer)
    assert names in str(error.value)


def test_labels_of_one_column_are_read_as_labels() -> None:
    inputs, labels = inputs_and_labels()
    model = Network()
    assert nc.measure(model, batches_of(inputs, labels[:, None])) == nc.measure(model, batches_of(inputs, labels))
    assert nc.measure_features(inputs, labels[:, None].numpy()) == nc.measure_features(inputs, labels)
    features, found = nc.collect_features(model, batches_of(inputs, labels[:, None]))
    assert torch.equal(found, labels) and len(features) == len(labels)


@pytest.mark.parametrize("options", [{}, {"layer": "head"}, {"features": "neck"}])
@pytest.mark.parametrize("function", [nc.measure, nc.measure_layers, nc.collect_features])
def test_labels_that_are_all_left_out_are_named(function: Any, options: dict[str, Any]) -> None:
    inputs, labels = inputs_and_labels()
    with pytest.raises(InputError, match="expected at least one example, all labels are −100, which leaves"):
        function(Network(), batches_of(inputs, torch.full_like(labels, -100)), **options)


@pytest.mark.parametrize(
    ("ood", "message"),
    [
        (torch.full((3, 5), torch.nan), "ood=.* NaN or infinity in row 0"),
        (torch.cat([torch.ones(4, 5), torch.full((1, 5), torch.inf)]), "ood=.*NaN or infinity in row 4"),
        (torch.ones(0, 5), r"out-of-distribution data \(ood=\) with at least one example, got none"),
        (torch.ones(3, 4), r"out-of-distribution data \(ood=\): expected features with p = 5 columns, got 4"),
    ],
)
def test_out_of_distribution_features_that_do_not_fit_are_named(ood: torch.Tensor, message: str) -> None:
    inputs, labels = inputs_and_labels()
    with pytest.raises(InputError, match=message):
        nc.measure_features(inputs, labels, ood=ood, metrics="nc5")


def test_out_of_distribution_batches_that_do_not_fit_are_named() -> None:
    for ood, message in (
        ([torch.full((3, 5), torch.nan)], r"out-of-distribution data \(ood=\): expected finite features"),
        ([torch.ones(0, 5)], r"out-of-distribution data \(ood=\) with at least one example, got none"),
        ([], r"out-of-distribution data \(ood=\) with at least one example, got none"),
    ):
        for function in (nc.measure, nc.measure_layers):
            with pytest.raises(InputError, match=message):
                function(Network(), loader(), ood=ood, metrics="nc5")


@pytest.mark.parametrize("layer", [7, None, nn.Linear(2, 2)])
def test_a_name_for_the_report_must_be_text(layer: Any) -> None:
    with pytest.raises(InputError, match="expected layer= to be a name for the report, got"):
        nc.measure_features(*inputs_and_labels(), layer=layer)
