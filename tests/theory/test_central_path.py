"""The closed form of the flow: against 60 digits, against integration, and against features that lie on the path."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

import neuralcollapse as nc
from neuralcollapse.theory.central_path import central_path_loss, flow_constants
from neuralcollapse.theory.flow import renormalize

EPS = 2.0**-52
FLOWS = ("projected", "multiplicative")
over_flows = pytest.mark.parametrize("flow", FLOWS)
decades = st.floats(-150, 12).map(lambda power: 10.0**power)


def exact_constants(classes: int, samples: float, decay: float, flow: str) -> tuple[mp.mpf, mp.mpf, mp.mpf]:
    """MATHEMATICS, section 6, in exact arithmetic."""
    kappa, n = 1 + mp.mpf(decay), mp.mpf(samples)
    if flow == "projected":
        return n * classes**2 * kappa, n * classes, n / (4 * kappa)
    return n * classes**2 * kappa, n * classes / 2, mp.mpf(0)


def exact(omega0: float, t: float, constants: tuple[mp.mpf, mp.mpf, mp.mpf]) -> tuple[mp.mpf, float]:
    """ω(t) by bisection of log ω in 60 digits, and the conditioning ∂ log ω/∂ log t there."""
    with mp.workdps(60):
        c1, c2, c3 = constants
        start, clock = mp.mpf(omega0), mp.mpf(t)

        def left(y: mp.mpf) -> mp.mpf:
            w = mp.exp(y)
            return c1 * (y - mp.log(start)) + c2 * (w**2 - start**2) + c3 * (w**4 - start**4)

        low, high = mp.log(start), mp.log(start) + 1
        while left(high) < clock:
            high += high - mp.log(start)
        for _ in range(190):  # 2^-190 of an interval below 1e3
            middle = (low + high) / 2
            low, high = (middle, high) if left(middle) < clock else (low, middle)
        omega = mp.exp((low + high) / 2)
        return omega, float(clock / (c1 + 2 * c2 * omega**2 + 4 * c3 * omega**4))


@settings(max_examples=150)
@given(
    omega0=decades,
    t=st.one_of(st.just(0.0), st.floats(-40, 40).map(lambda power: 10.0**power)),
    classes=st.integers(2, 1000),
    samples=st.floats(0, 6).map(lambda power: 10.0**power),
    decay=st.floats(0, 9),
    flow=st.sampled_from(FLOWS),
)
def test_singular_values_are_right_to_the_problems_conditioning(
    omega0: float, t: float, classes: int, samples: float, decay: float, flow: Any
) -> None:
    """Proposition 2: its solution, against arithmetic of sixty digits."""
    path = nc.CentralPath(omega0, num_classes=classes, samples_per_class=samples, weight_decay=decay, flow=flow)
    want, conditioning = exact(omega0, t, exact_constants(classes, samples, decay, flow))
    error = float(abs(mp.mpf(float(path.singular_values(t))) / want - 1))
    assert error <= 4 * EPS * max(1.0, conditioning)


@over_flows
@given(omega0=decades, growth=st.floats(0.1, 1e6))
def test_time_inverts_the_singular_values(flow: Any, omega0: float, growth: float) -> None:
    path = nc.CentralPath(omega0, num_classes=10, samples_per_class=50, flow=flow)
    t = float(path.time(omega0 * (1 + growth)))
    back = float(path.time(path.singular_values(t)))
    # ω is rounded: where f is steep in ω, its inverse cannot be better
    c1, c2, c3 = path.constants
    omega = omega0 * (1 + growth)
    steepness = (c1 + 2 * c2 * omega**2 + 4 * c3 * omega**4) / t
    assert back == pytest.approx(t, rel=1e-12 + 4 * EPS * steepness)


@over_flows
@given(omega0=decades, times=st.lists(st.floats(0, 1e40), min_size=2, max_size=6))
def test_singular_values_never_fall(flow: Any, omega0: float, times: list[float]) -> None:
    path = nc.CentralPath(omega0, num_classes=5, samples_per_class=20, flow=flow)
    omega = path.singular_values(np.sort(times))
    assert (np.diff(omega) >= -2 * EPS * omega[1:]).all() and (omega >= omega0).all()
    assert float(path.singular_values(0.0)) == omega0


@over_flows
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_closed_form_solves_the_differential_equation(flow: Any, decay: float) -> None:
    """Proposition 2: its solution, against SciPy's integration of dω/dt as the specification states it."""
    classes, samples, kappa = 5, 20, 1 + decay
    start = np.array([0.3, 0.7, 1.5, 2.2])

    def rate(_: float, w: np.ndarray) -> np.ndarray:
        if flow == "projected":
            return kappa / samples * w / (classes * kappa + w**2) ** 2
        return w / (classes * samples * (classes * kappa + w**2))

    times = np.array([0.0, 10.0, 1e3, 2e4])
    found = solve_ivp(rate, (0, times[-1]), start, method="DOP853", t_eval=times, rtol=1e-12, atol=1e-14)
    path = nc.CentralPath(start, num_classes=classes, samples_per_class=samples, weight_decay=decay, flow=flow)
    np.testing.assert_allclose(path.singular_values(times), found.y.T, rtol=1e-9)


