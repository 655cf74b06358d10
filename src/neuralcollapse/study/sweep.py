"""Train one network at many values of one setting; the run with the smallest final test error becomes a recipe."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse.study.plan import Cell
from neuralcollapse.study.task import State
from neuralcollapse.training import recipes
from neuralcollapse.training.config import TrainingConfig, numeric_settings
from neuralcollapse.training.optimizers import OPTIMIZERS
from neuralcollapse.training.resolve import base_name, load_and_resolve
from neuralcollapse.training.run_directory import Run

_ENDED = ("finished", "diverged")


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Args:
        value: the value of the setting.
        name: the name of the run directory.
        status: the status of the run; empty before it has begun.
        test_error, train_error, nc1: at the last epoch of a finished run; None for any other.
    """

    value: float
    name: str
    status: str
    test_error: float | None = None
    train_error: float | None = None
    nc1: float | None = None


@dataclass(frozen=True)
class Sweep:
    """A setting, its values, and one run for each.

    Args:
        setting: the name of the field of `TrainingConfig`.
        values: the values, in rising order.
        cells: one for each value.
        out: the folder of the run directories.
        title: data set, network and loss, for the title of the figure.
    """

    setting: str
    values: tuple[float, ...]
    cells: tuple[Cell, ...]
    out: Path
    title: str

    @property
    def recipe_path(self) -> Path:
        """The file for the settings of the best run."""
        return self.out / "recipe.json"

    def points(self, states: Mapping[str, State] | None = None) -> list[Point]:
        """The runs as their directories are now.

        Args:
            states: of the cells, as a grid found them; a directory that holds a run with other settings has no numbers.
        """
        found = []
        for value, cell in zip(self.values, self.cells, strict=True):
            path = self.out / cell.name
            other = states is not None and states.get(cell.name) is State.OTHER
            status = str(State.OTHER) if other else Run(path).status().status
            numbers: tuple[float, ...] = ()
            if status == "finished":
                history = Run(path).history("test_accuracy", "train_error", "nc1")
                if not history:
                    raise InputError(f"{path} is finished, but its history is empty; move it away to train it again")
                numbers = 1 - history[-1]["test_accuracy"], history[-1]["train_error"], history[-1]["nc1"]
            found.append(Point(value, cell.name, status, *numbers))
        return found


def make_sweep(config: TrainingConfig, setting: str, values: Sequence[float] | None, out: Path | None) -> Sweep:
    """Plan the runs of a sweep; nothing is written.

    Args:
        config: the settings of all runs.
        setting: the setting to vary, a number that belongs to the training.
        values: its values; None for the paper's 25 learning rates, which are meant for SGD.
        out: the folder of the run directories; None for one under runs/ named after the sweep.

    Raises:
        InputError: the setting is unknown or not a number, or its values are missing or unusable.
    """
    setting = setting.replace("-", "_")
    kinds = numeric_settings()
    if setting not in kinds:
        raise InputError(f"--setting {setting} cannot be varied; expected one of {', '.join(kinds)}")
    if (value := getattr(config, setting)) is not None:
        raise InputError(
            f"{setting} is the setting that is varied; give its values to --values instead of "
            f"--{setting.replace('_', '-')} {value:g}"
        )
    kind = kinds[setting]
    if values is not None and (not values or any(not math.isfinite(value) or kind(value) != value for value in values)):
        raise InputError(f"expected --values of {setting} as {'whole ' if kind is int else ''}numbers, got {values}")
    # with a value of the sweep: the setting's default need not go with the others
    first: dict[str, Any] = {} if values is None else {setting: kind(values[0])}
    resolved, data = load_and_resolve(dataclasses.replace(config, **first))
    if values is None:
        if setting != "learning_rate":
            raise InputError(f"--setting {setting} needs --values")
        if OPTIMIZERS[resolved.optimizer].learning_rate is not None:
            raise InputError(f"--optimizer {resolved.optimizer} needs --values: the paper's 25 rates are those of SGD")
        values = recipes.learning_rates(resolved.loss, len(data.class_names))
    chosen = tuple(sorted({kind(value) for value in values}))
    subject: dict[str, Any] = {"dataset": resolved.dataset, "model": resolved.model, "loss": resolved.loss}
    cells = tuple(
        Cell(f"{setting}-{value:g}", dataclasses.replace(config, **{**subject, setting: value})) for value in chosen
    )
    if len({cell.name for cell in cells}) < len(cells):
        raise InputError(f"two --values of {setting} agree in six digits; leave one out of {values}")
    for cell in cells:
        cell.config.check()
    name = base_name(resolved.dataset, config.data_dir, resolved.model, resolved.loss)
    title = [resolved.dataset_title]  # and how the training is reduced, without the setting that is varied
    title += [] if setting == "examples_per_class" else [f"{resolved.num_examples:,} training examples"]
    title += [] if setting == "downsample" else resolved.image_description()
    title.append(resolved.model if setting == "width" else f"{resolved.model} (width ×{resolved.width:g})")
    title += [] if setting == "epochs" else [f"{resolved.epochs} epochs"]
    title.append(f"{resolved.loss_title} loss")
    out = out or Path("runs") / f"sweep-{name}-{setting}"
    return Sweep(setting, chosen, cells, out, ", ".join(title))


def best(points: Sequence[Point]) -> Point | None:
    """The finished run with the smallest final test error; of equal ones, the one with the smallest NC1."""
    finished = [point for point in points if point.test_error is not None and point.nc1 is not None]
    return min(finished, key=lambda point: (point.test_error, point.nc1), default=None)


def write_recipe(sweep: Sweep, points: Sequence[Point]) -> str:
    """Write the settings of the best run as a recipe, and return how it was chosen; "" where no run is finished."""
    winner = best(points)
    if winner is None:
        return ""
    assert winner.test_error is not None
    config = next(cell.config for cell in sweep.cells if cell.name == winner.name)
    counts = [f"{sum(point.status == status for point in points)} {status}" for status in _ENDED]
    if unfinished := sum(point.status not in _ENDED for point in points):
        counts.append(f"{unfinished} not finished")
    about = (
        f"{sweep.setting} {winner.value:g} of {len(points)} values ({', '.join(counts)}), chosen by final test error "
        f"({100 * winner.test_error:.2f} %), ties by NC1; seed {config.seed or 0}"
    )
    recipes.write(sweep.recipe_path, config, about)
    return about
