"""One setting over many values, each a run of its own; the best by final test error, ties by NC1, becomes a recipe."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse.study.grid import Cell
from neuralcollapse.training import optimizers, recipes
from neuralcollapse.training.config import RunConfig, TrainingConfig, numeric
from neuralcollapse.training.resolve import base_name, load_and_resolve
from neuralcollapse.training.run_directory import Run

_ENDED = ("finished", "diverged")


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Args:
        value: of the setting.
        name: of the run directory.
        status: of the run; empty where there is none yet.
        test_error, train_error, nc1: at the last epoch, of a finished run.
    """

    value: float
    name: str
    status: str
    test_error: float | None = None
    train_error: float | None = None
    nc1: float | None = None


@dataclass(frozen=True)
class Winner:
    """The best run of a sweep, in words, and its recipe."""

    point: Point
    about: str
    path: Path


@dataclass(frozen=True)
class Sweep:
    """A setting, its values, and the run of each.

    Args:
        setting: name of the field of `TrainingConfig`.
        values: rising.
        cells: one for each value.
        out: the folder of the run directories.
        title: data set, network and loss, for titles.
    """

    setting: str
    values: tuple[float, ...]
    cells: tuple[Cell, ...]
    out: Path
    title: str

    def points(self) -> list[Point]:
        """What the run directories hold now."""
        return [_point(value, self.out / cell.name) for value, cell in zip(self.values, self.cells, strict=True)]


def make(settings: TrainingConfig, setting: str, values: Sequence[float] | None, out: Path | None) -> Sweep:
    """The runs of a sweep.

    Args:
        settings: of all runs.
        setting: what is varied: a number among the settings of the training.
        values: the values; None for the paper's 25 learning rates, which are SGD's.
        out: the folder of the run directories; None for one under runs/ with a name of its own.

    Raises:
        InputError: no such setting, no values for it, or unusable ones.
    """
    setting = setting.replace("-", "_")
    kinds = numeric()
    if setting not in kinds:
        raise InputError(f"--setting {setting} is no number to vary; expected one of {', '.join(kinds)}")
    if getattr(settings, setting) is not None:
        raise InputError(
            f"{setting} is what is varied; leave out --{setting.replace('_', '-')}, or give it to --values"
        )
    config, data = load_and_resolve(settings)
    if values is None:
        if setting != "learning_rate":
            raise InputError(f"--setting {setting} needs --values")
        if optimizers.get(config.optimizer).learning_rate is not None:
            raise InputError(f"--optimizer {config.optimizer} needs --values: the paper's 25 rates are those of SGD")
        values = recipes.learning_rates(config.loss, len(data.class_names))
    kind = kinds[setting]
    if not values or any(not math.isfinite(value) or kind(value) != value for value in values):
        raise InputError(f"expected --values of {setting} as {'whole ' if kind is int else ''}numbers, got {values}")
    chosen = tuple(sorted({kind(value) for value in values}))
    subject: dict[str, Any] = {"dataset": config.dataset, "model": config.model, "loss": config.loss}
    cells = tuple(_cell(dataclasses.replace(settings, **subject), setting, value) for value in chosen)
    if len({cell.name for cell in cells}) < len(cells):
        raise InputError(f"two --values of {setting} agree in six digits; leave one out of {values}")
    for cell in cells:
        cell.settings.check()
    name = base_name(config.dataset, settings.data_dir, config.model, config.loss)
    return Sweep(setting, chosen, cells, out or Path("runs") / f"sweep-{name}-{setting}", _title(config, setting))


def best(points: Sequence[Point]) -> Point | None:
    """The finished run with the smallest final test error; among equals the one with the smallest NC1."""
    finished = [point for point in points if point.test_error is not None and point.nc1 is not None]
    return min(finished, key=lambda point: (point.test_error, point.nc1), default=None)


def write_recipe(sweep: Sweep, points: Sequence[Point]) -> Winner | None:
    """Write the best run as `recipe.json`, which says how many are not finished; None where none is."""
    winner = best(points)
    if winner is None:
        return None
    assert winner.test_error is not None
    cell = next(cell for cell in sweep.cells if cell.name == winner.name)
    counts = [f"{sum(point.status == status for point in points)} {status}" for status in _ENDED]
    if unfinished := sum(point.status not in _ENDED for point in points):
        counts.append(f"{unfinished} not finished")
    about = (
        f"{sweep.setting} {winner.value:g} of {len(points)} values ({', '.join(counts)}), chosen by final test error "
        f"({100 * winner.test_error:.2f} %), ties by NC1; seed {cell.settings.seed or 0}"
    )
    path = sweep.out / "recipe.json"
    recipes.write(path, cell.settings, about)
    return Winner(winner, about, path)


def _title(config: RunConfig, setting: str) -> str:
    """What was trained, and how reduced; not what is varied."""
    parts = [] if setting == "examples_per_class" else [f"{config.num_examples:,} training examples"]
    parts.append(config.model if setting == "width" else f"{config.model} (width ×{config.width:g})")
    parts += [] if setting == "epochs" else [f"{config.epochs} epochs"]
    return ", ".join([config.dataset_title, *parts, f"{config.loss_title} loss"])


def _cell(settings: TrainingConfig, setting: str, value: float) -> Cell:
    varied: dict[str, Any] = {setting: value}
    return Cell(f"{setting}-{value:g}", dataclasses.replace(settings, **varied))


def _point(value: float, path: Path) -> Point:
    if not (path / "config.json").is_file():
        return Point(value, path.name, "")
    run = Run.open(path)
    status = run.status().status
    if status != "finished":
        return Point(value, path.name, status)
    history = run.history("test_accuracy")
    if not history:
        raise InputError(f"{path} is finished, but its history is empty; move it away to train it again")
    last = history[-1]
    return Point(value, path.name, status, 1 - last["test_accuracy"], last["train_error"], last["nc1"])
