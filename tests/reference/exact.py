"""Every number of a report, in exact arithmetic: features are taken as the rational numbers that their floats are.

Means, covariances, ranks, linear systems and traces are fractions, so that no threshold decides whether a direction is
null. Roots and eigenvalues come last, by mpmath with 100 digits. Slow: for C ≤ 6, p ≤ 10 and n ≤ 50.

Where a number is a quotient of zeros it is nan; where it is a limit that is infinite it is inf.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import mpmath
import numpy as np
from mpmath import mpf

Vector = list[Fraction]
Matrix = list[Vector]

DIGITS = 100
NAN, INF = math.nan, math.inf


def rational(values: Any) -> Any:
    """Floats as the fractions they are, in nested lists of the same shape."""
    array = np.asarray(values, dtype=np.float64)
    return [rational(row) for row in array] if array.ndim > 1 else [Fraction(float(v)) for v in array]


def dot(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True) if x and y), Fraction(0))


def transposed(a: Matrix) -> Matrix:
    return [list(column) for column in zip(*a, strict=True)]


def product(a: Matrix, b: Matrix) -> Matrix:
    columns = transposed(b)
    return [[dot(row, column) for column in columns] for row in a]


def added(a: Matrix, b: Matrix) -> Matrix:
    return [[x + y for x, y in zip(r, s, strict=True)] for r, s in zip(a, b, strict=True)]


def reduced(matrix: Matrix) -> tuple[Matrix, list[int]]:
    """Reduced row echelon form, and the columns of its pivots."""
    rows = [list(row) for row in matrix]
    pivots: list[int] = []
    for column in range(len(rows[0]) if rows else 0):
        top = len(pivots)
        found = next((i for i in range(top, len(rows)) if rows[i][column]), None)
        if found is None:
            continue
        rows[top], rows[found] = rows[found], rows[top]
        inverse = 1 / rows[top][column]
        rows[top] = [v * inverse for v in rows[top]]
        for i, row in enumerate(rows):
            if i != top and row[column]:
                factor = row[column]
                rows[i] = [v - factor * w if w else v for v, w in zip(row, rows[top], strict=True)]
        pivots.append(column)
    return rows, pivots


def rank(matrix: Matrix) -> int:
    return len(reduced(matrix)[1])


def null_space(matrix: Matrix) -> list[Vector]:
    """A basis of {x: A x = 0}, not orthonormal."""
    rows, pivots = reduced(matrix)
    width = len(matrix[0])
    basis = []
    for free in (j for j in range(width) if j not in pivots):
        x = [Fraction(0)] * width
        x[free] = Fraction(1)
        for i, pivot in enumerate(pivots):
            x[pivot] = -rows[i][free]
        basis.append(x)
    return basis


def solutions(matrix: Matrix, right: list[Vector]) -> list[Vector]:
    """For each y of ``right``, in the range of A, one x with A x = y."""
    width = len(matrix[0])
    rows, pivots = reduced([row + [y[i] for y in right] for i, row in enumerate(matrix)])
    assert all(pivot < width for pivot in pivots), "a right side lies outside the range"
    found = []
    for k in range(len(right)):
        x = [Fraction(0)] * width
        for i, pivot in enumerate(pivots):
            x[pivot] = rows[i][width + k]
        found.append(x)
    return found


def number(value: Fraction) -> mpf:
    return mpf(value.numerator) / mpf(value.denominator)


def plain(value: Any) -> float:
    """The nearest float, infinite where it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return INF if value > 0 else -INF


def numbers(matrix: Matrix) -> mpmath.matrix:
    return mpmath.matrix([[number(v) for v in row] for row in matrix])


def eigenvalues(matrix: mpmath.matrix) -> list[mpf]:
    """Of a symmetric matrix, ascending."""
    return [] if matrix.rows == 0 else sorted(mpmath.eigsy(matrix, eigvals_only=True))


