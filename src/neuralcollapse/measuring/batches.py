"""Batches of a loader, of any structure: moved to a device, read as inputs and labels, and split into examples."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset

from neuralcollapse._checks import InputError, as_labels, as_tensor, check_labels, shown

LARGEST_LABEL = torch.iinfo(torch.int64).max
# The label that PyTorch's losses leave out by default, and Transformers' collators pad with.
_LEFT_OUT = -100
_LABEL_NAMES = ("labels", "label")
# What networks call a second argument that has one number for an example, as labels do.
_ONE_AN_EXAMPLE = ("len", "offset")


@dataclasses.dataclass(frozen=True)
class PreparedLoader:
    """A loader, and how a trainer prepares its batches and runs its network.

    Args:
        loader: of batches.
        transfer: takes a batch as the loader gives it, and gives it on the device, in the types that the network takes.
        context: makes the context that the network runs in, such as autocast.
    """

    loader: Iterable[Any]
    transfer: Callable[[Any], Any]
    context: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


@dataclasses.dataclass(frozen=True)
class Call:
    """One batch: the arguments of the network, and the labels, which are None where none are wanted."""

    arguments: tuple[Any, ...]
    named: dict[str, Any]
    labels: Tensor | None


def calls(loader: Iterable[Any], model: nn.Module, device: torch.device, *, labelled: bool = True) -> Iterator[Call]:
    """What the network is to be called with for each batch of a loader, on the device; see :func:`read_batch`."""
    transfer = loader.transfer if isinstance(loader, PreparedLoader) else None
    loader = loader.loader if isinstance(loader, PreparedLoader) else loader
    require_loader(loader)
    if isinstance(loader, DataLoader) and loader.persistent_workers:
        # a copy with workers of its own: the loader's own workers may be in the middle of an epoch
        loader = copy.copy(loader)
        vars(loader).update(persistent_workers=False, _iterator=None)
    for number, batch in enumerate(loader):
        place = f"batch {number}"
        ready = moved(batch, device, place) if transfer is None else transfer(batch)
        yield read_batch(ready, model, labelled=labelled, place=place)


def run(model: nn.Module, call: Call, number: int) -> Any:
    """What the network returns for a batch; an error of its own says for which."""
    try:
        return model(*call.arguments, **call.named)
    except Exception as error:
        inputs: dict[Any, Any] = {**dict(enumerate(call.arguments)), **call.named}
        said = ", ".join(f"argument {name}: {shown(value)}" for name, value in inputs.items())
        error.add_note(f"raised by {type(model).__name__} on batch {number}; {said}")
        raise


def length_of(loader: Iterable[Any]) -> int | None:
    """How many batches a loader gives, where it says so."""
    try:
        return len(loader.loader if isinstance(loader, PreparedLoader) else loader)  # type: ignore[arg-type]
    except TypeError:
        return None


def sampler_of(loader: object) -> Any:
    """What chooses a loader's examples, behind what puts them together; None where it has no such thing."""
    return getattr(getattr(loader, "batch_sampler", None), "sampler", getattr(loader, "sampler", None))


