"""What the tests of grids share: tiny cells, the same without interruption, processes to kill, a place to train."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from neuralcollapse.study.options import GridOptions
from neuralcollapse.study.task import Ending, Task, read_ending
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import prepare
from neuralcollapse.training.run_directory import Run
from neuralcollapse.training.trainer import train

TINY: dict[str, Any] = {
    "width": 0.0625,
    "examples_per_class": 20,
    "epochs": 40,
    "batch_size": 64,
    "precision": "32",
    "device": "cpu",
}
OPTIONS = [text for name, value in TINY.items() for text in (f"--{name.replace('_', '-')}", str(value))]


def uninterrupted(path: Path, **settings: Any) -> bytes:
    """The history of a cell trained in this process, without its clock."""
    config = TrainingConfig(**{**TINY, "dataset": "digits", "model": "mlp", **settings})
    assert train(*prepare(config, out=path)) == "finished"
    return without_clock(path)


def without_clock(path: Path) -> bytes:
    """The history as written, its only wall-clock field taken out."""
    lines = Run.open(path).history_path.read_bytes().splitlines()
    return b"\n".join(line[: line.rindex(b', "seconds"')] for line in lines)


def start(*arguments: str) -> subprocess.Popen[str]:
    """`neuralcollapse` as a user starts it."""
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(
        [sys.executable, "-m", "neuralcollapse", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        # where the tests run in the background an interrupt is ignored, which a started process would inherit
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(met: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 400) -> None:
    """Until a condition is met, while the process runs."""
    end = time.monotonic() + seconds
    while not met():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "not met in time"
        time.sleep(0.01)


def kill_when(met: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Kill −9, with every child, at a moment at which a condition holds; no child gets to see that its parent is gone.

    Where it holds, all of them are suspended and it is looked at again, so that it still holds when they are killed.
    """
    parent = psutil.Process(process.pid)

    def still_met() -> bool:
        parent.suspend()  # first, so that it starts no other child
        family = [*parent.children(recursive=True), parent]
        for each in family:
            each.suspend()
        if met():
            return True
        for each in family:
            each.resume()
        return False

    wait_for(lambda: met() and still_met(), process)
    for child in parent.children(recursive=True):
        child.kill()
    process.kill()
    process.communicate()


def epoch(path: Path) -> int:
    """The last finished epoch of a run; −1 before there is one, and after its end."""
    status = Run(path).status()
    return status.epoch if status.status == "running" else -1


class InThisProcess:
    """Another place to train: the process of the grid itself. One class, and one option that names it."""

    own_options = ("in_this_process",)
    capacity = 1.0

    def __init__(self, out: Path, options: GridOptions) -> None:
        assert isinstance(options, HereOptions)

    def submit(self, task: Task) -> Trained:
        train(*prepare(TrainingConfig.from_json(task.settings, "task"), out=Path(task.path)))
        return Trained(Path(task.path))

    def close(self) -> None:
        pass


@dataclass
class Trained:
    """A task that has ended already."""

    path: Path

    def poll(self) -> Ending:
        return read_ending(self.path, 0)

    def stop(self) -> None:
        pass


@dataclass(frozen=True)
class HereOptions(GridOptions):
    """The options of a grid, and the one that chooses `InThisProcess`."""

    in_this_process: bool = field(default=False, metadata={"executor": "helpers.grids:InThisProcess"})
