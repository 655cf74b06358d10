"""NC1 to NC4 and the signal-to-noise spectrum, over the classes that are present."""

from __future__ import annotations

import math

import mpmath
import numpy as np

from reference.moments import Moments


def nc1(m: Moments) -> float:
    """tr(Σ_W Σ_B⁺) / C, from the eigenvectors of the p × p matrix Σ_B."""
    rank = min(len(m.present) - 1, m.within.shape[0])
    values, vectors = np.linalg.eigh(m.between)
    top = range(len(values) - rank, len(values))
    return sum(vectors[:, j] @ m.within @ vectors[:, j] / values[j] for j in top) / len(m.present)


def nc1_mpmath(features: np.ndarray, labels: np.ndarray, weighting: str, digits: int = 50) -> float:
    """The same with 50 digits, for p ≥ C − 1, from the features exactly as stored.

    With B = M̄ diag(√π) and G = BᵀB, whose one null vector is q = √π:  Σ_B⁺ = B (G⁺)² Bᵀ,  G⁺ = (G + qqᵀ)⁻¹ − qqᵀ.
    """
    with mpmath.workdps(digits):
        classes = sorted(set(labels.tolist()))
        groups = {c: [[mpmath.mpf(float(v)) for v in h] for h in features[labels == c]] for c in classes}
        n, p = len(labels), features.shape[1]
        pi = {
            c: mpmath.mpf(len(groups[c])) / n if weighting == "example" else mpmath.mpf(1) / len(classes)
            for c in classes
        }
        means = {c: [mpmath.fsum(h[j] for h in groups[c]) / len(groups[c]) for j in range(p)] for c in classes}
        centre = [mpmath.fsum(pi[c] * means[c][j] for c in classes) for j in range(p)]
        root = [mpmath.sqrt(pi[c]) for c in classes]
        b = mpmath.matrix(p, len(classes))
        for k, c in enumerate(classes):
            for j in range(p):
                b[j, k] = root[k] * (means[c][j] - centre[j])
        q = mpmath.matrix(root)
        gram_pinv = (b.T * b + q * q.T) ** -1 - q * q.T
        directions = b * gram_pinv  # Σ_B⁺ = D Dᵀ
        total = mpmath.mpf(0)
        for c in classes:
            for h in groups[c]:
                deviation = mpmath.matrix([h[j] - means[c][j] for j in range(p)])
                projected = directions.T * deviation
                total += pi[c] / len(groups[c]) * mpmath.fsum(v * v for v in projected)
        return float(total / len(classes))


def equinorm(rows: np.ndarray) -> float:
    """Std / Avg of the norms of the rows, the Std unbiased."""
    norms = [math.sqrt(sum(v * v for v in row)) for row in rows]
    average = sum(norms) / len(norms)
    return math.sqrt(sum((v - average) ** 2 for v in norms) / (len(norms) - 1)) / average


def _cosines(rows: np.ndarray) -> list[float]:
    size = range(len(rows))
    norm = np.linalg.norm
    return [float(rows[i] @ rows[j] / (norm(rows[i]) * norm(rows[j]))) for i in size for j in size if i != j]


def equiangularity(rows: np.ndarray) -> float:
    """Unbiased Std of the cosines over ordered pairs c ≠ c'."""
    cosines = _cosines(rows)
    average = sum(cosines) / len(cosines)
    return math.sqrt(sum((v - average) ** 2 for v in cosines) / (len(cosines) - 1))


def maximal_angle(rows: np.ndarray) -> float:
    """Average of |cos + 1/(C − 1)| over ordered pairs."""
    cosines = _cosines(rows)
    return sum(abs(v + 1 / (len(rows) - 1)) for v in cosines) / len(cosines)


def centred_means(m: Moments) -> np.ndarray:
    return m.means[m.present] - m.global_mean


def nc3(m: Moments, weight: np.ndarray) -> float:
    """Σ (Wᵀ/‖W‖ − M̄/‖M̄‖)² entry by entry, over the rows of present classes."""
    w, mbar = weight[m.present], centred_means(m)
    w_norm, m_norm = math.sqrt((w**2).sum()), math.sqrt((mbar**2).sum())
    return sum((a / w_norm - b / m_norm) ** 2 for a, b in zip(w.ravel(), mbar.ravel(), strict=True))


def nc4_mismatch(m: Moments, features: np.ndarray, weight: np.ndarray, bias: np.ndarray, labels: np.ndarray) -> float:
    """Share of examples whose decision is not the nearest mean among the present classes."""
    differing = 0
    for h in features:
        decision = int(np.argmax(weight @ h + bias))
        nearest = min(m.present, key=lambda c: np.linalg.norm(h - m.means[c]))
        differing += decision != nearest
    return differing / len(labels)


def snr_singular_values(m: Moments) -> np.ndarray:
    """Singular values of Σ_W^{-1/2} M̄ for nonsingular Σ_W: roots of the eigenvalues of M̄ᵀ Σ_W⁻¹ M̄."""
    mbar = centred_means(m)
    rank = min(len(m.present) - 1, mbar.shape[1])
    values = np.linalg.eigvalsh(mbar @ np.linalg.solve(m.within, mbar.T))
    return np.sqrt(values[::-1][:rank])
