"""The paper's recipe: its rates, their conversion between losses, its epochs."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from neuralcollapse import InputError
from neuralcollapse.training import losses, recipes


@pytest.mark.parametrize(
    ("dataset", "family", "network", "rate"),
    [
        ("mnist", "vgg", "vgg11", 0.025519618),
        ("mnist", "resnet", "resnet18", 0.018420157),
        ("mnist", "densenet", "densenet40", 0.025519618),
        ("fashion-mnist", "resnet", "resnet18", 0.094015077),
        ("fashion-mnist", "densenet", "densenet250", 0.009596916),
        ("svhn", "vgg", "vgg13", 0.018420157),
        ("svhn", "resnet", "resnet34", 0.009596916),
        ("cifar10", "resnet", "resnet50", 0.009596916),
        ("cifar10", "densenet", "densenet100", 0.048981924),
        ("stl10", "densenet", "densenet201", 0.001880302),
    ],
)
def test_each_cell_has_the_published_network_and_rate(dataset: str, family: str, network: str, rate: float) -> None:
    assert recipes.network_for(dataset, family) == network
    recipe = recipes.paper_recipe(dataset, network, "mse-torch")
    assert recipe.learning_rate == rate
    assert (recipe.epochs, recipe.batch_size, recipe.momentum, recipe.weight_decay) == (350, 128, 0.9, 5e-4)
    assert recipes.milestone_epochs(recipe.milestones, recipe.epochs) == (116, 233)


@pytest.mark.parametrize("classes", [2, 10, 37])
def test_both_squared_errors_take_the_same_steps(classes: int) -> None:
    """η and w for MSELoss, η·2/C and λ = C·w/2 for the paper's loss: SGD with momentum moves every weight alike."""
    torch.manual_seed(classes)
    features, labels = torch.randn(50, 6, dtype=torch.float64), torch.randint(classes, (50,))
    start = nn.Linear(6, classes, dtype=torch.float64)
    trained = {}
    for name in ("mse", "mse-torch"):
        recipe = recipes.paper_recipe("mnist", "resnet18", name, classes)
        layer = copy.deepcopy(start)
        optimizer = torch.optim.SGD(
            layer.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
        )
        for _ in range(30):
            optimizer.zero_grad()
            losses.LOSSES[name].function(layer(features), labels).backward()
            optimizer.step()
        trained[name] = layer.weight.detach()
        assert losses.LOSSES[name].measured_weight_decay(recipe.weight_decay, classes) == pytest.approx(
            classes * 2.5e-4
        )
    assert float((trained["mse"] - start.weight.detach()).abs().max()) > 1e-3
    torch.testing.assert_close(trained["mse"], trained["mse-torch"], rtol=1e-12, atol=1e-14)


def test_losses_by_hand() -> None:
    logits, labels = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([0, 1])
    # squared distances to the targets: (1-1)² + 2² = 4 and 0² + (1-1)² = 0
    assert float(losses.LOSSES["mse"].function(logits, labels)) == pytest.approx(0.5 * (4 + 0) / 2)
    assert float(losses.LOSSES["mse-torch"].function(logits, labels)) == pytest.approx((4 + 0) / 4)
    with pytest.raises(InputError, match="unknown loss 'hinge'"):
        losses.LOSSES["hinge"]


def test_the_analysed_epochs_are_the_papers() -> None:
    epochs = recipes.measured_epochs(350)
    assert len(epochs) == 50 and epochs[:3] == (1, 2, 3) and epochs[-3:] == (293, 320, 350)
    assert recipes.measured_epochs(30)[-2:] == (29, 30)
    assert recipes.measured_epochs(1) == (1,)
    with pytest.raises(InputError, match="at least 1"):
        recipes.measured_epochs(0)


@pytest.mark.parametrize(("epochs", "rates"), [(1, [1]), (2, [1, 0.01]), (3, [1, 0.1, 0.01])])
def test_short_runs_begin_at_the_full_rate(epochs: int, rates: list[float]) -> None:
    milestones = recipes.milestone_epochs((1 / 3, 2 / 3), epochs)
    found = [recipes.learning_rate(1.0, milestones, epoch) for epoch in range(1, epochs + 1)]
    assert found == pytest.approx(rates)


def test_the_rate_falls_tenfold_after_each_milestone() -> None:
    rates = [recipes.learning_rate(1.0, (116, 233), epoch) for epoch in (1, 116, 117, 233, 234, 350)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_documentation_has_the_settings_of_the_demo() -> None:
    """The table of docs/training.md; digits, λ and rate of the paper's own loss."""
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    demo = {row[0]: row[2] for row in cells if len(row) == 4}
    recipe = recipes.paper_recipe("digits", "resnet18", "mse")
    assert demo["network"] == f"ResNet18 of width {64 * recipe.width:.0f} (×{recipe.width:g})"
    first, second = (f"{100 * share:.0f} %" for share in recipe.milestones)
    assert demo["epochs"] == f"{recipe.epochs}, rate ÷10 at {first} and {second}"
    assert float(demo["weight decay λ of the paper's loss"]) == pytest.approx(recipe.weight_decay)
    assert float(demo["rate for the paper's loss"]) == pytest.approx(recipe.learning_rate)
