"""Proposition 1: the classifier that minimises the MSE loss for fixed features."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import check_weight_decay
from .._linalg import definite_factor, minimum_norm_solver, rounding_bound, solve_right
from ..moments import ClassMoments


def least_squares_classifier(
    moments: ClassMoments, weight_decay: float = 0.0
) -> tuple[Float[Tensor, "c p"], Float[Tensor, " c"]]:
    """W̃_LS = diag(π) M̃ᵀ (K + λI)⁺ with K = Ave h̃h̃ᵀ, the bias absorbed and penalised like the weight.

    Eliminating the bias by hand leaves a p × p system free of the cancellation that a large mean brings to K:

        W_LS A = diag(π) M̄ᵀ + λ/(1+λ) π μ_Gᵀ,   A = Σ_T + λI + λ/(1+λ) μ_G μ_Gᵀ,   b_LS = (π − W_LS μ_G)/(1+λ).

    With λ = 0 and K singular the minimum-norm solution is returned.

    Args:
        moments: of the features; its weighting decides Ave and π.
        weight_decay: λ of the paper's loss (MATHEMATICS: (λ/2)‖W̃‖_F²).

    Returns:
        The weight (C, p) and the bias (C,).

    Source: Webb & Lowe (1990); Han, Papyan & Donoho (2022), Proposition 1.
    """
    check_weight_decay(weight_decay)
    prior, mean = moments.weights, moments.global_mean
    shrink = weight_decay / (1.0 + weight_decay)
    within, between = moments.within_covariance, moments.between_covariance
    bound = 0.0
    if weight_decay == 0.0:
        bound = rounding_bound(within, moments.eps) + rounding_bound(between, torch.finfo(between.dtype).eps)
    system = within.add_(between)  # Σ_T, and all else into the same memory
    system.diagonal().add_(weight_decay)
    system.addr_(mean, mean, alpha=shrink)
    factor = definite_factor(system, bound)
    if factor is None:
        return _minimum_norm(moments, weight_decay, bound)
    weight = torch.empty_like(moments.means)
    for block, rows in moments.centred_blocks():
        weight[block] = solve_right(prior[block, None] * (rows + shrink * mean), system, factor)
    return weight, (prior - weight @ mean) / (1.0 + weight_decay)


def _minimum_norm(moments: ClassMoments, weight_decay: float, bound: float) -> tuple[Tensor, Tensor]:
    """The same on extended features through the eigenvectors of K, where the system above is singular."""
    one = moments.means.new_ones(1)
    mean = torch.cat([moments.global_mean, one])
    dim = len(mean)
    second = torch.outer(mean, mean)
    second[: dim - 1, : dim - 1] += moments.within_covariance + moments.between_covariance
    second.diagonal().add_(weight_decay)
    bound += rounding_bound(torch.outer(mean, mean), torch.finfo(mean.dtype).eps)
    solve = minimum_norm_solver(second, bound)
    weight, bias, prior = torch.empty_like(moments.means), torch.empty_like(moments.weights), moments.weights
    for block in moments.class_blocks():
        means = moments.means[block]
        solution = solve(prior[block, None] * torch.cat([means, one.expand(len(means), 1)], dim=1))
        weight[block], bias[block] = solution[:, :-1], solution[:, -1]
    return weight, bias
