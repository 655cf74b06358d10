"""Random numerical cases from a seed: shapes, types, scales, dead, constant and duplicated units, few examples, decay.

A case is made in two steps, free numbers and then their structure (which units are constant or copies of others), so
that the free numbers can be moved by a rounding while the structure stays: that tells how far rounding can move each
number of a report, whatever the program that computes it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from reference import exact
from torch import Tensor

import neuralcollapse as nc

DTYPES = (torch.float64, torch.float64, torch.float32, torch.float32, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Numeric:
    """One case.

    Attributes:
        free: (m, q) features before structure, exactly representable in ``dtype``.
        rows: (n,) the row of ``free`` that each example has: those of a class may be another's.
        copies: each column of the features as (kind, argument): ("free", j), ("constant", value), ("scaled", (j, power
            of two)), a copy of free column j, or ("sum", (i, j)) of two.
        labels: (n,); weight: (C, p); bias: (C,) or None.
        decay: λ.
        batches: where the examples are split.
    """

    seed: int
    dtype: torch.dtype
    free: np.ndarray
    rows: np.ndarray
    copies: tuple[tuple[str, Any], ...]
    labels: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None
    decay: float
    weighting: Any
    batches: tuple[int, ...]

    @property
    def eps(self) -> float:
        """The rounding of products of these features: float32's, or float64's."""
        return float(torch.finfo(torch.float64 if self.dtype == torch.float64 else torch.float32).eps)

    def columns(self, moved: np.ndarray | None = None) -> list[list[Fraction]]:
        """(n, p) as fractions; ``moved`` holds a relative change of each free number, and last of each constant."""
        shift = np.zeros((len(self.free), self.free.shape[1] + 1)) if moved is None else moved
        free = [
            [Fraction(float(v)) * (1 + Fraction(float(s))) for v, s in zip(column, moves, strict=True)]
            for column, moves in zip(self.free.T, shift.T, strict=False)
        ]
        made = []
        for kind, argument in self.copies:
            if kind == "constant":
                made.append([Fraction(argument) * (1 + Fraction(shift[0, -1]))] * len(self.free))
            elif kind == "sum":
                made.append([a + b for a, b in zip(*(free[j] for j in argument), strict=True)])
            elif kind == "scaled":
                made.append([v * Fraction(2) ** argument[1] for v in free[argument[0]]])
            else:
                made.append(free[argument])
        found = [list(row) for row in zip(*made, strict=True)]
        return [found[i] for i in self.rows]

    @property
    def features(self) -> np.ndarray:
        """(n, p) in float64, each number representable in ``dtype``."""
        return np.array([[float(v) for v in row] for row in self.columns()])

    def exact(self, moved: np.ndarray | None = None, later: bool = True) -> exact.Exact:
        return exact.report(
            self.columns(moved),
            self.labels,
            self.weight,
            self.bias,
            weight_decay=self.decay,
            weighting=self.weighting,
            closeness=64 * self.eps,
            with_later=later,
        )

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        features = torch.from_numpy(self.features).to(self.dtype)
        assert np.array_equal(features.double().numpy(), self.features), "not representable"
        bias = None if self.bias is None else torch.from_numpy(self.bias)
        return features, torch.from_numpy(self.labels), torch.from_numpy(self.weight), bias

    def measured(self, metrics: str = "all") -> nc.Report:
        """The package's report, from moments of the batches and a decisions of all."""
        features, labels, weight, bias = self.tensors()
        if len(self.batches) < 2:
            return nc.measure_features(
                features, labels, weight, bias, weight_decay=self.decay, weighting=self.weighting, metrics=metrics
            )
        parts = []
        for rows, truth in zip(features.split(self.batches), labels.split(self.batches), strict=True):
            parts.append(nc.ClassMoments(len(weight), weighting=self.weighting))
            parts[-1].update(rows, truth)
        whole = nc.ClassMoments(len(weight), weighting=self.weighting)
        for part in parts:
            whole.merge(part)
        return nc.make_report(whole, weight, bias, weight_decay=self.decay, metrics=metrics)


