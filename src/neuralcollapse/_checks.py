"""Checks of arguments. Each error is one sentence that names the value, what was expected and, if any, the way out."""

from __future__ import annotations

import contextlib
import math
import numbers
import operator
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralcollapse._errors import InputError as InputError
from neuralcollapse._errors import suggest

Array = np.ndarray

# No counter of examples, classes or features is beyond PyTorch's int64.
_LARGEST_COUNT = 2**63 - 1
# PyTorch has these types of integers, and few functions for them.
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


def as_tensor(value: Any, name: str = "labels") -> Tensor:
    """A tensor of real numbers, without gradient, from a tensor, an array or a list.

    Types that PyTorch stores but hardly computes with are widened: unsigned integers to int64, floats of 8 bits to
    float32. Extended precision becomes float64.

    Raises:
        InputError: the value is not numeric, or is complex, sparse, nested, quantized, masked or on the meta device.
    """
    if not isinstance(value, Tensor):
        value = _from_array(_as_array(value, name), name)
    require_values(value, name)
    return _widened(value.detach(), name)


def as_labels(value: Any) -> Tensor:
    """Labels as `as_tensor` reads them; the shape (n, 1) becomes (n,)."""
    labels = as_tensor(value, "labels")
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _as_array(value: Any, name: str) -> np.ndarray[Any, Any]:
    if isinstance(value, (list, tuple)) and value and all(isinstance(part, Tensor) for part in value):
        if len({part.shape for part in value}) > 1:
            raise InputError(f"expected numeric {name} of one shape, got a list of tensors of several")
        value = torch.stack([as_tensor(part, name).cpu() for part in value]).numpy()
    try:
        array: np.ndarray[Any, Any] = np.asanyarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"expected numeric {name} of one shape, got {type(value).__name__}: {error}") from None
    if array.ndim == 0 and array.dtype.kind in "OUSV":
        layer = hasattr(value, "weight") and hasattr(value, "bias")
        hint = ": give its .weight and its .bias" if layer else ""
        raise InputError(f"expected numeric {name}, got {type(value).__name__}{hint}")
    return array


def _from_array(array: np.ndarray[Any, Any], name: str) -> Tensor:
    if isinstance(array, np.ma.MaskedArray):
        masked = int(np.ma.getmaskarray(array).sum())
        if masked:
            raise InputError(f"expected {name} without masked entries, got {masked}: leave their rows out")
        array = array.data
    kind, stored = array.dtype.kind, array.dtype.name
    if kind == "c":
        raise InputError(f"expected real {name}, got {array.dtype}: give its .real or its absolute values")
    if kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    elif kind == "V" and stored.startswith(("bfloat16", "float8")):  # types that ml_dtypes adds to NumPy
        array = array.astype(np.float32)
    elif kind not in "biuf":
        hint = ": number the classes, such as by np.unique(names, return_inverse=True)[1]" if kind in "OUS" else ""
        raise InputError(f"expected numeric {name}, got an array of {array.dtype}{hint if 'labels' in name else ''}")
    # PyTorch takes arrays of the machine's own byte order, with strides of at least 0, that it may write to.
    array = np.asarray(array, dtype=array.dtype.newbyteorder("="))
    if not array.flags.writeable or any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def _widened(tensor: Tensor, name: str) -> Tensor:
    if tensor.dtype in _UNSIGNED:
        wide = tensor.to(torch.int64)
        if tensor.dtype == torch.uint64 and bool((wide < 0).any()):
            raise InputError(f"expected {name} below 2⁶³, got {int(tensor[(wide < 0)].flatten()[0].item())}")
        return wide
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() < 2 else tensor


def require_values(tensor: Tensor, name: str) -> None:
    """Raise unless `tensor` is a dense tensor of real numbers that holds its values."""
    if not isinstance(tensor, Tensor):
        raise InputError(f"expected a tensor of {name}, got {type(tensor).__name__}: torch.as_tensor makes one")
    if tensor.is_meta:
        raise InputError(f"expected {name} with values, got a tensor on the meta device, which holds none")
    if tensor.is_nested:
        raise InputError(f"expected a dense tensor of {name}, got a nested one: give its parts as batches")
    if tensor.layout != torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        raise InputError(f"expected a dense tensor of {name}, got a {layout} one: give its .to_dense()")
    if tensor.is_quantized:
        raise InputError(f"expected {name} of plain numbers, got {tensor.dtype}: give its .dequantize()")
    if tensor.is_complex():
        raise InputError(f"expected real {name}, got {tensor.dtype}: give its .real or its .abs()")