@dataclass
class Moments:
    """Class moments as fractions; only classes present have a weight and a mean.

    Args:
        num_classes: C with the absent ones; features: (n, p); labels: (n,); weighting: "example" or "class".
    """

    num_classes: int
    features: Matrix
    labels: list[int]
    weighting: str

    @cached_property
    def counts(self) -> list[int]:
        return [self.labels.count(c) for c in range(self.num_classes)]

    @cached_property
    def present(self) -> list[int]:
        return [c for c in range(self.num_classes) if self.counts[c]]

    @cached_property
    def pi(self) -> Vector:
        n, classes = len(self.labels), len(self.present)
        return [
            Fraction(count, n) if self.weighting == "example" else Fraction(int(count > 0), classes)
            for count in self.counts
        ]

    @cached_property
    def means(self) -> dict[int, Vector]:
        members = {c: [h for h, y in zip(self.features, self.labels, strict=True) if y == c] for c in self.present}
        return {c: [sum(column) / len(rows) for column in zip(*rows, strict=True)] for c, rows in members.items()}

    @cached_property
    def centre(self) -> Vector:
        return [dot([self.pi[c] for c in self.present], column) for column in zip(*self._mean_rows, strict=True)]

    @property
    def _mean_rows(self) -> Matrix:
        return [self.means[c] for c in self.present]

    @cached_property
    def centred(self) -> Matrix:
        """μ_c − μ_G of the classes present, one a row."""
        return [[v - o for v, o in zip(row, self.centre, strict=True)] for row in self._mean_rows]

    @cached_property
    def class_scatter(self) -> dict[int, Matrix]:
        """Σ_c, divisor n_c."""
        found = {}
        for c in self.present:
            rows = [
                [v - m for v, m in zip(h, self.means[c], strict=True)]
                for h, y in zip(self.features, self.labels, strict=True)
                if y == c
            ]
            columns = transposed(rows)
            found[c] = [[dot(a, b) / len(rows) for b in columns] for a in columns]
        return found

    @cached_property
    def within(self) -> Matrix:
        p = len(self.centre)
        return [
            [sum((self.pi[c] * self.class_scatter[c][i][j] for c in self.present), Fraction(0)) for j in range(p)]
            for i in range(p)
        ]

    @cached_property
    def between(self) -> Matrix:
        columns = transposed(self.centred)
        scaled = [[self.pi[c] * v for c, v in zip(self.present, column, strict=True)] for column in columns]
        return [[dot(a, b) for b in columns] for a in scaled]

    @cached_property
    def total(self) -> Matrix:
        return added(self.within, self.between)

    @cached_property
    def directions(self) -> int:
        """min(classes present − 1, rank Σ_T): how many directions class means could span where anything varies."""
        return min(len(self.present) - 1, rank(self.total))

    @cached_property
    def signal_rank(self) -> int:
        """rank Σ_B = rank M̄."""
        return rank(self.centred)


def trace(matrix: Matrix) -> Fraction:
    return sum((matrix[i][i] for i in range(len(matrix))), Fraction(0))


# --- NC1 to NC4 ------------------------------------------------------------------------------------------------------


def nc1(m: Moments) -> float:
    """tr(Σ_W Σ_B⁺)/C; inf where means coincide or span fewer directions than they could, nan where nothing varies.

    With the columns R of a basis of Σ_B's range, Σ_B⁺ = R (Rᵀ Σ_B R)⁻¹ Rᵀ.
    """
    if m.directions == 0:
        return NAN
    means = [tuple(row) for row in m.centred]
    distinct = len(set(means))
    if m.signal_rank < m.directions or (distinct < len(means) and distinct - 1 <= m.signal_rank):
        return INF
    pivots = reduced(m.between)[1]
    basis = [transposed(m.between)[j] for j in pivots]  # rows are Rᵀ
    inner = product(product(basis, m.between), transposed(basis))
    solved = transposed(solutions(inner, transposed(basis)))  # (Rᵀ Σ_B R)⁻¹ Rᵀ
    return plain(
        sum(dot(row, column) for row, column in zip(product(basis, m.within), solved, strict=True)) / len(m.present)
    )


def norms(rows: Matrix) -> list[mpf]:
    return [mpmath.sqrt(number(dot(row, row))) for row in rows]


def spread(values: list[mpf], correction: int) -> mpf:
    average = mpmath.fsum(values) / len(values)
    return mpmath.sqrt(mpmath.fsum((v - average) ** 2 for v in values) / (len(values) - correction))


def equinorm(rows: Matrix, correction: int = 1) -> float:
    sizes = norms(rows)
    if not any(sizes) or len(rows) <= correction:
        return NAN
    return plain(spread(sizes, correction) * len(sizes) / mpmath.fsum(sizes))


