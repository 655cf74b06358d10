"""SGD with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
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
