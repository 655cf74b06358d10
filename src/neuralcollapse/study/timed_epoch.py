"""The process that times one epoch of a cell: `python -m neuralcollapse.study.timed_epoch`, its settings on its input.

It trains the cell itself, on its own data, in a temporary directory, for one epoch with the measurement after it. Where
an epoch takes longer than `BUDGET`, it stops after as many steps as that allows. The result is one line of JSON.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from neuralcollapse.training import hardware, trainer
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.progress import Progress
from neuralcollapse.training.resolve import load_and_resolve
from neuralcollapse.training.run_directory import Run

BUDGET = 20.0
"""Seconds of training after which the epoch is cut short."""
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


class BudgetSpent(Exception):
    """The epoch is cut short."""


class EpochClock(Progress):
    """Times one epoch as the trainer reports it.

    The first step is left out where there are more: it prepares much that the later ones find ready.

    Args:
        share: how much of the epoch is done.
        training: seconds of a whole epoch, with its checkpoint but not its measurement.
        measuring: seconds of the measurement.
    """

    def __init__(self) -> None:
        self.share = self.training = self.measuring = 0.0
        self._begun = self._last = time.perf_counter()
        self._first: tuple[float, float] | None = None

    def step(self, epoch: int, share: float) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.share, self._last = share, time.perf_counter()
        time_before, share_before = self._first or (self._begun, 0.0)
        self.training = (self._last - time_before) / (share - share_before)
        self._first = self._first or (self._last, share)
        if self._last - self._begun > BUDGET and share < 1:
            raise BudgetSpent

    def measured(self, record: dict[str, Any]) -> None:
        now = time.perf_counter()
        self.measuring, self._last = now - self._last, now

    def epoch(self, epoch: int, loss: float) -> None:
        self.training += time.perf_counter() - self._last


def time_epoch(given: TrainingConfig) -> dict[str, Any]:
    """Measure what one epoch of a run costs on this machine.

    Returns:
        `training`, `measuring`: seconds of an epoch; `timed`: seconds in which these were found; `memory`, `gpu`: bytes
        at the peak, of this process and of its GPU; `note`: how it was timed, where that was less than an epoch.
    """
    config, data = load_and_resolve(given)
    begun, clock, note = time.perf_counter(), EpochClock(), ""
    if config.device == "cpu":
        hardware.keep_memory()  # as a worker does
    # of several devices one is timed, on its share of a batch; a rate so small cannot diverge
    share = max(1, config.batch_size // config.devices)
    shorter = dataclasses.replace(config, epochs=1, devices=1, batch_size=share, learning_rate=1e-6)
    with tempfile.TemporaryDirectory() as folder:
        try:
            trainer.train(Run.create(Path(folder) / "run", shorter), data, progress=clock)
        except BudgetSpent:  # a step takes about three times as long as a forward pass, of which measuring consists
            clock.measuring = clock.training / 3 * (1 + config.num_test_examples / config.num_examples)
            note = f"timed {clock.share:.1%} of an epoch, with measuring reckoned at a third of a step's time"
            note += " and without robustness" if config.robustness_examples else ""
    return {
        "training": clock.training / config.devices,
        "measuring": clock.measuring,
        "timed": time.perf_counter() - begun,
        "memory": config.devices * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT,
        "gpu": config.devices * torch.cuda.max_memory_reserved() if config.device == "cuda" else 0,
        "note": note,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(time_epoch(TrainingConfig.from_json(json.load(sys.stdin), "settings"))))
