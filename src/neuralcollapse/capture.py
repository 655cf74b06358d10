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


class Captured:
    """What entered the classifier in the last forward pass; the classifier is the first pass's last linear layer."""

    def __init__(self, model: nn.Module, candidates: list[nn.Linear]) -> None:
        self._model = type(model).__name__
        self._features: Tensor | None = None
        self._layer: nn.Linear | None = None
        self._settled = False
        self._handles = {
            layer: layer.register_forward_pre_hook(self._receive, with_kwargs=True) for layer in candidates
        }

    def _receive(self, module: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        assert isinstance(module, nn.Linear)
        self._layer, self._features = module, (arguments[0] if arguments else named["input"]).detach()

    @property
    def layer(self) -> nn.Linear:
        """The classifier, known once a forward pass has reached it.

        Raises:
            InputError: none was reached.
        """
        if self._layer is None:
            raise InputError(f"expected the forward pass of {self._model} to reach an nn.Linear, it reached none")
        return self._layer

    def take(self) -> Tensor:
        """The features of the pass just made.

        Raises:
            InputError: it did not reach the classifier.
        """
        layer, features = self.layer, self._features
        if features is None:
            raise InputError("expected the forward pass to reach the classifier, it did not for one batch")
        self._features = None
        if not self._settled:
            self._settled = True
            self.remove(keep=layer)
        return features

    def remove(self, keep: nn.Linear | None = None) -> None:
        """Take the hooks off, but for one layer's."""
        for layer, handle in self._handles.items():
            if layer is not keep:
                handle.remove()


@contextmanager
def capture_classifier(model: nn.Module, layer: str | nn.Linear | None = None) -> Iterator[Captured]:
    """Within the block, catch what enters the last linear layer that the first forward pass executes, or the one named.

    The hooks are removed on leaving, also through an exception.

    Args:
        model: the network.
        layer: a module, or its name as ``model.named_modules()`` gives it; None to find it.

    Raises:
        InputError: no such layer, or no ``nn.Linear`` in the model.
    """
    captured = Captured(model, _candidates(model, layer))
    try:
        yield captured
    finally:
        captured.remove()


def find_classifier(model: nn.Module, run: Callable[[], object], layer: str | nn.Linear | None = None) -> nn.Linear:
    """The last linear layer that a forward pass executes, or the one named, which needs no pass.

    Args:
        model: the network.
        run: makes one forward pass.
        layer: a module, or its name as ``model.named_modules()`` gives it; None to find it.

    Raises:
        InputError: no such layer, no ``nn.Linear`` in the model, or none that the forward pass reaches.
    """
    if layer is not None:
        return _candidates(model, layer)[0]
    with capture_classifier(model) as captured:
        run()
        return captured.layer


def _candidates(model: nn.Module, layer: str | nn.Linear | None) -> list[nn.Linear]:
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if isinstance(layer, nn.Linear):
        return [layer]
    if layer is not None:
        if layer not in linear:
            known = ", ".join(list(linear)[-5:]) or "none"
            raise InputError(f"expected the name of an nn.Linear, got {layer!r}; the model's last ones are: {known}")
        return [linear[layer]]
    if not linear:
        raise InputError(f"expected a model with an nn.Linear that gives its logits, {type(model).__name__} has none")
    return list(linear.values())


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
