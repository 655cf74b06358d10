"""Later measures of the variability within classes against that between them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import as_count
from neuralcollapse._linalg import scaled
from neuralcollapse.metrics.arguments import takes_features
from neuralcollapse.metrics.geometry import each_pair, squared_distance_tiles
from neuralcollapse.metrics.present_classes import distinct_means, has_two_classes, has_two_examples_each
from neuralcollapse.metrics.rank import coincidence, feature_sizes
from neuralcollapse.metrics.signal_to_noise import whitened_singular_values
from neuralcollapse.metrics.undefined import warn_undefined
from neuralcollapse.moments.class_moments import ClassMoments


@takes_features
def cdnv(moments: ClassMoments, *, power: int = 2, correction: int = 0) -> float:
    """Class-distance normalised variance, Avg over c ≠ c' of (v_c + v_c') / (2‖μ_c − μ_c'‖²), v_c = tr Σ_c.

    Every pair counts alike, whatever the weighting. Infinite, with a warning, where two class means coincide.

    Args:
        moments: of the features; or the features (n, p), then the labels (n,).
        power: of the distance; 4 is what Wu & Papyan (2024) plot, which depends on the unit of the features.
        correction: 1 divides each class's variance by n_c − 1; nan, with a warning, where a class has one example.

    Source: Galanti, György & Hutter (2021), On the role of neural collapse in transfer learning, Section 3.
    """
    if not has_two_classes(moments, "CDNV"):
        return float("nan")
    power = as_count(power, "power", least=2, most=4)
    variances = _class_variances(moments, correction, "CDNV")
    if variances is None:
        return float("nan")
    exponent, moments = moments.exponent, moments.at_unit_scale()
    means, variances = distinct_means(moments), variances[moments.present].double()
    total, floor = torch.zeros((), dtype=torch.float64, device=means.device), coincidence(moments)
    nearest = float(floor.square().sum())
    for rows, columns, squared in squared_distance_tiles(means):
        spread = variances[rows, None] + variances[columns]
        for pairs in torch.split((squared <= nearest).nonzero(), max(1, (1 << 22) // means.shape[1])):
            apart = (means[rows][pairs[:, 0]] - means[columns][pairs[:, 1]]).abs()
            one, other = pairs[(apart <= floor).all(dim=1)].T
            squared[one, other] = 0.0
        total += each_pair(spread / (2 * squared ** (power / 2)), rows, columns).sum()
    if not bool(torch.isfinite(total)):
        if bool(total.isnan()):
            warn_undefined("CDNV", "two classes are one and the same point")
        else:
            warn_undefined("CDNV", "two class means coincide", "infinite")
        return float(total)
    return float(scaled(2 * total / (len(means) * (len(means) - 1)), (2 - power) * exponent))


@takes_features
def variability_ratio(moments: ClassMoments, *, correction: int = 0) -> float:
    """tr Σ_W / tr Σ_B, which needs no covariance matrix; infinite, with a warning, where all class means coincide.

    Args:
        moments: of the features; or the features (n, p), then the labels (n,).
        correction: 1 divides each class's variance by n_c − 1; nan, with a warning, where a class has one example.

    Source: Tirer, Huang & Niles-Weed (2023), Perturbation analysis of neural collapse.
    """
    if not has_two_classes(moments, "the variability ratio"):
        return float("nan")
    variances = _class_variances(moments, correction, "the variability ratio")
    if variances is None:
        return float("nan")
    moments = moments.at_unit_scale()
    within, between = float(moments.within_weights @ variances), moments.between_variance
    if not bool(distinct_means(moments).any()):
        if within <= moments.eps**2 * float(feature_sizes(moments).square().sum()):
            warn_undefined("the variability ratio", "all features are equal")
            return float("nan")
        warn_undefined("the variability ratio", "all class means coincide", "infinite")
        return float("inf")
    ratio = within / between if between else float("inf")
    if ratio == float("inf"):  # about the means of other data, of another scale
        warn_undefined("the variability ratio", "no float holds it", "infinite")
    return ratio


@takes_features
def variability_collapse_index(moments: ClassMoments) -> float:
    """VCI = 1 − tr(Σ_T⁺ Σ_B)/r, r = min(classes − 1, directions in which features vary); zero at collapse, at most 1.

    With s the singular values of Σ_W^{-1/2} M̄ diag(√π) this is Ave 1/(1 + s²), in which nothing cancels, so that it is
    never negative. It is invariant under every invertible linear map of the features. It is nan, with a
    warning, where all class means coincide.

    Source: Xu & Liu (2023), Quantifying the variability collapse of neural networks, Definition 1.
    """
    if not has_two_classes(moments, "VCI"):
        return float("nan")
    if not bool(distinct_means(moments).any()):
        warn_undefined("VCI", "all class means coincide")
        return float("nan")
    signal = whitened_singular_values(moments, moments.weights.sqrt())
    return float((1.0 / (1.0 + signal.square())).mean())


def _class_variances(moments: ClassMoments, correction: int, name: str) -> Float[Tensor, " c"] | None:
    """tr Σ_c at unit scale with divisor n_c − correction; None, with a warning, where a class has one example."""
    variances = moments.at_unit_scale().class_variances
    if not as_count(correction, "correction", least=0, most=1):
        return variances
    if not has_two_examples_each(moments, f"{name} with divisor n_c − 1"):
        return None
    counts = moments.counts.to(variances)
    return variances * counts / (counts - 1).clamp(min=1)
