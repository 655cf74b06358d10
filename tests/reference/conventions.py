"""What published code measures, each number from the features themselves by the formula of its source.

Written apart from the package: loops over classes, examples and pairs, whole covariance matrices, no class moments.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FeatureSet:
    """Features with their labels and a classifier.

    Attributes:
        features: (n, p); labels: (n,); weight: (C, p); bias: (C,).
    """

    features: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    @property
    def classes(self) -> list[int]:
        return sorted(set(self.labels.tolist()))

    def of(self, c: int) -> np.ndarray:
        return self.features[self.labels == c]

    def mean(self, c: int) -> np.ndarray:
        # about one of them, so that a small spread beside a large mean keeps its digits
        members = self.of(c)
        return members[0] + (members - members[0]).sum(axis=0) / len(members)

    def means(self) -> np.ndarray:
        return np.array([self.mean(c) for c in self.classes])

    def rows(self) -> np.ndarray:
        return self.weight[self.classes]

    def scatter(self, c: int) -> np.ndarray:
        return sum(np.outer(h - self.mean(c), h - self.mean(c)) for h in self.of(c))

    def class_shares(self, weighting: str) -> np.ndarray:
        counts = np.array([float(len(self.of(c))) for c in self.classes])
        return counts / counts.sum() if weighting == "example" else np.full(len(counts), 1.0 / len(counts))

    def centre(self, weighting: str) -> np.ndarray:
        return sum(share * mean for share, mean in zip(self.class_shares(weighting), self.means(), strict=True))


def covariances(data: FeatureSet, within: str, between: str, centre: str, divisor: int = 0) -> tuple[np.ndarray, ...]:
    """Σ_W and Σ_B, each averaged over "example" or "class", Σ_B about the mean of either; divisor n_c − ``divisor``."""
    mean = data.centre(centre)
    w = sum(
        share * data.scatter(c) / (len(data.of(c)) - divisor)
        for c, share in zip(data.classes, data.class_shares(within), strict=True)
    )
    b = sum(
        share * np.outer(m - mean, m - mean) for m, share in zip(data.means(), data.class_shares(between), strict=True)
    )
    return w, b


def nc1(w: np.ndarray, b: np.ndarray, classes: int) -> float:
    """tr(Σ_W Σ_B⁺)/C, the pseudo-inverse by the eigenvectors of Σ_B, of which at most C − 1 are not null."""
    values, vectors = np.linalg.eigh(b)
    total = 0.0
    for j in range(len(values) - min(classes - 1, len(values)), len(values)):
        total += vectors[:, j] @ w @ vectors[:, j] / values[j]
    return float(total / classes)


def collapse_index(w: np.ndarray, b: np.ndarray, classes: int) -> float:
    """1 − tr((Σ_W + Σ_B)⁺ Σ_B)/rank, from the small side: in coordinates where Σ_T is the identity."""
    values, vectors = np.linalg.eigh(w + b)
    kept = values > 1e-13 * values[-1]
    basis = vectors[:, kept] / np.sqrt(values[kept])
    rank = min(classes - 1, int(kept.sum()))
    return float(np.sort(np.linalg.eigvalsh(basis.T @ w @ basis))[:rank].sum() / rank)


def cdnv(data: FeatureSet, power: int, divisor: int = 0) -> float:
    """Average over ordered pairs of classes of (v + v')/2 over the distance to a power."""
    terms = []
    for a, b in itertools.permutations(data.classes, 2):
        variances = [float(((data.of(c) - data.mean(c)) ** 2).sum() / (len(data.of(c)) - divisor)) for c in (a, b)]
        terms.append(sum(variances) / 2 / math.dist(data.mean(a), data.mean(b)) ** power)
    return sum(terms) / len(terms)


def silhouette(data: FeatureSet) -> float:
    """Rousseeuw's s(i), example by example."""
    total = 0.0
    for i, h in enumerate(data.features):
        own = data.labels[i]
        distances = {c: [math.dist(h, other) for other in data.of(c)] for c in data.classes}
        if len(distances[own]) == 1:
            continue
        a = sum(distances[own]) / (len(distances[own]) - 1)
        b = min(sum(distances[c]) / len(distances[c]) for c in data.classes if c != own)
        total += (b - a) / max(a, b) if max(a, b) else 0.0
    return total / len(data.features)


def entropy_rank(singular: np.ndarray) -> float:
    shares = [s / singular.sum() for s in singular if s > 1e-12 * singular.max()]
    return math.exp(-sum(q * math.log(q) for q in shares))


def rankme(data: FeatureSet, weighting: str) -> float:
    """Of the matrix of features, each row by the root of its weight, with the ε of the paper inside the entropy."""
    counts = {c: len(data.of(c)) for c in data.classes}
    shares = dict(zip(data.classes, data.class_shares(weighting), strict=True))
    roots = np.array([math.sqrt(shares[y] / counts[y]) for y in data.labels.tolist()])
    singular = np.linalg.svd(data.features * roots[:, None], compute_uv=False)
    shares_of = singular / singular.sum() + 1e-7
    return math.exp(-sum(q * math.log(q) for q in shares_of))


def numerical_rank(data: FeatureSet) -> float:
    """Average over classes of the squared ratio of nuclear and Frobenius norm of the class's feature matrix."""
    ratios = [np.linalg.norm(data.of(c), "nuc") / np.linalg.norm(data.of(c), "fro") for c in data.classes]
    return float(np.mean([ratio**2 for ratio in ratios]))


def class_effective_rank(data: FeatureSet) -> float:
    ranks = [entropy_rank(np.linalg.svd(data.of(c) - data.mean(c), compute_uv=False)) for c in data.classes]
    return sum(ranks) / len(ranks)


def log_equinorm(rows: np.ndarray) -> float:
    logs = [0.5 * math.log(float(row @ row)) for row in rows]
    mean = sum(logs) / len(logs)
    return math.sqrt(sum((v - mean) ** 2 for v in logs) / (len(logs) - 1)) / mean


def against_simplex(product: np.ndarray) -> float:
    """‖A/‖A‖ − (I − 11ᵀ/C)/√(C−1)‖."""
    count = len(product)
    target = (np.eye(count) - np.ones((count, count)) / count) / math.sqrt(count - 1)
    return float(np.linalg.norm(product / np.linalg.norm(product) - target))


def less_mean_row(rows: np.ndarray) -> np.ndarray:
    return rows - rows.sum(axis=0) / len(rows)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / math.sqrt(float(vector @ vector))


def kernel_statistics(rows: np.ndarray, kernel: str) -> tuple[float, float]:
    """Average, and Std over |average|, of a kernel over ordered pairs of directions."""
    exponent = rows.shape[1] - 2
    values = []
    for a, b in itertools.permutations([unit(row) for row in rows], 2):
        distance = float(np.linalg.norm(a - b))
        values.append(distance if kernel == "distance" else float(np.sign(exponent)) * distance**-exponent)
    mean = sum(values) / len(values)
    if not any(values):
        return 0.0, math.nan
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) / abs(mean)


