"""Which run directories belong to one study: those that `study.json` in its folder lists.

    {"runs": ["mnist-vgg11-mse", "mnist-vgg11-ce", …]}

`grid` and `sweep` write the file. Each entry is a path relative to that folder; a listed run may not have begun yet.
A folder without the file, such as one of an older version, is a study of the runs directly in it, or of those in its
only folder of runs, unless both hold runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuralcollapse._checks import InputError
from neuralcollapse._files import locked, write_json
from neuralcollapse.measuring.run_readers import is_run_directory, names_in_study, runs_in_folder, runs_in_study

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
        return runs_in_study(folder / FILE)
    runs = runs_in_folder(folder, is_run_directory)
    if not runs:
        raise InputError(
            f"{folder} is neither a run directory (it has no config.json) nor a study (no folder in it is a run); "
            "make a run with: neuralcollapse run"
        )
    return runs
