"""What holds L⊥_LS above zero: the flow of a classifier integrated, explicit Jacobians, and SGD simulated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse.theory.proximity import noise_share, remnant


def unbalanced(dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0] * 12 + [1] * 31 + [2] * 20)
    features = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    return features + 2.0 * labels[:, None] / (1.0 + torch.arange(dim)) + 0.7, labels


@pytest.mark.parametrize("bias", [None, torch.tensor([0.3, -1.0, 0.2], dtype=torch.float64)], ids=["none", "given"])
@pytest.mark.parametrize("time", [0.0, 0.4, 7.0])
def test_the_remnant_is_what_the_integrated_flow_leaves(time: float, bias: Tensor | None) -> None:
    features, labels = unbalanced(4)
    moments = nc.ClassMoments(num_classes=3, dim=4, dtype=torch.float64)
    moments.update(features, labels)
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    decay = 0.03
    x = np.hstack([features.numpy(), np.ones((len(features), 1))])
    y = np.eye(3)[labels.numpy()]

    def loss(flat: Any) -> float:
        w = flat.reshape(3, 5)
        return float(0.5 * ((x @ w.T - y) ** 2).sum() / len(x) + 0.5 * decay * (w**2).sum())

    def velocity(_time: float, flat: Any) -> Any:
        w = flat.reshape(3, 5)
        return -((x @ w.T - y).T @ x / len(x) + decay * w).ravel()

    start = np.hstack([weight.numpy(), np.zeros((3, 1)) if bias is None else bias.numpy()[:, None]]).ravel()
    end = solve_ivp(velocity, (0.0, time), start, rtol=1e-11, atol=1e-13).y[:, -1] if time else start
    least = np.linalg.solve(x.T @ x / len(x) + decay * np.eye(5), x.T @ y / len(x)).T.ravel()
    wanted = loss(end) - loss(least)
    assert remnant(moments, weight, bias, time, weight_decay=decay) == pytest.approx(wanted, rel=1e-7)


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
    ],
)
def test_what_has_no_noise_share_is_refused(change: Callable[[dict[str, Any]], dict[str, Any]], message: str) -> None:
    features, labels = unbalanced(3)
    head = nn.Linear(3, 3).double()
    given = {"outputs": head(features), "features": features, "labels": labels, "parameters": list(head.parameters())}
    with pytest.raises(nc.InputError) as error:
        noise_share(**change({**given, "learning_rate": 0.01, "batch_size": 8}))
    assert message in str(error.value)


def test_a_remnant_needs_weight_decay_and_a_time() -> None:
    features, labels = unbalanced(3)
    moments = nc.ClassMoments(num_classes=3, dim=3)
    moments.update(features, labels)
    for time, decay, message in ((1.0, 0.0, "weight decay"), (-1.0, 0.1, "time")):
        with pytest.raises(nc.InputError, match=message):
            remnant(moments, torch.zeros(3, 3), None, time, weight_decay=decay)
