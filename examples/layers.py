"""nc.measure_layers on a deep network: how collapse grows from layer to layer.

Training turns the layers into a sequence in which each separates the classes a little better than the one before: NC1
falls by about the same factor from layer to layer (He & Su, "A law of data separation in deep learning", PNAS 2023).
Before training it does not fall at all.

    pip install -e '.[lab]'      # scikit-learn, which the digits come with
    python examples/layers.py    # about 8 s on one core
"""

from __future__ import annotations

import argparse
import math
from collections import OrderedDict

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import neuralcollapse as nc


def network() -> nn.Module:
    """Six blocks of one width, and the classifier."""
    parts = OrderedDict[str, nn.Module]()
    for number in range(1, 7):
        linear = nn.Linear(64 if number == 1 else 100, 100)
        parts[f"block{number}"] = nn.Sequential(linear, nn.BatchNorm1d(100), nn.ReLU())
    parts["classifier"] = nn.Linear(100, 10)
    return nn.Sequential(parts)


def main() -> None:
    """Print the layers before and after training, and a bar for NC1 at each."""
    parser = argparse.ArgumentParser(description="Neural Collapse by depth.")
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images).float() / 16, torch.tensor(labels))
    batches, in_order = DataLoader(data, batch_size=64, shuffle=True), DataLoader(data, batch_size=512)
    model = network()
    before = nc.measure_layers(model, in_order)

    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, arguments.epochs)
    for _ in range(arguments.epochs):
        for inputs, targets in batches:
            optimiser.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimiser.step()
        schedule.step()
    after = nc.measure_layers(model, in_order)

    print(f"After {arguments.epochs} epochs\n\n{after}\n")
    print("layer       NC1 before     after   six marks for each halving")
    for old, new in zip(before, after, strict=True):
        bar = "█" * round(-6 * math.log2(new.report.nc1))
        print(f"{new.name:10}  {old.report.nc1:10.4f}  {new.report.nc1:8.4f}   {bar}")
    first, last = after["block1"].report.nc1, after["block6"].report.nc1
    print(f"NC1 falls by a factor of {(first / last) ** (1 / 5):.2f} a block, from {first:.4f} to {last:.4f}")


if __name__ == "__main__":
    main()
