"""NC1–NC4 as the paper measures them; classes without examples take no part."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from .._checks import InputError, check_classifier, check_features, check_labels, first_bad_row
from .._linalg import full_precision
from ..moments import ClassMoments
from .geometry import equiangularity, equinorm, maximal_angle


@dataclass(frozen=True)
class NC2:
    """Convergence to a simplex ETF, of the centred class means and of the classifier's rows; all zero at an ETF."""

    equinorm_means: float
    equinorm_classifier: float
    equiangularity_means: float
    equiangularity_classifier: float
    maximal_angle_means: float
    maximal_angle_classifier: float


def nc1(moments: ClassMoments) -> float:
    """Within-class variability tr(Σ_W Σ_B⁺) / C, with C the number of classes present.

    With the thin SVD M̄ diag(√π) = U S Vᵀ this is Σ_j u_jᵀ Σ_W u_j / s_j² / C over the (classes present) − 1
    directions that the class means span: no p × p inverse, and no accidental rank. Published code that does not
    divide by C reports C times this number.

    Returns:
        A number ≥ 0; infinity, with a warning that names the classes, where class means coincide or are affinely
        dependent, because a direction that should separate classes then does not.

    Source: Papyan, Han & Donoho (PNAS 2020), Figure 6.
    """
    present = _at_least_two(moments)
    scaled = (moments.centred_means * moments.weights.sqrt()[:, None])[present]
    directions, spread = _between_directions(scaled)
    # Two bounds: the SVD's own rounding, and that of features stored in moments.eps at the size of their means.
    rounding = max(scaled.shape) * torch.finfo(scaled.dtype).eps * float(spread[0])
    floor = max(rounding, moments.eps * _scale(moments))
    if bool((spread <= floor).any()):
        warnings.warn(_degenerate(moments, present, floor), stacklevel=2)
        return float("inf")
    within = ((directions @ moments.within_covariance) * directions).sum(dim=1).clamp(min=0.0)
    return float((within / spread**2).sum() / len(scaled))


def _between_directions(scaled: Tensor) -> tuple[Tensor, Tensor]:
    """The rank = min(classes − 1, p) leading singular directions (rank, p) and values of the centred means."""
    _, values, directions = torch.linalg.svd(scaled, full_matrices=False)
    rank = min(len(scaled) - 1, scaled.shape[1])
    return directions[:rank], values[:rank]


def _scale(moments: ClassMoments) -> float:
    """The size of the uncentred means: their rounding is what a vanishing distance is measured against."""
    return float((moments.weights @ (moments.means**2).sum(dim=1)).sqrt())


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
    present = _at_least_two(moments)
    check_classifier(weight, None, moments.num_classes, moments.means.shape[1])
    means = moments.centred_means[present]
    rows = weight.detach().to(means)[present]
    for name, vectors in (("centred class mean", means), ("classifier row", rows)):
        zero = present.nonzero()[:, 0][~vectors.any(dim=1)].tolist()
        if zero:
            text = f"the angles of NC2 are undefined: the {name} of class {', '.join(map(str, zero))} is zero"
            warnings.warn(text, UserWarning, stacklevel=2)
    return NC2(
        equinorm_means=float(equinorm(means)),
        equinorm_classifier=float(equinorm(rows)),
        equiangularity_means=float(equiangularity(means)),
        equiangularity_classifier=float(equiangularity(rows)),
        maximal_angle_means=float(maximal_angle(means)),
        maximal_angle_classifier=float(maximal_angle(rows)),
    )


