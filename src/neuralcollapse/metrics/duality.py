"""Later measures of the classifier against the class means."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import Array, InputError, as_classifier, as_tensor
from neuralcollapse._linalg import norm, scaled
from neuralcollapse.metrics.arguments import takes_features
from neuralcollapse.metrics.frames import gram_error, gram_trace_error
from neuralcollapse.metrics.geometry import unit_rows
from neuralcollapse.metrics.present_classes import has_two_classes, rows_and_means
from neuralcollapse.metrics.undefined import warn_undefined
from neuralcollapse.moments.class_moments import ClassMoments


@takes_features
def duality_error(
    moments: ClassMoments, weight: Float[Tensor, "c p"] | Array, *, centred: bool = True, centre_rows: bool = False
) -> float:
    """‖A/‖A‖_F − (I − 11ᵀ/C)/√(C−1)‖_F with A = W M̄ᵀ: self-duality and the simplex in one number, zero at both.

    Args:
        moments: of the features; weight: (C, p).
        centred: class means less μ_G; False takes μ_c themselves.
        centre_rows: the mean row is taken off W first, which changes no decision, as in the code of Zhou et al. (2022),
            Are all losses created equal.

    Source: Zhou et al. (2022), On the optimization landscape of neural collapse under MSE loss, Section 5;
    Zhu et al. (2021), Section 4.
    """
    pair = rows_and_means(moments, weight, "the duality error")
    if pair is None:
        return float("nan")
    rows, means = pair
    if not centred:
        means = moments.at_unit_scale().means[moments.present]
    return gram_error(centred_rows(rows) if centre_rows else rows, means)


def centred_rows(rows: Float[Tensor, "c p"]) -> Float[Tensor, "c p"]:
    """Rows less their mean, in float64."""
    return rows.double() - rows.mean(dim=0, dtype=torch.float64)


@takes_features
def nc3_trace(moments: ClassMoments, weight: Float[Tensor, "c p"] | Array) -> float:
    """‖A/tr A − (I − 11ᵀ/C)/(C−1)‖_F with A = W M̄ᵀ: the same, scaled by the trace instead of the norm.

    Args:
        moments: of the features; weight: (C, p).

    Source: Zhou et al. (2022), Section 5, with both sides of trace 1.
    """
    pair = rows_and_means(moments, weight, "the trace-normalised NC3")
    return float("nan") if pair is None else gram_trace_error(*pair)


@takes_features
def uniform_duality(moments: ClassMoments, weight: Float[Tensor, "c p"] | Array) -> float:
    """UNC3: Std_c ⟨ŵ_c, û_c⟩ / |Avg_c ⟨ŵ_c, û_c⟩|, unit classifier rows and unit centred class means; unbiased Std.

    Zero where all classes are aligned equally well, which is possible for C > p + 1 too.

    Args:
        moments: of the features; weight: (C, p).

    Source: Wu & Papyan (2024), Linguistic collapse: neural collapse in (large) language models, Section 3.
    """
    cosines = _of_directions(moments, weight, "UNC3", lambda rows, means: (rows * means).sum(dim=1))
    if cosines is None:
        return float("nan")
    mean = float(cosines.mean().abs())
    if mean == 0.0:
        warn_undefined("UNC3", "the cosines have a mean of zero")
        return float("nan")
    return float(cosines.std()) / mean


@takes_features
def alignment_distance(moments: ClassMoments, weight: Float[Tensor, "c p"] | Array) -> float:
    """GNC3: Avg_c ‖ŵ_c − û_c‖, unit classifier rows and unit centred class means.

    The authors' code has another number under this name: :func:`alignment_cosine` of features of unit length.

    Args:
        moments: of the features; weight: (C, p).

    Source: Jiang et al. (2024), Generalized neural collapse for a large number of classes.
    """
    distances = _of_directions(
        moments, weight, "GNC3", lambda rows, means: torch.linalg.vector_norm(rows - means, dim=1)
    )
    return float("nan") if distances is None else float(distances.mean())


@takes_features
def alignment_cosine(moments: ClassMoments, weight: Float[Tensor, "c p"] | Array) -> float:
    """GNC3 as its authors' code has it: Avg_c (1 − cos(w_c, μ_c − μ_G)).

    The code scales each feature to unit length first; give ``features / ‖h‖`` for its number, or ask a report of
    features for the metric ``alignment_cosine_unit``.

    Args:
        moments: of the features; weight: (C, p).

    Source: Jiang et al. (2024), Generalized neural collapse for a large number of classes, the published code.
    """
    # ½‖ŵ − û‖² = 1 − cos, without cancellation where both agree
    squares = _of_directions(moments, weight, "1 − cos of GNC3", lambda rows, means: (rows - means).square().sum(dim=1))
    return float("nan") if squares is None else float(0.5 * squares.mean())


@takes_features
def duality_products(moments: ClassMoments, weight: Float[Tensor, "c p"] | Array) -> Float[Tensor, " k"]:
    """⟨w_c, μ_c − μ_G⟩ of each class present, whose mean and unbiased variance are reported.

    Args:
        moments: of the features; weight: (C, p).

    Source: Wu & Papyan (2024), Linguistic collapse, the published code.
    """
    given, _ = as_classifier(weight, None, moments.num_classes, moments.means.shape[1])
    if not has_two_classes(moments, "⟨w, μ̄⟩"):
        return torch.full((int(moments.present.sum()),), torch.nan, dtype=torch.float64)
    exponent, moments = moments.exponent, moments.at_unit_scale()
    products = [
        (given[block].to(rows) * rows).double().sum(dim=1)[moments.present[block]]
        for block, rows in moments.centred_blocks()
    ]
    return scaled(torch.cat(products), exponent)


@takes_features
def principal_angles(moments: ClassMoments, weight: Float[Tensor, "c p"] | Array) -> Float[Tensor, " k"]:
    """Angles, in radians and ascending, between the span of the classifier and that of the centred class means.

    Both spans have k = min(C − 1, p) dimensions for C classes present: those of the leading right singular vectors of
    W and of M̄ᵀ. All angles vanish where the classifier uses the directions that separate the classes, and no others.

    Args:
        moments: of the features; weight: (C, p).

    Returns:
        (k,); nan, with a warning, where either has a lower rank.

    Source: Björck & Golub (1973), Numerical methods for computing angles between linear subspaces; Rangamani et al.
    (2023), Feature learning in deep classifiers through intermediate neural collapse, Section 3.
    """
    pair = rows_and_means(moments, weight, "the principal angles")
    if pair is None:
        return torch.full((1,), torch.nan, dtype=torch.float64)
    bases = []
    for vectors, what in zip(pair, ("the classifier's rows", "the class means"), strict=True):
        count = min(len(vectors) - 1, vectors.shape[1])
        _, values, directions = torch.linalg.svd(vectors.double(), full_matrices=False)
        if float(values[count - 1]) <= max(vectors.shape) * torch.finfo(vectors.dtype).eps * float(values[0]):
            warn_undefined("the principal angles", f"{what} span fewer than {count} dimensions")
            return torch.full((count,), torch.nan, dtype=torch.float64)
        bases.append(directions[:count])
    rows, means = bases
    cosines = torch.linalg.svdvals(rows @ means.T).clamp(max=1.0)
    # where an angle is small its sine is exact, where it is large its cosine
    sines = torch.linalg.svdvals(means - means @ rows.T @ rows).flip(0).clamp(max=1.0)
    return torch.where(cosines.square() < 0.5, cosines.arccos(), sines.arcsin())


@takes_features
def bias_collapse(
    moments: ClassMoments, weight: Float[Tensor, "c p"] | Array, bias: Float[Tensor, " c"] | Array | None = None
) -> float:
    """‖W μ_G + b‖₂, the logits at the global mean: zero where the bias takes the global mean off the features.

    Args:
        moments: of the features; weight: (C, p); bias: (C,), or None for a layer without one.

    Source: Zhu et al. (2021), A geometric analysis of neural collapse with unconstrained features, the published code;
    some copies of it have ‖W μ_G − b‖.
    """
    rows, offset = as_classifier(weight, bias, moments.num_classes, moments.means.shape[1])
    logits = rows.to(moments.means).double() @ moments.global_mean.double()
    return norm(logits if offset is None else logits + offset.to(logits))


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


def _of_directions(
    moments: ClassMoments, weight: Tensor | Array, name: str, measure: Callable[[Tensor, Tensor], Tensor]
) -> Tensor | None:
    """A number of each class present, from unit classifier rows and unit centred means; None as `rows_and_means`."""
    pair = rows_and_means(moments, weight, name, directions=True)
    if pair is None:
        return None
    blocks = zip(torch.split(pair[0], 8192), torch.split(pair[1], 8192), strict=True)
    return torch.cat([measure(unit_rows(rows), unit_rows(means)) for rows, means in blocks])
