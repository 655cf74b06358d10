"""Runs with options: they resume exactly, are named, titled and refused in words; older runs mean the defaults."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.progress import Interrupt

from neuralcollapse import InputError
from neuralcollapse.data import Dataset
from neuralcollapse.figures.captions import subject
from neuralcollapse.figures.study_runs import Study
from neuralcollapse.training import checkpoint
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import prepare
from neuralcollapse.training.run_directory import Run
from neuralcollapse.training.trainer import train

TINY: dict[str, Any] = {
    "model": "mlp",
    "width": 0.0625,
    "examples_per_class": 10,
    "epochs": 4,
    "precision": "32",
    "device": "cpu",
}
LATER = (
    *("imbalance", "imbalance_ratio", "label_noise", "head", "temperature", "rescale", "target", "focal_gamma"),
    *("smoothing", "optimizer", "robustness_examples", "test_examples_per_class", "data_sha256", "classifier_decay"),
    *("bias_norm_decay", "feature_decay", "downsample"),
)
"""What the first version's `config.json` does not have."""
ALL_AT_ONCE: dict[str, Any] = {
    "optimizer": "adamw",
    "head": "normalised",
    "loss": "focal",
    "label_noise": 0.25,
    "imbalance": "step",
    "imbalance_ratio": 5.0,
}


def made(path: Path, **settings: Any) -> tuple[Run, Dataset]:
    return prepare(TrainingConfig(**{**TINY, **settings}), out=path)


def without_clock(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in run.history()]


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam", "head": "etf"},
        {"optimizer": "sgdw", "classifier_decay": 0.1, "bias_norm_decay": 0.0},
        {"optimizer": "lbfgs", "classifier_decay": 0.1},
        {"optimizer": "sgd", "head": "nearest-etf", "feature_decay": 0.01},
        ALL_AT_ONCE,
    ],
    ids=lambda options: options["optimizer"],
)
def test_a_run_with_options_goes_on_exactly(tmp_path: Path, options: dict[str, Any]) -> None:
    whole, data = made(tmp_path / "whole", **options)
    assert train(whole, data) == "finished"
    cut, data = made(tmp_path / "cut", **options)
    assert train(cut, data, progress=Interrupt(after=2)) == "interrupted"
    assert len(cut.history()) == 2
    assert train(*prepare(TrainingConfig(), resume=cut.path)) == "finished"
    assert without_clock(cut) == without_clock(whole)
    ends = [checkpoint.read(run) for run in (cut, whole)]
    assert ends[0] is not None and ends[1] is not None
    for name, value in ends[0]["model"].items():
        assert torch.equal(value, ends[1]["model"][name])


def test_an_older_run_goes_on_with_the_defaults(tmp_path: Path) -> None:
    run, data = made(tmp_path / "run")
    assert train(run, data) == "finished"
    history = run.history_path.read_bytes()
    older = {key: value for key, value in run.config.to_json().items() if key not in LATER}
    (run.path / "config.json").write_text(json.dumps(older))
    with pytest.warns(UserWarning, match="has no fingerprint of the data"):
        again, data = prepare(TrainingConfig(), resume=run.path)
    assert again.config == dataclasses.replace(run.config, data_sha256=None)
    assert train(again, data) == "finished" and run.history_path.read_bytes() == history
    with pytest.warns(UserWarning, match="has no fingerprint of the data"):
        made(tmp_path / "run")  # taken up by the same settings too
    assert subject(Study.read(run.path)) == "mlp on digits, MSE loss, λ = 0.01; seed 0 (n = 1)."
    with pytest.raises(InputError, match=r"expected head linear, .*, got etf"):
        prepare(TrainingConfig(head="etf"), resume=run.path)


