"""The training losses by name, and the λ each one means when the last layer is measured.

The paper's loss is L = ½ Ave‖Wh + b - y‖² + (λ/2)‖[W, b]‖². The optimiser's `weight_decay` adds the penalty, so a loss
here is the first term alone, and `measured_weight_decay` says which λ of L that weight decay w stands for:

    mse               λ = w
    mse-torch         λ = C w / 2: its objective is (2/C) L
    rescaled-mse      λ = C w / 2, exactly so for k = M = 1, where it is mse-torch. With k = 1 it is (2M²/C) L of the
                      layer W/M, b/M under that λ; with any other k the true class weighs more and no λ makes it L
    ce, focal,        λ = w: they have no λ of their own in L, so the decomposition is evaluated at the weight decay
    label-smoothing   itself

L is always measured with one-hot targets y, whatever the loss fits the outputs to: with M ≠ 1, and with the losses of
the last line, L⊥_LS holds above all how far the size of the outputs is from theirs. NC1–NC4 do not depend on that size.
The `loss` of the history is the training loss itself with its parameters, without the penalty, so values of different
losses are on different scales; label smoothing cannot go below the entropy of its targets.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from neuralcollapse._checks import InputError


@dataclass(frozen=True)
class Parameter:
    """A number a loss takes beside logits and labels.

    Args:
        symbol: what it is called in the literature.
        default: the number of classes to its usual value.
        allowed: whether a value can be used.
        expected: the values that can, in words.
    """

    symbol: str
    default: Callable[[int], float]
    allowed: Callable[[float], bool]
    expected: str


@dataclass(frozen=True)
class Loss:
    """One training loss.

    Args:
        name: what `--loss` takes.
        title: what figures and tables call it.
        function: logits (n, c), labels (n,) and its parameters by name, to the mean over the examples, a scalar.
        measured_weight_decay: the optimiser's weight decay and the number of classes, to the λ of the paper's loss.
        parameters: by the name of the setting.
        bounded: whether a finite output of the true class is fitted: 1, or the parameter `target`.
        decomposed: whether it is, up to a factor, the first term of L, so that the decomposition of L is its own.
    """

    name: str
    title: str
    function: Callable[..., Tensor]
    measured_weight_decay: Callable[[float, int], float]
    parameters: tuple[str, ...] = ()
    bounded: bool = False
    decomposed: bool = False


def half_squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """½ Ave ‖z - y‖²: summed over the outputs, averaged over the examples; y is one-hot (MATHEMATICS, section 3)."""
    return 0.5 * (logits - _one_hot(logits, labels)).square().sum(dim=1).mean()


def mean_squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """PyTorch's `MSELoss`: averaged over the outputs too, so 2/c times the paper's."""
    return F.mse_loss(logits, _one_hot(logits, labels))


def rescaled_squared_error(logits: Tensor, labels: Tensor, *, rescale: float, target: float) -> Tensor:
    """Ave (1/C) [k (z_y - M)² + Σ_{j≠y} z_j²]; k is `rescale`, M is `target`, and k = M = 1 is `MSELoss`.

    Source: Hui & Belkin (2021), Evaluation of neural architectures trained with square loss vs cross-entropy.
    """
    truth = _one_hot(logits, labels)
    weight = 1 + (rescale - 1) * truth
    return (weight * (logits - target * truth).square()).mean()


def focal_loss(logits: Tensor, labels: Tensor, *, focal_gamma: float) -> Tensor:
    """Ave (1 - p_y)^γ (-log p_y), p the softmax of the logits; γ = 0 is cross-entropy.

    1 - p_y is summed from the other classes' probabilities, which still have all their digits where p_y rounds to 1.

    Source: Lin, Goyal, Girshick, He & Dollár (2017), Focal loss for dense object detection.
    """
    log_probability = F.log_softmax(logits, dim=1)
    others = log_probability.exp() * (1 - _one_hot(logits, labels))
    missing = others.sum(dim=1).clamp_min(torch.finfo(logits.dtype).tiny)  # 0^(γ-1) has no finite gradient
    surprise = F.nll_loss(log_probability, labels, reduction="none")
    return (missing**focal_gamma * surprise).mean()


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float) -> Tensor:
    """Cross-entropy with the targets (1 - ε) y + ε/C.

    Source: Szegedy, Vanhoucke, Ioffe, Shlens & Wojna (2016), Rethinking the Inception architecture, section 7.
    """
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def get(name: str) -> Loss:
    """The loss of that name.

    Raises:
        InputError: there is none.
    """
    if name not in LOSSES:
        raise InputError(f"unknown loss {name!r}; expected one of {', '.join(LOSSES)}")
    return LOSSES[name]


def parameters(name: str, given: Any, num_classes: int) -> dict[str, float | None]:
    """Every parameter of any loss: for this one the given value or the default, None for the others'.

    Args:
        name: of the loss.
        given: an object with an attribute per parameter; None leaves it to the default.
        num_classes: C.

    Raises:
        InputError: a value that cannot be used, or one of another loss.
    """
    loss = get(name)
    result: dict[str, float | None] = {}
    for key, parameter in PARAMETERS.items():
        value = getattr(given, key)
        option = f"--{key.replace('_', '-')}"
        if key not in loss.parameters:
            if value is not None:
                owners = " or ".join(other.name for other in LOSSES.values() if key in other.parameters)
                raise InputError(f"{option} {value:g} belongs to --loss {owners}, not to {name}; leave it out")
            result[key] = None
            continue
        value = parameter.default(num_classes) if value is None else value
        if not parameter.allowed(value):
            raise InputError(f"{option} must be {parameter.expected}, got {value:g}")
        result[key] = value
    return result


def title(name: str, values: dict[str, float | None]) -> str:
    """The loss with its parameters, as figures call it: `focal (γ = 2)`."""
    loss = get(name)
    words = ", ".join(f"{PARAMETERS[key].symbol} = {values[key]:g}" for key in loss.parameters)
    return f"{loss.title} ({words})" if words else loss.title


def objective(config: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a configuration, `config.loss` with its parameters: logits and labels to a scalar."""
    loss = get(config.loss)
    return functools.partial(loss.function, **{key: getattr(config, key) for key in loss.parameters})


