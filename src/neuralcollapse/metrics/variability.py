"""Later measures of variability: within classes against between them, and the rank of the features."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._linalg import rounding_bound
from neuralcollapse.metrics.arguments import takes_features
from neuralcollapse.metrics.geometry import each_pair, squared_distance_tiles
from neuralcollapse.metrics.nc1_to_nc4 import distinct_means, has_two_classes
from neuralcollapse.metrics.rank import coincidence, feature_sizes, varies
from neuralcollapse.metrics.signal_to_noise import whitened_singular_values
from neuralcollapse.metrics.undefined import warn_undefined
from neuralcollapse.moments.class_moments import ClassMoments, require_moments


@takes_features
def cdnv(moments: ClassMoments) -> float:
    """Class-distance normalised variance, Avg over c ≠ c' of (v_c + v_c') / (2‖μ_c − μ_c'‖²), v_c = tr Σ_c.

    Every pair counts alike, whatever the weighting. Infinite, with a warning, where two class means coincide.

    Source: Galanti, György & Hutter (2021), On the role of neural collapse in transfer learning, Section 3.
    """
    require_moments(moments)
    if not has_two_classes(moments, "CDNV"):
        return float("nan")
    moments = moments.at_unit_scale()
    means, variances = distinct_means(moments), moments.class_variances[moments.present].double()
    total, floor = torch.zeros((), dtype=torch.float64, device=means.device), coincidence(moments)
    nearest = float(floor.square().sum())
    for rows, columns, squared in squared_distance_tiles(means):
        spread = variances[rows, None] + variances[columns]
        for pairs in torch.split((squared <= nearest).nonzero(), max(1, (1 << 22) // means.shape[1])):
            apart = (means[rows][pairs[:, 0]] - means[columns][pairs[:, 1]]).abs()
            one, other = pairs[(apart <= floor).all(dim=1)].T
            squared[one, other] = 0.0
        total += each_pair(spread / (2 * squared), rows, columns).sum()
    if not bool(torch.isfinite(total)):
        if bool(total.isnan()):
            warn_undefined("CDNV", "two classes are one and the same point")
        else:
            warn_undefined("CDNV", "two class means coincide", "infinite")
        return float(total)
    return float(2 * total / (len(means) * (len(means) - 1)))


@takes_features
def variability_ratio(moments: ClassMoments) -> float:
    """tr Σ_W / tr Σ_B, which needs no covariance matrix; infinite, with a warning, where all class means coincide.

    Source: Tirer, Huang & Niles-Weed (2023), Perturbation analysis of neural collapse.
    """
    require_moments(moments)
    if not has_two_classes(moments, "the variability ratio"):
        return float("nan")
    moments = moments.at_unit_scale()
    within, between = moments.within_variance, moments.between_variance
    if not bool(distinct_means(moments).any()):
        constant = within <= moments.eps**2 * float(feature_sizes(moments).square().sum())
        if constant:
            warn_undefined("the variability ratio", "all features are equal")
        else:
            warn_undefined("the variability ratio", "all class means coincide", "infinite")
        return float("nan" if constant else "inf")
    return within / between


@takes_features
def variability_collapse_index(moments: ClassMoments) -> float:
    """VCI = 1 − tr(Σ_T⁺ Σ_B)/r, r = min(classes − 1, directions in which features vary); zero at collapse, at most 1.

    With s the singular values of Σ_W^{-1/2} M̄ diag(√π) this is Ave 1/(1 + s²), in which nothing cancels, so that it is
    never negative. It is invariant under every invertible linear map of the features. It is nan, with a
    warning, where all class means coincide.

    Source: Xu & Liu (2023), Quantifying the variability collapse of neural networks, Definition 1.
    """
    require_moments(moments)
    if not has_two_classes(moments, "VCI"):
        return float("nan")
    if not bool(distinct_means(moments).any()):
        warn_undefined("VCI", "all class means coincide")
        return float("nan")
    signal = whitened_singular_values(moments, moments.weights.sqrt())
    return float((1.0 / (1.0 + signal.square())).mean())


@takes_features
def numerical_rank(moments: ClassMoments) -> float:
    """tr Σ_T / ‖Σ_T‖₂, the squared Frobenius over the squared spectral norm of the centred features.

    Source: Rudelson & Vershynin (2007), Sampling from large matrices, Section 1.
    """
    require_moments(moments)
    values = _total_spectrum(moments)
    if not bool(values.any()):
        warn_undefined("the numerical rank", "all features are equal")
        return float("nan")
    return float(values.sum() / values[-1])


@takes_features
def effective_rank(moments: ClassMoments) -> float:
    """exp(−Σ_i q_i log q_i), q_i = σ_i/Σσ, σ the singular values of the centred features (√eig Σ_T).

    Source: Roy & Vetterli (2007), The effective rank: a measure of effective dimensionality, Definition 1.
    """
    require_moments(moments)
    singular = _total_spectrum(moments).sqrt()
    if not bool(singular.any()):
        warn_undefined("the effective rank", "all features are equal")
        return float("nan")
    share = singular / singular.sum()
    return float(torch.special.entr(share).sum().exp())


def _total_spectrum(moments: ClassMoments) -> Float[Tensor, " p"]:
    """Eigenvalues of Σ_T at unit scale, ascending, those that may be rounding set to zero."""
    moments = moments.at_unit_scale()
    within, between = moments.within_covariance, moments.between_covariance
    bound = rounding_bound(within, moments.product_eps) + rounding_bound(between, torch.finfo(between.dtype).eps)
    total = within + between
    live = varies(moments, total.diagonal())
    values: Tensor = torch.linalg.eigvalsh(total * live * live[:, None])
    # n examples span n − 1 dimensions; rounding in the others would count by its square root in the entropy
    values[: max(0, len(values) - moments.num_examples + 1)] = 0.0
    return torch.where(values > bound, values, 0.0)
