"""The optimizers by name, their usual numbers, and the penalised loss with the same stationary points.

    sgd      w is coupled: added to the gradient, hence to the momentum; stationary where ∇(loss) + wθ = 0
    sgdw     decoupled: θ shrinks by the factor 1 - ηw beside the step, as in PyTorch's AdamW. At a stationary point the
             momentum has grown to ∇(loss)/(1 - μ), so ∇(loss) + (1 - μ)wθ = 0: with w/(1 - μ), SGD's points
    adam     coupled: stationary where ∇(loss) + wθ = 0
    adamw    decoupled: stationary where each gradient, over the root of its mean square, is -wθ. No penalised loss has
             these points, so the decomposition is evaluated at λ = 0, the loss whose gradient it follows
    lbfgs    w is the penalty (w/2)‖θ‖², part of what is minimised

Zhao, Cheng, Masarczyk & Lucchi (2026, Optimizer choice matters for the emergence of neural collapse) compare them:
adaptive methods with decoupled decay do not collapse as the others do.

A new optimizer is an entry of `OPTIMIZERS`. PyTorch is imported when an optimizer is made, so that the command line can
list the names without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuralcollapse._errors import Named

if TYPE_CHECKING:
    import torch

Groups = list[dict[str, Any]]

_SECOND_MOMENT = 0.999  # Kingma & Ba (2015), like the default rate 1e-3 below
LARGEST_FULL_BATCH = 4096


@dataclass(frozen=True)
class Optimizer:
    """One optimizer. Where a default is None, that of the data set's recipe, which is SGD's, is taken.

    Args:
        title: what figures call it.
        make: takes groups of parameters, each with its `weight_decay`, as `torch.optim` does, the learning rate and the
            momentum; returns the optimizer, whose `step` takes a closure that computes the gradients and returns the
            loss, and returns the loss before the step.
        penalty: takes weight decay and momentum; returns the weight decay of the penalised loss with the same
            stationary points, by default its own.
        learning_rate: the usual rate, for any loss.
        weight_decay: takes the recipe's weight decay and the momentum; returns this optimizer's usual weight decay.
        milestones: the usual shares of the epochs after which the rate falls.
        full_batch: whether a step sees all examples, up to `LARGEST_FULL_BATCH`.
        has_momentum: whether it takes a momentum.
    """

    title: str
    make: Callable[[Groups, float, float], torch.optim.Optimizer]
    penalty: Callable[[float, float], float] = lambda decay, momentum: decay
    learning_rate: float | None = None
    weight_decay: Callable[[float, float], float] = lambda decay, momentum: decay
    milestones: tuple[float, ...] | None = None
    full_batch: bool = False
    has_momentum: bool = True


def _sgd(groups: Groups, rate: float, momentum: float) -> torch.optim.Optimizer:
    from torch.optim import SGD

    return SGD(groups, lr=rate, momentum=momentum)


def _sgdw(groups: Groups, rate: float, momentum: float) -> torch.optim.Optimizer:
    from neuralcollapse.training.own_optimizers import SGDW

    return SGDW(groups, rate, momentum)


def _adam(groups: Groups, rate: float, momentum: float) -> torch.optim.Optimizer:
    from torch.optim import Adam

    return Adam(groups, lr=rate, betas=(momentum, _SECOND_MOMENT))


def _adamw(groups: Groups, rate: float, momentum: float) -> torch.optim.Optimizer:
    from torch.optim import AdamW

    return AdamW(groups, lr=rate, betas=(momentum, _SECOND_MOMENT))


def _lbfgs(groups: Groups, rate: float, momentum: float) -> torch.optim.Optimizer:
    from neuralcollapse.training.own_optimizers import PenalisedLBFGS

    return PenalisedLBFGS(groups, rate)


OPTIMIZERS = Named(
    "optimizer",
    {
        "sgd": Optimizer("SGD", _sgd),
        "sgdw": Optimizer(
            "SGDW",
            _sgdw,
            penalty=lambda decay, momentum: (1 - momentum) * decay,
            weight_decay=lambda decay, momentum: decay / (1 - momentum),  # SGD's stationary points
        ),
        "adam": Optimizer("Adam", _adam, learning_rate=1e-3),
        # 0.01 is PyTorch's default: the step no longer depends on the size of the loss, so no recipe of SGD converts
        "adamw": Optimizer("AdamW", _adamw, lambda decay, momentum: 0.0, 1e-3, lambda decay, momentum: 0.01),
        "lbfgs": Optimizer("L-BFGS", _lbfgs, learning_rate=1.0, milestones=(), full_batch=True, has_momentum=False),
    },
)
"""By the name that `--optimizer` takes."""
