"""What a long measurement has so far, kept beside the file that it will save: a killed one goes on where it was.

The rows counted and what was counted of them stand in one file, which is replaced whole, so that no row counts twice.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neuralcollapse._errors import InputError
from neuralcollapse._files import to_json, validated
from neuralcollapse.files.shards import Saved, read_shard

EVERY = 30.0
"""Seconds between two writings, at least; a killed measurement loses so much work."""
_SHARE = 20
"""The next writing comes no earlier than so many times what the last one took: it costs a twentieth of the time."""


class Unfinished:
    """FILE.unfinished beside the FILE of `--save`; without one, nothing is kept.

    Args:
        save: FILE, or None.
        measured: what is measured, by name; what a measurement of something else left is refused.
    """

    def __init__(self, save: Path | None, measured: dict[str, Any]) -> None:
        self.path = None if save is None else save.with_name(f"{save.name}.unfinished")
        self._measured = json.loads(to_json(measured))
        self._next = time.monotonic() + EVERY

    def read(self) -> Saved | None:
        """What an earlier process left, if any.

        Raises:
            InputError: it is damaged, or of another measurement.
        """
        if self.path is None or not self.path.is_file():
            return None
        found = read_shard(self.path)
        left = validated(dict[str, Any], found.about.get("measured", "{}").encode(), self.path)
        if other := [name for name in self._measured if left.get(name) != self._measured[name]]:
            raise InputError(
                f"{self.path} is what a measurement with other {' and '.join(other)} left: repeat that one to finish "
                "it, delete the file to begin anew, or give --save another file"
            )
        return found

    def keep(self, write: Callable[[Path, dict[str, str]], object], *, now: bool = False) -> None:
        """Call `write(path, about)` where it is time for it, or `now`."""
        if self.path is None or (not now and time.monotonic() < self._next):
            return
        start = time.monotonic()
        write(self.path, {"measured": to_json(self._measured)})
        end = time.monotonic()
        self._next = end + max(EVERY, _SHARE * (end - start))

    def remove(self) -> None:
        """All is saved elsewhere."""
        if self.path is not None:
            with contextlib.suppress(FileNotFoundError):  # by another process that finished the same measurement
                self.path.unlink()