def numeric(seed: int) -> Numeric:
    """The case of a seed."""
    rng = np.random.default_rng([seed, 2026])
    dtype = DTYPES[rng.integers(len(DTYPES))]
    classes, q = int(rng.integers(2, 6)), int(rng.integers(1, 6))
    absent = int(rng.integers(0, 2)) if classes > 2 and rng.random() < 0.4 else 0
    present = rng.permutation(classes)[: classes - absent]
    few = rng.random() < 0.3
    extra = int(rng.integers(0, 5 if few else 30))
    chances = rng.dirichlet(np.full(len(present), 0.5 if rng.random() < 0.3 else 5.0))
    labels = rng.permutation(np.concatenate([present, rng.choice(present, extra, p=chances)]))
    n = len(labels)

    spread = 10 ** rng.uniform(-7.0, 0.5) if rng.random() < 0.5 else 0.5
    offset = 10 ** rng.uniform(-1.0, 3.0) * rng.normal(size=q) if rng.random() < 0.4 else 0.0
    free = rng.normal(size=(classes, q))[labels] + spread * rng.normal(size=(n, q)) + offset
    if rng.random() < 0.3:
        free = np.maximum(free, 0.0)
    narrow = dtype in (torch.float16, torch.bfloat16)
    on_grid = not narrow and rng.random() < 0.25
    if on_grid:
        free = np.round(free * 256) / 256
    scales = np.ones(q)
    kind = rng.integers(5)
    if kind == 0:
        scales = 2.0 ** rng.integers(-8 if narrow else -20, 8 if narrow else 21, size=q)
    elif kind == 1:
        scales[rng.integers(q)] = 10.0 ** rng.choice([-3, 3])
    elif kind == 2 and not narrow:
        power = 60 if dtype == torch.float32 else 400
        scales[:] = 2.0 ** rng.integers(-power, power + 1)
    free = torch.from_numpy((free * scales).clip(-6e4, 6e4) if narrow else free * scales).to(dtype).double().numpy()

    copies: list[tuple[str, Any]] = [("free", j) for j in range(q)]
    if rng.random() < 0.35:
        copies += [("constant", 0.0)] * int(rng.integers(1, 3))
    if rng.random() < 0.2:
        value = 10 ** rng.uniform(-2.0, 1.0) * float(np.abs(free).mean() or 1.0)
        copies.append(("constant", float(torch.tensor(value, dtype=torch.float64).to(dtype))))
    if rng.random() < 0.25:
        copies.append(("scaled", (int(rng.integers(q)), int(rng.integers(-3, 4)))))
    if on_grid and kind > 1 and q > 1:
        copies.append(("sum", tuple(int(j) for j in rng.choice(q, 2, replace=False))))
    copies = [copies[i] for i in rng.permutation(len(copies))]
    rows = np.arange(n)
    if rng.random() < 0.08 and len(present) > 1:
        one, other = (np.flatnonzero(labels == c) for c in present[:2])
        rows[other] = one[np.arange(len(other)) % len(one)]

    sizes = np.array(
        [float(np.median(scales)) if k == "constant" else scales[a if k == "free" else a[0]] for k, a in copies]
    )
    weight = 0.4 * rng.normal(size=(classes, len(copies))) / sizes
    bias = None if rng.random() < 0.2 else 0.3 * rng.normal(size=classes)
    decay = float(rng.choice([0.0, 0.0, 10 ** rng.uniform(-8, -3), 10 ** rng.uniform(-2, 1)]))
    batches: tuple[int, ...] = (n,)
    if n > 2 and rng.random() < 0.3:
        cut = int(rng.integers(1, n))
        batches = (cut, n - cut)
    weighting = "example" if rng.random() < 0.5 else "class"
    return Numeric(seed, dtype, free, rows, tuple(copies), labels, weight, bias, decay, weighting, batches)


@dataclass(frozen=True)
class Expected:
    """What a case should give, and how far from it rounding may lead."""

    exact: exact.Exact
    room: dict[str, float]
    snr_room: np.ndarray
    outputs_room: float
    infinite_decided: bool


