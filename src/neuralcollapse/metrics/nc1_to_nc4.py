"""NC1–NC4 as the paper measures them; classes without examples take no part."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from neuralcollapse._checks import Array, InputError, as_classifier, as_count, as_tensor
from neuralcollapse._linalg import of_moderate_size, part_within, row_factor, unit_scale
from neuralcollapse.metrics.arguments import takes_features
from neuralcollapse.metrics.geometry import angles, equinorm
from neuralcollapse.metrics.nearest_mean import DecisionRule
from neuralcollapse.metrics.present_classes import (
    coinciding_means,
    distinct_means,
    has_two_classes,
    has_two_examples_each,
    rows_of_present,
)
from neuralcollapse.metrics.rank import directions as varying_directions
from neuralcollapse.metrics.rank import feature_sizes, varies
from neuralcollapse.metrics.undefined import one_warning, warn_undefined
from neuralcollapse.moments.class_moments import ClassMoments, require_moments

# Above this ratio the smallest singular value of M̄ is exact to ten digits beside the largest.
_WELL_SPREAD = 1e-6


@dataclass(frozen=True)
class NC2:
    """Convergence to a simplex ETF, of the centred class means and of the classifier's rows; all zero at an ETF.

    The classifier's are None in a report without a classifier.

    Example:
        >>> features, labels = torch.tensor([[2.0], [0.0], [-2.0], [0.0]]), torch.tensor([0, 0, 1, 1])
        >>> nc2(features, labels, torch.tensor([[1.0], [-1.0]])).maximal_angle_means
        0.0
    """

    equinorm_means: float
    equinorm_classifier: float | None
    equiangularity_means: float
    equiangularity_classifier: float | None
    maximal_angle_means: float
    maximal_angle_classifier: float | None


@takes_features
def nc1(moments: ClassMoments, *, divide: bool = True, correction: int = 0) -> float:
    """Within-class variability tr(Σ_W Σ_B⁺) / C, with C the number of classes present.

    With the thin SVD M̄ diag(√π) = U S Vᵀ this is Σ_j u_jᵀ Σ_W u_j / s_j² / C over the (classes present) − 1
    directions that the class means span; it needs no p × p inverse, and no threshold decides the rank. Where features
    vary in fewer directions (fewer features than classes, dead units, layer normalisation), the sum is over these.

    Args:
        moments: of the features; or the features (n, p), then the labels (n,).
        divide: by C, as the papers do; False leaves it out, as the authors' notebook does.
        correction: 1 divides each class's covariance by n_c − 1, as ``torch.cov`` and ``numpy.cov`` do, for which
            moments need ``weighting="class"``; nan, with a warning, where a class has one example.

    Returns:
        A number ≥ 0; infinity, with a warning that names the classes, where class means coincide or are affinely
        dependent, because a direction that should separate classes then does not; nan, with a warning, where all
        features are equal, or of one class.

    Raises:
        InputError: what is no `ClassMoments` and no features with labels; NaN or infinity in features.

    Source: Papyan, Han & Donoho (PNAS 2020), Figure 6.

    Example:
        >>> features, labels = torch.tensor([[2.0], [0.0], [-2.0], [0.0]]), torch.tensor([0, 0, 1, 1])
        >>> round(nc1(features, labels), 6)
        0.5
    """
    if not has_two_classes(moments, "NC1"):
        return float("nan")
    correction = as_count(correction, "correction", least=0, most=1)
    if correction and not has_two_examples_each(moments, "NC1 with divisor n_c − 1"):
        return float("nan")
    return nc1_from_whitener(moments, between_whitener(moments), divide=divide, correction=correction)


def nc1_from_whitener(
    moments: ClassMoments, whitener: Float[Tensor, "r p"] | None, *, divide: bool = True, correction: int = 0
) -> float:
    """:func:`nc1` of at least two classes, from what :func:`between_whitener` gives for the same moments."""
    moments = moments.at_unit_scale()
    within_covariance = _unbiased_within_covariance(moments) if correction else moments.within_covariance
    present = moments.present
    if whitener is not None:
        total = float(((whitener @ within_covariance) * whitener).sum().clamp(min=0.0))
        return total / (int(present.sum()) if divide else 1)
    distinct = bool(distinct_means(moments).any())
    if not distinct and not bool(varies(moments, within_covariance.diagonal()).any()):
        warn_undefined("NC1", "all features are equal")
        return float("nan")
    pairs = coinciding_means(moments)
    why = f"the {int(present.sum())} class means are affinely dependent, so Σ_B has too low a rank"
    if pairs:
        why = f"the means of classes {pairs[0][0]} and {pairs[0][1]} coincide"
    warn_undefined("NC1", why, "infinite")
    return float("inf")


def between_whitener(moments: ClassMoments) -> Float[Tensor, "r p"] | None:
    """(r, p) rows a_j with Σ_j a_j a_jᵀ = Σ_B⁺, of features at unit scale, so that NC1 is Σ_j a_jᵀ Σ_W a_j / C.

    None where Σ_B has a lower rank than class means of these counts should give it, or no rank.
    """
    moments = moments.at_unit_scale()
    present, roots = moments.present, moments.weights.sqrt()
    classes = int(present.sum())
    if classes < 2 or not bool(distinct_means(moments).any()):
        return None
    scaled = row_factor((rows * roots[block, None])[present[block]] for block, rows in moments.centred_blocks())
    _, spread, directions = torch.linalg.svd(scaled, full_matrices=False)
    spread, directions = spread[: classes - 1], directions[: classes - 1]
    whitener: Tensor | None = directions / spread[:, None]
    if float(spread[-1]) <= _WELL_SPREAD * float(spread[0]):
        whitener = _graded_whitener(moments, scaled, min(classes - 1, varying_directions(moments)))
    if whitener is not None and len(whitener) < classes - 1:
        # Where features vary in few directions two equal means may be why class means span no more.
        equal = coinciding_means(moments)
        whitener = None if equal and classes - len(equal) - 1 <= len(whitener) else whitener
    return whitener


def _unbiased_within_covariance(moments: ClassMoments) -> Tensor:
    """Σ_c π_c Σ_c n_c/(n_c − 1)."""
    total = torch.zeros_like(moments.within_covariance)
    for label in moments.present.nonzero()[:, 0].tolist():
        count = int(moments.counts[label])
        total += moments.class_covariance(label) * (float(moments.weights[label]) * count / (count - 1))
    return total


def _graded_whitener(moments: ClassMoments, means: Tensor, rank: int) -> Tensor | None:
    """(rank, p) rows whose squares sum to Σ_B⁺, where features differ much in size; None where Σ_B has a lower rank.

    With M̄ = X S, S the features' sizes and X = U Λ Vᵀ, they are those of Λ⁻¹ (Vᵀ S)⁺ᵀ. The error depends on the
    condition of X, not on the sizes; singular values of M̄ itself would have errors relative to the largest of them.

    Args:
        means: rows with the Gram matrix Σ_B.
        rank: of Σ_B where class means are in general position.
    """
    size, rounding = torch.linalg.vector_norm(means, dim=0), moments.eps * feature_sizes(moments)
    live = size > 64.0 * torch.finfo(means.dtype).eps * feature_sizes(moments)
    scale = unit_scale(size[live].square())
    _, values, vectors = torch.linalg.svd(means[:, live] * scale, full_matrices=True)
    noise = float(torch.linalg.vector_norm(rounding[live] * scale))
    floor = noise + max(means.shape) * torch.finfo(means.dtype).eps * float(values[0])
    if len(values) < rank or float(values[rank - 1]) <= floor:
        return None
    rows, null = vectors[:rank] * scale, vectors[rank:] * scale
    whitener = means.new_zeros(rank, means.shape[1])
    whitener[:, live] = (rows - part_within(rows, null.T)) / values[:rank, None]
    return whitener


@takes_features
def nc2(moments: ClassMoments, weight: Float[Tensor, "c p"] | Array) -> NC2:
    """Equinorm, equiangularity and maximal angle of the class means μ_c − μ_G and of the classifier rows w_c.

    Args:
        moments: of the features; or the features (n, p), then the labels (n,).
        weight: (C, p).

    A class mean that equals the global mean, or a row of zeros, has no direction: the two angles are then nan, and a
    warning names its class. All are nan, with a warning, where examples are of one class.

    The formulas and their sources are in :mod:`neuralcollapse.metrics.geometry`.

    Raises:
        InputError: a weight of another shape than (C, p); NaN or infinity.

    Example:
        >>> features, labels = torch.tensor([[2.0], [0.0], [-2.0], [0.0]]), torch.tensor([0, 0, 1, 1])
        >>> round(nc2(features, labels, torch.tensor([[2.0], [-1.0]])).equinorm_classifier, 4)  # Std √½, Avg 1.5
        0.4714
    """
    given, _ = as_classifier(weight, None, moments.num_classes, moments.means.shape[1])
    if not has_two_classes(moments, "NC2"):
        return NC2(*[float("nan")] * 6)
    found = {}
    sides = (
        ("means", "centred class mean", distinct_means(moments)),
        ("classifier", "classifier row", rows_of_present(moments, given)),
    )
    with one_warning():
        for side, name, vectors in sides:
            found[f"equinorm_{side}"] = float(equinorm(vectors)) if bool(vectors.any()) else float("nan")
            zero = moments.present.nonzero()[:, 0][~vectors.any(dim=1)].tolist()
            if zero:
                few = ", ".join(map(str, zero[:5])) + (", …" if len(zero) > 5 else "")
                warn_undefined("the angles of NC2", f"the {name} of class {few} is zero")
            both = None if zero else angles(vectors)
            found[f"equiangularity_{side}"] = float("nan") if both is None else float(both.equiangularity)
            found[f"maximal_angle_{side}"] = float("nan") if both is None else float(both.maximal_angle)
    return NC2(**found)


@takes_features
def nc3(
    moments: ClassMoments, weight: Float[Tensor, "c p"] | Array, *, centred: bool = True, squared: bool = True
) -> float:
    """Self-duality ‖Wᵀ/‖W‖_F − M̄/‖M̄‖_F‖_F², zero where classifier and centred class means are proportional.

    It is nan, with a warning, where either is zero altogether, or examples are of one class.

    Args:
        moments: of the features; or the features (n, p), then the labels (n,).
        weight: (C, p).
        centred: class means less μ_G, as the papers have them; False takes μ_c themselves.
        squared: the norm, as in the paper's figures; False gives the norm itself.

    Raises:
        InputError: a weight of another shape than (C, p); NaN or infinity.

    Source: Papyan, Han & Donoho (PNAS 2020), Figure 5.

    Example:
        >>> features, labels = torch.tensor([[2.0], [0.0], [-2.0], [0.0]]), torch.tensor([0, 0, 1, 1])
        >>> round(nc3(features, labels, torch.tensor([[3.0], [-3.0]])), 6)
        0.0
    """
    given, _ = as_classifier(weight, None, moments.num_classes, moments.means.shape[1])
    if not has_two_classes(moments, "NC3"):
        return float("nan")
    moments, given = moments.at_unit_scale(), of_moderate_size(given)
    present, means = moments.present, moments.means
    origin = moments.global_mean if centred else torch.zeros_like(moments.global_mean)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for block in moments.class_blocks():
            here = present[block]
            # in float64, whatever the moments' type: squares of rows of this size leave the range of float32
            yield given[block].to(means.device).double()[here], (means[block][here] - origin).double()

    sizes = [0.0, 0.0]
    for matrices in pairs():
        sizes = [size + float(matrix.square().sum()) for size, matrix in zip(sizes, matrices, strict=True)]
    if not sizes[0] or not sizes[1] or (centred and not bool(distinct_means(moments).any())):
        what = "classifier" if not sizes[0] else "matrix of class means"
        warn_undefined("NC3", f"the {what} is zero")
        return float("nan")
    of_rows, of_means = (size**0.5 for size in sizes)
    total = sum(float((left / of_rows - right / of_means).square().sum()) for left, right in pairs())
    return total if squared else math.sqrt(total)


def nc4_mismatch(
    features: Float[Tensor, "n p"] | Array,
    labels: Integer[Tensor, " n"] | Array,
    weight: Float[Tensor, "c p"] | Array,
    bias: Float[Tensor, " c"] | Array | None = None,
    *,
    moments: ClassMoments | None = None,
) -> float:
    """Share of examples whose predicted class is not that of the nearest class mean.

        Ave 1[argmax_c ⟨w_c, h⟩ + b_c ≠ argmin_c ‖h − μ_c‖]

    Args:
        features: (n, p); labels: (n,), used for the class means where ``moments`` is None.
        weight: (C, p); bias: (C,) or None.
        moments: class means from elsewhere, such as the whole training set.

    Raises:
        InputError: shapes that do not fit one another; labels outside 0 … C − 1; NaN or infinity.

    Source: Papyan, Han & Donoho (PNAS 2020), Figure 7.

    Example:
        >>> features, labels = torch.tensor([[2.0], [0.4], [-2.0], [-0.4]]), torch.tensor([0, 0, 1, 1])
        >>> nc4_mismatch(features, labels, torch.tensor([[1.0], [-1.0]]), torch.tensor([1.0, 0.0]))  # by the bias
        0.25
    """
    examples, classes = as_tensor(features, "features"), as_tensor(labels, "labels")
    rows = as_tensor(weight, "weight")
    offset = None if bias is None else as_tensor(bias, "bias")
    if moments is None:
        if rows.ndim != 2:
            raise InputError(f"expected a classifier weight of shape (C, p), got {tuple(rows.shape)}")
        moments = ClassMoments(len(rows))
        moments.update(examples, classes)
    require_moments(moments)
    return float((~DecisionRule(moments, rows, offset)(examples, classes).agree).double().mean())
