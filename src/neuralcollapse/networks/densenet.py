"""DenseNet (Huang et al., 2017), with torchvision's parameter names.

Depths 121 and 201 are the published ImageNet networks of four blocks, with a 3×3 convolution instead of their first one
and its pooling. Depths 40, 100 and 250 are the published networks
for 32×32 images, of three equal blocks: 40 is plain with growth 12, 100 and 250 are "BC" (bottleneck and compression)
with growth 12 and 24. Initialised as torchvision does: Kaiming-normal convolutions by fan-in, a zero classifier bias.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuralcollapse.networks.layers import SafeAvgPool2d, initialise, scaled


@dataclass(frozen=True)
class Plan:
    """A published DenseNet.

    Args:
        blocks: layers of each dense block.
        growth: channels each layer adds.
        bottleneck: a 1×1 convolution to 4 × growth channels before each 3×3, and transitions that halve the channels.
        stem: channels before the first block, in units of `growth`.
    """

    blocks: tuple[int, ...]
    growth: int
    bottleneck: bool = True
    stem: float = 2.0


DEPTHS = {
    40: Plan((12, 12, 12), 12, bottleneck=False, stem=16 / 12),
    100: Plan((16, 16, 16), 12),
    121: Plan((6, 12, 24, 16), 32),
    201: Plan((6, 12, 48, 32), 32),
    250: Plan((41, 41, 41), 24),
}


class DenseLayer(nn.Module):
    """Normalise, rectify, convolve; the result is set beside the input."""

    def __init__(self, inputs: int, growth: int, bottleneck: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.bottleneck = bottleneck
        if bottleneck:
            self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(4 * growth)
            self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(torch.relu_(self.norm1(x)))
        if self.bottleneck:
            y = self.conv2(torch.relu_(self.norm2(y)))
        return torch.cat([x, y], dim=1)


class DenseNet(nn.Module):
    """`features` of dense blocks and transitions, average pooling, and the linear `classifier`.

    Args:
        depth: 40, 100, 121, 201 or 250.
        num_classes: outputs.
        in_channels: image channels.
        width: factor on the growth rate, rounded, at least 1; every other width follows from the growth rate.
    """

    def __init__(self, depth: int, num_classes: int, in_channels: int, width: float) -> None:
        super().__init__()
        plan = DEPTHS[depth]
        growth = scaled(plan.growth, width)
        channels = max(1, round(plan.stem * growth))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        # each dense layer normalises its own input, so the convolution needs no normalisation of its own
        layers["conv0"] = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        for number, count in enumerate(plan.blocks, start=1):
            block = nn.Sequential()
            for index in range(1, count + 1):
                block.add_module(f"denselayer{index}", DenseLayer(channels, growth, plan.bottleneck))
                channels += growth
            layers[f"denseblock{number}"] = block
            if number < len(plan.blocks):
                outputs = channels // 2 if plan.bottleneck else channels
                layers[f"transition{number}"] = nn.Sequential(
                    OrderedDict(
                        norm=nn.BatchNorm2d(channels),
                        relu=nn.ReLU(inplace=True),
                        conv=nn.Conv2d(channels, outputs, 1, bias=False),
                        pool=SafeAvgPool2d(2),
                    )
                )
                channels = outputs
        layers["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self, mode="fan_in")
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.features(x))
        return self.classifier(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]
