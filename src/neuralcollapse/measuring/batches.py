"""What a loader may give: batches of any structure, read as inputs and labels, and moved to a device."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from neuralcollapse._checks import InputError, as_labels, as_tensor

_LABEL_NAMES = ("labels", "label")
# How many objects from a loader on are looked at for generators, and lists up to what length.
_MOST, _LONGEST = 10_000, 64


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A loader, and how a trainer prepares its batches and runs its network.

    Args:
        loader: of batches.
        transfer: takes a batch as the loader gives it to the device, in the types that the network takes.
        context: the network runs in.
    """

    loader: Iterable[Any]
    transfer: Callable[[Any], Any]
    context: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


@dataclasses.dataclass(frozen=True)
class Call:
    """One batch: the arguments the network is called with, and the labels, None where they are not wanted."""

    arguments: tuple[Any, ...]
    named: dict[str, Any]
    labels: Tensor | None


def require_loader(loader: Any) -> None:
    """Raise unless ``loader`` can be gone through, more than once, batch by batch."""
    kind = type(loader).__name__
    if isinstance(loader, Iterator):
        raise InputError(f"expected a loader that can be gone through again, got a {kind}: pass a list of batches")
    if isinstance(loader, Dataset) and not isinstance(loader, IterableDataset):
        raise InputError(
            f"expected a loader of batches, got the data set {kind}: pass DataLoader(data_set, batch_size=128)"
        )
    if isinstance(loader, (Tensor, np.ndarray, np.generic, str, bytes, Mapping)) or not (
        hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")
    ):
        raise InputError(f"expected a loader of batches, got {kind}: pass a DataLoader or a list of batches")


def unshared(loader: Iterable[Any]) -> Iterable[Any]:
    """The loader; where its worker processes stay alive, a copy with others, so that theirs go on where they are."""
    if isinstance(loader, DataLoader) and loader.persistent_workers:
        loader = copy.copy(loader)
        vars(loader).update(persistent_workers=False, _iterator=None)
    return loader


def read_batch(batch: Any, model: nn.Module, *, labelled: bool, place: str) -> Call:
    """A batch as arguments of the network and labels.

    - ``(inputs, labels)``, or three of which the last, an index or a weight, is left out: ``inputs``, whatever they
      are, become the first argument; a tuple or dictionary becomes several where the network requires several.
    - A dictionary, or an object with fields: all but ``labels`` (or ``label``) are passed by name, where the network's
      ``forward`` takes them.
    - Where labels are not wanted, also inputs alone.

    Args:
        batch: of a loader, moved to the network's device.
        model: the network.
        labelled: whether labels are wanted.
        place: of the batch, for errors.

    Raises:
        InputError: anything else, by its type and place.
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
        labels = _labels(batch[1], f"{place}, entry 1") if labelled else None
        return Call(*_arguments(model, batch[0], place), labels)
    if labelled or batch is None or isinstance(batch, (str, bytes, tuple, list)):
        count = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        wanted = "(inputs, labels), or dictionaries with labels" if labelled else "inputs, (inputs, labels)"
        raise InputError(f"expected batches of {wanted}, got a {type(batch).__name__}{count} as {place}")
    return Call((batch,), {}, None)


def moved(value: Any, device: torch.device, place: str) -> Any:
    """A value of any structure with all that has ``.to`` on a device; arrays of numbers become tensors."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "c":
            return torch.as_tensor(value).to(device)
        return as_tensor(value, f"numbers at {place}").to(device) if value.dtype.kind in "biuf" else value
    if not isinstance(value, type) and callable(getattr(value, "to", None)):
        try:
            return value.to(device)
        except (TypeError, AttributeError, NotImplementedError) as error:
            kind = type(value).__name__
            raise InputError(f"expected what can be moved to {device} at {place}, got a {kind}: {error}") from error
    if isinstance(value, Mapping):
        parts = {key: moved(part, device, f"{place}, entry {key!r}") for key, part in value.items()}
        return _like_mapping(value, parts)
    if isinstance(value, (tuple, list)):
        items = [moved(part, device, f"{place}, entry {index}") for index, part in enumerate(value)]
        try:
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        except TypeError:  # a list of one's own, made of something else
            return items
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        new = copy.copy(value)
        for field in dataclasses.fields(value):
            part = moved(getattr(value, field.name), device, f"{place}, field {field.name}")
            object.__setattr__(new, field.name, part)  # also of a frozen one: it is a copy
        return new
    return value


