"""A small network with everything that measuring must leave alone, and its data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Network(nn.Module):
    """Dropout, batch normalisation and a frozen part; the classifier is registered first and executed last."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(6, num_classes)
        self.body = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.neck = nn.Linear(8, 6)
        self.fail_at: int | None = None
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.fail_at:
            raise RuntimeError("the forward pass failed")
        torch.rand(1)  # a network may draw random numbers in eval mode too
        return self.head(torch.tanh(self.neck(self.body(inputs))))

    def features(self, inputs: Tensor) -> Tensor:
        modes = [module.training for module in self.modules()]
        self.eval()
        with torch.no_grad():
            features = torch.tanh(self.neck(self.body(inputs)))
        for module, mode in zip(self.modules(), modes, strict=True):
            module.training = mode
        return features


def inputs_and_labels(n: int = 50, num_classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, num_classes, (n,), generator=generator)
    return torch.randn(n, 5, generator=generator) + labels[:, None], labels


def loader(batch_size: int = 8, **options: Any) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(*inputs_and_labels()), batch_size=batch_size, **options)


def batches_of(inputs: Tensor, labels: Tensor, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    return list(zip(inputs.split(size), labels.split(size), strict=True))