def cosines(rows: Matrix) -> list[mpf] | None:
    """Over ordered pairs; None where a row is zero and so has no direction."""
    sizes = norms(rows)
    if not all(sizes):
        return None
    pairs = itertools.permutations(range(len(rows)), 2)
    return [number(dot(rows[i], rows[j])) / (sizes[i] * sizes[j]) for i, j in pairs]


def equiangularity(rows: Matrix, correction: int = 1) -> float:
    found = cosines(rows)
    return NAN if found is None or len(found) <= correction else plain(spread(found, correction))


def maximal_angle(rows: Matrix) -> float:
    found = cosines(rows)
    if not found:
        return NAN
    target = mpf(1) / (len(rows) - 1)
    return plain(mpmath.fsum(abs(v + target) for v in found) / len(found))


def self_duality(rows: Matrix, means: Matrix) -> mpf | None:
    """‖W/‖W‖ − M/‖M‖‖²; None where either is zero."""
    sizes = [mpmath.sqrt(number(sum(dot(row, row) for row in matrix))) for matrix in (rows, means)]
    if not all(sizes):
        return None
    return mpmath.fsum(
        (number(a) / sizes[0] - number(b) / sizes[1]) ** 2
        for left, right in zip(rows, means, strict=True)
        for a, b in zip(left, right, strict=True)
    )


