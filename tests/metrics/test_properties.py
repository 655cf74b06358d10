"""What no number of a report may depend on, over every number there is, in float64 and in float32.

Invariant under every nonsingular map of the features, at λ = 0: the signal-to-noise spectrum, VCI, all parts of the
loss and what the least-squares classifier predicts. Rotations and common scales change nothing at all.

Tolerances. The equilibrated covariances of these data have conditions below 10³, so float64 carries 10⁻⁹ and float32
(products of eps 1.2e-7) 2e-4 with room; roots of sums that cancel (the spread of cosines that all agree) carry the
root of that. Maps of condition κ, which round the features anew, are given κ² more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.numeric_cases import SIGNED
from reference import exact

import neuralcollapse as nc

# Numbers that are infinite or undefined come with a warning of the package, which is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

DTYPES = (torch.float64, torch.float32)
over_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
over_weightings = pytest.mark.parametrize("weighting", ["example", "class"])


@dataclass(frozen=True)
class Given:
    """A measurement's input in float64; features are multiples of 2⁻¹⁰, so that sums and copies are exact."""

    features: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    outside: np.ndarray
    decay: float = 0.0


@dataclass(frozen=True)
class Shape:
    name: str
    counts: tuple[int, ...]
    dim: int


SHAPES = (
    Shape("plain", (20, 12, 16, 9), 6),
    Shape("more-classes-than-features", (9, 12, 7, 14, 10, 8), 3),
    Shape("fewer-examples-than-features", (3, 2, 4), 10),
    Shape("one-null-direction", (4, 4, 4), 10),
    Shape("two-classes", (14, 9), 4),
    Shape("one-feature", (12, 9), 1),
    Shape("class-missing", (12, 0, 9, 15), 5),
    Shape("many", (15, 15, 15, 15, 15, 15, 15), 9),
)
over_shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
# Balanced classes count alike in both weightings.
over_both = pytest.mark.parametrize(
    ("shape", "weighting"),
    [(shape, "example") for shape in SHAPES] + [(shape, "class") for shape in SHAPES if len(set(shape.counts)) > 2],
    ids=lambda value: getattr(value, "name", value),
)


def make(shape: Shape, decay: float = 0.0, seed: int = 0) -> Given:
    rng = np.random.default_rng([seed, SHAPES.index(shape)])
    classes = len(shape.counts)
    labels = rng.permutation(np.repeat(np.arange(classes), shape.counts))
    features = 2 * rng.normal(size=(classes, shape.dim))[labels] + 0.7 * rng.normal(size=(len(labels), shape.dim)) + 0.5
    outside = rng.normal(size=(5, shape.dim)) + 0.3
    weight = 0.3 * rng.normal(size=(classes, shape.dim))
    grid = 1024.0
    return Given(
        np.round(features * grid) / grid,
        labels,
        np.round(weight * grid) / grid,
        np.round(rng.normal(size=classes) * grid) / grid,
        np.round(outside * grid) / grid,
        decay,
    )


def report(given: Given, dtype: torch.dtype, weighting: Any) -> nc.Report:
    """Of the features in ``dtype``; the classifier stays in float64, as the numbers it is."""
    return nc.measure_features(
        torch.from_numpy(given.features).to(dtype),
        torch.from_numpy(given.labels),
        torch.from_numpy(given.weight),
        torch.from_numpy(given.bias),
        weight_decay=given.decay,
        weighting=weighting,
        metrics="all",
        ood=torch.from_numpy(given.outside).to(dtype),
    )


