"""Networks by name: this package's, for images up to 96×96, and torchvision's and timm's where these are installed."""

from __future__ import annotations

import importlib

import torch
from torch import nn

from neuralcollapse._errors import InputError, suggest
from neuralcollapse.networks import densenet, resnet, vgg
from neuralcollapse.networks.mlp import mlp

_Network = type[vgg.VGG] | type[resnet.ResNet] | type[densenet.DenseNet]
_NETWORKS: dict[str, tuple[_Network, int]] = {
    **{f"vgg{depth}": (vgg.VGG, depth) for depth in vgg.DEPTHS},
    **{f"resnet{depth}": (resnet.ResNet, depth) for depth in resnet.DEPTHS},
    **{f"densenet{depth}": (densenet.DenseNet, depth) for depth in densenet.DEPTHS},
}
_ALIASES = {f"vgg{depth}_bn": f"vgg{depth}" for depth in vgg.DEPTHS}  # torchvision's name; ours always has batch norm


def names() -> tuple[str, ...]:
    """The networks of this package; `build` takes `torchvision:NAME` and `timm:NAME` too."""
    return (*_NETWORKS, "mlp")


def build(
    name: str, *, num_classes: int, in_channels: int = 3, image_size: int | tuple[int, int] = 32, width: float = 1.0
) -> nn.Module:
    """Build a network, initialised from the current random state; its last layer is an `nn.Linear`.

    Args:
        name: one of `names()`, `torchvision:NAME` or `timm:NAME`. VGG always has batch normalisation: `vgg11_bn` is
            `vgg11`. The other packages' networks come untrained, in their own form; torchvision's, made for three
            channels, get a new first convolution for any other number.
        num_classes: c, outputs of the last layer.
        in_channels: image channels.
        image_size: pixels of an image's side, or its height and width; only the multilayer perceptron depends on it.
        width: factor on the published width, rounded to whole channels, at least one.

    Raises:
        InputError: an unknown name, a package that is not installed, a width that the network cannot have, or no
            classes.
    """
    if not 0 < width < float("inf"):
        raise InputError(f"expected a positive width, got {width}")
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(num_classes, in_channels, *size) < 1:
        got = f"num_classes={num_classes}, in_channels={in_channels}, image_size={image_size}"
        raise InputError(f"expected at least one class, channel and pixel, got {got}")
    package, _, external = name.rpartition(":")
    if package:
        return _external(package, external, num_classes, in_channels, width)
    name = _ALIASES.get(name, name)
    if name == "mlp":
        return mlp(num_classes, in_channels, size, width)
    if name not in _NETWORKS:
        hint = suggest(name, (*names(), *_ALIASES))
        known = f"{', '.join(names())}, torchvision:NAME or timm:NAME"
        raise InputError(f"unknown network {name!r}{hint}; expected one of {known}")
    network, depth = _NETWORKS[name]
    return network(depth, num_classes, in_channels, width)


def _external(package: str, name: str, num_classes: int, in_channels: int, width: float) -> nn.Module:
    if package not in ("torchvision", "timm"):
        raise InputError(f"unknown source of networks {package!r}; expected torchvision:NAME or timm:NAME")
    if width != 1.0:
        raise InputError(f"expected no width for {package}:{name}, which comes in its own width only, got {width}")
    try:
        module = importlib.import_module("torchvision.models" if package == "torchvision" else "timm")
    except ImportError:
        raise InputError(f"{package}:{name} needs the package {package}: pip install {package}") from None
    except RuntimeError as error:  # torchvision's operators, compiled for another torch
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{package} does not fit torch {torch.__version__}; reinstall it: {reason}") from error
    try:
        if package == "timm":
            net = module.create_model(name, pretrained=False, in_chans=in_channels, num_classes=num_classes)
        else:
            net = module.get_model(name, weights=None, num_classes=num_classes)
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"{package} has no network {name!r}: {' '.join(str(error).split())[:120]}") from error
    if package == "torchvision" and in_channels != 3:
        first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
        first.in_channels = in_channels
        first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, in_channels, *first.kernel_size))
        first.reset_parameters()
    return net  # type: ignore[no-any-return]
