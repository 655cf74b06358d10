"""A well-written way to measure, to compare with: two passes over batches, no loop over classes or examples.

Class sums by ``index_add_`` in the first pass; in the second one product for the scatter, one for the outputs and
``torch.cdist`` for the nearest class mean; Cholesky factors and a thin SVD at the end. It keeps float32, so what it
gives is wrong where features have collapsed, and it has no answer where matrices are singular.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def index_add_two_pass(
    batches: Iterable[tuple[Tensor, Tensor]], weight: Tensor, bias: Tensor, weight_decay: float = 5e-4
) -> dict[str, float]:
    """NC1–NC4, the decomposition of the loss and the signal-to-noise spectrum."""
    batches = list(batches)
    classes, dim = weight.shape
    sums, counts = torch.zeros(classes, dim), torch.zeros(classes)
    for features, labels in batches:
        sums.index_add_(0, labels, features)
        counts += torch.bincount(labels, minlength=classes)
    means = sums / counts[:, None]
    scatter, agree, correct = torch.zeros(dim, dim), 0, 0
    for features, labels in batches:
        predicted = torch.addmm(bias, features, weight.T).argmax(dim=1)
        deviations = features - means[labels]
        scatter.addmm_(deviations.T, deviations)
        agree += int((predicted == torch.cdist(features, means).argmin(dim=1)).sum())
        correct += int((predicted == labels).sum())
    examples = float(counts.sum())
    within, means, prior = scatter.double() / examples, means.double(), counts.double() / examples
    centre = prior @ means
    centred = means - centre
    _, spread, directions = torch.linalg.svd(centred * prior.sqrt()[:, None], full_matrices=False)
    inverse = directions[: classes - 1] / spread[: classes - 1, None]
    shrink = weight_decay / (1 + weight_decay)
    system = within + (centred * prior[:, None]).T @ centred + shrink * torch.outer(centre, centre)
    system.diagonal().add_(weight_decay)
    right = prior[:, None] * (centred + shrink * centre)
    best = torch.cholesky_solve(right.T, torch.linalg.cholesky(system)).T
    best_bias = (prior - best @ centre) / (1 + weight_decay)

    def loss(w: Tensor, b: Tensor) -> tuple[float, float]:
        """Within and between classes."""
        size = weight_decay * (w.square().sum() + b.square().sum())
        misfit = (means @ w.T + b - torch.eye(classes, dtype=torch.float64)).square().sum(dim=1)
        return float(((w @ within) * w).sum() + size) / 2, float(prior @ misfit) / 2

    total = sum(loss(weight.double(), bias.double()))
    nc1, nc23 = loss(best, best_bias)
    found = {"mse.total": total, "mse.nc1": nc1, "mse.nc23": nc23, "mse.ls_perp": total - nc1 - nc23}
    off = ~torch.eye(classes, dtype=torch.bool)
    for side, rows in (("means", centred), ("classifier", weight.double())):
        unit, norms = torch.nn.functional.normalize(rows, dim=1), rows.norm(dim=1)
        cosines = (unit @ unit.T)[off]
        found[f"nc2.equinorm_{side}"] = float(norms.std() / norms.mean())
        found[f"nc2.equiangularity_{side}"] = float(cosines.std())
        found[f"nc2.maximal_angle_{side}"] = float((cosines + 1 / (classes - 1)).abs().mean())
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(within), centred.T, upper=False)
    return found | {
        "nc1": float(((inverse @ within) * inverse).sum()) / classes,
        "nc3": float((weight / weight.norm() - centred / centred.norm()).square().sum()),
        "nc4_mismatch": 1 - agree / examples,
        "accuracy": correct / examples,
        "snr_largest": float(torch.linalg.svdvals(whitened)[0]),
    }
