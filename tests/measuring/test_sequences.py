"""Sequences: each position is an example, and the vocabulary may be the classes."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import neuralcollapse as nc

VOCABULARY, WIDTH, LENGTH = 5, 4, 7


class Language(nn.Module):
    """A causal model of the smallest kind: what it knows of the past is the token it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embedding(input_ids)))


def sequences(padded: bool) -> tuple[Tensor, Tensor]:
    """Token numbers, and labels that repeat them, with −100 at the ends and inside where ``padded``."""
    tokens = torch.randint(VOCABULARY, (6, LENGTH))
    labels = tokens.clone()
    if padded:
        labels[1, 4:] = labels[3, :2] = labels[5, 3] = -100
    return tokens, labels


def by_hand(model: Language, tokens: Tensor, labels: Tensor, ahead: int) -> tuple[Tensor, Tensor]:
    """Features and labels of the positions that count, one after another."""
    features, classes = [], []
    for row in range(len(tokens)):
        for position in range(LENGTH - ahead):
            label = int(labels[row, position + ahead])
            if label >= 0:
                features.append(torch.tanh(model.embedding(tokens[row, position])).detach())
                classes.append(label)
    return torch.stack(features), torch.tensor(classes)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("budget", [None, 1], ids=["kept", "two-passes"])
def test_positions_are_examples(ahead: int, padded: bool, budget: int | None) -> None:
    model = Language().double()
    tokens, labels = sequences(padded)
    batches = [{"input_ids": tokens[:4], "labels": labels[:4]}, {"input_ids": tokens[4:], "labels": labels[4:]}]
    options = {} if budget is None else {"memory_budget": budget}
    found = nc.measure(model, batches, next_token=bool(ahead), **options).numbers()
    features, classes = by_hand(model, tokens, labels, ahead)
    wanted = nc.measure_features(features, classes, model.head.weight, model.head.bias).numbers()
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-10, abs=1e-13, nan_ok=True), name


@pytest.mark.wrong_input
def test_next_token_of_plain_features_is_refused() -> None:
    with pytest.raises(nc.InputError, match=r"next_token=True needs features of shape \(batch, length, features\)"):
        nc.measure(nn.Sequential(nn.Linear(3, 2)), [(torch.ones(4, 3), torch.zeros(4).long())], next_token=True)


@pytest.mark.wrong_input
def test_one_label_for_a_sequence_is_refused() -> None:
    with pytest.raises(nc.InputError, match=r"expected a label for each position, \(6, 7\), got shape \(6,\)"):
        nc.measure(Language(), [{"input_ids": sequences(False)[0], "labels": torch.zeros(6).long()}])


@pytest.mark.parametrize("budget", [1 << 30, 1])
@pytest.mark.parametrize("options", [{}, {"min_count": 2}, {"layer": "head"}])
def test_logits_are_let_go_before_the_next_are_made(budget: int, options: dict[str, Any]) -> None:
    """Those of a vocabulary are sixty times as large as the features, and batches wait for others to fill a block."""

    class Counting(Language):
        alive: ClassVar[list[int]] = []

        def __init__(self) -> None:
            super().__init__()
            self.given = weakref.WeakSet[Tensor]()

        def forward(self, input_ids: Tensor) -> Tensor:
            self.alive.append(len(self.given))
            logits = super().forward(input_ids)
            self.given.add(logits)
            return logits

    tokens, _ = sequences(False)
    batches = [{"input_ids": row[None], "labels": row[None]} for row in tokens]
    model = Counting()
    nc.measure(model, batches, memory_budget=budget, **options)
    assert len(model.alive) >= len(batches) and max(model.alive) == 0


def test_a_text_of_one_token_has_no_next_one() -> None:
    tokens, labels = sequences(padded=False)
    model, single = Language(), torch.arange(4)[:, None]
    one = {"input_ids": single, "labels": single}
    data = [{"input_ids": tokens, "labels": labels}]
    want = nc.measure(model, data, next_token=True)
    got = nc.measure(model, [*data, one], next_token=True)
    assert got.num_examples == want.num_examples == tokens.numel() - len(tokens)
    assert got.nc1 == pytest.approx(want.nc1, rel=1e-6)
