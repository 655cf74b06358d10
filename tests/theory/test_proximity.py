"""What holds L⊥_LS above zero: the flow of a classifier integrated, explicit Jacobians, and SGD simulated."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse.theory.proximity import noise_share, tracking_excess


def unbalanced(dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0] * 12 + [1] * 31 + [2] * 20)
    features = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    return features + 2.0 * labels[:, None] / (1.0 + torch.arange(dim)) + 0.7, labels


def moments_of(features: Any, labels: Any, **options: Any) -> nc.ClassMoments:
    options = {"dtype": torch.float64, **options}
    moments = nc.ClassMoments(num_classes=3, dim=features.shape[1], **options)
    moments.update(torch.as_tensor(features), labels)
    return moments


def classifier(dim: int, **options: Any) -> tuple[Tensor, Tensor]:
    return torch.randn(3, dim, generator=torch.Generator().manual_seed(1), **options), torch.tensor([0.3, -1.0, 0.2])


@pytest.mark.parametrize("moving", [False, True], ids=["standing", "moving"])
def test_the_tracking_classifier_is_the_integrated_gradient_flow(moving: bool) -> None:
    """Gradient flow of the loss itself, by an ODE solver, on features that stand still or turn and grow."""
    begin, labels = unbalanced(4)
    weight, bias = classifier(4, dtype=torch.float64)
    decay, y = 0.03, np.eye(3)[labels.numpy()]
    turn = np.random.default_rng(0).normal(size=(4, 4)) / 3

    def features(time: float) -> Any:
        return begin.numpy() + (np.sin(time) * begin.numpy() @ turn + 0.2 * time * y @ turn[:3] if moving else 0.0)

    def extended(time: float) -> Any:
        return np.hstack([features(time), np.ones((len(y), 1))])

    def loss(w: Any, x: Any) -> float:
        return float(0.5 * ((x @ w.T - y) ** 2).sum() / len(x) + 0.5 * decay * (w**2).sum())

    def velocity(time: float, flat: Any) -> Any:
        w, x = flat.reshape(3, 5), extended(time)
        return -((x @ w.T - y).T @ x / len(x) + decay * w).ravel()

    start = np.hstack([weight.numpy(), bias.double().numpy()[:, None]]).ravel()
    ends = [0.0, 0.4, 2.0, 7.0]
    solved = solve_ivp(velocity, (0.0, ends[-1]), start, rtol=1e-10, atol=1e-12, t_eval=ends).y.T
    wanted = []
    for end, flat in zip(ends, solved, strict=True):
        x = extended(end)
        least = np.linalg.solve(x.T @ x / len(x) + decay * np.eye(5), x.T @ y / len(x)).T
        wanted.append(loss(flat.reshape(3, 5), x) - loss(least, x))

    def errors(pieces: int) -> Any:
        times = np.unique(np.concatenate([np.linspace(a, b, pieces + 1) for a, b in itertools.pairwise(ends)]))
        path = [(time, moments_of(features(time), labels)) for time in times]
        got = tracking_excess(path, weight, bias, weight_decay=decay)
        return np.array([got[int(np.flatnonzero(times == end)[0])] for end in ends]) / np.array(wanted) - 1

    if not moving:
        np.testing.assert_allclose(errors(1), 0.0, atol=1e-6)  # exact in one step, whatever its length
        return
    coarse, fine = errors(100), errors(400)
    np.testing.assert_allclose(fine, 0.0, atol=3e-4)
    np.testing.assert_allclose(np.log2(np.abs(coarse[1:] / fine[1:])), 4.0, atol=0.4)  # a quarter of the step: 1/16
    still = [(time, moments_of(features(0.0), labels)) for time in ends]
    standing = tracking_excess(still, weight, bias, weight_decay=decay)
    assert abs(standing[-1] / wanted[-1] - 1) > 0.1, "the motion matters"


@pytest.mark.parametrize("weighting", ["example", "class", "mixed"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_at_the_start_the_excess_is_that_of_the_decomposition(weighting: str, dtype: torch.dtype) -> None:
    """For every weighting, and with a unit that is dead."""
    features, labels = unbalanced(4)
    features[:, 2] = 0.0
    moments = moments_of(features.to(dtype), labels, dtype=dtype, weighting=weighting)
    weight, bias = classifier(4)
    parts = nc.decompose_mse(moments, weight, bias, weight_decay=0.03)
    (excess,) = tracking_excess([(2.0, moments)], weight, bias, weight_decay=0.03)
    assert excess == pytest.approx(parts.ls_perp, rel=1e-10 if dtype == torch.float64 else 1e-5)


def test_the_excess_does_not_depend_on_the_order_of_units_or_their_rotation() -> None:
    (begin, labels), (weight, bias) = unbalanced(4), classifier(4, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).Q
    for change in (turn, torch.eye(4, dtype=torch.float64)[[2, 0, 3, 1]]):
        plain, changed = (
            tracking_excess(
                [(0.5 * k, moments_of((begin * (1 + k / 3)) @ by, labels)) for k in range(4)],
                weight @ by,
                bias,
                weight_decay=0.03,
            )
            for by in (torch.eye(4, dtype=torch.float64), change)
        )
        np.testing.assert_allclose(changed, plain, rtol=1e-9)


def test_a_classifier_that_starts_at_the_least_squares_one_lags_behind_features_that_grow() -> None:
    features, labels = unbalanced(3)
    path = [(0.1 * step, moments_of(features * (1 + 0.5 * step / 10), labels)) for step in range(11)]
    parts = nc.decompose_mse(path[0][1], torch.zeros(3, 3), torch.zeros(3), weight_decay=0.1)
    start = parts.weight_ls, parts.bias_ls
    growing = tracking_excess(path, *start, weight_decay=0.1)
    standing = tracking_excess([(time, path[0][1]) for time, _ in path], *start, weight_decay=0.1)
    assert min(growing[1:]) > 1e-6 > 1e-20 > max(*standing, growing[0])


def test_the_noise_is_the_trace_of_the_tangent_kernel_on_the_span_of_the_features() -> None:
    features, labels = unbalanced(3)
    torch.manual_seed(2)
    body, head = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).double(), nn.Linear(4, 3).double()
    parameters = [*body.parameters(), *head.parameters()]
    hidden = body(features)
    outputs = head(hidden)
    decay = 0.05
    # the same from explicit Jacobians: J (n, C, number of parameters)
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters, retain_graph=True)])
        for value in outputs.flatten()
    ]
    jacobian = torch.stack(rows).view(*outputs.shape, -1)
    h = torch.cat([hidden.detach(), torch.ones(len(hidden), 1)], dim=1)
    second = h.T @ h / len(h) + decay * torch.eye(5)
    residuals = outputs.detach() - nn.functional.one_hot(labels, 3)
    r = residuals.T @ residuals / residuals.square().sum()
    slopes = torch.einsum("na,ncq->acq", h, jacobian) / len(h)
    trace = torch.einsum("acq,ab,bdq,cd->", slopes, torch.linalg.inv(second), slopes, r)
    wanted = 0.01 / (2 * (1 - 0.8) * 16) * float(trace)
    got = noise_share(
        outputs, hidden, labels, parameters, learning_rate=0.01, batch_size=16, momentum=0.8, weight_decay=decay,
        probes=4000, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert got == pytest.approx(wanted, rel=0.08)  # 4000 draws: a standard error of about 1.5 %


def test_sgd_on_the_last_layer_alone_stays_at_the_predicted_distance() -> None:
    random = np.random.default_rng(0)
    n, dim, classes, decay, rate, batch, momentum = 400, 3, 2, 0.02, 0.004, 4, 0.5
    features = random.normal(size=(n, dim)) + 0.5
    labels = random.integers(classes, size=n)  # chance: residuals that do not depend on the features
    x, y = np.hstack([features, np.ones((n, 1))]), np.eye(classes)[labels]
    second = x.T @ x / n + decay * np.eye(dim + 1)
    least = np.linalg.solve(second, x.T @ y / n).T
    w, v, excess, steps = least.copy(), np.zeros_like(least), 0.0, 60_000
    for chosen in random.integers(n, size=(steps, batch)):
        v = momentum * v + (x[chosen] @ w.T - y[chosen]).T @ x[chosen] / batch + decay * w
        w = w - rate * v
        excess += 0.5 * np.sum((w - least) @ second * (w - least)) / steps
    data_loss = 0.5 * ((x @ least.T - y) ** 2).sum() / n
    head = nn.Linear(dim, classes).double()
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(least[:, :-1]))
        head.bias.copy_(torch.from_numpy(least[:, -1]))
    inputs = torch.from_numpy(features)
    share = noise_share(
        head(inputs), inputs, torch.from_numpy(labels), list(head.parameters()), learning_rate=rate, batch_size=batch,
        momentum=momentum, weight_decay=decay, probes=2000, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert excess / data_loss == pytest.approx(share, rel=0.15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"outputs": a["outputs"].detach()}, "expected outputs with the graph"),
        (lambda a: a | {"features": a["features"][:5]}, "expected outputs (n, C), features (n, p) and labels (n,)"),
        (lambda a: a | {"momentum": 1.0}, "expected a momentum below 1, got 1"),
        (lambda a: a | {"probes": 0}, "probes"),
        (lambda a: a | {"learning_rate": -0.1}, "learning rate"),
        (lambda a: a | {"labels": a["labels"] + 1}, "label"),
        (lambda a: a | {"labels": a["labels"] + 0.5}, "label"),
        (lambda a: a | {"features": a["features"] * float("nan")}, "finite outputs and features"),
        (lambda a: a | {"parameters": []}, "none that requires a gradient"),
        (lambda a: a | {"parameters": [a["features"]]}, "none that requires a gradient"),
        (lambda a: a | {name: a[name][:0] for name in ("outputs", "features", "labels")}, "expected"),
    ],
)
def test_what_has_no_noise_share_is_refused(change: Callable[[dict[str, Any]], dict[str, Any]], message: str) -> None:
    features, labels = unbalanced(3)
    head = nn.Linear(3, 3).double()
    given = {"outputs": head(features), "features": features, "labels": labels, "parameters": list(head.parameters())}
    with pytest.raises(nc.InputError) as error:
        noise_share(**change({**given, "learning_rate": 0.01, "batch_size": 8}))
    assert message in str(error.value)


def test_the_noise_share_takes_what_training_has() -> None:
    """Parameters from an iterator, some of them frozen, and labels as a list; without residuals there is no noise."""
    features, labels = unbalanced(3)
    head, frozen = nn.Linear(3, 3).double(), nn.Parameter(torch.ones(2), requires_grad=False)
    options: dict[str, Any] = {"learning_rate": 0.01, "batch_size": 8}
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    plain = noise_share(head(features), features, labels, list(head.parameters()), **options, generator=draws[0])
    given = itertools.chain([frozen], head.parameters())
    assert noise_share(head(features), features, labels.tolist(), given, **options, generator=draws[1]) == plain  # type: ignore[arg-type]
    exact = nn.functional.one_hot(labels, 3).double() + 0 * head(features)
    assert noise_share(exact, features, labels, head.parameters(), **options) == 0.0


@pytest.mark.parametrize(
    ("times", "decay", "message"),
    [
        ((0.0, 1.0), 0.0, "a positive weight decay, got 0"),
        ((-1.0, 1.0), 0.1, "a finite time of at least 0, got -1"),
        ((0.0, 2.0, 2.0), 0.1, r"rising times, got \[0.0, 2.0, 2.0\]"),
        ((), 0.1, r"rising times, got \[\]"),
    ],
)
def test_what_has_no_tracking_excess_is_refused(times: tuple[float, ...], decay: float, message: str) -> None:
    moments = moments_of(*unbalanced(3))
    with pytest.raises(nc.InputError, match=message):
        tracking_excess([(time, moments) for time in times], *classifier(3), weight_decay=decay)


def test_features_of_two_sizes_or_classes_are_no_path_and_a_bias_is_needed() -> None:
    path = [(float(dim), moments_of(*unbalanced(dim))) for dim in (3, 4)]
    with pytest.raises(
        nc.InputError, match=r"same classes and features along the path, got \(C, p\) = \(3, 3\) and \(3, 4\)"
    ):
        tracking_excess(path, *classifier(3), weight_decay=0.1)
    features, labels = unbalanced(3)
    more = nc.ClassMoments(num_classes=4, dim=3)
    more.update(features, labels)
    with pytest.raises(nc.InputError, match=r"got \(C, p\) = \(3, 3\) and \(4, 3\)"):
        tracking_excess([path[0], (9.0, more)], *classifier(3), weight_decay=0.1)
    with pytest.raises(nc.InputError, match="expected a bias"):
        tracking_excess(path[:1], classifier(3)[0], None, weight_decay=0.1)  # type: ignore[arg-type]
