"""Recipes in files: settings as JSON, which `sweep` writes and `run` and `grid` take.

A recipe is an object of settings, named as `run`'s options with `_` for `-`. Where it has dataset, model, loss or seed,
it is for such runs only. "about" is for readers. A file holds one recipe or a list of them.

    {"about": "chosen by …", "dataset": "mnist", "model": "vgg11", "loss": "mse", "learning_rate": 0.0051}
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse._files import write_json
from neuralcollapse.training import protocol
from neuralcollapse.training.config import Settings
from neuralcollapse.training.values import is_a, said

SUBJECT = ("dataset", "model", "loss", "seed")
"""What a recipe may be for; the rest of it is how to train that."""
_MACHINE = ("data_dir", "precision", "device", "devices")
_NOT_TRAINING = ("seed", "devices", "robustness_examples", "test_examples_per_class")
"""Numbers among which there is no best: chance, the machine, and what is measured beside the training."""


@dataclass(frozen=True)
class Recipe:
    """Settings from a file; what it leaves open is None."""

    path: Path
    settings: Settings

    def fits(self, settings: Settings) -> bool:
        """Whether it is for the run those settings describe, as far as they do."""
        dataset = settings.dataset or self.settings.dataset or "digits"
        for name in SUBJECT:
            own, asked = getattr(self.settings, name), getattr(settings, name)
            if name == "model":
                own, asked = (value and protocol.network(dataset, value) for value in (own, asked))
            if own is not None and asked is not None and own != asked:
                return False
        return True

    def fill(self, settings: Settings) -> Settings:
        """The settings, with what they leave open taken from the recipe."""
        return dataclasses.replace(
            settings, **{k: v for k, v in given(self.settings).items() if k not in given(settings)}
        )


def given(settings: Settings) -> dict[str, Any]:
    """The settings that are not left open, by name."""
    return {f.name: value for f in dataclasses.fields(settings) if (value := getattr(settings, f.name)) is not None}


def read(path: Path) -> list[Recipe]:
    """The recipes of a file.

    Raises:
        InputError: there is none, or it holds an unknown setting or a value of another kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is no recipe: no such file") from None
    except OSError as error:
        raise InputError(f"{path} is no recipe: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no recipe: {error}") from error
    entries = content if isinstance(content, list) else [content]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path} is no recipe: expected a JSON object of settings, or a list of such objects")
    return [Recipe(path, from_json(entry, str(path))) for entry in entries]


def for_run(path: Path, settings: Settings) -> Settings:
    """The settings of a run, filled from the recipes of the file that are for it.

    Where data set, network and loss are all given, every recipe that fits is taken, as for a cell of a grid; otherwise
    the one that fits says what is left open.

    Raises:
        InputError: none fits, or two disagree, or several do where something is left open.
    """
    fitting = [recipe for recipe in read(path) if recipe.fits(settings)]
    asked = ", ".join(f"{name} {value}" for name, value in given(settings).items() if name in SUBJECT)
    if not fitting:
        raise InputError(f"{path} holds no recipe for {asked or 'any run'}")
    open_ones = [name for name in ("dataset", "model", "loss") if getattr(settings, name) is None]
    if len(fitting) > 1 and open_ones:
        options = " and ".join(f"--{name}" for name in open_ones)
        raise InputError(f"{path} holds {len(fitting)} recipes for {asked or 'a run'}: say {options}, too")
    return for_cell(fitting, settings)


def for_cell(recipes: Sequence[Recipe], settings: Settings) -> Settings:
    """The settings of a cell, filled from every recipe that is for it.

    Raises:
        InputError: two of them disagree.
    """
    filled = settings
    for recipe in recipes:
        if recipe.fits(settings):
            for name, value in given(recipe.settings).items():
                if name not in given(settings) and getattr(filled, name) not in (None, value):
                    raise InputError(
                        f"two recipes give {name} of {settings.dataset}, {settings.model}, {settings.loss}: "
                        f"{getattr(filled, name)} and {value}; leave one out"
                    )
            filled = recipe.fill(filled)
    return filled


def write(path: Path, settings: Settings, about: str) -> None:
    """Write a recipe: what decides the training, without the seed and what belongs to one machine."""
    kept = {name: value for name, value in to_json(settings).items() if name not in (*_MACHINE, "seed")}
    write_json(path, {"about": about, **kept})


def to_json(settings: Settings) -> dict[str, Any]:
    """The settings that are not left open, as JSON holds them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in given(settings).items()}


def from_json(entry: dict[str, Any], where: str) -> Settings:
    """Settings from JSON.

    Raises:
        InputError: an unknown setting, or a value of another kind.
    """
    hints = _hints()
    values: dict[str, Any] = {}
    for name, value in entry.items():
        if name == "about":
            continue
        if name not in hints:
            raise InputError(f"{where}: unknown setting {name!r}; expected one of {', '.join(hints)}")
        if not is_a(value, hints[name]):
            raise InputError(f"{where}: {name} cannot be {value!r:.60}; expected {said(hints[name])}")
        kind = Path if Path in typing.get_args(hints[name]) and value is not None else tuple
        values[name] = kind(value) if isinstance(value, list) or kind is Path else value
    return Settings(**values)


def numeric() -> dict[str, type[int] | type[float]]:
    """The settings of the training that are a number, and of which kind."""
    kinds = {name: set(typing.get_args(hint)) for name, hint in _hints().items() if name not in _NOT_TRAINING}
    return {name: kind for name, found in kinds.items() for kind in (int, float) if found == {kind, types.NoneType}}


@functools.cache
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(Settings)
