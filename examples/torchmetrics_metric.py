"""The torchmetrics metric in a MetricCollection: Neural Collapse beside F1, on training and on test data.

Features of test images gather at their means too, but less than those of the images the network has learnt from: the
same metric, cloned, shows both.

    pip install -e '.[lab,torchmetrics]'     # scikit-learn too, which the digits come with
    python examples/torchmetrics_metric.py   # about 8 s on one core
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassF1Score

from neuralcollapse.integrations.torchmetrics import NeuralCollapse


class Network(nn.Module):
    """A body that makes features, and a head that classifies them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU()),
            *(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU()),
        )
        self.head = nn.Linear(256, 10)


@torch.no_grad()
def evaluate(model: Network, loader: Iterable[tuple[Tensor, Tensor]], metrics: MetricCollection) -> dict[str, Tensor]:
    """Every number of the collection on the loader's data."""
    model.eval()
    metrics.reset()
    for inputs, labels in loader:
        features = model.body(inputs)
        # by keyword, so that each metric takes what it knows
        metrics.update(features=features, labels=labels, preds=model.head(features), target=labels)
    model.train()
    return metrics.compute()


def main() -> None:
    """Train, and print both splits before and after."""
    parser = argparse.ArgumentParser(description="Neural Collapse in a torchmetrics MetricCollection.")
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images).float() / 16, torch.tensor(labels))
    train, test = random_split(data, [1497, 300])
    splits = {"train": DataLoader(train, batch_size=64, shuffle=True), "test": DataLoader(test, batch_size=64)}

    model = Network()
    metrics = MetricCollection({"f1": MulticlassF1Score(10), "nc": NeuralCollapse(model.head, metrics=["cdnv"])})
    collections = {name: metrics.clone(prefix=f"{name}/") for name in splits}

    before, after = {}, {}
    for name, loader in splits.items():
        before |= evaluate(model, loader, collections[name])
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, arguments.epochs)
    for _ in range(arguments.epochs):
        for inputs, targets in splits["train"]:
            optimiser.zero_grad()
            cross_entropy(model.head(model.body(inputs)), targets).backward()
            optimiser.step()
        schedule.step()
    for name, loader in splits.items():
        after |= evaluate(model, loader, collections[name])

    print(f"{'':30}{'before':>10}{'after':>10}")
    for split in splits:
        for number in ("f1", "nc1", "cdnv", "nc2.maximal_angle_means", "nc3", "nc4_mismatch"):
            name = f"{split}/{number}"
            print(f"{name:30}{before[name]:10.4f}{after[name]:10.4f}")


if __name__ == "__main__":
    main()
