"""Each loss against numbers worked out by hand, PyTorch's own losses, and its gradient against finite differences."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neuralcollapse import InputError
from neuralcollapse.training import losses


def random_case(classes: int = 7, number: int = 13) -> tuple[Tensor, Tensor]:
    return 3 * torch.randn(number, classes, dtype=torch.float64), torch.randint(classes, (number,))


def test_rescaled_mse_by_hand() -> None:
    logits, labels = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([0, 1])
    # (1/2)[5 (1-3)² + 2²] = 12 and (1/2)[0² + 5 (1-3)²] = 10
    assert float(losses.rescaled_squared_error(logits, labels, rescale=5, target=3)) == pytest.approx((12 + 10) / 2)
    logits, labels = random_case()
    plain = F.mse_loss(logits, F.one_hot(labels, 7).double())
    torch.testing.assert_close(losses.rescaled_squared_error(logits, labels, rescale=1, target=1), plain)


def test_focal_by_hand() -> None:
    logits, labels = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([0])  # p = 3/4
    value = losses.focal_loss(logits, labels, focal_gamma=2)
    assert float(value) == pytest.approx(0.25**2 * math.log(4 / 3), rel=1e-6)
    logits, labels = random_case()
    torch.testing.assert_close(losses.focal_loss(logits, labels, focal_gamma=0), F.cross_entropy(logits, labels))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_focal_has_the_right_gradient_even_where_the_probability_rounds_to_one(gamma: float) -> None:
    logits, labels = random_case(classes=4, number=5)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: losses.focal_loss(z, labels, focal_gamma=gamma), logits)
    certain = torch.tensor([[200.0, 0.0, 0.0], [30.0, 0.0, 0.0]], requires_grad=True)
    losses.focal_loss(certain, torch.tensor([0, 0]), focal_gamma=gamma).backward()
    assert certain.grad is not None and bool(torch.isfinite(certain.grad).all())


def test_label_smoothing_by_hand() -> None:
    logits, labels = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([0])
    # targets 0.9 and 0.1 for p = 3/4, 1/4
    expected = 0.9 * math.log(4 / 3) + 0.1 * math.log(4)
    assert float(losses.smoothed_cross_entropy(logits, labels, smoothing=0.2)) == pytest.approx(expected, rel=1e-6)
    logits, labels = random_case()
    log_p = logits.log_softmax(dim=1)
    by_hand = -(0.9 * log_p[torch.arange(13), labels] + 0.1 * log_p.mean(dim=1)).mean()
    torch.testing.assert_close(losses.smoothed_cross_entropy(logits, labels, smoothing=0.1), by_hand)


@pytest.mark.parametrize("target", [1.0, 15.0])
def test_the_measured_lambda_of_the_rescaled_error_is_the_one_it_is_minimised_under(target: float) -> None:
    """With k = 1, the penalised minimum over the last layer is M times the paper's least squares at λ = C w / 2."""
    classes, dim, decay = 5, 4, 0.03
    features = torch.randn(60, dim, dtype=torch.float64)
    labels = torch.arange(60) % classes
    layer = torch.nn.Linear(dim, classes, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = losses.rescaled_squared_error(layer(features), labels, rescale=1, target=target)
        loss = loss + decay / 2 * sum(parameter.square().sum() for parameter in layer.parameters())
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    measured = losses.get("rescaled-mse").measured_weight_decay(decay, classes)
    weight, bias = _ridge(features, F.one_hot(labels, classes).double(), measured)
    torch.testing.assert_close(layer.weight.detach() / target, weight, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(layer.bias.detach() / target, bias, rtol=1e-6, atol=1e-8)


def _ridge(features: Tensor, targets: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """The minimum of ½ Ave‖W̃h̃ - y‖² + (λ/2)‖W̃‖², from its normal equations."""
    extended = torch.cat([features, torch.ones(len(features), 1, dtype=features.dtype)], dim=1)
    gram = extended.T @ extended / len(features) + decay * torch.eye(extended.shape[1], dtype=features.dtype)
    solution = torch.linalg.solve(gram, extended.T @ targets / len(features)).T
    return solution[:, :-1], solution[:, -1]


def given(**values: float) -> Any:
    return SimpleNamespace(**{name: values.get(name) for name in losses.PARAMETERS})


def test_defaults_are_those_of_the_literature() -> None:
    assert losses.parameters("focal", given(), 10)["focal_gamma"] == 2
    assert losses.parameters("label-smoothing", given(), 10)["smoothing"] == 0.1
    for classes, expected in ((10, (1, 1)), (100, (1, 15)), (1000, (15, 30))):
        values = losses.parameters("rescaled-mse", given(), classes)
        assert (values["rescale"], values["target"]) == expected
    assert set(losses.parameters("ce", given(), 10).values()) == {None}
    assert losses.title("focal", losses.parameters("focal", given(focal_gamma=3), 10)) == "focal (γ = 3)"
    assert losses.title("mse", losses.parameters("mse", given(), 10)) == "MSE"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("focal", {"focal_gamma": -1.0}, "--focal-gamma must be at least 0, got -1"),
        ("label-smoothing", {"smoothing": 1.0}, "--smoothing must be at least 0 and below 1, got 1"),
        ("rescaled-mse", {"target": 0.0}, "--target must be a positive number, got 0"),
        ("rescaled-mse", {"rescale": math.inf}, "--rescale must be a positive number"),
        ("ce", {"focal_gamma": 2.0}, "--focal-gamma 2 belongs to --loss focal, not to ce"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(name: str, values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        losses.parameters(name, given(**values), 10)
