"""How a layer's numbers relate: its output to what the network returns, and its input to its output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Rows that are compared, evenly spaced.
_ROWS = 64
# A weight is read off a layer's outputs for this many numbers of the identity matrix at a time, and at most that many.
_PROBE, _MOST_PROBED = 1 << 24, 1 << 30
# How far, of what is left of logits without the means of classes and of examples, they may be from others. Those of
# independent weights are farther by far, and rounding is less where more than it is left.
_APART = 0.1

Pooling = Literal["none", "selected", "mean"]


@dataclass(frozen=True)
class Returned:
    """One floating tensor that a network returns, and where: "output", "output[1]" or "logits"."""

    name: str
    tensor: Tensor


def returned(output: Any) -> list[Returned]:
    """The floating tensors with an axis of classes among what a network returns, in its order."""

    def walk(value: Any, name: str, depth: int) -> Iterator[Returned]:
        if isinstance(value, Tensor):
            if value.is_floating_point() and value.ndim >= 2:
                yield Returned(name or "output", value.detach())
        elif depth:
            named = _entries(value)
            for key, each in named.items():
                yield from walk(each, f"{name}.{key}" if name else key, depth - 1)
            if not named and isinstance(value, (tuple, list)):
                for index, each in enumerate(value):
                    yield from walk(each, f"{name or 'output'}[{index}]", depth - 1)

    return list(walk(output, "", 3))


def _entries(value: Any) -> dict[str, Any]:
    """By name what a dictionary, data class or named tuple holds."""
    if isinstance(value, Mapping):
        return {str(key): each for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    return {}


def coarseness(*tensors: Tensor, convolved: bool = False) -> float:
    """The relative error that products of these tensors may have: by the coarsest type, and how it is multiplied."""
    dtype = max((each.dtype for each in tensors), key=lambda each: torch.finfo(each).eps)
    if dtype == torch.float64:
        return 1e-10
    if dtype != torch.float32:
        return 4.0 * torch.finfo(dtype).eps
    backends: Any = torch.backends
    backend = backends.mkldnn
    if tensors[0].device.type == "cuda":
        backend = backends.cudnn if convolved else backends.cuda
    precision = (backend.conv if convolved else backend.matmul).fp32_precision
    if precision == "bf16":
        return 4.0 * torch.finfo(torch.bfloat16).eps
    return 2e-3 if precision == "tf32" else 2e-5


def close(a: Tensor, b: Tensor, tolerance: float | Tensor) -> bool:
    """Whether two tensors of one shape agree; NaN and infinity agree with themselves."""
    a, b = _wide(a), _wide(b)
    same = (a == b) | (a.isnan() & b.isnan())
    return bool((same | ((a - b).abs() <= tolerance)).all())


def _wide(values: Tensor) -> Tensor:
    return values.detach().cpu().double()


def some(rows: Tensor, number: int = _ROWS) -> Tensor:
    """At most so many of the rows, evenly spaced."""
    if len(rows) <= number:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, number, device=rows.device).long()]


@dataclass(frozen=True)
class Relation:
    """What a network's tensor is of a layer's output.

    Attributes:
        through: "" where it is the output itself, times ``scale``; or the function that was applied to it.
        pooling: over positions, where the layer gives logits at several and the network returns one of each example.
    """

    through: Literal["", "log_softmax", "softmax", "sigmoid"] = ""
    scale: float = 1.0
    pooling: Pooling = "none"

    def of(self, logits: Tensor) -> Tensor:
        """Applied to (rows, C) of the layer's output, where pooling has been done."""
        return _FUNCTIONS[self.through](logits) * self.scale


DIRECT = Relation()

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda logits: logits,
    "log_softmax": lambda logits: F.log_softmax(logits, dim=-1),
    "softmax": lambda logits: F.softmax(logits, dim=-1),
    "sigmoid": torch.sigmoid,
}


