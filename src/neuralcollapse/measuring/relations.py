"""How a network's output is made from a layer's output: unchanged, scaled, through softmax, or pooled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

# How many rows are compared, evenly spaced.
_ROWS = 64
# The largest relative distance between logits that count as the same, after the means over classes and over examples
# are taken out of both. Logits of independent weights are much farther apart, rounding errors much less.
_LARGEST_DISTANCE = 0.1


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
    """The relative error that products of these tensors may have, made by a convolution or not, as PyTorch is set."""
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
    """Whether two tensors of one shape agree, where NaN agrees with NaN and infinity with infinity."""
    a, b = as_float64(a), as_float64(b)
    same = (a == b) | (a.isnan() & b.isnan())
    return bool((same | ((a - b).abs() <= tolerance)).all())


def as_float64(values: Tensor) -> Tensor:
    """In float64, on the CPU."""
    return values.detach().cpu().double()


def sample(rows: Tensor, number: int = _ROWS) -> Tensor:
    """At most ``number`` of the rows, evenly spaced."""
    if len(rows) <= number:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, number, device=rows.device).long()]


@dataclass(frozen=True)
class Relation:
    """How a tensor that the network returns is made from a layer's output.

    Attributes:
        through: the function that was applied to the layer's output; "" where none was.
        scale: what the layer's output was multiplied by.
        pooling: how logits at several positions became one row for each example: their mean, or those of one
            ``selected`` position; "none" where they did not.
        exact: whether the tensor is that to the last bit.
    """

    through: Literal["", "log_softmax", "softmax", "sigmoid"] = ""
    scale: float = 1.0
    pooling: Literal["none", "selected", "mean"] = "none"
    exact: bool = field(default=False, compare=False)

    def of(self, logits: Tensor) -> Tensor:
        """The network's rows (n, C) from the layer's, which are pooled already."""
        return _FUNCTIONS[self.through](logits) * self.scale


DIRECT = Relation()

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda logits: logits,
    "log_softmax": lambda logits: F.log_softmax(logits, dim=-1),
    "softmax": lambda logits: F.softmax(logits, dim=-1),
    "sigmoid": torch.sigmoid,
}


def rows_of(tensor: Tensor, classes: int) -> Iterator[Tensor]:
    """(rows, C) of a tensor, whose classes may be the last axis or the second."""
    if tensor.shape[-1] == classes:
        yield tensor.reshape(-1, classes)
    if tensor.ndim > 2 and tensor.shape[1] == classes:
        yield tensor.movedim(1, -1).reshape(-1, classes)


def relate(logits: Tensor, tensor: Tensor, tolerance: float = 0.0) -> Relation | None:
    """How a tensor (…, C) or (n, C, …) is made from a layer's output (…, C); None where no known way gives it.

    ``tolerance`` is a relative error to allow, if it is more than that of the tensors' types.
    """
    classes = logits.shape[-1]
    for rows in rows_of(tensor, classes):
        made, found = logits.reshape(-1, classes), None
        if len(rows) == len(made):
            found = _alike(sample(made), sample(rows), tolerance)
        elif logits.ndim > 2 and len(rows) == len(logits):
            by_example = logits.flatten(1, -2)
            where = selected(by_example, rows, tolerance)
            if where is not None and _proved(made := by_example[torch.arange(len(where)), where], rows):
                found = Relation(pooling="selected")
            else:
                made = by_example.mean(dim=1)
                found = _alike(sample(made), sample(rows), 4.0 * coarseness(logits, rows))
                found = None if found is None else replace(found, pooling="mean")
        if found is not None:
            return replace(found, exact=_identical(made, rows, found))
    return None


def _alike(a: Tensor, b: Tensor, tolerance: float) -> Relation | None:
    """The relation that makes each row of b from the same row of a; None if there is none."""
    tolerance = max(tolerance, coarseness(a, b))
    a64, b64 = as_float64(a), as_float64(b)
    if not bool(torch.isfinite(a64).all() and torch.isfinite(b64).all()):
        return DIRECT if close(a, b, tolerance) else None
    for relation, bound in _candidates(a64, b64, tolerance):
        if close(relation.of(a64), b64, bound) and _proved(a, b, relation):
            return relation
    return None


def _candidates(a: Tensor, b: Tensor, tolerance: float) -> Iterator[tuple[Relation, Tensor]]:
    """Relations that may make rows b of rows a, and the largest distance to allow."""
    size = a.abs().amax(dim=1, keepdim=True)
    yield DIRECT, tolerance * size
    square, product = float((a * a).sum()), float((a * b).sum())
    scale = product / square if square > 0.0 else 0.0
    if a.numel() >= 8 and scale != 0.0:
        scale = _rounded(scale, tolerance / a.numel() ** 0.5)
        yield Relation(scale=scale), 4.0 * tolerance * abs(scale) * size
    if a.shape[1] > 1:
        # an absolute error of logits is a relative error of probabilities
        bound = 4.0 * tolerance * (1.0 + size)
        yield Relation("log_softmax"), bound
        yield Relation("softmax"), bound * F.softmax(a, dim=-1).amax(dim=1, keepdim=True)
        yield Relation("sigmoid"), bound * a.sigmoid().amax(dim=1, keepdim=True)


def _proved(a: Tensor, b: Tensor, relation: Relation = DIRECT) -> bool:
    """Whether rows b, which are near what the relation makes of rows a, share more with it than means.

    A common bias, or a constant added to each row, makes the logits of other weights look near too: the means over
    classes and over examples are taken out before comparing.
    """
    if _identical(a, b, relation):
        return True
    made, wanted = relation.of(as_float64(a)), as_float64(b)
    rounding = max(torch.finfo(each.dtype).eps for each in (a, b)) * float(made.abs().max())
    for dim in (0, 1):
        if made.shape[dim] > 1:
            made, wanted = (each - each.mean(dim=dim, keepdim=True) for each in (made, wanted))
    spread = float(made.square().mean().sqrt())
    return spread > rounding and float((made - wanted).square().mean().sqrt()) <= _LARGEST_DISTANCE * spread


def _identical(a: Tensor, b: Tensor, relation: Relation = DIRECT) -> bool:
    """Whether rows b are to the last bit what the relation makes of rows a, in the type of either."""
    a = a.to(b.device)
    tried = (a,) if relation == DIRECT else (relation.of(a), relation.of(a.to(b)))
    return any(bool(((made.to(b) == b) | (made.isnan() & b.isnan())).all()) for made in tried)


def _rounded(scale: float, tolerance: float) -> float:
    """The scale that a person wrote, from an estimate with a relative error: a number of three digits, or one over it.

    16 for 16.0000003, and 1/0.07 for 14.28572; the estimate itself where neither is within the error.
    """
    for digits in (1, 2, 3):
        for value in (float(f"{scale:.{digits}g}"), 1.0 / float(f"{1.0 / scale:.{digits}g}")):
            if abs(value - scale) <= tolerance * abs(scale):
                return value
    return scale


def selected(logits: Tensor, rows: Tensor, tolerance: float = 0.0) -> Tensor | None:
    """(n,) the position in (n, T, C) whose logits are the row (n, C) of its example; None if any example has none."""
    tolerance = max(tolerance, coarseness(logits, rows))
    near = torch.empty(logits.shape[:2], device=logits.device)
    for index in range(len(logits)):  # one example at a time: all at once would need another (n, T, C)
        wanted = rows[index].to(logits.device)
        near[index] = (logits[index].float() - wanted.float()).abs().amax(dim=1)
    bounds = tolerance * rows.float().abs().amax(dim=1).to(near.device)
    smallest, where = near.min(dim=1)
    return where if bool((smallest <= bounds).all()) else None
