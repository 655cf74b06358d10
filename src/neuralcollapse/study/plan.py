"""The cells of a grid, and how far each has come: what there is to do."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from neuralcollapse import data as datasets
from neuralcollapse._checks import InputError
from neuralcollapse.data import Dataset
from neuralcollapse.training import losses, recipes
from neuralcollapse.training.config import RunConfig, TrainingConfig
from neuralcollapse.training.config import names as setting_names
from neuralcollapse.training.resolve import base_name, load_and_resolve
from neuralcollapse.training.run_directory import Run, Status, differing_fields

ASIDE = ".earlier"
"""Where runs go that diverged or failed and are begun anew."""
_ENDED_BADLY = ("diverged", "failed")


class State(StrEnum):
    """How far a cell has come, in the words of the tables."""

    NEW = "new"
    STARTED = "to go on"
    FINISHED = "finished"
    DIVERGED = "diverged"
    FAILED = "failed"
    BUSY = "running elsewhere"
    OTHER = "other settings"
    NO_DATA = "no data"
    WAITING = "waiting"
    RUNNING = "running"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Cell:
    """One run of a grid: the name of its directory, and what is asked for."""

    name: str
    settings: TrainingConfig


@dataclass(frozen=True)
class Planned:
    """A cell and what is to be done about it.

    Args:
        cell: name and settings.
        path: its run directory.
        state: how far it has come.
        config: the complete configuration; None without the data.
        image: channels, height and width; None without the data.
        epoch: the last finished epoch.
        seconds: spent on it so far.
        why: what is wrong, if anything.
        aside: the directory holds a run that failed with other settings, which makes way.
    """

    cell: Cell
    path: Path
    state: State
    config: RunConfig | None = None
    image: tuple[int, int, int] | None = None
    epoch: int = 0
    seconds: float = 0.0
    why: str = ""
    aside: bool = False


def cells(
    names: Sequence[str],
    models: Sequence[str],
    losses_: Sequence[str],
    seeds: Sequence[int],
    common: TrainingConfig,
    found: Sequence[TrainingConfig] = (),
) -> list[Cell]:
    """Data sets × networks × losses × seeds, each cell once; a network without a depth has the paper's.

    Args:
        names: data sets.
        models: networks.
        losses_: losses.
        seeds: seeds; only those other than 0 are in the names of the cells.
        common: the settings of all cells.
        found: recipes, each for the cells it fits.

    Raises:
        InputError: a list is empty, a name is unknown, a recipe is for none of the cells, or two disagree.
    """
    for option, values in (("datasets", names), ("models", models), ("losses", losses_), ("seeds", seeds)):
        if not values:
            raise InputError(f"--{option} expects at least one value")
    for name in names:
        if name not in datasets.names():
            raise InputError(f"unknown data set {name!r}; expected some of {', '.join(datasets.names())}")
    for loss in losses_:
        losses.get(loss)
    made: dict[str, Cell] = {}
    used: set[int] = set()
    for dataset in names:
        for model in (recipes.network(dataset, model) for model in models):
            for loss in losses_:
                for seed in seeds:
                    chosen: dict[str, Any] = {"dataset": dataset, "model": model, "loss": loss, "seed": seed}
                    settings = dataclasses.replace(common, **chosen)
                    used |= {index for index, recipe in enumerate(found) if recipes.fits(recipe, settings)}
                    name = base_name(dataset, common.data_dir, model, loss) + (f"-s{seed}" if seed else "")
                    made[name] = Cell(name, recipes.combine(found, settings))
    for index, recipe in enumerate(found):
        if index not in used:
            said = recipe.given()
            subject = ", ".join(str(said[name]) for name in setting_names("subject") if name in said)
            raise InputError(
                f"there is a recipe for {subject}, which is none of the cells; --only chooses among more cells"
            )
    return list(made.values())


def only(chosen: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """The cells whose name matches one of the patterns; all where there is none.

    Raises:
        InputError: a pattern matches no cell.
    """
    for pattern in patterns:
        if not any(fnmatchcase(cell.name, pattern) for cell in chosen):
            raise InputError(f"--only {pattern} matches none of the cells: {', '.join(cell.name for cell in chosen)}")
    return [cell for cell in chosen if not patterns or any(fnmatchcase(cell.name, pattern) for pattern in patterns)]


def plan(chosen: Sequence[Cell], out: Path) -> list[Planned]:
    """Look at every cell's data and directory; nothing is written.

    Raises:
        InputError: settings no run can have, or no cell has its data.
    """
    load = _loader()
    planned = [_examine(cell, out / cell.name, load) for cell in chosen]
    if planned and all(each.state is State.NO_DATA for each in planned):
        raise InputError(planned[0].why)
    return planned


def to_run(planned: Sequence[Planned], *, retry_diverged: bool = False) -> list[Planned]:
    """The cells to be trained now."""
    states = {State.NEW, State.STARTED, State.FAILED} | ({State.DIVERGED} if retry_diverged else set())
    return [each for each in planned if each.state in states]


def set_aside(path: Path) -> None:
    """Move a run directory that failed or diverged out of the way of a new one; nothing is deleted.

    Raises:
        InputError: another process has taken the run up since the plan was made.
    """
    run = Run.open(path)
    with run.locked():
        if run.status().status not in _ENDED_BADLY:
            raise InputError(f"{path} has been trained by another process since; start again to see how far it is")
        folder = path.parent / ASIDE
        folder.mkdir(exist_ok=True)
        number = 1
        while (folder / f"{path.name}-{number}").exists():
            number += 1
        path.rename(folder / f"{path.name}-{number}")


class _NoData(InputError):
    """The data of a cell cannot be read."""


def _loader() -> Any:
    """`datasets.load` for one data set after the other; the draw of a seed changes no number of a plan."""

    @functools.lru_cache(maxsize=1)
    def read(name: str, **options: Any) -> Dataset:
        return datasets.load(name, **options)

    def load(name: str, *, seed: int, **options: Any) -> Dataset:
        try:
            return read(name, **options)
        except InputError as error:
            raise _NoData(str(error)) from error

    return load


def _examine(cell: Cell, path: Path, load: Any) -> Planned:
    run, status, damaged = None, Status(), ""
    if (path / "config.json").is_file():
        try:
            run = Run.open(path)
            status = run.status()
        except InputError as error:
            damaged = str(error)
    try:
        config, data = load_and_resolve(cell.settings, load)
    except _NoData as error:
        done = status.status == "finished"
        return Planned(cell, path, State.FINISHED if done else State.NO_DATA, epoch=status.epoch, why=str(error))
    image: Any = tuple(data.train.images.shape[1:])
    made = functools.partial(Planned, cell, path, config=config, image=image)
    if path.exists() and not path.is_dir():
        return made(State.OTHER, why=f"{path} is a file; choose another --out")
    if Run(path).is_locked():
        return made(State.BUSY, epoch=status.epoch, why=f"another process is training in {path}")
    if run is None:
        return made(State.FAILED if damaged else State.NEW, why=damaged)
    if differing := differing_fields(run.config, config, _free(cell.settings)):
        if status.status in _ENDED_BADLY:
            return made(State.NEW, aside=True)
        why = f"{path} holds a run with other settings ({'; '.join(differing)}); choose another --out, or repeat those"
        return made(State.OTHER, epoch=status.epoch, why=why)
    if damaged:
        return made(State.FAILED, why=damaged)
    state = {"finished": State.FINISHED, "diverged": State.DIVERGED, "failed": State.FAILED}
    return made(
        state.get(status.status, State.STARTED),
        epoch=status.epoch,
        seconds=status.seconds,
        why=why_not(status),
    )


def why_not(status: Status) -> str:
    """What the status of a run says went wrong; empty when nothing did."""
    if status.status == "diverged":
        return f"diverged in epoch {status.epoch + 1}: the loss is no longer finite"
    return status.error


def _free(settings: TrainingConfig) -> tuple[str, ...]:
    """Fields of a stored run that may differ: where the data are, and what is left to the machine it began on.

    Whether the data are the same is asked when the run goes on: the plan reads those of one seed for all.
    """
    auto = (name for name in ("device", "precision") if getattr(settings, name) in (None, "auto"))
    return ("data_dir", "data_sha256", *auto)
