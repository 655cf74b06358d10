"""Proposition 1: the classifier that minimises the MSE loss for fixed features."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import as_number
from neuralcollapse._linalg import (
    definite_factor,
    part_within,
    resolved_directions,
    rounding_bound,
    scaled,
    scaled_symmetric,
    solve_right,
    unit_scale,
)
from neuralcollapse.metrics.arguments import takes_features
from neuralcollapse.metrics.rank import total_correlation, varies
from neuralcollapse.moments.class_moments import ClassMoments

Solver = Callable[[Tensor], Tensor]

# Features divided by 2^e have variances of about one: λ 4^-e above this leaves nothing of them.
_LARGEST_DECAY = 2.0**200


@takes_features
def least_squares_classifier(
    moments: ClassMoments, weight_decay: float = 0.0
) -> tuple[Float[Tensor, "c p"], Float[Tensor, " c"]]:
    """W̃_LS = diag(π) M̃ᵀ (K + λI)⁺ with K = Ave h̃h̃ᵀ, the bias absorbed and penalised like the weight.

    Eliminating the bias by hand, and the mean after it, leaves a p × p system free of the cancellation that a large
    mean brings to K:

        W₀ A = diag(π) M̄ᵀ,   A = Σ_T + λI,   r = π − W₀ μ_G,   v = λ A⁻¹ μ_G,   d = 1 + λ + vᵀ μ_G,
        W_LS = W₀ + r vᵀ/d,   b_LS = r/d.

    With λ = 0 and K singular it is the solution of minimum norm. Which directions count as null is decided with each
    feature scaled to unit variance, so that predictions do not depend on the units of single features.

    Args:
        moments: of the features, or the features (n, p), then the labels (n,); its weighting decides Ave and π (by
            example where it is mixed).
        weight_decay: λ of the paper's loss, which adds (λ/2)‖W̃‖_F².

    Returns:
        The weight (C, p) and the bias (C,).

    Raises:
        InputError: a negative λ; what is no `ClassMoments` and no features with labels.

    Source: Webb & Lowe (1990); Han, Papyan & Donoho (2022), Proposition 1.

    Example:
        >>> weight, bias = least_squares_classifier(torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]))
        >>> [round(value, 6) for value in (*weight[:, 0].tolist(), *bias.tolist())]
        [0.5, -0.5, 0.5, 0.5]
    """
    _, weight, bias = solve_least_squares(moments, weight_decay)
    return weight, bias


def solve_least_squares(
    moments: ClassMoments, weight_decay: float
) -> tuple[Float[Tensor, "c p"], Float[Tensor, "c p"], Float[Tensor, " c"]]:
    """W_LS for features divided by 2^e, which is finite even where W_LS overflows; then W_LS; then b_LS."""
    weight_decay, moments = as_number(weight_decay, "weight decay"), moments.exactly_weighted()
    exponent, moments = moments.exponent, moments.at_unit_scale()
    # The weight of features divided by 2^e is 2^e times as large, and its square is penalised 4^-e times as much.
    decay = _decay_at(weight_decay, exponent)
    prior, mean, shrink = moments.weights, moments.global_mean, weight_decay / (1.0 + weight_decay)
    if decay > _LARGEST_DECAY:
        # Σ_T is negligible beside λ
        small = torch.empty_like(moments.means)
        for block, rows in moments.centred_blocks():
            small[block] = scaled(prior[block, None] * (rows + shrink * mean), exponent) / weight_decay
        weight = scaled(small, exponent)
        return weight, small, (prior - weight @ mean) / (1.0 + weight_decay)
    within, between = moments.within_covariance, moments.between_covariance
    if weight_decay > 0.0:
        free, turned, along_null = _penalised(moments, within, between, decay)
    else:
        free, along_null = _unpenalised(moments, within, between)
        turned = torch.zeros_like(along_null)
    # What a penalised bias leaves to the weight, in units in which λ is λ' = λ4^-e: with r = π − W₀ μ_G the weight gets
    # r vᵀ/d and the bias r 4^-e/d, v = λ' (Σ_T + λ'I)⁻¹ μ_G (in directions without variance all of μ_G), and
    # d = 4^-e (1 + λ) + vᵀ μ_G. So the mean, which may be far above the spread, never enters the system.
    rest, null = prior - free @ mean, float(along_null.square().sum())
    unit = min(_decay_at(1.0, exponent), 2.0**1000)  # where it has no number it is far above the rest
    if unit == 0.0 and null == 0.0:  # 4^-e has no number, and is a factor of all that is left
        unit, decay = 1.0, weight_decay
    own = unit + decay
    size = own + decay * float(turned @ mean) + null
    weight = torch.addr(free, rest, (decay * turned + along_null) / size)
    return weight, scaled(weight, -exponent), rest * (own / size) / (1.0 + weight_decay)


def _decay_at(weight_decay: float, exponent: int) -> float:
    """λ for features divided by 2^exponent: λ · 4^-exponent, infinite where no float holds it."""
    try:
        return math.ldexp(weight_decay, -2 * exponent)
    except OverflowError:
        return math.inf


def _solve(moments: ClassMoments, live: Tensor, scale: Tensor, solve: Solver) -> Tensor:
    """(C, p) solve(diag(π) M̄ᵀ) on the ``live`` features, multiplied by ``scale``; zero elsewhere."""
    prior = moments.weights
    weight = torch.zeros_like(moments.means)
    for block, rows in moments.centred_blocks():
        right = prior[block, None] * rows[:, live]
        weight[block, live] = solve(right * scale) * scale
    return weight


def _penalised(moments: ClassMoments, within: Tensor, between: Tensor, decay: float) -> tuple[Tensor, Tensor, Tensor]:
    """For λ > 0 and a bias without penalty W₀, the weight of A = Σ_T + λI; A⁺ μ_G; and μ_G where A has no inverse."""
    mean, nothing = moments.global_mean, torch.zeros_like(moments.global_mean)
    live = varies(moments, (within + between).diagonal())
    total = torch.where(live[:, None] & live, within + between, 0.0)
    used = total.diagonal() + decay > 0.0
    system, scale = _penalised_system(total, used, decay)
    exact = 2.0 * rounding_bound(system, torch.finfo(system.dtype).eps)
    bound = exact + rounding_bound(scaled_symmetric(within, used, scale), moments.product_eps)
    factor = definite_factor(system, bound)
    if factor is None:
        # Some direction would be rounding, of either sign, without the penalty: that rounding is set to zero.
        total = _without_rounding(moments, within, between)
        system, scale = _penalised_system(total, used, decay)
        factor = definite_factor(system, exact)

    def inverse(rows: Tensor) -> Tensor:
        assert factor is not None
        return solve_right(rows, system, factor)

    if factor is not None:
        turned = nothing.clone()
        turned[used] = inverse((mean[used] * scale)[None])[0] * scale
        return _solve(moments, used, scale, inverse), turned, mean * ~used
    varying = total.diagonal()[total.diagonal() > 0.0]
    if len(varying) and decay <= torch.finfo(system.dtype).eps ** 2 * float(varying.min()):
        # The penalty is of no account in any direction that varies.
        weight, along_null = _unpenalised(moments, within, between)
        return weight, nothing, along_null
    # The penalty itself is below the rounding of what is beside it in some directions: there only the norm counts.
    values, vectors = torch.linalg.eigh(system)
    kept, values, null = vectors[:, values > exact], values[values > exact], vectors[:, values <= exact]
    weight = _solve(moments, used, scale, lambda right: (right @ kept / values) @ kept.T)
    bounds = torch.full_like(scale, exact)
    weight[:, used] = _shortest(moments, weight[:, used], null, scale, bounds)
    turned, along_null = nothing.clone(), mean * ~used
    turned[used] = (mean[used] * scale) @ kept / values @ kept.T * scale
    along_null[used] = _along(moments, mean[used], null, scale, bounds, _turned_by_rounding(system, values))
    return weight, turned, along_null


def _penalised_system(total: Tensor, used: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """A = Σ_T + λI of the features ``used``, its diagonal about one, and what brings it there."""
    total = total.clone()
    total.diagonal().add_(decay)
    scale = unit_scale(total.diagonal()[used])
    return scaled_symmetric(total, used, scale), scale


def _without_rounding(moments: ClassMoments, within: Tensor, between: Tensor) -> Tensor:
    """Σ_T with the eigenvalues that may be rounding, some of them negative, set to zero."""
    live = varies(moments, (within + between).diagonal())
    correlation, scale, bounds = total_correlation(moments, within, between, live)
    values, vectors, bounds = resolved_directions(correlation, bounds)
    part = (vectors * torch.where(values > bounds, values, 0.0)) @ vectors.T / scale / scale[:, None]
    total = torch.zeros_like(within)
    index = live.nonzero()[:, 0]
    total[index[:, None], index] = part
    return total


def _unpenalised(moments: ClassMoments, within: Tensor, between: Tensor) -> tuple[Tensor, Tensor]:
    """For λ = 0 the W of least norm, and the part of μ_G in the null space of Σ_T."""
    live = varies(moments, (within + between).diagonal())
    along_null = moments.global_mean * ~live
    correlation, scale, bounds = total_correlation(moments, within, between, live)
    factor = definite_factor(correlation, bounds)
    if factor is not None:
        weight = _solve(moments, live, scale, lambda right: solve_right(right, correlation, factor))
        return weight, along_null
    values, vectors, along = resolved_directions(correlation, bounds)
    keep = values > along
    kept, values, null = vectors[:, keep], values[keep], vectors[:, ~keep]
    weight = _solve(moments, live, scale, lambda right: (right @ kept / values) @ kept.T)
    weight[:, live] = _shortest(moments, weight[:, live], null, scale, bounds)
    turned = _turned_by_rounding(correlation, values)
    along_null[live] = _along(moments, moments.global_mean[live], null, scale, bounds, turned)
    return weight, along_null


def _turned_by_rounding(system: Tensor, kept: Tensor) -> float:
    """How far rounding turns the null space of a system towards the smallest direction kept."""
    if not len(kept):
        return 0.0
    return rounding_bound(system, torch.finfo(system.dtype).eps) / float(kept.amin())


def _along(moments: ClassMoments, mean: Tensor, null: Tensor, scale: Tensor, bounds: Tensor, turned: float) -> Tensor:
    """The part of a mean in a null space, as far as it is no rounding.

    Rounding turns the null space, and leaves means as precise as features are beside their spread, which is one here:
    what the mean has along the null space beyond that is part of it.
    """
    doubt = len(mean) * (4.0 * turned * float((mean * scale).norm()) + 8.0 * moments.eps)
    if float((null.T @ (mean * scale)).norm()) > doubt:
        part = part_within(mean[None], null * scale[:, None])[0]
        if float((part / scale).square() @ bounds) <= moments.eps**0.5 * float(part.square().sum()) ** 2:
            return part
    return torch.zeros_like(mean)


def _shortest(moments: ClassMoments, rows: Tensor, null: Tensor, scale: Tensor, bounds: Tensor) -> Tensor:
    """Rows of a weight with the least norm among those that predict the same.

    In the features' own units the columns null · scale span the null space. Whatever combination of them is taken off,
    predictions stay as they are, as far as the columns are known. So a feature that hardly takes part, such as the
    small one of a sum of two, is left out: beside it the others would grow without end. Where features differ so much
    in size that the shortest rows would predict otherwise all the same, rows stay as they are.
    """
    takes_part = torch.linalg.vector_norm(null, dim=1, keepdim=True) > moments.eps**0.5
    longer = part_within(rows, null * scale[:, None] * takes_part)
    certain = float(((longer / scale).square() @ bounds).sum()) <= moments.eps**0.5
    return rows - longer if certain else rows
