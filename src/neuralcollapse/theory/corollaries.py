"""What the measured quantities are on the central path, as functions of the singular values ω_j alone.

Balanced classes, zero global mean, Σ_W = I: with M̄ = U diag(ω) Vᵀ the classifier is W = V diag(a) Uᵀ and b = 1/C, with
a_j = ω_j/(Cκ + ω_j²) and κ = 1 + λ. V (C, C−1) has orthonormal columns that sum to zero. As all ω_j grow and their
ratios tend to 1 (Corollary 1), each of NC1–NC4 follows (Corollary 2). Singular values are on the last axis.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from neuralcollapse._checks import InputError, as_count, as_number, as_tensor
from neuralcollapse.metrics.arguments import takes_features
from neuralcollapse.metrics.present_classes import distinct_means
from neuralcollapse.metrics.signal_to_noise import penalised_norm
from neuralcollapse.moments.class_moments import ClassMoments

Array = np.ndarray[Any, np.dtype[np.float64]]

_LARGEST = 1e100


class LossParts(NamedTuple):
    """L_NC1 and L_NC2/3 on the central path; their sum is the loss."""

    nc1: Array
    nc23: Array


def loss_parts(omega: Any, num_classes: int, weight_decay: float = 0.0) -> LossParts:
    """L_NC1 = ½ Σ_j κ ω_j²/(Cκ + ω_j²)² and L_NC2/3 = ½ Σ_j C κ²/(Cκ + ω_j²)².

    L_NC2/3 / L_NC1 is Cκ/ω² where all ω_j are equal, so that L_NC2/3 falls fastest.

    Args:
        omega: (…, C−1) singular values; num_classes: C; weight_decay: λ of the paper's loss.

    Raises:
        InputError: a singular value that is negative or not finite, C < 2, or more than C − 1 singular values.

    Source: Han, Papyan & Donoho (2022), Theorem 2 on the central path.
    """
    values, classes, kappa = on_path(omega, num_classes, weight_decay)
    amplitude, rest = _shares(values, classes, kappa)
    return LossParts(0.5 * kappa * (amplitude**2).sum(axis=-1), 0.5 / classes * (rest**2).sum(axis=-1))


@takes_features
def path_ratio(moments: ClassMoments, weight_decay: float = 0.0) -> float:
    """C/ω², ω² the mean square of the C − 1 singular values of (Σ_W + λI)^{-1/2} M̄, for C classes present.

    This is L_NC2/3 / L_NC1 of the least-squares classifier where classes are balanced, μ_G = 0 and all ω_j are equal,
    but for the bias, which adds λ/(2C(1 + λ)²) to L_NC1 and λ times that to L_NC2/3. It sees Σ_W + λI wherever the
    paper's theory, of λ = 0, has Σ_W: where λ is the larger of the two, the ω_j of Definition 2 say nothing of it.

    M̄ has one column μ_c − μ_G a class, whatever its number of examples; Σ_W and μ_G are those of the weighting. By a
    mixed one Σ_W is over examples, and μ_G the mean of the class means (``"mixed"``) or of the examples
    (``"mixed-example-mean"``). Where classes are balanced all weightings give the same number.

    Args:
        moments: of the features, with the full scatter; or the features (n, p), then the labels (n,).
        weight_decay: λ of the paper's loss; 0 gives the ω_j of Definition 2.

    Returns:
        C/ω²; infinite where all class means are equal, 0 where λ = 0 and an ω_j is infinite. A direction whose noise
        may be rounding has λ alone, and counts where its signal is certain, as in
        :func:`~neuralcollapse.snr_singular_values`.

    Raises:
        InputError: moments of scatter="trace", fewer than two classes present, or a negative λ.

    Source: ours; results/README.md, The study in the paper's regime.

    Example:
        >>> import torch
        >>> features, labels = torch.tensor([[2.0], [0.0], [-2.0], [0.0]]), torch.tensor([0, 0, 1, 1])
        >>> round(path_ratio(features, labels), 6), round(path_ratio(features, labels, 1.0), 6)  # ω² = 2 and 1
        (1.0, 2.0)
    """
    weight_decay, classes = as_number(weight_decay, "weight decay"), int(moments.present.sum())
    if classes < 2:
        raise InputError(f"expected two or more classes with examples, got {classes}")
    size = penalised_norm(moments, weight_decay) if bool(distinct_means(moments).any()) else 0.0
    ratio = math.sqrt(classes * (classes - 1)) / size if size else float("inf")
    return ratio * ratio


def self_duality(omega: Any, num_classes: int, weight_decay: float = 0.0) -> Array:
    """NC3 = 2 − 2 Σ_j a_j ω_j / (‖a‖ ‖ω‖), the same for every U and V.

    Computed as Σ_{i<j} (a_i ω_j − a_j ω_i)² / (‖a‖² ‖ω‖²) · 2/(1 + cos), by Lagrange's identity, so that nothing
    cancels near collapse, where the ω_j are nearly equal. NaN where all ω_j are zero.

    Args:
        omega, num_classes, weight_decay: see :func:`loss_parts`; singular values of at most 1e100, whose squares are
            numbers.

    Raises:
        InputError: as :func:`loss_parts`, or a larger singular value.

    Source: Han, Papyan & Donoho (2022), Corollary 2, NC3.
    """
    values, classes, kappa = on_path(omega, num_classes, weight_decay)
    if values.size and float(values.max()) > _LARGEST:
        raise InputError(f"expected singular values of at most {_LARGEST:g} for NC3, got {values.max():g}")
    largest = values.max(axis=-1, keepdims=True)
    growth = largest**2 / (classes * kappa)
    with np.errstate(invalid="ignore"):
        means = values / largest
        # (ω_j − ω_i)/max ω: the difference is exact where the two are nearly equal
        apart = (values[..., None, :] - values[..., :, None]) / largest[..., None]
    weights = means / (1.0 + growth * means**2)  # proportional to a
    # a_i ω_j − a_j ω_i is proportional to ω_i ω_j (ω_j² − ω_i²) / ((Cκ + ω_i²)(Cκ + ω_j²))
    products = weights[..., :, None] * weights[..., None, :] * (means[..., :, None] + means[..., None, :])
    difference = growth[..., None] * products * apart
    sine2 = 0.5 * (difference**2).sum(axis=(-2, -1)) / ((weights**2).sum(axis=-1) * (means**2).sum(axis=-1))
    result: Array = 2.0 * sine2 / (1.0 + np.sqrt(np.clip(1.0 - sine2, 0.0, 1.0)))
    return result


def agreement_radius(omega: Any, num_classes: int, weight_decay: float = 0.0) -> Array:
    """A length r: an example whose deviation from its class mean is shorter decides alike by network and nearest mean.

    r = min(min_j ω_j/√2, (1 − √(2 − 2/C) max_j ρ_j)/(√2 max_j a_j)), ρ_j = Cκ/(Cκ + ω_j²): class means are at least
    √2 min_j ω_j apart, and the network's score of an example's class leads by at least 1 − √(2 − 2/C) max_j ρ_j at its
    mean, and changes by at most √2 max_j a_j for each unit of deviation. Both then decide for the example's own class,
    so that NC4 and the training error vanish together once r exceeds the longest deviation. r grows like ω/√2 along
    the flow, while deviations stand still. Zero or negative where nothing is promised.

    Args:
        omega, num_classes, weight_decay: see :func:`loss_parts`; all C − 1 singular values.

    Raises:
        InputError: other than C − 1 singular values.

    Source: Han, Papyan & Donoho (2022), Corollary 2, NC4; the length is ours.
    """
    values, classes, kappa = on_path(omega, num_classes, weight_decay)
    if values.shape[-1] != classes - 1:
        raise InputError(f"expected C − 1 = {classes - 1} singular values for NC4, got {values.shape[-1]}")
    amplitude, rest = _shares(values, classes, kappa)
    apart = values.min(axis=-1) / np.sqrt(2.0)
    lead = 1.0 - np.sqrt(2.0 - 2.0 / classes) * rest.max(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scored = lead / (np.sqrt(2.0) * amplitude.max(axis=-1))
    result: Array = np.where(amplitude.max(axis=-1) > 0, np.minimum(apart, scored), 0.0)
    return result


def on_path(omega: Any, num_classes: int, weight_decay: float) -> tuple[Array, int, float]:
    """(singular values, C, κ), checked.

    Raises:
        InputError: a singular value that is negative or not finite, C < 2, more than C − 1 singular values, λ < 0.
    """
    classes = as_count(num_classes, "num_classes", least=2)
    decay = as_number(weight_decay, "weight decay")
    values: Array = np.atleast_1d(as_tensor(omega, "singular values").cpu().double().resolve_neg().numpy())
    wrong = values[~(np.isfinite(values) & (values >= 0))]
    if wrong.size:
        raise InputError(f"expected singular values that are finite and at least 0, got {wrong.flat[0]}")
    if not 1 <= values.shape[-1] <= classes - 1:
        raise InputError(f"expected 1 to C − 1 = {classes - 1} singular values, got {values.shape[-1]}")
    return values, classes, 1.0 + decay


def _shares(omega: Array, classes: int, kappa: float) -> tuple[Array, Array]:
    """(a_j = ω_j/(Cκ + ω_j²), ρ_j = Cκ/(Cκ + ω_j²)), without the square of a large ω."""
    root = np.sqrt(classes * kappa)
    size = np.hypot(root, omega)
    return omega / size / size, (root / size) ** 2