def check_features(features: Tensor, dim: int | None = None) -> None:
    """Raise unless `features` is a floating (n, p) tensor, with p = `dim` where that is known."""
    require_values(features, "features")
    if features.ndim != 2:
        hint = ": give features first and labels second" if features.ndim == 1 else ""
        hint = ": give features.flatten(1), or their mean over positions" if features.ndim > 2 else hint
        raise InputError(f"expected features of shape (n, p), got {tuple(features.shape)}{hint}")
    if not features.is_floating_point():
        raise InputError(f"expected floating-point features, got {features.dtype}")
    if not features.shape[1]:
        raise InputError(f"expected at least one feature, got shape {tuple(features.shape)}")
    if dim is not None and features.shape[1] != dim:
        raise InputError(f"expected features with p = {dim} columns, got {features.shape[1]}")


def check_labels(labels: Tensor, examples: int, num_classes: int) -> None:
    """Raise unless `labels` is an integer (n,) tensor with values in 0 … C−1."""
    require_values(labels, "labels")
    if labels.ndim != 1 or labels.shape[0] != examples:
        hint = _shape_hint(labels) if labels.ndim == 2 and labels.shape[0] == examples and labels.numel() else ""
        raise InputError(f"expected one label per example, shape ({examples},), got {tuple(labels.shape)}{hint}")
    if labels.is_floating_point():
        broken = labels[labels != labels.round()]
        hint = "give labels.long() if they are classes"
        if len(broken):
            hint = f"{float(broken[0]):g} is not a class, and targets of regression have none"
        raise InputError(f"expected integer labels, got {labels.dtype}: {hint}")
    if labels.dtype == torch.bool:
        raise InputError(f"expected integer labels, got {labels.dtype}: give labels.long() where False is class 0")
    if examples:
        low, high = (int(v) for v in torch.aminmax(_widened(labels, "labels")))
        if low < 0 or high >= num_classes:
            hint = f": classes count from 0, give labels - {low}" if low >= 1 and high - low < num_classes else ""
            hint = ": leave out examples without a class" if low < 0 else hint
            raise InputError(f"expected labels in 0..{num_classes - 1}, got {low if low < 0 else high}{hint}")


def _shape_hint(labels: Tensor) -> str:
    """What labels of shape (n, k) may be, and what to give instead."""
    if labels.shape[1] == 1:
        return ": give labels.squeeze(1)"
    values = labels.double()
    if bool((values < 0).any()) or not bool((values.sum(dim=1) - 1).abs().max() < 1e-3):
        return ": several labels or targets per example, as in regression, name no class to collapse to"
    return ": for soft or one-hot labels give labels.argmax(1)"


def check_classifier(weight: Tensor, bias: Tensor | None, num_classes: int, dim: int) -> None:
    """Raise unless `weight` is a finite (C, p) tensor and `bias` a finite (C,) tensor or None."""
    require_values(weight, "weight")
    if bias is not None:
        require_values(bias, "bias")
    if tuple(weight.shape) != (num_classes, dim):
        hint = ": give weight.T" if weight.ndim == 2 and weight.shape[0] == dim != weight.shape[1] else ""
        shape = tuple(weight.shape)
        raise InputError(f"expected a classifier weight of shape ({num_classes}, {dim}), got {shape}{hint}")
    if bias is not None and tuple(bias.shape) != (num_classes,):
        raise InputError(f"expected a classifier bias of shape ({num_classes},), got {tuple(bias.shape)}")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and not value.is_floating_point():
            raise InputError(f"expected a floating-point classifier {name}, got {value.dtype}: give its .float()")
        if value is not None and not bool(torch.isfinite(value).all()):
            raise InputError(f"expected a finite classifier {name}, got NaN or infinity in it")


def as_classifier(weight: Any, bias: Any, num_classes: int, dim: int) -> tuple[Tensor, Tensor | None]:
    """A finite (C, p) weight and a finite (C,) bias or None, as `as_tensor` reads them."""
    weight = as_tensor(weight, "weight")
    bias = None if bias is None else as_tensor(bias, "bias")
    check_classifier(weight, bias, num_classes, dim)
    return weight, bias


