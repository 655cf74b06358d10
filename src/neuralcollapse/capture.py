"""Scoped hooks: what enters a layer during a forward pass, and which layer is the classifier."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ._checks import InputError


@contextmanager
def capture(layer: nn.Module, receive: Callable[[Tensor], None]) -> Iterator[None]:
    """Within the block, call ``receive`` with the tensor that enters ``layer`` at each forward pass.

    The hook is removed on leaving, also through an exception.
    """

    def hook(_module: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        receive((arguments[0] if arguments else named["input"]).detach())

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def find_classifier(model: nn.Module, run: Callable[[], object], layer: str | nn.Linear | None = None) -> nn.Linear:
    """The last linear layer that a forward pass executes, or the one named.

    Args:
        model: the network.
        run: makes one forward pass.
        layer: a module, or its name as ``model.named_modules()`` gives it; None to find it.

    Raises:
        InputError: no such layer, no ``nn.Linear`` in the model, or none that the forward pass reaches.
    """
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if isinstance(layer, nn.Linear):
        return layer
    if layer is not None:
        if layer not in linear:
            known = ", ".join(list(linear)[-5:]) or "none"
            raise InputError(f"expected the name of an nn.Linear, got {layer!r}; the model's last ones are: {known}")
        return linear[layer]
    if not linear:
        raise InputError(f"expected a model with an nn.Linear that gives its logits, {type(model).__name__} has none")
    executed: list[nn.Linear] = []

    def remember(module: nn.Module, _arguments: object) -> None:
        if isinstance(module, nn.Linear):
            executed.append(module)

    handles = [module.register_forward_pre_hook(remember) for module in linear.values()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    if not executed:
        raise InputError(f"expected the forward pass of {type(model).__name__} to reach an nn.Linear, it reached none")
    return executed[-1]


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; modules' modes and the random states of Python, NumPy and PyTorch are put back."""
    modes = {module: module.training for module in model.modules()}
    python_state, numpy_state, cpu_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(cpu_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
