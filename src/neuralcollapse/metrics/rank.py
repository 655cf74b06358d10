"""Which features vary: decided feature by feature, because rounding is relative to each feature's own size."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuralcollapse._linalg import resolved_directions, rounding_bound, scaled_symmetric, unit_scale
from neuralcollapse.moments.class_moments import ClassMoments


def feature_sizes(moments: ClassMoments) -> Float[Tensor, " p"]:
    """(p,) √(Σ_c π_c μ_c²), the root mean square of each feature's class means about the origin."""
    weights, means = moments.weights, moments.means
    squares = torch.zeros_like(means[0])
    for block in moments.class_blocks():
        squares += weights[block] @ means[block].square()
    return squares.sqrt()


def varies(moments: ClassMoments, variances: Float[Tensor, " p"]) -> Bool[Tensor, " p"]:
    """(p,) whether a feature of this variance varies by more than the rounding of its numbers, and of its means.

    Means are right to 16 roundings of the state's type.
    """
    own = 16.0 * torch.finfo(moments.dtype).eps * feature_sizes(moments)
    varying: Tensor = variances > torch.maximum(own.square(), rounding_variances(moments))
    return varying


def coincidence(moments: ClassMoments) -> float:
    """How far two means may be apart and still be one and the same, but for the rounding of features of their size."""
    return 8.0 * moments.eps * float(torch.linalg.vector_norm(feature_sizes(moments)))


def rounding_variances(moments: ClassMoments) -> Float[Tensor, " p"]:
    """(p,) four times what rounding features to their type adds to their variances: 4 (eps μ)²/12.

    Features that would span fewer dimensions, such as those that layer normalisation leaves, vary by so little in the
    others.
    """
    return (moments.eps * feature_sizes(moments)).square() / 3.0


def total_correlation(
    moments: ClassMoments, within: Float[Tensor, "p p"], between: Float[Tensor, "p p"], live: Bool[Tensor, " p"]
) -> tuple[Float[Tensor, "q q"], Float[Tensor, " q"], Float[Tensor, " q"]]:
    """Σ_T of the ``live`` features at about unit variance.

    Returns:
        The matrix; the factors that bring each feature there; how much of each variance may be rounding.
    """
    scale = unit_scale((within + between).diagonal()[live])
    noise, signal = scaled_symmetric(within, live, scale), scaled_symmetric(between, live, scale)
    bound = rounding_bound(noise, moments.product_eps) + 2.0 * rounding_bound(signal, torch.finfo(signal.dtype).eps)
    return noise.add_(signal), scale, bound + rounding_variances(moments)[live] * scale.square()


def directions(moments: ClassMoments) -> int:
    """rank Σ_T, the number of directions in which features vary, within classes or between them."""
    moments = moments.at_unit_scale()
    within, between = moments.within_covariance, moments.between_covariance
    live = varies(moments, (within + between).diagonal())
    correlation, scale, bounds = total_correlation(moments, within, between, live)
    # Computed features, such as those of a layer normalisation, are off by some units of their last place, not by half.
    bounds = bounds + 47.0 * rounding_variances(moments)[live] * scale.square()
    values, _, bounds = resolved_directions(correlation, bounds)
    return int((values > bounds).sum())