@over_flows
def test_the_corollaries_hold_late(flow: Any) -> None:
    path = nc.CentralPath([0.01, 0.5, 3.0], num_classes=4, samples_per_class=10, weight_decay=0.2, flow=flow)
    late = np.array([1e2, 1e4, 1e8, 1e16, 1e24])
    np.testing.assert_allclose(path.singular_values(1e30), path.asymptote(1e30) * np.ones(3), rtol=1e-5)
    exponent = np.diff(np.log(path.singular_values(late)), axis=0)[-1] / np.log(late[-1] / late[-2])
    np.testing.assert_allclose(exponent, 0.25 if flow == "projected" else 0.5, rtol=1e-4)
    condition = path.condition(late)
    assert (np.diff(condition) < 0).all() and condition[-1] == pytest.approx(1, abs=1e-5)
    found = path.metrics(late)
    for falling in (found.nc1, found.equinorm_means, found.equiangularity_means, found.maximal_angle_means, found.nc3):
        assert (np.diff(falling) < 0).all() and falling[-1] < 1e-5


def on_the_path(
    omega: np.ndarray, samples: int, dim: int, seed: int
) -> tuple[nc.ClassMoments, np.ndarray, torch.Tensor, torch.Tensor]:
    """Moments of features with Σ_W = I, μ_G = 0 and the given singular values; their V; features and labels."""
    rng = np.random.default_rng(seed)
    classes = len(omega) + 1
    left = np.linalg.qr(rng.normal(size=(dim, classes - 1)))[0]
    right = np.linalg.qr(np.column_stack([np.ones(classes), rng.normal(size=(classes, classes - 1))]))[0][:, 1:]
    noise = rng.normal(size=(classes, samples, dim))
    noise -= noise.mean(axis=1, keepdims=True)
    covariance = np.einsum("cnp,cnq->pq", noise, noise) / (classes * samples)
    noise = noise @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    features = torch.from_numpy((noise + (right * omega @ left.T)[:, None, :]).reshape(-1, dim))
    labels = torch.arange(classes).repeat_interleave(samples)
    moments = nc.ClassMoments(classes)
    moments.update(features, labels)
    return moments, right, features, labels


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_loss_and_metrics_are_those_of_features_on_the_path(decay: float) -> None:
    """Along the path against the measuring core: features built with the ω, classifier W = V diag(ω/(Cκ+ω²)) Uᵀ."""
    omega = np.array([0.4, 1.1, 2.5, 6.0])
    moments, right, _, _ = on_the_path(omega, 30, 9, seed=1)
    path = nc.CentralPath(omega, num_classes=5, samples_per_class=30, weight_decay=decay)
    found = path.metrics(0.0, right)
    kappa = 1 + decay
    means = moments.means.numpy()
    weight = torch.from_numpy(np.linalg.solve(means.T @ means / 5 + kappa * np.eye(9), means.T / 5).T.copy())
    bias = torch.full((5,), 0.2, dtype=torch.float64)
    measured = nc.decompose_mse(moments, weight, bias)
    # the penalty of the weight alone; the bias of the path is not penalised
    total = measured.total + decay / 2 * float(weight.square().sum())
    assert float(path.loss(0.0)) == pytest.approx(total, rel=1e-12) == float(found.loss)
    assert float(found.loss_nc1 + found.loss_nc23) == pytest.approx(total, rel=1e-12)
    assert float(found.nc1) == pytest.approx(nc.nc1(moments), rel=1e-10)
    assert float(found.nc3) == pytest.approx(nc.nc3(moments, weight), rel=1e-9)
    nc2 = nc.nc2(moments, weight)
    for name in ("equinorm", "equiangularity", "maximal_angle"):
        for which in ("means", "classifier"):
            key = f"{name}_{which}"
            assert float(getattr(found, key)) == pytest.approx(getattr(nc2, key), rel=1e-9)