def decisions(m: Moments, weight: Matrix, bias: Vector, closeness: float) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracies and NC4, and the share of examples for which a relative difference of ``closeness`` decides them."""
    counts = {"accuracy": 0, "nearest_mean_accuracy": 0, "nc4_mismatch": 0}
    open_network = open_mean = open_either = 0
    reach = max((abs(number(b)) for b in bias), default=mpf(0))
    weights = norms(weight)
    longest = max(number(dot(v, v)) for v in m.means.values())
    for h, y in zip(m.features, m.labels, strict=True):
        scores = [dot(row, h) + b for row, b in zip(weight, bias, strict=True)]
        best = max(scores)
        network = scores.index(best)
        size = mpmath.sqrt(number(dot(h, h)))
        scale = max(weights) * size + reach
        network_open = sum(number(best - s) <= closeness * scale for s in scores) > 1
        distances = {c: dot(d, d) for c in m.present for d in [[a - b for a, b in zip(h, m.means[c], strict=True)]]}
        least = min(distances.values())
        nearest = min(c for c in m.present if distances[c] == least)
        room = closeness * (size**2 + longest)
        mean_open = sum(number(d - least) <= room for d in distances.values()) > 1
        counts["accuracy"] += network == y
        counts["nearest_mean_accuracy"] += nearest == y
        counts["nc4_mismatch"] += network != nearest
        open_network, open_mean = open_network + network_open, open_mean + mean_open
        open_either += network_open or mean_open
    n = len(m.labels)
    undecided = {"accuracy": open_network, "nearest_mean_accuracy": open_mean, "nc4_mismatch": open_either}
    return {k: v / n for k, v in counts.items()}, {k: v / n for k, v in undecided.items()}


# --- the loss --------------------------------------------------------------------------------------------------------


@dataclass
class Loss:
    """The decomposition, exact; ``optimum`` is W̃_LS = [W_LS, b_LS], (C, p + 1)."""

    total: Fraction
    nc1: Fraction
    nc23: Fraction
    ls: Fraction
    ls_perp: Fraction
    optimum: Matrix


def extended(m: Moments) -> tuple[Matrix, Matrix]:
    """K = Ave h̃h̃ᵀ (p+1, p+1), and diag(π) M̃ᵀ (C, p+1)."""
    mean = [*m.centre, Fraction(1)]
    second = [[a * b for b in mean] for a in mean]
    for i, row in enumerate(m.total):
        for j, value in enumerate(row):
            second[i][j] += value
    zero = [Fraction(0)] * len(mean)
    right = [[m.pi[c] * v for v in [*m.means[c], Fraction(1)]] if c in m.means else zero for c in range(m.num_classes)]
    return second, right


def least_squares(m: Moments, weight_decay: Fraction) -> Matrix:
    """W̃_LS = (diag(π) M̃ᵀ)(K + λI)⁺: any solution, less its part in the null space."""
    second, right = extended(m)
    for i in range(len(second)):
        second[i][i] += weight_decay
    found = solutions(second, right)
    null = null_space(second)
    if null:
        gram = [[dot(a, b) for b in null] for a in null]
        for x in found:
            (shares,) = solutions(gram, [[dot(v, x) for v in null]])
            for share, v in zip(shares, null, strict=True):
                x[:] = [a - share * b for a, b in zip(x, v, strict=True)]
    return found


def decompose(m: Moments, weight: Matrix, bias: Vector, weight_decay: Fraction) -> Loss:
    second, right = extended(m)
    in_use = [[*row, b] for row, b in zip(weight, bias, strict=True)]
    optimum = least_squares(m, weight_decay)

    def quadratic(rows: Matrix, matrix: Matrix) -> Fraction:
        return sum((dot(row, made) for row, made in zip(rows, product(rows, matrix), strict=True)), Fraction(0))

    def size(rows: Matrix) -> Fraction:
        return sum((dot(row, row) for row in rows), Fraction(0))

    def loss(rows: Matrix) -> Fraction:
        hits = sum((dot(a, b) for a, b in zip(rows, right, strict=True)), Fraction(0))
        return quadratic(rows, second) / 2 - hits + Fraction(1, 2) + weight_decay * size(rows) / 2

    difference = [[a - b for a, b in zip(r, s, strict=True)] for r, s in zip(in_use, optimum, strict=True)]
    nc1_part = (quadratic([row[:-1] for row in optimum], m.within) + weight_decay * size(optimum)) / 2
    nc23 = Fraction(0)
    for c, mean in m.means.items():
        misses = [dot(row[:-1], mean) + row[-1] - int(k == c) for k, row in enumerate(optimum)]
        nc23 += m.pi[c] * dot(misses, misses) / 2
    perp = (quadratic(difference, second) + weight_decay * size(difference)) / 2
    least = loss(optimum)
    assert least == nc1_part + nc23, "Theorem 2"
    total = loss(in_use)
    assert total == least + perp, "Theorem 1"
    return Loss(total, nc1_part, nc23, least, perp, optimum)


# --- signal to noise -------------------------------------------------------------------------------------------------


def snr(m: Moments) -> list[float]:
    """The limit of the singular values of (Σ_W + εI)^{-1/2} M̄ as ε → 0, descending; infinite ones first.

    As many as min(classes present − 1, directions in which there is noise or signal). With N a basis of Σ_W's null
    space the infinite ones are rank(NᵀM̄) in number; on Z, a basis of {x: NᵀM̄x = 0}, M̄Z lies in the range of Σ_W, and
    the squares of the finite ones are the eigenvalues of (M̄Z)ᵀ Σ_W⁺ (M̄Z) against ZᵀZ.
    """
    null = null_space(m.within)
    reaching = [[dot(v, row) for row in m.centred] for v in null]  # NᵀM̄, (nulls, C)
    infinite = rank(reaching) if null else 0
    classes = len(m.present)
    unit = [[Fraction(int(i == j)) for j in range(classes)] for i in range(classes)]
    kernel = null_space(reaching) if null else unit
    columns = transposed(m.centred)  # M̄, (p, C)
    images = [[dot(row, z) for row in columns] for z in kernel]
    whitened = solutions(m.within, images)
    signal = [[dot(a, b) for b in whitened] for a in images]
    nonzero = rank(signal) if signal else 0
    finite: list[mpf] = []
    if nonzero:
        root = mpmath.cholesky(numbers([[dot(a, b) for b in kernel] for a in kernel]))
        inverse = root**-1
        finite = [mpmath.sqrt(v) for v in eigenvalues(inverse * numbers(signal) * inverse.T)[::-1][:nonzero]]
    values = [INF] * infinite + [plain(v) for v in finite]
    return (values + [0.0] * classes)[: m.directions]


def path_ratio(within: Matrix, centred: Matrix, weight_decay: Fraction) -> float:
    """C(C − 1)/tr M̄ᵀ(Σ_W + λI)⁻¹M̄, M̄ᵀ the rows ``centred``; for λ = 0 zero where M̄ reaches outside Σ_W's range."""
    if not weight_decay and any(dot(v, row) for v in null_space(within) for row in centred):
        return 0.0
    matrix = [[v + weight_decay * (i == j) for j, v in enumerate(row)] for i, row in enumerate(within)]
    total = sum(map(dot, solutions(matrix, centred), centred))
    classes = len(centred)
    return plain(number(classes * (classes - 1) / total)) if total else INF


# --- the later metrics -----------------------------------------------------------------------------------------------