def examples_repeated(loader: Iterable[Any]) -> int:
    """How many examples a loader's ``DistributedSampler`` gives once more, so that all processes have as many."""
    sampler = sampler_of(loader.loader if isinstance(loader, PreparedLoader) else loader)
    if not isinstance(sampler, DistributedSampler):
        return 0
    return max(0, sampler.total_size - len(sampler.dataset))  # type: ignore[arg-type]


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter is; the CPU where it has none."""
    return next((each.device for each in model.parameters()), torch.device("cpu"))


def require_loader(loader: Any) -> None:
    """Raise unless ``loader`` gives batches, and can be gone through more than once."""
    kind = type(loader).__name__
    if isinstance(loader, Iterator):
        raise InputError(f"expected a loader that can be gone through again, got a {kind}: pass a list of batches")
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        raise InputError(
            f"expected a loader of batches, got the data set {kind}: pass DataLoader(data_set, batch_size=128)"
        )
    if isinstance(loader, (nn.Module, Tensor, np.ndarray, np.generic, str, bytes, Mapping)) or not (
        hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")
    ):
        got = f"the network {kind}" if isinstance(loader, nn.Module) else kind
        raise InputError(f"expected a loader of batches, got {got}: pass a DataLoader or a list of batches")


def no_batches(loader: Iterable[Any]) -> InputError:
    """The error for a loader that gave nothing; it may have given all before, unless its length says it has nothing."""
    once = "" if length_of(loader) == 0 else ": if it gives its batches only once, give a list of batches"
    return InputError(f"expected a loader with at least one batch, got none{once}")


def times_of_labels(labels: Tensor) -> dict[int, int]:
    """How often each label comes."""
    values, times = torch.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), times.tolist(), strict=True))


def read_batch(batch: Any, model: nn.Module, *, labelled: bool, place: str) -> Call:
    """The arguments of the network and the labels in a batch.

    - ``(inputs, labels)``, or three entries of which the last, an index or a weight, is ignored: the inputs become the
      first argument. Where the network requires several arguments, a tuple or dictionary of inputs becomes these. Three
      entries that may be two arguments and their labels, such as tokens, a mask and labels, are refused.
    - A dictionary, or an object with fields: all but ``labels`` (or ``label``) are passed by name, if the network's
      ``forward`` takes them.
    - Inputs alone, where no labels are wanted.

    Anything else is an InputError, which names its type and ``place``.
    """
    fields = _fields(batch)
    if fields is not None:
        name = next((name for name in _LABEL_NAMES if name in fields), None)
        if name is None and labelled:
            raise InputError(
                f"expected a 'labels' or 'label' entry in each batch, got {sorted(map(str, fields))} in {place}"
            )
        labels = _labels(fields[name], f"{place}, entry {name!r}") if labelled and name else None
        given = {key: value for key, value in fields.items() if key not in _LABEL_NAMES}
        return Call((), _taken(model, given, place), labels)
    if isinstance(batch, (tuple, list)) and len(batch) in ((2, 3) if labelled else (1, 2, 3)):
        if labelled and len(batch) == 3:
            _require_one_reading(batch, model, place)
        labels = _labels(batch[1], f"{place}, entry 1") if labelled else None
        return Call(*_arguments(model, batch[0], place), labels)
    if labelled or batch is None or isinstance(batch, (str, bytes, tuple, list)):
        count = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        wanted = "(inputs, labels), or dictionaries with labels" if labelled else "inputs, (inputs, labels)"
        hint = ": a single batch is given as [(inputs, labels)]" if labelled and isinstance(batch, Tensor) else ""
        raise InputError(f"expected batches of {wanted}, got a {type(batch).__name__}{count} as {place}{hint}")
    return Call((batch,), {}, None)


def moved(value: Any, device: torch.device, place: str) -> Any:
    """A copy of a structure in which all that has ``.to`` is on the device; arrays of numbers become tensors."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "c":
            return torch.as_tensor(value).to(device)
        return as_tensor(value, f"numbers at {place}").to(device) if value.dtype.kind in "biuf" else value
    if not isinstance(value, type) and callable(getattr(value, "to", None)):
        try:
            return value.to(device)
        except (TypeError, AttributeError, NotImplementedError) as error:
            kind = type(value).__name__
            raise InputError(f"expected a value that moves to {device} at {place}, got a {kind}: {error}") from error
    if isinstance(value, Mapping):
        parts = {key: moved(part, device, f"{place}, entry {key!r}") for key, part in value.items()}
        if type(value) is dict or not hasattr(value, "__setitem__"):
            return parts
        same_kind = copy.copy(value)
        for key, part in parts.items():
            same_kind[key] = part
        return same_kind
    if isinstance(value, (tuple, list)):
        items = [moved(part, device, f"{place}, entry {index}") for index, part in enumerate(value)]
        try:
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        except TypeError:  # a subclass of list or tuple whose constructor takes something else
            return items
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        new = copy.copy(value)
        for field in dataclasses.fields(value):
            part = moved(getattr(value, field.name), device, f"{place}, field {field.name}")
            object.__setattr__(new, field.name, part)  # works for a frozen class too
        return new
    return value


