"""The configuration: typed both ways, old run directories, files in JSON and YAML, and what a new name costs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from helpers.studies import config
from hypothesis import given
from hypothesis import strategies as st

from neuralcollapse import InputError
from neuralcollapse.data.corruption import IMBALANCES
from neuralcollapse.training import recipes
from neuralcollapse.training.config import OPTIONS, RunConfig, TrainingConfig, numeric_settings, settings_in

RESULTS = sorted((Path(__file__).parents[2] / "results").rglob("config.json"))
FULL = TrainingConfig(
    dataset="npz", data_dir=Path("/data"), milestones=(0.5, 0.75), epochs=3, width=0.5, device="cpu", seed=2
)


def test_settings_survive_json(tmp_path: Path) -> None:
    assert TrainingConfig.from_json(json.loads(json.dumps(FULL.to_json())), "here") == FULL
    recipes.write(tmp_path / "recipe.json", FULL, "for a test")
    machine = {"data_dir": None, "device": None, "seed": None}
    assert recipes.read(tmp_path / "recipe.json") == [dataclasses.replace(FULL, **machine)]
    complete = config(imbalance="step", imbalance_ratio=7, data_dir="/data")
    assert RunConfig.from_json(json.loads(json.dumps(complete.to_json())), "here") == complete
    assert complete.to_json().keys() == OPTIONS.keys()


@pytest.mark.skipif(not RESULTS, reason="the results are not in this copy")
@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_the_configurations_of_the_results_read(path: Path) -> None:
    stored = json.loads(path.read_text())
    read = RunConfig.from_json(stored, path)
    assert {name: value for name, value in read.to_json().items() if name in stored} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    assert read.optimizer == "sgd" and read.head == "linear" and read.label_noise == 0


def test_what_an_older_version_does_not_write_means_the_default() -> None:
    later = {"imbalance", "label_noise", "head", "optimizer", "temperature", "robustness_examples", "data_sha256"}
    older = {name: value for name, value in config().to_json().items() if name not in later}
    assert RunConfig.from_json(older, "here") == config()


@pytest.mark.parametrize("name", ["dataset", "epochs", "width", "seed", "milestones", "num_classes", "learning_rate"])
def test_a_configuration_without_a_field_is_not_complete(name: str) -> None:
    stored = config().to_json()
    del stored[name]
    with pytest.raises(InputError, match=f"here has no '{name}', so it is not a complete configuration"):
        RunConfig.from_json(stored, "here")
    with pytest.raises(InputError, match="has no 'imbalance_ratio'"):
        RunConfig.from_json({**config().to_json(), "imbalance": "step"}, "here")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": True}, "epochs must be a valid integer, got True"),
        ({"epochs": "3"}, "epochs must be a valid integer, got '3'"),
        ({"epochs": 3.0}, "epochs must be a valid integer, got 3.0"),
        ({"epoch": 3}, r"unknown setting 'epoch' \(did you mean 'epochs'\?\); expected some of dataset"),
        ({"milestones": [0.5, 1]}, r"milestones.1 must be less than 1, got 1"),
        ({"milestones": 0.5}, "milestones must be a valid array, got 0.5"),
        ({"loss": "hinge"}, "loss must be 'mse', .*'label-smoothing', got 'hinge'"),
        ({"width": None, "momentum": 1}, "momentum must be less than 1, got 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number, got nan"),
        ({"data_dir": 3}, "data_dir must be a valid string, got 3"),
        ({"seed": 2**63}, "seed must be less than 9223372036854775808"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^here: {message}"):
        TrainingConfig.from_json(entry, "here")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(entry=st.dictionaries(st.sampled_from([*OPTIONS, "x"]), JSON, max_size=3))
def test_whatever_a_file_holds_is_read_or_refused_in_a_sentence(entry: dict[str, Any]) -> None:
    for kind, content in ((TrainingConfig, entry), (RunConfig, {**config().to_json(), **entry})):
        try:
            read = kind.from_json(content, "here")
        except InputError as error:
            assert str(error).startswith("here") and len(str(error)) < 1000
        else:
            assert kind.from_json(json.loads(json.dumps(read.to_json())), "here") == read


@pytest.mark.parametrize("suffix", ["yaml", "yml"])
def test_a_recipe_in_yaml_is_the_one_in_json(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"recipe.{suffix}"
    path.write_text(
        "# chosen by hand\nabout: a remark\ndataset: mnist\nmodel: vgg11\nloss: mse\n"
        "learning_rate: 5e-3\nmilestones: [0.5, 0.75]\nepochs: 20\n"
    )
    expected = TrainingConfig(
        dataset="mnist", model="vgg11", loss="mse", learning_rate=0.005, milestones=(0.5, 0.75), epochs=20
    )
    assert recipes.read(path) == [expected]
    asked = TrainingConfig(dataset="mnist", epochs=7)
    assert recipes.fill(asked, path) == dataclasses.replace(expected, epochs=7)
    path.write_text("- {seed: 1, epochs: 3}\n- {seed: 2, epochs: 4}\n")
    assert [recipe.epochs for recipe in recipes.read(path)] == [3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!python/object/apply:os.system [echo]", "line 1, column 1: could not determine a constructor"),
        ("a: [", "is not a YAML file"),
        ("3", "expected an object of settings"),
        ("epochs: 2024-01-01", "epochs must be a valid integer, got"),
        ("epoch: 3", "unknown setting 'epoch'"),
        ("3: 4", "unknown setting"),
    ],
)
def test_a_wrong_yaml_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        recipes.read(path)
    with pytest.raises(InputError, match="cannot read the recipe"):
        recipes.read(tmp_path / "absent.yaml")


def test_every_setting_has_its_help_and_its_place() -> None:
    fields = [field.name for field in dataclasses.fields(TrainingConfig)]
    assert all(option.label for option in OPTIONS.values())
    assert sorted(
        name for group in ("subject", "training", "measuring", "machine") for name in settings_in(group)
    ) == sorted(fields)
    assert numeric_settings()["batch_size"] is int and numeric_settings()["learning_rate"] is float
    assert not {"seed", "devices", "robustness_examples", "milestones", "head"} & numeric_settings().keys()


def test_the_choices_of_imbalance_are_those_of_the_data() -> None:
    assert typing.get_args(typing.get_args(typing.get_type_hints(TrainingConfig)["imbalance"])[0]) == tuple(IMBALANCES)


def test_the_settings_are_listed_without_pytorch() -> None:
    program = "import sys, neuralcollapse.training.recipes; print({'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\n"
