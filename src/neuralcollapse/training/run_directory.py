"""The run directory: what a training run leaves on disk, and how to read it back.

    config.json       every setting that decides the numbers
    environment.json  versions, machine, command line
    history.jsonl     one line per measured epoch
    snapshots/        epoch_0001.npz, ...: class means, classifier, a few hundred features, numbers of each class
    checkpoint.pt     everything needed to continue: model, optimizer, random state
    status.json       running, interrupted, finished, diverged or failed
    log.txt           what a run of a grid printed
    figures/          pictures, made from the files above alone

Whole files are replaced atomically. `history.jsonl` grows a line at a time, and the checkpoint records its length: what
a killed process wrote after its last checkpoint is cut off when the run continues, and written again. Whatever is read
back is checked against its type, so that the rest of the package can rely on it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar

import numpy as np
from annotated_types import Ge, Le
from pydantic import BaseModel

from neuralcollapse._errors import InputError
from neuralcollapse._files import lock, read_json, read_lines, readable, replacing, shortened, validated, write_json
from neuralcollapse.measuring.per_class import ClassReports
from neuralcollapse.training.config import RunConfig

Array = np.ndarray
Kind = TypeVar("Kind")

LOG = "log.txt"
PER_CLASS = "per_class."
"""What the names of a snapshot's arrays of `ClassReports` begin with."""
_PATIENCE = 0.5  # seconds to wait for a lock that another process only tests
_LARGEST = 10**12  # epochs, examples, seconds; a larger number has no place on an axis


class Record(BaseModel, strict=True, extra="allow"):
    """What every line of the history has, which is a measured epoch. Further measurements stand beside these."""

    epoch: Annotated[int, Ge(1), Le(_LARGEST)]
    num_examples: Annotated[int, Ge(1), Le(_LARGEST)]
    num_classes: Annotated[int, Ge(1), Le(_LARGEST)]
    train_error: float
    nc1: float
    snr: list[float]  # shorter where features vary in few directions
    test_accuracy: float = 0.0
    robustness: float = 0.0


class Status(BaseModel, strict=True, frozen=True, extra="ignore"):
    """The content of `status.json`.

    Args:
        status: "running", "interrupted", "finished", "diverged" or "failed"; empty before the first epoch has ended.
        epoch: the last finished epoch.
        epochs: epochs of the whole run.
        seconds: wall-clock time spent, over all sessions.
        error: why the run failed.
    """

    status: str = ""
    epoch: Annotated[int, Ge(0), Le(_LARGEST)] = 0
    epochs: int | None = None
    seconds: Annotated[float, Ge(0), Le(_LARGEST)] = 0.0
    error: str = ""