def cosine_margin(data: FeatureSet, centre: np.ndarray) -> float:
    """Average over examples of the cosine with the own row less the largest with another, all centred."""
    rows = [unit(row) for row in less_mean_row(data.weight)]
    margins = []
    for h, y in zip(data.features, data.labels.tolist(), strict=True):
        direction = unit(h - centre)
        cosines = [float(row @ direction) for row in rows]
        margins.append(cosines[y] - max(cos for c, cos in enumerate(cosines) if c != y))
    return sum(margins) / len(margins)


def one_minus_cosine(rows: np.ndarray, means: np.ndarray) -> float:
    values = [1.0 - float(unit(a) @ unit(b)) for a, b in zip(rows, means, strict=True)]
    return sum(values) / len(values)


def principal_angles(rows: np.ndarray, means: np.ndarray) -> np.ndarray:
    """SciPy's, by Knyazev and Argentati, of the leading C − 1 right singular vectors."""
    from scipy.linalg import subspace_angles

    count = min(len(rows) - 1, rows.shape[1])
    first, second = (np.linalg.svd(matrix, full_matrices=False)[2][:count].T for matrix in (rows, means))
    return subspace_angles(first, second)


def every(data: FeatureSet, weighting: str, outside: np.ndarray | None = None) -> dict[str, float]:
    """By their names in ``neuralcollapse.METRICS``; those of a class's scatter only for the weighting by class."""
    count, rows = len(data.classes), data.rows()
    centre = data.centre(weighting)
    means = data.means() - centre
    found: dict[str, float] = {}
    for name, about in (("mixed", "class"), ("mixed_example_mean", "example")):
        w, b = covariances(data, "example", "class", about)
        found[f"nc1_{name}"] = nc1(w, b, count)
        found[f"variability_ratio_{name}"] = float(np.trace(w) / np.trace(b))
        found[f"variability_collapse_index_{name}"] = collapse_index(w, b, count)
    single = min(len(data.of(c)) for c in data.classes) == 1
    found["cdnv_fourth_power"] = cdnv(data, 4)
    found["cdnv_unbiased"] = math.nan if single else cdnv(data, 2, divisor=1)
    if single:
        found["variability_ratio_unbiased"] = found["nc1_unbiased"] = math.nan
    else:
        w, b = covariances(data, weighting, weighting, weighting, divisor=1)
        found["variability_ratio_unbiased"] = float(np.trace(w) / np.trace(b))
        found["nc1_unbiased"] = nc1(w, b, count)
    found["rankme"] = rankme(data, weighting)
    found["class_numerical_rank"] = numerical_rank(data)
    found["class_effective_rank"] = math.nan if single else class_effective_rank(data)
    for side, vectors in (("means", means), ("classifier", rows)):
        found[f"equinorm_{side}_log"] = log_equinorm(vectors)
        for name in ("distance", "riesz_p_2"):
            mean, variation = kernel_statistics(vectors, name)
            found[f"gnc2_{name}_{side}"], found[f"gnc2_{name}_variation_{side}"] = mean, variation
    centred = less_mean_row(rows)
    found["etf_error_classifier_centred"] = against_simplex(centred @ centred.T)
    found["duality_error_centred"] = against_simplex(centred @ means.T)
    found["duality_error_uncentred"] = against_simplex(rows @ data.means().T)
    products = np.array([float(w @ m) for w, m in zip(rows, means, strict=True)])
    found["duality_product_mean"] = float(products.mean())
    found["duality_product_variance"] = float(((products - products.mean()) ** 2).sum() / (count - 1))
    found["alignment_cosine"] = one_minus_cosine(rows, means)
    angles = principal_angles(rows, means)
    found["principal_angle_mean"], found["principal_angle_largest"] = float(angles.mean()), float(angles.max())
    found["bias_collapse"] = float(np.linalg.norm(data.weight @ centre + data.bias))
    if weighting != "class":
        for name in ("nc1_unbiased", "class_numerical_rank", "class_effective_rank"):
            del found[name]
    return found


def of_examples(data: FeatureSet, weighting: str) -> dict[str, float]:
    """Those that need the examples themselves."""
    units = FeatureSet(np.array([unit(h) for h in data.features]), data.labels, data.weight, data.bias)
    return {
        "silhouette": silhouette(data),
        "alignment_cosine_unit": one_minus_cosine(data.rows(), units.means() - units.centre(weighting)),
        "cosine_margin": cosine_margin(data, data.centre(weighting)),
    }
