"""A run directory whose files hold what no run writes: the error names the file and what is wrong in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.studies import config, history, write_run

from neuralcollapse import InputError
from neuralcollapse.training.run_directory import Run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", config(), history({1: 0.5, 350: 0.6}, 1))


def change(path: Path, changes: dict[str, Any]) -> None:
    """Put other values into a JSON object; `...` takes the field out."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": ...}, "epochs"),
        ({"epochs": "x"}, "epochs must be a valid integer, got 'x'"),
        ({"epochs": 0}, "epochs must be .* 1, got 0"),
        ({"epochs": True}, "epochs must be a valid integer, got True"),
        ({"model": 3}, "model must be a valid string, got 3"),
        ({"dataset": ["digits"]}, r"dataset must be a valid string, got \['digits'\]"),
        ({"num_classes": 0}, "num_classes must be .* 1, got 0"),
        ({"width": "wide"}, "width must be a valid number, got 'wide'"),
        ({"learning_rate": 10**400}, "learning_rate must be a finite number, got 1000"),
        ({"weight_decay": float("nan")}, "weight_decay must be a finite number, got nan"),
        ({"milestones": [0.5, 3]}, "milestones.1 must be less than 1, got 3"),
        ({"milestones": 0.5}, "milestones must be a valid array, got 0.5"),
        ({"class_names": 3}, "class_names must be a valid array, got 3"),
        ({"optimizer": "adamw", "weight_decay": ...}, "weight_decay"),
        ({"test_examples_per_class": "ten"}, "test_examples_per_class must be a valid integer, got 'ten'"),
    ],
)
def test_a_configuration_no_run_can_have(run: Path, changes: dict[str, Any], message: str) -> None:
    change(run / "config.json", changes)
    with pytest.raises(InputError, match=rf"config\.json.*{message}"):
        Run.open(run)


@pytest.mark.parametrize(("changes", "field"), [({"epoch": None}, "epoch"), ({"status": 3}, "status")])
def test_a_status_no_run_can_have(run: Path, changes: dict[str, Any], field: str) -> None:
    change(run / "status.json", changes)
    with pytest.raises(InputError, match=rf"status\.json: {field} must .*delete the file to continue without it"):
        Run.open(run).status()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": ...}, "has no 'epoch'"),
        ({"epoch": "one"}, "epoch.* integer, got '?one"),
        ({"epoch": 0}, "epoch.* 1, got 0"),
        ({"num_examples": ...}, "has no 'num_examples'"),
        ({"train_error": None}, "train_error.* number, got None"),
        ({"nc1": "small"}, "nc1.* number, got '?small"),
        ({"test_accuracy": "high"}, "test_accuracy.* number, got '?high"),
        ({"robustness": []}, r"robustness.* number, got \[\]"),
        ({"snr": 3.0}, "snr.* list, got 3.0"),
        ({"snr": [1.0, None]}, "snr.* number, got"),
    ],
)
def test_a_line_no_history_can_have(run: Path, changes: dict[str, Any], message: str) -> None:
    first, second = (run / "history.jsonl").read_text().splitlines()
    wrong = {key: value for key, value in {**json.loads(second), **changes}.items() if value is not ...}
    (run / "history.jsonl").write_text(f"{first}\n{json.dumps(wrong)}\n")
    with pytest.raises(InputError, match=rf"history\.jsonl, line 2.* {message}"):
        Run.open(run).history()
