"""Features, labels and logits of a whole data set, in the order of its loader."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuralcollapse._checks import InputError
from neuralcollapse.measuring.forward import FeatureReader
from neuralcollapse.measuring.head import ClassifierHead, Weights
from neuralcollapse.measuring.hooks import first_tensor
from neuralcollapse.measuring.options import Array, Features, Layer, MeasureOptions
from neuralcollapse.measuring.preparation import evaluation, prepared


def collect_features(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layer: Layer | None = None,
    features: Features | None = None,
    weight: Tensor | Array | None = None,
    bias: Tensor | Array | None = None,
    next_token: bool = False,
    device: torch.device | str | None = None,
    memory_budget: float = 4 << 30,
) -> tuple[Tensor, Tensor]:
    """The features and labels of a whole data set, in the loader's order; the model is left as it was.

    The features are those that :func:`neuralcollapse.measure` measures: what enters the classifier, which is found in
    the same way.

    Args:
        model, loader, layer, features, weight, bias, next_token, device: as for ``measure``.
        memory_budget: bytes of features to keep; joining those of all batches takes as many again for a moment.

    Returns:
        features: (n, p), of the type and on the device in which the network computes them.
        labels: (n,) int64, on the same device.

    Raises:
        InputError: what ``measure`` refuses; or features beyond ``memory_budget``.

    Example:
        >>> batches = [(torch.eye(4), torch.tensor([0, 1, 0, 1]))] * 2
        >>> features, labels = collect_features(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), batches)
        >>> features.shape, labels.tolist()
        (torch.Size([8, 3]), [0, 1, 0, 1, 0, 1, 0, 1])
    """
    options = MeasureOptions(
        layer=layer,
        features=features,
        weight=weight,
        bias=bias,
        next_token=next_token,
        device=device,
        memory_budget=memory_budget,
    )
    with prepared(model, loader) as inner:
        reader, size = FeatureReader(inner, options), 0
        kept: list[tuple[Tensor, Tensor]] = []
        with closing(reader.batches(loader)) as batches:
            for batch in batches:
                (rows,) = batch.features.values()
                size += rows.numel() * rows.element_size()
                if size > options.memory_budget:
                    examples = sum(len(labels) for _, labels in kept) + len(rows)
                    raise InputError(
                        f"expected features that fit memory_budget = {options.memory_budget:,.0f} bytes, the first "
                        f"{examples:,} examples take {size:,}: raise it, or use nc.measure, which need not keep them"
                    )
                kept.append((rows, batch.labels))
        reader.require_examples(sum(len(labels) for _, labels in kept), loader)
    return torch.cat([rows for rows, _ in kept]), torch.cat([labels for _, labels in kept])


@dataclass(frozen=True)
class Outputs:
    """What a network gives for a data set, in the loader's order.

    Attributes:
        layer: the classifier's name; weight: (C, p) and bias: (C,) or None, which are its own, no copies.
        features: (n, p) that entered the classifier; labels: (n,); logits: (n, C) that the network returned.
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
        head = ClassifierHead(name, name, weights=weights)
        reader = FeatureReader(model, MeasureOptions(), head=head, keep_output=True)
        with closing(reader.batches(loader)) as batches:
            kept = [(batch.features[name], batch.labels, first_tensor(batch.output)) for batch in batches]
    reader.require_examples(sum(len(labels) for _, labels, _ in kept), loader)
    features, labels, logits = (torch.cat(part) for part in zip(*kept, strict=True))
    return Outputs(name, features, labels, logits, weights.weight, weights.bias)
