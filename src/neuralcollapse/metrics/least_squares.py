"""Proposition 1: the classifier that minimises the MSE loss for fixed features."""

from __future__ import annotations

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

    Eliminating the bias by hand leaves a p × p system free of the cancellation that a large mean brings to K:

        W_LS A = diag(π) M̄ᵀ + λ/(1+λ) π μ_Gᵀ,   A = Σ_T + λI + λ/(1+λ) μ_G μ_Gᵀ,   b_LS = (π − W_LS μ_G)/(1+λ).

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
        weight = _penalised(moments, within, between, decay, shrink)
        return weight, scaled(weight, -exponent), (prior - weight @ mean) / (1.0 + weight_decay)
    weight, along_null = _unpenalised(moments, within, between)
    rest, share = prior - weight @ mean, float(along_null.square().sum())
    if share > 0.0:
        # Directions in which features are constant do the bias's work; the least norm shares it between the two.
        one = _decay_at(1.0, exponent)
        weight, rest = torch.addr(weight, rest, along_null / (one + share)), rest * (one / (one + share))
    return weight, scaled(weight, -exponent), rest


def _decay_at(weight_decay: float, exponent: int) -> float:
    """λ · 4^-exponent, kept within the range of floats."""
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


def _penalised(moments: ClassMoments, within: Tensor, between: Tensor, decay: float, shrink: float) -> Tensor:
    """W_LS for λ > 0."""
    mean, total = moments.global_mean, within + between
    used = total.diagonal() + decay + shrink * mean.square() > 0.0
    system, scale = _penalised_system(total, used, mean, decay, shrink)
    exact = 2.0 * rounding_bound(system, torch.finfo(system.dtype).eps)
    bound = exact + rounding_bound(scaled_symmetric(within, used, scale), moments.product_eps)
    factor = definite_factor(system, bound)
    if factor is None:
        # Some direction would be rounding, of either sign, without the penalty: that rounding is set to zero.
        total = _without_rounding(moments, within, between)
        system, scale = _penalised_system(total, used, mean, decay, shrink)
        factor = definite_factor(system, exact)
    if factor is not None:
        return _solve(moments, shrink, used, scale, lambda right: solve_right(right, system, factor))
    varying = total.diagonal()[total.diagonal() > 0.0]
    if len(varying) and decay <= torch.finfo(system.dtype).eps ** 2 * float(varying.min()):
        # The penalty is of no account in any direction that varies. Where constant features do all of the bias's work,
        # the mean need not enter the system, in which one far above the spread would cost digits.
        weight, along_null = _unpenalised(moments, within, between)
        share = float(along_null.square().sum())
        if decay < torch.finfo(system.dtype).eps * share:
            return torch.addr(weight, moments.weights - weight @ mean, along_null / share)
    # The penalty itself is below the rounding of what is beside it in some directions: there only the norm counts.
    values, vectors = torch.linalg.eigh(system)
    kept, values, null = vectors[:, values > exact], values[values > exact], vectors[:, values <= exact]
    weight = _solve(moments, shrink, used, scale, lambda right: (right @ kept / values) @ kept.T)
    weight[:, used] = _shortest(moments, weight[:, used], null, scale, torch.full_like(scale, exact))
    return weight


def _penalised_system(total: Tensor, used: Tensor, mean: Tensor, decay: float, shrink: float) -> tuple[Tensor, Tensor]:
    """A = Σ_T + λI + λ/(1+λ) μ_G μ_Gᵀ of the features ``used``, its diagonal about one, and what brings it there."""
    total = total.clone()
    total.diagonal().add_(decay)
    total.addr_(mean, mean, alpha=shrink)
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
        weight = _solve(moments, 0.0, live, scale, lambda right: solve_right(right, correlation, factor))
        return weight, along_null
    values, vectors, along = resolved_directions(correlation, bounds)
    keep = values > along
    kept, values, null = vectors[:, keep], values[keep], vectors[:, ~keep]
    weight = _solve(moments, 0.0, live, scale, lambda right: (right @ kept / values) @ kept.T)
    weight[:, live] = _shortest(moments, weight[:, live], null, scale, bounds)
    # Rounding turns the null space towards the smallest direction kept, and leaves means as precise as features are
    # beside their spread, which is one here: what the mean has along the null space beyond that is part of it.
    mean = moments.global_mean[live]
    turned = rounding_bound(correlation, torch.finfo(mean.dtype).eps) / float(values.amin()) if len(values) else 0.0
    doubt = len(mean) * (4.0 * turned * float((mean * scale).norm()) + 8.0 * moments.eps)
    if float((null.T @ (mean * scale)).norm()) > doubt:
        part = part_within(mean[None], null * scale[:, None])[0]
        if float((part / scale).square() @ bounds) <= moments.eps**0.5 * float(part.square().sum()) ** 2:
            along_null[live] = part
    return weight, along_null


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