def _fields(batch: Any) -> dict[str, Any] | None:
    """A batch's entries by name; None for a batch without names."""
    if isinstance(batch, Mapping):
        return dict(batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    names = getattr(batch, "_fields", ())
    # a named tuple (inputs, labels) is a pair like any other
    if any(name in names for name in _LABEL_NAMES) and names[1:2] not in (("labels",), ("label",)):
        return dict(zip(names, batch, strict=True))
    return None


def _require_one_reading(batch: Sequence[Any], model: nn.Module, place: str) -> None:
    """Raise where the second of three entries may be an argument and the third the labels.

    It may where the network takes a second argument, and either needs it, or calls it a length, or the second entry has
    the shape of the first, as a mask has.
    """
    first, second, third = (each if isinstance(each, Tensor) else None for each in batch)
    positional = [p for p in _parameters(model) if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if first is None or second is None or third is None or len(positional) < 2:
        return
    argument = positional[1]
    needed = argument.default is argument.empty or any(word in argument.name.lower() for word in _ONE_AN_EXAMPLE)
    as_large = second.shape == first.shape or (second.ndim > 1 and second.shape == first.shape[: second.ndim])
    if not needed and not as_large:
        return
    if third.ndim and len(third) == len(first) and not third.is_floating_point():
        raise InputError(
            f"expected (inputs, labels) in {place}, got three entries, of which {type(model).__name__} may take the "
            f"first two and the last be the labels: give {{{positional[0].name!r}: …, {argument.name!r}: …, 'labels': "
            "…}, or (inputs, labels) without the last"
        )


def _labels(value: Any, place: str) -> Tensor:
    try:
        labels = as_labels(value)
    except InputError as error:
        what, colon, advice = str(error).partition(": ")
        raise InputError(f"{what} at {place}{colon}{advice}") from error
    if labels.ndim == 0:
        raise InputError(
            f"expected the labels of a batch at {place}, got one label: pass DataLoader(data_set, batch_size=128)"
        )
    return labels


def _arguments(model: nn.Module, inputs: Any, place: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs of a pair as arguments: one, unless the network requires several."""
    if not isinstance(inputs, (Mapping, tuple, list)):
        return (inputs,), {}
    required = [
        p for p in _parameters(model) if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(required) > 1:
        return ((), _taken(model, dict(inputs), place)) if isinstance(inputs, Mapping) else (tuple(inputs), {})
    return (inputs,), {}


def _taken(model: nn.Module, given: dict[str, Any], place: str) -> dict[str, Any]:
    """The entries of a batch that the network's ``forward`` takes; all of them where it takes any name.

    The rest, such as a text beside its tokens, is left out, as Transformers' own trainer does.
    """
    parameters = _parameters(model)
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not parameters or any(p.kind == p.VAR_KEYWORD for p in parameters):
        return given
    missing = [p.name for p in parameters if p.name in names and p.default is p.empty and p.name not in given]
    if missing or not any(name in given for name in names):
        raise InputError(
            f"expected entries that {type(model).__name__}.forward takes ({', '.join(names)}), got "
            f"{', '.join(map(str, given)) or 'none'} in {place}: rename them, or give (inputs, labels)"
        )
    return {name: value for name, value in given.items() if name in names}


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):  # forward is not written in Python
        return []


class Examples:
    """Which positions of a batch are examples, and their labels.

    Args:
        labels: (n,), or one for each position, (n, T) or (n, H, W); positions labelled −100 are left out.
        next_token: the label of a position in a sequence is that of the next one.
        labelled: False where labels mean nothing: all positions are examples, of class 0.
    """

    def __init__(self, labels: Tensor, next_token: bool = False, labelled: bool = True) -> None:
        if next_token and labels.ndim == 1:  # sequences of one token, (n, 1), none of which has a next one
            labels = labels[:, None]
        self.shape, self._next_token, self._given = labels.shape, next_token, labels
        labels = (labels[..., 1:] if next_token else labels).flatten()
        kept = labels != _LEFT_OUT
        self._kept = None if not labelled or bool(kept.all()) else kept
        self.left_out = self._kept is not None
        self.labels = labels if self._kept is None else labels[self._kept]

    def of(self, features: Tensor) -> Tensor:
        """(examples, p) of (…, p) features; an error unless there is one row for each label."""
        if features.ndim == 2 and self._next_token:
            shape = tuple(features.shape)
            raise InputError(f"next_token=True needs features of shape (batch, length, features), got {shape}")
        if features.shape[:-1] != self.shape:
            # of as many axes in another order, positions would be paired with the labels of others
            single, other_order = features.ndim == 2, features.ndim - 1 == len(self.shape)
            if (single and len(self.shape) < 2) or other_order or features.shape[:-1].numel() != self.shape.numel():
                if single:
                    check_labels(self._given, len(features), LARGEST_LABEL)
                shape, got = tuple(features.shape[:-1]), tuple(self.shape)
                raise InputError(f"expected a label for each position, {shape}, got shape {got}")
            features = features.reshape(*self.shape, features.shape[-1])
        if self._next_token:
            features = features[..., :-1, :]
        features = features.reshape(-1, features.shape[-1])
        return features if self._kept is None else features[self._kept.to(features.device)]
