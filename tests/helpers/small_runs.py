"""Trained runs of a narrow ResNet on a few digits, two epochs each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import prepare
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
