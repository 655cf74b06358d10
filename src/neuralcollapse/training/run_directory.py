"""The run directory: what a training run leaves on disk, and how to read it back.

    config.json       every setting that decides the numbers
    environment.json  versions, machine, command line
    history.jsonl     one line per analysed epoch
    snapshots/        epoch_0001.npz, ...: class means, classifier, a few hundred features
    checkpoint.pt     everything needed to go on: model, optimiser, random state
    status.json       running, interrupted, finished, diverged or failed
    log.txt           what a run of a grid printed
    figures/          pictures, made from the files above alone

Whole files are replaced atomically. `history.jsonl` grows a line at a time, and the checkpoint records how long it was:
what a killed process wrote after its last checkpoint is cut off when the run goes on, and made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from neuralcollapse._checks import InputError
from neuralcollapse._files import append_line, read_json, read_lines, replace_file, shortened, write_json
from neuralcollapse.training.values import is_a

try:
    import fcntl
except ImportError:  # not a Unix: two processes in one run directory are then not noticed
    fcntl = None  # type: ignore[assignment]

LOG = "log.txt"
_PATIENCE = 0.5  # seconds to wait for a lock that somebody only looks at


@dataclass(frozen=True)
class Run:
    """A run directory and the configuration written in it.

    Args:
        path: the directory.
        config: the content of `config.json`.
    """

    path: Path
    config: dict[str, Any]

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: dict[str, Any],
        *,
        ignoring: tuple[str, ...] = (),
        earlier: Mapping[str, Any] | None = None,
    ) -> Run:
        """Make a new run directory, or take up one that holds the same configuration.

        Args:
            path: the directory.
            config: what `config.json` is to hold.
            ignoring: fields that may differ when the run is taken up again.
            earlier: what fields mean that an older `config.json` does not have.

        Raises:
            InputError: the directory belongs to a run with other settings (each is named), or is no run and not empty.
        """
        path = Path(path)
        config = json.loads(json.dumps(config))
        _check_folder(path)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path, config)
        with run.locked():  # of two that begin at once, the second sees what the first has written
            if (path / "config.json").is_file():
                run = cls.open(path)
                if differing := differing_fields({**(earlier or {}), **run.config}, config, ignoring):
                    raise InputError(
                        f"{path} holds a run with other settings ({'; '.join(differing)}); "
                        "choose another --out, or repeat the settings of that run"
                    )
            else:
                _check_folder(path)
                write_json(path / "config.json", config)
        run.check_unfinished()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open an existing run directory.

        Raises:
            InputError: there is no run at `path`, or its `config.json` cannot be read.
        """
        path = Path(path)
        if not path.is_dir():
            raise InputError(f"{path} is no run directory: no such folder")
        if not (path / "config.json").is_file():
            raise InputError(f"{path} is no run directory: it has no config.json")
        return cls(path, read_json(path / "config.json"))

    @property
    def figures_dir(self) -> Path:
        """Where the pictures go."""
        return self.path / "figures"

    @property
    def history_path(self) -> Path:
        """The file of one JSON object per analysed epoch."""
        return self.path / "history.jsonl"

    def history(self) -> list[dict[str, Any]]:
        """The analysed epochs, oldest first; empty when none was finished yet."""
        return read_lines(self.history_path) if self.history_path.exists() else []

    def last(self, *names: str) -> dict[str, Any]:
        """The last analysed epoch; empty when none was finished yet.

        Raises:
            InputError: the history is damaged, or one of these fields is no number in that line.
        """
        history = self.history()
        for name in names if history else ():
            if type(history[-1].get(name)) not in (int, float):
                raise InputError(f"{self.history_path}: expected a number {name!r} in the last line")
        return history[-1] if history else {}

    def check_unfinished(self) -> None:
        """Refuse a run that cannot be gone on with: measured epochs without the checkpoint that they led to.

        Raises:
            InputError: there is a history, or snapshots, and no checkpoint.
        """
        if not (self.path / "checkpoint.pt").exists() and (self.history_size() or self.snapshots()):
            raise InputError(
                f"{self.path} is finished work, with measured epochs and no checkpoint.pt to go on from, "
                "so it is left as it is; start another run with another --out"
            )

    def snapshots(self) -> list[Path]:
        """The snapshot files, oldest first; files of other names, such as copies, are passed over."""
        found = (self.path / "snapshots").glob("epoch_*.npz")
        return sorted((path for path in found if re.fullmatch(r"epoch_[0-9]{4,12}\.npz", path.name)), key=epoch_of)

    def status(self) -> dict[str, Any]:
        """The content of `status.json`; empty before the first epoch.

        Raises:
            InputError: the file is damaged; its epoch and seconds, where it has them, are numbers.
        """
        path = self.path / "status.json"
        content = read_json(path) if path.is_file() else {}
        for name, hint in (("status", str), ("epoch", int), ("seconds", float)):
            value: Any = content.get(name)
            if name in content and not (is_a(value, hint) and (hint is str or 0 <= value < 10**12)):
                raise InputError(f"{path}: {name} cannot be {shortened(value)}; delete the file to go on without it")
        return content

    def write_status(self, **fields: Any) -> None:
        """Replace `status.json`."""
        write_json(self.path / "status.json", fields)

    def append_history(self, record: dict[str, Any]) -> None:
        """Add one line to the history and force it to disk."""
        append_line(self.history_path, record)

    def cut_back(self, size: int, epoch: int) -> None:
        """Drop what a killed process wrote after its last checkpoint: it will be made again, as it was.

        That is one line of the history at most, and one snapshot: a checkpoint follows every epoch.

        Args:
            size: bytes of the history at the checkpoint.
            epoch: the last epoch of the checkpoint.

        Raises:
            InputError: there is less, or more, than one epoch after the checkpoint leaves; nothing is dropped then.
        """
        history = self.history_path.read_bytes() if self.history_path.exists() else b""
        later = [path for path in self.snapshots() if epoch_of(path) > epoch]
        why = ""
        if len(history) < size:
            why = f"{self.history_path} has {len(history)} bytes, the checkpoint expects at least {size}"
        elif size and history[size - 1 : size] != b"\n":
            why = f"no line of {self.history_path} ends at byte {size}, where the checkpoint expects it"
        elif history.count(b"\n", size) > 1 or len(later) > 1:
            why = f"{self.path} has several measured epochs after epoch {epoch}, where its checkpoint is"
        if why:
            raise InputError(
                f"{why}; the files were changed, so the run cannot go on and is left as it is: "
                "start another run with --out"
            )
        if len(history) > size:
            os.truncate(self.history_path, size)
        for path in later:
            path.unlink()

    def history_size(self) -> int:
        """Bytes of history written so far."""
        return self.history_path.stat().st_size if self.history_path.exists() else 0

    def save_snapshot(self, epoch: int, **arrays: np.ndarray) -> Path:
        """Write `snapshots/epoch_NNNN.npz`."""
        path = self.path / "snapshots" / f"epoch_{epoch:04d}.npz"
        path.parent.mkdir(exist_ok=True)
        replace_file(path, lambda file: np.savez_compressed(file, epoch=np.int64(epoch), **arrays))  # type: ignore[arg-type]
        return path

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace `checkpoint.pt`; a process killed meanwhile leaves the earlier one whole."""
        replace_file(self.path / "checkpoint.pt", lambda file: torch.save(state, file))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, on the CPU, or None where there is none yet.

        Raises:
            InputError: the file is damaged, or holds anything but tensors and plain containers.
        """
        path = self.path / "checkpoint.pt"
        if not path.is_file():
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a file that is no checkpoint the error below says enough
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                return state
        except (RuntimeError, EOFError, KeyError, ValueError, OSError, pickle.UnpicklingError) as error:
            reason = str(error).split("\n")[0][:120]
            raise InputError(f"{path} is no readable checkpoint ({reason}); start again with another --out") from error

    def is_locked(self) -> bool:
        """Whether a process is training in this directory; nothing is written."""
        path = self.path / ".lock"
        if fcntl is None or not path.exists():
            return False
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look do not see each other
            except BlockingIOError:
                return True
        return False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this directory; the lock goes when the process ends, however it ends.

        Raises:
            InputError: another process holds it.
        """
        end = time.monotonic() + _PATIENCE
        while True:
            file = (self.path / ".lock").open("w")
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if fcntl is None or _is_at(file, self.path / ".lock"):  # else the directory was set aside meanwhile
                    break
            except BlockingIOError:
                if time.monotonic() > end:
                    file.close()
                    raise InputError(f"another process is training in {self.path}; wait for it or stop it") from None
                time.sleep(0.02)
            file.close()
        with file:
            yield


def epoch_of(snapshot: Path) -> int:
    """The epoch in the name of a snapshot."""
    return int(snapshot.stem.removeprefix("epoch_"))


def differing_fields(stored: dict[str, Any], wanted: dict[str, Any], ignoring: tuple[str, ...] = ()) -> list[str]:
    """Name the fields in which two configurations differ, each as "field: stored, now wanted"."""
    missing = "absent"
    keys = [*stored, *(key for key in wanted if key not in stored)]
    return [
        f"{key}: {_said(stored.get(key, missing))}, now {_said(wanted.get(key, missing))}"
        for key in keys
        if key not in ignoring and stored.get(key, missing) != wanted.get(key, missing)
    ]


def _said(value: Any) -> str:
    return shortened(str(value) if isinstance(value, list | dict) else value, 60)


def _check_folder(path: Path) -> None:
    """Refuse a file, and a folder that holds something and is no run."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; --out must name a folder")
    if not path.is_dir() or (path / "config.json").is_file():
        return
    if any(entry.name[0] != "." and entry.name != LOG for entry in path.iterdir()):
        raise InputError(f"{path} is not empty and holds no config.json, so it is no run; choose another --out")


def _is_at(file: IO[Any], path: Path) -> bool:
    """Whether an open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False