def test_loss_on_the_zero_mean_path_is_the_least_squares_loss() -> None:
    omega = np.array([0.4, 1.1, 2.5, 6.0])
    moments, _, _, _ = on_the_path(omega, 30, 9, seed=2)
    least = nc.decompose_mse(moments, torch.zeros(5, 9))
    loss = central_path_loss(torch.from_numpy(omega), 5)
    assert float(loss) == pytest.approx(least.ls, rel=1e-12)
    np.testing.assert_allclose(nc.snr_singular_values(moments).singular_values, omega[::-1], rtol=1e-12)


@given(seed=st.integers(0, 50), condition=st.floats(0, 2))
def test_the_least_squares_loss_ignores_every_invertible_map(seed: int, condition: float) -> None:
    """Theorem 3, for maps of condition number up to 100: covariances square it, and double precision has 16 digits."""
    moments, _, features, labels = on_the_path(np.array([0.5, 2.0, 3.0]), 20, 6, seed=seed)
    rng = np.random.default_rng(seed + 100)
    left, right = (np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(2))
    mapping = torch.from_numpy(left * np.logspace(0, condition, 6) @ right)
    moved = nc.ClassMoments(4)
    moved.update(features @ mapping.T, labels)
    before, after = (nc.decompose_mse(m, torch.zeros(4, 6)) for m in (moments, moved))
    assert after.ls == pytest.approx(before.ls, rel=1e-10)
    predictions = [f @ d.weight_ls.T + d.bias_ls for f, d in ((features, before), (features @ mapping.T, after))]
    torch.testing.assert_close(predictions[0], predictions[1], rtol=0, atol=1e-10)
    values = [nc.snr_singular_values(m).singular_values for m in (moments, moved)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-10, atol=0)


@given(seed=st.integers(0, 50), condition=st.floats(0, 4))
def test_renormalized_features_forget_maps_of_condition_up_to_1e4(seed: int, condition: float) -> None:
    """Theorem 3 as the flow uses it: whiten, and once more for what the first whitening left of a hard map."""
    moments, _, features, labels = on_the_path(np.array([0.5, 2.0, 3.0]), 20, 6, seed=seed)
    rng = np.random.default_rng(seed + 100)
    left, right = (np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(2))
    mapping = torch.from_numpy(left * np.logspace(0, condition, 6) @ right)
    white = renormalize(renormalize(features @ mapping.T, labels), labels)
    again = nc.ClassMoments(4)
    again.update(white, labels)
    before, after = (nc.decompose_mse(m, torch.zeros(4, 6)) for m in (moments, again))
    assert after.ls == pytest.approx(before.ls, rel=1e-10)
    predictions = [f @ d.weight_ls.T + d.bias_ls for f, d in ((features, before), (white, after))]
    torch.testing.assert_close(predictions[0], predictions[1], rtol=0, atol=1e-10)
    values = [nc.snr_singular_values(m).singular_values for m in (moments, again)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-10, atol=0)


