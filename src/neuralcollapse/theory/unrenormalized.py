"""The central path without renormalization: plain gradient flow of the features, in closed form. Ours, not the paper's.

dX/dt = −∇_X L(W_LS(X), X) with λ = 0 and balanced classes. The normal equations of W_LS say that this gradient is
orthogonal to every linear change of the features, so that

    Σ_T stands still:  d(XᵀX)/dt = 0 for features less their global mean.

What moves is the share of Σ_T that lies between the classes, R = Σ_T^{-1/2} M̄ / √C = U diag(√ρ) Vᵀ, with
ρ_j = ω_j²/(C + ω_j²), by dR/dt = Σ_T⁻¹ R (I − RᵀR)/(n C). Hence at every instant

    d log ω_j/dt = u_jᵀ Σ_T⁻¹ u_j / (n C),

and where the u_j are eigenvectors of Σ_T, with variances τ_j, they stand still and

    ω_j(t) = ω_j(0) exp(t/(n C τ_j)),    ρ_j logistic.

So without renormalization signal to noise grows exponentially instead of like t^{1/4}, and what tells the ω_j apart is
not their size, as in Proposition 2, but the variance of the features in their directions: where it is the same in all,
max ω / min ω keeps its value instead of falling to 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from neuralcollapse._checks import InputError, as_tensor
from neuralcollapse.theory.flow import balanced_parts

Array = np.ndarray[Any, np.dtype[np.float64]]

_SINGULAR = 1e-10


def growth_rates(features: Float[Tensor, "n p"], labels: Integer[Tensor, " n"]) -> Float[Tensor, " k"]:
    """d log ω_j/dt = u_jᵀ Σ_T⁻¹ u_j / (n C) of the flow without renormalization at X, for λ = 0; ω descending.

    Exact at every X whose ω_j are distinct. u_j is the left singular vector of Σ_T^{-1/2} M̄ that belongs to ω_j; equal
    ω_j share theirs, and the rates are then those of one choice, whose sum alone is the flow's.

    Args:
        features: (n, p), any Σ_W; labels: (n,), balanced.

    Returns:
        (C − 1,) in units of one over the time of `theory.flow`.

    Raises:
        InputError: unbalanced classes, a singular Σ_T, or fewer than C − 1 features.

    Source: ours; docs/central-path.md, Without renormalization.

    Example:
        >>> x = torch.tensor([[2.0], [0.0], [-2.0], [0.0]], dtype=torch.float64)
        >>> growth_rates(x, torch.tensor([0, 0, 1, 1]))  # n = 4, C = 2, Σ_T = 2
        tensor([0.0625], dtype=torch.float64)
    """
    means, deviations = balanced_parts(features, labels)
    classes, count = len(means), len(deviations)
    total = deviations.T @ deviations / count + means.T @ means / classes
    values, vectors = torch.linalg.eigh(total)
    if not float(values[0]) > _SINGULAR * float(values[-1]):
        raise InputError(
            f"expected features that vary in every direction, got a total covariance with eigenvalues from "
            f"{max(0.0, float(values[0])):.3g} to {float(values[-1]):.3g}: give more examples than features, or "
            "project dead features out"
        )
    # in the eigenbasis of Σ_T, which serves Σ_T^{-1/2} and Σ_T⁻¹ alike
    left = torch.linalg.svd((vectors * values.rsqrt()).T @ means.T, full_matrices=False)[0][:, : classes - 1]
    rates: Tensor = (left.square() / values[:, None]).sum(dim=0) / (count * classes)
    return rates


class UnrenormalizedPath:
    """ω_j(t) = ω_j(0) exp(r_j t): the singular values without renormalization.

    Exact for all times where each direction is one of Σ_T's, and to first order in t otherwise.

    Args:
        omega0: ω_j at time 0, positive, (J,).
        rates: r_j > 0, (J,) as `growth_rates` gives them, or one number for all: features of equal variance.

    Raises:
        InputError: values that are not positive and finite, or rates that are neither one nor as many.

    Example:
        >>> UnrenormalizedPath([2.0, 1.0], rates=1.0).singular_values(np.log(3.0)).round(6).tolist()
        [6.0, 3.0]

    Source: ours; docs/central-path.md, Without renormalization.
    """

    def __init__(self, omega0: Any, rates: Any) -> None:
        self.omega0, self.rates = _row(omega0, "singular values"), _row(rates, "rates")
        if self.rates.shape not in ((1,), self.omega0.shape):
            raise InputError(f"expected one rate or {len(self.omega0)} of them, got {len(self.rates)}")

    def singular_values(self, t: Any) -> Array:
        """ω_j(t): (…, J) for times of shape (…).

        Raises:
            InputError: a time at which a singular value is beyond float64.
        """
        times = as_tensor(t, "times").cpu().double().resolve_neg().numpy()
        with np.errstate(over="ignore"):
            values: Array = self.omega0 * np.exp(times[..., None] * self.rates)
        if not np.isfinite(values).all():
            raise InputError(f"expected times at which all singular values are below 1e308, got {np.max(times):g}")
        return values

    def time(self, omega: Any) -> Array:
        """The time at which each ω_j is reached: log(ω_j/ω_j(0))/r_j, negative before the start.

        Raises:
            InputError: values that are not positive and finite, or neither one nor as many as there are.
        """
        reached = _row(omega, "singular values")
        if reached.shape not in ((1,), self.omega0.shape):
            raise InputError(f"expected one singular value or {len(self.omega0)} of them, got {len(reached)}")
        values: Array = np.log(reached / self.omega0) / self.rates
        return values


def _row(values: Any, name: str) -> Array:
    row: Array = np.atleast_1d(as_tensor(values, name).cpu().double().resolve_neg().numpy().copy())
    wrong = row[~(np.isfinite(row) & (row > 0))]
    if row.ndim != 1 or not row.size or wrong.size:
        found = f"got {wrong.flat[0]}" if wrong.size else f"got shape {row.shape}"
        raise InputError(f"expected a row of positive, finite {name}, {found}")
    return row