def cdnv(m: Moments) -> float:
    values = []
    for a, b in itertools.permutations(range(len(m.present)), 2):
        first, second = m.present[a], m.present[b]
        gap = [x - y for x, y in zip(m.centred[a], m.centred[b], strict=True)]
        size = 2 * dot(gap, gap)
        noise = trace(m.class_scatter[first]) + trace(m.class_scatter[second])
        if not size and not noise:
            return NAN
        values.append(noise / size if size else None)
    return INF if None in values else plain(sum(values) / len(values))


def variability_ratio(m: Moments) -> float:
    within, between = trace(m.within), trace(m.between)
    if not between:
        return INF if within else NAN
    return plain(within / between)


def variability_collapse_index(m: Moments) -> float:
    """1 − tr(Σ_T⁺ Σ_B)/rank, the rank that of M̄ where class means do not coincide."""
    if m.directions == 0 or m.signal_rank == 0:
        return NAN
    solved = solutions(m.total, m.centred)
    share = sum(m.pi[c] * dot(x, y) for c, x, y in zip(m.present, m.centred, solved, strict=True))
    return plain(1 - share / m.signal_rank)


def spectrum(m: Moments) -> list[mpf]:
    """The nonzero eigenvalues of Σ_T, ascending."""
    count = rank(m.total)
    return eigenvalues(numbers(m.total))[len(m.total) - count :]


def stable_rank(m: Moments) -> float:
    values = spectrum(m)
    return plain(mpmath.fsum(values) / values[-1]) if values else NAN


def effective_rank(m: Moments) -> float:
    singular = [mpmath.sqrt(v) for v in spectrum(m)]
    if not singular:
        return NAN
    total = mpmath.fsum(singular)
    return plain(mpmath.exp(-mpmath.fsum(v / total * mpmath.log(v / total) for v in singular)))


def simplex(count: int) -> list[list[mpf]]:
    return [[mpf(int(i == j)) - mpf(1) / count for j in range(count)] for i in range(count)]


def against_simplex(left: Matrix, right: Matrix, size: Callable[[mpmath.matrix], mpf], scale: mpf) -> float:
    """‖A/size(A) − scale (I − 11ᵀ/C)‖_F of A = L Rᵀ."""
    made = numbers(product(left, transposed(right)))
    divisor = size(made)
    if not divisor:
        return NAN
    target = simplex(len(left))
    count = range(len(left))
    return plain(
        mpmath.sqrt(mpmath.fsum((made[i, j] / divisor - scale * target[i][j]) ** 2 for i in count for j in count))
    )


def frobenius(matrix: mpmath.matrix) -> mpf:
    return mpmath.sqrt(mpmath.fsum(v**2 for v in matrix))


def gram_error(left: Matrix, right: Matrix) -> float:
    return against_simplex(left, right, frobenius, 1 / mpmath.sqrt(len(left) - 1))


def etf_distance(rows: Matrix) -> float:
    """√(Σ_{i<C} (σ_i − 1/√(C−1))² + m²), σ of the centred rows over ‖V‖, m what centring takes off."""
    count, dim = len(rows), len(rows[0])
    size = sum((dot(row, row) for row in rows), Fraction(0))
    if dim < count - 1 or not size:
        return NAN
    mean = [sum(column) / count for column in transposed(rows)]
    moved = [[a - b for a, b in zip(row, mean, strict=True)] for row in rows]
    gram = [[dot(a, b) / size for b in moved] for a in moved]
    values = eigenvalues(numbers(gram))[::-1][: count - 1]
    target = 1 / mpmath.sqrt(count - 1)
    gap = mpmath.fsum((mpmath.sqrt(max(mpf(0), v)) - target) ** 2 for v in values)
    return plain(mpmath.sqrt(gap + number(count * dot(mean, mean) / size)))


def units(rows: Matrix) -> list[list[mpf]] | None:
    sizes = norms(rows)
    if not all(sizes):
        return None
    return [[number(v) / size for v in row] for row, size in zip(rows, sizes, strict=True)]


