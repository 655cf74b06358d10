"""A task, which is one run of a grid as a worker process gets it, and how that process ended."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from neuralcollapse._errors import INTERRUPTED, InputError
from neuralcollapse.training import checkpoint
from neuralcollapse.training.run_directory import LOG, Run, Status

WRONG_INPUT = 2
"""The exit code of a worker for wrong input; 0 means that `status.json` says how the training ended."""


class State(StrEnum):
    """How far a cell of a grid has come, in the words of the tables."""

    NEW = "new"
    STARTED = "started"
    FINISHED = "finished"
    DIVERGED = "diverged"
    FAILED = "failed"
    BUSY = "running elsewhere"
    OTHER = "other settings"
    NO_DATA = "no data"
    WAITING = "waiting"
    RUNNING = "running"
    INTERRUPTED = "interrupted"


ENDED = (State.FINISHED, State.DIVERGED, State.FAILED)
"""How training ends, as `status.json` says."""


@dataclass(frozen=True)
class Task:
    """One run to be trained by a worker process.

    Args:
        path: the run directory, as an absolute path.
        settings: a `TrainingConfig`, as JSON.
        command: the command line the user typed, for `environment.json`.
        threads: processor threads of the worker; None for PyTorch's own choice.
    """

    path: str
    settings: dict[str, Any]
    command: list[str]
    threads: int | None


@dataclass(frozen=True)
class Ending:
    """How a worker ended; `why` says what went wrong, if anything did."""

    state: State
    why: str = ""


def read_ending(path: Path, exit_code: int) -> Ending:
    """How the worker of a run directory ended.

    A worker that was killed could not write why into `status.json`, so that is done here.
    """
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        why = f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return write_failure(path, why)
    if exit_code == INTERRUPTED:
        return Ending(State.INTERRUPTED)
    try:
        status = Run.open(path).status() if (path / "config.json").is_file() else Status()
    except InputError as error:
        return Ending(State.FAILED, str(error))
    if status.status in ENDED:
        return Ending(State(status.status), problem(status))
    log = path / LOG
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return Ending(State.FAILED, last or f"the worker ended with exit code {exit_code}")


def problem(status: Status) -> str:
    """What went wrong according to `status.json`; empty when nothing did."""
    if status.status == State.DIVERGED:
        return f"diverged in epoch {status.epoch + 1}: the loss is no longer finite"
    return status.error


def write_failure(path: Path, error: str) -> Ending:
    """Write into `status.json` that the run failed and why, unless another process is training it."""
    if (path / "config.json").is_file() and not Run(path).is_locked():
        checkpoint.note_ending(Run(path), "failed", error)
    return Ending(State.FAILED, error)
