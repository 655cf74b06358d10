"""The geometry Neural Collapse tends to: the simplex equiangular tight frame (ETF) and three distances from it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import InputError

# Cosines are computed in tiles of this many rows, so that a C × C matrix is never held for many classes.
_TILE = 2048


def simplex_etf(num_classes: int, dim: int, *, dtype: torch.dtype = torch.float64) -> Float[Tensor, "c p"]:
    """The standard simplex ETF: unit vectors with pairwise cosine −1/(C−1) and zero sum.

    M* = √(C/(C−1)) (I − 11ᵀ/C), expressed in an orthonormal basis of its C−1 dimensions where p < C, and padded
    with zeros where p > C.

    Args:
        num_classes: C ≥ 2.
        dim: p ≥ C − 1, the least dimension that holds C equiangular vectors of zero sum.
        dtype: type of the result.

    Returns:
        (C, p), one vector a row.

    Raises:
        InputError: C < 2 or p < C − 1.

    Source: Papyan, Han & Donoho (PNAS 2020), Definition 1.

    Example:
        >>> frame = simplex_etf(3, 2)
        >>> torch.allclose(frame @ frame.T, 1.5 * torch.eye(3).double() - 0.5)
        True
    """
    if num_classes < 2:
        raise InputError(f"expected at least 2 classes for a simplex, got {num_classes}")
    if dim < num_classes - 1:
        raise InputError(f"expected dim of at least {num_classes - 1} for {num_classes} classes, got {dim}")
    # Row c of the Helmert basis of the hyperplane 1ᵀx = 0: orthonormal columns, in closed form.
    order = torch.arange(1, num_classes, dtype=torch.float64)
    basis = torch.ones(num_classes, num_classes - 1, dtype=torch.float64).triu()
    basis[1:].diagonal().copy_(-order)
    basis = basis / (order * (order + 1)).sqrt()
    frame = torch.zeros(num_classes, dim, dtype=torch.float64)
    frame[:, : num_classes - 1] = basis * (num_classes / (num_classes - 1)) ** 0.5
    return frame.to(dtype)


def equinorm(vectors: Float[Tensor, "c p"]) -> Float[Tensor, ""]:
    """Std_c ‖v_c‖ / Avg_c ‖v_c‖ of the rows, unbiased Std (divisor C−1); zero at a simplex ETF.

    Source: Han, Papyan & Donoho (2022), Figure 3.
    """
    norms = torch.linalg.vector_norm(vectors, dim=1)
    variation: Tensor = norms.std(correction=1) / norms.mean()
    return variation


def equiangularity(vectors: Float[Tensor, "c p"]) -> Float[Tensor, ""]:
    """Std over ordered pairs c ≠ c' of cos(v_c, v_c'), unbiased; zero at a simplex ETF.

    Source: Han, Papyan & Donoho (2022), Figure 4.
    """
    pairs = len(vectors) * (len(vectors) - 1)
    target = -1.0 / (len(vectors) - 1)
    # Deviations are taken from the ETF's cosine first: near collapse a raw sum of squares would cancel.
    total = sum((d.sum() for d in _cosine_deviations(vectors, target)), vectors.new_zeros(()))
    mean = total / pairs
    squares = vectors.new_zeros(())
    for deviation, off_diagonal in _deviation_tiles(vectors, target):
        squares = squares + (((deviation - mean) * off_diagonal) ** 2).sum()
    return (squares / (pairs - 1)).sqrt()


def maximal_angle(vectors: Float[Tensor, "c p"]) -> Float[Tensor, ""]:
    """Avg over c ≠ c' of |cos(v_c, v_c') + 1/(C−1)|; zero at a simplex ETF.

    Source: Han, Papyan & Donoho (2022), Figure 5.
    """
    pairs = len(vectors) * (len(vectors) - 1)
    target = -1.0 / (len(vectors) - 1)
    return sum((d.abs().sum() for d in _cosine_deviations(vectors, target)), vectors.new_zeros(())) / pairs


def _cosine_deviations(vectors: Tensor, target: float) -> Iterator[Tensor]:
    for deviation, off_diagonal in _deviation_tiles(vectors, target):
        yield deviation * off_diagonal


def _deviation_tiles(vectors: Tensor, target: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Tiles of cos − target, each with a mask that is zero on the diagonal."""
    unit = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    for start in range(0, len(unit), _TILE):
        tile = unit[start : start + _TILE] @ unit.T - target
        off_diagonal = torch.ones_like(tile)
        off_diagonal[:, start : start + len(tile)].fill_diagonal_(0.0)
        yield tile, off_diagonal