def flat(made: nc.Report, features: np.ndarray | None = None) -> dict[str, float]:
    """Every number by name, with the least-squares outputs where features are given."""
    found: dict[str, float] = {}
    for name, value in made.to_dict().items():
        if name != "notes" and isinstance(value, list):
            found |= {f"{name}[{i}]": float(v) for i, v in enumerate(value)}
        elif value is not None and name not in ("weighting", "snr_space"):
            try:
                found[name] = float(value)  # type: ignore[arg-type]
            except (TypeError, ValueError):
                continue  # words
    if features is not None:
        outputs = torch.from_numpy(features) @ made.mse.weight_ls.double().T + made.mse.bias_ls.double()
        found |= {f"outputs[{i}]": float(v) for i, v in enumerate(outputs.ravel())}
    return found


def numbers(given: Given, dtype: torch.dtype = torch.float64, weighting: str = "example") -> dict[str, float]:
    return flat(report(given, dtype, weighting), torch.from_numpy(given.features).to(dtype).double().numpy())


LINEAR = (
    "num_",
    "classes_present",
    "accuracy",
    "snr",
    "variability_collapse_index",
    "mse.total",
    "mse.nc1",
    "mse.nc23",
    "mse.ls",
    "mse.ls_perp",
    "outputs",
)
"""What no nonsingular map changes at λ = 0, with the classifier mapped inversely."""


def linear(name: str) -> bool:
    return name == "mse.ls" or (name.startswith(LINEAR) and name != "mse.weight_ls_norm")


def same(
    got: dict[str, float],
    want: dict[str, float],
    dtype: torch.dtype,
    but: Iterable[str] = (),
    only: Callable[[str], bool] = lambda name: True,
    rtol: float | None = None,
) -> None:
    """Assert that all numbers agree, but those whose name starts with one of ``but``."""
    if rtol is None:
        rtol = 1e-9 if dtype == torch.float64 else 2e-4
    atol = 1e-7 if dtype == torch.float64 else 2e-4
    left = {name for name in {*got, *want} if only(name) and not name.startswith(tuple(but))}
    wrong = []
    for name in sorted(left):
        g, w = got.get(name, "nothing"), want.get(name, "nothing")
        if isinstance(g, str) or isinstance(w, str):
            wrong.append(f"{name}: {g}, not {w}")
            continue
        floor = atol if name.startswith(_ROOTS) else rtol * 1e-3
        if math.isnan(g) and math.isnan(w):
            continue
        # the least-squares outputs are of order one
        if not (g == w or abs(g - w) <= rtol * max(abs(w), 1.0 if name.startswith("outputs") else 0.0) + floor):
            wrong.append(f"{name}: {g:.10g}, not {w:.10g}")
    assert not wrong, f"{len(wrong)} numbers differ\n" + "\n".join(wrong[:30])


_ROOTS = ("nc2", "nc3", "etf_", "frame", "welch", "duality", "uniform", "gnc2", "equi", "align", "nc0", "effective")
IN_DIMENSION = ("dim", "gnc2_riesz_p_2", "rankme")
"""What has the number of units in its formula: the exponent p − 2, and an ε added for each."""
OF_DIMENSION = (*IN_DIMENSION, "etf_distance", "frame_error", "principal_angle", "welch_excess")
"""What knows the number of units: some bounds and ranks are those of the space."""


def agree(got: Given, want: Given, dtype: torch.dtype, weighting: str, **options: Any) -> None:
    """Assert that two inputs give the same numbers; in float32 also those of float64."""
    made = numbers(got, dtype, weighting)
    same(made, numbers(want, dtype, weighting), dtype, **options)
    if dtype == torch.float32:
        as_given = replace(want, features=_rounded(want.features), outside=_rounded(want.outside))
        same(made, numbers(as_given, torch.float64, weighting), dtype, **options)


