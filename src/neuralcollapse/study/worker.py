"""The process that trains one cell: `python -m neuralcollapse.study.worker`, its task on standard input.

What it prints is the cell's log. It stops by itself, as if interrupted from the keyboard, when its standard input ends:
because whoever started it asks for that, or is no longer there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from neuralcollapse._checks import InputError
from neuralcollapse.study.task import DIVERGED, FINISHED, INTERRUPTED, WRONG_INPUT, Task, note_failure
from neuralcollapse.training import hardware, trainer
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import prepare


def main() -> int:
    """Train the cell; returns the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where a shell started us in the background
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked, where a thread that blocks it started us
    task = Task(**json.loads(_line(0)))
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    sys.argv = task.command
    try:
        return _train(task)
    except KeyboardInterrupt:
        return INTERRUPTED


def _train(task: Task) -> int:
    path = Path(task.path)
    there = (path / "config.json").is_file()
    try:
        settings = TrainingConfig.from_json(task.settings, "task")
        run, data = prepare(settings, **({"resume": path} if there else {"out": path}))
        if run.config.device == "cpu":
            hardware.keep_memory()
        status = trainer.train(run, data)
    except InputError as error:
        note_failure(path, str(error))
        print(error, file=sys.stderr)
        return WRONG_INPUT
    except Exception as error:
        note_failure(path, f"{type(error).__name__}: {error}")
        raise
    return {"finished": FINISHED, "diverged": DIVERGED, "interrupted": INTERRUPTED}[status]


def _line(descriptor: int) -> bytes:
    """One line, read without a buffer, so that the thread that waits for the end holds no lock when Python exits."""
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(descriptor, 1)):
            raise EOFError("expected a task on standard input")
        line += byte
    return line


def _stop_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.killpg(os.getpgrp(), signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
