"""Later measures of classifier against class means, and of class means against out-of-distribution data."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import Array, InputError, as_classifier, as_tensor
from neuralcollapse._linalg import norm, of_moderate_size, scaled
from neuralcollapse.metrics.arguments import takes_features
from neuralcollapse.metrics.frames import gram_error, gram_trace_error
from neuralcollapse.metrics.geometry import have_directions, unit_rows
from neuralcollapse.metrics.nc1_to_nc4 import distinct_means, has_two_classes, rows_of_present
from neuralcollapse.metrics.undefined import warn_undefined
from neuralcollapse.moments.class_moments import ClassMoments, require_moments


@takes_features
def duality_error(moments: ClassMoments, weight: Float[Tensor, "c p"] | Array) -> float:
    """‖A/‖A‖_F − (I − 11ᵀ/C)/√(C−1)‖_F with A = W M̄ᵀ: self-duality and the simplex in one number, zero at both.

    Args:
        moments: of the features; weight: (C, p).

    Source: Zhou et al. (2022), On the optimization landscape of neural collapse under MSE loss, Section 5;
    Zhu et al. (2021), Section 4.
    """
    pair = _pair(moments, weight, "the duality error")
    return float("nan") if pair is None else gram_error(*pair)


@takes_features
def nc3_trace(moments: ClassMoments, weight: Float[Tensor, "c p"] | Array) -> float:
    """‖A/tr A − (I − 11ᵀ/C)/(C−1)‖_F with A = W M̄ᵀ: the same, scaled by the trace instead of the norm.

    Args:
        moments: of the features; weight: (C, p).

    Source: Zhou et al. (2022), Section 5, with both sides of trace 1.
    """
    pair = _pair(moments, weight, "the trace-normalised NC3")
    return float("nan") if pair is None else gram_trace_error(*pair)


@takes_features
def uniform_duality(moments: ClassMoments, weight: Float[Tensor, "c p"] | Array) -> float:
    """UNC3: Std_c ⟨ŵ_c, û_c⟩ / |Avg_c ⟨ŵ_c, û_c⟩|, unit classifier rows and unit centred class means; unbiased Std.

    Zero where all classes are aligned equally well, which is possible for C > p + 1 too.

    Args:
        moments: of the features; weight: (C, p).

    Source: Wu & Papyan (2024), Linguistic collapse: neural collapse in (large) language models, Section 3.
    """
    pair = _pair(moments, weight, "UNC3", directions=True)
    if pair is None:
        return float("nan")
    rows, means = pair
    cosines = torch.cat([(unit_rows(rows[b]) * unit_rows(means[b])).sum(dim=1) for b in _blocks(len(rows))])
    mean = float(cosines.mean().abs())
    if mean == 0.0:
        warn_undefined("UNC3", "the cosines have a mean of zero")
        return float("nan")
    return float(cosines.std()) / mean


@takes_features
def alignment_distance(moments: ClassMoments, weight: Float[Tensor, "c p"] | Array) -> float:
    """GNC3: Avg_c ‖ŵ_c − û_c‖, unit classifier rows and unit centred class means.

    Args:
        moments: of the features; weight: (C, p).

    Source: Jiang et al. (2024), Generalized neural collapse for a large number of classes.
    """
    pair = _pair(moments, weight, "GNC3", directions=True)
    if pair is None:
        return float("nan")
    rows, means = pair
    distances = [torch.linalg.vector_norm(unit_rows(rows[b]) - unit_rows(means[b]), dim=1) for b in _blocks(len(rows))]
    return float(torch.cat(distances).mean())


def nc0(weight: Float[Tensor, "c p"] | Array) -> float:
    """‖Wᵀ1‖₂, the norm of the sum of the classifier's rows; zero at a simplex.

    Gradient descent with weight decay on a loss whose gradients over the classes sum to zero brings it to zero.

    At the minimum the rows of W form a simplex ETF, whose sum is zero.

    Source: Zhu et al. (2021), A geometric analysis of neural collapse with unconstrained features, Theorem 3.1.
    """
    rows = as_tensor(weight, "weight")
    if rows.ndim != 2:
        raise InputError(f"expected a classifier weight of shape (C, p), got {tuple(rows.shape)}")
    rows, _ = as_classifier(rows, None, *rows.shape)
    return norm(rows.sum(dim=0, dtype=torch.float64))


@takes_features
def nc5(moments: ClassMoments, ood_mean: Float[Tensor, " p"] | Array, *, centred: bool = False) -> float:
    """Avg_c |cos(μ_c, μ_OOD)|: out-of-distribution data become orthogonal to the classes.

    Args:
        moments: of in-distribution features; or those features (n, p), then their labels (n,).
        ood_mean: (p,) mean of out-of-distribution features.
        centred: False as in the source, where both are measured from the origin; True subtracts μ_G from both.

    Source: Ammar et al. (2024), NECO: neural collapse based out-of-distribution detection, Section 4.
    """
    require_moments(moments)
    ood = as_tensor(ood_mean, "ood_mean").to(moments.means).double()
    if ood.shape != moments.means.shape[1:] or not bool(torch.isfinite(ood).all()):
        raise InputError(f"expected a finite out-of-distribution mean of {moments.dim} entries, got {tuple(ood.shape)}")
    exponent, moments = moments.exponent, moments.at_unit_scale()
    origin = moments.global_mean if centred else torch.zeros_like(moments.global_mean)
    ood = of_moderate_size(scaled(ood, -exponent) - origin)
    present, size = moments.present, float(torch.linalg.vector_norm(ood))
    if size == 0.0:
        warn_undefined("NC5", "the mean of the out-of-distribution features is zero")
        return float("nan")
    total = 0.0
    for block in moments.class_blocks():
        means = moments.means[block][present[block]] - origin
        if not have_directions(means, "NC5"):
            return float("nan")
        total += float((unit_rows(means) @ ood).abs().sum())
    return total / (size * int(present.sum()))


def _pair(
    moments: ClassMoments, weight: Tensor | Array, name: str, *, directions: bool = False
) -> tuple[Tensor, Tensor] | None:
    """Classifier rows, and centred means of the classes present, both of moderate size.

    None, with a warning that the number of this name is undefined, where examples are of one class; and where each row
    must have a direction and one is zero.
    """
    require_moments(moments)
    given, _ = as_classifier(weight, None, moments.num_classes, moments.means.shape[1])
    if not has_two_classes(moments, name):
        return None
    rows, means = rows_of_present(moments, given), distinct_means(moments)
    if directions and not (have_directions(rows, name) and have_directions(means, name)):
        return None
    return rows, means


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + 8192) for start in range(0, count, 8192)]