def as_number(value: Any, name: str, *, least: float = 0.0, above: bool = False, most: float = math.inf) -> float:
    """A finite float from `least` to `most`, above 0 where `above`; NumPy numbers and tensors of one number too.

    Raises:
        InputError: anything else, True and False too.
    """
    number = math.nan
    if isinstance(value, (Tensor, np.ndarray)):
        tensor = as_tensor(value, name)
        number = float(tensor.item()) if tensor.numel() == 1 and tensor.dtype != torch.bool else math.nan
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # a large integer
            number = math.inf
    finite = math.isfinite(number)
    if finite and least <= number <= most and (number > 0.0 or not above):
        return number
    if finite and number > most:
        wanted = f"a {name} of at most {most:g}"
    elif above:
        wanted = f"a positive {name}" if finite else f"a positive, finite {name}"
    else:
        wanted = f"a finite {name}" + (f" of at least {least:g}" if least > -math.inf else "")
    raise InputError(f"expected {wanted}, got {shown(value)}")


def as_count(value: Any, name: str, *, least: int = 1, unit: str = "", most: int = _LARGEST_COUNT) -> int:
    """A whole number from `least` to `most`; NumPy integers and integer tensors of one number too.

    Raises:
        InputError: anything else, 2.0 and True too.
    """
    count: int | None = None
    if isinstance(value, (Tensor, np.ndarray)):
        tensor = as_tensor(value, name)
        whole = not tensor.is_floating_point() and tensor.dtype != torch.bool and tensor.numel() == 1
        count = int(tensor.item()) if whole else None
    elif not isinstance(value, (bool, np.bool_)):
        with contextlib.suppress(TypeError):
            count = operator.index(value)
    if count is not None and least <= count <= most:
        return count
    way = ": give a whole number" if count is None else ""
    limit = f" and at most {most}" if count is not None and count > most else ""
    raise InputError(f"expected {name} of at least {least}{unit}{limit}, got {shown(value)}{way}")


def as_switch(value: Any, name: str) -> bool:
    """True or False, of Python or NumPy."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"expected {name} to be True or False, got {shown(value)}")
    return bool(value)


def as_word(value: Any, name: str, words: Collection[str]) -> str:
    """One of the `words`; an error suggests the nearest."""
    if not isinstance(value, str) or value not in words:
        *others, last = (repr(word) for word in words)
        near = suggest(value, words) if isinstance(value, str) else ""
        raise InputError(f"expected {name} {', '.join(others)} or {last}, got {shown(value)}{near}")
    return value


def as_path(value: Any, name: str = "a path") -> Path:
    """A path that the operating system accepts; nothing need be there."""
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or "\0" in text:
        raise InputError(f"expected {name} of a file, as text or a pathlib.Path, got {shown(value)}")
    return Path(text)


def as_device(value: Any) -> torch.device:
    """A device of this machine that can hold a tensor."""
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError, ImportError) as error:
        raise InputError(f"expected a device of this machine, such as 'cpu' or 'cuda:0', got {shown(value)}") from error
    if device.type == "meta":
        raise InputError("expected a device that holds values, such as 'cpu', got 'meta'")
    return device


def shown(value: Any) -> str:
    """A value as an error names it: on one line and short; anything but a number, a text or a path by its type."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, Tensor) and value.is_nested:
        return "a nested tensor"
    if isinstance(value, (Tensor, np.ndarray)):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}, {value.dtype}"
    if value is None or isinstance(value, (str, bytes, numbers.Number, np.generic, os.PathLike, torch.dtype)):
        text = repr(value) if isinstance(value, (str, bytes)) else str(value)
        return " ".join((text if len(text) <= 80 else f"{text[:77]}…").split())
    return f"a {type(value).__name__}"


def first_bad_row(features: Tensor) -> int:
    """The index of the first row with NaN or infinity."""
    return int((~torch.isfinite(features).all(dim=1)).nonzero()[0])


def not_finite(features: Tensor, first: int = 0, name: str = "features") -> InputError:
    """The error about NaN or infinity in these rows, of which the first one has this number."""
    return InputError(f"expected finite {name}, got NaN or infinity in row {first + first_bad_row(features)}")


def check_finite(features: Tensor, name: str = "features") -> None:
    """Raise if any row of a matrix has NaN or infinity in it."""
    if not bool(torch.isfinite(features).all()):
        raise not_finite(features, name=name)
