"""A hook that keeps what one module is given, or gives, in each forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neuralcollapse._checks import InputError

Side = Literal["input", "output"]


class FeatureHook:
    """What one call of a module was given, or gave, in the last forward pass.

    The features are copied at the call: a view would keep the whole tensor behind it in memory, and the network may
    overwrite it later.

    Args:
        model: the network; place: the name of one of its modules; name: what error messages call it.
        side: whether the features are what the module is given or what it gives.
        call: which call in a forward pass, counted from 0; a module may run several times.
    """

    def __init__(self, model: nn.Module, place: str, name: str, side: Side = "input", call: int = 0) -> None:
        self.model, self.module = model, model.get_submodule(place)
        self.name, self.side, self.call = name, side, call
        self._features: Tensor | None = None
        self._output: Tensor | None = None
        self._output_version = 0
        self._calls, self._usual_calls = 0, 0

    @contextmanager
    def attached(self) -> Iterator[FeatureHook]:
        """The hooks are on the module within the block, and off it afterwards, also after an error."""
        require_hookable(self.model)
        require_hookable(self.module)
        with (
            self.model.register_forward_pre_hook(self._begin),
            self.module.register_forward_pre_hook(self._enter, with_kwargs=True),
            self.module.register_forward_hook(self._leave),
        ):
            self._begin()
            yield self

    def _begin(self, *_: Any) -> None:
        """Forget earlier passes: a loader may run the network too, to make its batches."""
        self._features, self._output, self._calls = None, None, 0

    def _enter(self, _module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self.side == "input" and self._calls == self.call:
            self._keep((arguments, named))

    def _leave(self, _module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
        if self._calls == self.call:
            self._output = first_tensor(output)
            self._output_version = 0 if self._output is None else version(self._output)
            if self.side == "output":
                self._keep(output)
        self._calls += 1

    def _keep(self, values: Any) -> None:
        found = first_tensor(values)
        if found is None:
            raise InputError(f"expected a tensor as the {self.side} of {self.name!r}, got none")
        self._features = found.detach().clone()

    def captured(self) -> tuple[Tensor, Tensor | None]:
        """The features of the last pass, and the module's output, no copy, or None if the network overwrote it since.

        Raises:
            InputError: the pass did not reach the module, or called it more or less often than earlier passes did.
        """
        features, output, calls = self._features, self._output, self._calls
        if output is not None and version(output) != self._output_version:
            output = None
        self._begin()
        if features is None:
            raise InputError(
                f"expected every forward pass to reach the layer {self.name!r}, one did not: name another with layer="
            )
        if calls != (self._usual_calls or calls):
            raise InputError(
                f"expected the layer {self.name!r} to run equally often in every forward pass, it ran "
                f"{self._usual_calls} times and then {calls} times: name another with layer="
            )
        self._usual_calls = calls
        return features, output


def require_hookable(module: nn.Module) -> None:
    """Raise for a scripted or traced module, whose layers call no hooks."""
    if isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"expected a module whose layers run in Python, got a scripted one, {module.original_name}: measure the "
            "module it was made from, or its features with measure_features"
        )


def version(values: Tensor) -> int:
    """How often a tensor was written to; 0 for tensors of inference mode, for which PyTorch does not count."""
    return 0 if values.is_inference() else values._version


def first_tensor(value: Any) -> Tensor | None:
    """The value itself if it is a tensor, or the first one in tuples, lists, dictionaries and data classes."""
    if isinstance(value, Tensor):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return next((found for each in value if (found := first_tensor(each)) is not None), None)
    return None
