"""Outputs of several layers of a network, as (examples, p) features, from the pass that reaches its classifier.

Which axis of an output holds the features is told by the layers that made it, not by the number of axes.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from neuralcollapse._checks import InputError, as_word, shown
from neuralcollapse._errors import suggest
from neuralcollapse.measuring.batches import Examples
from neuralcollapse.measuring.head import ClassifierHead
from neuralcollapse.measuring.hooks import first_tensor, require_hookable

Spatial = Literal["mean", "flatten"]

# PyTorch documents the outputs of these as (n, features, positions …), and of those below as (…, features).
_FEATURES_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
)
_FEATURES_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.MultiheadAttention, nn.RNNBase)


class LayerOutputs:
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
        self._spatial = as_word(spatial, "spatial", ("mean", "flatten"))
        self._model, self._modules, self._chosen = model, dict(model.named_modules()), layers is not None
        self._names = _stages(model) if layers is None else _known(self._modules, layers)
        by_name = isinstance(channel_axis, Mapping)
        for axis in channel_axis.values() if by_name else [channel_axis]:  # type: ignore[union-attr]
            if (axis is not None or by_name) and (isinstance(axis, bool) or not isinstance(axis, int)):
                raise InputError(f"expected channel_axis to be an integer, or integers by layer, got {shown(axis)}")
        # by layer, the axis of the features; None where nothing proves it
        self._axes: dict[str, int | None] = {}
        if isinstance(channel_axis, Mapping):
            for name in _known(self._modules, list(channel_axis)) if channel_axis else ():
                if name not in self._names:
                    hint = suggest(name, self._names) or f": they are {', '.join(self._names)}"
                    raise InputError(f"expected channel_axis by layers that are measured, got {name!r}{hint}")
                self._axes[name] = channel_axis[name]
        elif channel_axis is not None:
            self._axes = dict.fromkeys(self._names, channel_axis)
        # whether a batch was read, after which the layers and their axes are known
        self._layout_known = False
        self._outputs: list[tuple[str, Any]] = []
        self._mask: Tensor | None = None
        self._notes: dict[str, str] = {}
        self.left_out: dict[str, str] = {}

    def notes_of(self, name: str) -> tuple[str, ...]:
        """What became of a layer's positions."""
        return (self._notes[name],) if name in self._notes else ()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Within the block, hooks are on the layers and, until the axes are known, on all modules."""
        names = {self._modules[name]: name for name in self._names}
        self._outputs = []
        # outputs whose axis is known: an activation gives features along the same axis as it is given them
        known: list[tuple[weakref.ref[Tensor], int]] = []

        def begin(_module: nn.Module, _arguments: Any, named: dict[str, Any]) -> None:
            found = named.get("attention_mask")
            self._mask = found if isinstance(found, Tensor) else None
            self._outputs.clear()

        def note_axis(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            left = first_tensor(output)
            if left is None or left.ndim <= 2:
                return
            axis = axis_of(module, left)
            if axis is None and _is_elementwise(module):
                entered = first_tensor(arguments)
                axis = next((each for ref, each in reversed(known) if ref() is entered), None)
            if axis is not None:
                known.append((weakref.ref(left), axis))
            if module in names:
                self._axes.setdefault(names[module], axis)

        def record(module: nn.Module, _arguments: Any, output: Any) -> None:
            left = first_tensor(output)
            # a copy: the next layer may change the output in place
            self._outputs.append((names[module], output if left is None else left.detach().clone()))

        with ExitStack() as stack:
            stack.callback(self._model.register_forward_pre_hook(begin, with_kwargs=True).remove)
            for module in () if self._layout_known else self._modules.values():
                if not isinstance(module, torch.jit.ScriptModule):
                    stack.callback(module.register_forward_hook(note_axis).remove)
            for module in names:
                require_hookable(module)
                stack.callback(module.register_forward_hook(record).remove)
            yield

    def captured(self, examples: Examples, head: ClassifierHead) -> dict[str, Tensor]:
        """By name the (examples, p) features of the pass just made."""
        outputs, self._outputs = self._outputs, []
        ran = [name for name, _ in outputs]
        if not self._layout_known:
            # the classifier's own layer is read elsewhere, and default layers that hold it or run twice are no stages
            if self._chosen:
                self._names = [name for name in self._names if name != head.name]
            else:
                last = self._modules[head.place]
                holders = {name for name in self._names if last in self._modules[name].modules()}
                self._names = [name for name in dict.fromkeys(ran) if ran.count(name) == 1 and name not in holders]
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
                if self._layout_known or self._chosen:
                    raise
                self.left_out[name] = str(error)
        self._names = [name for name in self._names if name not in self.left_out]
        missing = [name for name in self._names if name not in ran]
        if missing:
            raise InputError(f"expected the layer {missing[0]!r} to run in the forward pass, it did not")
        self._layout_known = True
        return found

    def _features(self, name: str, output: Any, examples: Examples) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim < 2 or not output.is_floating_point():
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise InputError(f"expected the layer {name!r} to give features (n, p, …), got {got}")
        values = self._examples_first(name, output, examples.shape)
        shape, positions = tuple(values.shape), len(examples.shape)
        sizes = f"(n, {', '.join(map(str, shape[1:]))})"  # n differs from batch to batch
        axis = self._axes.get(name)
        if positions > 1:
            moved = [values.movedim(each, -1) for each in ([-1, 1] if axis is None else [axis])]
            moved = [each for each in moved if each.ndim > positions and each.shape[:positions] == examples.shape]
            if len(moved) != 1:
                what = "one axis that can be that of the features" if moved else "a row of features for each label"
                raise InputError(
                    f"expected the layer {name!r} to give {what}, labels {tuple(examples.shape)}, got shape {shape}"
                    + (f": say which with channel_axis={{{name!r}: 1}} or −1" if moved else "")
                )
            self._notes[name] = f"each position of {sizes} with a label is an example"
            return examples.of(moved[0].flatten(positions))
        if sum(size > 1 for size in shape[1:]) < 2:
            return examples.of(values.flatten(1))
        if self._spatial == "flatten":
            self._notes[name] = f"{sizes} flattened to {values[0].numel():,} features"
            return examples.of(values.flatten(1))
        if axis is None:
            raise InputError(
                f"expected to know which axis of {sizes}, the output of the layer {name!r}, holds its features, "
                f"nothing tells: say channel_axis={{{name!r}: 1}} or −1, or spatial='flatten'"
            )
        if not -values.ndim <= axis < values.ndim or axis % values.ndim == 0:
            raise InputError(f"expected channel_axis to be an axis of {sizes} but the first, got {axis}")
        wide = (values if values.dtype.itemsize > 4 else values.float()).movedim(axis, -1).flatten(1, -2)
        note = f"features are axis {axis % values.ndim} of {sizes}, their mean over {wide.shape[1]:,} positions"
        if self._mask is not None and self._mask.shape == wide.shape[:2]:
            weights = (self._mask != 0).to(wide)
            self._notes[name] = f"{note} where attention_mask is not 0"
            return examples.of((wide * weights[..., None]).sum(dim=1) / weights.sum(dim=1, keepdim=True).clamp(min=1.0))
        self._notes[name] = note
        return examples.of(wide.mean(dim=1))

    def _examples_first(self, name: str, values: Tensor, labels: Sequence[int]) -> Tensor:
        """The output with the axis of the examples first: attention and recurrent layers may have it second."""
        number = labels[0]
        kinds = nn.MultiheadAttention, nn.RNNBase
        # what feeds such a layer, or is fed by it, has its order, too
        length_first = any(isinstance(each, kinds) and not each.batch_first for each in self._modules.values())
        if values.ndim == 3 and length_first and values.shape[1] == number:
            if values.shape[0] == number:
                raise InputError(
                    f"expected to know which axis of {tuple(values.shape)}, the output of the layer {name!r}, counts "
                    "the examples, the network has a layer with batch_first=False: give another number of examples a "
                    "batch"
                )
            return values.transpose(0, 1)
        if values.shape[0] != number:
            raise InputError(
                f"expected the layer {name!r} to give features of {number} examples, got shape {tuple(values.shape)}"
            )
        return values


def axis_of(module: nn.Module, left: Tensor) -> int | None:
    """The axis of the features in an output (n, …) of three or more axes, 1 or −1; None where nothing proves it.

    A convolution, a batch normalisation or a pooling has them on axis 1, a linear layer or a layer normalisation on the
    last. A module that holds such layers has them on the axis whose size is one of their numbers of features, if only
    one is; or where both are and all these layers are of one kind, on the axis of that kind, but for convolutions over
    one axis, whose outputs are often transposed.
    """
    own = _documented_axis(module)
    if own is not None:
        return own
    sequential = type(module) is nn.Sequential
    if sequential and isinstance(
        module, nn.Sequential
    ):  # gives what its last layer does, through activations that move no axis
        last = next((each for each in reversed(module) if not _is_elementwise(each)), None)
        if last is not None and (axis := axis_of(last, left)) is not None:
            return axis
    axes = {axis for each in module.modules() if (axis := _documented_axis(each)) is not None}
    widths = {width for each in module.modules() for width in _widths(each)}
    fits = [axis for axis in (1, -1) if left.shape[axis] in widths]
    if len(fits) == 1:
        return fits[0]
    if not fits or len(axes) != 1 or sequential:  # what comes last there may have moved it
        return None
    (axis,) = axes
    # the map of a convolution that was flattened to tokens has an axis fewer, and was most often transposed
    spatial = {each.weight.ndim for each in module.modules() if isinstance(each, nn.modules.conv._ConvNd)}
    return axis if axis == -1 or (spatial == {left.ndim} and left.ndim > 3) else None


def _is_elementwise(module: nn.Module) -> bool:
    """Whether it is one of PyTorch's activations or dropouts, which move no axis."""
    home = type(module).__module__
    return home in ("torch.nn.modules.activation", "torch.nn.modules.dropout") or type(module) is nn.Identity


