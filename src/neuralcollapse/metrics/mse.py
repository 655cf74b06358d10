"""Theorems 1 and 2: the MSE loss as L_NC1 + L_NC2/3 + L⊥_LS, exact for any class weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import Array, as_classifier, as_number
from neuralcollapse._linalg import extreme_power, row_factor, scaled, squares
from neuralcollapse.metrics.arguments import takes_features
from neuralcollapse.metrics.least_squares import solve_least_squares
from neuralcollapse.moments.class_moments import ClassMoments

# A classifier's rows, a block of classes at a time.
Rows = Callable[[slice], Tensor]


@dataclass(frozen=True)
class MSEDecomposition:
    """The terms of L = L_NC1 + L_NC2/3 + L⊥_LS, and the least-squares classifier they refer to.

    Attributes:
        total: L, computed from its definition, independently of the terms; None in a report without a classifier.
        nc1: L_NC1 ≥ 0, within-class variability seen by W̃_LS, with its weight decay.
        nc23: L_NC2/3 ≥ 0, distance of the class means from the one-hot targets under W̃_LS.
        ls: L_LS = L_NC1 + L_NC2/3, the least loss any classifier reaches on these features.
        ls_perp: L⊥_LS ≥ 0, what the classifier in use loses against it; None in a report without a classifier.
        weight_ls: (C, p); bias_ls: (C,).
        weight_decay: the λ all of this was computed with.

    Example:
        >>> features, labels = torch.tensor([[2.0], [0.0], [-2.0], [0.0]]), torch.tensor([0, 0, 1, 1])
        >>> parts = decompose_mse(features, labels, torch.tensor([[1.0], [-1.0]]))
        >>> round(parts.ls + parts.ls_perp - parts.total, 12)
        0.0
    """

    total: float | None
    nc1: float
    nc23: float
    ls: float
    ls_perp: float | None
    weight_ls: Float[Tensor, "c p"]
    bias_ls: Float[Tensor, " c"]
    weight_decay: float


@takes_features
def decompose_mse(
    moments: ClassMoments,
    weight: Float[Tensor, "c p"] | Array,
    bias: Float[Tensor, " c"] | Array | None = None,
    *,
    weight_decay: float = 0.0,
) -> MSEDecomposition:
    """Decompose L(W̃, H̃) = ½ Ave ‖W̃h̃ − y‖² + (λ/2)‖W̃‖_F² around the least-squares classifier.

        L_NC1  = ½ tr W̃_LS (Σ̃_W + λI) W̃_LSᵀ
        L_NC23 = ½ Σ_c π_c ‖W̃_LS μ̃_c − e_c‖²
        L⊥_LS  = ½ tr (W̃ − W̃_LS)(K + λI)(W̃ − W̃_LS)ᵀ

    Every term is a sum of squares of centred quantities, so none can come out negative.

    Args:
        moments: of the features that enter the last layer; or the features (n, p), then the labels (n,). A mixed
            weighting counts as that by example, for which the terms add up.
        weight: (C, p); bias: (C,), or None for a layer without bias, which is a bias of zero.
        weight_decay: λ of the loss above. A network trained on ``MSELoss`` with SGD decay w has λ = C·w/2.

    Raises:
        InputError: shapes that do not match the moments, NaN or infinity, a negative λ.

    Source: Han, Papyan & Donoho (2022), Theorem 1; Han, Papyan & Donoho (2022), Theorem 2.

    Example:
        >>> features, labels = torch.tensor([[2.0], [0.0], [-2.0], [0.0]]), torch.tensor([0, 0, 1, 1])
        >>> parts = decompose_mse(features, labels, torch.tensor([[1.0], [-1.0]]))
        >>> round(parts.nc1 + parts.nc23 + parts.ls_perp - parts.total, 12)
        0.0
    """
    rows_in_use, own_bias = as_classifier(weight, bias, moments.num_classes, moments.means.shape[1])
    weight_decay, moments = as_number(weight_decay, "weight decay"), moments.exactly_weighted()
    offset = moments.means.new_zeros(len(rows_in_use)) if own_bias is None else own_bias.to(moments.means)
    unit_ls, weight_ls, bias_ls = solve_least_squares(moments, weight_decay)
    exponent, moments = moments.exponent, moments.at_unit_scale()
    within, parts = moments.within_covariance, _MeanOutputs(moments)

    # Each as it is for features divided by 2^exponent.
    def in_use(block: slice) -> Tensor:
        return scaled(rows_in_use[block].to(within), exponent)

    def optimal(block: slice) -> Tensor:
        return unit_ls[block]

    def difference(block: slice) -> Tensor:
        return in_use(block) - unit_ls[block]

    def spread(w: Rows, b: Tensor) -> Tensor:
        total = within.new_zeros(())
        for block in moments.class_blocks():
            rows = w(block)
            total = total + _quadratic(rows, within)
            if weight_decay > 0.0:
                total = total + weight_decay * (squares(scaled(rows, -exponent)) + squares(b[block]))
        return 0.5 * total

    ls_perp = spread(difference, offset - bias_ls) + parts.size(difference, offset - bias_ls)
    nc1, nc23 = spread(optimal, bias_ls), parts.misfit(optimal, bias_ls)
    return MSEDecomposition(
        total=_or_infinite(spread(in_use, offset) + parts.misfit(in_use, offset)),
        nc1=float(nc1),
        nc23=float(nc23),
        ls=float(nc1 + nc23),
        ls_perp=_or_infinite(ls_perp),
        weight_ls=weight_ls,
        bias_ls=bias_ls,
        weight_decay=weight_decay,
    )


class _MeanOutputs:
    """Sums over the class means of what a classifier gives for them, without a C × C matrix where C > p."""

    def __init__(self, moments: ClassMoments) -> None:
        self._moments, self._prior, self._centre = moments, moments.weights, moments.global_mean
        self._many = int(moments.present.sum()) > 2 * (len(self._centre) + 1)
        roots = self._prior.sqrt()
        # Rᵀ R = Σ_B
        self._factor = row_factor(rows * roots[block, None] for block, rows in moments.centred_blocks())

    def size(self, w: Rows, b: Tensor) -> Tensor:
        """½ Σ_c π_c ‖W μ_c + b‖² = ½ (‖W Rᵀ‖² + ‖W μ_G + b‖²)."""
        total = b.new_zeros(())
        for block in self._moments.class_blocks():
            rows = w(block)
            shift = rows @ self._centre + b[block]
            total = total + squares(rows @ self._factor.T) + squares(shift)
        return 0.5 * total

    def misfit(self, w: Rows, b: Tensor) -> Tensor:
        """½ Σ_c π_c ‖W μ_c + b − e_c‖²."""
        if self._many:
            # Of C classes present at least C − p − 1 targets are out of reach: the sum is far from zero, and expanding
            # it is safe.
            hits = b.new_zeros(())
            for block, means in self._moments.centred_blocks():
                rows = w(block)
                hits = hits + self._prior[block] @ ((rows * means).sum(dim=1) + rows @ self._centre + b[block])
            return self.size(w, b) - hits + 0.5
        present = self._moments.present
        means = torch.cat([rows[present[block]] for block, rows in self._moments.centred_blocks()])
        labels, prior, total = present.nonzero()[:, 0], self._prior[present], b.new_zeros(())
        for block in self._moments.class_blocks():
            rows = w(block)
            # The global mean is split off, so that a large common offset cancels once, not C times.
            outputs = rows @ means.T + (rows @ self._centre + b[block])[:, None]
            own = ((labels >= block.start) & (labels < block.stop)).nonzero()[:, 0]
            outputs[labels[own] - block.start, own] -= 1.0
            total = total + squares(outputs, prior)
        return 0.5 * total


def _quadratic(weight: Tensor, covariance: Tensor) -> Tensor:
    """tr W Σ Wᵀ, floored at zero: a covariance of rounding noise alone may be slightly indefinite."""
    exponent = extreme_power(weight, 400)
    weight = scaled(weight, -exponent)
    return scaled(((weight @ covariance) * weight).sum().clamp(min=0.0), 2 * exponent)


def _or_infinite(loss: Tensor) -> float:
    """The loss of the classifier in use; infinite where an output overflowed to nan."""
    return float("inf") if bool(loss.isnan()) else float(loss)