@over_flows
def test_tensors_carry_first_and_second_derivatives(flow: Any) -> None:
    start = torch.tensor([0.4, 1.2], dtype=torch.float64, requires_grad=True)
    times = torch.tensor([0.0, 5.0, 300.0], dtype=torch.float64, requires_grad=True)

    def solve(omega0: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        path = nc.CentralPath(omega0, num_classes=3, samples_per_class=4, weight_decay=0.1, flow=flow)
        return path.singular_values(t)

    assert solve(start, times).shape == (3, 2)
    shifted = (times + 1.0).detach().requires_grad_()  # differences must not leave t ≥ 0
    assert torch.autograd.gradcheck(solve, (start, shifted), rtol=1e-6, atol=1e-10)
    assert torch.autograd.gradgradcheck(solve, (start, shifted), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_a_path_keeps_its_start_whatever_the_caller_writes_later(kind: Any) -> None:
    start = kind([1.0, 2.0])
    path = nc.CentralPath(start, num_classes=3, samples_per_class=5)
    before = path.singular_values(1.0)
    start[:] = -5.0
    assert (path.singular_values(1.0) == before).all()


def test_one_singular_value_is_the_largest_and_the_smallest() -> None:
    path = nc.CentralPath(1.0, num_classes=4, samples_per_class=10)
    assert path.condition(np.array([0.0, 1e3, 1e6])).tolist() == [1.0] * 3
    assert path.condition(torch.tensor([0.0, 1e3])).tolist() == [1.0] * 2 and path.condition(2.0) == 1.0


def test_an_unknown_flow_has_no_constants() -> None:
    with pytest.raises(nc.InputError, match=r"did you mean 'projected'"):
        flow_constants(4, 10, 0.0, "Projected")  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [[1e26], [1e60, 1e59, 5e59], [0.0, 1.0, 2.0], [0.0], [1e-150], [1e60]])
def test_every_path_prints_itself(start: list[float]) -> None:
    path = nc.CentralPath(start, num_classes=4, samples_per_class=10)
    lines = str(path).splitlines()
    heads = next(number for number, line in enumerate(lines) if "least ω" in line)
    assert len([line for line in lines[heads + 1 :] if line.strip() and line.lstrip()[0].isdigit()]) >= 8
    assert "those above 0 grow" in str(path) and "<table" in path._repr_html_()


def test_kinds_and_shapes_come_back() -> None:
    scalar = nc.CentralPath(0.5, num_classes=3, samples_per_class=4)
    assert np.ndim(scalar.singular_values(2.0)) == 0
    assert scalar.singular_values(np.ones((2, 3))).shape == (2, 3)
    path = nc.CentralPath([0.5, 0.7], num_classes=3, samples_per_class=4)
    assert path.singular_values(1.0).shape == (2,) and path.loss(np.ones(4)).shape == (4,)
    assert path.time([0.6, 0.9]).shape == (2,)
    tensor = path.singular_values(torch.ones(4, dtype=torch.float64))
    assert isinstance(tensor, torch.Tensor) and tensor.shape == (4, 2)
    np.testing.assert_array_equal(tensor.numpy(), path.singular_values(np.ones(4)))
    assert isinstance(path.loss(torch.ones(4)), torch.Tensor)
    assert flow_constants(3, 4) == (36.0, 12.0, 1.0)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"omega0": 1e-200}, "singular values between 1e-150 and"),
        ({"omega0": [1.0, -2.0]}, r"got -2\.0"),
        ({"omega0": float("nan")}, "got nan"),
        ({"num_classes": 1}, "num_classes of at least 2, got 1"),
        ({"samples_per_class": 0}, "samples per class, got 0"),
        ({"weight_decay": -1.0}, r"weight decay of at least 0, got -1\.0"),
        ({"flow": "newtonian"}, "got 'newtonian'"),
        ({"omega0": [1.0, 2.0, 3.0]}, "1 to C − 1 = 2 singular values"),
        ({"omega0": []}, r"1 to C − 1 = 2 singular values in one row, got shape \(0,\)"),
    ],
)
def test_impossible_paths_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(nc.InputError, match=message):
        nc.CentralPath(**{"omega0": [1.0, 2.0], "num_classes": 3, "samples_per_class": 5, **options})