def nc3(moments: ClassMoments, weight: Float[Tensor, "c p"]) -> float:
    """Self-duality ‖Wᵀ/‖W‖_F − M̄/‖M̄‖_F‖_F², zero where classifier and centred class means are proportional.

    It is nan, with a warning, where either is zero altogether.

    Args:
        moments: of the features; weight: (C, p).

    Source: Papyan, Han & Donoho (PNAS 2020), Figure 5.
    """
    present = _at_least_two(moments)
    check_classifier(weight, None, moments.num_classes, moments.means.shape[1])
    means = moments.centred_means[present]
    rows = weight.detach().to(means)[present]
    if not bool(rows.any()) or not bool(means.any()):
        what = "classifier" if not bool(rows.any()) else "matrix of centred class means"
        warnings.warn(f"NC3 is undefined: the {what} is zero", UserWarning, stacklevel=2)
    return float(((rows / torch.linalg.matrix_norm(rows) - means / torch.linalg.matrix_norm(means)) ** 2).sum())


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
    return float((~decisions(features, labels, moments, weight, bias).agree).double().mean())


@dataclass(frozen=True)
class Decisions:
    """Per example: does the network agree with the nearest class mean, and is it right?"""

    agree: Bool[Tensor, " n"]
    correct: Bool[Tensor, " n"]


def decisions(
    features: Float[Tensor, "n p"],
    labels: Integer[Tensor, " n"],
    moments: ClassMoments,
    weight: Float[Tensor, "c p"],
    bias: Float[Tensor, " c"] | None,
) -> Decisions:
    """Both decisions for every example, from one skinny product with [W; M̄] per block of rows."""
    check_features(features, moments.means.shape[1])
    check_labels(labels, len(features), moments.num_classes)
    check_classifier(weight, bias, moments.num_classes, features.shape[1])
    present = moments.present.nonzero()[:, 0]
    means = moments.centred_means[present]
    # argmin ‖h − μ_c‖ = argmax ⟨h, μ̄_c⟩ − ⟨μ_G, μ̄_c⟩ − ½‖μ̄_c‖²
    offset = -(means @ moments.global_mean) - 0.5 * (means**2).sum(dim=1)
    rows = weight.detach().to(means)
    constant = torch.zeros_like(rows[:, 0]) if bias is None else bias.detach().to(means)
    work = torch.float64 if features.dtype == torch.float64 else torch.float32
    both, constants = torch.cat([rows, means]).to(work), torch.cat([constant, offset]).to(work)
    agree, correct = [], []
    block = max(1, (1 << 24) // len(both))
    for start in range(0, max(1, len(features)), block):
        part = features[start : start + block].detach().to(means.device, work)
        with full_precision(part.device):
            scores = torch.addmm(constants, part, both.T)
        if not bool(torch.isfinite(scores.sum())) and not bool(torch.isfinite(part).all()):
            raise InputError(f"expected finite features, got NaN or infinity in row {start + first_bad_row(part)}")
        norms = torch.linalg.vector_norm(part, dim=1)
        predicted = _argmax(scores[:, : len(rows)], part, norms, rows, constant)
        nearest = present[_argmax(scores[:, len(rows) :], part, norms, means, offset)]
        agree.append(predicted == nearest)
        correct.append(predicted == labels[start : start + block].to(means.device))
    return Decisions(torch.cat(agree), torch.cat(correct))


def _argmax(scores: Tensor, features: Tensor, norms: Tensor, rows: Tensor, offset: Tensor) -> Tensor:
    """argmax_c of the scores ⟨h, r_c⟩ + o_c; examples that float32's rounding could decide are redone in float64."""
    winner = scores.argmax(dim=1)
    if scores.dtype == torch.float64 or scores.shape[1] == 1:
        return winner
    best, runner_up = scores.topk(2, dim=1).values.T
    reach = norms * float(torch.linalg.vector_norm(rows, dim=1).max()) + float(offset.abs().max())
    close = (best - runner_up <= 4.0 * torch.finfo(scores.dtype).eps * reach).nonzero()[:, 0]
    if len(close):
        exact = torch.addmm(offset.double(), features[close].double(), rows.double().T)
        winner[close] = exact.argmax(dim=1)
    return winner


def _at_least_two(moments: ClassMoments) -> Tensor:
    present = moments.present
    if int(present.sum()) < 2:
        raise InputError(f"expected examples of at least 2 classes, got {int(present.sum())}")
    return present
