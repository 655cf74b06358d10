"""The geometry Neural Collapse tends to: the simplex equiangular tight frame (ETF) and three distances from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import Array, InputError, as_count, as_tensor, shown
from neuralcollapse._linalg import extreme_power, full_precision, of_moderate_size, scaled
from neuralcollapse.metrics.undefined import warn_undefined

# Pairs of vectors are processed in tiles of this many rows, so that no C × C matrix is held for many classes.
_TILE = 2048
# Of more vectors than this, and of eight times as many as features, not all cosines are made in float64.
_MANY = 8192


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
    num_classes, dim = as_count(num_classes, "num_classes", least=2), as_count(dim, "dim")
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point or dtype.itemsize < 2:
        raise InputError(f"expected a floating-point dtype, such as torch.float64, got {shown(dtype)}")
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


def equinorm(vectors: Float[Tensor, "c p"] | Array, *, correction: int = 1) -> Float[Tensor, ""]:
    """Std_c ‖v_c‖ / Avg_c ‖v_c‖ of the rows; zero at a simplex ETF.

    Args:
        vectors: (C, p).
        correction: 1, the authors' unbiased Std (divisor C−1); 0 for the divisor C.

    Raises:
        InputError: fewer than two vectors, NaN or infinity.

    Source: Han, Papyan & Donoho (2022), Figure 3.

    Example:
        >>> round(float(equinorm(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))), 4)  # Std √2, Avg 2
        0.7071
    """
    correction, rows = as_count(correction, "correction", least=0, most=1), of_moderate_size(as_rows(vectors))
    # squares are summed in float64 whatever the type: a classifier's half precision would decide the answer
    norms = torch.cat([torch.linalg.vector_norm(part.double(), dim=1) for part in torch.split(rows, _TILE)])
    if not bool(norms.any()):
        warn_undefined("NC2's equinorm", "all vectors are zero")
    variation: Tensor = norms.std(correction=correction) / norms.mean()
    return variation


def log_equinorm(vectors: Float[Tensor, "c p"] | Array, *, exponent: int = 0) -> Float[Tensor, ""]:
    """Std_c log ‖v_c‖ / Avg_c log ‖v_c‖ of the rows times 2^exponent, unbiased Std; it depends on their unit.

    Args:
        vectors: (C, p), none of them zero.
        exponent: of the power of two that the rows were divided by.

    Source: Wu & Papyan (2024), Linguistic collapse: neural collapse in (large) language models, Section 3.
    """
    rows = as_rows(vectors).double()
    size = extreme_power(rows, 200)
    rows = scaled(rows, -size)
    if not have_directions(rows, "Std/Avg of log norms"):
        return torch.full((), torch.nan, dtype=torch.float64)
    logs = torch.linalg.vector_norm(rows, dim=1).log() + (exponent + size) * math.log(2.0)
    variation: Tensor = logs.std() / logs.mean()
    return variation


def equiangularity(vectors: Float[Tensor, "c p"] | Array, *, correction: int = 1) -> Float[Tensor, ""]:
    """Std over ordered pairs c ≠ c' of cos(v_c, v_c'); zero at a simplex ETF.

    Args:
        vectors: (C, p).
        correction: 1, the authors' unbiased Std (divisor C(C−1) − 1); 0 for the divisor C(C−1).

    Raises:
        InputError: fewer than two vectors, NaN or infinity.

    Source: Han, Papyan & Donoho (2022), Figure 4.

    Example:
        >>> round(float(equiangularity(simplex_etf(4, 3))), 6)
        0.0
    """
    return angles(vectors, correction=correction).equiangularity


def maximal_angle(vectors: Float[Tensor, "c p"] | Array) -> Float[Tensor, ""]:
    """Avg over c ≠ c' of |cos(v_c, v_c') + 1/(C−1)|; zero at a simplex ETF.

    Args:
        vectors: (C, p).

    Raises:
        InputError: fewer than two vectors, NaN or infinity.

    Source: Han, Papyan & Donoho (2022), Figure 5.

    Example:
        >>> round(float(maximal_angle(torch.eye(3))), 6)  # right angles: 0 + 1/2
        0.5
    """
    return angles(vectors).maximal_angle


@dataclass(frozen=True)
class Angles:
    """Both statistics of the pairwise cosines."""

    equiangularity: Float[Tensor, ""]
    maximal_angle: Float[Tensor, ""]


def angles(vectors: Float[Tensor, "c p"] | Array, *, correction: int = 1) -> Angles:
    """Equiangularity and maximal angle of the rows, from one pass over all pairs.

    The squares of very many cosines, C > 8p and C > 8,192, are summed as those of a p × p matrix: Σ cos² = ‖UᵀU‖_F².
    Their distances are made in float32, whose roundings of 1e-7 cancel in the mean: of 9,000 vectors it is right to
    1e-8. With C = 100,000 and p = 1,024 both take less than half the time.

    Args:
        vectors: (C, p); the products are made in float64, a tile at a time, whatever the type.
        correction: of the Std.
    """
    correction, vectors = as_count(correction, "correction", least=0, most=1), as_rows(vectors)
    if not have_directions(vectors, "the angles of NC2"):
        nothing = torch.tensor(float("nan"), dtype=torch.float64)
        return Angles(nothing, nothing)
    vectors, count = of_moderate_size(vectors), len(vectors)
    pairs = count * (count - 1)
    target = -1.0 / (count - 1)
    # Σ_{c≠c'} cos = ‖Σ u‖² − Σ‖u‖²: with the mean known at the start, deviations from it never cancel.
    dim, many = vectors.shape[1], count > max(_MANY, 8 * vectors.shape[1])
    total, (squares, fourth) = vectors.new_zeros(dim, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    gram = total.new_zeros(dim, dim) if many else None
    for part in torch.split(vectors, _TILE):
        unit = unit_rows(part)
        sizes = unit.square().sum(dim=1)
        total, squares = total + unit.sum(dim=0), squares + sizes.sum().cpu()
        fourth = fourth + sizes.square().sum().cpu()
        if gram is not None:
            gram.addmm_(unit.T, unit)
    mean = (total.square().sum().cpu() - squares) / pairs
    variance, distance = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    if gram is not None:
        of_squares = gram.square().sum().cpu() - fourth
        variance = of_squares - pairs * mean.square()
        # where cosines hardly differ from their mean the difference would cancel
        many = bool(variance > 1e-3 * of_squares)
    if many:
        with full_precision(vectors.device):
            for _, _, cosines in cosine_tiles(vectors, torch.float32):
                distance = distance + 2 * cosines.sub_(target).abs_().sum(dtype=torch.float64).cpu()
        return Angles((variance / (pairs - correction)).sqrt(), distance / pairs)
    variance = torch.zeros((), dtype=torch.float64)
    for _, _, cosines in cosine_tiles(vectors):
        variance = variance + 2 * (cosines - mean.to(cosines.device)).square().sum().cpu()
        distance = distance + 2 * (cosines - target).abs().sum().cpu()
    return Angles((variance / (pairs - correction)).sqrt(), distance / pairs)


def unit_rows(vectors: Float[Tensor, "c p"]) -> Float[Tensor, "c p"]:
    """Each row divided by its norm, in float64, of whatever size; nan where a row is zero."""
    wide = vectors.double()
    norms = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    extreme = (((norms < 1e-140) | (norms > 1e140)) & wide.any(dim=1, keepdim=True))[:, 0]
    if bool(extreme.any()):
        # their squares would vanish or overflow
        wide = wide.clone()
        wide[extreme] /= wide[extreme].abs().amax(dim=1, keepdim=True)
        norms = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    unit: Tensor = wide / norms
    return unit


def as_rows(vectors: Float[Tensor, "c p"] | Array) -> Float[Tensor, "c p"]:
    """At least two finite vectors, as a floating-point matrix with one a row.

    Raises:
        InputError: anything else.
    """
    rows = as_tensor(vectors, "vectors")
    if rows.ndim != 2 or len(rows) < 2 or not rows.shape[1]:
        raise InputError(f"expected at least 2 vectors, as a matrix with one a row, got shape {tuple(rows.shape)}")
    rows = rows if rows.is_floating_point() else rows.double()
    # the least and the greatest are nan where any entry is
    if not all(math.isfinite(float(value)) for value in torch.aminmax(rows)):
        raise InputError("expected finite vectors, got NaN or infinity in them")
    return rows


def have_directions(vectors: Float[Tensor, "c p"], name: str) -> bool:
    """Whether no row is zero; warns that the number of this name is undefined where one is."""
    zero = (~vectors.any(dim=1)).nonzero()[:, 0].tolist()
    if not zero:
        return True
    warn_undefined(name, f"row {zero[0]} of {len(vectors)} is zero")
    return False


def tiles(count: int) -> Iterator[tuple[slice, slice]]:
    """Tiles of rows × columns that hold every pair c < c' of ``count`` once, those of the diagonal among others."""
    for start in range(0, count, _TILE):
        for other in range(start, count, _TILE):
            yield slice(start, min(start + _TILE, count)), slice(other, min(other + _TILE, count))


