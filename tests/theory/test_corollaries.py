"""Closed forms on the central path against 50-digit sums, against measured features, and at their limits."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import exact
from torch import Tensor

import neuralcollapse as nc
from neuralcollapse.theory.corollaries import agreement_radius, loss_parts, path_ratio, self_duality
from neuralcollapse.theory.flow import renormalize

SPECTRA = {
    "spread": [0.03, 0.7, 5.0, 41.0],
    "nearly equal": [1000.0, 1000.001, 1000.002, 999.99],
    "equal": [3.0, 3.0, 3.0, 3.0],
    "tiny": [1e-9, 2e-9, 3e-9, 5e-9],
    "huge": [1e12, 2e12, 1.5e12, 1.0001e12],
    "with zeros": [0.0, 0.0, 2.0, 3.0],
}


def summed(omega: list[float], classes: int, decay: float) -> tuple[float, float, float]:
    """(L_NC1, L_NC2/3, NC3) as sums of 50 digits."""
    with mpmath.workdps(50):
        kappa = 1 + mpmath.mpf(decay)
        w = [mpmath.mpf(value) for value in omega]
        a = [value / (classes * kappa + value**2) for value in w]
        nc1 = sum(kappa * x**2 for x in a) / 2
        nc23 = sum(classes * kappa**2 / (classes * kappa + x**2) ** 2 for x in w) / 2
        dot = sum(x * y for x, y in zip(a, w, strict=True))
        nc3 = 2 - 2 * dot / mpmath.sqrt(sum(x**2 for x in a) * sum(x**2 for x in w))
        return float(nc1), float(nc23), float(nc3)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("name", SPECTRA)
def test_the_closed_forms_are_the_sums(name: str, decay: float) -> None:
    omega = SPECTRA[name]
    nc1, nc23, nc3 = summed(omega, 5, decay)
    parts = loss_parts(omega, 5, decay)
    np.testing.assert_allclose(parts, (nc1, nc23), rtol=1e-14)
    np.testing.assert_allclose(
        self_duality(omega, 5, decay), nc3, rtol=1e-7 if name == "nearly equal" else 1e-13, atol=1e-300
    )


def on_the_path(
    omega: list[float], decay: float, longest: float | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, labels and the classifier on the central path, deviations with Σ_W = I."""
    classes, dim, each = len(omega) + 1, len(omega) + 3, 40
    labels = torch.arange(classes * each) % classes
    white = renormalize(torch.randn(len(labels), dim, dtype=torch.float64), labels)
    means = torch.stack([white[labels == c].mean(dim=0) for c in range(classes)])
    noise = white - means[labels]
    u = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64))[0][:, : classes - 1]
    basis = torch.cat([torch.ones(classes, 1), torch.randn(classes, classes - 1)], dim=1).double()
    v = torch.linalg.qr(basis)[0][:, 1:]
    values = torch.tensor(omega, dtype=torch.float64)
    weight = v @ torch.diag(values / (classes * (1 + decay) + values**2)) @ u.T
    return (v @ torch.diag(values) @ u.T)[labels] + noise, labels, weight, noise


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_features_on_the_path_measure_what_the_closed_forms_say(decay: float) -> None:
    omega = [0.5, 2.0, 3.0, 7.0]
    features, labels, weight, _ = on_the_path(omega, decay)
    report = nc.measure_features(features, labels, weight, torch.full((5,), 0.2), weight_decay=decay)
    parts = loss_parts(omega, 5, decay)
    np.testing.assert_allclose(report.nc3, self_duality(omega, 5, decay), rtol=1e-10)
    if decay == 0:
        np.testing.assert_allclose((report.mse.nc1, report.mse.nc23), parts, rtol=1e-10)
        np.testing.assert_allclose(report.snr.singular_values.flip(0), omega, rtol=1e-10)


