"""The optimisers by name, their usual numbers, and the penalised loss whose stationary points are theirs.

    sgd      w is coupled: added to the gradient, hence to the momentum; stationary where ∇(loss) + wθ = 0
    sgdw     decoupled: θ shrinks by the factor 1 - ηw beside the step, as in PyTorch's AdamW. At a stationary point the
             momentum has grown to ∇(loss)/(1 - μ), so ∇(loss) + (1 - μ)wθ = 0: with w/(1 - μ), SGD's points
    adam     coupled: stationary where ∇(loss) + wθ = 0
    adamw    decoupled: stationary where each gradient, over the root of its mean square, is -wθ. No penalised loss has
             these points, so the decomposition is evaluated at λ = 0, the loss whose gradient it follows
    lbfgs    w is the penalty (w/2)‖θ‖², part of what is minimised

Zhao, Cheng, Masarczyk & Lucchi (2026, Optimizer choice matters for the emergence of neural collapse) compare them:
adaptive methods with decoupled decay do not collapse as the others do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from neuralcollapse._checks import InputError

_SECOND_MOMENT = 0.999  # Kingma & Ba (2015), like the default rate 1e-3 below
LARGEST_FULL_BATCH = 4096

Closure = Callable[[], Tensor]


@dataclass(frozen=True)
class Optimizer:
    """One optimiser. None in a default leaves the data set's recipe, which is SGD's, as it is.

    Args:
        name: what `--optimizer` takes.
        title: what figures call it.
        make: parameters, rate, momentum and weight decay, to the optimiser; its `step` takes a closure that computes
            the gradients and returns the loss, and gives back the loss before the step.
        penalty: weight decay and momentum to the weight decay of the penalised loss with the same stationary points.
        learning_rate: the usual rate, for any loss.
        weight_decay: the usual one; the recipe's decay and the momentum to the optimiser's.
        milestones: when the rate falls.
        full_batch: whether a step should see all examples, as far as `LARGEST_FULL_BATCH`.
        has_momentum: whether it has one.
    """

    name: str
    title: str
    make: Callable[[list[nn.Parameter], float, float, float], torch.optim.Optimizer]
    penalty: Callable[[float, float], float]
    learning_rate: float | None = None
    weight_decay: Callable[[float, float], float] = lambda decay, momentum: decay
    milestones: tuple[float, ...] | None = None
    full_batch: bool = False
    has_momentum: bool = True


class SGDW(torch.optim.SGD):
    """SGD with decoupled weight decay (Loshchilov & Hutter, 2019, Algorithm 1): θ ← (1 - ηw)θ - η v.

    Args:
        params: as for `torch.optim.SGD`.
        lr: η.
        momentum: of the gradients alone.
        decoupled_decay: w.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float, decoupled_decay: float) -> None:
        super().__init__(params, lr=lr, momentum=momentum)
        for group in self.param_groups:
            group["decoupled_decay"] = decoupled_decay

    def step(self, closure: Closure | None = None) -> Any:  # type: ignore[override]
        """One step; the gradients are those at the θ before the decay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.mul_(1 - group["lr"] * group["decoupled_decay"])
        super().step()
        return loss


class PenalisedLBFGS(torch.optim.LBFGS):
    """L-BFGS on the loss plus (w/2)‖θ‖², 20 iterations a step, with a strong Wolfe line search.

    The loss is averaged over the processes, so that all of them search along the same line.

    Args:
        params: as for `torch.optim.LBFGS`.
        lr: the first length tried on every line; 1 is the quasi-Newton step.
        weight_decay: w.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, lr=lr, max_iter=20, history_size=10, line_search_fn="strong_wolfe")
        self.param_groups[0]["weight_decay"] = weight_decay

    def step(self, closure: Closure) -> Any:  # type: ignore[override]
        """20 iterations; gives back the loss before them, without the penalty."""
        losses: list[Tensor] = []
        decay = self.param_groups[0]["weight_decay"]

        def penalised() -> Tensor:
            loss = closure().detach()
            if dist.is_initialized():
                dist.all_reduce(loss)
                loss = loss / dist.get_world_size()
            losses.append(loss)
            with torch.no_grad():
                for parameter in self.param_groups[0]["params"]:
                    if parameter.grad is not None:
                        loss = loss + decay / 2 * parameter.square().sum()
                        parameter.grad.add_(parameter, alpha=decay)
            return loss

        super().step(penalised)  # type: ignore[no-untyped-call]
        return losses[0]


def get(name: str) -> Optimizer:
    """The optimiser of that name.

    Raises:
        InputError: there is none.
    """
    if name not in OPTIMIZERS:
        raise InputError(f"unknown optimizer {name!r}; expected one of {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]


def build(net: nn.Module, config: Any) -> torch.optim.Optimizer:
    """The configured optimiser for the parameters that are trained."""
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return get(config.optimizer).make(trained, config.learning_rate, config.momentum, config.weight_decay)


def _sgd(trained: list[nn.Parameter], rate: float, momentum: float, decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(trained, lr=rate, momentum=momentum, weight_decay=decay)


def _adam(trained: list[nn.Parameter], rate: float, momentum: float, decay: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(trained, lr=rate, betas=(momentum, _SECOND_MOMENT), weight_decay=decay)


def _adamw(trained: list[nn.Parameter], rate: float, momentum: float, decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(trained, lr=rate, betas=(momentum, _SECOND_MOMENT), weight_decay=decay)


def _lbfgs(trained: list[nn.Parameter], rate: float, momentum: float, decay: float) -> torch.optim.Optimizer:
    return PenalisedLBFGS(trained, rate, decay)


def _coupled(decay: float, momentum: float) -> float:
    return decay


OPTIMIZERS: dict[str, Optimizer] = {
    optimizer.name: optimizer
    for optimizer in (
        Optimizer("sgd", "SGD", _sgd, _coupled),
        Optimizer(
            "sgdw",
            "SGDW",
            SGDW,
            penalty=lambda decay, momentum: (1 - momentum) * decay,
            weight_decay=lambda decay, momentum: decay / (1 - momentum),  # SGD's stationary points
        ),
        Optimizer("adam", "Adam", _adam, _coupled, learning_rate=1e-3),
        # 0.01 is PyTorch's default: the step no longer depends on the size of the loss, so no recipe of SGD converts
        Optimizer("adamw", "AdamW", _adamw, lambda decay, momentum: 0.0, 1e-3, lambda decay, momentum: 0.01),
        Optimizer("lbfgs", "L-BFGS", _lbfgs, _coupled, 1.0, milestones=(), full_batch=True, has_momentum=False),
    )
}

if TYPE_CHECKING:
    OptimizerName = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS)]  # the choices of the command line
