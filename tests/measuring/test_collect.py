"""collect_features: what measure measures, in the loader's order; and the trainer's own collect_outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.networks import Network, batches_of, inputs_and_labels, loader
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse.measuring.classifier import find_classifier
from neuralcollapse.measuring.collect import collect_outputs


def test_features_and_labels_are_in_the_loaders_order() -> None:
    model = Network().train()
    inputs, labels = inputs_and_labels()
    state = torch.get_rng_state()
    features, found = nc.collect_features(model, batches_of(inputs, labels, 7))
    torch.testing.assert_close(features, model.features(inputs))
    assert torch.equal(found, labels) and features.dtype == torch.float32 and found.dtype == torch.int64
    assert all(module.training for module in model.modules()) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "options", [{}, {"layer": "neck"}, {"features": "body"}, {"features": ("head", "input")}, {"memory_budget": 1200}]
)
def test_what_is_collected_is_what_is_measured(options: dict[str, Any]) -> None:
    model = Network()
    features, labels = nc.collect_features(model, loader(), **options)
    want = nc.measure(model, loader(), **options)
    torch.testing.assert_close(nc.measure_features(features, labels, num_classes=want.num_classes).means, want.means)
    assert len(features) == want.num_examples


def test_positions_are_examples_and_those_without_a_label_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    inputs, labels = torch.randn(6, 7, 4), torch.randint(0, 3, (6, 7))
    labels[0, :3] = -100
    features, found = nc.collect_features(model, batches_of(inputs, labels, 4), next_token=True)
    after = labels[:, 1:].flatten()
    with torch.no_grad():
        hidden = model[:2](inputs)[:, :-1].flatten(0, 1)
    torch.testing.assert_close(features, hidden[after >= 0])
    assert torch.equal(found, after[after >= 0])


class Counted:
    """A loader that counts the batches it has given."""

    def __init__(self, size: int) -> None:
        self.given, self.size = 0, size

    def __iter__(self) -> Any:
        for _ in range(self.size):
            self.given += 1
            yield torch.ones(10, 5), torch.arange(10) % 3


def test_features_that_do_not_fit_are_refused_before_the_memory_is_full() -> None:
    batches = Counted(100)
    message = r"memory_budget = 1,000 bytes, the first 50 examples take 1,200: raise it, or use nc\.measure"
    with pytest.raises(nc.InputError, match=message):
        nc.collect_features(Network(), batches, memory_budget=1000)
    assert batches.given == 5


@pytest.mark.parametrize(
    ("batches", "options", "message"),
    [
        ([], {}, "at least one batch, got none"),
        ([(torch.ones(0, 5), torch.ones(0).long())], {}, "only empty batches"),
        (3, {}, "expected a loader of batches, got int"),
        (loader(), {"layer": "hed"}, r"got 'hed' \(did you mean 'head'"),
        (loader(), {"layer": 7}, "expected layer= to be a module or its name, got int"),
        (loader(), {"memory_budget": -1}, "memory_budget of at least 0"),
    ],
)
def test_wrong_input_is_named(batches: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(nc.InputError, match=message):
        nc.collect_features(Network(), batches, **options)


# --- a known classifier ---


def forward(model: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return model(inputs)


def test_outputs_of_a_known_classifier_are_bit_for_bit_those_of_the_forward_pass() -> None:
    model = Network().eval()
    inputs, labels = inputs_and_labels()
    batches = batches_of(inputs, labels, 16)
    layer = find_classifier(model, lambda: model(inputs))
    assert layer is model.head
    outputs = collect_outputs(model, batches, layer)
    assert outputs.layer == "head" and torch.equal(outputs.labels, labels)
    assert torch.equal(outputs.logits, torch.cat([forward(model, part) for part, _ in batches]))
    assert torch.equal(outputs.features, torch.cat([model.features(part) for part, _ in batches]))
    assert torch.equal(outputs.weight, model.head.weight) and not outputs.weight.requires_grad
    assert outputs.bias is not None and torch.equal(outputs.bias, model.head.bias)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3e38])
def test_outputs_that_are_not_finite_come_through(value: float) -> None:
    model = Network()
    with torch.no_grad():
        model.head.weight.fill_(value)
    outputs = collect_outputs(model, loader(), model.head)
    assert not bool(torch.isfinite(outputs.logits).all()) and len(outputs.labels) == 50


def test_another_networks_layer_is_refused() -> None:
    with pytest.raises(nc.InputError, match="expected layer to be a module of the model, got a Linear that is not"):
        collect_outputs(Network(), loader(), nn.Linear(6, 3))
    with pytest.raises(nc.InputError, match="at least one batch, got none"):
        collect_outputs(model := Network(), [], model.head)
