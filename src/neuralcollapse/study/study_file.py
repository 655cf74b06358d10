"""Which run directories belong to one study: those that `study.json` in its folder lists.

    {"runs": ["mnist-vgg11-mse", "mnist-vgg11-ce", …]}

`grid` and `sweep` write the file. Each entry is a path relative to that folder; a listed run may not have begun yet.
A folder without the file, such as one of an older version, is a study of the runs directly in it, or of those in its
only folder of runs, unless both hold runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuralcollapse._files import locked, write_json
from neuralcollapse.measuring.run_readers import names_in_study

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