@pytest.mark.parametrize("balanced", [True, False])
def test_each_part_of_the_loss_is_invariant_by_itself(balanced: bool) -> None:
    """Theorem 3: for L_NC1 and L_NC2/3 one by one, λ = 0, under H → AH + c of condition about 100."""
    labels = torch.arange(90) % 3 if balanced else torch.tensor([0] * 50 + [1] * 30 + [2] * 10)
    features = torch.randn(3, 5, dtype=torch.float64)[labels] + 0.7 * torch.randn(90, 5, dtype=torch.float64)
    turns = [torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0] for _ in range(2)]
    matrix = turns[0] @ torch.diag(torch.logspace(-1, 1, 5, dtype=torch.float64)) @ turns[1]
    for weighting in ("example", "class"):
        parts = [
            nc.measure_features(x, labels, torch.eye(3, 5), torch.zeros(3), weighting=weighting).mse
            for x in (features, features @ matrix + torch.randn(5))
        ]
        np.testing.assert_allclose(parts[1].nc1, parts[0].nc1, rtol=1e-9)
        np.testing.assert_allclose(parts[1].nc23, parts[0].nc23, rtol=1e-9)


def test_the_ratio_of_the_losses_tends_to_c_over_omega_squared() -> None:
    """Within 1 % where the ω_j are within 0.4 % of one another, whatever their size."""
    for omega in (0.01, 1.0, 30.0, 1e6):
        parts = loss_parts(omega * np.array([1.0, 1.002, 1.004]), 4, 0.5)
        np.testing.assert_allclose(parts.nc23 / parts.nc1, 4 * 1.5 / omega**2, rtol=1e-2)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_the_ratio_of_measured_losses_on_the_path_is_c_over_omega_squared(decay: float) -> None:
    """Equal ω_j of (Σ_W + λI)^{-1/2} M̄ and any Σ_W; what the penalised bias adds is taken off."""
    classes, dim, omega = 4, 6, 2.5
    labels = torch.arange(classes * 30) % classes
    noise = torch.randn(len(labels), dim, dtype=torch.float64) @ torch.diag(torch.logspace(-1, 1, dim).double())
    noise -= torch.stack([noise[labels == c].mean(dim=0) for c in range(classes)])[labels]
    spread = noise.T @ noise / len(noise) + decay * torch.eye(dim, dtype=torch.float64)
    sizes, vectors = torch.linalg.eigh(spread)
    centred = torch.linalg.qr(torch.eye(classes, dtype=torch.float64)[:, 1:] - 1 / classes)[0]
    means = omega * centred @ torch.linalg.qr(torch.randn(dim, classes - 1, dtype=torch.float64))[0].T
    features = (means @ vectors @ torch.diag(sizes.sqrt()) @ vectors.T)[labels] + noise
    parts = nc.decompose_mse(features, labels, torch.zeros(classes, dim), torch.zeros(classes), weight_decay=decay)
    bias = decay / (2 * classes * (1 + decay) ** 2)
    measured = (parts.nc23 - decay * bias) / (parts.nc1 - bias)
    assert path_ratio(features, labels, decay) == pytest.approx(measured, rel=1e-10)
    assert measured == pytest.approx(classes / omega**2, rel=1e-10)


