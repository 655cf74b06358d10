"""Each loss against numbers worked out by hand, PyTorch's own losses, and its gradient against finite differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neuralcollapse import InputError
from neuralcollapse.training import losses
from neuralcollapse.training.config import TrainingConfig


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
    assert float(losses.cross_entropy(logits, labels, smoothing=0.2)) == pytest.approx(expected, rel=1e-6)
    logits, labels = random_case()
    log_p = logits.log_softmax(dim=1)
    by_hand = -(0.9 * log_p[torch.arange(13), labels] + 0.1 * log_p.mean(dim=1)).mean()
    torch.testing.assert_close(losses.cross_entropy(logits, labels, smoothing=0.1), by_hand)


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
    measured = losses.LOSSES["rescaled-mse"].measured_weight_decay(decay, classes)
    weight, bias = _ridge(features, F.one_hot(labels, classes).double(), measured)
    torch.testing.assert_close(layer.weight.detach() / target, weight, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(layer.bias.detach() / target, bias, rtol=1e-6, atol=1e-8)


def _ridge(features: Tensor, targets: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """The minimum of ½ Ave‖W̃h̃ - y‖² + (λ/2)‖W̃‖², from its normal equations."""
    extended = torch.cat([features, torch.ones(len(features), 1, dtype=features.dtype)], dim=1)
    gram = extended.T @ extended / len(features) + decay * torch.eye(extended.shape[1], dtype=features.dtype)
    solution = torch.linalg.solve(gram, extended.T @ targets / len(features)).T
    return solution[:, :-1], solution[:, -1]


def test_defaults_are_those_of_the_literature() -> None:
    assert losses.parameters("focal", {}, 10)["focal_gamma"] == 2
    assert losses.parameters("label-smoothing", {}, 10)["smoothing"] == 0.1
    for classes, expected in ((10, (1, 1)), (100, (1, 15)), (1000, (15, 30))):
        values = losses.parameters("rescaled-mse", {}, classes)
        assert (values["rescale"], values["target"]) == expected
    assert losses.parameters("ce", {}, 10) == {}
    assert losses.title("focal", losses.parameters("focal", {"focal_gamma": 3}, 10)) == "focal (γ = 3)"
    assert losses.title("mse", losses.parameters("mse", {}, 10)) == "MSE"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "focal", "focal_gamma": -1.0}, "--focal-gamma must be at least 0, got -1"),
        ({"loss": "label-smoothing", "smoothing": 1.0}, "--smoothing must be less than 1, got 1"),
        ({"loss": "rescaled-mse", "target": 0.0}, "--target must be greater than 0, got 0"),
        ({"loss": "rescaled-mse", "rescale": math.inf}, "--rescale must be a finite number, got inf"),
    ],
)
def test_a_parameter_out_of_range_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingConfig(**settings).check()


def test_a_parameter_of_another_loss_is_refused() -> None:
    with pytest.raises(InputError, match="--focal-gamma 2 belongs to --loss focal, not to ce"):
        losses.parameters("ce", {"focal_gamma": 2.0}, 10)
