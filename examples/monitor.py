"""nc.Monitor in a hand-written training loop: a small network on handwritten digits, under MSE loss.

Neural Collapse goes on long after the training error has gone to zero: features gather at their class means (NC1), the
means spread out like the corners of a simplex (NC2), the classifier turns into the means (NC3) and decides like the
nearest mean (NC4).

    pip install -e '.[lab]'                       # scikit-learn, which the digits come with
    python examples/monitor.py                    # about 8 s on one core
    python examples/monitor.py --path nc.jsonl    # appends a line of JSON a measurement, with every number
    python examples/monitor.py --report nc.html   # a page in which the training is explored
    python examples/monitor.py --figure nc1.pdf   # NC1 over the epochs
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader, TensorDataset

import neuralcollapse as nc

DECAY = 5e-3


def digits() -> TensorDataset:
    """1,797 images of 8×8 pixels in ten classes."""
    images, labels = load_digits(return_X_y=True)
    return TensorDataset(torch.tensor(images).float() / 16, torch.tensor(labels))


def network() -> nn.Module:
    """Two hidden layers and the classifier."""
    return nn.Sequential(
        *(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU()),
        *(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU()),
        nn.Linear(256, 10),
    )


def mse(logits: Tensor, labels: Tensor) -> Tensor:
    """The paper's loss: half the squared distance from the one-hot target, averaged over examples."""
    return (logits - one_hot(labels, 10)).square().sum(dim=1).mean() / 2


def main() -> None:
    """Train, and print a row a measurement and the last report."""
    parser = argparse.ArgumentParser(description="Neural Collapse in a hand-written training loop.")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--every", type=int, default=20, help="epochs between measurements")
    parser.add_argument("--path", type=Path, help="file that gets the measurements; by default none does")
    parser.add_argument("--report", type=Path, help="HTML file in which the training is explored")
    parser.add_argument("--figure", type=Path, help="picture of NC1 over the epochs, such as nc1.pdf")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    data, model = digits(), network()
    batches = DataLoader(data, batch_size=64, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.epochs)

    monitor = nc.Monitor(
        model,
        DataLoader(data, batch_size=512),
        every=arguments.every,
        path=arguments.path,
        weight_decay=DECAY,  # the decomposition of the loss depends on it
    )
    print("epoch  accuracy       NC1  NC2 angle       NC3       NC4")
    for epoch in range(arguments.epochs + 1):
        if epoch > 0:  # epoch 0 is the network before any training
            for inputs, labels in batches:
                optimizer.zero_grad()
                mse(model(inputs), labels).backward()
                optimizer.step()
            schedule.step()
        report = monitor(epoch)
        if report is not None:
            last = report
            print(
                f"{epoch:5}  {report.accuracy:8.2%}  {report.nc1:8.4f}  {report.nc2.maximal_angle_means:9.4f}"
                f"  {report.nc3:8.4f}  {report.nc4_mismatch:8.2%}"
            )
    print(f"\n{last}")
    history = nc.History.from_monitor(monitor, run="digits", loss="mse")
    if arguments.report is not None:
        history.report(arguments.report)
    if arguments.figure is not None:
        history.plot("nc1").figure.savefig(arguments.figure)


if __name__ == "__main__":
    main()
