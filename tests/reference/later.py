"""The later metrics, pair by pair and with whole matrices, over the classes that are present."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from reference import collapse
from reference.collapse import centred_means
from reference.moments import Moments


def class_variances(features: np.ndarray, labels: np.ndarray, m: Moments) -> dict[int, float]:
    """v_c = Ave ‖h − μ_c‖² over the class."""
    return {
        c: sum(float(((h - m.means[c]) ** 2).sum()) for h in features[labels == c]) / m.counts[c] for c in m.present
    }


def cdnv(m: Moments, variances: dict[int, float]) -> float:
    pairs = list(itertools.permutations(m.present, 2))
    terms = [(variances[a] + variances[b]) / (2 * ((m.means[a] - m.means[b]) ** 2).sum()) for a, b in pairs]
    return sum(terms) / len(pairs)


def variability_ratio(m: Moments) -> float:
    return float(np.trace(m.within) / np.trace(m.between))


def variability_collapse_index(m: Moments, examples: int) -> float:
    """From the eigenvectors of Σ_T, whose rank is that of the centred features."""
    values, vectors = np.linalg.eigh(m.within + m.between)
    kept = values > 1e-13 * values[-1]
    top = vectors[:, kept]
    assert kept.sum() <= min(examples - 1, len(values))
    rank = min(len(m.present) - 1, len(values))
    # 1 − Σ b/t = Σ w/t over rank: the within part of the total, in the span of the between part
    basis = top / np.sqrt(values[kept])
    share = np.linalg.eigvalsh(basis.T @ m.within @ basis)
    # Directions without class means hold nothing but within-class variance: shares of 1, which the rest leaves over.
    return float(np.sort(share)[:rank].sum() / rank)


def stable_rank(m: Moments) -> float:
    total = m.within + m.between
    return float(np.trace(total) / np.linalg.norm(total, 2))


def effective_rank(features: np.ndarray, m: Moments) -> float:
    """From the singular values of the features themselves, each row by the root of its weight."""
    rows = np.sqrt(m.example_weights)[:, None] * (features - m.global_mean)
    singular = np.linalg.svd(rows, compute_uv=False)
    singular = singular[singular > 1e-12 * singular[0]]
    share = singular / singular.sum()
    return math.exp(-sum(q * math.log(q) for q in share))


def simplex_gram(size: int) -> np.ndarray:
    return np.eye(size) - np.ones((size, size)) / size


def etf_error(rows: np.ndarray) -> float:
    gram = rows @ rows.T
    return float(np.linalg.norm(gram / np.linalg.norm(gram) - simplex_gram(len(rows)) / math.sqrt(len(rows) - 1)))


def etf_distance(rows: np.ndarray) -> float:
    """By the rotation itself: U from the SVD of Eᵀ V (orthogonal Procrustes), then the distance of V from E U."""
    count, dim = rows.shape
    if dim < count - 1:
        return math.nan
    scaled = rows / np.linalg.norm(rows)
    frame = simplex_gram(count) / math.sqrt(count - 1)
    left, _, right = np.linalg.svd(frame.T @ scaled, full_matrices=False)
    # E has rank C − 1: what U does to its null vector is free, and does not count
    return float(np.linalg.norm(scaled - frame @ left @ right))


def units(rows: np.ndarray) -> list[np.ndarray]:
    return [row / math.sqrt(float(row @ row)) for row in rows]


def energies(rows: np.ndarray, kernel: Callable[[float], float]) -> tuple[float, float]:
    """(average, Std / |average|) of the kernel of the distances over ordered pairs."""
    values = [kernel(float(np.linalg.norm(a - b))) for a, b in itertools.permutations(units(rows), 2)]
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) / abs(mean)


def log_kernel(distance: float) -> float:
    return -math.log(distance)


def riesz_kernel(distance: float) -> float:
    return 1.0 / distance


def margin(rows: np.ndarray) -> float:
    """The least distance of a direction from the hull of the others: every face of the hull is tried."""
    directions = np.array(units(rows))
    return min(
        _distance_from_hull(np.delete(directions, label, axis=0) - direction)
        for label, direction in enumerate(directions)
    )


def _distance_from_hull(points: np.ndarray) -> float:
    """The least norm over all faces whose nearest point lies inside them."""
    best = math.inf
    for size in range(1, min(points.shape[0], points.shape[1] + 1) + 1):
        faces = points[np.array(list(itertools.combinations(range(len(points)), size)))]
        # min ‖Σ a x‖² with Σ a = 1, by its Lagrangian
        system = np.zeros((len(faces), size + 1, size + 1))
        system[:, :size, :size] = faces @ faces.transpose(0, 2, 1)
        system[:, :size, size] = system[:, size, :size] = 1.0
        target = np.zeros((len(faces), size + 1, 1))
        target[:, size] = 1.0
        share = np.linalg.solve(system, target)[:, :size, 0]
        inside = (share >= 0).all(axis=1)
        nearest = np.einsum("fs,fsp->fp", share[inside], faces[inside])
        best = min([best, *np.linalg.norm(nearest, axis=1)])
    return best


def frame_error(rows: np.ndarray) -> float:
    """‖UᵀU/‖UᵀU‖ − I_r/√r‖ of p × p matrices, I_r the projection on the r = min(p, C−1) leading eigenvectors."""
    directions = np.array(units(rows))
    rank = min(rows.shape[1], len(rows) - 1)
    products = directions.T @ directions
    leading = np.linalg.eigh(products)[1][:, ::-1][:, :rank]
    return float(np.linalg.norm(products / np.linalg.norm(products) - leading @ leading.T / math.sqrt(rank)))


def welch_excess(rows: np.ndarray) -> float:
    count, dim = rows.shape
    if count <= dim:
        return math.nan
    coherence = max(abs(float(a @ b)) for a, b in itertools.combinations(units(rows), 2))
    return coherence - math.sqrt((count - dim) / (dim * (count - 1)))


def duality_error(m: Moments, weight: np.ndarray) -> float:
    product = weight[m.present] @ centred_means(m).T
    target = simplex_gram(len(product)) / math.sqrt(len(product) - 1)
    return float(np.linalg.norm(product / np.linalg.norm(product) - target))


def nc3_trace(m: Moments, weight: np.ndarray) -> float:
    product = weight[m.present] @ centred_means(m).T
    return float(np.linalg.norm(product / np.trace(product) - simplex_gram(len(product)) / (len(product) - 1)))


def uniform_duality(m: Moments, weight: np.ndarray) -> float:
    cosines = [float(a @ b) for a, b in zip(units(weight[m.present]), units(centred_means(m)), strict=True)]
    mean = sum(cosines) / len(cosines)
    return math.sqrt(sum((v - mean) ** 2 for v in cosines) / (len(cosines) - 1)) / abs(mean)


def alignment_distance(m: Moments, weight: np.ndarray) -> float:
    pairs = list(zip(units(weight[m.present]), units(centred_means(m)), strict=True))
    return sum(float(np.linalg.norm(a - b)) for a, b in pairs) / len(pairs)


def nc0(weight: np.ndarray) -> float:
    return math.sqrt(sum(float(column.sum()) ** 2 for column in weight.T))


def nc5(m: Moments, outside: np.ndarray, origin: np.ndarray | float = 0.0) -> float:
    towards = units(outside.mean(axis=0)[None] - origin)[0]
    return sum(abs(float(unit @ towards)) for unit in units(m.means[m.present] - origin)) / len(m.present)


def biased(rows: np.ndarray, spread: Callable[[np.ndarray], float], pairs: bool) -> float:
    """A Std with divisor n from one with n − 1."""
    count = len(rows) * (len(rows) - 1) if pairs else len(rows)
    return spread(rows) * math.sqrt((count - 1) / count)


def nc3_uncentred(m: Moments, weight: np.ndarray) -> float:
    w, means = weight[m.present], m.means[m.present]
    return float(((w / np.linalg.norm(w) - means / np.linalg.norm(means)) ** 2).sum())


def every(
    features: np.ndarray, labels: np.ndarray, m: Moments, weight: np.ndarray, outside: np.ndarray
) -> dict[str, float]:
    """All of them, by their names in ``neuralcollapse.METRICS``."""
    found = {
        "cdnv": cdnv(m, class_variances(features, labels, m)),
        "variability_ratio": variability_ratio(m),
        "variability_collapse_index": variability_collapse_index(m, len(labels)),
        "stable_rank": stable_rank(m),
        "effective_rank": effective_rank(features, m),
        "duality_error": duality_error(m, weight),
        "uniform_duality": uniform_duality(m, weight),
        "alignment_distance": alignment_distance(m, weight),
        "nc0": nc0(weight),
        "nc5": nc5(m, outside),
        "nc5_centred": nc5(m, outside, m.global_mean),
        "nc1_undivided": len(m.present) * collapse.nc1(m),
        "nc3_uncentred": nc3_uncentred(m, weight),
        "nc3_unsquared": math.sqrt(collapse.nc3(m, weight)),
        "nc3_trace": nc3_trace(m, weight),
    }
    for side, rows in (("means", centred_means(m)), ("classifier", weight[m.present])):
        found[f"etf_error_{side}"] = etf_error(rows)
        found[f"etf_distance_{side}"] = etf_distance(rows)
        for name, kernel in (("log", log_kernel), ("riesz", riesz_kernel)):
            mean, variation = energies(rows, kernel)
            found[f"gnc2_{name}_{side}"], found[f"gnc2_{name}_variation_{side}"] = mean, variation
        found[f"margin_{side}"] = margin(rows)
        found[f"frame_error_{side}"] = frame_error(rows)
        found[f"welch_excess_{side}"] = welch_excess(rows)
        found[f"equinorm_{side}_biased"] = biased(rows, collapse.equinorm, pairs=False)
        found[f"equiangularity_{side}_biased"] = biased(rows, collapse.equiangularity, pairs=True)
    return found
