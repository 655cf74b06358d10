"""Proposition 1: the classifier that minimises the MSE loss for fixed features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import as_number
from .._linalg import (
    definite_factor,
    part_within,
    resolved_directions,
    rounding_bound,
    scaled,
    solve_right,
    unit_scale,
)
from ..moments import ClassMoments, require_moments
from .rank import total_correlation, varies

Solver = Callable[[Tensor], Tensor]

# Features divided by 2^e have variances of about one: λ 4^-e above this leaves nothing of them.
_LARGEST_DECAY = 2.0**200


def least_squares_classifier(
    moments: ClassMoments, weight_decay: float = 0.0
) -> tuple[Float[Tensor, "c p"], Float[Tensor, " c"]]:
    """W̃_LS = diag(π) M̃ᵀ (K + λI)⁺ with K = Ave h̃h̃ᵀ, the bias absorbed and penalised like the weight.

    Eliminating the bias by hand leaves a p × p system free of the cancellation that a large mean brings to K:

        W_LS A = diag(π) M̄ᵀ + λ/(1+λ) π μ_Gᵀ,   A = Σ_T + λI + λ/(1+λ) μ_G μ_Gᵀ,   b_LS = (π − W_LS μ_G)/(1+λ).

    With λ = 0 and K singular it is the solution of minimum norm. Which directions count as null is decided with each
    feature scaled to unit variance, so that predictions do not depend on the units of single features.

    Args:
        moments: of the features; its weighting decides Ave and π.
        weight_decay: λ of the paper's loss, which adds (λ/2)‖W̃‖_F².

    Returns:
        The weight (C, p) and the bias (C,).

    Source: Webb & Lowe (1990); Han, Papyan & Donoho (2022), Proposition 1.
    """
    _, weight, bias = solve_least_squares(moments, weight_decay)
    return weight, bias


def solve_least_squares(
    moments: ClassMoments, weight_decay: float
) -> tuple[Float[Tensor, "c p"], Float[Tensor, "c p"], Float[Tensor, " c"]]:
    """W_LS for features divided by 2^e, W_LS itself, b_LS; the first is a number also where the second is none."""
    require_moments(moments)
    weight_decay = as_number(weight_decay, "weight decay")
    exponent, moments = moments.exponent, moments.at_unit_scale()
    # The weight of features divided by 2^e is 2^e times as large, and its square is penalised 4^-e times as much.
    decay = _decay_at(weight_decay, exponent)
    prior, mean, shrink = moments.weights, moments.global_mean, weight_decay / (1.0 + weight_decay)
    if decay > _LARGEST_DECAY:
        # beside λ Σ_T is as good as zero
        small = torch.empty_like(moments.means)
        for block, rows in moments.centred_blocks():
            small[block] = scaled(prior[block, None] * (rows + shrink * mean), exponent) / weight_decay
        weight = scaled(small, exponent)
        return weight, small, (prior - weight @ mean) / (1.0 + weight_decay)
    within, between = moments.within_covariance, moments.between_covariance
    penalised = _penalised(moments, within, between, decay, shrink) if decay > 0.0 else None
    if penalised is not None:
        weight, bias = penalised, (prior - penalised @ mean) / (1.0 + weight_decay)
        return weight, scaled(weight, -exponent), bias
    weight, along_null = _in_the_limit(moments, within, between, 0.0)
    share, one = float(along_null.square().sum()), _decay_at(1.0, exponent)
    if share > 0.0:
        # Directions in which features are constant do the bias's work; the least norm shares it between the two.
        rest = prior - weight @ mean
        weight = torch.addr(weight, rest, along_null / (one + share))
        return weight, scaled(weight, -exponent), rest * (one / (one + share))
    if weight_decay > 0.0:
        weight, _ = _in_the_limit(moments, within, between, shrink)
    return weight, scaled(weight, -exponent), (prior - weight @ mean) / (1.0 + weight_decay)


def _decay_at(weight_decay: float, exponent: int) -> float:
    """λ · 4^-exponent, or what stands for it where that is no number."""
    if weight_decay == 0.0 or exponent > 1000:
        return 0.0
    return weight_decay * 4.0 ** -max(exponent, -500)


def _solve(moments: ClassMoments, shrink: float, live: Tensor, scale: Tensor, solve: Solver) -> Tensor:
    """(C, p) solve(diag(π) M̄ᵀ + shrink π μ_Gᵀ) on the ``live`` features, multiplied by ``scale``; zero elsewhere."""
    prior, mean = moments.weights, moments.global_mean
    weight = torch.zeros_like(moments.means)
    for block, rows in moments.centred_blocks():
        right = (prior[block, None] * (rows + shrink * mean))[:, live]
        weight[block, live] = solve(right * scale) * scale
    return weight


def _penalised(moments: ClassMoments, within: Tensor, between: Tensor, decay: float, shrink: float) -> Tensor | None:
    """W_LS for λ > 0; None where λ is below the rounding of Σ_T, and so as good as zero."""
    mean, everything = moments.global_mean, torch.ones_like(moments.global_mean, dtype=torch.bool)
    system, scale = _penalised_system(within + between, mean, decay, shrink)
    exact = 2.0 * rounding_bound(system, torch.finfo(system.dtype).eps)
    bound = exact + rounding_bound(within * scale * scale[:, None], moments.product_eps)
    factor = definite_factor(system, bound)
    if factor is None:
        # Without the penalty some direction would not be told from rounding, of whatever sign: that is taken out.
        system, scale = _penalised_system(_without_rounding(moments, within, between), mean, decay, shrink)
        factor = definite_factor(system, exact)
    if factor is None:
        return None
    return _solve(moments, shrink, everything, scale, lambda right: solve_right(right, system, factor))


def _penalised_system(total: Tensor, mean: Tensor, decay: float, shrink: float) -> tuple[Tensor, Tensor]:
    """A = Σ_T + λI + λ/(1+λ) μ_G μ_Gᵀ with a diagonal of about one, and the factors that bring it there."""
    total = total.clone()
    total.diagonal().add_(decay)
    total.addr_(mean, mean, alpha=shrink)
    scale = unit_scale(total.diagonal())
    return total.mul_(scale).mul_(scale[:, None]), scale


def _without_rounding(moments: ClassMoments, within: Tensor, between: Tensor) -> Tensor:
    """Σ_T with the eigenvalues that may be rounding, and may be negative, set to zero."""
    live = varies(moments, (within + between).diagonal())
    correlation, scale, bounds = total_correlation(moments, within, between, live)
    values, vectors, bounds = resolved_directions(correlation, bounds)
    part = (vectors * torch.where(values > bounds, values, 0.0)) @ vectors.T / scale / scale[:, None]
    total = torch.zeros_like(within)
    index = live.nonzero()[:, 0]
    total[index[:, None], index] = part
    return total


def _in_the_limit(moments: ClassMoments, within: Tensor, between: Tensor, shrink: float) -> tuple[Tensor, Tensor]:
    """W of least norm where the weight is not penalised, and the part of μ_G in the null space of Σ_T."""
    live = varies(moments, (within + between).diagonal())
    along_null = moments.global_mean * ~live
    correlation, scale, bounds = total_correlation(moments, within, between, live)
    if shrink > 0.0:
        shift = moments.global_mean[live] * scale
        correlation.addr_(shift, shift, alpha=shrink)
    factor = definite_factor(correlation, bounds)
    if factor is not None:
        weight = _solve(moments, shrink, live, scale, lambda right: solve_right(right, correlation, factor))
        return weight, along_null
    values, vectors, bounds = resolved_directions(correlation, bounds)
    keep = values > bounds
    kept, values, null = vectors[:, keep], values[keep], vectors[:, ~keep]
    weight = _solve(moments, shrink, live, scale, lambda right: (right @ kept / values) @ kept.T)
    # In the features' own units these columns span the null space of Σ_T. Whatever combination of them is taken off,
    # predictions stay as they are; the norm becomes least by it.
    basis = null * scale[:, None]
    weight[:, live] -= part_within(weight[:, live], basis)
    # Rounding turns the null space towards the smallest direction kept: that is no part of the mean.
    mean = moments.global_mean[live]
    turned = rounding_bound(correlation, torch.finfo(mean.dtype).eps) / float(values.amin()) if len(values) else 0.0
    if float((null.T @ (mean * scale)).norm()) > 4.0 * len(mean) * turned * float((mean * scale).norm()):
        along_null[live] = part_within(mean[None], basis)[0]
    return weight, along_null
