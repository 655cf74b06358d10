"""Worker processes: those of this machine, and the one that a Slurm job or a Ray task starts where it runs."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from neuralcollapse._errors import INTERRUPTED
from neuralcollapse.study.options import GridOptions
from neuralcollapse.study.task import Ending, Task, read_ending
from neuralcollapse.training.run_directory import LOG, Run

LOCK_WAIT = 60.0
"""Seconds in which the worker of a task that was lost has to give up its run directory."""


class WorkerProcess:
    """A process that trains one task and writes what it prints into `log.txt`.

    It is in a process group of its own, so that an interrupt from the keyboard does not reach it. It stops as soon as
    its standard input ends, which happens too when this process is killed.
    """

    def __init__(self, task: Task) -> None:
        self._path = Path(task.path)
        self._path.mkdir(parents=True, exist_ok=True)
        threads = {} if task.threads is None else {"OMP_NUM_THREADS": str(task.threads)}
        with (self._path / LOG).open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "neuralcollapse.study.worker"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **threads},
                process_group=0,
            )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(dataclasses.asdict(task)).encode() + b"\n")
        self.process.stdin.flush()

    def poll(self) -> Ending | None:
        if (code := self.process.poll()) is None:
            return None
        self.stop()
        return read_ending(self._path, code)

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


class LocalExecutor:
    """Worker processes of this machine, `--jobs` at a time."""

    own_options = ("jobs",)

    def __init__(self, out: Path, options: GridOptions) -> None:
        self.capacity: float = options.jobs

    def submit(self, task: Task) -> WorkerProcess:
        return WorkerProcess(task)

    def close(self) -> None:
        pass


def train_here(task: Task) -> int:
    """Train a task in a worker process and wait for it; returns its exit code. An interrupt stops the worker too.

    A Ray task that is started again, or a Slurm job that is queued again, may find the worker of its first attempt
    still stopping, so the lock of the run directory is waited for.
    """
    end = time.monotonic() + LOCK_WAIT
    while Run(Path(task.path)).is_locked() and time.monotonic() < end:
        time.sleep(0.2)
    worker = WorkerProcess(task)
    try:
        while (code := worker.process.poll()) is None:
            time.sleep(0.1)  # a wait in Python notices an interrupt at once
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        worker.stop()
        worker.process.wait()
