"""The geometry behind the renormalized flow: features of one Σ_W, and the singular values of a moving matrix.

The features X (n, p) of given labels with Σ_W(X) = Σ form a manifold. Moving X by Z changes Σ_W by (ZᵀE + EᵀZ)/n, E
the deviations from the class means, so that the tangent space is {Z: EᵀZ antisymmetric}, and the normal space, its
complement, is {E S: S symmetric}, of dimension p(p+1)/2 where Σ_W is nonsingular.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from neuralcollapse._checks import InputError, as_tensor, check_features, check_labels

_MOST_CLASSES = 1 << 20
_SINGULAR = 1e-10


def project_on_tangent(
    direction: Float[Tensor, "n p"], features: Float[Tensor, "n p"], labels: Integer[Tensor, " n"]
) -> Float[Tensor, "n p"]:
    """Π Z = Z − E S with Σ_W S + S Σ_W = (EᵀZ + ZᵀE)/n: the part of Z along which Σ_W stands still.

    Π is linear, symmetric and idempotent; where Σ_W = I, S = (EᵀZ + ZᵀE)/(2n).

    Args:
        direction: Z (n, p).
        features: X (n, p), with a nonsingular Σ_W.
        labels: (n,), of any counts.

    Raises:
        InputError: shapes that do not fit, numbers that are not finite, or a singular Σ_W.

    Source: Han, Papyan & Donoho (2022), Equation of continually renormalized gradient flow.
    """
    x, z, of_class = as_tensor(features, "features"), as_tensor(direction, "direction"), as_tensor(labels, "labels")
    check_features(x)
    check_labels(of_class, len(x), _MOST_CLASSES)
    if z.shape != x.shape:
        raise InputError(f"expected a direction of the features' shape {tuple(x.shape)}, got {tuple(z.shape)}")
    _require_numbers(x, "features")
    _require_numbers(z, "a direction")
    deviations = class_deviations(x.double(), of_class.long())
    return z.double() - deviations @ normal_matrix(z.double(), deviations)


def _require_numbers(values: Tensor, what: str) -> None:
    """Raise unless there are entries, and all are finite."""
    if not values.numel() or not bool(torch.isfinite(values).all()):
        found = "NaN or infinity" if values.numel() else f"shape {tuple(values.shape)}"
        raise InputError(f"expected {what} of finite numbers, got {found}")


def class_deviations(features: Float[Tensor, "n p"], labels: Integer[Tensor, " n"]) -> Float[Tensor, "n p"]:
    """E: each example less its class mean."""
    counts = torch.bincount(labels).clamp(min=1).to(features.dtype)
    sums = features.new_zeros(len(counts), features.shape[1]).index_add_(0, labels, features)
    return features - (sums / counts[:, None])[labels]


def normal_matrix(direction: Float[Tensor, "n p"], deviations: Float[Tensor, "n p"]) -> Float[Tensor, "p p"]:
    """The symmetric S with Σ_W S + S Σ_W = (EᵀZ + ZᵀE)/n, for which E S is the normal part of Z.

    Σ_W need not be the identity: assumed to be, though rounding has moved it, that deviation would grow exponentially
    along an integrated flow.

    Raises:
        InputError: a singular Σ_W, of which no direction is normal to all features.
    """
    values, vectors = torch.linalg.eigh(deviations.T @ deviations / len(deviations))
    if not float(values[0]) > _SINGULAR * float(values[-1]):
        raise InputError(
            f"expected a nonsingular within-class covariance, got eigenvalues from {max(0.0, float(values[0])):.3g} to "
            f"{float(values[-1]):.3g}: give more examples than features, or leave dead features out"
        )
    product = vectors.T @ (direction.T @ deviations) @ vectors / len(deviations)
    solution: Tensor = vectors @ ((product + product.T) / (values[:, None] + values)) @ vectors.T
    return solution


def singular_value_rates(matrix: Float[Tensor, "p c"], velocity: Float[Tensor, "p c"]) -> Float[Tensor, " k"]:
    """dω_j/dt = u_jᵀ Ṁ v_j for a matrix M = Σ_j ω_j u_j v_jᵀ that moves with velocity Ṁ; ω descending, k = min(p, c).

    Along the renormalized flow Ṁ = U diag(…) Vᵀ, so that the singular vectors stand still and each rate depends on its
    own ω alone: Proposition 2.

    Args:
        matrix: M (p, c), with distinct, positive singular values, for which alone each is differentiable by itself.
        velocity: Ṁ (p, c).

    Raises:
        InputError: shapes that differ, numbers that are not finite, or singular values that coincide or vanish.

    Source: Han, Papyan & Donoho (2022), Proposition 2, of a general M(t).
    """
    m, rate = as_tensor(matrix, "matrix"), as_tensor(velocity, "velocity")
    if m.ndim != 2 or m.shape != rate.shape:
        raise InputError(f"expected two matrices of one shape, got {tuple(m.shape)} and {tuple(rate.shape)}")
    _require_numbers(m, "a matrix")
    _require_numbers(rate, "a velocity")
    u, omega, vt = torch.linalg.svd(m.double(), full_matrices=False)
    gaps = torch.cat([omega[:-1] - omega[1:], omega[-1:]])
    if not bool((gaps > 1e-12 * omega[0]).all()):
        listed = ", ".join(f"{value:.6g}" for value in omega.tolist())
        raise InputError(
            f"expected distinct, positive singular values, got {listed}: "
            "where two coincide or one vanishes it has no derivative of its own"
        )
    rates: Tensor = ((u.T @ rate.double()) * vt).sum(dim=1)
    return rates
