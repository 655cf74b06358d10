"""Workers on this machine: started, watched and stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from neuralcollapse._checks import InputError
from neuralcollapse.study.plan import why_not
from neuralcollapse.study.task import INTERRUPTED, Task, note_failure
from neuralcollapse.training.run_directory import LOG, Run

GRACE = 60.0
"""Seconds a worker has to stop by itself; it finishes no epoch, but a step and the writing of a file."""


@dataclass(frozen=True)
class Ending:
    """How a worker ended: finished, diverged, failed or interrupted, and why it is not finished."""

    status: str
    why: str = ""


class Pool(Protocol):
    """Where cells are trained: on this machine or on a cluster."""

    def room(self) -> bool:
        """Whether another task can be taken."""

    def start(self, task: Task) -> None:
        """Take a task."""

    def collect(self, wait: float) -> dict[str, Ending]:
        """Wait that many seconds at most; which runs, by path, have ended since, and how."""

    def busy(self) -> bool:
        """Whether a task has not ended yet."""

    def stop(self) -> dict[str, Ending]:
        """Interrupt all tasks and wait for their end."""

    def close(self) -> None:
        """Let go of everything; what still runs stops by itself."""


class LocalPool:
    """Processes of this machine.

    Args:
        jobs: how many at a time.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def room(self) -> bool:
        return len(self._running) < self._jobs

    def busy(self) -> bool:
        return bool(self._running)

    def start(self, task: Task) -> None:
        self._running[task.path] = launch(task)

    def collect(self, wait: float) -> dict[str, Ending]:
        end = time.monotonic() + wait
        while not (ended := self._ended()) and time.monotonic() < end:
            time.sleep(0.05)
        return ended

    def stop(self) -> dict[str, Ending]:
        for process in self._running.values():
            ask_to_stop(process)
        for process in self._running.values():
            wait_or_kill(process)
        return self._ended()

    def close(self) -> None:
        for process in self._running.values():
            ask_to_stop(process)

    def _ended(self) -> dict[str, Ending]:
        codes = {path: code for path, process in self._running.items() if (code := process.poll()) is not None}
        for path in codes:
            ask_to_stop(self._running.pop(path))
        return {path: ending(Path(path), code) for path, code in codes.items()}


def launch(task: Task) -> subprocess.Popen[bytes]:
    """Start a worker in a process group of its own: an interrupt from the keyboard reaches it through us alone."""
    path = Path(task.path)
    path.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if task.threads is not None:
        environment["OMP_NUM_THREADS"] = str(task.threads)
    with (path / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "neuralcollapse.study.worker"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            process_group=0,
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(dataclasses.asdict(task)).encode() + b"\n")
    process.stdin.flush()
    return process


def ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    """End a worker's standard input, at which it stops."""
    assert process.stdin is not None
    process.stdin.close()


def wait_or_kill(process: subprocess.Popen[bytes]) -> int:
    """Wait for a worker that was asked to stop; kill it, with its own processes, when it does not."""
    try:
        return process.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def ending(path: Path, code: int) -> Ending:
    """What a worker's exit code and directory say; a worker that was killed could not write it down itself."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        why = f"killed by {name}{hint}"
        note_failure(path, why)
        return Ending("failed", why)
    if code == INTERRUPTED:
        return Ending("interrupted")
    try:
        status = Run(path).status()
    except InputError as error:
        return Ending("failed", str(error))
    if status.status in ("finished", "diverged", "failed"):
        return Ending(status.status, why_not(status))
    return Ending("failed", last_line(path / LOG) or f"exit code {code}")


def last_line(path: Path) -> str:
    """The last line of a file that says something."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
