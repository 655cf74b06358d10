"""Where the features of a network are read, and the classifier W h + b that takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralcollapse._checks import InputError
from neuralcollapse.measuring.hooks import Side
from neuralcollapse.measuring.relations import (
    DIRECT,
    Relation,
    as_float64,
    close,
    coarseness,
    returned,
    rows_of,
    sample,
    selected,
)

WAYS_OUT = (
    "name the classifier with layer=, or the module that gives its features with features= and, where there is one, "
    "the classifier with weight= and bias= (see docs/choosing-the-layer.md)"
)
ITSELF = "the network itself"
# A weight is read off a module's outputs for a matrix of at most so many numbers, so many at a time.
_NUMBERS_AT_A_TIME, _MOST_NUMBERS = 1 << 24, 1 << 30


@dataclass(frozen=True)
class Weights:
    """A classifier: logits = W h + b, or W h/‖h‖ + b where ``unit``.

    Attributes:
        read_off: whether W was read off the layer's outputs, because no parameter of the layer is W.
        convolved: whether the layer is a convolution, whose precision may differ from that of a product.
    """

    weight: Tensor
    bias: Tensor | None
    unit: bool = False
    read_off: bool = False
    convolved: bool = False

    @cached_property
    def lengths(self) -> Tensor:
        """(C,) ‖w_c‖."""
        return torch.linalg.vector_norm(_floats(self.weight), dim=1)  # type: ignore[no-any-return]

    @property
    def length(self) -> float | None:
        """The common length of the rows, or None where they differ."""
        mean = float(self.lengths.mean())
        return mean if close(self.lengths, torch.full_like(self.lengths, mean), 1e-3 * mean) else None

    def logits(self, features: Tensor) -> Tensor:
        """(…, C) of (…, p) features, as the layer was given them, in the wider type of features and weight."""
        dtype = torch.promote_types(features.dtype, self.weight.dtype)
        values, weight = features.to(self.weight.device, dtype), self.weight.to(dtype)
        with torch.autocast(weight.device.type, enabled=False):
            if self.unit:
                values = F.normalize(values, dim=-1)
            return F.linear(values, weight, None if self.bias is None else self.bias.to(weight))

    def give(self, features: Tensor, logits: Tensor, relation: Relation = DIRECT, tolerance: float = 0.0) -> bool:
        """Whether (n, C) are what ``relation`` makes of the logits of the features (n, p), up to a relative error."""
        made = self.logits(features)
        size = torch.linalg.vector_norm(_floats(features), dim=1)
        bound = (torch.ones_like(size) if self.unit else size)[:, None].to(self.lengths) * self.lengths[None]
        if self.bias is not None:
            bound = bound + self.bias.abs().to(bound)
        tolerance = max(tolerance, coarseness(features, self.weight, logits, convolved=self.convolved))
        bound = as_float64(bound)
        if relation.through:  # its scale is 1
            bound = 1.0 + bound.amax(dim=1, keepdim=True)
        return close(relation.of(as_float64(made)), logits, tolerance * abs(relation.scale) * bound)

    def cosine(self) -> Weights:
        """The cosine classifier with these rows."""
        return Weights(F.normalize(_floats(self.weight), dim=1), None, unit=True)

    def times(self, scale: float) -> Weights:
        """The classifier of these logits times a number, in float64: rounding W again would spread the rows' norms."""
        if scale == 1.0:
            return self
        weight = self.weight.double() * scale
        return replace(self, weight=weight, bias=None if self.bias is None else self.bias.to(weight) * scale)


