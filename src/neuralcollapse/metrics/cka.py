"""Centred kernel alignment: how alike two layers, or two networks, represent the same examples."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import Array, InputError, as_tensor, check_features, check_finite
from neuralcollapse._linalg import of_moderate_size
from neuralcollapse.metrics.undefined import warn_undefined
from neuralcollapse.moments.blocks import rows_per_block


def linear_cka(features: Float[Tensor, "n p"] | Array, others: Float[Tensor, "n q"] | Array) -> float:
    """‖XᵀY‖_F² / (‖XᵀX‖_F ‖YᵀY‖_F) of centred features of the same examples; 1 where one is the other, turned.

    It is the same for every rotation and scale of either, not for every linear map. The work grows like n p q; no n × n
    matrix is made.

    Args:
        features: (n, p) of one layer; others: (n, q) of another, the same examples in the same order.

    Returns:
        From 0 to 1; nan, with a warning, where either does not vary.

    Raises:
        InputError: features of other examples, NaN or infinity.

    Source: Kornblith et al. (2019), Similarity of neural network representations revisited, Section 3.

    Example:
        >>> import torch
        >>> features = torch.randn(20, 3, dtype=torch.float64)
        >>> round(linear_cka(features, 2 * features.flip(1) + 1), 12)
        1.0
    """
    sides = []
    for name, given in (("features", features), ("others", others)):
        rows = as_tensor(given, name)
        check_features(rows)
        check_finite(rows, name)
        sides.append(of_moderate_size(rows))
    one, other = sides[0], sides[1].to(sides[0].device)
    if len(one) != len(other) or not len(one):
        raise InputError(f"expected features of the same examples, got {len(one)} and {len(other)}")
    # told by the rows themselves: the mean of equal numbers is off by a rounding, which would pass for variation
    constant = any(not bool((side != side[0]).any()) for side in (one, other))
    centres = [side.mean(dim=0, dtype=torch.float64) for side in (one, other)]
    products = [
        torch.zeros(left.shape[1], right.shape[1], dtype=torch.float64, device=one.device)
        for left, right in ((one, other), (one, one), (other, other))
    ]
    step = rows_per_block(one)
    for parts in zip(torch.split(one, step), torch.split(other, step), strict=True):
        x, y = (part.double() - centre for part, centre in zip(parts, centres, strict=True))
        for total, (left, right) in zip(products, ((x, y), (x, x), (y, y)), strict=True):
            total.addmm_(left.T, right)
    cross, first, second = (float(torch.linalg.matrix_norm(total)) for total in products)
    if constant or not first or not second:
        warn_undefined("CKA", "the features of one side are all equal")
        return float("nan")
    return cross / first * (cross / second)
