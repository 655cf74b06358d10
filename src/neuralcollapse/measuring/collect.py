"""Features, labels and logits of a whole data set, in the order of its loader."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuralcollapse._checks import InputError
from neuralcollapse.measuring.hooks import Tap, clean_names, evaluation, first_tensor
from neuralcollapse.measuring.passes import Batches, NoData


@dataclass(frozen=True)
class Outputs:
    """What a network gives for a data set, in the loader's order.

    Attributes:
        layer: the classifier's name, as ``model.named_modules()`` has it.
        features: (n, p) that entered the classifier; labels: (n,); logits: (n, C) that the network returned.
        weight: (C, p) of the classifier; bias: (C,) or None. Neither is a copy.
    """

    layer: str
    features: Tensor
    labels: Tensor
    logits: Tensor
    weight: Tensor
    bias: Tensor | None


def collect_outputs(model: nn.Module, loader: Iterable[Any], layer: nn.Linear) -> Outputs:
    """Run a network over a loader of (inputs, labels), and keep what enters and leaves its classifier.

    For networks whose classifier is known, such as the trainer's own, which :func:`find_classifier` found once: nothing
    is compared, so that outputs that are not finite are collected like any others. The model is in eval mode meanwhile.

    Args:
        model: returns logits (n, C); loader: batches as for :func:`neuralcollapse.measure`, each example once.
        layer: the classifier.

    Raises:
        InputError: the layer is no module of the model, or there are no batches.
    """
    names = {module: name for name, module in clean_names(model).items()}
    if layer not in names:
        raise InputError(f"expected layer to be a module of the model, got a {type(layer).__name__} that is not")
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    features: list[Tensor] = []
    labels: list[Tensor] = []
    logits: list[Tensor] = []
    with evaluation(model), Tap(model, layer, names[layer]).placed() as tap:
        for targets, output in Batches(model, loader, device):
            returned = first_tensor(output)
            assert returned is not None
            features.append(tap.take()[0])
            labels.append(targets)
            logits.append(returned)
    if not labels:
        raise NoData
    bias = None if layer.bias is None else layer.bias.detach()
    return Outputs(names[layer], torch.cat(features), torch.cat(labels), torch.cat(logits), layer.weight.detach(), bias)