def _documented_axis(module: nn.Module) -> int | None:
    """The axis of the features, 1 or −1, according to the documentation of the module's class."""
    if isinstance(module, _FEATURES_FIRST):
        return 1
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        # subclasses may move the axes, as ConvNeXt's do
        plain = type(module) in (nn.LayerNorm, nn.RMSNorm)
        return -1 if plain and len(module.normalized_shape) == 1 else None  # type: ignore[arg-type]
    return -1 if isinstance(module, _FEATURES_LAST) else None


def _widths(module: nn.Module) -> Iterator[int]:
    """The numbers of features that a module may give."""
    for name in ("out_features", "out_channels", "num_features", "num_channels", "embedding_dim", "embed_dim"):
        width = getattr(module, name, None)
        if isinstance(width, int):
            yield width
    if next(module.children(), None) is None:
        # the scale or bias of a normalisation, which may be the model's own class
        yield from (len(each) for each in module.parameters() if each.ndim == 1)
    if isinstance(module, nn.RNNBase):
        yield (module.proj_size or module.hidden_size) * (2 if module.bidirectional else 1)


def _known(modules: Mapping[str, nn.Module], names: Sequence[str]) -> list[str]:
    """The names without repetitions; an error if one of them is no layer."""
    if isinstance(names, str):
        raise InputError(f"expected a list of layers, got the text {names!r}: write [{names!r}]")
    if not isinstance(names, Collection) or isinstance(names, (Tensor, np.ndarray, bytes)):
        raise InputError(f"expected a list of names of layers, got {shown(names)}")
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"expected names of layers, as text, got {shown(name)}")
        if name not in modules or not name:
            hint = suggest(name, modules) or f": the last ones are {', '.join(list(modules)[-3:])}"
            raise InputError(f"expected names of layers, got {name!r}{hint}")
    if not names:
        raise InputError("expected at least one layer, got none")
    return list(dict.fromkeys(names))