def test_options_are_in_the_configuration_the_name_and_the_titles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, data = prepare(TrainingConfig(**{**TINY, **ALL_AT_ONCE, "epochs": 1}))
    for name, value in {**ALL_AT_ONCE, "focal_gamma": 2.0, "temperature": 0.1, "smoothing": None}.items():
        assert getattr(run.config, name) == value
    assert run.path.name == "digits-mlp-focal-step-ratio5-noise0.25-normalised-adamw-w0.0625-n10-e1-p32"
    assert run.config.num_examples == 5 * 10 + 5 * 2 and run.config.measured_weight_decay == 0
    assert train(run, data) == "finished"
    assert subject(Study.read(run.path)) == (
        "mlp on digits, focal (γ = 2) loss, step imbalance 5:1, 25 % label noise, normalised head (τ = 0.1), "
        "AdamW (decay 0.01), λ = 0; seed 0 (n = 1)."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.5}, "--temperature 0.5 belongs to --head normalised"),
        ({"head": "normalised", "temperature": 0.0}, "--temperature must be greater than 0, got 0.0"),
        ({"imbalance_ratio": 10.0}, "--imbalance-ratio 10 needs --imbalance step or exponential"),
        ({"optimizer": "lbfgs", "momentum": 0.9}, "--momentum 0.9 has no use with --optimizer lbfgs"),
        ({"smoothing": 0.1}, "--smoothing 0.1 belongs to --loss label-smoothing, not to mse"),
        ({"head": "etf", "width": 0.01}, "at least 9 features .*, got 5; raise --width"),
        ({"optimizer": "lion"}, "--optimizer must be 'sgd', .* got 'lion'"),
        ({"label_noise": -0.1}, "--label-noise must be at least 0, got -0.1"),
        ({"head": "nearest-etf", "width": 0.01}, "at least 9 features .*, got 5; raise --width"),
        ({"head": "nearest-etf", "optimizer": "lbfgs"}, "changes W after every step, .* mistake the curvature"),
        ({"head": "etf", "classifier_decay": 0.1}, "--classifier-decay 0.1 has no use with --head etf"),
        ({"head": "normalised", "feature_decay": 0.1}, "--feature-decay 0.1 has no use with --head normalised"),
        ({"feature_decay": -1.0}, "--feature-decay must be at least 0, got -1"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        made(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"optimizer": "adam"}, (1e-3, 0.9, 1e-2, 1e-2, 128)),
        ({"optimizer": "adamw"}, (1e-3, 0.9, 1e-2, 0.0, 128)),
        ({"optimizer": "sgdw"}, (0.00375, 0.9, 0.1, 1e-2, 128)),
        ({"optimizer": "sgdw", "momentum": 0.5}, (0.00375, 0.5, 0.02, 1e-2, 128)),
        ({"optimizer": "lbfgs"}, (1.0, 0.0, 1e-2, 1e-2, 100)),
        ({"loss": "label-smoothing"}, (0.0679, 0.9, 5e-4, 5e-4, 128)),
        ({"loss": "rescaled-mse"}, (0.01875, 0.9, 2e-3, 1e-2, 128)),
    ],
)
def test_the_usual_numbers(tmp_path: Path, options: dict[str, Any], expected: tuple[float, ...]) -> None:
    """Rate, momentum, weight decay, measured λ, batch size."""
    config = made(tmp_path / "run", **options)[0].config
    found = (config.learning_rate, config.momentum, config.weight_decay, config.measured_weight_decay)
    assert (*found, config.batch_size) == pytest.approx(expected)


@pytest.mark.parametrize("model", ["mlp", "vgg11", "densenet40"])
@pytest.mark.parametrize("size", [(28, 40), (40, 28), (3, 5)])
def test_oblong_images_are_trained_on(tmp_path: Path, model: str, size: tuple[int, int]) -> None:
    """Also by the one network whose first layer depends on the size; each side of 28 pixels is padded to 32."""
    labels = np.arange(12) % 3
    images = np.random.default_rng(0).integers(0, 256, (12, *size), dtype=np.uint8)
    halves = {
        f"{half}_{kind}": array
        for half in ("train", "test")
        for kind, array in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "oblong.npz", **halves)
    settings = {"dataset": "npz", "data_dir": tmp_path / "oblong.npz", "model": model, "width": 0.0625, "epochs": 1}
    run, data = prepare(TrainingConfig(**settings, precision="32", device="cpu"), out=tmp_path / "run")
    assert train(run, data) == "finished"
    if model == "mlp":
        weights = torch.load(run.path / "checkpoint.pt", weights_only=True)["model"]
        assert weights["1.weight"].shape[1] == {40: 32 * 40, 5: 15}[max(size)]
