"""NC1–NC4 as the paper measures them; classes without examples take no part."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from .._checks import InputError, check_classifier
from .._linalg import rounding_bound, row_factor
from ..moments import ClassMoments
from .decisions import DecisionRule
from .geometry import angles, equinorm


@dataclass(frozen=True)
class NC2:
    """Convergence to a simplex ETF, of the centred class means and of the classifier's rows; all zero at an ETF.

    The classifier's are None in a report without a classifier.
    """

    equinorm_means: float
    equinorm_classifier: float | None
    equiangularity_means: float
    equiangularity_classifier: float | None
    maximal_angle_means: float
    maximal_angle_classifier: float | None


def nc1(moments: ClassMoments, *, divide: bool = True) -> float:
    """Within-class variability tr(Σ_W Σ_B⁺) / C, with C the number of classes present.

    With the thin SVD M̄ diag(√π) = U S Vᵀ this is Σ_j u_jᵀ Σ_W u_j / s_j² / C over the (classes present) − 1
    directions that the class means span: no p × p inverse, and no accidental rank. Where there are more classes than
    features these are all p directions, but for those in which no feature varies (layer normalisation leaves one).

    Args:
        moments: of the features.
        divide: by C, as the papers do; False leaves it out, as the authors' notebook does.

    Returns:
        A number ≥ 0; infinity, with a warning that names the classes, where class means coincide or are affinely
        dependent, because a direction that should separate classes then does not.

    Source: Papyan, Han & Donoho (PNAS 2020), Figure 6.
    """
    present = at_least_two(moments)
    classes, roots = int(present.sum()), moments.weights.sqrt()
    scaled = row_factor((rows * roots[block, None])[present[block]] for block, rows in moments.centred_blocks())
    _, spread, directions = torch.linalg.svd(scaled, full_matrices=False)
    rank = min(classes - 1, scaled.shape[1])
    spread, directions = spread[:rank], directions[:rank]
    # Two bounds: the SVD's own rounding, and that of features stored in moments.eps at the size of their means.
    rounding = max(classes, scaled.shape[1]) * torch.finfo(scaled.dtype).eps * float(spread[0])
    floor = max(rounding, moments.eps * _scale(moments))
    within = ((directions @ moments.within_covariance) * directions).sum(dim=1).clamp(min=0.0)
    if classes > scaled.shape[1]:
        unused = (spread <= floor) & (within <= rounding_bound(moments.within_covariance, moments.eps))
        spread, within = spread[~unused], within[~unused]
    if bool((spread <= floor).any()):
        warnings.warn(_degenerate(moments, present, floor), stacklevel=2)
        return float("inf")
    return float((within / spread**2).sum() / (classes if divide else 1))


def _scale(moments: ClassMoments) -> float:
    """The size of the uncentred means: their rounding is what a vanishing distance is measured against."""
    weights, means = moments.weights, moments.means
    parts = [float(weights[block] @ means[block].square().sum(dim=1)) for block in moments.class_blocks()]
    return math.sqrt(sum(parts))


def _degenerate(moments: ClassMoments, present: Tensor, floor: float) -> str:
    classes = present.nonzero()[:, 0]
    means, weights = moments.means[classes], moments.weights[classes]
    for i in range(len(classes) - 1):
        distance = torch.linalg.vector_norm(means[i + 1 :] - means[i], dim=1)
        # What two classes at this distance, with these weights, contribute to the singular values compared above.
        share = distance * (weights[i] * weights[i + 1 :] / (weights[i] + weights[i + 1 :])).sqrt()
        nearest = int(share.argmin())
        if float(share[nearest]) <= floor:
            pair = f"{int(classes[i])} and {int(classes[i + 1 + nearest])}"
            return f"NC1 is infinite: the means of classes {pair} coincide"
    return f"NC1 is infinite: the {len(classes)} class means are affinely dependent, so Σ_B has too low a rank"


def nc2(moments: ClassMoments, weight: Float[Tensor, "c p"]) -> NC2:
    """Equinorm, equiangularity and maximal angle of the class means μ_c − μ_G and of the classifier rows w_c.

    Args:
        moments: of the features; weight: (C, p).

    A row of zeros has no direction: the two angles are then nan, and a warning names its class.

    The formulas and their sources are in :mod:`neuralcollapse.formulas.geometry`.
    """
    present = at_least_two(moments)
    check_classifier(weight, None, moments.num_classes, moments.means.shape[1])
    means, rows = moments.centred_means, weight.detach().to(moments.means.device)
    if not bool(present.all()):
        means, rows = means[present], rows[present]
    for name, vectors in (("centred class mean", means), ("classifier row", rows)):
        zero = present.nonzero()[:, 0][~vectors.any(dim=1)].tolist()
        if zero:
            text = f"the angles of NC2 are undefined: the {name} of class {', '.join(map(str, zero))} is zero"
            warnings.warn(text, UserWarning, stacklevel=2)
    of_means, of_rows = angles(means), angles(rows)
    return NC2(
        equinorm_means=float(equinorm(means)),
        equinorm_classifier=float(equinorm(rows)),
        equiangularity_means=float(of_means.equiangularity),
        equiangularity_classifier=float(of_rows.equiangularity),
        maximal_angle_means=float(of_means.maximal_angle),
        maximal_angle_classifier=float(of_rows.maximal_angle),
    )


def nc3(moments: ClassMoments, weight: Float[Tensor, "c p"], *, centred: bool = True, squared: bool = True) -> float:
    """Self-duality ‖Wᵀ/‖W‖_F − M̄/‖M̄‖_F‖_F², zero where classifier and centred class means are proportional.

    It is nan, with a warning, where either is zero altogether.

    Args:
        moments: of the features; weight: (C, p).
        centred: class means less μ_G, as the papers have them; False takes μ_c themselves.
        squared: the norm, as in the paper's figures; False gives the norm itself.

    Source: Papyan, Han & Donoho (PNAS 2020), Figure 5.
    """
    present = at_least_two(moments)
    check_classifier(weight, None, moments.num_classes, moments.means.shape[1])
    origin = moments.global_mean if centred else torch.zeros_like(moments.global_mean)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for block in moments.class_blocks():
            here = present[block]
            rows = weight[block].detach().to(moments.means)
            yield rows[here], moments.means[block][here] - origin

    sizes = [0.0, 0.0]
    for matrices in pairs():
        sizes = [size + float(matrix.square().sum()) for size, matrix in zip(sizes, matrices, strict=True)]
    if not all(sizes):
        what = "classifier" if not sizes[0] else "matrix of centred class means"
        warnings.warn(f"NC3 is undefined: the {what} is zero", UserWarning, stacklevel=2)
        return float("nan")
    of_rows, of_means = (size**0.5 for size in sizes)
    total = sum(float((rows / of_rows - means / of_means).square().sum()) for rows, means in pairs())
    return total if squared else math.sqrt(total)


def nc4_mismatch(
    features: Float[Tensor, "n p"],
    labels: Integer[Tensor, " n"],
    weight: Float[Tensor, "c p"],
    bias: Float[Tensor, " c"] | None = None,
    *,
    moments: ClassMoments | None = None,
) -> float:
    """Share of examples whose predicted class is not that of the nearest class mean.

        Ave 1[argmax_c ⟨w_c, h⟩ + b_c ≠ argmin_c ‖h − μ_c‖]

    Args:
        features: (n, p); labels: (n,), used for the class means where ``moments`` is None.
        weight: (C, p); bias: (C,) or None.
        moments: class means from elsewhere, such as the whole training set.

    Source: Papyan, Han & Donoho (PNAS 2020), Figure 7.
    """
    if moments is None:
        moments = ClassMoments(len(weight))
        moments.update(features, labels)
    return float((~DecisionRule(moments, weight, bias)(features, labels).agree).double().mean())


def at_least_two(moments: ClassMoments) -> Tensor:
    """The classes present (C,) boolean; an error where they are fewer than two."""
    present = moments.present
    if int(present.sum()) < 2:
        raise InputError(f"expected examples of at least 2 classes, got {int(present.sum())}")
    return present
