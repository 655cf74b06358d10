"""Later measures of classifier against class means, and of class means against out-of-distribution data."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from .._checks import InputError, check_classifier
from ..moments import ClassMoments
from .collapse import at_least_two
from .frames import gram_error, gram_trace_error
from .geometry import unit_rows


def duality_error(moments: ClassMoments, weight: Float[Tensor, "c p"]) -> float:
    """‖A/‖A‖_F − (I − 11ᵀ/C)/√(C−1)‖_F with A = W M̄ᵀ: self-duality and the simplex in one number, zero at both.

    Args:
        moments: of the features; weight: (C, p).

    Source: Zhou et al. (2022), On the optimization landscape of neural collapse under MSE loss, Section 5;
    Zhu et al. (2021), Section 4.
    """
    return gram_error(*_pair(moments, weight))


def nc3_trace(moments: ClassMoments, weight: Float[Tensor, "c p"]) -> float:
    """‖A/tr A − (I − 11ᵀ/C)/(C−1)‖_F with A = W M̄ᵀ: the same, scaled by the trace instead of the norm.

    Args:
        moments: of the features; weight: (C, p).

    Source: Zhou et al. (2022), Section 5, with both sides of trace 1.
    """
    return gram_trace_error(*_pair(moments, weight))


def uniform_duality(moments: ClassMoments, weight: Float[Tensor, "c p"]) -> float:
    """UNC3: Std_c ⟨ŵ_c, û_c⟩ / |Avg_c ⟨ŵ_c, û_c⟩|, unit classifier rows and unit centred class means; unbiased Std.

    Zero where every class is aligned as well as every other, which needs no C ≤ p + 1.

    Args:
        moments: of the features; weight: (C, p).

    Source: Wu & Papyan (2024), Linguistic collapse: neural collapse in (large) language models, Section 3.
    """
    rows, means = _pair(moments, weight)
    cosines = torch.cat([(unit_rows(rows[b]) * unit_rows(means[b])).sum(dim=1) for b in _blocks(len(rows))])
    return float(cosines.std() / cosines.mean().abs())


def alignment_distance(moments: ClassMoments, weight: Float[Tensor, "c p"]) -> float:
    """GNC3: Avg_c ‖ŵ_c − û_c‖, unit classifier rows and unit centred class means.

    Args:
        moments: of the features; weight: (C, p).

    Source: Jiang et al. (2024), Generalized neural collapse for a large number of classes.
    """
    rows, means = _pair(moments, weight)
    distances = [torch.linalg.vector_norm(unit_rows(rows[b]) - unit_rows(means[b]), dim=1) for b in _blocks(len(rows))]
    return float(torch.cat(distances).mean())


def nc0(weight: Float[Tensor, "c p"]) -> float:
    """‖Wᵀ1‖₂, the norm of the sum of the classifier's rows; zero at a simplex.

    Gradient descent with weight decay on a loss whose gradients over the classes sum to zero brings it to zero.

    At the minimum the rows of W form a simplex ETF, whose sum is zero.

    Source: Zhu et al. (2021), A geometric analysis of neural collapse with unconstrained features, Theorem 3.1.
    """
    if weight.ndim != 2 or not bool(torch.isfinite(weight).all()):
        raise InputError(f"expected a finite classifier weight (C, p), got shape {tuple(weight.shape)}")
    return float(torch.linalg.vector_norm(weight.detach().sum(dim=0, dtype=torch.float64)))


def nc5(moments: ClassMoments, ood_mean: Float[Tensor, " p"], *, centred: bool = False) -> float:
    """Avg_c |cos(μ_c, μ_OOD)|: out-of-distribution data become orthogonal to the classes.

    Args:
        moments: of in-distribution features.
        ood_mean: (p,) mean of out-of-distribution features.
        centred: False as in the source, where both are measured from the origin; True subtracts μ_G from both.

    Source: Ammar et al. (2024), NECO: neural collapse based out-of-distribution detection, Section 4.
    """
    present = moments.present
    ood = ood_mean.detach().to(moments.means).double()
    if ood.shape != moments.means.shape[1:] or not bool(torch.isfinite(ood).all()):
        raise InputError(f"expected a finite out-of-distribution mean of {moments.dim} entries, got {tuple(ood.shape)}")
    origin = moments.global_mean if centred else torch.zeros_like(moments.global_mean)
    ood = ood - origin
    total = sum(
        float((unit_rows(moments.means[b][present[b]] - origin) @ ood).abs().sum()) for b in moments.class_blocks()
    )
    size = float(torch.linalg.vector_norm(ood))
    if size == 0.0:
        warnings.warn(
            "NC5 is undefined: the mean of the out-of-distribution features is zero", UserWarning, stacklevel=2
        )
        return float("nan")
    return total / (size * int(present.sum()))


def _pair(moments: ClassMoments, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Classifier rows, as they come, and centred means of the classes present."""
    present = at_least_two(moments)
    check_classifier(weight, None, moments.num_classes, moments.means.shape[1])
    rows, means = weight.detach().to(moments.means.device), moments.centred_means
    return (rows, means) if bool(present.all()) else (rows[present], means[present])


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + 8192) for start in range(0, count, 8192)]