def _one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    return F.one_hot(labels, logits.shape[1]).to(logits.dtype)


def _itself(weight_decay: float, classes: int) -> float:
    return weight_decay


def _of_mean(weight_decay: float, classes: int) -> float:
    return classes * weight_decay / 2


def _positive(value: float) -> bool:
    return 0 < value < math.inf


PARAMETERS: dict[str, Parameter] = {
    # Hui & Belkin: no rescaling for few classes, M = 15 from 42 classes on, k = 15 and M = 30 for a thousand
    "rescale": Parameter("k", lambda classes: 15.0 if classes >= 1000 else 1.0, _positive, "a positive number"),
    "target": Parameter(
        "M",
        lambda classes: 30.0 if classes >= 1000 else 15.0 if classes > 10 else 1.0,
        _positive,
        "a positive number",
    ),
    # Lin et al.: the best in their experiments
    "focal_gamma": Parameter("γ", lambda _: 2.0, lambda value: 0 <= value < math.inf, "at least 0"),
    # Szegedy et al.
    "smoothing": Parameter("ε", lambda _: 0.1, lambda value: 0 <= value < 1, "at least 0 and below 1"),
}

LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("mse", "MSE", half_squared_error, _itself, bounded=True, decomposed=True),
        Loss("mse-torch", "MSE (PyTorch's mean)", mean_squared_error, _of_mean, bounded=True, decomposed=True),
        Loss("ce", "cross-entropy", F.cross_entropy, _itself),
        Loss("rescaled-mse", "rescaled MSE", rescaled_squared_error, _of_mean, ("rescale", "target"), bounded=True),
        Loss("focal", "focal", focal_loss, _itself, ("focal_gamma",)),
        Loss("label-smoothing", "label smoothing", smoothed_cross_entropy, _itself, ("smoothing",)),
    )
}

if TYPE_CHECKING:
    LossName = str
else:
    LossName = Literal[tuple(LOSSES)]  # the choices of the command line