def expected(case: Numeric, slack: float = 100.0, later: bool = True) -> Expected:
    """The exact report, with room for rounding.

    The room of a number is ``slack`` times the sum of

    * how far it moves when each feature moves by one rounding, relative to its own size, alone or with all of its
      class: no program that is given rounded features, or rounds a mean, can do better;
    * one rounding times the condition of the equilibrated covariance that is inverted for it: a covariance is a sum of
      rounded products, each relative to the size of its two features.
    """
    truth = case.exact(later=later)
    m, eps = truth.moments, case.eps
    shape = (len(case.free), case.free.shape[1] + 1)
    rng = np.random.default_rng([case.seed, 7])
    alone = rng.uniform(-1, 1, size=shape)
    together = rng.uniform(-1, 1, size=(len(case.weight), shape[1]))[case.labels]
    tries = [case.exact(eps * moves, later) for moves in (alone, together)]
    p, noise, whole = len(m.centre), exact.condition(m.within), exact.condition(m.total)
    second = exact.extended(m)[0]
    if case.decay:
        for i in range(p + 1):
            second[i][i] += Fraction(case.decay)
        whole = min(max(whole, exact.condition(second)), 100 * whole)
    extended = exact.condition(second, scaled=exact.rank(second) == p + 1)  # the least norm depends on the units
    spectral = exact.condition(m.between, scaled=False) ** 0.5  # and so does NC1
    noisy = [float(m.within[j][j]) for j in range(p)]
    share = sum(float(m.within[j][j] / m.total[j][j]) for j in range(p) if m.total[j][j])
    seen = p * sum(float((truth.optimum[:, j] ** 2).sum()) * noisy[j] for j in range(p))
    # W h and b may be large and cancel
    size = np.abs(case.features)
    reach = float((size @ np.abs(truth.optimum[:, :-1].T)).max())
    reach_in_use = float((size @ np.abs(case.weight.T)).max())
    gaps = [
        exact.dot(d, d)
        for a, b in itertools.combinations(m.centred, 2)
        for d in [[x - y for x, y in zip(a, b, strict=True)]]
    ]
    least = min((float(g) for g in [*gaps, *(exact.dot(v, v) for v in m.centred)] if g), default=1.0)
    far = math.sqrt(max(float(exact.dot(v, v)) for v in m.means.values()) / least) if least else math.inf

    room: dict[str, float] = {}
    for name, value in truth.numbers.items():
        moved = max((abs(t.numbers[name] - value) for t in tries if math.isfinite(t.numbers[name])), default=0.0)
        own = abs(value) if math.isfinite(value) else 0.0
        factor = 1.0
        if name in ("nc1", "nc1_undivided"):
            factor = noise + spectral * 2.0**-52 / eps
        elif name == "variability_collapse_index":
            factor = noise + whole
        elif name == "mse.weight_ls_norm":  # the bias's own entry of K is 1 in any unit of the features
            factor = whole + extended
        elif name.startswith("mse."):
            factor = whole
        room[name] = slack * (moved + eps * factor * own)
        if name in ("mse.ls_perp", "mse.total", "mse.weight_ls_norm"):
            room[name] += slack * eps * whole * abs(truth.numbers["mse.total"]) * (name != "mse.weight_ls_norm")
        if name in ("mse.ls_perp", "mse.total"):
            off = slack * (eps * whole + 2.0**-52 * reach)
            room[name] += slack * 2.0**-52 * reach_in_use**2 + 2 * math.sqrt(2 * abs(value)) * off
        if not name.startswith(("mse.", "variability_c", "effective", "numerical")):  # made of distances of means
            room[name] += slack * 2.0**-52 * far * max(own, 1.0)
        if name == "variability_collapse_index":  # Σ_W is off by a rounding of the size of its features
            room[name] += slack * whole * (eps * share + 2.0**-52 * (exact.rank(m.within) < exact.rank(m.total)))
        if name in ("mse.nc1", "mse.ls"):
            room[name] += slack * eps * seen
        if name in ("mse.nc1", "mse.nc23", "mse.ls"):  # squares, of what is off by a rounding of the outputs
            off = slack * (eps * whole + 2.0**-52 * reach)
            room[name] += 2 * math.sqrt(2 * abs(value)) * off + off**2
        if name in truth.undecided:
            room[name] = truth.undecided[name]
        if name == "effective_rank":  # roots of eigenvalues, each off by a rounding of the largest
            room[name] += slack * math.sqrt(len(m.centre) * eps) * len(m.centre)
        if name.startswith(_SQUARE_ROOTS):  # of sums that cancel to a rounding
            room[name] += slack * 2.0**-52 + math.sqrt(2.0**-52)
    snr_room = np.zeros(len(truth.snr))
    for j, value in enumerate(truth.snr):
        if math.isfinite(value):
            moved = max(abs(t.snr[j] - value) if math.isfinite(t.snr[j]) else 0.0 for t in tries)
            largest = max((v for v in truth.snr if math.isfinite(v)), default=0.0)
            # singular values of L⁻¹M̄ are exact to a rounding of the largest, where all are finite
            snr_room[j] = slack * (moved + eps * noise * value + eps * largest) + 1e-9
    moved = max(float(np.abs(t.outputs - truth.outputs).max()) for t in tries)
    outputs_room = slack * (moved + eps * whole * float(np.abs(truth.outputs).max()) + 2.0**-52 * reach)
    decided = not truth.snr or math.isfinite(truth.snr[0]) or move_to_finite(m) > eps
    return Expected(truth, room, snr_room, outputs_room, decided)


