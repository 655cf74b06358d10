"""Whatever the files of a run directory hold, figures name the file and what is wrong in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.studies import config, history, write_run
from neuralcollapse.figures.runview import RunView
from neuralcollapse.figures.studyview import Study

from neuralcollapse import InputError, figures


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
        ({"epochs": ...}, "config.json gives no epochs"),
        ({"epochs": "x"}, "config.json: epochs cannot be 'x'; expected a whole number"),
        ({"epochs": 0}, "epochs cannot be 0; expected a whole number of at least 1"),
        ({"epochs": True}, "epochs cannot be True"),
        ({"model": 3}, "model cannot be 3; expected a text"),
        ({"dataset": ["digits"]}, r"dataset cannot be \['digits'\]; expected a text"),
        ({"num_classes": 0}, "num_classes cannot be 0"),
        ({"width": "wide"}, "width cannot be 'wide'; expected a number"),
        ({"learning_rate": 10**400}, "learning_rate cannot be 1000"),
        ({"weight_decay": float("nan")}, "weight_decay cannot be nan"),
        ({"milestones": [0.5, 3]}, "milestones cannot be .* expected shares between 0 and 1"),
        ({"milestones": 0.5}, "milestones cannot be 0.5; expected a list"),
        ({"class_names": 3}, "class_names cannot be 3"),
        ({"imbalance": "step"}, "gives no imbalance_ratio"),
        ({"optimizer": "adamw", "weight_decay": ...}, "gives no weight_decay"),
        ({"test_examples_per_class": "ten"}, "cannot be 'ten'; expected a whole number or null"),
    ],
)
def test_a_configuration_no_run_can_have(run: Path, changes: dict[str, Any], message: str) -> None:
    change(run / "config.json", changes)
    with pytest.raises(InputError, match=message):
        Study.read(run.parent)
    if changes != {"epochs": ...}:  # one run alone does not ask how far it was to go
        with pytest.raises(InputError, match=message):
            RunView.read(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": None}, "epoch cannot be None; delete the file to go on without it"),
        ({"status": 3}, "status cannot be 3"),
    ],
)
def test_a_status_no_run_can_have(run: Path, changes: dict[str, Any], message: str) -> None:
    change(run / "status.json", changes)
    with pytest.raises(InputError, match=rf"status\.json: {message}"):
        Study.read(run.parent)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": ...}, "epoch cannot be None"),
        ({"epoch": "one"}, "epoch cannot be 'one'; expected a whole number of at least 1"),
        ({"epoch": 0}, "epoch cannot be 0"),
        ({"num_examples": ...}, "num_examples cannot be None"),
        ({"train_error": None}, "train_error cannot be None; expected a number"),
        ({"nc1": "small"}, "nc1 cannot be 'small'"),
        ({"test_accuracy": "high"}, "test_accuracy cannot be 'high'"),
        ({"robustness": []}, r"robustness cannot be \[\]"),
        ({"snr": 3.0}, "snr cannot be 3.0; expected a list of numbers"),
        ({"snr": [1.0, None]}, "snr cannot be"),
    ],
)
def test_a_line_no_history_can_have(run: Path, changes: dict[str, Any], message: str) -> None:
    first, second = (run / "history.jsonl").read_text().splitlines()
    wrong = {key: value for key, value in {**json.loads(second), **changes}.items() if value is not ...}
    (run / "history.jsonl").write_text(f"{first}\n{json.dumps(wrong)}\n")
    for path in (run, run.parent):
        with pytest.raises(InputError, match=rf"history\.jsonl, line 2: {message}"):
            figures.draw(path)


@pytest.mark.parametrize("content", ["[1]", "{", "\x00"])
def test_a_foreign_configuration_is_passed_over_and_a_damaged_one_named(run: Path, content: str) -> None:
    other = run.with_name("other")
    other.mkdir()
    (other / "config.json").write_text(content)
    assert [cell.path for cell in Study.read(run.parent).runs] == [run]
    (run / "config.json").write_text(content)  # its history shows that it was a run
    with pytest.raises(InputError, match=r"run.config\.json"):
        Study.read(run.parent)
