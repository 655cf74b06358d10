"""Features, labels and logits of a whole data set, in the order of its loader."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from neuralcollapse._checks import InputError
from neuralcollapse.measuring.forward import FeatureReader
from neuralcollapse.measuring.head import ClassifierHead, Weights
from neuralcollapse.measuring.hooks import first_tensor
from neuralcollapse.measuring.options import ReadKeywords, ReadOptions, parse, with_options_of
from neuralcollapse.measuring.preparation import evaluation, prepared


@with_options_of(ReadOptions)
def collect_features(model: nn.Module, loader: Iterable[Any], **options: Unpack[ReadKeywords]) -> tuple[Tensor, Tensor]:
    """The features and labels of a whole data set, in the loader's order; the model is left as it was.

    They are what :func:`neuralcollapse.measure` measures: what enters the classifier, which is found in the same way.
    ``measure_features`` takes them.

    Args:
        model: as for :func:`neuralcollapse.measure`.
        loader: as for :func:`neuralcollapse.measure`.
        **options

    Returns:
        features: (n, p), in the type and on the device in which the network computes them.
        labels: (n,) int64, on the same device.

    Raises:
        InputError: what ``measure`` refuses; or features beyond ``memory_budget``. Joining those of all batches takes
            as much memory again for a moment.

    Example:
        >>> batches = [(torch.eye(4), torch.tensor([0, 1, 0, 1]))] * 2
        >>> features, labels = collect_features(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), batches)
        >>> features.shape, labels.tolist()
        (torch.Size([8, 3]), [0, 1, 0, 1, 0, 1, 0, 1])
    """
    checked = parse(ReadOptions, options, "nc.collect_features")
    with prepared(model, loader) as inner:
        reader = FeatureReader(inner, checked)
        features: list[Tensor] = []
        labels: list[Tensor] = []
        size, number = 0, 0
        with closing(reader.batches(loader)) as batches:
            for batch in batches:
                (rows,) = batch.features.values()
                size, number = size + rows.numel() * rows.element_size(), number + len(rows)
                if size > checked.memory_budget:
                    raise InputError(
                        f"expected features that fit memory_budget = {checked.memory_budget:,.0f} bytes, the first "
                        f"{number:,} examples take {size:,}: raise it, or use nc.measure, which need not keep them"
                    )
                features.append(rows)
                labels.append(batch.labels)
        reader.require_examples(number)
    return torch.cat(features), torch.cat(labels)


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

    For networks whose classifier is known, such as the trainer's own, for which :func:`find_classifier` found it once:
    nothing is compared, so that outputs that are not finite are collected like any others.

    Args:
        model: returns logits (n, C), and has no wrapper; loader: each example once.
        layer: the classifier.

    Raises:
        InputError: the layer is no module of the model, or there are no batches.
    """
    name = next((name for name, module in model.named_modules() if module is layer), None)
    if name is None:
        raise InputError(f"expected layer to be a module of the model, got a {type(layer).__name__} that is not")
    weights = Weights(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
    with evaluation(model):
        reader = FeatureReader(model, ReadOptions(), head=ClassifierHead(name, name, weights=weights))
        features: list[Tensor] = []
        labels: list[Tensor] = []
        logits: list[Tensor] = []
        with closing(reader.batches(loader)) as batches:
            for batch in batches:
                returned = first_tensor(batch.output)
                assert returned is not None
                features.append(batch.features[name])
                labels.append(batch.labels)
                logits.append(returned)
    reader.require_examples(sum(map(len, labels)))
    return Outputs(name, torch.cat(features), torch.cat(labels), torch.cat(logits), weights.weight, weights.bias)