def rows_of(tensor: Tensor, classes: int) -> Iterator[Tensor]:
    """(rows, C) views of a tensor with its classes last, or second."""
    if tensor.shape[-1] == classes:
        yield tensor.reshape(-1, classes)
    if tensor.ndim > 2 and tensor.shape[1] == classes:
        yield tensor.movedim(1, -1).reshape(-1, classes)


def relate(logits: Tensor, tensor: Tensor, error: float = 0.0) -> Relation | None:
    """What a tensor (…, C) or (n, C, …) is of a layer's output (…, C), or None where it isn't any of what is known.

    Args:
        error: the relative error that is allowed, where the tensors' own types tell of less.
    """
    classes = logits.shape[-1]
    flat = logits.reshape(-1, classes)
    for rows in rows_of(tensor, classes):
        if len(rows) == len(flat):
            if (found := _alike(some(flat), some(rows), error)) is not None:
                return found
        elif logits.ndim > 2 and len(rows) == len(logits):
            by_example = logits.flatten(1, -2)
            where = selected(by_example, rows, error)
            if where is not None and _proved(by_example[torch.arange(len(where)), where], rows):
                return Relation(pooling="selected")
            found = _alike(some(by_example.mean(dim=1)), some(rows), 4.0 * coarseness(logits, rows))
            if found is not None:
                return Relation(found.through, found.scale, "mean")
    return None


def _alike(a: Tensor, b: Tensor, error: float) -> Relation | None:
    """What rows b are of rows a."""
    error = max(error, coarseness(a, b))
    given, returned = a, b
    a, b = _wide(a), _wide(b)
    if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
        return Relation() if close(a, b, error) else None
    if close(a, b, error * a.abs().amax(dim=1, keepdim=True)) and _proved(given, returned):
        return Relation()
    square, product = float((a * a).sum()), float((a * b).sum())
    scale = product / square if square > 0.0 else 0.0
    if a.numel() >= 8 and scale != 0.0:
        scale = _written(scale, error / a.numel() ** 0.5)
        near = close(scale * a, b, 4.0 * error * abs(scale) * a.abs().amax(dim=1, keepdim=True))
        if near and _proved(given, returned, Relation(scale=scale)):
            return Relation(scale=scale)
    throughs: tuple[Literal["log_softmax", "softmax", "sigmoid"], ...] = ("log_softmax", "softmax", "sigmoid")
    for through in throughs:
        made = _FUNCTIONS[through](a)
        # an error of logits is one of probabilities relative to them
        size = 1.0 if through == "log_softmax" else made.amax(dim=1, keepdim=True)
        near = a.shape[1] > 1 and close(made, b, 4.0 * error * (1.0 + a.abs().amax(dim=1, keepdim=True)) * size)
        if near and _proved(given, returned, Relation(through)):
            return Relation(through)
    return None


def _proved(a: Tensor, b: Tensor, relation: Relation = DIRECT) -> bool:
    """Whether rows b, near what the relation makes of rows a, are so by more than a bias or a constant of each row."""
    if _identical(a, b, relation):
        return True
    made, wanted = relation.of(_wide(a)), _wide(b)
    rounding = max(torch.finfo(each.dtype).eps for each in (a, b)) * float(made.abs().max())
    for dim in (0, 1):
        if made.shape[dim] > 1:
            made, wanted = (each - each.mean(dim=dim, keepdim=True) for each in (made, wanted))
    spread = float(made.square().mean().sqrt())
    return spread > rounding and float((made - wanted).square().mean().sqrt()) <= _APART * spread


def _identical(a: Tensor, b: Tensor, relation: Relation = DIRECT) -> bool:
    """Whether rows b are to the last bit what the relation makes of rows a, in either's type."""
    a = a.to(b.device)
    for made in (a,) if relation == DIRECT else (relation.of(a), relation.of(a.to(b))):
        if bool(((made.to(b) == b) | (made.isnan() & b.isnan())).all()):
            return True
    return False


