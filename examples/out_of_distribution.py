"""Out-of-distribution data: a network trained on FashionMNIST, asked to tell MNIST's digits from clothes.

Trains a small perceptron on FashionMNIST, then measures NC5 and scores both test sets by NECO and by the distance from
the nearest class mean, from the moments of the training features alone. It needs both data sets, as
`neuralcollapse data` lists them; without them it says so and ends.

    python examples/out_of_distribution.py [--quick]
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse.data import ImageData, load


def vectors(data: ImageData) -> Tensor:
    """Images as vectors of pixels from 0 to 1."""
    return data.images.flatten(1).float() / 255.0


def main(quick: bool = False) -> None:
    each, epochs = (200, 3) if quick else (2_000, 15)
    try:
        fashion = load("fashion-mnist", examples_per_class=each, test_examples_per_class=each // 2)
        digits = load("mnist", examples_per_class=1, test_examples_per_class=each // 4)
    except nc.InputError as error:
        print(f"FashionMNIST and MNIST are needed: {error}")
        return
    torch.manual_seed(0)
    inputs, labels = vectors(fashion.train), fashion.train.labels
    body = nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU())
    model = nn.Sequential(body, nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        train, inside, outside = body(inputs), body(vectors(fashion.test)), body(vectors(digits.test))
    head = model[1]
    report = nc.measure_features(train, labels, head.weight, head.bias, metrics=["nc5", "nc5_centred"], ood=outside)
    print(f"NC1 {report.nc1:.3f}   NC5 {report.nc5:.3f}   NC5 less the global mean {report.nc5_centred:.3f}")
    print("score                 AUROC   FPR95")
    for name, scores in (("NECO", nc.neco_scores), ("nearest class mean", nc.nearest_mean_scores)):
        found = nc.detection(scores(report.moments, inside), scores(report.moments, outside))
        print(f"{name:<20} {found.auroc:>6.3f}  {found.fpr95:>6.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="200 images of each class and 3 epochs")
    main(parser.parse_args().quick)
