"""The paper's training protocol, one recipe per data set, network and loss (MATHEMATICS, section 8).

SGD with momentum 0.9, weight decay 5e-4, batches of 128, 350 epochs, the rate divided by ten at 1/3 and 2/3, no
augmentation. The tuned rates are those of PyTorch's `MSELoss`; for the paper's own loss, C/2 times as large, rate and
weight decay are converted so that every step is the same. `digits`, the demo, has a shorter recipe of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.training import losses

ANALYSIS_EPOCHS = (
    *range(1, 15), 16, 17, 19, 20, 22, 24, 27, 29, 32, 35, 38, 42, 45, 50, 54, 59, 65, 71, 77, 85, 92, 101, 110, 121,
    132, 144, 158, 172, 188, 206, 225, 245, 268, 293, 320, 350,
)  # fmt: skip

EXAMPLES_PER_CLASS = {"mnist": 5000, "svhn": 4600}
"""Balanced by subsampling; the other data sets are balanced as they come."""

_WEIGHT_DECAY = 5e-4
_CROSS_ENTROPY_RATE = 0.0679

# depth and tuned MSELoss rate of each cell
_CELLS = {
    "mnist": {"vgg": (11, 0.025519618), "resnet": (18, 0.018420157), "densenet": (40, 0.025519618)},
    "fashion-mnist": {"vgg": (11, 0.018420157), "resnet": (18, 0.094015077), "densenet": (250, 0.009596916)},
    "svhn": {"vgg": (13, 0.018420157), "resnet": (34, 0.009596916), "densenet": (40, 0.013295740)},
    "cifar10": {"vgg": (11, 0.025519618), "resnet": (50, 0.009596916), "densenet": (100, 0.048981924)},
    "stl10": {"vgg": (11, 0.018420157), "resnet": (18, 0.067860440), "densenet": (201, 0.001880302)},
}
DATASETS, NETWORKS = tuple(_CELLS), tuple(_CELLS["mnist"])
"""The study: five data sets by three networks."""
_FALLBACK = _CELLS["mnist"]  # for data sets the paper does not use: one's own folder or .npz


@dataclass(frozen=True)
class Recipe:
    """How to train one network on one data set; every number can be overridden on the command line.

    Args:
        epochs: passes over the training set.
        batch_size: examples a step, over all processes together.
        learning_rate: SGD's rate before the first milestone.
        momentum: SGD's momentum.
        weight_decay: SGD's weight decay, on all parameters.
        milestones: shares of `epochs` after which the rate is divided by ten.
        width: factor on the network's published width.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    milestones: tuple[float, ...]
    width: float


def recipe(dataset: str, model: str, loss: str, num_classes: int = 10) -> Recipe:
    """The recipe for a data set, a network and a loss.

    Args:
        dataset: registry name; one the paper does not use takes MNIST's rates.
        model: a network of `models.names()`, or anything else, which takes ResNet's rate.
        loss: a name of `losses.LOSSES`.
        num_classes: C of the conversion between the two squared-error losses.

    Raises:
        InputError: unknown loss.
    """
    losses.get(loss)
    if dataset == "digits":
        # a demo: short, so λ is larger than the paper's to bring the terminal phase within 200 epochs
        rate, decay = _for_loss(loss, rate=0.15, weight_decay=2e-3, num_classes=num_classes)  # mse: 0.03 and 1e-2
        return Recipe(200, 128, rate, 0.9, decay, (0.6, 0.85), 0.25)
    cells = _CELLS.get(dataset, _FALLBACK)
    _, tuned = cells.get(family(model), cells["resnet"])
    rate, decay = _for_loss(loss, rate=tuned, weight_decay=_WEIGHT_DECAY, num_classes=num_classes)
    return Recipe(350, 128, rate, 0.9, decay, (1 / 3, 2 / 3), 1.0)


def network(dataset: str, model: str) -> str:
    """The network meant by `model`: a family alone ("resnet") becomes the depth the paper uses on that data set."""
    cells = _CELLS.get(dataset, _FALLBACK)
    return f"{model}{cells[model][0]}" if model in cells else model


def family(model: str) -> str:
    """The name without its depth: `resnet` for `resnet18` and for `torchvision:resnet18`."""
    return re.split(r"[\d_]", model.rpartition(":")[2], maxsplit=1)[0]


def analysis_epochs(epochs: int) -> tuple[int, ...]:
    """The epochs the network is measured after: the paper's list as far as it goes, and the last."""
    if epochs < 1:
        raise InputError(f"epochs must be at least 1, got {epochs}")
    return (*(epoch for epoch in ANALYSIS_EPOCHS if epoch < epochs), epochs)


def milestone_epochs(shares: tuple[float, ...], epochs: int) -> tuple[int, ...]:
    """The last epoch at each rate: 1/3 and 2/3 of 350 are after 116 and 233."""
    return tuple(int(share * epochs + 1e-9) for share in shares)


def learning_rate(initial: float, milestones: tuple[int, ...], epoch: int) -> float:
    """The rate during `epoch`, counted from 1: a tenth for every milestone passed."""
    return initial * 0.1 ** sum(epoch > milestone for milestone in milestones)


def learning_rates(loss: str, num_classes: int) -> tuple[float, ...]:
    """The rates among which the paper's were chosen: 25 from 1e-4 to 0.25, evenly spaced in their logarithm.

    Stated like the tuned ones for PyTorch's `MSELoss`; for the paper's loss, 2/C times as large.
    """
    return tuple(_rate_for(loss, float(rate), num_classes) for rate in np.geomspace(1e-4, 0.25, 25))


def _rate_for(loss: str, rate: float, num_classes: int) -> float:
    """From the rate of `MSELoss` to that of the paper's loss: L = (C/2) MSELoss, so η → 2η/C."""
    return 2 * rate / num_classes if loss == "mse" else rate


def _for_loss(loss: str, *, rate: float, weight_decay: float, num_classes: int) -> tuple[float, float]:
    """From rate and decay of `MSELoss` to those of `loss`: L = (C/2) MSELoss, so η → 2η/C and w → λ = C w / 2.

    The rescaled squared error takes those of `MSELoss`, focal loss and label smoothing those of cross-entropy: their
    authors too changed nothing but the loss.
    """
    if loss == "mse":
        decay = losses.get("mse-torch").measured_weight_decay(weight_decay, num_classes)
        return _rate_for(loss, rate, num_classes), decay
    return (rate, weight_decay) if losses.get(loss).bounded else (_CROSS_ENTROPY_RATE, _WEIGHT_DECAY)
