"""The optimizers that PyTorch lacks: SGD with decoupled weight decay, and L-BFGS with weight decay as a penalty."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


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

    def step(self, closure: Callable[[], Tensor] | None = None) -> Any:  # type: ignore[override]
        """Make one step, with the gradients at the θ before the decay."""
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

    def step(self, closure: Callable[[], Tensor]) -> Any:  # type: ignore[override]
        """Make 20 iterations; returns the loss before them, without the penalty."""
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