@dataclass(frozen=True)
class ClassifierHead:
    """Where the features of a network are read, and the classifier that takes them.

    Attributes:
        name: what the report calls the layer.
        place: the module's name in the network; its call number ``call`` is given the features, or gives them.
        weights: the classifier; None where there is none.
        relation: how the tensor ``target`` that the network returns is made from W h + b; None where not known.
        tolerance: the relative error of the layer's output, if a network widens its type before returning it.
        channels_first: whether the features are along axis 1, as in a convolution.
        by_labels: whether the labels of the first batch told which of several tensors are the logits.
        notes: sentences for the report.
    """

    name: str
    place: str
    side: Side = "input"
    call: int = 0
    weights: Weights | None = None
    relation: Relation | None = None
    target: str = ""
    tolerance: float = 0.0
    channels_first: bool = False
    by_labels: bool = False
    notes: tuple[str, ...] = ()

    @property
    def point(self) -> tuple[str, Side, int]:
        """Where the features are read: processes that share a measurement must agree on it."""
        return self.place, self.side, self.call

    def moved(self, device: torch.device) -> ClassifierHead:
        """The same, with the classifier on another device."""
        if self.weights is None:
            return self
        bias = None if self.weights.bias is None else self.weights.bias.to(device)
        return replace(self, weights=replace(self.weights, weight=self.weights.weight.to(device), bias=bias))

    def features(self, entered: Tensor, left: Tensor | None, output: Any) -> Tensor:
        """(…, p) features of each example or position, from what the module was given or gave, as ``side`` says."""
        features = classes_last(entered, self.channels_first)
        pooling = "none" if self.relation is None else self.relation.pooling
        if pooling != "none":
            features = features.flatten(1, -2)
        if pooling == "mean":
            features = _floats(features).mean(dim=1)
        elif pooling == "selected":
            assert self.weights is not None
            if left is None or self.side == "output":
                logits = self.weights.logits(features)
            else:
                logits = classes_last(left, self.channels_first)
            features = features[torch.arange(len(features)), self._selected(logits, output).to(features.device)]
        if self.weights is not None and self.weights.unit:
            features = F.normalize(_floats(features), dim=-1)
        return features

    def check(self, features: Tensor, left: Tensor | None, output: Any, rows: int) -> None:
        """Raise unless the logits of some rows of the features (…, p) are what the network returned.

        For one row it is enough that the network returned the very tensor that the layer gave.
        """
        if self.weights is None or self.relation is None or not features.numel():
            return
        tensor = self._tensor(output)
        same = left is not None and (left.data_ptr(), left.numel()) == (tensor.data_ptr(), tensor.numel())
        if rows == 1 and self.side == "input" and same:
            return
        flat = features.reshape(-1, features.shape[-1])
        for wanted in rows_of(tensor, len(self.weights.weight)):
            if len(wanted) == len(flat):
                pair = sample(flat, rows), sample(wanted, rows)
                if self.weights.give(*pair, self.relation, self.tolerance):
                    return
        raise self._changed()

    def _selected(self, logits: Tensor, output: Any) -> Tensor:
        """(n,) the position of each example whose logits the network returned."""
        for rows in rows_of(self._tensor(output), logits.shape[-1]):
            where = selected(logits.flatten(1, -2), rows, self.tolerance) if len(rows) == len(logits) else None
            if where is not None:
                return where
        raise self._changed()

    def _tensor(self, output: Any) -> Tensor:
        for each in returned(output):
            if each.name == self.target:
                return each.tensor
        raise InputError(f"expected the network to return {self.target!r} for every batch, for one it did not")

    def _changed(self) -> InputError:
        return InputError(
            f"expected the network to return the logits that {self.name!r} gives for every batch, as it did for the "
            f"first, for another it did not: {WAYS_OUT}"
        )


def _floats(values: Tensor) -> Tensor:
    """In float32, or in float64 where they are."""
    return values if values.dtype == torch.float64 else values.float()


def classes_last(values: Tensor, channels_first: bool) -> Tensor:
    """(n, p, …) with the second axis moved to the end, if ``channels_first``; axes of size one behind it dropped."""
    if not channels_first or values.ndim < 3:
        return values
    return values.flatten(1) if values.shape[2:].numel() == 1 else values.movedim(1, -1)


