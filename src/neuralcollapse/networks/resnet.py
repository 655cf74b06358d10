"""ResNet 18 to 152 (He et al., 2016), with torchvision's parameter names.

Initialised as torchvision does: Kaiming-normal convolutions by fan-out, PyTorch's default for `fc`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuralcollapse.networks.layers import initialise, scaled


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, base: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, base, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.conv2 = nn.Conv2d(base, base, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(base)
        self.downsample = _shortcut(inputs, base, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return torch.relu_(y)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut; the stride is in the 3×3, as in torchvision ("ResNet v1.5")."""

    expansion = 4

    def __init__(self, inputs: int, base: int, stride: int) -> None:
        super().__init__()
        outputs = base * self.expansion
        self.conv1 = nn.Conv2d(inputs, base, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.conv2 = nn.Conv2d(base, base, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(base)
        self.conv3 = nn.Conv2d(base, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = torch.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return torch.relu_(y)


DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """A 3×3 convolution, four stages of residual blocks, average pooling, and the linear classifier `fc`.

    The published form for images of 224×224 begins with a 7×7 convolution of stride 2 and a max-pooling instead.

    Args:
        depth: 18, 34, 50, 101 or 152.
        num_classes: outputs of `fc`.
        in_channels: image channels.
        width: factor on the base width 64, rounded, at least 1; every other width is a multiple of it.
    """

    def __init__(self, depth: int, num_classes: int, in_channels: int, width: float) -> None:
        super().__init__()
        block, counts = DEPTHS[depth]
        inputs = base = scaled(64, width)
        self.conv1 = nn.Conv2d(in_channels, base, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        stages = []
        for stage, count in enumerate(counts):
            blocks = []
            for index in range(count):
                blocks.append(block(inputs, base << stage, stride=2 if stage and not index else 1))
                inputs = (base << stage) * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.fc(self.avgpool(x).flatten(1))  # type: ignore[no-any-return]


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
