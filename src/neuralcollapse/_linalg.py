"""Linear algebra with one policy for rank and tolerance.

A symmetric positive semi-definite matrix counts as singular when its smallest eigenvalue is below ``rtol`` times its
Frobenius norm, with ``rtol = p · eps`` and eps the precision the matrix was *accumulated* in: the directions below
that bound hold rounding noise, whatever the type they are stored in.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rank_tolerance(dim: int, eps: float) -> float:
    """The relative bound below which an eigenvalue of a ``dim`` × ``dim`` matrix counts as zero."""
    return dim * eps


def definite_factor(matrix: Tensor, rtol: float) -> Tensor | None:
    """The Cholesky factor of a symmetric matrix, or None where it is singular to the relative tolerance ``rtol``.

    Factoring the matrix with the bound subtracted from its diagonal decides exactly whether the smallest eigenvalue
    exceeds the bound, at a fraction of the cost of computing eigenvalues.
    """
    if rtol > 0.0:
        bound = rtol * torch.linalg.matrix_norm(matrix)
        shifted = matrix - bound * torch.eye(matrix.shape[0], dtype=matrix.dtype, device=matrix.device)
        if int(torch.linalg.cholesky_ex(shifted).info):
            return None
    factor, info = torch.linalg.cholesky_ex(matrix)
    return None if int(info) else factor


def solve_right(rhs: Tensor, matrix: Tensor, factor: Tensor) -> Tensor:
    """X with X · matrix = rhs, from the Cholesky factor, refined once so that the residual is at rounding level."""
    solution = torch.cholesky_solve(rhs.T, factor).T
    return solution + torch.cholesky_solve((rhs - solution @ matrix).T, factor).T


def minimum_norm_right(rhs: Tensor, matrix: Tensor, rtol: float) -> Tensor:
    """rhs · matrix⁺ for a symmetric positive semi-definite matrix, its rank decided by ``rtol``."""
    values, vectors = torch.linalg.eigh(matrix)
    keep = values > rtol * torch.linalg.vector_norm(values)
    kept = vectors[:, keep]
    return (rhs @ kept / values[keep]) @ kept.T
