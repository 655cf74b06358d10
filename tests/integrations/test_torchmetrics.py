"""What a torchmetrics metric must also do: be copied, pickled, collected, called, and refuse."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from helpers.metric_tester import OPTIONS, assert_same, classifier, examples, reference, split
from torch import nn

import neuralcollapse as nc

torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
from neuralcollapse.integrations.torchmetrics import NeuralCollapse  # noqa: E402


def halves() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return split(*examples(), 32)


@pytest.mark.parametrize("duplicate", ["pickle", "deepcopy", "clone"])
def test_a_duplicate_goes_on_where_the_metric_was(duplicate: str) -> None:
    layer = classifier()
    metric = NeuralCollapse(layer, **OPTIONS)
    first, second = halves()
    metric.update(*first)
    how = {"pickle": lambda m: pickle.loads(pickle.dumps(m)), "deepcopy": copy.deepcopy, "clone": lambda m: m.clone()}
    other = how[duplicate](metric)
    other.update(*second)
    metric.update(*first)
    assert_same(other.compute(), reference(*examples(), layer), 1e-12)


def test_in_a_collection_it_reads_the_classifier_that_is_trained() -> None:
    layer = classifier()
    accuracy = torchmetrics.classification.MulticlassAccuracy(5, average="micro")
    collection = torchmetrics.MetricCollection({"nc": NeuralCollapse(layer, **OPTIONS)})
    with torch.no_grad():
        layer.weight.neg_()
    for features, labels in halves():
        collection.update(features, labels)
        accuracy.update(layer(features), labels)
    found = collection.compute()
    assert_same(found, reference(*examples(), layer), 1e-12)
    assert float(found["accuracy"]) == pytest.approx(float(accuracy.compute()), rel=1e-6)


def test_calling_it_gives_the_batch_and_keeps_the_whole() -> None:
    layer = classifier()
    metric = NeuralCollapse(layer, **OPTIONS)
    for features, labels in halves():
        assert_same(metric(features, labels), reference(features, labels, layer), 1e-12)
    assert_same(metric.compute(), reference(*examples(), layer), 1e-12)


def test_without_features_all_but_decisions_and_in_one_state() -> None:
    layer = classifier()
    metric = NeuralCollapse(layer, keep_features=False, metrics=["cdnv"])
    for features, labels in halves():
        metric.update(features, labels)
    found = metric.compute()
    wanted = nc.measure_features(*examples(), layer.weight, layer.bias, metrics=["cdnv"]).numbers()
    left_out = wanted.keys() - found.keys()
    assert {"nc4_mismatch", "accuracy"} <= left_out
    assert not {"nc1", "nc3", "mse.total", "cdnv"} & left_out
    assert_same(found, {name: value for name, value in wanted.items() if name in found}, 1e-12)
    assert metric.features == []


@pytest.mark.parametrize("order", [("whole", "short"), ("short", "whole")])
def test_metrics_with_and_without_features_do_not_share_their_state(order: tuple[str, str]) -> None:
    """A collection makes one group of metrics whose states are alike, and updates only the first of them."""
    layer = classifier()
    kinds = {name: NeuralCollapse(layer, keep_features=name == "whole", **OPTIONS) for name in order}
    collection = torchmetrics.MetricCollection(kinds)
    for features, labels in halves():
        collection.update(features, labels)
    found = collection.compute()
    want = reference(*examples(), layer)
    assert len(collection.compute_groups) == 2
    for name in ("nc1", "nc3", "mse.total"):
        assert float(found[f"short_{name}"]) == float(found[f"whole_{name}"]) == pytest.approx(want[name])
    assert float(found["whole_accuracy"]) == want["accuracy"] and "short_accuracy" not in found
    with pytest.raises(nc.InputError, match="got none of features, labels"):
        kinds["whole"].merge_state(kinds["short"].metric_state)


@pytest.mark.parametrize("first", ["metric", "classifier"])
@pytest.mark.parametrize("way", ["average", "deepcopy", "pickle after deepcopy"])
def test_the_metric_of_a_copied_network_reads_the_copys_classifier(first: str, way: str) -> None:
    layer = classifier()
    parts = {"classifier": layer, "metric": NeuralCollapse(layer, **OPTIONS)}
    model = nn.ModuleDict({name: parts[name] for name in (first, *(parts.keys() - {first}))})
    twin = torch.optim.swa_utils.AveragedModel(model).module if way == "average" else copy.deepcopy(model)
    if way.startswith("pickle"):
        twin = pickle.loads(pickle.dumps(twin))
    old = classifier()
    with torch.no_grad():
        layer.weight.neg_()
    for features, labels in halves():
        twin["metric"].update(features, labels)
        model["metric"].update(features, labels)
    assert_same(twin["metric"].compute(), reference(*examples(), old), 1e-12)
    assert_same(model["metric"].compute(), reference(*examples(), layer), 1e-12)
    with torch.no_grad():
        twin["classifier"].weight.add_(torch.eye(5, 6))
    twin["metric"].reset()
    twin["metric"].update(*examples())
    assert_same(twin["metric"].compute(), reference(*examples(), twin["classifier"]), 1e-12)


def test_its_parameters_and_state_are_not_the_models() -> None:
    metric = NeuralCollapse(classifier())
    assert list(metric.parameters()) == []
    assert metric.state_dict() == {}


def test_nothing_seen_and_wrong_settings_are_refused() -> None:
    with pytest.raises(nc.InputError, match=r"expected the classifier, an nn\.Linear, got Conv2d"):
        NeuralCollapse(nn.Conv2d(1, 1, 1))
    with pytest.raises(nc.InputError, match="nc77"):
        NeuralCollapse(classifier(), metrics="nc77")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchmetrics' own: compute before update
        with pytest.raises(nc.InputError, match=r"no examples|at least one example"):
            NeuralCollapse(classifier()).compute()


@pytest.mark.wrong_input
def test_a_refused_batch_changes_nothing() -> None:
    layer = classifier()
    metric = NeuralCollapse(layer, **OPTIONS)
    first, second = halves()
    metric.update(*first)
    with pytest.raises(nc.InputError, match=r"NaN|finite"):
        metric.update(torch.full((2, 6), torch.nan, dtype=torch.float64), torch.tensor([0, 1]))
    metric.update(*second)
    assert_same(metric.compute(), reference(*examples(), layer), 1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e19, 1e30])
def test_features_whose_squares_leave_float32(scale: float) -> None:
    """The power of two that moments divide them by is part of the metric's state, also where it is merged and reset."""
    torch.manual_seed(0)
    features, labels, classifier = torch.randn(60, 5), torch.arange(60) % 3, torch.nn.Linear(5, 3)
    metric, other, plain = NeuralCollapse(classifier), NeuralCollapse(classifier), NeuralCollapse(classifier)
    metric.update(features[:20] * scale, labels[:20])
    other.update(features[20:] * scale, labels[20:])
    metric.merge_state(other)
    plain.update(features, labels)
    got, want = metric.compute(), plain.compute()
    for name in ("nc1", "nc2.maximal_angle_means", "mse.ls", "nc3"):
        assert float(got[name]) == pytest.approx(float(want[name]), rel=1e-4), name
    metric.reset()
    metric.update(features, labels)
    assert float(metric.compute()["nc1"]) == pytest.approx(float(want["nc1"]), rel=1e-6)


