"""The loss of MATHEMATICS §3 and its decomposition of §4, from the examples themselves rather than their moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reference.moments import Moments


@dataclass(frozen=True)
class Terms:
    total: float
    nc1: float
    nc23: float
    ls: float
    ls_perp: float
    weight_ls: np.ndarray
    bias_ls: np.ndarray


def loss(
    m: Moments, features: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray, weight_decay: float
) -> float:
    """½ Ave ‖W h + b − y‖² + λ/2 ‖[W, b]‖², summed example by example."""
    total = 0.0
    for share, h, y in zip(m.example_weights, features, labels, strict=True):
        residual = weight @ h + bias
        residual[y] -= 1.0
        total += 0.5 * share * float(residual @ residual)
    return total + 0.5 * weight_decay * (float((weight**2).sum()) + float((bias**2).sum()))


def least_squares(m: Moments, features: np.ndarray, labels: np.ndarray, weight_decay: float) -> np.ndarray:
    """(C, p + 1): the minimiser, by an SVD of the weighted design matrix; of minimum norm where λ = 0 leaves a choice.

    The normal equations, and so K, are never formed: √λ I is appended to the design as further rows.
    """
    root = np.sqrt(m.example_weights)[:, None]
    design = root * np.hstack([features, np.ones((len(features), 1))])
    target = root * np.eye(len(m.counts))[labels]
    if weight_decay > 0:
        width = design.shape[1]
        design = np.vstack([design, np.sqrt(weight_decay) * np.eye(width)])
        target = np.vstack([target, np.zeros((width, target.shape[1]))])
    return np.linalg.lstsq(design, target, rcond=1e-11)[0].T


def decompose(
    m: Moments, features: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray, weight_decay: float
) -> Terms:
    """Every term from its own definition: sums over examples and classes, no traces."""
    optimum = least_squares(m, features, labels, weight_decay)
    w, b = optimum[:, :-1], optimum[:, -1]
    nc1 = 0.5 * weight_decay * float((optimum**2).sum())
    ls_perp = 0.5 * weight_decay * float(((weight - w) ** 2).sum() + ((bias - b) ** 2).sum())
    for share, h, y in zip(m.example_weights, features, labels, strict=True):
        nc1 += 0.5 * share * float(np.sum((w @ (h - m.means[y])) ** 2))
        ls_perp += 0.5 * share * float(np.sum(((weight - w) @ h + bias - b) ** 2))
    nc23 = 0.0
    for c in m.present:
        residual = w @ m.means[c] + b
        residual[c] -= 1.0
        nc23 += 0.5 * m.class_weights[c] * float(residual @ residual)
    ls = loss(m, features, labels, w, b, weight_decay)
    total = loss(m, features, labels, weight, bias, weight_decay)
    return Terms(total, nc1, nc23, ls, ls_perp, w, b)
