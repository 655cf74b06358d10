"""The ways of measuring that the shared tester goes through; a module of its own, so that processes can import it."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse.passes import Tally


def core(batches: list[tuple[Tensor, Tensor]], layer: nn.Linear, distributed: bool = False, **options: Any) -> dict:
    """Moments and a tally by hand."""
    moments = nc.ClassMoments(layer.out_features)
    for features, labels in batches:
        moments.update(features, labels)
    if distributed:
        moments.all_reduce()
    tally = Tally(moments, layer.weight, layer.bias)
    for features, labels in batches:
        tally.add(features, labels)
    if distributed:
        tally.all_reduce()
    return nc.make_report(moments, layer.weight, layer.bias, tally=tally, **options).to_dict()


class Widen(nn.Module):
    """Features as they come, in the classifier's type, through the classifier."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        return self.layer(features.to(self.layer.weight.dtype))


def model(batches: list[tuple[Tensor, Tensor]], layer: nn.Linear, **options: Any) -> dict:
    """nc.measure."""
    return nc.measure(Widen(layer), batches, **options).to_dict()


def small_budget(batches: list[tuple[Tensor, Tensor]], layer: nn.Linear, **options: Any) -> dict:
    """nc.measure in two passes."""
    return nc.measure(Widen(layer), batches, memory_budget=1, **options).to_dict()


def monitor(batches: list[tuple[Tensor, Tensor]], layer: nn.Linear, **options: Any) -> dict:
    """nc.Monitor."""
    found = nc.Monitor(Widen(layer), batches, **options)
    found(1)
    return found.history[-1]


def torchmetrics(
    batches: list[tuple[Tensor, Tensor]], layer: nn.Linear, distributed: bool = False, **options: Any
) -> dict:
    """The torchmetrics metric, which finds the processes itself; computed twice, and reset before use."""
    from neuralcollapse.integrations.torchmetrics import NeuralCollapse

    metric = NeuralCollapse(layer, **options)
    for features, labels in batches[:1]:
        metric.update(features, labels)
    metric.reset()
    for features, labels in batches:
        metric.update(features, labels)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric NeuralCollapse was called before")
        first = metric.compute()
        second = metric.compute()
    assert first.keys() == second.keys()
    return first