def with_classifier(head: ClassifierHead, weights: Weights, relation: Relation | None, target: str) -> ClassifierHead:
    """The head with its classifier, how the tensor ``target`` of the network follows from it, and notes on both."""
    notes = []
    scale = 1.0 if relation is None else relation.scale
    if weights.unit and weights.length is not None and weights.bias is None:
        length = f"{scale * weights.length:.6g}"
        notes.append(
            f"cosine classifier: logits are {length} cos(w, h), so measured are features h/‖h‖ and rows {length} w/‖w‖"
        )
    elif weights.unit:
        notes.append("the classifier divides features by their length: they are measured so")
    elif scale != 1.0:
        notes.append(f"the network returns {scale:.6g} times W h + b: weight and bias are multiplied by it")
    if relation is not None:
        weights, relation = weights.times(scale), replace(relation, scale=1.0)
        if relation.through:
            notes.append(f"the network returns {relation.through} of W h + b: the logits measured are what enters it")
        if relation.pooling == "selected":
            notes.append("features are those of one position of each example, the one whose logits the network returns")
        elif relation.pooling == "mean":
            notes.append("features are their mean over positions, as the network returns the mean of the logits")
    return replace(head, weights=weights, relation=relation, target=target, notes=(*notes, *head.notes))


def is_pointwise(module: nn.Module) -> TypeGuard[nn.modules.conv._ConvNd]:
    """Whether it is a convolution of one position at a time, which is a linear layer along axis 1."""
    if not isinstance(module, nn.modules.conv._ConvNd) or module.transposed:
        return False
    padded = not isinstance(module.padding, str) and any(module.padding)
    return module.groups == 1 and not padded and all(size == 1 for size in (*module.kernel_size, *module.stride))


def weights_of(module: nn.Module, features: Tensor, logits: Tensor, entered: Tensor) -> Weights | None:
    """The W and b of a module that made (n, C) logits of (n, p) features; None where they are not W h + b.

    ``entered`` are the features in the shape in which the module was given them.
    """
    features, logits = sample(features), sample(logits)
    classes, dim = logits.shape[1], features.shape[1]
    if isinstance(module, nn.Linear) or is_pointwise(module):
        weight, bias = module.weight, module.bias
        if weight.is_floating_point() and weight.shape[:2] == (classes, dim) and weight.numel() == classes * dim:
            matrix = weight.detach().reshape(classes, dim)
            own = Weights(matrix, None if bias is None else bias.detach(), convolved=is_pointwise(module))
            if own.give(features, logits):
                return own
    return _read_off(module, features, logits, entered)


def _read_off(module: nn.Module, features: Tensor, logits: Tensor, entered: Tensor) -> Weights | None:
    """W = f(I) − f(0), b = f(0) of a module f, if its outputs are W h + b, or W h/‖h‖ + b of a cosine classifier."""
    classes, dim = logits.shape[1], features.shape[1]
    if dim * max(classes, dim) > _MOST_NUMBERS:
        return None
    channels_first = entered.shape[-1] != dim or (entered.ndim > 2 and is_pointwise(module))
    shape = (-1, dim, *[1] * (entered.ndim - 2)) if channels_first else (-1, *[1] * (entered.ndim - 2), dim)

    def f(rows: Tensor) -> Tensor:
        made = module(rows.reshape(shape))
        return made.detach().reshape(len(rows), classes)  # type: ignore[no-any-return]

    try:
        bias = f(features.new_zeros(1, dim))[0]
        step = max(1, _NUMBERS_AT_A_TIME // dim)
        blocks = torch.split(torch.arange(dim, device=features.device), step)
        parts = [f(features.new_zeros(len(block), dim).scatter_(1, block[:, None], 1.0)) for block in blocks]
    except Exception:  # the module is the user's own, and may need more than features
        return None
    bias = torch.nan_to_num(_floats(bias))  # a cosine classifier divides zero by zero
    weight = (torch.cat(parts).to(bias.dtype) - bias).T.contiguous()
    if not bool(weight.any()):
        return None
    for unit in (False, True):
        found = Weights(weight, bias if bool(bias.any()) else None, unit, True, is_pointwise(module))
        if found.give(features, logits):
            return found
    return None
