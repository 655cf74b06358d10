"""Decay by group against torch.optim with groups made by hand; feature decay against the loss written out; the λ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse import data as datasets
from neuralcollapse.networks import registry as models
from neuralcollapse.theory.unconstrained_features import UnconstrainedFeatures
from neuralcollapse.training import losses
from neuralcollapse.training.builders import build_network, build_optimizer, find_last_layer
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.optimizers import OPTIMIZERS
from neuralcollapse.training.resolve import load_and_resolve, prepare
from neuralcollapse.training.run_directory import Run
from neuralcollapse.training.trainer import train

TINY: dict[str, Any] = {
    "model": "mlp",
    "width": 0.0625,
    "examples_per_class": 10,
    "epochs": 3,
    "batch_size": 100,
    "precision": "64",
    "device": "cpu",
}
GROUPS = {"weight_decay": 0.03, "classifier_decay": 0.2, "bias_norm_decay": 0.0}


def groups(model: str, **settings: Any) -> tuple[nn.Module, dict[str, float]]:
    """A network, and by the name of each trained parameter the decay that its optimizer has for it."""
    config, data = load_and_resolve(TrainingConfig(**{**TINY, "precision": "32", "model": model, **settings}))
    net = build_network(config, data)
    optimizer = build_optimizer(config, net, find_last_layer(config, net, data))
    names = {parameter: name for name, parameter in net.named_parameters()}
    key = "decoupled_decay" if config.optimizer == "sgdw" else "weight_decay"
    found = {names[each]: group[key] for group in optimizer.param_groups for each in group["params"]}
    assert len(found) == sum(parameter.requires_grad for parameter in net.parameters())
    return net, found


@pytest.mark.parametrize("optimizer", ["sgd", "sgdw", "adam", "adamw"])
@pytest.mark.parametrize(("model", "last"), [("resnet18", "fc"), ("vgg11", "classifier"), ("densenet40", "classifier")])
def test_each_parameter_is_in_its_group(model: str, last: str, optimizer: str) -> None:
    net, found = groups(model, optimizer=optimizer, **GROUPS)
    for name, decay in found.items():
        module = net.get_submodule(name.rpartition(".")[0])
        if name.startswith(last):
            want = 0.2
        else:
            want = 0.0 if name.endswith("bias") or isinstance(module, nn.BatchNorm2d) else 0.03
        assert decay == want, name
    assert {0.2, 0.0, 0.03} == set(found.values())


def test_lbfgs_has_a_penalty_for_each_group() -> None:
    """Against (A + diag w)⁻¹ A m, the minimum of ½(θ − m)ᵀA(θ − m) + ½ Σ w_i θ_i², where θ lies in two groups."""
    curvature = torch.tensor([[4.0, 1.0, 0.5], [1.0, 3.0, -0.2], [0.5, -0.2, 2.0]], dtype=torch.float64)
    middle, decays = torch.tensor([1.0, -2.0, 3.0]).double(), torch.tensor([0.7, 0.7, 5.0]).double()
    first, second = (nn.Parameter(torch.zeros(size, dtype=torch.float64)) for size in (2, 1))
    groups = [{"params": [first], "weight_decay": 0.7}, {"params": [second], "weight_decay": 5.0}]
    optimizer = OPTIMIZERS["lbfgs"].make(groups, 1.0, 0.0)

    def closure() -> Tensor:
        optimizer.zero_grad()
        away = torch.cat([first, second]) - middle
        loss = away @ curvature @ away / 2
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    expected = torch.linalg.solve(curvature + torch.diag(decays), curvature @ middle)
    found = torch.cat([first, second]).detach()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)  # PyTorch stops where it gains less than 1e-9


def test_lbfgs_pulls_each_parameter_of_a_network_as_its_group_says() -> None:
    """A loss that is zero everywhere leaves the penalties: what has a decay goes to 0, biases and norms stay."""
    config, data = load_and_resolve(TrainingConfig(**{**TINY, "batch_size": None}, optimizer="lbfgs", **GROUPS))
    net = build_network(config, data)
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.5, 1.0)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    last = find_last_layer(config, net, data)
    optimizer = build_optimizer(config, net, last)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 0.0 * sum(parameter.sum() for parameter in net.parameters())
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    kept = {name for name, parameter in net.named_parameters() if torch.equal(parameter.detach(), before[name])}
    of_norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d)]
    names = {parameter: name for name, parameter in net.named_parameters()}
    assert kept == {names[each] for norm in of_norms for each in (norm.weight, norm.bias)} and kept
    assert all(
        float(parameter.detach().abs().max()) < 1e-3 for name, parameter in net.named_parameters() if name not in kept
    )


def test_one_decay_is_one_group() -> None:
    config, data = load_and_resolve(TrainingConfig(**TINY))
    net = build_network(config, data)
    assert find_last_layer(config, net, data) is None
    (group,) = build_optimizer(config, net).param_groups
    assert group["params"] == list(net.parameters()) and group["weight_decay"] == config.weight_decay
    _, found = groups("mlp", weight_decay=0.1, classifier_decay=0.1)
    assert set(found.values()) == {0.1}


def trained(path: Path, **settings: Any) -> Run:
    run, data = prepare(TrainingConfig(**{**TINY, **settings}), out=path)
    assert train(run, data) == "finished"
    return run


def by_hand(run: Run, make: Any, feature_decay: float = 0.0) -> dict[str, Tensor]:
    """The weights after full batches of PyTorch's own optimizer, and the penalty added to the loss where it stands."""
    config, (data, side) = run.config, (datasets.load("digits", examples_per_class=10, seed=0), 8)
    torch.manual_seed(config.seed)
    net = models.build("mlp", num_classes=10, in_channels=1, image_size=side, width=config.width).double()
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d)]
    below, last = layers[:-1], layers[-1]
    optimizer = make(
        [
            {"params": [layer.weight for layer in below], "weight_decay": 0.03},
            {"params": [each for norm in norms for each in (norm.weight, norm.bias)], "weight_decay": 0.0},
            {"params": [last.weight, last.bias], "weight_decay": 0.2},
        ]
    )
    images = (data.train.images.double() / 255 - data.mean[0]) / data.std[0]
    targets = torch.eye(10, dtype=torch.float64)[data.train.labels]
    body = nn.Sequential(*list(net.children())[:-1])
    for _ in range(config.epochs):
        features = body(images)
        loss = 0.5 * (features @ last.weight.T + last.bias - targets).square().sum() / len(images)
        loss = loss + feature_decay / 2 * sum(h @ h for h in features) / len(images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: value.detach() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("feature_decay", [None, 0.5])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_training_is_that_of_torch_optim_with_groups_made_by_hand(
    tmp_path: Path, name: str, feature_decay: float | None
) -> None:
    makers = {
        "sgd": lambda made: torch.optim.SGD(made, lr=0.01, momentum=0.9),
        "adam": lambda made: torch.optim.Adam(made, lr=0.01),
        "adamw": lambda made: torch.optim.AdamW(made, lr=0.01),
    }
    settings = {"optimizer": name, "learning_rate": 0.01, "milestones": (), **GROUPS}
    run = trained(tmp_path / "run", feature_decay=feature_decay, **settings)
    want = by_hand(run, makers[name], feature_decay or 0.0)
    got = torch.load(run.path / "checkpoint.pt", weights_only=True)["model"]
    for key, value in want.items():
        torch.testing.assert_close(got[key], value, rtol=1e-7, atol=1e-9)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Each has half of every batch: the class means that the head follows, and the average ‖h‖², are those of both."""
    settings = {"head": "nearest-etf", "feature_decay": 0.1, "bias_norm_decay": 0.0, "batch_size": 50}
    one, two = (trained(tmp_path / str(count), devices=count, **settings).history()[-1] for count in (1, 2))
    for name in ("nc1", "nc3", "loss", "feature_penalty", "mse.total"):
        assert two[name] == pytest.approx(one[name], rel=1e-9), name


def test_lbfgs_ends_where_each_group_has_its_own_penalty(tmp_path: Path) -> None:
    """The gradient of the loss is −w θ of each group; λ_H enters it as any other term."""
    run = trained(tmp_path / "run", optimizer="lbfgs", epochs=40, feature_decay=0.05, **GROUPS)
    data = datasets.load("digits", examples_per_class=10, seed=0)
    net = models.build("mlp", num_classes=10, in_channels=1, image_size=8, width=0.0625).double()
    net.load_state_dict(torch.load(run.path / "checkpoint.pt", weights_only=True)["model"])
    images = (data.train.images.double() / 255 - data.mean[0]) / data.std[0]
    features = nn.Sequential(*list(net.children())[:-1])(images)
    last = list(net.children())[-1]
    targets = torch.eye(10, dtype=torch.float64)[data.train.labels]
    fit = 0.5 * (last(features) - targets).square().sum() / len(images)
    (fit + 0.025 * features.square().sum() / len(images)).backward()
    for parameter in (last.weight, last.bias):
        torch.testing.assert_close(parameter.grad, -0.2 * parameter.detach(), rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"classifier_decay": 0.2}, 0.2),
        ({"classifier_decay": 0.0, "weight_decay": 0.1}, 0.0),
        ({"bias_norm_decay": 0.0, "weight_decay": 0.1}, 0.1),
        ({"loss": "mse-torch", "classifier_decay": 0.2, "weight_decay": 0.1}, 1.0),
        ({"loss": "mse-torch", "feature_decay": 0.2, "weight_decay": 0.1}, 0.5),
        ({"optimizer": "sgdw", "classifier_decay": 0.2}, 0.02),
        ({"optimizer": "adamw", "classifier_decay": 0.2}, 0.0),
        ({"loss": "ce", "classifier_decay": 0.2}, 0.2),
    ],
)
def test_the_measured_decay_is_the_classifiers(settings: dict[str, Any], expected: float) -> None:
    config, _ = load_and_resolve(TrainingConfig(**{**TINY, **settings}))
    assert config.measured_weight_decay == pytest.approx(expected)


def test_the_history_has_the_loss_of_the_classifiers_decay_and_the_penalty_of_features_beside_it(
    tmp_path: Path,
) -> None:
    run = trained(tmp_path / "run", feature_decay=0.5, **GROUPS)
    record = run.history()[-1]
    with np.load(run.snapshots()[3], allow_pickle=False) as snapshot:
        features, labels, weight, bias = (snapshot[name] for name in ("features", "labels", "weight", "bias"))
    residuals = features @ weight.T + bias - np.eye(10)[labels]
    fit = 0.5 * np.square(residuals).sum() / len(labels)
    assert record["loss"] == pytest.approx(fit, rel=1e-6)
    assert record["mse.total"] == pytest.approx(fit + 0.1 * (np.square(weight).sum() + np.square(bias).sum()), rel=1e-6)
    assert record["mse.weight_decay"] == 0.2
    assert record["feature_penalty"] == pytest.approx(0.25 * np.square(features).sum() / len(labels), rel=1e-6)
    assert "classifier decay 0.2, bias and norm decay 0, feature decay 0.5" in ", ".join(run.config.changes())
    report = nc.measure_features(features, labels, weight, bias, weight_decay=0.2)
    assert report.mse.ls_perp == pytest.approx(record["mse.ls_perp"], rel=1e-6)


def test_feature_penalty_is_that_of_the_model_of_unconstrained_features() -> None:
    """f of the model has λ_H/2 ‖H‖² of all n examples, so its λ_H is ours over n; gradients by autograd."""
    model = UnconstrainedFeatures((4, 4, 4), dim=5, weight_decay=0.3, feature_decay=0.2)
    generator = torch.Generator().manual_seed(0)
    weight, features, bias = (
        torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in ((3, 5), (12, 5), (3,))
    )
    ours = losses.half_squared_error(features @ weight.T + bias, model.labels) + 0.15 * weight.square().sum()
    ours = ours + losses.feature_penalty(features, 12 * 0.2)
    theirs = model.objective(weight, features, bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    for mine, other in zip(*(torch.autograd.grad(f, (weight, features, bias)) for f in (ours, theirs)), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-14)
