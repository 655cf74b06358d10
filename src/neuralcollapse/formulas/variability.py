"""Later measures of variability: within classes against between them, and the rank of the features."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from .._linalg import definite_factor, minimum_norm_solver, rounding_bound, row_factor
from ..moments import ClassMoments
from .collapse import at_least_two
from .geometry import each_pair, squared_distance_tiles


def cdnv(moments: ClassMoments) -> float:
    """Class-distance normalised variance, Avg over c ≠ c' of (v_c + v_c') / (2‖μ_c − μ_c'‖²), v_c = tr Σ_c.

    Every pair counts alike, whatever the weighting. Infinite, with a warning, where two class means coincide.

    Source: Galanti, György & Hutter (2021), On the role of neural collapse in transfer learning, Section 3.
    """
    present = at_least_two(moments)
    means, variances = _rows(moments.centred_means, present), moments.class_variances[present].double()
    total = torch.zeros((), dtype=torch.float64, device=means.device)
    for rows, columns, squared in squared_distance_tiles(means):
        spread = variances[rows, None] + variances[columns]
        total += each_pair(spread / (2 * squared), rows, columns).sum()
    if not bool(torch.isfinite(total)):
        warnings.warn("CDNV is infinite: the means of two classes coincide", UserWarning, stacklevel=2)
        return float("inf")
    return float(2 * total / (len(means) * (len(means) - 1)))


def variability_ratio(moments: ClassMoments) -> float:
    """tr Σ_W / tr Σ_B, which needs no covariance matrix; infinite, with a warning, where all class means coincide.

    Source: Tirer, Huang & Niles-Weed (2023), Perturbation analysis of neural collapse.
    """
    at_least_two(moments)
    between = moments.between_variance
    if between == 0.0:
        warnings.warn("the variability ratio is infinite: all class means coincide", UserWarning, stacklevel=2)
        return float("inf")
    return moments.within_variance / between


def variability_collapse_index(moments: ClassMoments) -> float:
    """VCI = 1 − tr(Σ_T⁺ Σ_B) / rank(Σ_B), rank(Σ_B) = min(classes − 1, p); zero at collapse, at most 1.

    Invariant under every invertible linear map of the features.

    Source: Xu & Liu (2023), Quantifying the variability collapse of neural networks, Definition 1.
    """
    present = at_least_two(moments)
    within = moments.within_covariance
    rank = min(int(present.sum()) - 1, len(within))
    factor = definite_factor(within, rounding_bound(within, moments.eps))
    if factor is not None:
        # With s the singular values of Σ_W^{-1/2} M̄ diag(√π) this is Ave 1/(1 + s²), where nothing cancels.
        roots = moments.weights.sqrt()
        means = row_factor((rows * roots[block, None])[present[block]] for block, rows in moments.centred_blocks())
        signal = torch.linalg.svdvals(torch.linalg.solve_triangular(factor, means.T, upper=False))[:rank]
        return float((1.0 / (1.0 + signal.square())).sum() / rank)
    between = moments.between_covariance
    bound = rounding_bound(within, moments.eps) + rounding_bound(between, torch.finfo(between.dtype).eps)
    share = minimum_norm_solver(within + between, bound)(between).diagonal().sum()
    return 1.0 - float(share) / rank


def numerical_rank(moments: ClassMoments) -> float:
    """tr Σ_T / ‖Σ_T‖₂, the squared Frobenius over the squared spectral norm of the centred features.

    Source: Rudelson & Vershynin (2007), Sampling from large matrices, Section 1.
    """
    values = _total_spectrum(moments)
    return float(values.sum() / values[-1])


def effective_rank(moments: ClassMoments) -> float:
    """exp(−Σ_i q_i log q_i), q_i = σ_i/Σσ, σ the singular values of the centred features (√eig Σ_T).

    Source: Roy & Vetterli (2007), The effective rank: a measure of effective dimensionality, Definition 1.
    """
    singular = _total_spectrum(moments).sqrt()
    share = singular / singular.sum()
    return float(torch.special.entr(share).sum().exp())


def _total_spectrum(moments: ClassMoments) -> Float[Tensor, " p"]:
    at_least_two(moments)
    total = moments.within_covariance + moments.between_covariance
    values: Tensor = torch.linalg.eigvalsh(total)
    # n examples span n − 1 dimensions: what rounding leaves in the others would count by its root in the entropy.
    values[: max(0, len(values) - moments.num_examples + 1)] = 0.0
    return torch.where(values > rounding_bound(total, torch.finfo(total.dtype).eps), values, 0.0)


def _rows(matrix: Tensor, present: Tensor) -> Tensor:
    return matrix if bool(present.all()) else matrix[present]