@pytest.mark.parametrize("decay", [0.0, 1e-9, 0.02])
def test_the_ratio_of_any_features_is_the_mean_square_written_out(decay: float) -> None:
    """Unbalanced classes, one of them absent, class by class in NumPy."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 3], [12, 5, 30])
    features = generator.normal(size=(47, 4)) @ generator.normal(size=(4, 4)) + generator.normal(size=(4, 4))[labels]
    within, means, total = np.zeros((4, 4)), [], 0.0
    for label in (0, 1, 3):
        rows = features[labels == label]
        means.append(rows.mean(axis=0))
        within += (rows - means[-1]).T @ (rows - means[-1]) / 47
    for mean in means:
        off = mean - features.mean(axis=0)
        total += off @ np.linalg.solve(within + decay * np.eye(4), off)
    assert path_ratio(features, labels, decay) == pytest.approx(3 / (total / 2), rel=1e-7 if decay == 1e-9 else 1e-10)


@pytest.mark.parametrize("size", [1.0, 1e-170, 1e170])
@pytest.mark.parametrize("decay", [1e-30, 1e-4, 3.0, 1e40])
def test_the_ratio_of_features_in_other_units_against_60_digits(size: float, decay: float) -> None:
    """Units far apart, as much of it beside the penalty as it happens to be, and features of extreme size."""
    generator = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], [9, 4, 8])
    mixed = generator.normal(size=(21, 3)) @ generator.normal(size=(3, 3)) + generator.normal(size=(3, 3))[labels]
    features = mixed * (size * np.array([1e-5, 1.0, 1e5]))
    with mpmath.workdps(700):
        rows = mpmath.matrix(features.tolist())
        groups = {label: [i for i in range(21) if labels[i] == label] for label in range(3)}
        overall = [mpmath.fsum(rows[:, j]) / 21 for j in range(3)]
        means = {c: [mpmath.fsum(rows[i, j] for i in of) / len(of) for j in range(3)] for c, of in groups.items()}
        within = mpmath.diag([decay] * 3)
        for c, of in groups.items():
            for i in of:
                off = mpmath.matrix([rows[i, j] - means[c][j] for j in range(3)])
                within += off * off.T / 21
        apart = [mpmath.matrix([means[c][j] - overall[j] for j in range(3)]) for c in groups]
        wanted = 6 / mpmath.fsum((off.T * mpmath.inverse(within) * off)[0] for off in apart)
        wanted = float(wanted) if wanted < mpmath.mpf(10) ** 308 else np.inf
    assert path_ratio(features, labels, decay) == pytest.approx(wanted, rel=1e-9)


def powers(exponents: np.ndarray) -> np.ndarray:
    """Powers of two near those of ten."""
    return 2.0 ** np.round(np.log2(10.0) * exponents)


def peculiar(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Features, labels, number of classes, one of which may be absent, and λ.

    Few examples, units that are constant, copies, sums or without noise, a common offset, units up to 1e140 apart or
    all of an extreme size; λ anywhere from 1e-300 to 1e300, beside the spread, or 0.
    """
    present, units = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    labels = np.concatenate([np.arange(present), rng.integers(0, present, rng.integers(0, 10))])
    classes = present + int(rng.integers(0, 2))
    labels = labels + (labels >= rng.integers(0, present)) * (classes - present)
    spread = int(rng.choice([0, 1, 4, 16]))
    noise = rng.integers(-spread, spread + 1, size=(len(labels), units))
    free = (rng.integers(-40, 41, size=(classes, units))[labels] + noise) / 8 + rng.choice([0.0, 0.0, 256.0])
    columns = list(free.T)
    if rng.random() < 0.3:
        columns.append(np.full(len(labels), rng.choice([0.0, 0.5, 0.1, 1 / 3, 1000.0])))
    if rng.random() < 0.3:
        columns.append(columns[0])
    if rng.random() < 0.3:
        columns.append(columns[0] + columns[units - 1])
    if rng.random() < 0.2:
        columns.append(rng.integers(-5, 6, classes)[labels].astype(float))
    features, exponents = np.stack(columns, axis=1), np.zeros(len(columns))
    kind = rng.integers(4)
    if kind == 1:
        exponents[:] = rng.integers(-150, 151)
    elif kind == 2:
        exponents[rng.integers(len(columns))] = rng.choice([-140, -75, -10, 10, 75, 140])
    elif kind == 3:
        exponents = rng.integers(-20, 21, len(columns)).astype(float)
    features *= powers(exponents)
    decay = 10.0 ** rng.uniform(-300, 300)
    if rng.random() < 0.5:
        decay = min(1e300, float(powers(exponents).max()) ** 2 * 10.0 ** rng.uniform(-40, 40))
    return features, labels, classes, decay * (rng.random() < 0.8)


