"""Head: where the features of a network are read, and the classifier of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from neuralcollapse._checks import InputError
from neuralcollapse.measuring.hooks import Side
from neuralcollapse.measuring.relations import Relation, Weights, returned, rows_of, selected, some

WAYS_OUT = (
    "name the classifier with layer=, or the module that gives its features with features= and, where there is one, "
    "the classifier with weight= and bias= (see docs/choosing-the-layer.md)"
)
ITSELF = "the network itself"


@dataclass(frozen=True)
class Head:
    """What is measured: where the features are read, and the classifier of them.

    Attributes:
        name: of the layer, as the report says it.
        place: of the module in :func:`clean_names`; the features are what its call number ``call`` is given or gives.
        weights: the classifier; None where there is none.
        relation: what the network's tensor ``target`` is of W h + b; None where it is not known to be anything of it.
        error: the relative error of the layer's output by its type, where a network widens it before it returns it.
        channels_first: whether features are along axis 1, as of a convolution.
        by_labels: whether the first batch's labels told which of several tensors are the logits.
        notes: sentences for the report.
    """

    name: str
    place: str
    side: Side = "input"
    call: int = 0
    weights: Weights | None = None
    relation: Relation | None = None
    target: str = ""
    error: float = 0.0
    channels_first: bool = False
    by_labels: bool = False
    notes: tuple[str, ...] = ()

    @property
    def point(self) -> tuple[str, Side, int]:
        """Where the features are read."""
        return self.place, self.side, self.call

    def moved(self, device: torch.device) -> Head:
        """With its classifier on another device."""
        if self.weights is None:
            return self
        bias = None if self.weights.bias is None else self.weights.bias.to(device)
        return replace(self, weights=replace(self.weights, weight=self.weights.weight.to(device), bias=bias))

    def features(self, entered: Tensor, left: Tensor | None, output: Any) -> Tensor:
        """(…, p) features of each example, or of each position.

        Args:
            entered: what the module was given, or gave, as ``side`` says; left: what it gave; output: the network's.
        """
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
            features = nn.functional.normalize(_floats(features), dim=-1)
        return features

    def check(self, features: Tensor, left: Tensor | None, output: Any, rows: int) -> None:
        """Compare logits of some of the features (…, p) that :meth:`features` gave with what the network returned.

        Of one row it is taken as proof, too, that the network returned the very tensor that the layer gave.

        Raises:
            InputError: they differ.
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
                pair = some(flat, rows), some(wanted, rows)
                if self.weights.give(*pair, self.relation, self.error):
                    return
        raise self._changed()

    def _selected(self, logits: Tensor, output: Any) -> Tensor:
        """(n,) the positions whose logits the network returns."""
        for rows in rows_of(self._tensor(output), logits.shape[-1]):
            by_example = logits.flatten(1, -2)
            where = selected(by_example, rows, self.error) if len(rows) == len(logits) else None
            if where is not None:
                return where
        raise self._changed()

    def _tensor(self, output: Any) -> Tensor:
        for each in returned(output):
            if each.name == self.target:
                return each.tensor
        raise InputError(f"expected the network to return {self.target!r} for every batch, it did not for one")

    def _changed(self) -> InputError:
        return InputError(
            f"expected what the network returns to be the logits that {self.name!r} gives, as for the first batch, "
            f"it is not for another: {WAYS_OUT}"
        )


def _floats(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def classes_last(values: Tensor, channels_first: bool) -> Tensor:
    """Features or classes of (n, p, …) moved to the last axis; positions of a single pixel dropped."""
    if not channels_first or values.ndim < 3:
        return values
    return values.flatten(1) if values.shape[2:].numel() == 1 else values.movedim(1, -1)


def of_relation(head: Head, weights: Weights, relation: Relation | None, target: str) -> Head:
    """With a classifier, what the network's tensor ``target`` is of its logits, and notes of both."""
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
