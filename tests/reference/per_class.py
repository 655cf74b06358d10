"""The numbers of each class, one example and one pair of classes at a time."""

from __future__ import annotations

import numpy as np

from reference.moments import Moments


def class_numbers(
    m: Moments, features: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> dict[int, dict[str, float]]:
    """By present class; Σ_B⁺ is NumPy's pseudo-inverse of the p × p matrix Σ_B, of rank min(C − 1, p)."""
    rank = min(len(m.present) - 1, features.shape[1])
    values, vectors = np.linalg.eigh(m.between)
    inverse = sum(np.outer(vectors[:, j], vectors[:, j]) / values[j] for j in range(len(values))[-rank:])
    found = {}
    for c in m.present:
        members = features[labels == c]
        decided = [int(np.argmax(weight @ h + bias)) for h in members]
        nearest = [min(m.present, key=lambda k: np.linalg.norm(h - m.means[k])) for h in members]
        scatter = sum(np.outer(h - m.means[c], h - m.means[c]) for h in members) / len(members)
        cosines = {k: _cosine(m.means[c] - m.global_mean, m.means[k] - m.global_mean) for k in m.present if k != c}
        other = max(cosines, key=cosines.get)
        own = float(np.trace(scatter @ inverse)) / len(m.present)
        found[int(c)] = {
            "label": int(c),
            "examples": len(members),
            "accuracy": decided.count(c) / len(members),
            "nearest_mean_accuracy": nearest.count(c) / len(members),
            "nc4_mismatch": sum(a != b for a, b in zip(decided, nearest, strict=True)) / len(members),
            "mean_norm": float(np.linalg.norm(m.means[c] - m.global_mean)),
            "variability": float(np.mean([np.sum((h - m.means[c]) ** 2) for h in members])),
            "nc1": own,
            "nc1_share": float(m.class_weights[c]) * own,
            "nearest": str(other),
            "nearest_cosine": cosines[other],
            "duality": _cosine(weight[c], m.means[c] - m.global_mean),
        }
    return found


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
