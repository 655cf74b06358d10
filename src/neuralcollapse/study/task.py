"""What a worker is told, what its exit codes say, and the note a failure leaves."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse.training.run_directory import Run, Status

FINISHED, DIVERGED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Task:
    """What a worker is told.

    Args:
        path: the run directory.
        settings: the settings that are given, as JSON.
        command: what the user typed, for `environment.json`.
        threads: how many the worker may use; None for as many as PyTorch takes.
    """

    path: str
    settings: dict[str, Any]
    command: list[str]
    threads: int | None


def note_failure(path: Path, error: str) -> None:
    """Say in `status.json` that the run failed, and why; how far it came stays there, and so does a process at work."""
    if not (path / "config.json").is_file():
        return
    run = Run(path)
    begun = Status()
    if not run.is_locked():
        with contextlib.suppress(InputError):  # of a damaged file nothing is kept
            begun = begun.model_copy(update={"epochs": run.config.epochs})
            begun = run.status()
        run.write_status(begun.model_copy(update={"status": "failed", "error": " ".join(error.split())[:500]}))
