"""Each optimiser's steps against arithmetic written here, and the stationary points its λ is said to belong to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from neuralcollapse import InputError
from neuralcollapse.training import optimizers
from neuralcollapse.training.builders import build_optimizer


def quadratic(dim: int = 5) -> tuple[Tensor, Tensor]:
    """The curvature A and the minimum of ½ (θ - m)ᵀ A (θ - m)."""
    root = torch.randn(dim, dim, dtype=torch.float64)
    return root @ root.T / dim + torch.eye(dim, dtype=torch.float64), torch.randn(dim, dtype=torch.float64)


def minimise(name: str, rate: float, momentum: float, decay: float, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    curvature, minimum = quadratic()
    parameter = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimizer = optimizers.OPTIMIZERS[name].make([{"params": [parameter], "weight_decay": decay}], rate, momentum)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 0.5 * (parameter - minimum) @ curvature @ (parameter - minimum)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return parameter.detach(), curvature, minimum


def test_sgdw_by_hand() -> None:
    found, curvature, minimum = minimise("sgdw", 0.05, 0.9, 0.2, 7)
    theta, velocity = torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    for _ in range(7):
        velocity = 0.9 * velocity + curvature @ (theta - minimum)
        theta = (1 - 0.05 * 0.2) * theta - 0.05 * velocity
    torch.testing.assert_close(found, theta, rtol=1e-12, atol=1e-14)


def test_adamw_with_no_decay_is_adam_and_the_first_beta_is_the_momentum() -> None:
    torch.manual_seed(1)
    plain, curvature, minimum = minimise("adam", 0.01, 0.8, 0.0, 3)
    torch.manual_seed(1)
    apart, _, _ = minimise("adamw", 0.01, 0.8, 0.0, 3)
    torch.testing.assert_close(plain, apart, rtol=1e-12, atol=1e-14)
    theta, first, second = (torch.zeros(5, dtype=torch.float64) for _ in range(3))
    for step in (1, 2, 3):  # Kingma & Ba, Algorithm 1
        gradient = curvature @ (theta - minimum)
        first, second = 0.8 * first + 0.2 * gradient, 0.999 * second + 0.001 * gradient**2
        theta = theta - 0.01 * (first / (1 - 0.8**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    torch.testing.assert_close(plain, theta, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "rate", "momentum", "steps"),
    [("sgd", 0.05, 0.9, 800), ("sgdw", 0.05, 0.9, 800), ("adam", 0.003, 0.9, 6000), ("lbfgs", 1.0, 0.0, 5)],
)
def test_the_penalised_loss_is_stationary_where_training_ends(
    name: str, rate: float, momentum: float, steps: int
) -> None:
    """(A + λI) θ = A m at the end, with the λ the optimiser's decay is said to stand for; SGDW's is a tenth of it."""
    found, curvature, minimum = minimise(name, rate, momentum, 0.5, steps)
    penalty = optimizers.OPTIMIZERS[name].penalty(0.5, momentum)
    assert penalty == pytest.approx(0.05 if name == "sgdw" else 0.5)
    expected = torch.linalg.solve(curvature + penalty * torch.eye(5, dtype=torch.float64), curvature @ minimum)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_lbfgs_reports_the_loss_before_the_step_without_the_penalty() -> None:
    parameter = nn.Parameter(torch.tensor([3.0]))
    optimizer = optimizers.OPTIMIZERS["lbfgs"].make([{"params": [parameter], "weight_decay": 10.0}], 1.0, 0.0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (parameter - 1).square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure)) == 4
    assert float(parameter.detach()) == pytest.approx(1 / 6, rel=1e-4)  # (θ - 1)² + 5 θ²


def test_what_is_fixed_is_left_out() -> None:
    net = nn.Linear(3, 2)
    net.weight.requires_grad_(False)
    config = SimpleNamespace(
        optimizer="sgd", learning_rate=0.1, momentum=0.0, weight_decay=1.0, classifier_decay=None, bias_norm_decay=None
    )
    assert build_optimizer(config, net).param_groups[0]["params"] == [net.bias]
    with pytest.raises(InputError, match="unknown optimizer 'lion'; expected one of sgd, sgdw, adam, adamw, lbfgs"):
        optimizers.OPTIMIZERS["lion"]
