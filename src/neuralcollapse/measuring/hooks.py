"""Scoped hooks that copy what enters or leaves a module, and the state in which a model is measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from neuralcollapse._checks import InputError

Side = Literal["input", "output"]


@contextmanager
def capture(layer: nn.Module, receive: Callable[[Tensor], None]) -> Iterator[None]:
    """Within the block, call ``receive`` with a copy of the tensor that enters ``layer`` at each forward pass.

    The hook is removed on leaving, also through an exception.
    """

    def hook(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        entered = first_tensor((arguments, named))
        assert entered is not None
        receive(entered.detach().clone())

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class Tap:
    """What one call of a module was given, or gave, in the forward pass just made.

    It is copied at the call: a view would keep the whole tensor behind it in memory, and the network may overwrite it.

    Args:
        model: whose forward pass it is; name: of the module, for errors; side: which of the two are the features.
        call: which call in a forward pass, counted from 0; a module may run several times.
    """

    def __init__(self, model: nn.Module, module: nn.Module, name: str, side: Side = "input", call: int = 0) -> None:
        self.model, self.module, self.name, self.side, self.call = model, module, name, side, call
        self._features: Tensor | None = None
        self._output: Tensor | None = None
        self._version = 0
        self._calls, self._usual = 0, 0

    @contextmanager
    def placed(self) -> Iterator[Tap]:
        """With its hooks on the module."""
        require_watchable(self.model)
        require_watchable(self.module)
        handles = [
            self.model.register_forward_pre_hook(self._begin),
            self.module.register_forward_pre_hook(self._enter, with_kwargs=True),
            self.module.register_forward_hook(self._leave),
        ]
        self._begin()
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, *_: Any) -> None:
        """A forward pass begins; a loader may have made others."""
        self._features, self._output, self._calls = None, None, 0

    def _enter(self, _module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self.side == "input" and self._calls == self.call:
            self._keep((arguments, named))

    def _leave(self, _module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        if self._calls == self.call:
            self._output = first_tensor(output)
            self._version = 0 if self._output is None else version(self._output)
            if self.side == "output":
                self._keep(output)
        self._calls += 1

    def _keep(self, values: Any) -> None:
        found = first_tensor(values)
        if found is None:
            raise InputError(f"expected a tensor as the {self.side} of {self.name!r}, got none")
        self._features = found.detach().clone()

    def take(self) -> tuple[Tensor, Tensor | None]:
        """(features, what the call gave, not copied, None where it was overwritten since) of the pass just made.

        Raises:
            InputError: the pass did not reach the module, or not as often as others did.
        """
        features, output, calls = self._features, self._output, self._calls
        if output is not None and version(output) != self._version:
            output = None
        self._begin()
        if features is None:
            raise InputError(f"expected the forward pass to reach the layer {self.name!r}, it did not for one batch")
        if calls != (self._usual or calls):
            raise InputError(
                f"expected the layer {self.name!r} to run as often in every forward pass, got {self._usual} and {calls}"
            )
        self._usual = calls
        return features, output


def require_watchable(module: nn.Module) -> None:
    """Raise where PyTorch lets nobody see what happens in a module.

    Raises:
        InputError: it is scripted or traced.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"expected a module whose layers can be watched, got a scripted one, {module.original_name}: measure the "
            "one it was made of, or its features with measure_features"
        )


def version(values: Tensor) -> int:
    """How often a tensor was written to; 0 for those of inference mode, which do not count."""
    return 0 if values.is_inference() else values._version


def first_tensor(value: Any) -> Tensor | None:
    """The tensor itself, or the first one in tuples, lists, dictionaries and data classes."""
    if isinstance(value, Tensor):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return next((found for each in value if (found := first_tensor(each)) is not None), None)
    return None


def clean_names(model: nn.Module) -> dict[str, nn.Module]:
    """``model.named_modules()`` without the prefixes of wrappers: "fc", not "module.fc" or "_orig_mod.fc"."""
    found: dict[str, nn.Module] = {}
    inner = getattr(model, "_orig_mod", model)
    parallel = isinstance(inner, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    for name, module in model.named_modules():
        parts = [part for part in name.split(".") if part not in _WRAPPERS]
        if parallel and parts and parts[0] == "module":
            parts = parts[1:]
        found.setdefault(".".join(parts), module)
    return found


_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


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