def _rounded(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(np.float64)


def columns(given: Given, features: np.ndarray, weight: np.ndarray, outside: np.ndarray) -> Given:
    """With further columns."""
    return replace(
        given,
        features=np.hstack([given.features, features]),
        weight=np.hstack([given.weight, weight]),
        outside=np.hstack([given.outside, outside]),
    )


def scaled(given: Given, scales: np.ndarray | float) -> Given:
    """Each feature times its scale, the classifier divided by it."""
    return replace(
        given, features=given.features * scales, weight=given.weight / scales, outside=given.outside * scales
    )


# --- against exact arithmetic ----------------------------------------------------------------------------------------


@over_both
@over_dtypes
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_every_number_is_that_of_exact_arithmetic(
    shape: Shape, weighting: str, dtype: torch.dtype, decay: float
) -> None:
    given = make(shape, decay)
    want = exact.report(
        given.features,
        given.labels,
        given.weight,
        given.bias,
        weight_decay=decay,
        weighting=weighting,
        outside=given.outside.mean(axis=0),
    )
    values = dict(want.numbers) | {f"snr[{i}]": v for i, v in enumerate(want.snr)}
    values |= {f"outputs[{i}]": v for i, v in enumerate(want.outputs.ravel())}
    # of two classes on a line the cosines are 1 and −1: over their mean of zero UNC3 is infinite, or undefined
    but = ("margin", "uniform_duality") if shape.dim == 1 else ("margin",)
    # the conventions of other papers have a reference of their own: test_conventions
    measured = {name: value for name, value in numbers(given, dtype, weighting).items() if name in values}
    same(measured, values, dtype, but=but)


# --- units that say nothing ------------------------------------------------------------------------------------------


@over_both
@over_dtypes
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_dead_units_change_nothing(shape: Shape, weighting: str, dtype: torch.dtype, decay: float) -> None:
    given = make(shape, decay)
    zeros = [np.zeros((len(rows), 3)) for rows in (given.features, given.weight, given.outside)]
    few = shape.dim < len(shape.counts)  # then the space itself is too small for a simplex, and dead units enlarge it
    agree(columns(given, *zeros), given, dtype, weighting, but=OF_DIMENSION if few else IN_DIMENSION)


@over_both
@over_dtypes
@pytest.mark.parametrize("level", [0.7, 1000.1])
def test_constant_units_change_nothing_that_is_centred(
    shape: Shape, weighting: str, dtype: torch.dtype, level: float
) -> None:
    given = make(shape)
    full, zero = [np.full((len(rows), 1), level) for rows in (given.features, given.outside)], given.weight[:, :1] * 0
    agree(
        columns(given, full[0], zero, full[1]),
        given,
        dtype,
        weighting,
        but=(*OF_DIMENSION, "nc3_uncentred", "class_numerical_rank", "nc5", "mse.weight_ls_norm"),
    )


@over_both
@over_dtypes
def test_duplicated_units_carry_no_information(shape: Shape, weighting: str, dtype: torch.dtype) -> None:
    given = make(shape)
    which = np.arange(3) % shape.dim
    more = columns(given, given.features[:, which], 0 * given.weight[:, which], given.outside[:, which])
    agree(more, given, dtype, weighting, only=linear)


@over_shapes
@over_dtypes
def test_sums_and_differences_of_units_carry_no_information(shape: Shape, dtype: torch.dtype) -> None:
    """Exact here, because features are on a grid: a rank that is lost without any column being another's copy."""
    given = make(shape)
    mixing = np.array([[1.0, -1.0], [1.0, 3.0]])[: min(2, shape.dim)]
    more = [rows[:, : len(mixing)] @ mixing for rows in (given.features, given.outside)]
    agree(
        columns(given, more[0], np.zeros((len(given.weight), 2)), more[1]),
        given,
        dtype,
        "example",
        only=linear,
    )


# --- whatever basis LAPACK gives a null space ------------------------------------------------------------------------


def turn_null_spaces(monkeypatch: pytest.MonkeyPatch, seed: int) -> list[int]:
    """Turn each null space that an eigendecomposition returns by chance: processors differ in which basis they give.

    Returns:
        A list that receives the dimension of each.
    """
    rng, eigh, dimensions = np.random.default_rng(seed), torch.linalg.eigh, list[int]()

    def turned(matrix: torch.Tensor) -> Any:
        values, vectors = eigh(matrix)
        null = values.abs() <= 64 * torch.finfo(values.dtype).eps * values.abs().max()
        count = int(null.sum())
        dimensions.append(count)
        turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(count, count)))[0]).to(vectors.dtype)
        vectors[:, null] = vectors[:, null] @ turn
        return values, vectors

    monkeypatch.setattr(torch.linalg, "eigh", turned)
    return dimensions


