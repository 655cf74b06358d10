"""Networks by name: ours for small images, and torchvision's and timm's where those are installed."""

from __future__ import annotations

import difflib
import importlib
import re
from typing import Any, Literal

from torch import nn

from neuralcollapse._checks import InputError
from neuralcollapse.lab.models import densenet, resnet, vgg
from neuralcollapse.lab.models.mlp import mlp

_FAMILIES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "vgg": (vgg.VGG, tuple(vgg.DEPTHS)),
    "resnet": (resnet.ResNet, tuple(resnet.DEPTHS)),
    "densenet": (densenet.DenseNet, tuple(densenet.DEPTHS)),
}


def names() -> tuple[str, ...]:
    """The networks built here; `torchvision:NAME` and `timm:NAME` are accepted beside them."""
    return (*(f"{family}{depth}" for family, (_, depths) in _FAMILIES.items() for depth in depths), "mlp")


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    stem: Literal["small", "imagenet"] = "small",
) -> nn.Module:
    """Build a network, initialised from the current random state; its last layer is an `nn.Linear`.

    Args:
        name: one of `names()` (VGG always has batch normalisation), `torchvision:NAME` or `timm:NAME`.
        num_classes: c, outputs of the last layer.
        in_channels: image channels.
        image_size: pixels of an image's side; only the multilayer perceptron depends on it.
        width: factor on the published width, rounded to whole channels.
        stem: "small" for images up to 96×96; "imagenet" for the published stem and head at 224×224.

    Raises:
        InputError: an unknown name, a package that is not installed, or a width or stem the network has not.
    """
    if not width > 0:
        raise InputError(f"expected a positive width, got {width}")
    package, _, external = name.rpartition(":")
    if package:
        return _external(package, external, num_classes, in_channels, width)
    if name == "mlp":
        return mlp(num_classes, in_channels, image_size, width)
    family, depth = re.sub(r"\d+(_bn)?$", "", name), int((re.findall(r"(\d+)(?:_bn)?$", name) or ["0"])[0])
    if family not in _FAMILIES or depth not in _FAMILIES[family][1] or (name.endswith("_bn") and family != "vgg"):
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(
            f"unknown network {name!r}; {hint}expected {', '.join(names())}, torchvision:NAME or timm:NAME"
        )
    if stem == "imagenet" and family == "densenet" and depth not in densenet.IMAGENET_DEPTHS:
        raise InputError(f"{name} is published for 32×32 images only; it has no imagenet stem")
    return _FAMILIES[family][0](depth, num_classes, in_channels, width, stem == "imagenet")


def _external(package: str, name: str, num_classes: int, in_channels: int, width: float) -> nn.Module:
    if package not in ("torchvision", "timm"):
        raise InputError(f"unknown source of networks {package!r}; expected torchvision:NAME or timm:NAME")
    if width != 1.0:
        raise InputError(f"{package}:{name} comes in its own width only, got width {width}")
    try:
        module = importlib.import_module("torchvision.models" if package == "torchvision" else "timm")
    except ImportError:
        raise InputError(f"{package}:{name} needs the package {package}: pip install {package}") from None
    options: dict[str, Any] = {"num_classes": num_classes}
    try:
        if package == "timm":
            net = module.create_model(name, pretrained=False, in_chans=in_channels, **options)
        else:
            net = module.get_model(name, weights=None, **options)
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"{package} has no network {name!r}: {' '.join(str(error).split())[:120]}") from error
    if package == "torchvision" and in_channels != 3:
        _accept_channels(net, in_channels)
    return net  # type: ignore[no-any-return]


def _accept_channels(net: nn.Module, in_channels: int) -> None:
    """Replace the first convolution, which torchvision always builds for three channels."""
    for path, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d):
            parent, _, attribute = path.rpartition(".")
            fresh = nn.Conv2d(
                in_channels,
                layer.out_channels,
                layer.kernel_size,  # type: ignore[arg-type]
                layer.stride,  # type: ignore[arg-type]
                layer.padding,  # type: ignore[arg-type]
                bias=layer.bias is not None,
            )
            setattr(net.get_submodule(parent), attribute, fresh)
            return
