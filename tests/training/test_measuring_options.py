"""Measuring with re-estimated batch-normalisation statistics, against PyTorch's own cumulative averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_runs import SMALL, records, trained

from neuralcollapse import InputError, measure_features
from neuralcollapse.training import checkpoint
from neuralcollapse.training.builders import build_network, make_batches
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.losses import LOSSES, notebook_weight_decay
from neuralcollapse.training.resolve import load_and_resolve, prepare
from neuralcollapse.training.robustness import relative_perturbations, robustness_subset, summarize


def test_re_estimated_numbers_are_those_of_pytorchs_own_cumulative_averages(tmp_path: Path) -> None:
    """Of the trained weights, with momentum=None over batches of one size; the reference trains nothing."""
    run = trained(tmp_path / "run", batch_size=50, epochs=1, batch_norm_statistics="both")
    _, data = load_and_resolve(TrainingConfig(**{**SMALL, "batch_size": 50}))
    net: Any = build_network(run.config, data)
    net.load_state_dict(checkpoint.read(run)["model"])  # type: ignore[index]
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    cpu = torch.device("cpu")
    features: list[torch.Tensor] = []
    with torch.no_grad():
        net.train()
        for images, _ in make_batches(data.train, data, run.config, cpu, shuffle_seed=0).epoch(0):
            net(images)
        net.eval()
        net.fc.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        labels = []
        for images, targets in make_batches(data.train, data, run.config, cpu, shuffle_seed=None):
            net(images)
            labels.append(targets)
    decay = run.config.measured_weight_decay
    want = measure_features(
        torch.cat(features).double(),
        torch.cat(labels),
        net.fc.weight.detach(),
        net.fc.bias.detach(),
        weight_decay=decay,
    )
    (record,) = records(run)
    for key, value in {
        "nc1": want.nc1,
        "nc3": want.nc3,
        "mse.ls_perp": want.mse.ls_perp,
        "mse.ls": want.mse.ls,
    }.items():
        np.testing.assert_allclose(record[f"re_estimated.{key}"], value, rtol=1e-4)
    assert abs(record["mse.ls_perp"] / want.mse.ls_perp - 1) > 0.1
    # C/ω² written out, over the C − 1 largest of p eigenvalues
    rows, of = torch.cat(features).double().numpy(), torch.cat(labels).numpy()
    means = np.stack([rows[of == label].mean(axis=0) for label in np.unique(of)])
    apart, within = means - rows.mean(axis=0), (rows - means[of]).T @ (rows - means[of]) / len(rows)
    squares = np.linalg.eigvals(np.linalg.solve(within + decay * np.eye(len(within)), apart.T @ apart)).real
    ratio = len(means) / np.sort(squares)[1 - len(means) :].mean()
    np.testing.assert_allclose(record["re_estimated.mse.path_ratio"], ratio, rtol=1e-4)


def test_robustness_is_that_of_the_network_as_it_is_measured(tmp_path: Path) -> None:
    """With re-estimated statistics; the reference has PyTorch's own cumulative averages."""
    options: dict[str, Any] = {"batch_size": 50, "epochs": 1, "robustness_examples": 4}
    run = trained(tmp_path / "run", **options, batch_norm_statistics="re-estimated")
    _, data = load_and_resolve(TrainingConfig(**{**SMALL, **options}))
    net: Any = build_network(run.config, data)
    net.load_state_dict(checkpoint.read(run)["model"])  # type: ignore[index]
    images = robustness_subset(data.test, 4).images.float() / 255

    def found() -> float:
        return summarize(relative_perturbations(net.eval(), images, data.mean, data.std, batch_size=50))["robustness"]

    stale = found()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    with torch.no_grad():
        net.train()
        for batch, _ in make_batches(data.train, data, run.config, torch.device("cpu"), shuffle_seed=0).epoch(0):
            net(batch)
    (record,) = records(run)
    assert record["robustness"] == pytest.approx(found(), rel=1e-3) and abs(stale / found() - 1) > 0.01


@pytest.mark.parametrize("name", LOSSES)
def test_the_notebooks_decay_is_half_of_what_its_own_loss_would_be_given(name: str) -> None:
    """For the paper's own loss that of the `MSELoss` with the same steps: w' = 2 w / C."""
    decay, classes = 5e-4, 8
    given = 2 * decay / classes if name == "mse" else decay
    measured = LOSSES[name].measured_weight_decay(decay, classes)
    assert notebook_weight_decay(name, measured, classes) == pytest.approx(given / 2, rel=1e-12)


def test_what_cannot_be_re_estimated_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="works with one device"):
        prepare(TrainingConfig(**{**SMALL, "devices": 2, "batch_norm_statistics": "both"}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