@pytest.mark.wrong_input
def test_impossible_times_and_metrics_are_named() -> None:
    path = nc.CentralPath([1.0, 2.0], num_classes=3, samples_per_class=5)
    with pytest.raises(nc.InputError, match=r"at least 0, got -1\.0"):
        path.singular_values(-1.0)
    with pytest.raises(nc.InputError, match="at least 0, got nan"):
        path.singular_values(np.array([0.0, np.nan]))
    with pytest.raises(nc.InputError, match="got inf"):
        path.singular_values(np.array([0.0, np.inf]))
    with pytest.raises(nc.InputError, match="positive, finite singular values"):
        path.time([1.0, 0.0])
    with pytest.raises(nc.InputError, match="orthonormal"):
        path.metrics(0.0, np.eye(3)[:, :2])
    with pytest.raises(nc.InputError, match="C − 1 = 2 singular values"):
        nc.CentralPath([1.0], num_classes=3, samples_per_class=5).metrics(0.0)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda v: torch.tensor(v, dtype=torch.float32)])
@pytest.mark.parametrize(
    ("values", "classes", "decay"), [([1, 2, 0], 4, 0.5), ([0.5], 2, 0.0), ([1e200, 3.0], 3, 1e300)]
)
def test_the_loss_of_singular_values_of_any_kind(kind: Any, values: list[float], classes: int, decay: float) -> None:
    if kind(values) is not values and float(max(kind(values))) == np.inf:
        pytest.skip("beyond float32")
    kappa = 1 + mp.mpf(decay)
    want = sum(kappa / (classes * kappa + mp.mpf(w) ** 2) for w in values) / 2
    found = central_path_loss(kind(values), classes, decay)
    assert found.dtype == torch.float64 and float(found) == pytest.approx(float(want), rel=1e-14)
    rows = central_path_loss([values, values], classes, decay)
    assert rows.tolist() == pytest.approx([float(want)] * 2, rel=1e-14)


def test_the_loss_of_singular_values_has_their_gradient() -> None:
    """dL/dω = −κω/(Cκ + ω²)²."""
    omega = torch.tensor([0.4, 1.0, 3.0], requires_grad=True)
    central_path_loss(omega, 5, 0.25).backward()  # type: ignore[no-untyped-call]
    want = [-1.25 * w / (6.25 + w**2) ** 2 for w in omega.tolist()]
    assert omega.grad is not None and omega.grad.tolist() == pytest.approx(want, rel=1e-6)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], -3), "expected num_classes of at least 2, got -3"),
        (([1.0], 2, -1.5), "expected a finite weight decay of at least 0, got -1.5"),
        ((np.ones(9), 2), "expected 1 to C − 1 = 1 singular values, got 9"),
        ((torch.ones(2, 0), 3), "expected 1 to C − 1 = 2 singular values, got 0"),
        (([1.0, -2.0], 3), "expected singular values that are finite and at least 0, got -2.0"),
        (([1.0, float("nan")], 3), "expected singular values that are finite and at least 0, got nan"),
        (("a", 3), "expected numeric singular values, got str"),
    ],
)
def test_a_loss_of_what_no_path_has_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(nc.InputError, match=message):
        central_path_loss(*arguments)
