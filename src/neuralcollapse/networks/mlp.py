"""A small multilayer perceptron, which trains in seconds."""

from __future__ import annotations

import math

from torch import nn

from neuralcollapse.networks.layers import scaled


def mlp(num_classes: int, in_channels: int, image_size: tuple[int, int], width: float) -> nn.Sequential:
    """Three hidden layers of 512 × width rectified, batch-normalised units, then a linear classifier."""
    hidden = scaled(512, width)
    inputs = in_channels * math.prod(image_size)
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(3):
        layers += [nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
        inputs = hidden
    return nn.Sequential(*layers, nn.Linear(hidden, num_classes))
