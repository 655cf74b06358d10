"""Out-of-distribution data: NC5, and scores from class moments that tell such data from those of the classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import (
    Array,
    InputError,
    as_count,
    as_number,
    as_switch,
    as_tensor,
    check_features,
    check_finite,
)
from neuralcollapse._linalg import (
    definite_factor,
    of_moderate_size,
    power_of_two,
    rounding_bound,
    scaled,
    unit_scale,
)
from neuralcollapse.metrics.arguments import takes_features
from neuralcollapse.metrics.geometry import have_directions, unit_rows
from neuralcollapse.metrics.rank import rounding_variances, varies
from neuralcollapse.metrics.undefined import warn_undefined
from neuralcollapse.moments.blocks import rows_per_block
from neuralcollapse.moments.class_moments import ClassMoments, require_moments

# Features are scored together that differ by less than this power of two, whose squares neither overflow nor vanish.
_STEP = 200
_FAR = 1 << 20  # larger than any exponent


@takes_features
def nc5(moments: ClassMoments, ood_mean: Float[Tensor, " p"] | Array, *, centred: bool = False) -> float:
    """Avg_c |cos(μ_c, μ_OOD)|: out-of-distribution data become orthogonal to the classes.

    Args:
        moments: of in-distribution features; or those features (n, p), then their labels (n,).
        ood_mean: (p,) mean of out-of-distribution features.
        centred: False as in the source, where both are measured from the origin; True subtracts μ_G from both.

    Source: Ammar et al. (2024), NECO: neural collapse based out-of-distribution detection, Section 4.
    """
    ood = as_tensor(ood_mean, "ood_mean").double().to(moments.means.device)
    if ood.shape != moments.means.shape[1:] or not bool(torch.isfinite(ood).all()):
        raise InputError(f"expected a finite out-of-distribution mean of {moments.dim} entries, got {tuple(ood.shape)}")
    exponent, moments = moments.exponent, moments.at_unit_scale()
    origin = torch.zeros_like(ood)
    if centred:
        origin = moments.global_mean.double()
        beyond = max(0, (power_of_two(ood) or 0) - exponent - 200)  # where it is that much larger than the features
        ood = scaled(ood, -exponent - beyond) - scaled(origin, -beyond)
    ood = of_moderate_size(ood)
    present, size = moments.present, float(torch.linalg.vector_norm(ood))
    if size == 0.0:
        warn_undefined("NC5", "the mean of the out-of-distribution features is zero")
        return float("nan")
    total = 0.0
    for block in moments.class_blocks():
        means = moments.means[block][present[block]].double() - origin
        if not have_directions(means, "NC5"):
            return float("nan")
        total += float((unit_rows(means) @ ood).abs().sum())
    return total / (size * int(present.sum()))


def neco_scores(
    moments: ClassMoments, features: Float[Tensor, "m p"] | Array, *, dimensions: int | None = None
) -> Float[Tensor, " m"]:
    """NECO: ‖P h̃‖ / ‖h̃‖, P the projection on the leading principal components of the training features.

    h̃ is the feature less the training mean, each entry divided by its standard deviation over the training features,
    or left out where these are constant, and the components are those of h̃; near one for data of the classes, smaller
    for others. The source multiplies the score by the largest logit for some networks; do that outside where it is
    wanted. Mean, standard deviations and components are those of the examples, each counting alike, for moments of a
    mixed weighting too; with ``weighting="class"`` each class counts alike.

    Args:
        moments: of the training features; features: (m, p) to score.
        dimensions: of the subspace; by default (classes present) − 1, those that collapse leaves.

    Returns:
        (m,) float64, from 0 to 1 at whatever scale; nan where h̃ is zero.

    Raises:
        InputError: features of another dimension than the moments', NaN or infinity.

    Source: Ammar et al. (2024), NECO: neural collapse based out-of-distribution detection, Section 4.

    Example:
        >>> moments = ClassMoments(2)
        >>> features = torch.tensor([[2.0, 0.1], [2.0, -0.1], [-2.0, 0.1], [-2.0, -0.1]])
        >>> moments.update(features, torch.tensor([0, 0, 1, 1]))
        >>> neco_scores(moments, torch.tensor([[2.0, 0.0], [0.0, 5.0]])).shape
        torch.Size([2])
    """
    moments, rows, exponent = _checked(moments, features)
    most = moments.means.shape[1]
    default = max(1, min(most, int(moments.present.sum()) - 1))
    count = default if dimensions is None else as_count(dimensions, "dimensions", most=most)
    covariance = (moments.within_covariance + moments.between_covariance).double()
    # a constant feature tells nothing, whatever rounding its variance is
    factors = torch.where(varies(moments, covariance.diagonal()), 1.0 / covariance.diagonal().sqrt(), 0.0)
    _, vectors = torch.linalg.eigh(covariance * factors * factors[:, None])
    basis, mean = vectors[:, -count:], moments.global_mean.double() * (factors > 0.0)
    scores = rows.new_zeros(len(rows), dtype=torch.float64)
    for which, part, beyond in _of_moderate_size(rows, factors, exponent):
        unit = unit_rows((part - scaled(mean, -beyond)) * factors)
        scores[which] = torch.linalg.vector_norm(unit @ basis, dim=1).clamp(max=1.0)
    return scores


def nearest_mean_scores(
    moments: ClassMoments, features: Float[Tensor, "m p"] | Array, *, mahalanobis: bool = False
) -> Float[Tensor, " m"]:
    """−min_c ‖h − μ_c‖², or −min_c (h − μ_c)ᵀ Σ_W⁻¹ (h − μ_c); near zero for data of the classes.

    Class means depend on no weighting; Σ_W is that of the examples for mixed weightings, as for ``"example"``.

    Args:
        moments: of the training features; features: (m, p) to score.
        mahalanobis: measure the distance by the within-class covariance.

    Returns:
        (m,) float64. A squared distance beyond the range of float64 is infinite, and one below it 0, with a warning.

    Raises:
        InputError: Σ_W is singular, and Mahalanobis distances are asked for; features of another dimension than the
            moments', NaN or infinity.

    Source: Lee et al. (2018), A simple unified framework for detecting out-of-distribution samples and adversarial
    attacks, Equation 2; with the Euclidean distance it is the decision of NC4.

    Example:
        >>> features, labels = torch.tensor([[2.0], [0.0], [-2.0], [0.0]]), torch.tensor([0, 0, 1, 1])
        >>> moments = ClassMoments(2)
        >>> moments.update(features, labels)
        >>> nearest_mean_scores(moments, torch.tensor([[1.0], [4.0]])).tolist()
        [-0.0, -9.0]
    """
    unit, rows, exponent = _checked(moments, features)
    means = unit.means[unit.present].double()
    centre, scale, factor = unit.global_mean.double(), torch.ones_like(unit.global_mean, dtype=torch.float64), None
    if as_switch(mahalanobis, "mahalanobis"):
        scale, factor = _whitening(unit)
    scores = rows.new_zeros(len(rows), dtype=torch.float64)
    nearest = torch.zeros_like(scores)
    for which, part, beyond in _of_moderate_size(rows, scale, exponent):
        own, others = (part - scaled(centre, -beyond)) * scale, scaled((means - centre) * scale, -beyond)
        if factor is not None:
            own, others = (torch.linalg.solve_triangular(factor, each.T, upper=False).T for each in (own, others))
        distances = torch.cdist(own, others, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
        nearest[which] = distances
        # Mahalanobis distances do not depend on the features' scale
        scores[which] = -scaled(distances.square(), 2 * (beyond + (exponent if factor is None else 0)))
    for wrong, state in ((scores.isinf(), "infinite"), ((scores == 0.0) & (nearest > 0.0), "zero")):
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            warn_undefined(f"the score of row {row}", "no float holds the squared distance", state)
    return scores


def _whitening(moments: ClassMoments) -> tuple[Tensor, Tensor]:
    """(powers of two that bring each feature to about unit variance, the Cholesky factor of Σ_W at these).

    Raises:
        InputError: Σ_W is singular, which is decided there, because rounding is relative to each feature's own size.
    """
    within = moments.within_covariance.double()
    if bool(varies(moments, within.diagonal()).all()):
        scale = unit_scale(within.diagonal())
        correlation = within * scale * scale[:, None]
        # as many roundings as `directions` allows, of means and of spread: sums of features are right to no more
        rounding = 48.0 * (rounding_variances(moments) + moments.eps**2 / 3.0 * within.diagonal())
        # a distance along a direction of variance λ is right to bound/λ
        bound = 8.0 * rounding_bound(correlation, moments.product_eps)
        factor = definite_factor(correlation, bound + rounding * scale.square())
        if factor is not None:
            return scale, factor
    raise InputError(
        f"expected a nonsingular Σ_W for Mahalanobis distances, got {moments.dim} features that vary in fewer "
        "directions within their classes: leave out those that are constant there, or sums of others"
    )


@dataclass(frozen=True)
class Detection:
    """How well scores tell data of the classes from others.

    Attributes:
        auroc: the chance that an example of the classes scores higher than another one, ties counting half; 0.5 for
            scores that tell nothing, 1 for perfect ones.
        fpr95: the share of the others that pass a threshold which 95 % of the examples of the classes pass; best at 0.

    Example:
        >>> detection([3.0, 2.0], [1.0]).auroc
        1.0
    """

    auroc: float
    fpr95: float


def detection(
    inside: Float[Tensor, " n"] | Array, outside: Float[Tensor, " m"] | Array, *, passing: float = 0.95
) -> Detection:
    """AUROC and FPR95 of scores, which are higher for data of the classes.

    The examples of the classes are the positives, as in the source. Libraries that call the others positive have the
    same AUROC and another FPR95.

    Args:
        inside: (n,) scores of data of the classes; outside: (m,) of others.
        passing: the share of ``inside`` that passes the threshold of FPR95, above 0 and at most 1: the threshold is
            the score of the ⌈passing · n⌉-th best.

    Raises:
        InputError: no scores, or some that are nan; a share outside that range.

    Source: Liang, Li & Srikant (2018), Enhancing the reliability of out-of-distribution image detection in neural
    networks, Section 4.

    Example:
        >>> detection([3.0, 2.0, 1.0], [0.5, 1.5])
        Detection(auroc=0.8333333333333334, fpr95=0.5)
    """
    passing = as_number(passing, "passing", above=True, most=1.0)
    sides = []
    for name, values in (("inside", inside), ("outside", outside)):
        scores = as_tensor(values, name).double().cpu()
        if scores.ndim != 1 or not len(scores) or bool(scores.isnan().any()):
            raise InputError(f"expected {name} to be at least one score, none of them nan, of shape (n,)")
        sides.append(scores)
    high, low = sides[0].sort().values, sides[1].contiguous()
    below, up_to = torch.searchsorted(high, low), torch.searchsorted(high, low, right=True)
    # of each pair: 1 where the inner one is above, ½ where both are equal
    wins = (len(high) - up_to).double() + 0.5 * (up_to - below).double()
    # 0.55 · 100 is above 55 by a rounding of the product and one of 0.55 itself
    passed = max(1, math.ceil(passing * len(high) * (1.0 - 2.0**-50)))
    threshold = high[len(high) - passed]
    return Detection(float(wins.sum() / (len(high) * len(low))), float((low >= threshold).double().mean()))


def _checked(moments: ClassMoments, features: Tensor | Array) -> tuple[ClassMoments, Tensor, int]:
    """(moments at unit scale, features, the exponent of the power of two that the moments' features are divided by)."""
    require_moments(moments)
    rows = as_tensor(features, "features")
    check_features(rows, moments.means.shape[1])
    check_finite(rows)
    return moments.exactly_weighted().at_unit_scale(), rows.to(moments.means.device), moments.exponent


def _of_moderate_size(rows: Tensor, factors: Tensor, exponent: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """(which rows, h · 2^-(exponent + e) of these, e), e so large that the squares of h · factors do not overflow.

    e is 0 unless a row is larger by far than features of the moments' scale, which have the exponent. Features whose
    factor is 0 become 0.
    """
    used = factors > 0.0
    powers = torch.where(used, torch.frexp(factors).exponent, -_FAR)
    for part in torch.split(torch.arange(len(rows), device=rows.device), rows_per_block(rows)):
        wide = torch.where(used, rows[part].double(), 0.0)
        sizes = torch.where(wide != 0.0, torch.frexp(wide).exponent + powers, -_FAR).amax(dim=1) - exponent
        steps = ((sizes - 1).clamp(min=0) // _STEP) * _STEP
        for beyond in sorted(set(steps.tolist())):
            same = steps == beyond
            yield part[same], scaled(wide[same], -exponent - beyond), beyond
