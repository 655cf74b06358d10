"""The files of a run directory, each value checked once: what comes after may rely on their types."""

from __future__ import annotations

import functools
import typing
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse._files import shortened
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.run_directory import Run
from neuralcollapse.training.values import is_a, said

_A_COUNT = "a whole number of at least 1"


def configuration(run: Run, *needed: str) -> dict[str, Any]:
    """The configuration of a run, every field of the type that `RunConfig` gives it.

    Args:
        run: the run directory.
        needed: fields that cannot be left out here.

    Raises:
        InputError: one is absent, or a field holds something else.
    """
    where, config = run.path / "config.json", run.config
    if config.get("imbalance"):
        needed = (*needed, "imbalance_ratio")
    if config.get("optimizer", "sgd") != "sgd":
        needed = (*needed, "weight_decay")
    for name in needed:
        if config.get(name) is None:
            raise InputError(f"{where} gives no {name}, so it is no complete configuration; restore or remove the run")
    for name, hint in _hints().items():
        value = config.get(name)
        if name in config and not is_a(value, hint):
            raise _wrong(where, name, value, said(hint))
        if type(value) is int and abs(value) >= 2**63:
            raise _wrong(where, name, value, "a whole number of at most 63 bits")
        longest = 4096 if name == "data_dir" else 300  # letters of a path, and of a name
        if isinstance(value, str) and len(value) > longest:
            raise _wrong(where, name, value, f"a text of at most {longest} letters")
    for name in ("epochs", "num_classes"):
        if name in config and not _is_count(config[name]):
            raise _wrong(where, name, config[name], _A_COUNT)
    if not all(0 < share < 1 for share in config.get("milestones", ())):
        raise _wrong(where, "milestones", config["milestones"], "shares between 0 and 1")
    return config


def history(run: Run) -> list[dict[str, Any]]:
    """The analysed epochs, each with epoch, sizes, training error, NC1 and spectrum.

    Raises:
        InputError: a line without one of them, or with something else in their place or in an accuracy's.
    """
    records = run.history()
    for number, record in enumerate(records, start=1):
        where = f"{run.history_path}, line {number}"
        for name in ("epoch", "num_examples", "num_classes"):
            if not _is_count(record.get(name)):
                raise _wrong(where, name, record.get(name), _A_COUNT)
        for name in ("train_error", "nc1", "test_accuracy", "robustness"):
            value = record.get(name)
            if not (_is_measured(value) or (value is None and name in ("test_accuracy", "robustness"))):
                raise _wrong(where, name, value, said(float))
        for name, value in record.items():
            if type(value) is int and not is_a(value, float):
                raise _wrong(where, name, value, said(float))
        spectrum = record.get("snr")
        if not isinstance(spectrum, list) or not all(map(_is_measured, spectrum)):
            raise _wrong(where, "snr", spectrum, "a list of numbers")
        if len(spectrum) != len(records[0]["snr"]):
            raise _wrong(where, "snr", spectrum, f"{len(records[0]['snr'])} numbers, as in line 1")
    return records


def _wrong(where: object, name: str, value: Any, expected: str) -> InputError:
    return InputError(
        f"{where}: {name} cannot be {shortened(repr(value), 60)}; expected {expected}, so restore or remove the run"
    )


def numbers(run: Run, records: list[dict[str, Any]], *names: str) -> None:
    """Make sure that every one of these lines has these numbers.

    Raises:
        InputError: a line without one of them.
    """
    for record in records:
        for name in names:
            if not _is_measured(record.get(name)):
                raise _wrong(f"{run.history_path}, epoch {record['epoch']}", name, record.get(name), said(float))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 10**12  # a larger one has no place on an axis


def _is_measured(value: Any) -> bool:
    """Infinity and not-a-number are measurements, too."""
    return type(value) is float or is_a(value, float)


@functools.cache
def _hints() -> dict[str, Any]:
    return typing.get_type_hints(RunConfig)
