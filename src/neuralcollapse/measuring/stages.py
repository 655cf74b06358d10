"""Outputs of several layers of a network, as (examples, p) features, from the pass that reaches its classifier."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from neuralcollapse._checks import InputError, as_word, shown
from neuralcollapse.measuring.head import Head
from neuralcollapse.measuring.hooks import clean_names, first_tensor, require_watchable
from neuralcollapse.measuring.layouts import Layouts, batch_second
from neuralcollapse.measuring.reading import Examples

Spatial = Literal["mean", "flatten"]


class Stages:
    """Reads layers, by default a network's stages; see :func:`neuralcollapse.measure_layers` for the arguments.

    Attributes:
        left_out: by name, default layers that ran but give no features, and why.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str] | None,
        spatial: Spatial,
        channel_axis: int | Mapping[str, int] | None,
    ) -> None:
        as_word(spatial, "spatial", ("mean", "flatten"))
        self._model, self._spatial = model, spatial
        self._modules = clean_names(model)
        self._chosen = layers is not None
        self._names = _defaults(model) if layers is None else _known(self._modules, layers)
        self._axes: dict[str, int | None] = {}
        for axis in channel_axis.values() if isinstance(channel_axis, Mapping) else [channel_axis]:
            if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int)):
                raise InputError(f"expected channel_axis to be an integer, or integers by layer, got {shown(axis)}")
        if isinstance(channel_axis, Mapping):
            self._axes |= {name: channel_axis[name] for name in _known(self._modules, list(channel_axis))}
        elif channel_axis is not None:
            self._axes |= dict.fromkeys(self._names, channel_axis)
        self._settled = False
        self._outputs: list[tuple[str, Any]] = []
        self._mask: Tensor | None = None
        self._notes: dict[str, str] = {}
        self.left_out: dict[str, str] = {}

    def notes_of(self, name: str) -> tuple[str, ...]:
        """What became of a layer's positions."""
        return (self._notes[name],) if name in self._notes else ()

    @contextmanager
    def placed(self) -> Iterator[None]:
        """With hooks on the layers and, until the axes of their features are known, on all modules."""
        names = {self._modules[name]: name for name in self._names}
        layouts, self._outputs = Layouts(), []

        def begin(_module: nn.Module, _arguments: Any, named: dict[str, Any]) -> None:
            found = named.get("attention_mask")
            self._mask = found if isinstance(found, Tensor) else None
            self._outputs.clear()

        def note(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            left = first_tensor(output)
            if left is not None and left.ndim > 2:
                axis = layouts.note(module, first_tensor(arguments), left)
                if module in names:
                    self._axes.setdefault(names[module], axis)

        def record(module: nn.Module, _arguments: Any, output: Any) -> None:
            left = first_tensor(output)
            # a copy: the next layer may rectify the output in place
            self._outputs.append((names[module], output if left is None else left.detach().clone()))

        with ExitStack() as stack:
            stack.callback(self._model.register_forward_pre_hook(begin, with_kwargs=True).remove)
            for module in () if self._settled else self._modules.values():
                if isinstance(module, torch.jit.ScriptModule):
                    continue
                stack.callback(module.register_forward_hook(note).remove)
            for module in names:
                require_watchable(module)
                stack.callback(module.register_forward_hook(record).remove)
            yield

    def take(self, examples: Examples, head: Head) -> dict[str, Tensor]:
        """By name the (examples, p) features of the pass just made."""
        outputs, self._outputs = self._outputs, []
        ran = [name for name, _ in outputs]
        if not self._settled:
            self._choose(ran, head)
        found: dict[str, Tensor] = {}
        for name, output in outputs:
            if name not in self._names:
                continue
            if ran.count(name) != 1:
                times = ran.count(name)
                raise InputError(f"expected the layer {name!r} to run once in each forward pass, it ran {times} times")
            try:
                found[name] = self._features(name, output, examples)
            except InputError as error:
                if self._settled or self._chosen:
                    raise
                self.left_out[name] = str(error)
        self._names = [name for name in self._names if name not in self.left_out]
        missing = [name for name in self._names if name not in ran]
        if missing:
            raise InputError(f"expected the layer {missing[0]!r} to run in the forward pass, it did not")
        self._settled = True
        return found

    def _choose(self, ran: list[str], head: Head) -> None:
        """Leave out what holds the classifier, and of the default layers those that do not run once."""
        last = self._modules[head.place]
        if self._chosen:
            self._names = [name for name in self._names if name != head.name]
        else:
            holds = {name for name in self._names if last in self._modules[name].modules()}
            self._names = [name for name in dict.fromkeys(ran) if ran.count(name) == 1 and name not in holds]

    def _features(self, name: str, output: Any, examples: Examples) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim < 2 or not output.is_floating_point():
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise InputError(f"expected the layer {name!r} to give features (n, p, …), got {got}")
        values = self._batch_first(name, output, examples.shape)
        shape, positions = tuple(values.shape), len(examples.shape)
        if positions > 1:
            ways = [-1, 1] if (axis := self._axes.get(name)) is None else [axis]
            moved = [values.movedim(way, -1) for way in ways]
            moved = [each for each in moved if each.ndim > positions and each.shape[:positions] == examples.shape]
            if len(moved) != 1:
                what = "a row of features for each label" if not moved else "one axis that can be that of the features"
                raise InputError(
                    f"expected the layer {name!r} to give {what}, labels {tuple(examples.shape)}, got shape {shape}"
                    + (f": say which with channel_axis={{{name!r}: 1}} or −1" if moved else "")
                )
            self._notes[name] = f"each position of {_dims(shape)} with a label is an example"
            return examples.of(moved[0].flatten(positions))
        if sum(size > 1 for size in shape[1:]) < 2:
            return examples.of(values.flatten(1))
        if self._spatial == "flatten":
            self._notes[name] = f"{_dims(shape)} flattened to {values[0].numel():,} features"
            return examples.of(values.flatten(1))
        axis = self._axes.get(name)
        if axis is None:
            raise InputError(
                f"expected to know which axis of {_dims(shape)}, the output of the layer {name!r}, holds its features, "
                f"nothing tells: say channel_axis={{{name!r}: 1}} or −1, or spatial='flatten'"
            )
        if not -values.ndim <= axis < values.ndim or axis % values.ndim == 0:
            raise InputError(f"expected channel_axis to be an axis of {_dims(shape)} but the first, got {axis}")
        wide = (values if values.dtype.itemsize > 4 else values.float()).movedim(axis, -1).flatten(1, -2)
        about = f"features are axis {axis % values.ndim} of {_dims(shape)}, their mean over {wide.shape[1]:,} positions"
        if self._mask is not None and self._mask.shape == wide.shape[:2]:
            weights = (self._mask != 0).to(wide)
            self._notes[name] = f"{about} where attention_mask is not 0"
            return examples.of((wide * weights[..., None]).sum(dim=1) / weights.sum(dim=1, keepdim=True).clamp(min=1.0))
        self._notes[name] = about
        return examples.of(wide.mean(dim=1))

    def _batch_first(self, name: str, values: Tensor, labels: Sequence[int]) -> Tensor:
        """The output with the axis of the examples first."""
        number = labels[0]
        if values.ndim == 3 and batch_second(self._modules[name]) and values.shape[1] == number:
            if values.shape[0] == number:
                raise InputError(
                    f"expected to know which axis of {tuple(values.shape)}, the output of the layer {name!r}, counts "
                    "the examples, a layer in it has batch_first=False: give another number of examples a batch"
                )
            return values.transpose(0, 1)
        if values.shape[0] != number:
            raise InputError(
                f"expected the layer {name!r} to give features of {number} examples, got shape {tuple(values.shape)}"
            )
        return values


def _dims(shape: tuple[int, ...]) -> str:
    """A shape without the number of examples, which differs from batch to batch."""
    return f"(n, {', '.join(map(str, shape[1:]))})"


def _known(modules: Mapping[str, nn.Module], names: Sequence[str]) -> list[str]:
    if isinstance(names, str):
        raise InputError(f"expected a list of layers, got the text {names!r}: write [{names!r}]")
    if not isinstance(names, Collection) or isinstance(names, (Tensor, np.ndarray, bytes)):
        raise InputError(f"expected a list of names of layers, got {shown(names)}")
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"expected names of layers, as text, got {shown(name)}")
        if name not in modules or not name:
            near = difflib.get_close_matches(name, modules, 3) or list(modules)[-3:]
            raise InputError(f"expected names of layers, got {name!r}; did you mean {', '.join(near)}?")
    if not names:
        raise InputError("expected at least one layer, got none")
    return list(dict.fromkeys(names))


