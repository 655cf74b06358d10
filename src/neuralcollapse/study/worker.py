"""The process that trains one task: `python -m neuralcollapse.study.worker`, the task as a JSON line on its input.

It stops as after an interrupt from the keyboard, keeping its last finished epoch, when its standard input ends: because
the process that started it closed it, or was killed. SIGTERM, by which Slurm cancels a job, stops it in the same way.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from neuralcollapse._errors import INTERRUPTED, InputError
from neuralcollapse._interrupts import lost_interrupts_sent_again
from neuralcollapse.study.task import WRONG_INPUT, Task, write_failure
from neuralcollapse.training import hardware, trainer
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import prepare

GRACE = 60.0
"""Seconds to stop in after the request: time for a step and for writing a file, not for an epoch."""


@lost_interrupts_sent_again()
def main() -> int:
    """Train the task; returns the exit code."""
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)  # a background shell starts processes that ignore SIGINT
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the thread of Ray that starts this one blocks it
    line = b""
    while not line.endswith(b"\n"):
        line += (read := os.read(0, 65536))  # unbuffered, because the thread below reads on
        if not read:
            return INTERRUPTED
    task = Task(**json.loads(line))
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    sys.argv = task.command
    path = Path(task.path)
    resume = path if (path / "config.json").is_file() else None
    try:
        run, data = prepare(TrainingConfig.from_json(task.settings, "task"), out=path, resume=resume)
        if run.config.device == "cpu":
            hardware.keep_memory()
        return INTERRUPTED if trainer.train(run, data) == "interrupted" else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except InputError as error:
        write_failure(path, str(error))
        print(error, file=sys.stderr)
        return WRONG_INPUT
    except Exception as error:
        write_failure(path, f"{type(error).__name__}: {error}")
        raise


def _stop_at_end_of_input() -> None:
    """Interrupt this process and those it has started, and kill them when they do not stop."""
    while os.read(0, 1024):
        pass
    os.killpg(os.getpgrp(), signal.SIGINT)
    time.sleep(GRACE)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