@dataclass(frozen=True)
class Run:
    """A run directory.

    Args:
        path: the directory.
    """

    path: Path

    @classmethod
    def create(cls, path: str | Path, config: RunConfig, *, ignoring: tuple[str, ...] = ()) -> Run:
        """Make a new run directory, or open one that holds the same configuration.

        Args:
            path: the directory.
            config: what `config.json` is to hold.
            ignoring: fields that may differ from those of an existing run.

        Raises:
            InputError: the directory holds a run with other settings (each is named) or finished work, or is not empty
                and not a run.
        """
        path = Path(path)
        _check_folder(path)
        path.mkdir(parents=True, exist_ok=True)
        run = cls(path)
        with run.locked():  # of two processes that begin at once, the second sees what the first has written
            if (path / "config.json").is_file():
                if differing := differing_fields(run.config, config, ignoring):
                    raise InputError(
                        f"{path} holds a run with other settings ({'; '.join(differing)}); "
                        "choose another --out, or repeat the settings of that run"
                    )
            else:
                _check_folder(path)
                write_json(path / "config.json", config.to_json())
        run.check_unfinished()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open an existing run directory.

        Raises:
            InputError: there is no run at `path`, or its `config.json` is not a configuration.
        """
        run = cls(Path(path))
        if not run.path.is_dir():
            raise InputError(f"{path} is not a run directory: no such folder")
        if not (run.path / "config.json").is_file():
            raise InputError(f"{path} is not a run directory: it has no config.json")
        run.config  # noqa: B018 - read now, so that errors come here
        return run

    @functools.cached_property
    def config(self) -> RunConfig:
        """The content of `config.json`, read once.

        Raises:
            InputError: the file is damaged, or holds a setting that is unknown, missing or of another type.
        """
        return RunConfig.from_json(read_json(self.path / "config.json"), self.path / "config.json")

    @property
    def history_path(self) -> Path:
        """The file of one JSON object per measured epoch."""
        return self.path / "history.jsonl"

    def history(self, *columns: str) -> list[dict[str, Any]]:
        """The measured epochs, oldest first, each with at least what `Record` has; empty before the first.

        Args:
            columns: further measurements that every epoch must have, as numbers.

        Raises:
            InputError: a line is damaged, or one of those fields is missing or of another type.
        """
        records = read_lines(self.history_path) if self.history_path.exists() else []
        for number, record in enumerate(records, start=1):
            where = f"{self.history_path}, line {number}"
            validated(Record, record, where)
            for name in {**record, **dict.fromkeys(columns)}:
                value = record.get(name)
                is_number = type(value) is float or (type(value) is int and abs(value) <= sys.float_info.max)
                if (name in columns or type(value) is int) and not is_number:
                    raise _damaged(where, name, value, "be a number")
        return records

    def check_unfinished(self) -> None:
        """Refuse a run that cannot be continued: it has measured epochs, and no checkpoint.

        Raises:
            InputError: there is a history, or snapshots, and no checkpoint.
        """
        if not (self.path / "checkpoint.pt").exists() and (self.history_size() or self.snapshots()):
            raise InputError(
                f"{self.path} is finished work: it has measured epochs and no checkpoint.pt to continue from, "
                "so it is left as it is; start another run with another --out"
            )

    def snapshots(self) -> dict[int, Path]:
        """The snapshot file of each epoch that has one, oldest first; files of other names are ignored."""
        found = (self.path / "snapshots").glob("epoch_*.npz")
        names = (path for path in found if re.fullmatch(r"epoch_[0-9]{4,12}\.npz", path.name))
        return dict(sorted((int(path.stem.removeprefix("epoch_")), path) for path in names))

    def snapshot(self, epoch: int) -> dict[str, np.ndarray]:
        """The class means and the weight (C, p), some features (n, p) and their labels (n,), after an epoch.

        The global mean (p,) too, where the snapshot has it: one of an older version may not.

        Raises:
            InputError: the file is damaged, or holds arrays that do not fit together.
        """
        path = self.snapshots()[epoch]
        with _opened(path) as content:
            arrays = {name: content[name] for name in ("class_means", "weight", "features", "labels")}
            if "global_mean" in content.files:
                arrays["global_mean"] = content["global_mean"]
            _check_snapshot(**arrays)
        return arrays

    def per_class(self, epoch: int) -> ClassReports | None:
        """How collapsed each class was after an epoch, of all training examples; None if the run did not keep it.

        Raises:
            InputError: the file is damaged, or holds arrays that do not fit together.
        """
        path = self.snapshots()[epoch]
        with _opened(path) as content:
            kept = [name for name in content.files if name.startswith(PER_CLASS)]
            found = {name.removeprefix(PER_CLASS): content[name] for name in kept}
            if not found:
                return None
            centred = content["class_means"] - content["global_mean"]
        try:
            return ClassReports.from_arrays(found, centred, self.config.class_names)
        except (InputError, ValueError) as error:
            raise InputError(f"{path}: {error}; move it away to draw the rest") from None

    def status(self) -> Status:
        """The content of `status.json`.

        Raises:
            InputError: the file is damaged, or a field is of another type.
        """
        path = self.path / "status.json"
        return _read_expendable(path, Status) if path.is_file() else Status()

    def write_status(self, status: Status) -> None:
        """Replace `status.json`."""
        write_json(self.path / "status.json", status.model_dump())

    def record_environment(self, environment: dict[str, Any]) -> None:
        """Write what the run is made with; when the run continues, perhaps elsewhere, that is added under "resumed".

        Raises:
            InputError: the file there is damaged.
        """
        path = self.path / "environment.json"
        if path.is_file():
            first = _read_expendable(path, dict[str, Any])
            earlier = first.get("resumed")
            environment = {**first, "resumed": [*(earlier if isinstance(earlier, list) else []), environment]}
        write_json(path, environment)

    def cut_back(self, size: int, epoch: int) -> None:
        """Remove what a killed process wrote after its last checkpoint; training writes it again, as it was.

        That is one line of the history at most, and one snapshot: a checkpoint follows every epoch.

        Args:
            size: bytes of the history at the checkpoint.
            epoch: the last epoch of the checkpoint.

        Raises:
            InputError: there is less than the checkpoint says, or more than one further epoch; nothing is removed then.
        """
        history = self.history_path.read_bytes() if self.history_path.exists() else b""
        later = [path for number, path in self.snapshots().items() if number > epoch]
        why = ""
        if len(history) < size:
            why = f"{self.history_path} has {len(history)} bytes where the checkpoint expects at least {size}"
        elif size and history[size - 1 : size] != b"\n":
            why = f"no line of {self.history_path} ends at byte {size}, where the checkpoint expects it"
        elif history.count(b"\n", size) > 1 or len(later) > 1:
            why = f"{self.path} has several measured epochs after epoch {epoch}, where its checkpoint is"
        if why:
            raise InputError(
                f"{why}; the files were changed, so the run cannot continue and is left as it is: "
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
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, epoch=np.int64(epoch), **arrays)  # type: ignore[arg-type]
        return path

    def is_locked(self) -> bool:
        """Whether a process is training in this directory; looking writes nothing."""
        path = self.path / ".lock"
        if path.exists():
            with path.open("rb") as file:
                try:
                    lock(file, wait=False, shared=True)  # shared: two processes that test it do not see each other
                except BlockingIOError:
                    return True
        return False

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this directory, until the block or the process ends.

        Raises:
            InputError: another process holds it.
        """
        end = time.monotonic() + _PATIENCE
        while True:
            file = (self.path / ".lock").open("w")
            try:
                if not lock(file, wait=False) or _is_at(file, self.path / ".lock"):
                    break  # else the directory was set aside meanwhile
            except BlockingIOError:
                if time.monotonic() > end:
                    file.close()
                    raise InputError(f"another process is training in {self.path}; wait for it or stop it") from None
                time.sleep(0.02)
            file.close()
        with file:
            yield


