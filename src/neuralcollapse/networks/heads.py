"""The last layer by name: what replaces a network's own linear classifier.

Whatever the head, the network ends in one `nn.Linear`, which measuring finds, and its logits are exactly W h + b of the
W, b and h that are measured there.

    linear       the network's own layer, trained
    no-bias      the same without b
    etf          W a simplex equiangular tight frame of unit rows that stays as it is; b is trained
    nearest-etf  W the simplex frame of unit rows nearest to the class means, found anew after every step; b is trained
    normalised   logits cos(h, w_c) / τ without bias: the features measured are h/‖h‖, the weight measured is
                 w_c / (τ ‖w_c‖), which `layer.weight` gives; the trained, unnormalised rows are a parameter beside it

The penalty (λ/2)‖W‖² of the measured loss L is a constant for the last three. The weight decay does not act on an
ETF's W; of the normalised rows it shrinks the length, which the logits do not depend on; that only raises the effective
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
_MEANS_RATE = 0.1
_PROXIMITY = 1e-3


@dataclass(frozen=True)
class Head:
    """One kind of last layer.

    Args:
        title: what figures call it.
        make: takes the network's own layer, which it may change, and the temperature; returns the module for its place.
        has_temperature: whether it has a temperature.
        decayed: whether weight decay changes what its W stands for, so that a decay of its own has a meaning.
        unit_features: whether the features that are measured have length 1 whatever the network does.
        follow: takes the layer, the features (n, p) that entered it in a training step and their labels (n,), after
            that step; for a W that is not trained but computed.
    """

    title: str
    make: Callable[[nn.Linear, float | None], nn.Module]
    has_temperature: bool = False
    decayed: bool = True
    unit_features: bool = False
    follow: Callable[[nn.Linear, Tensor, Tensor], None] | None = None


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


def nearest_etf(layer: nn.Linear, temperature: float | None = None) -> nn.Module:
    """`fixed_etf` to begin with, which `follow_class_means` turns after every step towards the class means.

    The class means are running averages, which the layer keeps as buffers, so that a checkpoint has them.

    Source: Markou, Ajanthan & Gould (2024), Guiding neural collapse: optimising towards the nearest simplex equiangular
    tight frame. There the gradient passes through the frame as well, and features have unit length; here the frame and
    the rest of the network are updated in turn.

    Raises:
        InputError: the layer has fewer than C - 1 features.
    """
    import torch

    fixed_etf(layer)
    layer.register_buffer("class_means", torch.zeros_like(layer.weight))
    layer.register_buffer("class_seen", layer.weight.new_zeros(len(layer.weight), dtype=torch.bool))
    return layer


def follow_class_means(layer: nn.Linear, features: Tensor, labels: Tensor) -> None:
    """Set W to √C E, E the unit-norm simplex ETF with the least ‖M̃ - E‖² + δ ‖E - W/√C‖².

    M̃ are the running class means, centred and of norm 1. ‖E‖ is constant, so E is the simplex nearest to
    M̃ + δ W/√C. δ = 1e-3, as in the source's code, decides only where the means span fewer than C - 1 dimensions. Each
    class's mean moves by a tenth of the way to that of the batch, and W stays until every class was seen. Of several
    processes, each takes the sums of all.
    """
    import torch
    import torch.distributed as dist

    from neuralcollapse.metrics import frames

    means, seen = layer.class_means, layer.class_seen
    assert isinstance(means, torch.Tensor) and isinstance(seen, torch.Tensor)
    with torch.no_grad():
        rows = torch.cat([features.double(), features.new_ones(len(features), 1).double()], dim=1)
        sums = rows.new_zeros(len(means), rows.shape[1]).index_add_(0, labels, rows)
        if dist.is_initialized():
            dist.all_reduce(sums)
        here = sums[:, -1] > 0
        batch = (sums[here, :-1] / sums[here, -1:]).to(means)
        means[here] = torch.where(seen[here, None], means[here].lerp(batch, _MEANS_RATE), batch)
        seen |= here
        centred = (means - means.mean(dim=0)).double()
        size = centred.norm()
        # not finite: the network diverges, which its loss will tell
        if bool(seen.all()) and bool(size.isfinite()) and float(size) > 0:
            target = centred / size + _PROXIMITY * layer.weight.double() / len(means) ** 0.5
            layer.weight.copy_(frames.nearest_etf(target))


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

    layer = find_classifier(net, lambda: net(inputs))
    path = next(path for path, module in net.named_modules() if module is layer)
    made = head.make(layer, temperature)
    if not path:
        return made
    net.set_submodule(path, made)
    return net


HEADS = Named(
    "head",
    {
        "linear": Head("", lambda layer, temperature: layer),
        "no-bias": Head("no bias", without_bias),
        "etf": Head("fixed ETF", fixed_etf, decayed=False),
        "nearest-etf": Head("nearest ETF", nearest_etf, decayed=False, follow=follow_class_means),
        "normalised": Head("normalised", normalised, has_temperature=True, decayed=False, unit_features=True),
    },
)
"""By the name that `--head` takes."""
