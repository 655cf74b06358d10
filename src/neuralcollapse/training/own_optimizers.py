"""The optimizers that PyTorch lacks: SGD with decoupled weight decay, and L-BFGS with weight decay as a penalty."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class SGDW(torch.optim.SGD):
    """SGD with decoupled weight decay (Loshchilov & Hutter, 2019, Algorithm 1): θ ← (1 - ηw)θ - η v.

    Args:
        groups: of parameters, as for `torch.optim.SGD`, each with its w as `weight_decay`.
        lr: η.
        momentum: of the gradients alone.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(groups, lr=lr, momentum=momentum)
        for group in self.param_groups:
            group["decoupled_decay"], group["weight_decay"] = group["weight_decay"], 0.0

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
        groups: of parameters, each with its w as `weight_decay`; PyTorch's own L-BFGS knows one group only.
        lr: the first length tried on every line; 1 is the quasi-Newton step.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        decays = {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}
        super().__init__(list(decays), lr=lr, max_iter=20, history_size=10, line_search_fn="strong_wolfe")
        self._decays = decays

    def step(self, closure: Callable[[], Tensor]) -> Any:  # type: ignore[override]
        """Make 20 iterations; returns the loss before them, without the penalty."""
        losses: list[Tensor] = []

        def penalised() -> Tensor:
            loss = closure().detach()
            if dist.is_initialized():
                dist.all_reduce(loss)
                loss = loss / dist.get_world_size()
            losses.append(loss)
            with torch.no_grad():
                for parameter, decay in self._decays.items():
                    if parameter.grad is not None:
                        loss = loss + decay / 2 * parameter.square().sum()
                        parameter.grad.add_(parameter, alpha=decay)
            return loss

        super().step(penalised)  # type: ignore[no-untyped-call]
        return losses[0]