def move_to_finite(m: exact.Moments) -> float:
    """How far features must move, relative to their size, for an infinite singular value to become finite.

    It is infinite where the signal s = M̄x of some x leaves the span of the deviations e_i from the class means. Moves
    at random never bring it inside, so those of :func:`expected` do not show how near a finite value is; this one does.
    Let s = s₁ + s₂ with s₁ = Σ c_i e_i inside and s₂ outside. With e_i + δ_i instead, δ_i = c_i s₂/Σc², the sum
    Σ c_i (e_i + δ_i) is all of s; the class means stay, because the c_i of each class add up to zero; and no smaller
    Σ‖δ_i‖² does it. Where every entry of δ is below one rounding of its feature, the features that were rounded to
    these may have had a finite value: nothing that is given the rounded ones can decide.
    """
    sizes = np.sqrt(sum(float(m.pi[c]) * np.array([float(v) for v in mean]) ** 2 for c, mean in m.means.items()))
    live = np.flatnonzero(sizes)

    def relative(rows: exact.Matrix) -> np.ndarray:
        return np.array([[float(row[j] / Fraction(float(sizes[j]))) for j in live] for row in rows])

    means = [m.means[int(y)] for y in m.labels]
    deviations = relative([[v - w for v, w in zip(*pair, strict=True)] for pair in zip(m.features, means, strict=True)])
    centred, noise = relative(m.centred), exact.rank(m.within)
    left, values, right = np.linalg.svd(deviations)
    outside = centred @ right[noise:].T
    combinations, reach, _ = np.linalg.svd(outside, full_matrices=False)
    least = math.inf
    for x in combinations.T[reach > 1e-12 * reach[0]]:
        c = left[:, :noise] @ (right[:noise] @ (x @ centred) / values[:noise])
        if c.any():
            least = min(least, float(np.abs(np.outer(c, (x @ outside) @ right[noise:])).max() / (c @ c)))
    return least


_SQUARE_ROOTS = (
    "nc2.",
    "nc3",
    "equinorm",
    "equiangularity",
    "etf_",
    "frame_error",
    "welch",
    "duality",
    "uniform",
    "gnc2",
)


