"""Sweeps: the paper's rates, the choice of the best, its recipe, and one sweep from end to end."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.grids import TINY

from neuralcollapse import InputError
from neuralcollapse._files import append_line
from neuralcollapse.cli import dispatch
from neuralcollapse.figures.sweep import sweep_panels
from neuralcollapse.plots.options import Drawing
from neuralcollapse.study import sweep
from neuralcollapse.study.task import State
from neuralcollapse.training import recipes
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import load_and_resolve
from neuralcollapse.training.run_directory import Run, Status

DIGITS = TrainingConfig(dataset="digits", model="mlp", loss="mse")
TUNED = (0.001880302, 0.009596916, 0.013295740, 0.018420157, 0.025519618, 0.048981924, 0.067860440, 0.094015077)


def test_the_rates_are_the_papers() -> None:
    """Every tuned rate of the paper is one of the 25, to the digits it is printed with."""
    rates = recipes.learning_rates("mse-torch", 10)
    assert len(rates) == 25 and rates[0] == pytest.approx(1e-4) and rates[-1] == pytest.approx(0.25)
    for tuned in TUNED:
        assert min(abs(rate - tuned) for rate in rates) < 1e-9
    assert recipes.learning_rates("ce", 10) == rates
    assert recipes.learning_rates("mse", 37) == pytest.approx([rate * 2 / 37 for rate in rates], rel=1e-14)
    of_mnist = recipes.paper_recipe("mnist", "resnet18", "mse").learning_rate
    assert min(abs(rate - of_mnist) for rate in recipes.learning_rates("mse", 10)) < 1e-10


def written(made: sweep.Sweep, index: int, status: str, *lines: dict[str, Any]) -> None:
    config, _ = load_and_resolve(made.cells[index].config)
    run = Run.create(made.out / made.cells[index].name, config)
    for epoch, line in enumerate(lines, start=1):
        append_line(run.history_path, {"epoch": epoch, "num_examples": 200, "num_classes": 10, "snr": [1.0], **line})
    run.write_status(Status(status=status, epoch=len(lines)))


def line(test_error: float, train_error: float, nc1: float) -> dict[str, float]:
    return {"test_accuracy": 1 - test_error, "train_error": train_error, "nc1": nc1}


@pytest.fixture
def six(tmp_path: Path) -> sweep.Sweep:
    """Six rates: one diverged, one cut short while it was best of all, two equal in test error, one not begun."""
    made = sweep.make_sweep(DIGITS, "learning-rate", [0.64, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32], tmp_path / "sweep")
    written(made, 0, "finished", line(0.25, 0.5, 0.9))
    written(made, 1, "finished", line(0.05, 0.5, 0.1), line(0.125, 0.0, 0.030))  # the last epoch counts
    written(made, 2, "finished", line(0.125, 0.0, 0.010))
    written(made, 3, "interrupted", line(0.0, 0.0, 0.001))
    written(made, 4, "finished", line(0.1875, 0.0, 0.0001))
    written(made, 5, "diverged", line(0.0, 0.0, 0.001))
    return made


def test_the_best_has_the_least_test_error_then_the_least_nc1(six: sweep.Sweep) -> None:
    points = six.points()
    assert [point.value for point in points] == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64]
    assert [point.status for point in points] == [*3 * ["finished"], "interrupted", "finished", "diverged", ""]
    about = sweep.write_recipe(six, points)
    assert sweep.best(points) == sweep.Point(0.04, "learning_rate-0.04", "finished", 0.125, 0.0, 0.01)
    assert "learning_rate 0.04 of 7 values (4 finished, 1 diverged, 2 not finished)" in about and "12.50 %" in about
    assert sweep.best([point for point in points if point.status != "finished"]) is None


def test_a_run_with_other_settings_is_no_point_of_the_sweep(six: sweep.Sweep) -> None:
    """Though it is finished, and the best of all."""
    states = {cell.name: State.FINISHED for cell in six.cells} | {"learning_rate-0.04": State.OTHER}
    points = six.points(states)
    assert [point.status for point in points][2] == "other settings" and sweep.best(points) == points[1]
    six.recipe_path.write_text("kept")
    others = dict.fromkeys(states, State.OTHER)
    assert not sweep.write_recipe(six, six.points(others)) and six.recipe_path.read_text() == "kept"


def test_a_sweep_asks_for_no_default_that_no_run_has(tmp_path: Path) -> None:
    """The default ratio of an imbalance leaves classes without examples where there are few."""
    config = dataclasses.replace(DIGITS, examples_per_class=20, imbalance="step")
    made = sweep.make_sweep(config, "imbalance-ratio", [2, 5], tmp_path)
    assert [cell.config.imbalance_ratio for cell in made.cells] == [2, 5]


def test_the_picture_shows_winner_and_diverged(six: sweep.Sweep) -> None:
    figure, caption = sweep_panels(six, six.points(), Drawing())
    errors, nc1 = figure.axes
    assert errors.get_shared_x_axes().joined(errors, nc1)
    for axes, stars in ((errors, [0.125, 0.0]), (nc1, [0.01])):
        found = [line for line in axes.lines if line.get_marker() == "*"]
        assert [(list(line.get_xdata()), list(line.get_ydata())) for line in found] == [
            ([0.04], [star]) for star in stars
        ]
        (shaded,) = (patch for patch in axes.patches if patch.get_gid() == "diverged")
        assert shaded.get_x() == pytest.approx((0.16 * 0.32) ** 0.5)  # half way, on the logarithmic axis
        assert shaded.get_x() + shaded.get_width() == pytest.approx((0.32 * 0.64) ** 0.5)
    assert "Star: the best, learning rate 0.04, test error 12.50 %." in caption
    assert "Shaded: 1 diverged. 2 of 7 not finished." in caption


def test_a_damaged_run_of_a_sweep_is_named(six: sweep.Sweep) -> None:
    append_line(six.out / six.cells[0].name / "history.jsonl", {"loss": 1.0})
    with pytest.raises(InputError, match=r"learning_rate-0\.01.history\.jsonl, line 2 has no .epoch."):
        six.points()


def test_the_recipe_comes_back(six: sweep.Sweep) -> None:
    assert sweep.write_recipe(six, six.points())
    assert json.loads(six.recipe_path.read_text())["learning_rate"] == 0.04
    (recipe,) = recipes.read(six.recipe_path)
    assert recipe == dataclasses.replace(DIGITS, learning_rate=0.04)
    assert recipes.fill(TrainingConfig(epochs=3), six.recipe_path) == dataclasses.replace(recipe, epochs=3)
    assert recipes.fill(TrainingConfig(learning_rate=0.1), six.recipe_path).learning_rate == 0.1
    with pytest.raises(InputError, match="no recipe for dataset mnist"):
        recipes.fill(TrainingConfig(dataset="mnist"), six.recipe_path)


def test_a_run_takes_every_recipe_that_fits(tmp_path: Path) -> None:
    path = tmp_path / "recipes.json"
    parts = {"loss": "mse", "learning_rate": 0.1}, {"model": "vgg11", "epochs": 7}, {"loss": "ce", "learning_rate": 0.2}
    path.write_text(json.dumps(parts))
    asked = TrainingConfig(dataset="digits", model="vgg11", loss="mse")
    assert recipes.fill(asked, path) == dataclasses.replace(asked, learning_rate=0.1, epochs=7)
    with pytest.raises(InputError, match=r"holds 2 recipes for model vgg11, loss mse; give --dataset too"):
        recipes.fill(TrainingConfig(model="vgg11", loss="mse"), path)
    path.write_text(json.dumps([*parts, {"dataset": "digits", "epochs": 8}]))
    with pytest.raises(InputError, match="two recipes give epochs of digits, vgg11, mse: 7 and 8"):
        recipes.fill(asked, path)


def test_every_setting_survives_json(tmp_path: Path) -> None:
    full = TrainingConfig(
        dataset="npz", data_dir=tmp_path, milestones=(0.5, 0.75), epochs=3, width=0.5, device="cpu", seed=2
    )
    assert TrainingConfig.from_json(json.loads(json.dumps(full.to_json())), "here") == full
    recipes.write(tmp_path / "r.json", full, "so")
    kept = recipes.read(tmp_path / "r.json")[0]
    assert kept == TrainingConfig(
        dataset="npz", milestones=(0.5, 0.75), epochs=3, width=0.5
    )  # not what is this machine's


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a JSON file"),
        ("3", "an object of settings"),
        ("[]", "an object of settings"),
        ('{"rate": 1}', "unknown setting 'rate'"),
        ('{"learning_rate": "fast"}', "learning_rate must be a valid number, got 'fast'"),
        ('{"epochs": 2.5}', r"epochs must be a valid integer.*, got 2\.5"),
        ('{"epochs": true}', "epochs must be a valid integer, got True"),
        (f'{{"learning_rate": 1{400 * "0"}}}', "learning_rate must .*, got 10000"),
        ('{"label_noise": NaN}', "label_noise must be a finite number, got"),
        (100_000 * "[", "is not a JSON file"),
        ('{"milestones": [0.5, "x"]}', "milestones.1 must be a valid number"),
        ('{"loss": "hinge"}', "loss must be 'mse'.*, got 'hinge'"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "recipe.json").write_text(content)
    with pytest.raises(InputError, match=message):
        recipes.read(tmp_path / "recipe.json")
    with pytest.raises(InputError, match=r"cannot read the recipe .*: No such file"):
        recipes.read(tmp_path / "absent.json")
    with pytest.raises(InputError, match=r"cannot read the recipe .*: Is a directory"):
        recipes.read(tmp_path)


def test_what_cannot_be_varied_is_refused(tmp_path: Path) -> None:
    for setting, values, message in (
        ("loss", [1.0], "--setting loss cannot be varied"),
        ("milestones", [0.5], "--setting milestones cannot be varied"),
        ("seed", [1.0], "--setting seed cannot be varied"),
        ("devices", [1.0], "--setting devices cannot be varied"),
        ("robustness-examples", [1.0], "cannot be varied"),
        ("test-examples-per-class", [1.0], "cannot be varied"),
        ("width", None, "needs --values"),
        ("epochs", [math.inf], "whole numbers"),
        ("batch-size", [math.nan], "whole numbers"),
        ("width", [math.nan], "--values of width"),
        ("epochs", [1.5], "whole numbers"),
        ("width", [], "--values of width"),
        ("width", [-1.0], "--width must be greater than 0, got -1"),
        ("learning-rate", [0.1, 0.1 + 1e-12], "agree in six digits"),
    ):
        with pytest.raises(InputError, match=message):
            sweep.make_sweep(DIGITS, setting, values, tmp_path)
    with pytest.raises(InputError, match=r"give its values to --values instead of --learning-rate 0\.1"):
        sweep.make_sweep(dataclasses.replace(DIGITS, learning_rate=0.1), "learning_rate", None, tmp_path)
    for optimizer in ("adam", "adamw", "lbfgs"):
        with pytest.raises(InputError, match=f"--optimizer {optimizer} needs --values"):
            sweep.make_sweep(dataclasses.replace(DIGITS, optimizer=optimizer), "learning_rate", None, tmp_path)
        assert sweep.make_sweep(
            dataclasses.replace(DIGITS, optimizer=optimizer), "learning_rate", [1e-3], tmp_path
        ).values
    assert not list(tmp_path.iterdir())
    made = sweep.make_sweep(DIGITS, "learning-rate", None, None)
    assert made.out == Path("runs/sweep-digits-mlp-mse-learning_rate")
    assert made.values == pytest.approx([rate / 5 for rate in recipes.learning_rates("mse-torch", 10)], rel=1e-12)


def test_a_sweep_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str], untimed: None) -> None:
    """One rate learns, the other diverges; `run` then repeats the winner exactly."""
    options = [text for key, value in TINY.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    subject = ["--dataset", "digits", "--model", "mlp", *options, "--epochs", "5"]
    out = tmp_path / "sweep"
    values = ["--values", "0.05", "1e6"]
    assert dispatch(["sweep", *subject, *values, "--out", str(out), "--jobs", "2", "--threads", "1"]) == 0
    told = capsys.readouterr()
    assert "best: learning_rate 0.05 of 2 values (1 finished, 1 diverged)" in told.out
    assert "learning_rate-1e+06: diverged in epoch 1" in told.err
    assert {path.name for path in out.iterdir() if path.is_file()} == {
        "recipe.json",
        "study.json",
        *(f"sweep.{ending}" for ending in ("png", "svg", "tex", "txt")),
    }
    run = ["run", "--recipe", str(out / "recipe.json"), "--precision", "32", "--device", "cpu"]
    assert dispatch([*run, "--out", str(tmp_path / "run")]) == 0
    again, first = Run.open(tmp_path / "run"), Run.open(out / "learning_rate-0.05")
    assert again.config == first.config
    assert [record["loss"] for record in again.history()] == [record["loss"] for record in first.history()]
