"""Which run directories belong to one study: those that `study.json` in its folder lists.

    {"runs": ["mnist-vgg11-mse", "mnist-vgg11-ce", …]}

`grid` and `sweep` write the file. Each entry is a path relative to that folder; a listed run may not have begun yet.
A folder without the file, such as one of an older version, is a study of the runs directly in it, unless a folder
beside them holds runs too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuralcollapse._checks import InputError
from neuralcollapse._files import locked, write_json
from neuralcollapse.measuring.run_readers import names_in_study, runs_in_study
from neuralcollapse.training.run_directory import Run

FILE = "study.json"


def add_to_study(folder: Path, names: Sequence[str]) -> None:
    """Add runs to `study.json`; the runs it already lists stay.

    Raises:
        InputError: the file is damaged, or cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):  # two grids in one folder add their runs one after the other
        listed = names_in_study(folder / FILE) if (folder / FILE).is_file() else []
        if not set(names) <= set(listed):
            write_json(folder / FILE, {"runs": list(dict.fromkeys([*listed, *names]))})


def runs_of_study(folder: Path) -> list[Path]:
    """The run directories of a study, without those that have not begun.

    Warns:
        UserWarning: the folder holds runs that `study.json` does not list.

    Raises:
        InputError: no such folder; none of its runs has begun; `study.json` is damaged; or it is absent, and runs on
            two levels of folders leave open which of them belong together.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is neither a run directory nor a folder of them: no such folder")
    if (folder / FILE).is_file():
        return runs_in_study(folder / FILE, is_run_directory)
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    inside = [path for path in folders if is_run_directory(path)]
    if below := [path for path in folders if path not in inside and _holds_runs(path)]:
        found = [f"{len(inside)} runs ({_names(inside)})"] if inside else []
        found.append(f"{'folders' if len(below) > 1 else 'a folder'} of runs ({_names(below)})")
        raise InputError(
            f"{folder} holds {' and '.join(found)}, so it is unclear which of them are one study; name one of them, "
            f'such as {below[0]}, or list the runs of the study in {folder / FILE}: {{"runs": ["NAME", …]}}'
        )
    if not inside:
        raise InputError(
            f"{folder} is neither a run directory (it has no config.json) nor a study (no folder in it is a run); "
            "make a run with: neuralcollapse run"
        )
    return inside


def is_run_directory(folder: Path) -> bool:
    """Whether a folder is a run directory; another program's `config.json` does not make it one.

    Raises:
        InputError: `config.json` cannot be read, but a history beside it shows that the folder is a run directory.
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


def _holds_runs(folder: Path) -> bool:
    try:
        return any(is_run_directory(path) for path in folder.iterdir() if not path.name.startswith("."))
    except PermissionError:
        return False


def _names(paths: Sequence[Path], most: int = 8) -> str:
    more = f", … {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(path.name for path in paths[:most]) + more
