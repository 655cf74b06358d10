"""The cells of a grid, and how far each of them has come."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from neuralcollapse import data as datasets
from neuralcollapse._errors import InputError, suggest
from neuralcollapse.data import Dataset
from neuralcollapse.data.registry import check_name
from neuralcollapse.study.task import ENDED, State, problem
from neuralcollapse.training import recipes
from neuralcollapse.training.config import RunConfig, TrainingConfig, settings_in
from neuralcollapse.training.losses import LOSSES
from neuralcollapse.training.resolve import base_name, load_and_resolve
from neuralcollapse.training.run_directory import Run, Status, differing_fields

EARLIER = ".earlier"
"""Beside the run directories: where a diverged run goes when it is tried again, and a diverged or failed one when its
settings have changed."""


@dataclass(frozen=True)
class Cell:
    """One run of a grid: the name of its directory, and the settings that are given for it."""

    name: str
    config: TrainingConfig


@dataclass(frozen=True)
class PlannedCell:
    """A cell, and how far its run directory has come.

    Args:
        cell: name and settings.
        path: the run directory.
        state: how far it has come.
        resolved: the complete configuration; None without the data.
        epoch: the last finished epoch.
        seconds: training time so far.
        why: what is wrong, if anything.
        replaces: the directory holds a diverged or failed run with other settings, which is moved away first.
    """

    cell: Cell
    path: Path
    state: State
    resolved: RunConfig | None = None
    epoch: int = 0
    seconds: float = 0.0
    why: str = ""
    replaces: bool = False


def make_cells(
    dataset_names: Sequence[str],
    models: Sequence[str],
    loss_names: Sequence[str],
    seeds: Sequence[int],
    common: TrainingConfig,
    found: Sequence[TrainingConfig] = (),
) -> list[Cell]:
    """Data sets × networks × losses × seeds; a network without a depth takes the paper's depth for the data set.

    Args:
        dataset_names: data sets.
        models: networks.
        loss_names: losses.
        seeds: seeds; the name of a cell contains its seed unless that is 0.
        common: the settings of all cells.
        found: recipes; each fills in settings of the cells it fits.

    Raises:
        InputError: a list is empty, a name is unknown, a recipe fits none of the cells, or two recipes disagree.

    Warns:
        UserWarning: `digits` stand among the data sets and there is a folder of data, which they do not need.
    """
    for option, given in (("datasets", dataset_names), ("models", models), ("losses", loss_names), ("seeds", seeds)):
        if not given:
            raise InputError(f"--{option} expects at least one value")
    for name in dataset_names:
        check_name(name)
    for loss in loss_names:
        LOSSES[loss]  # an InputError if there is none of that name
    if common.data_dir is not None and "digits" in dataset_names:
        said = f"--data-dir {common.data_dir} is not used for digits, which come with scikit-learn"
        warnings.warn(said, UserWarning, stacklevel=2)
    cells: dict[str, Cell] = {}
    for dataset, given_model, loss, seed in itertools.product(dataset_names, models, loss_names, seeds):
        model = recipes.network_for(dataset, given_model)
        subject: dict[str, Any] = {"dataset": dataset, "model": model, "loss": loss, "seed": seed}
        config = dataclasses.replace(common, **subject, **({"data_dir": None} if dataset == "digits" else {}))
        name = base_name(dataset, common.data_dir, model, loss) + (f"-s{seed}" if seed else "")
        cells[name] = Cell(name, recipes.combine(found, config))
    for recipe in found:
        if not any(recipes.fits(recipe, cell.config) for cell in cells.values()):
            meant = ", ".join(str(value) for name, value in recipe.given().items() if name in settings_in("subject"))
            raise InputError(f"the recipe for {meant} fits none of the cells; to train only some of them, use --only")
    return list(cells.values())


def select_cells(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """The cells whose name matches one of the patterns; without patterns, all.

    Raises:
        InputError: a pattern matches no cell.
    """
    for pattern in patterns:
        if not any(fnmatchcase(cell.name, pattern) for cell in cells):
            names = [cell.name for cell in cells]
            listed = ", ".join(names) if len(names) <= 12 else f"{', '.join(names[:12])} and {len(names) - 12} more"
            raise InputError(f"--only {pattern} matches none of the cells{suggest(pattern, names)}: {listed}")
    return [cell for cell in cells if not patterns or any(fnmatchcase(cell.name, pattern) for pattern in patterns)]


def plan_cells(cells: Sequence[Cell], out: Path) -> list[PlannedCell]:
    """Look at the data and the run directory of every cell; nothing is written.

    Raises:
        InputError: a cell has settings that no run can have, such as more examples of a class than there are. Data that
            are missing or damaged are the cell's state.
    """
    load, planned = functools.lru_cache(maxsize=1)(datasets.load), []
    for cell in cells:
        try:
            planned.append(_plan(cell, out / cell.name, load))
        except InputError as error:
            raise InputError(f"{cell.name}: {error}") from error
    return planned


def cells_to_train(planned: Sequence[PlannedCell], *, retry_diverged: bool = False) -> list[PlannedCell]:
    """The cells that are trained now: new, interrupted and failed ones, and on request diverged ones."""
    states = {State.NEW, State.STARTED, State.FAILED} | ({State.DIVERGED} if retry_diverged else set())
    return [each for each in planned if each.state in states]


def set_aside(path: Path) -> None:
    """Move a diverged or failed run directory into the folder `.earlier`; nothing is deleted.

    Raises:
        InputError: another process is training the run, or has trained it since the plan was made.
    """
    run = Run.open(path)
    with run.locked():
        if run.status().status not in (State.DIVERGED, State.FAILED):
            raise InputError(f"{path} has been trained by another process meanwhile; repeat the command to continue")
        folder = path.parent / EARLIER
        folder.mkdir(exist_ok=True)
        places = (folder / f"{path.name}-{number}" for number in itertools.count(1))
        path.rename(next(place for place in places if not place.exists()))


def _plan(cell: Cell, path: Path, load: Callable[..., Dataset]) -> PlannedCell:
    run, status, damaged = None, Status(), ""
    if (path / "config.json").is_file():
        try:
            run = Run.open(path)
            status = run.status()
        except InputError as error:
            damaged = str(error)
    try:
        # one seed's data serve for all: which examples it draws changes no configuration
        resolved, _ = load_and_resolve(cell.config, lambda name, **options: load(name, **{**options, "seed": 0}))
    except datasets.NoData as error:
        state = State.FINISHED if status.status == State.FINISHED else State.NO_DATA
        return PlannedCell(cell, path, state, epoch=status.epoch, why=str(error))
    planned = functools.partial(PlannedCell, cell, path, resolved=resolved, epoch=status.epoch)
    if path.exists() and not path.is_dir():
        return planned(State.OTHER, why=f"{path} is a file; choose another --out")
    if Run(path).is_locked():
        return planned(State.BUSY, why=f"another process is training in {path}")
    if run is None:
        return planned(State.FAILED if damaged else State.NEW, why=damaged)
    # whether the data are the same is checked when the run continues, with the data of its own seed
    machine = [name for name in ("device", "precision") if getattr(cell.config, name) in (None, "auto")]
    if differing := differing_fields(run.config, resolved, ("data_dir", "data_sha256", "dataset_title", *machine)):
        if status.status in (State.DIVERGED, State.FAILED):
            return PlannedCell(cell, path, State.NEW, resolved, replaces=True)
        why = f"{path} holds a run with other settings ({'; '.join(differing)}); choose another --out, or repeat these"
        return planned(State.OTHER, why=why)
    if damaged:
        return planned(State.FAILED, why=damaged)
    state = State(status.status) if status.status in ENDED else State.STARTED
    return planned(state, seconds=status.seconds, why=problem(status))
