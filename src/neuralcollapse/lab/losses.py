"""The training losses by name, and the λ each one means when the last layer is measured.

The paper's loss is L = ½ Ave‖Wh + b - y‖² + (λ/2)‖[W, b]‖². SGD's `weight_decay` adds the penalty, so a loss here is
the first term alone, and `measured_weight_decay` says which λ of L the optimiser's weight decay stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from neuralcollapse._checks import InputError


@dataclass(frozen=True)
class Loss:
    """One training loss.

    Args:
        name: what `--loss` takes.
        title: what figures and tables call it.
        function: logits (n, c) and labels (n,) to the mean over the examples, a scalar.
        measured_weight_decay: the optimiser's weight decay and the number of classes, to the λ of the paper's loss.
    """

    name: str
    title: str
    function: Callable[[Tensor, Tensor], Tensor]
    measured_weight_decay: Callable[[float, int], float]


def half_squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """½ Ave ‖z - y‖²: summed over the outputs, averaged over the examples; y is one-hot (MATHEMATICS, section 3)."""
    return 0.5 * (logits - _one_hot(logits, labels)).square().sum(dim=1).mean()


def mean_squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """PyTorch's `MSELoss`: averaged over the outputs too, so 2/c times the paper's."""
    return F.mse_loss(logits, _one_hot(logits, labels))


def get(name: str) -> Loss:
    """The loss of that name.

    Raises:
        InputError: there is none.
    """
    if name not in LOSSES:
        raise InputError(f"unknown loss {name!r}; expected one of {', '.join(LOSSES)}")
    return LOSSES[name]


def _one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    return F.one_hot(labels, logits.shape[1]).to(logits.dtype)


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss("mse", "MSE", half_squared_error, lambda weight_decay, classes: weight_decay),
        # training on MSELoss + (w/2)‖θ‖² is training on (2/C) L with λ = C w / 2
        Loss(
            "mse-torch",
            "MSE (PyTorch's mean)",
            mean_squared_error,
            lambda weight_decay, classes: classes * weight_decay / 2,
        ),
        # cross-entropy has no λ of its own in L: the decomposition is evaluated at the optimiser's weight decay itself
        Loss("ce", "cross-entropy", torch.nn.functional.cross_entropy, lambda weight_decay, classes: weight_decay),
    )
}
