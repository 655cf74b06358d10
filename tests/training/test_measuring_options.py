"""Measuring with re-estimated batch-normalisation statistics and with the notebook's λ, against runs without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuralcollapse import InputError, measure_features
from neuralcollapse.training import checkpoint
from neuralcollapse.training.builders import build_network, make_batches
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import load_and_resolve, prepare
from neuralcollapse.training.run_directory import Run
from neuralcollapse.training.trainer import train

SMALL: dict[str, Any] = {
    "model": "resnet18", "width": 0.0625, "examples_per_class": 20, "test_examples_per_class": 5, "epochs": 2,
    "batch_size": 64, "precision": "32", "device": "cpu",
}  # fmt: skip


def trained(path: Path, **options: Any) -> Run:
    run, data = prepare(TrainingConfig(**{**SMALL, **options}), out=path)
    assert train(run, data) == "finished"
    return run


def records(run: Run) -> list[dict[str, Any]]:
    lines = (run.path / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        "running": trained(folder / "running"),
        "re-estimated": trained(folder / "again", batch_norm_statistics="re-estimated"),
        "both": trained(folder / "both", batch_norm_statistics="both", notebook_weight_decay=True),
    }


def test_measuring_more_changes_nothing_else(runs: dict[str, Run]) -> None:
    """The training and the usual numbers stay bit for bit the same."""
    for plain, both in zip(records(runs["running"]), records(runs["both"]), strict=True):
        assert {key: both[key] for key in plain} == plain
    weights = [checkpoint.read(run)["model"] for run in runs.values()]  # type: ignore[index]
    for other in weights[1:]:
        assert all(torch.equal(other[name], value) for name, value in weights[0].items())


def test_both_holds_the_numbers_of_either(runs: dict[str, Run]) -> None:
    for alone, both in zip(records(runs["re-estimated"]), records(runs["both"]), strict=True):
        found = {key.removeprefix("re_estimated."): value for key, value in both.items() if "re_estimated." in key}
        assert found.keys() >= {"nc1", "mse.ls_perp", "train_error", "test_accuracy", "loss", "snr"}
        assert {key: alone[key] for key in found} == found
        assert found["mse.ls_perp"] != both["mse.ls_perp"]


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


def test_the_notebooks_decay_is_a_tenth_of_the_trained_one_for_ten_classes(runs: dict[str, Run]) -> None:
    for record in records(runs["both"]):
        assert record["notebook.mse.weight_decay"] == record["mse.weight_decay"] / 10
        for part in ("total", "ls"):
            assert 0 < record[f"notebook.mse.{part}"] < record[f"mse.{part}"]
        parts = [record[f"notebook.mse.{part}"] for part in ("nc1", "nc23", "ls_perp")]
        np.testing.assert_allclose(sum(parts), record["notebook.mse.total"], rtol=1e-9)


def test_what_cannot_be_re_estimated_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="works with one device"):
        prepare(TrainingConfig(**{**SMALL, "devices": 2, "batch_norm_statistics": "both"}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
