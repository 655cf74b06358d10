"""How far each class, or each example, is from being taken for another class."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from neuralcollapse._checks import (
    Array,
    InputError,
    as_classifier,
    as_labels,
    as_tensor,
    check_features,
    check_finite,
    check_labels,
)
from neuralcollapse._errors import install
from neuralcollapse._linalg import of_moderate_size, power_of_two, scaled
from neuralcollapse.metrics.geometry import as_rows, have_directions, unit_rows
from neuralcollapse.metrics.undefined import warn_undefined
from neuralcollapse.moments.blocks import rows_per_block


def one_vs_rest_margin(vectors: Float[Tensor, "c p"] | Array) -> float:
    """min_c of the distance of u_c from the convex hull of the other u_c', u = v/‖v‖; C/(C−1) at a simplex ETF.

    Generalised Neural Collapse for C > p maximises it. Each class is a small quadratic programme, solved exactly by
    non-negative least squares: the work grows like C³ min(C, p), seconds for a hundred classes.

    Raises:
        InputError: SciPy is not installed.

    Source: Jiang et al. (2024), Generalized neural collapse for a large number of classes, Definition 2.
    """
    try:
        from scipy.optimize import nnls
    except ImportError:
        raise InputError(f"the one-vs-rest margin needs SciPy: {install('scipy')}") from None
    vectors = as_rows(vectors)
    if not have_directions(vectors, "the one-vs-rest margin"):
        return float("nan")
    unit = unit_rows(vectors)
    if unit.shape[1] > len(unit):  # the same vectors in the coordinates of the space they span
        unit = torch.linalg.qr(unit.T, mode="r").R.T
    unit = unit.cpu()
    margin = float("inf")
    for label in range(len(unit)):
        others = torch.cat([unit[:label], unit[label + 1 :]]) - unit[label]
        # The least ‖Σ a_i d_i‖ over a ≥ 0, Σ a = 1 has the direction of the least ‖Dᵀa‖² + (1ᵀa − 1)².
        system = torch.cat([others.T, others.new_ones(1, len(others))]).numpy()
        target = torch.zeros(len(system), dtype=torch.float64)
        target[-1] = 1.0
        share = torch.from_numpy(nnls(system, target.numpy())[0])
        margin = min(margin, float(torch.linalg.vector_norm(share @ others / share.sum())))
    return margin


def cosine_margins(
    features: Float[Tensor, "n p"] | Array,
    labels: Integer[Tensor, " n"] | Array,
    weight: Float[Tensor, "c p"] | Array,
    *,
    centre: Float[Tensor, " p"] | Array | None = None,
) -> Float[Tensor, " n"]:
    """cos(w̃_y, h − m) − max_{c ≠ y} cos(w̃_c, h − m) of each example, w̃ = w − Avg_c w_c, m the global mean.

    Positive where the angles alone classify the example correctly; C/(C−1) for features at a simplex ETF with its own
    classifier. nan, with a warning, where a feature equals the mean or a row of the classifier the mean row.

    Args:
        features: (n, p); labels: (n,); weight: (C, p).
        centre: (p,) m, such as ``moments.global_mean`` of the training features, which reports take (under
            ``weighting="class"`` the mean of the class means); by default the mean of these examples.

    Raises:
        InputError: shapes that do not fit one another; labels outside 0 … C − 1; NaN or infinity.

    Source: Zhou et al. (2022), Are all losses created equal: a neural collapse perspective, Section 4.
    """
    features, labels = as_tensor(features, "features"), as_labels(labels)
    check_features(features)
    check_finite(features)
    shape = as_tensor(weight, "weight").shape
    if len(shape) != 2 or shape[0] < 2:
        raise InputError(f"expected a classifier weight of shape (C, p) with C ≥ 2, got {tuple(shape)}")
    rows, _ = as_classifier(weight, None, shape[0], features.shape[1])
    check_labels(labels, len(features), len(rows))
    rows = of_moderate_size(rows).to(features.device).double()
    rows = rows - rows.mean(dim=0)
    if not have_directions(rows, "the cosine margin"):
        return torch.full((len(features),), torch.nan, dtype=torch.float64)
    features, middle = _about(features, centre)
    unit, labels, found = unit_rows(rows), labels.to(features.device, torch.int64), []
    step = rows_per_block(features)
    for part, own in zip(torch.split(features, step), torch.split(labels, step), strict=True):
        cosines = unit_rows(part.double() - middle) @ unit.T
        mine = cosines.gather(1, own[:, None])[:, 0]
        found.append(mine - cosines.scatter(1, own[:, None], -torch.inf).amax(dim=1))
    margins = torch.cat(found)
    if bool(margins.isnan().any()):
        warn_undefined("the cosine margin", "an example equals the mean")
    return margins


def _about(features: Tensor, centre: Tensor | Array | None) -> tuple[Tensor, Tensor]:
    """(features, m in float64), both divided by one power of two where their squares could overflow or vanish."""
    given = None if centre is None else as_tensor(centre, "centre").to(features.device).double()
    if given is not None and given.shape != features.shape[1:]:
        raise InputError(f"expected a centre of shape ({features.shape[1]},), got {tuple(given.shape)}")
    if given is not None and not bool(torch.isfinite(given).all()):
        raise InputError("expected a finite centre, got NaN or infinity in it: give the mean of finite features")
    sizes = [power_of_two(each) for each in (features, given) if each is not None]
    largest = max((size for size in sizes if size is not None), default=0)
    exponent = largest if abs(largest) > 200 else 0
    if exponent:
        features = scaled(features.double(), -exponent)
    return features, features.double().mean(dim=0) if given is None else scaled(given, -exponent)
