"""Which features vary: decided feature by feature, because rounding is relative to each feature's own size."""

from __future__ import annotations

import math

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
    return variances > torch.maximum(own.square(), rounding_variances(moments))


def coincidence(moments: ClassMoments) -> Float[Tensor, " p"]:
    """(p,) how far two means that coincide may differ in each feature, for the rounding of features of that size.

    A large offset in one feature says nothing about another: means that agree there and differ here are distinct.
    """
    return 8.0 * moments.eps * feature_sizes(moments)


def rounding_variances(moments: ClassMoments) -> Float[Tensor, " p"]:
    """(p,) four times what rounding features to their type adds to their variances: 4 (eps μ)²/12.

    Features that would span fewer dimensions, such as those that layer normalisation leaves, vary by so little in the
    others.
    """
    return (moments.eps * feature_sizes(moments)).square() / 3.0


def given_type(moments: ClassMoments) -> torch.dtype:
    """The coarsest type that the features were given in."""
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    return next((each for each in types if torch.finfo(each).eps >= moments.given_eps), types[-1])


def given_rounding(moments: ClassMoments) -> Float[Tensor, " p"]:
    """(p,) what rounding features to the type they were given in adds to their within-class variances, at unit scale.

    Numbers of size v are s(v) = eps 2^⌊log₂ v⌋ apart, and rounding to them adds s²/12. Here v is the root of μ_c² + σ²
    of a feature, σ² its variance within classes: where rounding matters this is |μ_c|, and elsewhere s² is right to a
    factor of three.
    """
    exponent, kind = moments.exponent, torch.finfo(given_type(moments))
    moments = moments.at_unit_scale()
    weights, spread = moments.within_weights, moments.within_covariance.diagonal()
    smallest = math.ldexp(kind.smallest_normal, -exponent)  # below it numbers keep their distance
    squares = torch.zeros_like(spread)
    for block in moments.class_blocks():
        sizes = (moments.means[block].square() + spread).sqrt()
        apart = kind.eps * torch.exp2(torch.floor(torch.log2(sizes.clamp(min=smallest))))
        squares += weights[block] @ torch.where(sizes > 0.0, apart, 0.0).square()
    return squares / 12.0


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


def directions(moments: ClassMoments, roundings: float = 48.0) -> int:
    """rank Σ_T, the number of directions in which features vary, within classes or between them.

    A direction counts when its variance is above ``roundings`` times :func:`rounding_variances`. Two questions need two
    numbers:

    * How many directions could class means span? (NC1, and the rank it divides by.) Computed features, such as those of
      a layer normalisation, leave several units of rounding in the direction they lost. Counted, that direction would
      make NC1 infinite. Hence 48, which is seven units in the last place.
    * Is there noise in a direction? (The spectrum and the least-squares loss.) A spread of one rounding is noise: taken
      for none, it would make a singular value infinite that is 1e7. Hence 1 there.
    """
    moments = moments.at_unit_scale()
    within, between = moments.within_covariance, moments.between_covariance
    live = varies(moments, (within + between).diagonal())
    correlation, scale, bounds = total_correlation(moments, within, between, live)
    bounds = bounds + (roundings - 1.0) * rounding_variances(moments)[live] * scale.square()
    values, _, bounds = resolved_directions(correlation, bounds)
    return int((values > bounds).sum())
