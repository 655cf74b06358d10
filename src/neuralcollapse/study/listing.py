"""Which run directories are one study: those that `study.json` in its folder lists, as `grid` and `sweep` write it.

    {"runs": ["mnist-vgg11-mse", "mnist-vgg11-ce", …]}

Each is a path from that folder, and may not have begun yet. Of a folder without the file, such as one of an older
version, the runs directly in it are the study, provided that no folder beside them holds further runs.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePath

from neuralcollapse._checks import InputError
from neuralcollapse._files import read_json, shortened, write_json
from neuralcollapse.training.run_directory import Run

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None  # type: ignore[assignment]

FILE = "study.json"
_SHOWN = 8


def record(folder: Path, names: Sequence[str]) -> None:
    """Add runs to `study.json`; those that it lists already stay.

    Raises:
        InputError: the file there is damaged, or it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    try:
        if held is not None:  # two grids in one folder add theirs one after the other
            fcntl.flock(held, fcntl.LOCK_EX)
        listed = _listed(folder) if (folder / FILE).is_file() else []
        if not set(names) <= set(listed):
            write_json(folder / FILE, {"runs": list(dict.fromkeys([*listed, *names]))})
    finally:
        if held is not None:
            os.close(held)


def directories(folder: Path) -> list[Path]:
    """The run directories of a study that are there.

    Warns:
        UserWarning: runs lie in the folder that `study.json` does not list.

    Raises:
        InputError: no such folder; no run of the study is there; `study.json` is damaged; or the folder has none, and
            runs are found on two levels, so that it cannot be told which of them belong together.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is neither a run directory nor a folder of them: no such folder")
    shown = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    inside = [path for path in shown if is_run(path)]
    if (folder / FILE).is_file():
        return _of_list(folder, inside)
    below = [path for path in shown if path not in inside and _holds_runs(path)]
    if below:
        found = [f"{len(inside)} runs ({_names(inside)})"] if inside else []
        found.append(f"{'folders' if len(below) > 1 else 'a folder'} of runs ({_names(below)})")
        raise InputError(
            f"{folder} holds {' and '.join(found)}, which are no study together; name one of them, such as {below[0]}, "
            f'or list those that are in {folder / FILE}: {{"runs": ["NAME", …]}}'
        )
    if not inside:
        raise InputError(
            f"{folder} is no run directory (it has no config.json) and no study: no folder in it is a run; "
            "make a run with: neuralcollapse run"
        )
    return inside


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory; another program's `config.json` names no data set, network and loss.

    Raises:
        InputError: `config.json` cannot be read, and a history beside it shows that it was a run's.
    """
    if not (folder / "config.json").is_file():
        return False
    try:
        Run.open(folder)
    except InputError:
        if (folder / "history.jsonl").is_file():
            raise
        return False
    return True


def _of_list(folder: Path, inside: Sequence[Path]) -> list[Path]:
    listed = [folder / name for name in _listed(folder)]
    if others := [path for path in inside if path not in listed]:
        warnings.warn(
            f"{folder / FILE} does not list {_names(others)}, which are left out; add them there to draw them too",
            UserWarning,
            stacklevel=3,
        )
    there = [path for path in listed if is_run(path)]
    if not there:
        raise InputError(f"none of the {len(listed)} runs that {folder / FILE} lists has begun yet")
    return there


def _listed(folder: Path) -> list[str]:
    path = folder / FILE
    names = read_json(path).get("runs")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f'{path}: expected {{"runs": [names of run directories]}}, got {shortened(repr(names))}')
    for name in names:
        parts = PurePath(name).parts
        if not parts or PurePath(name).is_absolute() or ".." in parts or "\0" in name:
            raise InputError(f"{path}: expected paths within {folder}, got {shortened(name)!r}")
    return list(dict.fromkeys(names))


def _holds_runs(folder: Path) -> bool:
    try:
        return any(is_run(path) for path in folder.iterdir() if not path.name.startswith("."))
    except PermissionError:
        return False


def _names(paths: Sequence[Path]) -> str:
    more = f", … {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(path.name for path in paths[:_SHOWN]) + more
