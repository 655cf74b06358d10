"""What the networks share: width, initialisation, and pooling for tiny images."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn


def scaled(channels: int, width: float) -> int:
    """`channels` times the width factor, rounded, at least one."""
    return max(1, round(channels * width))


def initialise(net: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """Kaiming-normal convolutions (He et al., 2015); linear layers and norms keep PyTorch's default here.

    Args:
        net: changed in place.
        mode: torchvision's choice is "fan_out" for ResNet and VGG, "fan_in" for DenseNet.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class _Safe(nn.Module):
    """Leaves images one pixel high or wide as they are; stands before the pooling in a class's bases."""

    def forward(self, input: Tensor) -> Tensor:
        pooled: Tensor = super().forward(input) if min(input.shape[-2:]) > 1 else input  # type: ignore[misc]
        return pooled


class SafeMaxPool2d(_Safe, nn.MaxPool2d):
    """Max-pooling that leaves images one pixel high or wide as they are, such as 8×8 digits deep in a VGG."""


class SafeAvgPool2d(_Safe, nn.AvgPool2d):
    """Average pooling that leaves images one pixel high or wide as they are, such as 3×3 ones in a DenseNet."""
