"""Which features vary: decided feature by feature, because rounding is relative to each feature's own size."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..moments import ClassMoments


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


def rounding_variances(moments: ClassMoments) -> Float[Tensor, " p"]:
    """(p,) four times what rounding features to their type adds to their variances: 4 (eps μ)²/12.

    Features that would span fewer dimensions, such as those that layer normalisation leaves, vary by so little in the
    others.
    """
    return (moments.eps * feature_sizes(moments)).square() / 3.0