def differing_fields(stored: RunConfig, wanted: RunConfig, ignoring: tuple[str, ...] = ()) -> list[str]:
    """Name the fields in which two configurations differ, each as "field: stored, now wanted"."""
    old, new = stored.to_json(), wanted.to_json()
    return [
        f"{name}: {shortened(str(old[name]), 60)}, now {shortened(str(new[name]), 60)}"
        for name in old
        if name not in ignoring and old[name] != new[name]
    ]


def _damaged(where: str, name: str, value: Any, expected: str) -> InputError:
    return InputError(f"{where}: {name} must {expected}, got {shortened(repr(value), 60)}; restore or remove the run")


def _read_expendable(path: Path, kind: type[Kind]) -> Kind:
    """The content of a file that the run can do without."""
    try:
        return validated(kind, read_json(path), path)
    except InputError as error:
        raise InputError(f"{error}; delete the file to continue without it") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A snapshot to read arrays from; what is wrong with it, in the file or found in the block, is an InputError."""
    # opened here: NumPy leaves a damaged file open when it opened it itself
    advice = "; move it away to draw the rest"
    with readable(path, "snapshot", advice), path.open("rb") as file, np.load(file, allow_pickle=False) as content:
        yield content


def _check_snapshot(
    class_means: Array, weight: Array, features: Array, labels: Array, global_mean: Array | None = None
) -> None:
    """Raise ValueError unless the arrays have the shapes and types of a snapshot."""
    classes, dim = class_means.shape
    if not class_means.size or weight.shape != (classes, dim) or features.shape != (*labels.shape, dim):
        shapes = f"{class_means.shape}, {weight.shape}, {features.shape} and {labels.shape}"
        raise ValueError(f"expected class means and weight (C, p), features (n, p) and labels (n,), got {shapes}")
    if labels.dtype.kind not in "iu" or not ((labels >= 0) & (labels < classes)).all():
        raise ValueError(f"expected integer labels in 0..{classes - 1}, got others")
    if global_mean is not None and global_mean.shape != (dim,):
        raise ValueError(f"expected a global mean (p,) of {dim} numbers, got {global_mean.shape}")
    for value in (class_means, weight, features, *([] if global_mean is None else [global_mean])):
        if value.dtype.kind not in "iuf" or not np.isfinite(value).all():
            raise ValueError("expected finite numbers, got NaN, infinity or no numbers")


def _check_folder(path: Path) -> None:
    """Refuse a file, and a folder that is not empty and not a run."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; --out must name a folder")
    # listed once: another process may write config.json at any moment
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if "config.json" not in names and any(name[0] != "." and name != LOG for name in names):
        raise InputError(f"{path} is not empty and has no config.json, so it is not a run; choose another --out")


def _is_at(file: IO[Any], path: Path) -> bool:
    """Whether an open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False
