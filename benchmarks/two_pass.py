"""The straightforward way to measure, written plainly to compare with: two passes, loops over classes.

Class means in the first pass; covariance, accuracy and nearest class mean in the second, example by example where
published code does so; pseudo-inverse and SVD of p × p matrices at the end.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def two_pass(batches: Iterable[tuple[Tensor, Tensor]], weight: Tensor, bias: Tensor) -> dict[str, float]:
    """NC1–NC4 and the decomposition of the loss, as one would first write them."""
    batches = list(batches)
    classes, dim = weight.shape
    sums, counts = torch.zeros(classes, dim), torch.zeros(classes)
    for features, labels in batches:
        for label in range(classes):
            chosen = features[labels == label]
            sums[label] += chosen.sum(dim=0)
            counts[label] += len(chosen)
    means = sums / counts[:, None]
    within = torch.zeros(dim, dim)
    loss, agree = 0.0, 0
    for features, labels in batches:
        outputs = features @ weight.T + bias
        loss += float(0.5 * (outputs - torch.nn.functional.one_hot(labels, classes)).square().sum())
        for label in range(classes):
            chosen = features[labels == label]
            deviations = chosen - means[label]
            within += deviations.T @ deviations
            predicted = outputs[labels == label].argmax(dim=1)
            if len(chosen):
                distances = torch.stack([torch.linalg.vector_norm(h - means, dim=1) for h in chosen])
                agree += int((predicted == distances.argmin(dim=1)).sum())
    examples = float(counts.sum())
    within /= examples
    centre = means.mean(dim=0)
    centred = means - centre
    between = centred.T @ centred / classes
    vectors, values, _ = torch.linalg.svd(between)
    inverse = vectors[:, : classes - 1] @ torch.diag(1 / values[: classes - 1]) @ vectors[:, : classes - 1].T
    eigenvalues, eigenvectors = torch.linalg.eigh(within)
    whitening = eigenvectors @ torch.diag(eigenvalues.clamp(min=1e-12).rsqrt()) @ eigenvectors.T
    extended = torch.cat([means, torch.ones(classes, 1)], dim=1)
    second = torch.zeros(dim + 1, dim + 1)
    second[:dim, :dim] = within + between
    mean = torch.cat([centre, torch.ones(1)])
    optimum = (extended / classes) @ torch.linalg.pinv(second + torch.outer(mean, mean))
    cosines = torch.nn.functional.cosine_similarity(centred[:, None], centred[None], dim=2)
    off = cosines[~torch.eye(classes, dtype=torch.bool)]
    norms = torch.linalg.vector_norm(centred, dim=1)
    return {
        "nc1": float(torch.trace(within @ inverse)) / classes,
        "equinorm": float(norms.std() / norms.mean()),
        "equiangularity": float(off.std()),
        "maximal_angle": float((off + 1 / (classes - 1)).abs().mean()),
        "nc3": float((weight / weight.norm() - centred / centred.norm()).square().sum()),
        "nc4_mismatch": 1 - agree / examples,
        "loss": loss / examples,
        "ls": float(0.5 * (optimum @ extended.T - torch.eye(classes)).square().sum() / classes),
        "snr": float(torch.linalg.svdvals(whitening @ centred.T)[0]),
    }