def _stages(model: nn.Module) -> list[str]:
    """Names of the children, or of an only child's children; of each block where there are lists of blocks."""
    module = model
    while len(children := list(module.children())) == 1 and not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        module = children[0]
    names = {each: name for name, each in model.named_modules()}
    return [names[stage] for child in module.children() for stage in _blocks(child, inside=False)]


def _blocks(module: nn.Module, inside: bool) -> Iterator[nn.Module]:
    """The blocks of a stage, or the stage itself if it has none.

    Inside a block, plain lists, such as its experts, are parts of it: only blocks with attention are looked for there.
    """
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)) or _has_attention_blocks(module):
        for child in module.children():
            yield from _blocks(child, inside=True)
    elif any(_is_list(each, attention_only=inside) for each in module.modules() if each is not module):
        for child in module.children():
            yield from _blocks(child, inside)
    else:
        yield module


def _is_list(module: nn.Module, attention_only: bool) -> bool:
    """Whether it is a list of equal blocks; with ``attention_only``, just of blocks that contain attention."""
    if _has_attention_blocks(module):
        return True
    children = list(module.children())
    alike = len({type(each) for each in children}) == 1 and len(list(children[0].children())) > 0
    return isinstance(module, nn.ModuleList) and alike and not attention_only


def _has_attention_blocks(module: nn.Module) -> bool:
    children = list(module.children())
    if not isinstance(module, (nn.Sequential, nn.ModuleList)) or len({type(each) for each in children}) != 1:
        return False
    return any("attention" in type(each).__name__.lower() for each in children[0].modules() if each is not children[0])
