"""Later measures of the arrangement of vectors: distance from simplex and tight frames, coherence."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import Array, InputError
from neuralcollapse._linalg import of_moderate_size, row_factor
from neuralcollapse.metrics.geometry import as_rows, cosine_tiles, have_directions, simplex_etf, tiles, unit_rows
from neuralcollapse.metrics.undefined import warn_undefined


def etf_error(vectors: Float[Tensor, "c p"] | Array) -> float:
    """‖VVᵀ/‖VVᵀ‖_F − (I − 11ᵀ/C)/√(C−1)‖_F, zero at a simplex ETF of any scale and rotation.

    The rows are taken as they are: pass centred class means, or the classifier.

    Source: Zhu et al. (2021), A geometric analysis of neural collapse with unconstrained features, Section 4.
    """
    rows = as_rows(vectors)
    return gram_error(rows, rows)


def gram_error(left: Float[Tensor, "c p"], right: Float[Tensor, "c p"]) -> float:
    """‖A/‖A‖_F − (I − 11ᵀ/C)/√(C−1)‖_F of A = L Rᵀ, nan with a warning where A is zero."""
    left, right = of_moderate_size(left), of_moderate_size(right)
    count, dim = left.shape
    if count > 2 * (dim + 1):
        # p dimensions are too few for an ETF, so the error is far from zero and nothing cancels; p × p is small.
        squared, trace, total = _gram_sums(left, right)
        if squared > 0.0:
            overlap = (trace - total / count) / ((count - 1) ** 0.5 * squared**0.5)
            return math.sqrt(max(0.0, 2.0 - 2.0 * overlap))
    else:
        left, right = left.double(), right.to(left.device).double()
        size = sum(float((left[rows] @ right[columns].T).square().sum()) for rows, columns in _all_tiles(count)) ** 0.5
        if size > 0.0:
            return _distance(left, right, size, (count - 1) ** -0.5, 1.0 / (count * (count - 1) ** 0.5))
    warn_undefined("the distance from an ETF", "the matrix is zero")
    return float("nan")


def gram_trace_error(left: Float[Tensor, "c p"], right: Float[Tensor, "c p"]) -> float:
    """‖A/tr A − (I − 11ᵀ/C)/(C−1)‖_F of A = L Rᵀ; nan with a warning where tr A is zero."""
    left, right = of_moderate_size(left), of_moderate_size(right)
    count, dim = left.shape
    squared, trace, total = _gram_sums(left, right)
    if trace == 0.0:
        warn_undefined("the trace-normalised NC3", "tr W M̄ᵀ is zero")
        return float("nan")
    if count > 2 * (dim + 1):
        overlap = (trace - total / count) / ((count - 1) * trace)
        return math.sqrt(max(0.0, squared / trace**2 - 2 * overlap + 1 / (count - 1)))
    left, right = left.double(), right.to(left.device).double()
    return _distance(left, right, trace, 1.0 / (count - 1), 1.0 / (count * (count - 1)))


def _distance(left: Tensor, right: Tensor, scale: float, diagonal: float, constant: float) -> float:
    """‖L Rᵀ/scale − (diagonal · I − constant · 11ᵀ)‖_F, without holding the matrix."""
    error = 0.0
    for rows, columns in _all_tiles(len(left)):
        tile = left[rows] @ right[columns].T / scale + constant
        if rows == columns:
            tile.diagonal().sub_(diagonal)
        error += float(tile.square().sum())
    return math.sqrt(error)


def _all_tiles(count: int) -> list[tuple[slice, slice]]:
    upper = list(tiles(count))
    return upper + [(columns, rows) for rows, columns in upper if rows != columns]


def _gram_sums(left: Tensor, right: Tensor) -> tuple[float, float, float]:
    """(‖LRᵀ‖_F², tr LRᵀ, 1ᵀLRᵀ1) by p × p products, block by block."""
    dim, device = left.shape[1], left.device
    first, second = (torch.zeros(dim, dim, dtype=torch.float64, device=device) for _ in range(2))
    sums = torch.zeros(2, dim, dtype=torch.float64, device=device)
    trace = 0.0
    for start in range(0, len(left), 8192):
        a, b = left[start : start + 8192].double(), right[start : start + 8192].to(device).double()
        first.addmm_(a.T, a)
        second.addmm_(b.T, b)
        trace += float((a * b).sum())
        sums[0] += a.sum(dim=0)
        sums[1] += b.sum(dim=0)
    return float((first * second).sum()), trace, float(sums[0] @ sums[1])


def etf_distance(vectors: Float[Tensor, "c p"] | Array) -> float:
    """Distance from the nearest simplex ETF: min over U of ‖V/‖V‖_F − E U‖_F, E = (I − 11ᵀ/C)/√(C−1).

    U runs over all rotations of the simplex into the p dimensions, the scale is that of V, and 0 ≤ distance ≤ √2.
    With σ the singular values of (I − 11ᵀ/C)V/‖V‖_F and m the norm of what centring takes off, it is
    √(Σ_{i<C} (σ_i − 1/√(C−1))² + m²). Below p = C − 1 there is no simplex ETF, and the number is nan.

    Source: Schönemann (1966), A generalized solution of the orthogonal Procrustes problem.
    """
    vectors = as_rows(vectors)
    count, dim = vectors.shape
    if dim < count - 1:
        return float("nan")
    vectors = of_moderate_size(vectors).double()
    size = torch.linalg.matrix_norm(vectors)
    if float(size) == 0.0:
        warn_undefined("the distance from an ETF", "the matrix is zero")
        return float("nan")
    scaled = vectors / size
    mean = scaled.mean(dim=0)
    singular = torch.linalg.svdvals(scaled - mean)[: count - 1]
    gap = (singular - (count - 1) ** -0.5).square().sum() + count * mean.square().sum()
    return float(gap.sqrt())


def nearest_etf(vectors: Float[Tensor, "c p"] | Array) -> Float[Tensor, "c p"]:
    """The simplex ETF of unit rows F that is nearest to rows V of any scale: min ‖V/‖V‖_F − F/‖F‖_F‖_F.

    With S (C × C−1) a simplex ETF in its own coordinates and SᵀV = A Σ Bᵀ, F = S A Bᵀ: every simplex ETF of unit rows
    is S Q with orthonormal rows of Q, ‖S Q‖_F = √C whatever Q, and tr QᵀSᵀV is largest at the polar factor Q = A Bᵀ.
    A common shift of the rows changes nothing, as Sᵀ1 = 0. Where the centred rows span fewer than C − 1 dimensions,
    several are nearest, and this is one of them. Its distance is :func:`etf_distance`.

    Args:
        vectors: (C, p), such as class means, with p ≥ C − 1.

    Returns:
        (C, p) float64, unit rows with cosines −1/(C−1).

    Raises:
        InputError: fewer than C − 1 features, or entries that are not finite.

    Source: Schönemann (1966), A generalized solution of the orthogonal Procrustes problem; as the classifier of a
    network, Markou, Ajanthan & Gould (2024), Guiding neural collapse, who solve it by trust regions.

    Example:
        >>> frame = nearest_etf(torch.tensor([[3.0, 0.1], [-1.0, 2.0], [-2.0, -2.0]]))
        >>> torch.allclose(frame @ frame.T, 1.5 * torch.eye(3).double() - 0.5)
        True
    """
    vectors = as_rows(vectors)
    count, dim = vectors.shape
    if dim < count - 1:
        raise InputError(f"expected at least {count - 1} features for a simplex ETF of {count} rows, got {dim}")
    vectors = of_moderate_size(vectors).double()
    own = simplex_etf(count, count - 1).to(vectors.device)
    left, _, right = torch.linalg.svd(own.T @ vectors, full_matrices=False)
    nearest: Tensor = own @ left @ right
    return nearest


def frame_error(vectors: Float[Tensor, "c p"] | Array) -> float:
    """Distance of the unit rows U from a tight frame of r = min(p, C−1) dimensions, ‖UᵀU/‖UᵀU‖_F − I_r/√r‖_F.

    I_r is the projection on the r leading eigenvectors of UᵀU. By all singular values s of U, of which C ≤ p leaves
    one beyond r: √(Σ_{i≤r} (s_i²/√Σ s⁴ − 1/√r)² + Σ_{i>r} s_i⁴/Σ s⁴). It vanishes at a simplex ETF, and for C > p at
    every unit-norm tight frame, the minimisers of the frame potential. For C ≤ p those are orthogonal rows instead,
    whose distance is not zero: r is the dimension of centred rows.

    Source: Benedetto & Fickus (2003), Finite normalized tight frames, Theorem 7.1.
    """
    vectors = as_rows(vectors)
    if not have_directions(vectors, "the distance from a tight frame"):
        return float("nan")
    rank = min(vectors.shape[1], len(vectors) - 1)
    factor = row_factor(unit_rows(part) for part in torch.split(vectors, 8192))
    powers = torch.linalg.svdvals(factor).square()
    shares = powers / torch.linalg.vector_norm(powers)
    shares[:rank] -= rank**-0.5
    return float(shares.square().sum().sqrt())


def welch_excess(vectors: Float[Tensor, "c p"] | Array) -> float:
    """max over c ≠ c' of |cos(v_c, v_c')|, less Welch's bound √((C−p)/(p(C−1))), its least value for C > p.

    Zero at equiangular tight frames; nan for C ≤ p, where the bound says nothing.

    Source: Welch (1974), Lower bounds on the maximum cross correlation of signals;
    Strohmer & Heath (2003), Theorem 2.3.
    """
    vectors = as_rows(vectors)
    count, dim = vectors.shape
    if count <= dim or not have_directions(vectors, "the excess over Welch's bound"):
        return float("nan")
    coherence = max(float(cosines.abs().max()) for _, _, cosines in cosine_tiles(vectors) if cosines.numel())
    return coherence - math.sqrt((count - dim) / (dim * (count - 1)))