def written_out(features: np.ndarray, labels: np.ndarray, classes: int, decay: float, weighting: str) -> float:
    """In fractions. Σ_W is by example for the mixed weightings, μ_G by class for "mixed"."""
    rows, by_class = exact.rational(features), "class" if weighting in ("class", "mixed") else "example"
    m = exact.Moments(classes, rows, labels.tolist(), "class" if weighting == "class" else "example")
    centred = exact.Moments(classes, rows, labels.tolist(), by_class).centred
    return exact.path_ratio(m.within, centred, Fraction(decay))


@pytest.mark.parametrize("weighting", ["example", "class", "mixed", "mixed-example-mean"])
@settings(max_examples=150)
@given(seed=st.integers(0, 10**6))
def test_the_ratio_of_peculiar_features_is_that_in_fractions(weighting: str, seed: int) -> None:
    features, labels, classes, decay = peculiar(np.random.default_rng(seed))
    moments = nc.ClassMoments(classes, weighting=weighting)
    moments.update(features, labels)
    want = written_out(features, labels, classes, decay, weighting)
    assert path_ratio(moments, decay) == pytest.approx(want, rel=2e-6, abs=1e-307)


@pytest.mark.parametrize("state", [torch.float32, torch.float64])
@settings(max_examples=150)
@given(seed=st.integers(0, 10**6))
def test_the_ratio_of_float32_features_and_moments(state: torch.dtype, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, labels, classes, _ = peculiar(rng)
    size = np.abs(features).max(axis=0)
    features = (
        features
        / powers(np.round(np.log10(np.where(size > 0, size, 1.0))))
        * powers(rng.integers(-6, 7, features.shape[1]))
    )
    features = features.astype(np.float32)
    decay = float(np.abs(features).max() ** 2) * 10.0 ** rng.uniform(-12, 6) * (rng.random() < 0.8)
    if rng.random() < 0.2:
        decay = 10.0 ** rng.uniform(-300, 300)
    moments = nc.ClassMoments(classes, dtype=state)
    moments.update(features, labels)
    want = written_out(features.astype(float), labels, classes, decay, "example")
    assert path_ratio(moments, decay) == pytest.approx(want, rel=2e-3, abs=1e-307)


@pytest.mark.parametrize("decay", [1e-300, 1e-40, 1e-17, 1e-15, 1e-13, 1e-9])
def test_a_small_penalty_changes_little_where_noise_is_singular_and_class_means_do_not_reach_there(
    decay: float,
) -> None:
    """A copy, a sum, and a constant unit of 0.1, of which class means are right to a rounding."""
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 4
    free = (rng.integers(-20, 21, size=(4, 2))[labels] + rng.integers(-9, 10, size=(60, 2))) / 8
    features = np.column_stack([free, free[:, 0], free.sum(axis=1), np.full(60, 0.1)])
    want = path_ratio(features, labels)
    assert want == pytest.approx(path_ratio(free, labels), rel=1e-12)
    assert path_ratio(features, labels, decay) == pytest.approx(want, rel=1e-7)


def test_the_ratio_by_weighting_on_unbalanced_classes_and_on_balanced_ones() -> None:
    rng = np.random.default_rng(5)
    for counts, distinct in (((30, 5, 12), 3), ((12, 12, 12), 1)):
        labels = np.repeat([0, 1, 2], counts)
        features = rng.normal(size=(3, 4))[labels] + rng.normal(size=(len(labels), 4)) * (1.0 + labels[:, None])
        found = []
        for weighting in ("example", "class", "mixed", "mixed-example-mean"):
            moments = nc.ClassMoments(3, weighting=weighting)
            moments.update(features, labels)
            found.append(path_ratio(moments, 0.1))
            by_class = [np.cov(features[labels == c].T, bias=True) for c in range(3)]
            means = np.array([features[labels == c].mean(axis=0) for c in range(3)])
            within = np.average(by_class, axis=0, weights=None if weighting == "class" else counts)
            centre = np.average(means, axis=0, weights=None if weighting in ("class", "mixed") else counts)
            inverse = np.linalg.inv(within + 0.1 * np.eye(4))
            assert found[-1] == pytest.approx(6 / np.trace((means - centre) @ inverse @ (means - centre).T), rel=1e-10)
        assert found[0] == pytest.approx(found[3], rel=1e-12) and len(set(np.round(found[:3], 9))) == distinct


def test_the_ratio_at_its_ends() -> None:
    labels = torch.arange(6) % 2
    apart = torch.eye(2)[labels]
    assert path_ratio(apart, labels) == 0.0
    assert path_ratio(apart, labels, 0.1) == pytest.approx(2 / (1.0 / 0.1))
    assert path_ratio(torch.ones(6, 2), labels, 0.1) == np.inf
    with pytest.raises(nc.InputError, match="two or more classes with examples, got 1"):
        path_ratio(apart, torch.zeros(6, dtype=torch.long))


def test_along_the_flow_l_nc23_falls_fastest() -> None:
    path = nc.CentralPath([0.3, 0.5, 2.0], num_classes=4, samples_per_class=10)
    omega = path.singular_values(np.geomspace(1.0, 1e9, 30))
    parts = loss_parts(omega, 4)
    ratio = parts.nc23 / parts.nc1
    assert bool((np.diff(ratio) < 0).all()) and ratio[-1] < 1e-3
    np.testing.assert_allclose(parts.nc1 + parts.nc23, path.loss(np.geomspace(1.0, 1e9, 30)), rtol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_decisions_agree_within_the_radius_and_nc4_vanishes_along_the_flow(decay: float) -> None:
    path = nc.CentralPath([0.4, 0.9, 1.5], num_classes=4, samples_per_class=40, weight_decay=decay)
    promised = 0
    for time in np.geomspace(1.0, 3e7, 25):
        omega = path.singular_values(float(time))
        features, labels, weight, noise = on_the_path(list(omega), decay)
        radius = float(agreement_radius(omega, 4, decay))
        lengths = noise.norm(dim=1)
        inside = lengths < radius
        report = nc.measure_features(features, labels, weight, torch.full((4,), 0.25))
        means = report.means
        nearest = torch.cdist(features, means).argmin(dim=1)
        chosen = (features @ weight.T + 0.25).argmax(dim=1)
        assert bool((nearest[inside] == labels[inside]).all() and (chosen[inside] == labels[inside]).all())
        if radius > float(lengths.max()):
            promised += 1
            assert report.nc4_mismatch == 0 and report.accuracy == 1
    assert promised >= 3


def test_the_radius_grows_like_the_smallest_singular_value() -> None:
    for size in (1e3, 1e6):
        radius = float(agreement_radius([size, size, size], 4))
        assert 0.49 * size < radius <= size / np.sqrt(2) * (1 + 1e-12)
    assert float(agreement_radius([0.0, 0.0, 0.0], 4)) == 0.0


def test_what_is_no_spectrum_is_refused() -> None:
    with pytest.raises(nc.InputError, match="at least 0, got -1"):
        loss_parts([1.0, -1.0], 4)
    with pytest.raises(nc.InputError, match="1 to C − 1 = 1 singular values, got 2"):
        self_duality([1.0, 2.0], 2)
    with pytest.raises(nc.InputError, match="C − 1 = 3 singular values for NC4, got 2"):
        agreement_radius([1.0, 2.0], 4)
    assert np.isnan(self_duality([0.0, 0.0], 4))
    assert self_duality([1e100, 1.0], 4) == pytest.approx(2)
    with pytest.raises(nc.InputError, match=r"at most 1e\+100 for NC3, got 1e\+155"):
        self_duality([1e155, 1e155], 4)
