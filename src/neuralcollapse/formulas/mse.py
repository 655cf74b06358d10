"""Theorems 1 and 2: the MSE loss as L_NC1 + L_NC2/3 + L⊥_LS, exact for any class weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import check_classifier, check_weight_decay
from ..moments import ClassMoments
from .least_squares import least_squares_classifier


@dataclass(frozen=True)
class MSEDecomposition:
    """The terms of L = L_NC1 + L_NC2/3 + L⊥_LS, and the least-squares classifier they refer to.

    Attributes:
        total: L, computed from its definition, independently of the terms.
        nc1: L_NC1 ≥ 0, within-class variability seen by W̃_LS, with its weight decay.
        nc23: L_NC2/3 ≥ 0, distance of the class means from the one-hot targets under W̃_LS.
        ls: L_LS = L_NC1 + L_NC2/3, the least loss any classifier reaches on these features.
        ls_perp: L⊥_LS ≥ 0, what the classifier in use loses against it.
        weight_ls: (C, p); bias_ls: (C,).
        weight_decay: the λ all of this was computed with.
    """

    total: float
    nc1: float
    nc23: float
    ls: float
    ls_perp: float
    weight_ls: Float[Tensor, "c p"]
    bias_ls: Float[Tensor, " c"]
    weight_decay: float


def decompose_mse(
    moments: ClassMoments,
    weight: Float[Tensor, "c p"],
    bias: Float[Tensor, " c"] | None = None,
    *,
    weight_decay: float = 0.0,
) -> MSEDecomposition:
    """Decompose L(W̃, H̃) = ½ Ave ‖W̃h̃ − y‖² + (λ/2)‖W̃‖_F² around the least-squares classifier.

        L_NC1  = ½ tr W̃_LS (Σ̃_W + λI) W̃_LSᵀ
        L_NC23 = ½ Σ_c π_c ‖W̃_LS μ̃_c − e_c‖²
        L⊥_LS  = ½ tr (W̃ − W̃_LS)(K + λI)(W̃ − W̃_LS)ᵀ

    Every term is a sum of squares of centred quantities, so none can come out negative.

    Args:
        moments: of the features that enter the last layer.
        weight: (C, p); bias: (C,), or None for a layer without bias, which is a bias of zero.
        weight_decay: λ of the loss above. A network trained on ``MSELoss`` with SGD decay w has λ = C·w/2.

    Raises:
        InputError: shapes that do not match the moments, NaN or infinity, a negative λ.

    Source: Han, Papyan & Donoho (2022), Theorem 1; Han, Papyan & Donoho (2022), Theorem 2.
    """
    check_classifier(weight, bias, moments.num_classes, moments.means.shape[1])
    check_weight_decay(weight_decay)
    weight = weight.detach().to(moments.means)
    bias = torch.zeros_like(weight[:, 0]) if bias is None else bias.detach().to(moments.means)
    weight_ls, bias_ls = least_squares_classifier(moments, weight_decay)
    within, prior = moments.within_covariance, moments.weights

    def spread(w: Tensor, b: Tensor) -> Tensor:
        return 0.5 * _quadratic(w, within) + 0.5 * weight_decay * ((w**2).sum() + (b**2).sum())

    def bias_of_means(w: Tensor, b: Tensor) -> Tensor:
        # W μ_c + b with the global mean split off, so that a large common offset cancels once, not C times.
        outputs = w @ moments.centred_means.T + (w @ moments.global_mean + b)[:, None]
        targets = torch.eye(len(prior), dtype=prior.dtype, device=prior.device)
        return 0.5 * (prior * ((outputs - targets) ** 2).sum(dim=0)).sum()

    d_weight, d_bias = weight - weight_ls, bias - bias_ls
    shift = d_weight @ moments.global_mean + d_bias
    between = ((d_weight @ moments.centred_means.T) ** 2 * prior).sum()
    ls_perp = spread(d_weight, d_bias) + 0.5 * (between + (shift**2).sum())
    nc1, nc23 = spread(weight_ls, bias_ls), bias_of_means(weight_ls, bias_ls)
    return MSEDecomposition(
        total=float(spread(weight, bias) + bias_of_means(weight, bias)),
        nc1=float(nc1),
        nc23=float(nc23),
        ls=float(nc1 + nc23),
        ls_perp=float(ls_perp),
        weight_ls=weight_ls,
        bias_ls=bias_ls,
        weight_decay=weight_decay,
    )


def _quadratic(weight: Tensor, covariance: Tensor) -> Tensor:
    """tr W Σ Wᵀ, floored at zero: a covariance of rounding noise alone may be slightly indefinite."""
    return ((weight @ covariance) * weight).sum().clamp(min=0.0)