def each_pair(tile: Tensor, rows: slice, columns: slice) -> Tensor:
    """The entries of a tile with c < c'."""
    if rows != columns:
        return tile
    first, second = torch.triu_indices(len(tile), len(tile), 1, device=tile.device)
    return tile[first, second]


def cosine_tiles(
    vectors: Float[Tensor, "c p"], work: torch.dtype = torch.float64
) -> Iterator[tuple[slice, slice, Tensor]]:
    """(rows, columns, cosines of their pairs c < c'), every unordered pair of rows once, by products of this type."""
    last, left = None, vectors
    for rows, columns in tiles(len(vectors)):
        if rows != last:
            last, left = rows, unit_rows(vectors[rows]).to(work)
        right = left if rows == columns else unit_rows(vectors[columns]).to(work)
        yield rows, columns, each_pair(left @ right.T, rows, columns)


def squared_distance_tiles(vectors: Float[Tensor, "c p"]) -> Iterator[tuple[slice, slice, Tensor]]:
    """(rows, columns, ‖v_c − v_c'‖² as a whole tile), right to rounding also where two rows nearly coincide."""
    for rows, columns in tiles(len(vectors)):
        left, right = vectors[rows].double(), vectors[columns].double()
        sizes = left.square().sum(dim=1)[:, None] + right.square().sum(dim=1)
        squared = sizes - 2 * (left @ right.T)
        # The formula above cancels where the distance is small beside the vectors: there the differences are taken.
        close = (squared < 1e-3 * sizes).nonzero()
        for part in torch.split(close, max(1, (1 << 22) // vectors.shape[1])):
            squared[part[:, 0], part[:, 1]] = (left[part[:, 0]] - right[part[:, 1]]).square().sum(dim=1)
        yield rows, columns, squared