def energy(rows: Matrix, kernel: Callable[[mpf], mpf]) -> tuple[float, float]:
    """(average, Std/|average|) of the kernel of the distances of unit rows; (inf, nan) where two coincide."""
    directions = units(rows)
    if directions is None:
        return NAN, NAN
    pairs = list(itertools.permutations(directions, 2))
    gaps = [mpmath.sqrt(mpmath.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))) for a, b in pairs]
    if min(gaps) < mpf(10) ** (-DIGITS // 2):
        return INF, NAN
    values = [kernel(gap) for gap in gaps]
    average = mpmath.fsum(values) / len(values)
    return plain(average), variation(values, average)


def variation(values: list[mpf], average: mpf) -> float:
    """Std/|average|, unbiased; infinite where only the average vanishes."""
    tiny = mpf(10) ** (-DIGITS // 2)
    std = spread(values, 1)
    if abs(average) < tiny:
        return INF if std > tiny else NAN
    return plain(std / abs(average))


def frame_error(rows: Matrix) -> float:
    directions = units(rows)
    if directions is None:
        return NAN
    matrix = mpmath.matrix(directions)
    size = min(len(rows[0]), len(rows) - 1)
    gram = matrix.T * matrix if len(rows[0]) <= len(rows) else matrix * matrix.T
    values = eigenvalues(gram)[::-1]
    scale = mpmath.sqrt(mpmath.fsum(v**2 for v in values))
    target = [1 / mpmath.sqrt(size)] * size + [mpf(0)] * (len(values) - size)
    return plain(mpmath.sqrt(mpmath.fsum((v / scale - t) ** 2 for v, t in zip(values, target, strict=True))))


def welch_excess(rows: Matrix) -> float:
    count, dim = len(rows), len(rows[0])
    found = cosines(rows)
    if count <= dim or found is None:
        return NAN
    return plain(max(abs(v) for v in found) - mpmath.sqrt(mpf(count - dim) / (dim * (count - 1))))


def alignment(rows: Matrix, means: Matrix) -> tuple[float, float]:
    """UNC3 and GNC3."""
    left, right = units(rows), units(means)
    if left is None or right is None:
        return NAN, NAN
    pairs = list(zip(left, right, strict=True))
    found = [mpmath.fdot(a, b) for a, b in pairs]
    average = mpmath.fsum(found) / len(found)
    gaps = [mpmath.sqrt(mpmath.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))) for a, b in pairs]
    return variation(found, average), plain(mpmath.fsum(gaps) / len(gaps))


def nc5(m: Moments, outside: Vector, centred: bool) -> float:
    origin = m.centre if centred else [Fraction(0)] * len(m.centre)
    towards = units([[a - b for a, b in zip(outside, origin, strict=True)]])
    directions = units([[a - b for a, b in zip(m.means[c], origin, strict=True)] for c in m.present])
    if towards is None or directions is None:
        return NAN
    return plain(mpmath.fsum(abs(mpmath.fdot(u, towards[0])) for u in directions) / len(directions))


def later(m: Moments, weight: Matrix, outside: Vector | None = None) -> dict[str, float]:
    """By their names in ``neuralcollapse.METRICS``, all but the one-vs-rest margins."""
    rows, means = [weight[c] for c in m.present], m.centred
    uncentred = [m.means[c] for c in m.present]
    count = len(rows)
    squared, squared_uncentred = self_duality(rows, means), self_duality(rows, uncentred)
    unc3, gnc3 = alignment(rows, means)
    first = nc1(m)
    sums = [sum(column) for column in transposed(weight)]
    found = {
        "cdnv": cdnv(m),
        "variability_ratio": variability_ratio(m),
        "variability_collapse_index": variability_collapse_index(m),
        "stable_rank": stable_rank(m),
        "effective_rank": effective_rank(m),
        "duality_error": gram_error(rows, means),
        "uniform_duality": unc3,
        "alignment_distance": gnc3,
        "nc0": plain(mpmath.sqrt(number(dot(sums, sums)))),
        "nc1_undivided": first * count,
        "nc3_uncentred": NAN if squared_uncentred is None else plain(squared_uncentred),
        "nc3_unsquared": NAN if squared is None else plain(mpmath.sqrt(squared)),
        "nc3_trace": against_simplex(
            rows, means, lambda a: mpmath.fsum(a[i, i] for i in range(count)), mpf(1) / (count - 1)
        ),
    }
    if outside is not None:
        found["nc5"], found["nc5_centred"] = nc5(m, outside, False), nc5(m, outside, True)
    for side, vectors in (("means", means), ("classifier", rows)):
        found[f"etf_error_{side}"] = gram_error(vectors, vectors)
        found[f"etf_distance_{side}"] = etf_distance(vectors)
        kernels: dict[str, Callable[[mpf], mpf]] = {"log": lambda r: -mpmath.log(r), "riesz": lambda r: 1 / r}
        for name, kernel in kernels.items():
            found[f"gnc2_{name}_{side}"], found[f"gnc2_{name}_variation_{side}"] = energy(vectors, kernel)
        found[f"frame_error_{side}"] = frame_error(vectors)
        found[f"welch_excess_{side}"] = welch_excess(vectors)
        found[f"equinorm_{side}_biased"] = equinorm(vectors, 0)
        found[f"equiangularity_{side}_biased"] = equiangularity(vectors, 0)
    return found


