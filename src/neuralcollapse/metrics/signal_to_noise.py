"""The signal-to-noise matrix SNR = Σ_W^{-1/2} M̄ and its singular values (Theorem 3, Definition 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._linalg import (
    definite_factor,
    norm,
    part_within,
    resolved_directions,
    rounding_bound,
    row_factor,
    scaled_symmetric,
    unit_scale,
)
from neuralcollapse.metrics.arguments import takes_features
from neuralcollapse.metrics.rank import directions, feature_sizes, rounding_variances, varies
from neuralcollapse.moments.class_moments import ClassMoments

# A matrix above so many times the bound of its rounding in every direction is inverted as it is.
_CERTAIN = 1e6
# Variances of features at unit scale are far below the square of this.
_LARGEST_ROOT = 2.0**100


@dataclass(frozen=True)
class SNRSpectrum:
    """The singular values, descending, and whether Σ_W is singular where class means differ.

    Attributes:
        singular_values: as many as (classes present) − 1, or as the directions in which features vary where these are
            fewer. Infinite in a direction in which class means differ and nothing varies within classes.
        space: ``"full"``, or ``"limit"`` where some are infinite: the spectrum is then the limit of
            (Σ_W + εI)^{-1/2} M̄ for ε → 0.

    Example:
        >>> features, labels = torch.tensor([[2.0], [0.0], [-2.0], [0.0]]), torch.tensor([0, 0, 1, 1])
        >>> snr_singular_values(features, labels).space
        'full'
    """

    singular_values: Float[Tensor, " k"]
    space: Literal["full", "limit"]


@takes_features
def snr_singular_values(moments: ClassMoments) -> SNRSpectrum:
    """Singular values of Σ_W^{-1/2} M̄, M̄ = [μ_c − μ_G] over the classes present.

    They are invariant under every nonsingular linear map of the features. Where Σ_W is singular they are the limit of
    those of (Σ_W + εI)^{-1/2} M̄ for ε → 0: with N the null space of Σ_W, one is infinite for each of the rank(NᵀM̄)
    directions, and the finite ones are those of Σ_W^{+/2} M̄ on the null space of NᵀM̄. Units that are constant, or
    copies of others, change nothing.

    Args:
        moments: of the features, with the full scatter; or the features (n, p), then the labels (n,).

    Returns:
        The spectrum, on the CPU, in the precision of the moments.

    Raises:
        InputError: what is no `ClassMoments` and no features with labels, or moments of scatter="trace".

    Source: Han, Papyan & Donoho (2022), Definition 2.

    Example:
        >>> features, labels = torch.tensor([[2.0], [0.0], [-2.0], [0.0]]), torch.tensor([0, 0, 1, 1])
        >>> spectrum = snr_singular_values(features, labels)  # means ±1, variance 1
        >>> round(float(spectrum.singular_values[0]), 4)
        1.4142
    """
    values = whitened_singular_values(moments, torch.ones_like(moments.weights)).cpu()
    return SNRSpectrum(values, "limit" if bool(values.isinf().any()) else "full")


def whitened_singular_values(moments: ClassMoments, class_scales: Float[Tensor, " c"]) -> Float[Tensor, " k"]:
    """Singular values of Σ_W^{-1/2} M̄ diag(class_scales), descending, in the limit where Σ_W is singular.

    Rank is decided with each feature scaled to unit variance within classes, because rounding is relative to each
    feature's own size. So the answer is the same in whatever units single features come.
    """
    moments = moments.at_unit_scale()
    present, within = moments.present, moments.within_covariance
    noisy = varies(moments, within.diagonal())
    signal = row_factor((rows * class_scales[block, None])[present[block]] for block, rows in moments.centred_blocks())
    most = min(int(present.sum()) - 1, signal.shape[1])

    _, infinite = _noiseless(moments, signal, noisy)
    scale = unit_scale(within.diagonal()[noisy])
    signal = _without(signal[:, noisy] * scale, infinite)
    correlation = scaled_symmetric(within, noisy, scale)
    bound = rounding_bound(correlation, moments.product_eps)
    rounding = rounding_variances(moments)[noisy] * scale.square()
    whitened, more, _ = _over_noise(moments, signal, infinite, correlation, bound, rounding)
    infinite = torch.cat([infinite, more], dim=1)
    whitened = _without(whitened, infinite)
    finite = torch.linalg.svdvals(whitened)[: max(0, min(most - infinite.shape[1], whitened.shape[1]))]
    return torch.cat([finite.new_full((min(most, infinite.shape[1]),), float("inf")), finite])


def penalised_norm(moments: ClassMoments, weight_decay: float) -> float:
    """‖(Σ_W + λI)^{-1/2} M̄‖_F, M̄ over the classes present; for λ = 0 of the singular values of Definition 2.

    Noise that may be rounding counts as none, as it does there: in such a direction there is λ alone, and signal only
    where it is certain.
    """
    root = _root(weight_decay, moments.exponent)  # of λ for features at unit scale
    if root == 0.0:  # or beneath every variance that a number holds
        return norm(whitened_singular_values(moments, torch.ones_like(moments.weights)))
    moments = moments.at_unit_scale()
    within, present = moments.within_covariance, moments.present
    noisy = varies(moments, within.diagonal())
    within, signal = within.double(), row_factor(rows[present[block]] for block, rows in moments.centred_blocks())
    signal = signal.double()
    pure, infinite = _noiseless(moments, signal, noisy)
    parts = [norm(signal[:, pure] / root)]
    signal = signal[:, noisy]
    if root > _LARGEST_ROOT:  # what varies is of no account beside λ
        return norm(torch.tensor([*parts, norm(signal / root)], dtype=torch.float64))
    scale = unit_scale(within.diagonal()[noisy] + root * root)
    penalised = scaled_symmetric(within, noisy, scale)
    bounds = rounding_bound(penalised, moments.product_eps) + rounding_variances(moments)[noisy] * scale.square()
    penalised.diagonal().add_((root * scale).square())
    factor = definite_factor(penalised, _CERTAIN * bounds)
    if factor is not None:
        parts.append(norm(torch.linalg.solve_triangular(factor, (signal * scale).T, upper=False)))
        return norm(torch.tensor(parts, dtype=torch.float64))
    # In the features' own units the null space of Σ_W, where there is λ alone, and its range are orthogonal.
    own = unit_scale(within.diagonal()[noisy])
    correlation = scaled_symmetric(within, noisy, own)
    bound = rounding_bound(correlation, moments.product_eps)
    rounding = rounding_variances(moments)[noisy] * own.square()
    _, certain, null = _over_noise(moments, signal * own, infinite, correlation, bound, rounding)
    along = part_within(certain.T @ signal, null * own[:, None])
    values, vectors, bounds = resolved_directions(penalised, bounds)
    keep = values > bounds
    rest = ((signal - certain @ along) * scale) @ vectors[:, keep] / values[keep].sqrt()
    return norm(torch.tensor([*parts, norm(along / root), norm(rest)], dtype=torch.float64))


def _root(weight_decay: float, exponent: int) -> float:
    """√λ 2^-exponent, infinite where no number holds it."""
    try:
        return math.ldexp(math.sqrt(weight_decay), -exponent)
    except OverflowError:
        return math.inf


def _noiseless(moments: ClassMoments, signal: Tensor, noisy: Tensor) -> tuple[Tensor, Tensor]:
    """Which features differ between classes and are constant within each, and a basis of their signal's directions.

    Where means of such features differ at all, signal is infinitely above noise.
    """
    sizes = feature_sizes(moments)
    reach = torch.zeros_like(sizes)
    for _, rows in moments.centred_blocks():
        reach = torch.maximum(reach, rows.abs().amax(dim=0))
    rounding = max(64.0 * torch.finfo(sizes.dtype).eps, 4.0 * moments.eps) * sizes
    pure = ~noisy & (reach > rounding)
    relative = (rounding[pure] / reach[pure]).sum()
    return pure, _left_basis(signal[:, pure] / reach[pure], 8.0 * float(relative))


def _over_noise(
    moments: ClassMoments, signal: Tensor, infinite: Tensor, correlation: Tensor, bound: float, rounding: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Signal over noise of about unit variance, and where there is signal and no noise.

    Args:
        signal: (k, q); infinite: (k, m) basis of its directions that are without noise in other features.
        correlation: (q, q) of the noise; bound: how far products' rounding moves its eigenvalues; rounding: (q,) how
            much of each variance may be that of the features.

    Returns:
        Whitened signal, (k, r); basis of directions with signal and without noise; (q, q − r) basis of the null space.
    """
    bounds = bound + rounding
    factor = definite_factor(correlation, bounds)
    if factor is not None:
        whitened = torch.linalg.solve_triangular(factor, signal.T, upper=False).T
        return whitened, signal.new_zeros(len(signal), 0), signal.new_zeros(signal.shape[1], 0)
    values, vectors, bounds = resolved_directions(correlation, bounds)
    keep = values > bounds
    values, null = values[keep], vectors[:, ~keep]
    kept = signal @ vectors[:, keep]
    # Rounding may leave a standard deviation of √bound in a direction without noise. It turns such a direction
    # towards the others, whose signal then shows in it: that of products by bound/λ, that of the features by what
    # their covariance with the others shows by chance. Signal is there for certain where it is above all three.
    leak = float(torch.linalg.matrix_norm(kept / values)) * bound
    loudest = torch.linalg.matrix_norm(kept / values.sqrt())
    chance = float(((rounding @ null.square()).sum() / moments.num_examples).sqrt() * loudest)
    floor = 4.0 * float(bounds[~keep].sum()) ** 0.5 + 2.0 * chance + leak
    # However rounding turns them, n examples of k classes have noise in n − k directions at most: where features
    # vary in more, the rest is signal without noise.
    free = moments.num_examples - int(moments.present.sum())
    certain = directions(moments, roundings=1.0) - free - infinite.shape[1] if free < len(correlation) else 0
    return kept / values.sqrt(), _left_basis(signal @ null, floor, certain), null


def _left_basis(matrix: Tensor, floor: float, least: int = 0) -> Tensor:
    """An orthonormal basis, as columns, of the left singular vectors whose singular values are above ``floor``.

    The first ``least`` need only be above the rounding of the largest.
    """
    if not matrix.shape[1]:
        return matrix.new_zeros(len(matrix), 0)
    left, values, _ = torch.linalg.svd(matrix, full_matrices=False)
    smallest = len(matrix) * torch.finfo(matrix.dtype).eps * float(values[0])
    first = torch.arange(len(values), device=values.device) < least
    basis: Tensor = left[:, (values > smallest) & (first | (values > floor))]
    return basis


def _without(matrix: Tensor, basis: Tensor) -> Tensor:
    """The matrix with its part in the span of orthonormal columns taken off."""
    return matrix - basis @ (basis.T @ matrix)