def exactly(logits: Tensor, tensor: Tensor, relation: Relation) -> bool:
    """Whether a tensor is to the last bit what a relation, found by :func:`relate`, makes of a layer's output."""
    classes = logits.shape[-1]
    for rows in rows_of(tensor, classes):
        made = logits.reshape(-1, classes)
        if relation.pooling != "none" and len(rows) == len(logits):
            by_example = logits.flatten(1, -2)
            where = None if relation.pooling == "mean" else selected(by_example, rows)
            made = by_example.mean(dim=1) if where is None else by_example[torch.arange(len(where)), where]
        if len(made) == len(rows) and _identical(made, rows, relation):
            return True
    return False


def _written(scale: float, error: float) -> float:
    """The number of at most three digits, or one divided by such a number, that an estimate with that error may be of.

    16 for 16.0000003, and 1/0.07 for 14.28572: estimates carry the rounding of the tensors.
    """
    for digits in (1, 2, 3):
        for value in (float(f"{scale:.{digits}g}"), 1.0 / float(f"{1.0 / scale:.{digits}g}")):
            if abs(value - scale) <= error * abs(scale):
                return value
    return scale


def selected(logits: Tensor, rows: Tensor, error: float = 0.0) -> Tensor | None:
    """(n,) the position of each example of (n, T, C) whose logits are the row (n, C); None where one has no such."""
    error = max(error, coarseness(logits, rows))
    near = torch.empty(logits.shape[:2], device=logits.device)
    for index in range(len(logits)):  # an example at a time: (n, T, C) once more would be as much as the network's own
        wanted = rows[index].to(logits.device)
        near[index] = (logits[index].float() - wanted.float()).abs().amax(dim=1)
    bounds = error * rows.float().abs().amax(dim=1).to(near.device)
    smallest, where = near.min(dim=1)
    return where if bool((smallest <= bounds).all()) else None


@dataclass(frozen=True)
class Weights:
    """A classifier: logits = W h + b, or W h/‖h‖ + b where ``unit``.

    Attributes:
        read_off: whether W was read off the layer's outputs, being no parameter of its.
        convolved: whether the layer is a convolution, which may be made in another precision.
    """

    weight: Tensor
    bias: Tensor | None
    unit: bool = False
    read_off: bool = False
    convolved: bool = False

    @cached_property
    def lengths(self) -> Tensor:
        """(C,) ‖w_c‖."""
        wide = self.weight if self.weight.dtype == torch.float64 else self.weight.float()
        return torch.linalg.vector_norm(wide, dim=1)  # type: ignore[no-any-return]

    @property
    def length(self) -> float | None:
        """The length that all rows have, or None where they differ."""
        mean = float(self.lengths.mean())
        return mean if close(self.lengths, torch.full_like(self.lengths, mean), 1e-3 * mean) else None

    def logits(self, features: Tensor) -> Tensor:
        """(…, C) of (…, p) features as the layer was given them, in the wider type of features and weight."""
        dtype = torch.promote_types(features.dtype, self.weight.dtype)
        values, weight = features.to(self.weight.device, dtype), self.weight.to(dtype)
        with torch.autocast(weight.device.type, enabled=False):
            if self.unit:
                values = F.normalize(values, dim=-1)
            return F.linear(values, weight, None if self.bias is None else self.bias.to(weight))

    def give(self, features: Tensor, logits: Tensor, relation: Relation = DIRECT, error: float = 0.0) -> bool:
        """Whether (rows, C) are, by that relation and up to a relative error, the logits of the features (rows, p)."""
        made = self.logits(features)
        size = torch.linalg.vector_norm(
            features.double() if features.dtype == torch.float64 else features.float(), dim=1
        )
        bound = (torch.ones_like(size) if self.unit else size)[:, None].to(self.lengths) * self.lengths[None]
        if self.bias is not None:
            bound = bound + self.bias.abs().to(bound)
        error = max(error, coarseness(features, self.weight, logits, convolved=self.convolved))
        if relation.through:
            return close(relation.of(_wide(made)), logits, error * (1.0 + _wide(bound).amax(dim=1, keepdim=True)))
        return close(relation.of(_wide(made)), logits, error * abs(relation.scale) * _wide(bound))

    def cosine(self) -> Weights:
        """The classifier of cosines with the same rows."""
        wide = self.weight if self.weight.dtype == torch.float64 else self.weight.float()
        return Weights(F.normalize(wide, dim=1), None, unit=True)

    def times(self, scale: float) -> Weights:
        """With logits times a number, in float64: rounding again would add to a spread of norms that is small."""
        if scale == 1.0:
            return self
        weight = self.weight.double() * scale
        return replace(self, weight=weight, bias=None if self.bias is None else self.bias.to(weight) * scale)


