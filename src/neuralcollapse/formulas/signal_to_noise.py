"""The signal-to-noise matrix SNR = Σ_W^{-1/2} M̄ and its singular values (Theorem 3, Definition 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .._linalg import definite_factor, rounding_bound, row_factor
from ..moments import ClassMoments


@dataclass(frozen=True)
class SNRSpectrum:
    """The (classes present) − 1 singular values, descending, and the space Σ_W was whitened in.

    ``space`` is ``"full"`` where Σ_W is nonsingular, and ``"span"`` where it is singular and the noise was first
    projected on the span of the centred class means. Values are infinite where there is no noise even there.
    """

    singular_values: Float[Tensor, " k"]
    space: Literal["full", "span"]


def snr_singular_values(moments: ClassMoments) -> SNRSpectrum:
    """Singular values of Σ_W^{-1/2} M̄, M̄ = [μ_c − μ_G] over the classes present.

    With Σ_W = LLᵀ they are those of L⁻¹M̄. When Σ_W is singular (dead units, p > n) it is projected on span(M̄)
    and whitened there, and the result says so.

    Source: Han, Papyan & Donoho (2022), Definition 2.
    """
    present = moments.present
    means = row_factor(rows[present[block]] for block, rows in moments.centred_blocks())
    rank = min(int(present.sum()) - 1, means.shape[1])
    within = moments.within_covariance
    factor = definite_factor(within, rounding_bound(within, moments.eps))
    space: Literal["full", "span"] = "full"
    if factor is None:
        space = "span"
        _, _, directions = torch.linalg.svd(means, full_matrices=False)
        basis = directions[:rank]
        means = means @ basis.T
        within = basis @ within @ basis.T
        factor = definite_factor(within, rounding_bound(within, moments.eps))
    if factor is None:
        # what the rounding of features, at the size of the means, leaves where the means do not differ
        floor = moments.eps * float(torch.linalg.vector_norm(moments.means))
        return SNRSpectrum(_partly_infinite(means, within, rounding_bound(within, moments.eps), floor).cpu(), space)
    whitened = torch.linalg.solve_triangular(factor, means.T, upper=False)
    return SNRSpectrum(torch.linalg.svdvals(whitened)[:rank].cpu(), space)


def _partly_infinite(means: Tensor, within: Tensor, bound: float, floor: float) -> Tensor:
    """The limit as noise ε → 0 along the directions N without noise: infinite once for each, and else finite.

    M̄ᵀΣ⁻¹M̄ = ε⁻² AᵀA + BᵀΛ⁻¹B with A = NᵀM̄; what stays finite is BᵀΛ⁻¹B on the kernel of A. Directions along which
    the means do not differ either, up to ``floor``, hold no signal, and count for nothing.
    """
    values, vectors = torch.linalg.eigh(within)
    noisy = values > bound
    left, sizes, _ = torch.linalg.svd(means @ vectors[:, ~noisy], full_matrices=False)
    basis = left[:, sizes > floor]
    whitened = (means @ vectors[:, noisy]) / values[noisy].sqrt()
    finite = torch.linalg.svdvals(whitened - basis @ (basis.T @ whitened))[: int(noisy.sum())]
    return torch.cat([finite.new_full((basis.shape[1],), float("inf")), finite])