def _defaults(model: nn.Module) -> list[str]:
    """Names of the children, of an only child's instead; where there are lists of blocks, of each block."""
    module = model
    while len(children := list(module.children())) == 1 and not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        module = children[0]
    names = {each: name for name, each in clean_names(model).items()}
    return [names[stage] for child in module.children() for stage in _expanded(child, inside=False)]


def _expanded(module: nn.Module, inside: bool) -> Iterator[nn.Module]:
    """A stage, or the blocks in it; of a block that is ``inside`` a list, only the blocks with attention."""
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)) or _has_attention_blocks(module):
        for child in module.children():
            yield from _expanded(child, inside=True)
    elif any(_is_list(each, attention=inside) for each in module.modules() if each is not module):
        for child in module.children():
            yield from _expanded(child, inside)
    else:
        yield module


def _is_list(module: nn.Module, attention: bool) -> bool:
    """Whether it is a list of blocks of one kind, which never runs itself, or a sequence of blocks with attention."""
    if _has_attention_blocks(module):
        return True
    children = list(module.children())
    alike = len({type(each) for each in children}) == 1 and len(list(children[0].children())) > 0
    return isinstance(module, nn.ModuleList) and alike and not attention


def _has_attention_blocks(module: nn.Module) -> bool:
    children = list(module.children())
    if not isinstance(module, (nn.Sequential, nn.ModuleList)) or len({type(each) for each in children}) != 1:
        return False
    return any("attention" in type(each).__name__.lower() for each in children[0].modules() if each is not children[0])