def is_pointwise(module: nn.Module) -> TypeGuard[nn.modules.conv._ConvNd]:
    """Whether it is a convolution that takes each position by itself, a linear layer along axis 1."""
    if not isinstance(module, nn.modules.conv._ConvNd) or module.transposed:
        return False
    padded = not isinstance(module.padding, str) and any(module.padding)
    return module.groups == 1 and not padded and all(size == 1 for size in (*module.kernel_size, *module.stride))


def weights_of(module: nn.Module, features: Tensor, logits: Tensor, entered: Tensor) -> Weights | None:
    """What a module multiplies features with, proved on some rows; None where its output is not W h + b.

    Args:
        features: (rows, p) that entered; logits: (rows, C) that left; entered: the former as they were given.
    """
    features, logits = some(features), some(logits)
    classes, dim = logits.shape[1], features.shape[1]
    if isinstance(module, nn.Linear) or is_pointwise(module):
        weight, bias = module.weight, module.bias
        if weight.is_floating_point() and weight.shape[:2] == (classes, dim) and weight.numel() == classes * dim:
            matrix = weight.detach().reshape(classes, dim)
            own = Weights(matrix, None if bias is None else bias.detach(), convolved=is_pointwise(module))
            if own.give(features, logits):
                return own
    return _read_off(module, features, logits, entered)


def _read_off(module: nn.Module, features: Tensor, logits: Tensor, entered: Tensor) -> Weights | None:
    """W = f(I) − f(0) and b = f(0), where the layer's outputs are W h + b, or W h/‖h‖ + b as of a cosine classifier."""
    classes, dim = logits.shape[1], features.shape[1]
    if dim * max(classes, dim) > _MOST_PROBED:
        return None
    channels_first = entered.shape[-1] != dim or (entered.ndim > 2 and is_pointwise(module))
    shape = (-1, dim, *[1] * (entered.ndim - 2)) if channels_first else (-1, *[1] * (entered.ndim - 2), dim)

    def f(rows: Tensor) -> Tensor:
        made = module(rows.reshape(shape))
        return made.detach().reshape(len(rows), classes)  # type: ignore[no-any-return]

    try:
        bias = f(features.new_zeros(1, dim))[0]
        step = max(1, _PROBE // dim)
        parts = []
        for start in range(0, dim, step):
            stop = min(start + step, dim)
            rows = torch.zeros(stop - start, dim, dtype=features.dtype, device=features.device)
            rows[torch.arange(stop - start), torch.arange(start, stop)] = 1.0
            parts.append(f(rows))
    except Exception:  # the module is the user's own, and may want more than features
        return None
    wide = torch.float64 if bias.dtype == torch.float64 else torch.float32
    bias = torch.nan_to_num(bias.to(wide))  # h/‖h‖ of zero
    weight = (torch.cat(parts).to(wide) - bias).T.contiguous()
    if not bool(weight.any()):
        return None
    for unit in (False, True):
        found = Weights(weight, bias if bool(bias.any()) else None, unit, True, is_pointwise(module))
        if found.give(features, logits):
            return found
    return None
