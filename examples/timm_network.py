"""A network of timm: trained on handwritten digits, its last layer and its stages measured; nothing is told about it.

The classifier is found by comparing, whatever the network calls it, and class names are those of the data.

    pip install -e '.[lab]' timm
    python examples/timm_network.py                    # about 20 s on one core
    python examples/timm_network.py --report nc.html   # and a page in which the training is explored
    python examples/timm_network.py --figure nc1.pdf   # and NC1 over the epochs
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import DataLoader, TensorDataset

import neuralcollapse as nc

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digits() -> TensorDataset:
    """600 images of 8×8 pixels, drawn four times as large."""
    images, labels = load_digits(return_X_y=True)
    pictures = torch.tensor(images[:600]).float().reshape(-1, 1, 8, 8) / 16
    return TensorDataset(interpolate(pictures, scale_factor=4), torch.tensor(labels[:600]))


def main() -> None:
    """Train, and print a row a measurement and the classes, the least collapsed first."""
    parser = argparse.ArgumentParser(description="Neural Collapse of a network of timm.")
    parser.add_argument("--model", default="test_resnet", help="any name of timm.list_models()")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--report", type=Path, help="HTML file in which the training is explored")
    parser.add_argument("--figure", type=Path, help="picture of NC1 over the epochs, such as nc1.pdf")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    data = digits()
    model = timm.create_model(arguments.model, num_classes=len(NAMES), in_chans=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-3)
    monitor = nc.Monitor(model, DataLoader(data, batch_size=200), every=3, class_names=NAMES)
    print("epoch  accuracy       NC1       NC3       NC4")
    for epoch in range(arguments.epochs + 1):
        for images, labels in DataLoader(data, batch_size=50, shuffle=True) if epoch else ():
            model.train()
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            optimizer.step()
        report = monitor(epoch)
        if report is not None:
            last = report
            print(
                f"{epoch:5}  {report.accuracy:8.2%}  {report.nc1:8.4f}  {report.nc3:8.4f}  {report.nc4_mismatch:8.2%}"
            )
    print(f"\nLayer: {last.layer}\n{last.per_class}")
    history = nc.History.from_monitor(monitor, run=arguments.model, loss="ce")
    if arguments.report is not None:
        history.report(arguments.report)
    if arguments.figure is not None:
        history.plot("nc1").figure.savefig(arguments.figure)


if __name__ == "__main__":
    main()
