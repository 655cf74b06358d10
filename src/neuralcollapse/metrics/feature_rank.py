"""How many dimensions features take: the ranks that papers measure, of all features and class by class.

No class mean enters the stable rank, the effective rank, RankMe and the numerical rank: a ``reference=`` leaves them as
they are. They need the second moments of the features, which moments about the class means of other data do not hold,
and refuse such. The effective rank of a class is of its features about its mean, and so about that of a reference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._errors import InputError
from neuralcollapse._linalg import rounding_bound
from neuralcollapse.metrics.arguments import takes_features
from neuralcollapse.metrics.rank import varies
from neuralcollapse.metrics.undefined import warn_undefined
from neuralcollapse.moments.class_moments import ClassMoments

# What RankMe adds to each share.
_RANKME_EPS = 1e-7


@takes_features
def stable_rank(moments: ClassMoments) -> float:
    """tr Σ_T / ‖Σ_T‖₂, the stable rank: the squared Frobenius over the squared spectral norm of the centred features.

    Raises:
        InputError: moments about the class means of other data.

    Source: Rudelson & Vershynin (2007), Sampling from large matrices, Section 1.
    """
    values = _total_spectrum(moments, "the stable rank")
    if not bool(values.any()):
        warn_undefined("the stable rank", "all features are equal")
        return float("nan")
    return float(values.sum() / values[-1])


@takes_features
def effective_rank(moments: ClassMoments) -> float:
    """exp(−Σ_i q_i log q_i), q_i = σ_i/Σσ, σ the singular values of the centred features (√eig Σ_T).

    Raises:
        InputError: moments about the class means of other data.

    Source: Roy & Vetterli (2007), The effective rank: a measure of effective dimensionality, Definition 1.
    """
    singular = _total_spectrum(moments, "the effective rank").sqrt()
    if not bool(singular.any()):
        warn_undefined("the effective rank", "all features are equal")
        return float("nan")
    return _entropy_rank(singular)


@takes_features
def rankme(moments: ClassMoments) -> float:
    """RankMe: exp(−Σ_i q_i log q_i), q_i = σ_i/Σσ + 1e-7, σ the min(n, p) singular values of the features uncentred.

    Under a weighting by class each example counts 1/(C n_c) in σ.

    Raises:
        InputError: moments about the class means of other data.

    Source: Garrido et al. (2023), RankMe: assessing the downstream performance of pretrained representations by their
    rank, Equation 1.
    """
    moments = _own(moments, "RankMe").exactly_weighted().at_unit_scale()
    # Σ_B and μ_G μ_Gᵀ together are the weighted class means about the origin
    means = (moments.means * moments.weights.sqrt()[:, None])[moments.present]
    singular = _stacked_singular_values(moments, moments.within_covariance, means)
    if not bool(singular.any()):
        warn_undefined("RankMe", "all features are zero")
        return float("nan")
    share = singular[: min(moments.num_examples, len(singular))] / singular.sum() + _RANKME_EPS
    return float(torch.special.entr(share).sum().exp())


@takes_features
def numerical_rank(moments: ClassMoments) -> float:
    """Avg_c (‖H_c‖_* / ‖H_c‖_F)², H_c the features of a class (n_c, p), uncentred; 1 where they are multiples of one.

    Args:
        moments: of ``weighting="class"``, which have a scatter for each class.

    Raises:
        InputError: moments of another weighting, or about the class means of other data.

    Source: Zhou et al. (2022), Are all losses created equal: a neural collapse perspective, whose code averages the
    ratio itself, not its square.
    """
    name = "the numerical rank"
    return _average_over_classes(
        _own(moments, name), name, lambda sigma: float(sigma.sum() ** 2 / sigma.square().sum()), centred=False
    )


@takes_features
def class_effective_rank(moments: ClassMoments) -> float:
    """Avg_c exp(−Σ_i q_i log q_i), q_i = σ_i/Σσ, σ the singular values of the class's features about their mean.

    With moments about the class means of other data it is about these.

    Args:
        moments: of ``weighting="class"``, which have a scatter for each class.

    Raises:
        InputError: moments of another weighting.

    Source: Roy & Vetterli (2007), Definition 1, of the features of each class.
    """
    return _average_over_classes(moments, "the effective rank of a class", _entropy_rank, centred=True)


def _average_over_classes(
    moments: ClassMoments, name: str, rank: Callable[[Float[Tensor, " p"]], float], *, centred: bool
) -> float:
    """Average of a rank over the classes present, from the singular values of each one's features, maybe centred."""
    moments, ranks = moments.at_unit_scale(), []
    for label in moments.present.nonzero()[:, 0].tolist():
        mean = moments.means[label] * (not centred)
        singular = _stacked_singular_values(moments, moments.class_covariance(label), mean[None])
        if not bool(singular.any()):
            warn_undefined(name, f"all features of class {label} are {'equal' if centred else 'zero'}")
            return float("nan")
        ranks.append(rank(singular))
    return sum(ranks) / len(ranks)


def _stacked_singular_values(
    moments: ClassMoments, covariance: Float[Tensor, "p p"], rows: Float[Tensor, "k p"]
) -> Float[Tensor, " p"]:
    """Singular values, descending, of a root of the covariance above rows, without squaring the latter's condition."""
    values, vectors = torch.linalg.eigh(covariance)
    # a feature that is constant but for rounding has no spread of its own
    floor = rounding_bound(covariance, moments.product_eps)
    root = vectors.T * torch.where(values > floor, values, 0.0).sqrt()[:, None]
    singular: Tensor = torch.linalg.svdvals(torch.cat([root, rows]))
    return singular


def _entropy_rank(singular: Tensor) -> float:
    share = singular / singular.sum()
    return float(torch.special.entr(share).sum().exp())


def _own(moments: ClassMoments, name: str) -> ClassMoments:
    """The moments, which must be about the features' own class means for the number of this name."""
    if moments.about_reference:
        raise InputError(
            f"expected moments about the features' own class means for {name}, got moments about those of other data: "
            "give the features' own, as own= where a function takes both"
        )
    return moments


def _total_spectrum(moments: ClassMoments, name: str) -> Float[Tensor, " p"]:
    """Eigenvalues of Σ_T at unit scale, ascending, those that may be rounding set to zero."""
    moments = _own(moments, name).at_unit_scale()
    within, between = moments.within_covariance, moments.between_covariance
    bound = rounding_bound(within, moments.product_eps) + rounding_bound(between, torch.finfo(between.dtype).eps)
    total = within + between
    live = varies(moments, total.diagonal())
    values: Tensor = torch.linalg.eigvalsh(total * live * live[:, None])
    # n examples span n − 1 dimensions; rounding in the others would count by its square root in the entropy
    values[: max(0, len(values) - moments.num_examples + 1)] = 0.0
    return torch.where(values > bound, values, 0.0)
