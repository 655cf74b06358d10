"""Linear algebra with one policy for rank, rounding and scale.

A symmetric positive semi-definite matrix of products carries rounding that is relative to each feature's own size. So
rank is decided on the matrix scaled to unit diagonal: an eigenvalue there counts as zero below :func:`rounding_bound`.
A bound taken from the unscaled matrix would throw away features that are small only in their unit.

Squares overflow and vanish long before features do. What is squared is first divided by a power of two, which is exact.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# The settings that decide float32's precision, by kind of device; PyTorch has one of each for the whole process.
_SETTINGS: dict[str, tuple[Any, ...]] = {
    "cpu": (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.rnn),  # type: ignore[attr-defined]
    "cuda": (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn),  # type: ignore[attr-defined]
}
_CHANGED: dict[int, tuple[int, str]] = {}  # setting → how many blocks need it changed, and what it was before
_CHANGING = threading.Lock()


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Within the block products and convolutions keep float32's own precision: no autocast, no TF32, no bf16.

    A setting that is right already, as all of the processor's are by default, is not touched. The others hold for the
    whole process: they are changed while any block needs it, in whichever thread, and are put back by the last one.
    """
    settings = _SETTINGS.get(device.type, ())
    held = []
    with _CHANGING:
        for setting in settings:
            blocks, before = _CHANGED.get(id(setting), (0, setting.fp32_precision))
            if blocks or before not in ("ieee", "none"):
                setting.fp32_precision = "ieee"
                _CHANGED[id(setting)] = blocks + 1, before
                held.append(setting)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        with _CHANGING:
            for setting in held:
                blocks, before = _CHANGED.pop(id(setting))
                if blocks > 1:
                    _CHANGED[id(setting)] = blocks - 1, before
                    continue
                setting.fp32_precision = "none"  # follow the wider setting, which the user may have chosen
                if setting.fp32_precision != before:
                    setting.fp32_precision = before


def rounding_bound(matrix: Tensor, eps: float) -> float:
    """How far the eigenvalues of a matrix of sums of products, made with relative precision eps, may be off.

    Twice eps times the Frobenius norm: three to twenty times what was measured on features of independent, correlated,
    rectified and heavy-tailed entries, p from 32 to 512, with features scaled to unit variance.
    """
    return 2.0 * eps * float(torch.linalg.matrix_norm(matrix))


def power_of_two(values: Tensor) -> int | None:
    """e with 2^(e−1) ≤ max |value| < 2^e; None where all are zero, or not all are finite."""
    if values.numel() == 0:
        return None
    largest = max(abs(float(value)) for value in torch.aminmax(values))
    return None if largest == 0.0 or not math.isfinite(largest) else math.frexp(largest)[1]


def extreme_power(values: Tensor, limit: int) -> int:
    """:func:`power_of_two`, where it is above ``limit`` or below −``limit``; else 0."""
    exponent = power_of_two(values) or 0
    return exponent if abs(exponent) > limit else 0


def scaled(values: Tensor, exponent: int) -> Tensor:
    """values · 2^exponent, the same tensor if exponent is 0; in two steps, because 2^exponent itself may overflow."""
    if exponent == 0:
        return values
    half = exponent // 2
    # 2^1024 overflows; a factor of 2^2046 takes the smallest float64 to the largest, so no more is ever needed
    return values * 2.0 ** min(half, 1023) * 2.0 ** min(exponent - half, 1023)


def squares(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Σ w v² over all entries, with one weight w a column, or 1; also where v² alone would overflow or vanish."""
    values = values.double()
    exponent = extreme_power(values, 400)
    each = scaled(values, -exponent).square()
    total: Tensor = each.sum() if weights is None else (each @ weights.to(each)).sum()
    return scaled(total, 2 * exponent)


def norm(values: Tensor) -> float:
    """√Σ v², also where v² would overflow or vanish."""
    exponent = extreme_power(values, 400)
    return float(scaled(torch.linalg.vector_norm(scaled(values.double(), -exponent)), exponent))


def of_moderate_size(values: Tensor) -> Tensor:
    """The values in float32 or float64, divided by a power of two if their fourth powers could overflow or vanish."""
    values = values.detach()
    if values.dtype != torch.float64:
        values = values.float()
    return scaled(values, -extreme_power(values, 200))


def unit_scale(variances: Tensor) -> Tensor:
    """Powers of two whose squares bring each variance to between 1 and 4; multiplying by them is exact."""
    return torch.exp2(-torch.floor(0.5 * torch.log2(variances)))


def scaled_symmetric(matrix: Tensor, chosen: Tensor, scale: Tensor) -> Tensor:
    """Rows and columns of the ``chosen`` features, each multiplied by its ``scale``."""
    part = matrix if bool(chosen.all()) else matrix[chosen][:, chosen]
    return part * scale * scale[:, None]


def definite_factor(matrix: Tensor, bounds: Tensor | float) -> Tensor | None:
    """The Cholesky factor of a symmetric matrix, or None where it does not exceed diag(``bounds``) in every direction.

    Factoring the matrix with the bounds subtracted from its diagonal decides that exactly, at a fraction of the cost of
    computing eigenvalues.
    """
    shifted = matrix.clone()
    shifted.diagonal().sub_(bounds)
    if int(torch.linalg.cholesky_ex(shifted).info):
        return None
    factor, info = torch.linalg.cholesky_ex(matrix)
    return None if int(info) else factor


def solve_right(rhs: Tensor, matrix: Tensor, factor: Tensor) -> Tensor:
    """X with X · matrix = rhs, from the Cholesky factor, refined once so that the residual is at rounding level."""
    solution = torch.cholesky_solve(rhs.T, factor).T
    return solution + torch.cholesky_solve((rhs - solution @ matrix).T, factor).T


def resolved_directions(matrix: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(eigenvalues, eigenvectors, bound of each) of a symmetric matrix, the bound being that along the eigenvector."""
    values, vectors = torch.linalg.eigh(matrix)
    return values, vectors, bounds @ vectors.square()


def part_within(rows: Tensor, basis: Tensor) -> Tensor:
    """Of each vector in ``rows`` the orthogonal projection on the span of the basis, as a combination of its columns.

    The entries of a basis may differ in size by many orders from feature to feature. The largest go first, which is how
    Householder's method keeps the small ones exact; and the columns are turned until column j has nothing in the j − 1
    largest features, so that no small entry of a projection is the difference of two large numbers. In two steps, for
    the last digits.
    """
    if not basis.shape[1]:
        return torch.zeros_like(rows)
    order = basis.abs().amax(dim=1).argsort(descending=True)
    turned, rows = torch.linalg.qr(basis[order].T, mode="r").R.T, rows[:, order]
    q, r = torch.linalg.qr(turned)
    first = torch.linalg.solve_triangular(r, (rows @ q).T, upper=True)
    rest = rows - (turned @ first).T
    second = torch.linalg.solve_triangular(r, (rest @ q).T, upper=True)
    part = torch.empty_like(rows)
    part[:, order] = (turned @ (first + second)).T
    return part


def row_factor(blocks: Iterable[Tensor]) -> Tensor:
    """A matrix with the singular values and right singular vectors of the stacked blocks, and at most p rows if many.

    One block of at most p rows comes back as it is; more are folded by QR, which does not square the condition.
    """
    stack: Tensor | None = None
    for block in blocks:
        stack = block if stack is None else torch.cat([stack, block])
        if len(stack) > stack.shape[1]:
            stack = torch.linalg.qr(stack, mode="r").R
    assert stack is not None
    return stack
