"""Neural Regression Collapse: what takes the place of NC1 to NC4 where targets are vectors of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import Array, InputError, as_tensor, check_classifier, check_features
from neuralcollapse._linalg import of_moderate_size
from neuralcollapse.metrics.geometry import unit_rows
from neuralcollapse.metrics.undefined import one_warning, warn_undefined


@dataclass(frozen=True)
class RegressionCollapse:
    """NRC1 to NRC3, each zero at collapse.

    Attributes:
        nrc1: the share of the features, each of unit length, that is outside the span of their first t principal
            components, t the number of targets.
        nrc2: the share that is outside the span of the rows of W.
        nrc3: squared distance between the Gram matrix of W and Σ^{1/2} − √γ I, each scaled to norm 1, Σ the covariance
            of the targets.
        gamma: the γ from 0 to the least eigenvalue of Σ for which nrc3 is least.

    Example:
        >>> targets = torch.tensor([[1.0], [-1.0]])
        >>> measure_regression(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), targets, torch.tensor([[1.0, 0.0]])).nrc3
        0.0
    """

    nrc1: float
    nrc2: float
    nrc3: float
    gamma: float


@one_warning()
def measure_regression(
    features: Float[Tensor, "n p"] | Array, targets: Float[Tensor, "n t"] | Array, weight: Float[Tensor, "t p"] | Array
) -> RegressionCollapse:
    """Neural Regression Collapse of a last layer ŷ = W h + b.

        NRC1 = Ave ‖ĥ − P ĥ‖²,  NRC2 = Ave ‖ĥ − P_W ĥ‖²,  ĥ = h/‖h‖,
        NRC3 = min_γ ‖WWᵀ/‖WWᵀ‖_F − (Σ^{1/2} − √γ I)/‖Σ^{1/2} − √γ I‖_F‖_F²,  0 ≤ γ ≤ λ_min(Σ)

    P projects on the first t principal components of the features, which are centred for that, P_W on the rows of W.
    As in the authors' code, ĥ itself is not centred; where features have a large mean, give them less their mean.

    Features that vary in fewer than t directions, or alike in the t-th and the next, have no first t components: NRC1
    is then nan, with a warning, unless every choice gives the same number, such as 0 where all ĥ are in the directions
    that vary. What is below the rounding of features or W, of their own type, is no direction.

    Args:
        features: (n, p) that enter the last layer; targets: (n, t), or (n,) for one target; weight: (t, p).

    Returns:
        The numbers; nrc3 is 0 for one target, whose Gram matrix is one number. nan, with a warning, is what is not
        defined: nrc1 and nrc2 where a feature is zero, nrc3 where W is zero or all targets are equal.

    Raises:
        InputError: shapes that do not fit, NaN or infinity, or fewer than two examples.

    Source: Andriopoulos et al. (2024), The prevalence of neural collapse in neural multivariate regression, Section 3.

    Example:
        >>> targets = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> features = torch.cat([targets, torch.zeros(4, 3)], dim=1)
        >>> collapse = measure_regression(features, targets, torch.eye(2, 5))
        >>> round(collapse.nrc1, 12), round(collapse.nrc2, 12), round(collapse.nrc3, 12)
        (0.0, 0.0, 0.0)
    """
    rows, values = as_tensor(features, "features"), as_tensor(targets, "targets")
    check_features(rows)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) != len(rows) or len(rows) < 2:
        raise InputError(
            f"expected at least two examples and targets of shape (n, t), got features {tuple(rows.shape)} and targets "
            f"{tuple(values.shape)}"
        )
    layer = as_tensor(weight, "weight")
    check_classifier(layer, None, values.shape[1], rows.shape[1])
    if not bool(torch.isfinite(rows).all()) or not bool(torch.isfinite(values).all()):
        raise InputError("expected finite features and targets, got NaN or infinity in them")
    wide = (each.dtype == torch.float64 for each in (rows, layer))
    precisions = [torch.finfo(torch.float64 if is_wide else torch.float32).eps for is_wide in wide]
    rows, values, layer = (of_moderate_size(each.double().to(rows.device)) for each in (rows, values, layer))
    unit = unit_rows(rows)
    if not bool(rows.any(dim=1).all()):
        for name in ("NRC1", "NRC2"):
            warn_undefined(name, "a feature is zero")
        nrc1 = nrc2 = float("nan")
    else:
        _, singular, directions = torch.linalg.svd(layer, full_matrices=False)
        nrc1 = _outside_components(rows, unit, values.shape[1], precisions[0])
        nrc2 = _outside(unit, directions[singular > _rounding(layer, singular, directions, precisions[1])])
    structure, gamma = _structure(layer @ layer.T, values)
    return RegressionCollapse(nrc1, nrc2, structure, gamma)


def _outside(unit: Tensor, basis: Tensor) -> float:
    """Ave ‖ĥ − B ĥ‖²."""
    rest = unit - unit @ basis.T @ basis
    return float(rest.square().sum(dim=1).mean())


def _rounding(matrix: Tensor, singular: Tensor, directions: Tensor, eps: float) -> Tensor:
    """(k,) how large each singular value may be by rounding alone, of the decomposition and of the matrix's entries.

    Entries that were computed are right to some four roundings, each relative to its column's size.
    """
    own = 4.0 * eps * (directions.square() @ matrix.square().sum(dim=0)).sqrt()
    return torch.clamp(own, min=max(matrix.shape) * torch.finfo(matrix.dtype).eps * float(singular[0]))


def _outside_components(rows: Tensor, unit: Tensor, targets: int, eps: float) -> float:
    """NRC1; nan, with a warning, where the first components are not unique and neither is the number."""
    dim = rows.shape[1]
    if targets >= dim:  # they span all dimensions
        return 0.0
    _, singular, directions = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False)
    rounding = _rounding(rows, singular, directions, eps)
    varying = int((singular > rounding).long().cumprod(0).sum())
    if varying < targets:
        first, alike, why = varying, dim - varying, f"features vary in fewer than {targets} directions"
        within = unit - unit @ directions[:first].T @ directions[:first]
    else:
        last, off = singular[targets - 1], rounding[targets - 1]
        same = (singular - last).abs() <= off
        first, alike = int((singular > last + off).sum()), int(same.sum())
        why = f"features vary alike in the principal components {targets} and {targets + 1}"
        within = unit @ directions[same].T
    if alike > targets - first:
        # Any targets − first of these directions may be taken, which is the same number where ĥ is alike in each.
        shares = torch.linalg.svdvals(within).square() / len(unit)
        least = float(shares[alike - 1]) if len(shares) >= alike else 0.0
        if float(shares[0]) - least > max(rows.shape) * torch.finfo(rows.dtype).eps:
            warn_undefined("NRC1", why)
            return float("nan")
    return _outside(unit, directions[:targets])


def _structure(gram: Tensor, targets: Tensor) -> tuple[float, float]:
    """NRC3 and its γ."""
    centred = targets - targets.mean(dim=0)
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    roots = variances.clamp(min=0.0).sqrt()
    size = torch.linalg.matrix_norm(gram)
    if float(size) == 0.0 or float(roots[-1]) == 0.0:
        warn_undefined("NRC3", "the weight is zero" if float(size) == 0.0 else "all targets are equal")
        return float("nan"), float("nan")
    if len(roots) == 1:
        return 0.0, 0.0
    # In the basis of Σ's eigenvectors the distance depends on √γ = g through ⟨G, R − gI⟩/‖R − gI‖ alone, G the scaled
    # Gram matrix and R = Σ^{1/2}; that is a ratio with one stationary point, so the best g is there or at an end.
    scaled = (vectors.T @ gram @ vectors) / size
    count, trace, dot = len(roots), float(scaled.trace()), float(scaled.diagonal() @ roots)
    total, squares, most = float(roots.sum()), float(roots.square().sum()), float(roots[0])
    candidates = [0.0, most]
    denominator = count * dot - total * trace
    if denominator:
        candidates.append(min(max((total * dot - squares * trace) / denominator, 0.0), most))
    best = (float("inf"), 0.0)
    for root in candidates:
        target = torch.diag(roots - root)
        norm = torch.linalg.matrix_norm(target)
        if float(norm) > 1e-12 * float(roots[-1]):
            best = min(best, (float((scaled - target / norm).square().sum()), root**2))
    return best