# --- all of a report -------------------------------------------------------------------------------------------------


@dataclass
class Exact:
    """What a report should say.

    Attributes:
        numbers: by the names of ``Report.to_dict()``, floats.
        snr: singular values.
        undecided: the share of examples whose decision hangs on rounding, by name.
        outputs: (n, C) W_LS h + b_LS, what the least-squares classifier predicts.
        optimum: (C, p + 1).
        moments: as fractions.
    """

    numbers: dict[str, float]
    snr: list[float]
    undecided: dict[str, float]
    outputs: np.ndarray
    optimum: np.ndarray
    moments: Moments


def report(
    features: Any,
    labels: Any,
    weight: Any,
    bias: Any = None,
    *,
    weight_decay: float = 0.0,
    weighting: str = "example",
    closeness: float = 1e-6,
    outside: Any = None,
    with_later: bool = True,
) -> Exact:
    """Every number, for at least two classes present; features and the rest are floats, or fractions in lists.

    Args:
        closeness: the relative difference of two scores, or distances, that rounding may decide.
        outside: (p,) mean of out-of-distribution features.
        with_later: the later metrics too.
    """
    features, weight = (v if isinstance(v, list) else rational(v) for v in (features, weight))
    if bias is None:
        bias = [Fraction(0)] * len(weight)
    elif not isinstance(bias, list):
        bias = rational(bias)
    with mpmath.workdps(DIGITS):
        m = Moments(len(weight), features, [int(y) for y in labels], weighting)
        rows = [weight[c] for c in m.present]
        loss = decompose(m, weight, bias, Fraction(weight_decay))
        shares, undecided = decisions(m, weight, bias, closeness)
        duality = self_duality(rows, m.centred)
        optimum = [row[:-1] for row in loss.optimum]
        found: dict[str, float] = {
            "num_examples": len(m.labels),
            "num_classes": m.num_classes,
            "classes_present": len(m.present),
            "dim": len(m.centre),
            **shares,
            "nc1": nc1(m),
            "nc3": NAN if duality is None else plain(duality),
            "mse.weight_ls_norm": plain(mpmath.sqrt(number(sum(dot(row, row) for row in optimum)))),
            "mse.weight_decay": weight_decay,
        }
        for side, vectors in (("means", m.centred), ("classifier", rows)):
            found[f"nc2.equinorm_{side}"] = equinorm(vectors)
            found[f"nc2.equiangularity_{side}"] = equiangularity(vectors)
            found[f"nc2.maximal_angle_{side}"] = maximal_angle(vectors)
        for name in ("total", "nc1", "nc23", "ls", "ls_perp"):
            found[f"mse.{name}"] = plain(getattr(loss, name))
        if with_later:
            found |= later(m, weight, None if outside is None else rational(outside))
        outputs = [[plain(dot(row[:-1], h) + row[-1]) for row in loss.optimum] for h in m.features]
        kept = np.array([[plain(v) for v in row] for row in loss.optimum])
        return Exact(found, snr(m), undecided, np.array(outputs), kept, m)


def condition(matrix: Matrix, scaled: bool = True) -> float:
    """Of a covariance, ``scaled`` to unit diagonal, on its range; 1 where it is zero. Decides only tolerances."""
    with mpmath.workdps(DIGITS):
        kept = [i for i in range(len(matrix)) if matrix[i][i]]
        if not kept:
            return 1.0
        roots = {i: mpmath.sqrt(number(matrix[i][i])) if scaled else mpf(1) for i in kept}
        unit = mpmath.matrix([[number(matrix[i][j]) / (roots[i] * roots[j]) for j in kept] for i in kept])
        values = eigenvalues(unit)[len(kept) - rank(matrix) :]
        return plain(values[-1] / values[0]) if values[0] > values[-1] * mpf(10) ** (-DIGITS // 2) else INF