@pytest.mark.parametrize("more", [0, 3], ids=["two-null-directions", "five-null-directions"])
@over_dtypes
@pytest.mark.parametrize("power", [-40, 0, 15])
@pytest.mark.parametrize("seed", range(4))
def test_the_basis_of_a_null_space_does_not_matter(
    more: int, dtype: torch.dtype, power: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shape,) = (each for each in SHAPES if each.name == "fewer-examples-than-features")
    given, rng = make(shape), np.random.default_rng(seed)
    counts = (len(given.features), len(given.weight), len(given.outside))
    given = columns(given, *(np.round(rng.normal(size=(count, more)) * 1024) / 1024 for count in counts))
    scales = np.ones(shape.dim + more)
    scales[shape.dim // 2] = 2.0**power
    dimensions = turn_null_spaces(monkeypatch, seed)
    agree(scaled(given, scales), given, dtype, "example", only=linear)
    assert max(dimensions) >= 2 + more


# --- scales ----------------------------------------------------------------------------------------------------------


@over_both
@over_dtypes
@pytest.mark.parametrize("power", [-40, 15])
def test_the_unit_of_one_feature_does_not_matter(shape: Shape, weighting: str, dtype: torch.dtype, power: int) -> None:
    """A power of two rounds nothing, so that the numbers given are the same ones."""
    given = make(shape)
    scales = np.ones(shape.dim)
    scales[shape.dim // 2] = 2.0**power
    agree(scaled(given, scales), given, dtype, weighting, only=linear)


@over_shapes
@over_dtypes
@pytest.mark.parametrize("seed", range(2))
def test_the_units_of_all_features_do_not_matter(shape: Shape, dtype: torch.dtype, seed: int) -> None:
    given = make(shape)
    scales = 2.0 ** np.random.default_rng(seed).integers(-20, 21, size=shape.dim)
    agree(scaled(given, scales), given, dtype, "example", only=linear)


@over_both
@over_dtypes
@pytest.mark.parametrize("power", [-30, 0, 26, 40])
def test_copies_and_sums_of_units_in_other_units(shape: Shape, weighting: str, dtype: torch.dtype, power: int) -> None:
    """What has no width stays null in units of any size, each feature's own or all together."""
    given, p = make(shape), shape.dim
    mixing = np.zeros((p, 3))
    mixing[0], mixing[-1] = (1.0, 1.0, 3.0), (-1.0, 2.0, 3.0)
    more = [rows @ mixing for rows in (given.features, given.outside)]
    wide = columns(given, more[0], np.zeros((len(given.weight), 3)), more[1])
    agree(scaled(wide, 2.0**power), given, dtype, weighting, only=linear)
    units = 2.0 ** np.random.default_rng(abs(power)).integers(-20, 21, size=p + 3)
    agree(scaled(wide, units), given, dtype, weighting, only=linear)


@over_both
@over_dtypes
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_a_unit_that_is_no_power_of_two(shape: Shape, weighting: str, dtype: torch.dtype, factor: float) -> None:
    """Scaling rounds the features once more: the answer is the float64 one of the numbers that come out."""
    given = make(shape)
    scales = np.ones(shape.dim)
    scales[0] = factor
    moved = scaled(given, scales)
    as_given = replace(
        moved,
        features=torch.from_numpy(moved.features).to(dtype).double().numpy(),
        outside=torch.from_numpy(moved.outside).to(dtype).double().numpy(),
    )
    same(numbers(moved, dtype, weighting), numbers(as_given, torch.float64, weighting), dtype)
    same(numbers(moved, dtype, weighting), numbers(given, torch.float64, weighting), dtype, only=linear)


@over_both
@pytest.mark.parametrize(
    ("dtype", "power"),
    [(torch.float64, k) for k in (-500, 300)] + [(torch.float32, k) for k in (-110, 65, 100)],
)
def test_a_common_scale_changes_nothing(shape: Shape, weighting: str, dtype: torch.dtype, power: int) -> None:
    """Features times 2ᵏ and the classifier times 2⁻ᵏ, from where products vanish to where they overflow."""
    given = make(shape)
    moved, original = numbers(scaled(given, 2.0**power), dtype, weighting), numbers(given, dtype, weighting)
    for name in ("mse.weight_ls_norm", "nc0"):
        moved[name] *= 2.0**power
    # The least norm of [W, b] is another solution in another unit, where there is a choice.
    but = ("mse.weight_ls_norm",) if len(given.labels) - np.count_nonzero(shape.counts) < shape.dim else ()
    # two conventions depend on the unit by their formula: a fourth power beside a square, and logarithms of norms
    but += ("cdnv_fourth_power", "equinorm_means_log", "equinorm_classifier_log")
    same(moved, original, dtype, but=but, rtol=1e-9 if dtype == torch.float64 else 1e-5)


@over_dtypes
@pytest.mark.parametrize("exponent", [0, -5, -8, -12])
def test_small_features_with_a_dead_unit(dtype: torch.dtype, exponent: int) -> None:
    """The mean's own entry of the extended features is 1, whatever their size."""
    given = make(SHAPES[0])
    given = columns(given, *(np.zeros((len(v), 1)) for v in (given.features, given.weight, given.outside)))
    small = scaled(given, 10.0**exponent)
    made = report(small, dtype, "example").mse
    assert made.nc1 + made.nc23 + made.ls_perp == pytest.approx(
        made.total, rel=1e-9 if dtype == torch.float64 else 1e-4
    )
    same(numbers(small, dtype), numbers(given), dtype, only=linear)


# --- maps ------------------------------------------------------------------------------------------------------------


def orthogonal(dim: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def mapped(given: Given, matrix: np.ndarray) -> Given:
    return replace(
        given,
        features=given.features @ matrix,
        weight=given.weight @ np.linalg.inv(matrix).T,
        outside=given.outside @ matrix,
    )


def as_rounded(given: Given, dtype: torch.dtype) -> Given:
    """The numbers that ``dtype`` keeps of the features."""
    kept = (torch.from_numpy(v).to(dtype).double().numpy() for v in (given.features, given.outside))
    features, outside = kept
    return replace(given, features=features, outside=outside)


@over_both
@over_dtypes
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_rotations_change_nothing(shape: Shape, weighting: str, dtype: torch.dtype, decay: float) -> None:
    given = make(shape, decay)
    turned = mapped(given, orthogonal(shape.dim, 1))
    null = sum(shape.counts) - sum(c > 0 for c in shape.counts) < shape.dim
    # Rounding the turned features takes their exact null directions away: what is infinite there becomes 1/rounding.
    but = ("snr", "mse.nc1", "mse.nc23", "mse.ls", "variability_collapse", "outputs") if null and not decay else ()
    if null:
        but = (*but, "snr")
    same(numbers(turned, dtype, weighting), numbers(given, torch.float64, weighting), dtype, but=but)


@over_weightings
@over_dtypes
@pytest.mark.parametrize(
    "shape", [s for s in SHAPES if "null" not in s.name and "fewer" not in s.name], ids=lambda s: s.name
)
@pytest.mark.parametrize("seed", range(3))
def test_nonsingular_maps_leave_what_theory_says(shape: Shape, weighting: str, dtype: torch.dtype, seed: int) -> None:
    """H → HA of condition 100, then units of sizes 2⁻¹⁰ to 2¹⁰; float32 against float64 of its numbers."""
    given, p = make(shape), shape.dim
    stretch = np.logspace(-1, 1, p) if p > 1 else np.ones(1)
    matrix = orthogonal(p, seed) @ np.diag(stretch) @ orthogonal(p, seed + 9)
    moved = as_rounded(mapped(given, matrix), dtype)
    units = 2.0 ** np.random.default_rng(seed).integers(-10, 11, size=p)
    eps = float(torch.finfo(dtype).eps)
    rtol = min(0.02, 1e4 * 100 * eps)  # the condition of the map, squared, times that of the data's rounding
    same(
        numbers(scaled(moved, units), dtype, weighting),
        numbers(moved, torch.float64, weighting),
        dtype,
        only=linear,
        rtol=rtol,
    )
    if dtype == torch.float64:
        same(numbers(moved, dtype, weighting), numbers(given, dtype, weighting), dtype, only=linear, rtol=1e-8)


@over_shapes
@over_dtypes
@pytest.mark.parametrize("seed", range(2))
def test_order_does_not_matter(shape: Shape, dtype: torch.dtype, seed: int) -> None:
    """Of examples, of units, of classes."""
    given = make(shape, 0.01)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(given.labels))
    agree(
        replace(given, features=given.features[order], labels=given.labels[order]),
        given,
        dtype,
        "class",
        but=("outputs",),
    )
    units = rng.permutation(shape.dim)
    moved = replace(
        given, features=given.features[:, units], weight=given.weight[:, units], outside=given.outside[:, units]
    )
    agree(moved, given, dtype, "class")
    classes = rng.permutation(len(given.weight))
    names = np.empty(len(classes), dtype=np.int64)
    names[classes] = np.arange(len(classes))
    relabelled = replace(given, labels=names[given.labels], weight=given.weight[classes], bias=given.bias[classes])
    agree(relabelled, given, dtype, "class", but=("outputs",))


@over_both
@over_dtypes
def test_absent_classes_take_no_part(shape: Shape, weighting: str, dtype: torch.dtype) -> None:
    given = make(shape, 0.01)
    more = replace(
        given,
        labels=given.labels + 1,
        weight=np.pad(given.weight, ((1, 2), (0, 0))),
        bias=np.pad(given.bias, (1, 2)),
    )
    agree(more, given, dtype, weighting, but=("num_classes", "outputs", "accuracy", "nc4"))


@over_both
@over_dtypes
def test_batches_and_the_order_of_merging_change_nothing(shape: Shape, weighting: Any, dtype: torch.dtype) -> None:
    given = make(shape, 0.01)
    features, labels = torch.from_numpy(given.features).to(dtype), torch.from_numpy(given.labels)
    weight, bias = torch.from_numpy(given.weight), torch.from_numpy(given.bias)
    want = {
        k: v for k, v in numbers(given, dtype, weighting).items() if k not in ("nc4_mismatch", "nc5", "nc5_centred")
    }
    for sizes, reverse in (((3,), True), ((len(labels),), False), ((2, 5), False)):
        parts = []
        start = 0
        while start < len(labels):
            stop = start + sizes[len(parts) % len(sizes)]
            parts.append(nc.ClassMoments(len(weight), weighting=weighting))
            parts[-1].update(features[start:stop], labels[start:stop])
            start = stop
        whole = nc.ClassMoments(len(weight), weighting=weighting)
        for part in reversed(parts) if reverse else parts:
            whole.merge(part)
        streamed = nc.ClassMoments(len(weight), weighting=weighting)
        for rows, truth in zip(features.split(sizes[0]), labels.split(sizes[0]), strict=True):
            streamed.update(rows, truth)
        for moments in (whole, streamed):
            made = nc.make_report(moments, weight, bias, weight_decay=given.decay, metrics="all")
            same(flat(made, given.features), want, dtype, but=("accuracy", "nearest_mean_accuracy"))


# --- strong collapse -------------------------------------------------------------------------------------------------


def spectrum_by_qr(features: np.ndarray, labels: np.ndarray, weighting: str) -> np.ndarray:
    """The ω of features with a nonsingular Σ_W, by QR of the deviations themselves, which squares no condition."""
    classes, counts = np.unique(labels, return_counts=True)
    means = np.array(
        [features[labels == c][0] + (features[labels == c] - features[labels == c][0]).mean(0) for c in classes]
    )
    pi = counts / len(labels) if weighting == "example" else np.full(len(classes), 1 / len(classes))
    roots = np.sqrt((pi / counts)[np.searchsorted(classes, labels)])
    deviations = roots[:, None] * (features - means[np.searchsorted(classes, labels)])
    size = np.linalg.norm(deviations, axis=0)
    factor = np.linalg.qr(deviations / size, mode="r")
    whitened = np.linalg.solve(factor.T, ((means - pi @ means) / size).T)
    return np.linalg.svd(whitened, compute_uv=False)[: len(classes) - 1]


@over_weightings
@pytest.mark.parametrize("spread", [1e-4, 1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("seed", range(2))
def test_strong_collapse_in_float32(weighting: Any, spread: float, factor: float, seed: int) -> None:
    """Ten classes; the numbers given are exact, whatever their rounding was, so that ω is well defined."""
    rng = np.random.default_rng(seed)
    labels = np.arange(400) % 10
    features = rng.normal(size=(10, 16))[labels] + spread * rng.normal(size=(400, 16))
    features[:, seed] *= factor
    features = features.astype(np.float32)
    want = spectrum_by_qr(features.astype(np.float64), labels, weighting)
    moments = nc.ClassMoments(10, weighting=weighting)
    moments.update(torch.from_numpy(features), torch.from_numpy(labels))
    np.testing.assert_allclose(nc.snr_singular_values(moments).singular_values.numpy(), want, rtol=0.01)
    index = nc.compute_metrics(moments, "variability_collapse_index")["variability_collapse_index"]
    assert index == pytest.approx(np.mean(1 / (1 + want**2 / 10)), rel=0.02)


@over_weightings
@over_dtypes
@pytest.mark.parametrize("spread", [1e-4, 1e-7])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1], SHAPES[6], SHAPES[7]], ids=lambda s: s.name)
def test_nothing_is_negative_and_parts_add_up_at_collapse(
    shape: Shape, weighting: str, dtype: torch.dtype, spread: float
) -> None:
    given = make(shape)
    means = np.array(
        [
            given.features[given.labels == c].mean(axis=0) if c in given.labels else 0 * given.features[0]
            for c in range(len(shape.counts))
        ]
    )
    near = replace(given, features=means[given.labels] + spread * (given.features - means[given.labels]))
    near = columns(near, *(np.zeros((len(v), 2)) for v in (given.features, given.weight, given.outside)))
    made = report(near, dtype, weighting)
    for name, value in flat(made).items():
        signed = name.endswith(SIGNED) or name.startswith(("gnc2_log", "welch", "nc4", "mse.weight_decay"))
        if not signed:
            assert not value < 0, f"{name} = {value}"
    parts = made.mse.nc1 + made.mse.nc23 + made.mse.ls_perp
    assert parts == pytest.approx(made.mse.total, rel=1e-9 if dtype == torch.float64 else 1e-4)
    assert made.mse.ls == pytest.approx(made.mse.nc1 + made.mse.nc23, rel=1e-12, abs=1e-300)


@over_shapes
@over_dtypes
def test_reports_print_and_become_json(shape: Shape, dtype: torch.dtype) -> None:
    made = report(make(shape), dtype, "example")
    assert "NC1" in str(made)
    assert json.loads(json.dumps(made.to_dict())) == made.to_dict()