def _like_mapping(value: Mapping[Any, Any], parts: dict[Any, Any]) -> Mapping[Any, Any]:
    if type(value) is dict or not hasattr(value, "__setitem__"):
        return parts
    new = copy.copy(value)
    for key, part in parts.items():
        new[key] = part
    return new


def _fields(batch: Any) -> dict[str, Any] | None:
    """A batch's entries by name, where it has names rather than places."""
    if isinstance(batch, Mapping):
        return dict(batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    names = getattr(batch, "_fields", ())
    # a named tuple (inputs, labels) is a pair like any other
    if any(name in names for name in _LABEL_NAMES) and names[1:2] not in (("labels",), ("label",)):
        return dict(zip(names, batch, strict=True))
    return None


def _labels(value: Any, place: str) -> Tensor:
    try:
        return as_labels(value)
    except InputError as error:
        raise InputError(f"{error} at {place}") from error


def _arguments(model: nn.Module, inputs: Any, place: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What is the first of a pair as arguments: one, unless the network requires more."""
    if not isinstance(inputs, (Mapping, tuple, list)):
        return (inputs,), {}
    required = [
        p for p in _parameters(model) if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(required) > 1:
        return ((), _taken(model, dict(inputs), place)) if isinstance(inputs, Mapping) else (tuple(inputs), {})
    return (inputs,), {}


def _taken(model: nn.Module, given: dict[str, Any], place: str) -> dict[str, Any]:
    """Of a batch's entries those that the network's ``forward`` takes.

    One that takes any, as those of Transformers do to hand them on, names what it can use; the rest, such as a text
    beside its tokens, is what Transformers' own trainer leaves out too.
    """
    parameters = _parameters(model)
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
    if not parameters or takes_any:
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
    except (TypeError, ValueError):  # of a function that is not written in Python
        return []


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors of a structure, such as a network's output."""
    if isinstance(value, Tensor):
        yield value
        return
    if isinstance(value, Mapping):
        parts: Iterable[Any] = value.values()
    elif isinstance(value, (tuple, list)):
        parts = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = (getattr(value, field.name) for field in dataclasses.fields(value))
    else:
        return
    for part in parts:
        yield from tensors_in(part)


@contextmanager
def random_states_kept(*loaders: Any) -> Iterator[None]:
    """Put back the generators that loaders, samplers, data sets and transforms keep for themselves.

    They are found among attributes, and in short lists and dictionaries of them. State of another kind, such as a
    counter of a sampler's own, is not, nor what a worker process keeps.
    """
    restores: list[Callable[[], object]] = []
    seen: dict[int, object] = {}
    waiting = list(loaders)
    while waiting and len(seen) < _MOST:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        restore = _restore_of(value)
        if restore is not None:
            restores.append(restore)
        elif isinstance(value, (list, tuple)):
            waiting += value if len(value) <= _LONGEST else ()
        elif isinstance(value, dict):
            waiting += value.values() if len(value) <= _LONGEST else ()
        elif not isinstance(value, (type, ModuleType, Tensor, np.ndarray)):
            waiting += vars(value).values() if hasattr(value, "__dict__") else ()
    try:
        yield
    finally:
        for restore in restores:
            restore()


def _restore_of(value: Any) -> Callable[[], object] | None:
    """What sets a generator to the state it has now; None for all else."""
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return partial(value.setstate, value.getstate())
    if isinstance(value, np.random.RandomState):
        return partial(value.set_state, value.get_state())
    if isinstance(value, np.random.Generator):
        return partial(setattr, value.bit_generator, "state", value.bit_generator.state)
    return None
