"""The last layer by name: what replaces a network's own linear classifier.

Whatever the head, the network ends in one `nn.Linear`, which measuring finds, and its logits are exactly W h + b of the
W, b and h that are measured there.

    linear       the network's own layer, trained
    no-bias      the same without b
    etf          W a simplex equiangular tight frame of unit rows that stays as it is; b is trained
    normalised   logits cos(h, w_c) / τ without bias: the features measured are h/‖h‖, the weight measured is
                 w_c / (τ ‖w_c‖), which `layer.weight` gives; the trained, unnormalised rows are a parameter beside it

The penalty (λ/2)‖W‖² of the measured loss L is a constant for the last two. The weight decay does not act on an ETF's
W; of the normalised rows it shrinks the length, which the logits do not depend on; that only raises the effective
learning rate.

A new head is a function and an entry of `HEADS`. Functions import PyTorch when they are called, so that the command
line can list the names without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuralcollapse._errors import InputError, Named

if TYPE_CHECKING:
    from torch import Tensor, nn

UNBOUNDED_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Head:
    """One kind of last layer.

    Args:
        title: what figures call it.
        make: takes the network's own layer, which it may change, and the temperature; returns the module for its place.
        has_temperature: whether it has a temperature.
    """

    title: str
    make: Callable[[nn.Linear, float | None], nn.Module]
    has_temperature: bool = False


def without_bias(layer: nn.Linear, temperature: float | None = None) -> nn.Module:
    """W h: with squared error W and the class means tend to an orthogonal frame instead (Tirer & Bruna, 2022)."""
    layer.register_parameter("bias", None)
    return layer


def fixed_etf(layer: nn.Linear, temperature: float | None = None) -> nn.Module:
    """W = √(C/(C-1)) (I - 11ᵀ/C) [I 0], whose unit rows are never trained; b is trained.

    The rows lie in the first C features, where they differ from a non-negative frame by a multiple of 1ᵀ, so that the
    rectified features of every network here can reach them. With C - 1 features, the frame in its own coordinates.

    Source: Zhu et al. (2021), section 5; Yang et al. (2022) turn the same frame by a random orthogonal matrix.

    Raises:
        InputError: the layer has fewer than C - 1 features.
    """
    classes, features = layer.weight.shape
    if features < classes - 1:
        raise InputError(
            f"expected at least {classes - 1} features for a simplex ETF of {classes} classes, got {features}; "
            "raise --width or take another --head"
        )
    import torch
    import torch.nn.functional as F

    from neuralcollapse.metrics.geometry import simplex_etf

    frame = simplex_etf(classes, classes - 1)
    if features >= classes:  # M Mᵀ is (C/(C-1)) (I - 11ᵀ/C)
        frame = frame @ frame.T * ((classes - 1) / classes) ** 0.5
    with torch.no_grad():
        layer.weight.copy_(F.pad(frame, (0, features - frame.shape[1])))
    layer.weight.requires_grad_(False)
    return layer


def normalised(layer: nn.Linear, temperature: float | None) -> nn.Module:
    """cos(h, w_c) / τ, the cosine classifier (Wang et al., 2017, NormFace; Yaras et al., 2022)."""
    from torch import nn
    from torch.nn.utils import parametrize

    from neuralcollapse.networks.cosine import Normalise, ScaledUnitRows

    assert temperature is not None
    layer.register_parameter("bias", None)
    parametrize.register_parametrization(layer, "weight", ScaledUnitRows(temperature))
    return nn.Sequential(Normalise(), layer)


def default_temperature(target: float | None) -> float:
    """The temperature τ where none is given.

    With squared error cosine 1 must give the target: τ = 1/target. Otherwise 0.1: at a simplex ETF of C classes the
    true class then gets the probability 1 / (1 + (C - 1) e^(-10 C/(C-1))), 0.9999 for ten classes (the lower bound on
    1/τ of Wang et al., 2018, CosFace, section 3.3, solved for that probability).
    """
    return UNBOUNDED_TEMPERATURE if target is None else 1 / target


def replace(net: nn.Module, name: str, temperature: float | None, inputs: Tensor) -> nn.Module:
    """Put a head in the place of the network's last linear layer.

    Args:
        net: changed in place.
        name: of the head.
        temperature: τ, for a head that has one.
        inputs: images for one forward pass, by which that layer is found.

    Returns:
        The network; another module only where it was a single layer.

    Raises:
        InputError: an unknown head, one the layer is too small for, or a network without a linear layer.
    """
    head = HEADS[name]
    if name == "linear":
        return net
    from neuralcollapse.measuring.classifier import find_classifier
    from neuralcollapse.measuring.preparation import evaluation

    with evaluation(net):
        layer = find_classifier(net, lambda: net(inputs))
    path = next(path for path, module in net.named_modules() if module is layer)
    made = head.make(layer, temperature)
    if not path:
        return made
    parent, _, attribute = path.rpartition(".")
    setattr(net.get_submodule(parent), attribute, made)
    return net


HEADS = Named(
    "head",
    {
        "linear": Head("", lambda layer, temperature: layer),
        "no-bias": Head("no bias", without_bias),
        "etf": Head("fixed ETF", fixed_etf),
        "normalised": Head("normalised", normalised, has_temperature=True),
    },
)
"""By the name that `--head` takes."""
