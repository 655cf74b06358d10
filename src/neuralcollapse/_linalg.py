"""Linear algebra with one policy for rank and tolerance.

A symmetric positive semi-definite matrix counts as singular when its smallest eigenvalue is below the rounding it
carries, ``p · eps`` times the Frobenius norm of what was summed into it, with eps the precision of that sum: the
directions below that bound hold noise, whatever the type they are stored in. A total covariance has two such parts, the
within-class one made of the features' products, and the between-class one made of the state's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
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
                setting.fp32_precision = "none"  # what a wider setting says, which the user may have chosen
                if setting.fp32_precision != before:
                    setting.fp32_precision = before


def rounding_bound(matrix: Tensor, eps: float) -> float:
    """The bound below which an eigenvalue of a p × p matrix summed with precision eps counts as zero."""
    return len(matrix) * eps * float(torch.linalg.matrix_norm(matrix))


def definite_factor(matrix: Tensor, bound: float) -> Tensor | None:
    """The Cholesky factor of a symmetric matrix, or None where its smallest eigenvalue is below ``bound``.

    Factoring the matrix with the bound subtracted from its diagonal decides exactly whether the smallest eigenvalue
    exceeds the bound, at a fraction of the cost of computing eigenvalues.
    """
    if bound > 0.0:
        shifted = matrix.clone()
        shifted.diagonal().sub_(bound)
        if int(torch.linalg.cholesky_ex(shifted).info):
            return None
    factor, info = torch.linalg.cholesky_ex(matrix)
    return None if int(info) else factor


def solve_right(rhs: Tensor, matrix: Tensor, factor: Tensor) -> Tensor:
    """X with X · matrix = rhs, from the Cholesky factor, refined once so that the residual is at rounding level."""
    solution = torch.cholesky_solve(rhs.T, factor).T
    return solution + torch.cholesky_solve((rhs - solution @ matrix).T, factor).T


def minimum_norm_solver(matrix: Tensor, bound: float) -> Callable[[Tensor], Tensor]:
    """rhs ↦ rhs · matrix⁺, matrix symmetric positive semi-definite, eigenvalues up to ``bound`` counting as zero."""
    values, vectors = torch.linalg.eigh(matrix)
    keep = values > bound
    kept = vectors[:, keep]

    def solve(rhs: Tensor) -> Tensor:
        solution: Tensor = (rhs @ kept / values[keep]) @ kept.T
        return solution

    return solve


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