def test_a_state_of_before_the_type_was_kept_is_merged() -> None:
    torch.manual_seed(0)
    features, labels, classifier = torch.randn(60, 5), torch.arange(60) % 3, torch.nn.Linear(5, 3)
    metric, other, plain = NeuralCollapse(classifier), NeuralCollapse(classifier), NeuralCollapse(classifier)
    metric.update(features[:20], labels[:20])
    other.update(features[20:], labels[20:])
    plain.update(features, labels)
    metric.merge_state({name: state for name, state in other.metric_state.items() if name != "given_eps"})
    assert float(metric.compute()["nc1"]) == pytest.approx(float(plain.compute()["nc1"]), rel=1e-6)


def test_batches_may_share_their_memory() -> None:
    torch.manual_seed(0)
    features, labels, classifier = torch.randn(60, 5), torch.randint(0, 3, (60,)), torch.nn.Linear(5, 3)
    metric, want = NeuralCollapse(classifier), NeuralCollapse(classifier)
    want.update(features, labels)
    x, y = torch.empty(20, 5), torch.empty(20, dtype=torch.int64)
    for start in range(0, 60, 20):
        x.copy_(features[start : start + 20])
        y.copy_(labels[start : start + 20])
        metric.update(x, y)
    for name in ("accuracy", "nearest_mean_accuracy", "nc4_mismatch"):
        assert metric.compute()[name] == want.compute()[name], name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_decy": 0.1}, r"weight_decy.*did you mean 'weight_decay'"),
        ({"weight_decay": -1}, "weight decay of at least 0, got -1"),
        ({"weighting": "classes"}, "expected weighting 'example', 'class'"),
        ({"metrics": "nc5"}, "needs out-of-distribution data"),
        ({"metrics": "cdvn"}, "cdvn"),
        ({"compute_on_cpu": 3}, "compute_on_cpu"),
    ],
)
def test_impossible_options_are_named_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(nc.InputError, match=message):
        NeuralCollapse(nn.Linear(4, 3), **options)