def faults(case: Numeric, slack: float = 100.0, metrics: str = "all") -> list[str]:
    """What is wrong with the package's report of a case, one line each."""
    want = expected(case, slack)
    report = case.measured(metrics)
    got = report.to_dict()
    m = want.exact.moments
    ratio = want.exact.numbers["variability_ratio"]
    vague = math.isfinite(ratio) and want.room["variability_ratio"] > 0.1 * ratio > 0
    found = []
    for name, value in want.exact.numbers.items():
        made = got.get(name, "missing")
        if made == "missing":
            found.append(f"{name} is missing")
            continue
        if made is None:
            continue  # decisions, where only moments were given
        if vague and not name.startswith(("mse.", "numerical", "effective", *want.exact.undecided)):
            continue  # whether class means coincide is for rounding to say
        if name.startswith(("gnc2", "uniform")) and not math.isfinite(value):
            continue  # two directions coincide, or a mean vanishes: rounding decides whether they are found to
        if name == "variability_collapse_index" and m.signal_rank < m.directions:
            continue  # the rank of Σ_B that is divided by has two readings here
        if not close(float(made), value, want.room[name]):
            found.append(f"{name} is {float(made):.10g}, not {value:.10g} ± {want.room[name]:.2g}")
    found += spectrum_faults([float(v) for v in got["snr"]], want)  # type: ignore[union-attr]
    found += signs(got)
    parts = report.mse.nc1 + report.mse.nc23 + report.mse.ls_perp
    room = want.room["mse.total"]
    if room < 0.1 * abs(report.mse.total) and abs(parts - report.mse.total) > room:
        found.append(f"the parts add up to {parts:.10g}, the total is {report.mse.total:.10g}")
    outputs = torch.from_numpy(case.features) @ report.mse.weight_ls.double().T + report.mse.bias_ls.double()
    distance = float(np.abs(outputs.numpy() - want.exact.outputs).max())
    if want.outputs_room < 0.1 and not distance <= want.outputs_room:
        found.append(f"the least-squares outputs are off by {distance:.3g}, more than {want.outputs_room:.2g}")
    return found


def close(got: float, want: float, room: float) -> bool:
    """Within the room; far from it, or nan, only where rounding reaches as far as the number itself."""
    if math.isnan(want) or math.isinf(want):
        return math.isnan(got) if math.isnan(want) else got == want
    if room > 0.1 * abs(want) and room > 1e-6:
        return math.isnan(got) or abs(got - want) <= 30 * room
    return abs(got - want) <= room


def spectrum_faults(got: list[float], want: Expected) -> list[str]:
    truth = want.exact.snr
    if not want.infinite_decided:
        return []
    largest = max((v for v in truth if math.isfinite(v)), default=0.0)
    if any(r > 0.1 * max(v, 1e-3 * largest) for r, v in zip(want.snr_room, truth, strict=True) if math.isfinite(v)):
        return []  # rounding of the features decides
    if len(got) != len(truth):
        return [f"snr has {len(got)} values {got}, not {len(truth)} {truth}"]
    return [
        f"snr[{j}] is {g:.10g}, not {w:.10g} ± {r:.2g}"
        for j, (g, w, r) in enumerate(zip(got, truth, want.snr_room, strict=True))
        if not (g == w if math.isinf(w) else abs(g - w) <= r)
    ]


NEVER_NEGATIVE = (
    "nc1",
    "nc2.",
    "nc3",
    "nc4",
    "mse.",
    "accuracy",
    "nearest",
    "cdnv",
    "variability",
    "stable_rank",
    "effective_rank",
    "etf_",
    "gnc2_riesz",
    "margin",
    "frame",
    "duality",
    "uniform",
    "alignment",
    "nc0",
    "nc5",
    "equi",
)
SIGNED = ("_log", "duality_product_mean", "riesz_p_2_means", "riesz_p_2_classifier")
"""Their formula has a sign: Std/Avg of logarithms, a mean of products, a Riesz kernel of negative exponent."""


def signs(got: dict[str, Any]) -> list[str]:
    """Numbers that are negative and must not be; −0 is not negative."""
    found = [
        f"{name} is negative: {value!r}"
        for name, value in got.items()
        if name.startswith(NEVER_NEGATIVE) and not name.endswith(SIGNED) and value is not None and float(value) < 0
    ]
    return found + [f"an snr is negative: {value}" for value in got["snr"] if float(value) < 0]
