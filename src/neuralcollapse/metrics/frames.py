"""Later measures of the arrangement of vectors: distance from simplex and tight frames, energy, margin, coherence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import Array, InputError, as_word
from neuralcollapse._errors import install
from neuralcollapse._linalg import of_moderate_size, row_factor
from neuralcollapse.metrics.geometry import (
    as_rows,
    cosine_tiles,
    each_pair,
    have_directions,
    squared_distance_tiles,
    tiles,
    unit_rows,
)
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
            error = 0.0
            for rows, columns in _all_tiles(count):
                tile = left[rows] @ right[columns].T / size + 1.0 / (count * (count - 1) ** 0.5)
                if rows == columns:
                    tile.diagonal().sub_((count - 1) ** -0.5)
                error += float(tile.square().sum())
            return math.sqrt(error)
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
    error = 0.0
    left, right = left.double(), right.to(left.device).double()
    for rows, columns in _all_tiles(count):
        tile = left[rows] @ right[columns].T / trace + 1.0 / (count * (count - 1))
        if rows == columns:
            tile.diagonal().sub_(1.0 / (count - 1))
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


@dataclass(frozen=True)
class HypersphericalEnergy:
    """Mean of the kernel over pairs, and its coefficient of variation, which vanishes where all distances agree."""

    mean: float
    variation: float


def hyperspherical_energy(
    vectors: Float[Tensor, "c p"] | Array, kernel: Literal["log", "riesz"] = "log"
) -> HypersphericalEnergy:
    """GNC2: Avg over c ≠ c' of K(u_c, u_c'), u = v/‖v‖, and Std K/|Avg K| (unbiased).

    K is −log ‖u − u'‖ (``"log"``) or 1/‖u − u'‖ (``"riesz"``, exponent 1). A simplex ETF has the least energy where
    p ≥ C − 1: −½ log(2C/(C−1)), and √((C−1)/(2C)).

    Raises:
        InputError: another kernel.

    Source: Liu et al. (2023), Generalizing and decoupling neural collapse via hyperspherical uniformity gap; its
    coefficient of variation: Wu & Papyan (2024), Linguistic collapse.
    """
    as_word(kernel, "the kernel", ("log", "riesz"))
    vectors = as_rows(vectors)
    if not have_directions(vectors, "the hyperspherical energy"):
        return HypersphericalEnergy(float("nan"), float("nan"))
    unit = unit_rows(vectors)
    pairs = len(unit) * (len(unit) - 1)
    first = total = squares = None
    for rows, columns, squared in squared_distance_tiles(unit):
        distances = each_pair(squared, rows, columns)
        if bool((distances == 0.0).any()):
            warn_undefined("the hyperspherical energy", "two directions coincide", "infinite")
            return HypersphericalEnergy(float("inf"), float("nan"))
        values = -0.5 * distances.log() if kernel == "log" else distances.rsqrt()
        if first is None or total is None or squares is None:
            # sums of squares are taken about a value among them: where all agree, nothing is left of the rounding
            first = values.mean() if values.numel() else values.new_zeros(())
            total, squares = torch.zeros_like(first), torch.zeros_like(first)
        total = total + 2 * (values - first).sum()
        squares = squares + 2 * (values - first).square().sum()
    assert first is not None and total is not None and squares is not None
    offset = float(total) / pairs
    mean = float(first) + offset
    variance = max(0.0, float(squares) - pairs * offset**2) / (pairs - 1)
    return HypersphericalEnergy(mean, variance**0.5 / abs(mean) if mean else float("nan"))


def one_vs_rest_margin(vectors: Float[Tensor, "c p"] | Array) -> float:
    """min_c of the distance of u_c from the convex hull of the other u_c', u = v/‖v‖; C/(C−1) at a simplex ETF.

    Generalised Neural Collapse for C > p maximises it. Each class is a small quadratic programme, solved exactly by
    non-negative least squares: the work grows like C³ min(C, p), seconds for a hundred classes.

    Raises:
        InputError: SciPy is not installed.

    Source: Jiang et al. (2024), Generalized neural collapse for a large number of classes, Definition 2.
    """
    try:
        from scipy.optimize import nnls
    except ImportError:
        raise InputError(f"the one-vs-rest margin needs SciPy: {install('scipy')}") from None
    vectors = as_rows(vectors)
    if not have_directions(vectors, "the one-vs-rest margin"):
        return float("nan")
    unit = row_space(unit_rows(vectors)).cpu()
    margin = float("inf")
    for label in range(len(unit)):
        others = torch.cat([unit[:label], unit[label + 1 :]]) - unit[label]
        # The least ‖Σ a_i d_i‖ over a ≥ 0, Σ a = 1 has the direction of the least ‖Dᵀa‖² + (1ᵀa − 1)².
        system = torch.cat([others.T, others.new_ones(1, len(others))]).numpy()
        target = torch.zeros(len(system), dtype=torch.float64)
        target[-1] = 1.0
        share = torch.from_numpy(nnls(system, target.numpy())[0])
        margin = min(margin, float(torch.linalg.vector_norm(share @ others / share.sum())))
    return margin


def row_space(rows: Float[Tensor, "c p"]) -> Float[Tensor, "c r"]:
    """The same vectors in r = min(C, p) coordinates of the space they span."""
    if rows.shape[1] <= len(rows):
        return rows
    coordinates: Tensor = torch.linalg.qr(rows.T, mode="r").R.T
    return coordinates


def frame_error(vectors: Float[Tensor, "c p"] | Array) -> float:
    """Distance of the unit rows U from a tight frame of r = min(p, C−1) dimensions, ‖UᵀU/‖UᵀU‖_F − I_r/√r‖_F.

    By the singular values s of U: √(Σ_{i≤r} (s_i²/√Σ s⁴ − 1/√r)²). It vanishes at a simplex ETF, and for C > p at
    every unit-norm tight frame, the minimisers of the frame potential.

    Source: Benedetto & Fickus (2003), Finite normalized tight frames, Theorem 7.1.
    """
    vectors = as_rows(vectors)
    if not have_directions(vectors, "the distance from a tight frame"):
        return float("nan")
    rank = min(vectors.shape[1], len(vectors) - 1)
    blocks = (unit_rows(vectors[start : start + 8192]) for start in range(0, len(vectors), 8192))
    powers = torch.linalg.svdvals(row_factor(blocks))[:rank].square()
    return float((powers / torch.linalg.vector_norm(powers) - rank**-0.5).square().sum().sqrt())


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
