"""VGG 11 to 19 with batch normalisation (Simonyan & Zisserman, 2015), with torchvision's parameter names.

Initialised as torchvision does: Kaiming-normal convolutions by fan-out with zero bias, and a linear layer of normal
weights with standard deviation 0.01 and zero bias. PyTorch's default for a linear layer of 512 features has a standard
deviation 2.6 times as large. In directions that the features hardly use, only weight decay removes the initial weights,
and until then they count in L⊥_LS (docs/sgd-and-the-path.md).
"""

from __future__ import annotations

from torch import Tensor, nn

from neuralcollapse.networks.layers import SafeMaxPool2d, initialise, scaled

_CHANNELS = (64, 128, 256, 512, 512)
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions before each of the five poolings."""


class VGG(nn.Module):
    """Convolutions `features`, pooling, and `classifier`.

    The classifier is one linear layer on globally averaged features, the form that studies of Neural Collapse use; the
    published one, for images of 224×224, is three layers with dropout on 7×7 features.

    Args:
        depth: 11, 13, 16 or 19.
        num_classes: outputs.
        in_channels: image channels.
        width: factor on all channel counts, each rounded, at least 1.
    """

    def __init__(self, depth: int, num_classes: int, in_channels: int, width: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = in_channels
        for published, count in zip(_CHANNELS, DEPTHS[depth], strict=True):
            outputs = scaled(published, width)
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
                inputs = outputs
            layers.append(SafeMaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, num_classes)
        initialise(self)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]
