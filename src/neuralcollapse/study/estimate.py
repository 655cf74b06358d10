"""How long the cells of a plan will take and how much memory they need, from one timed epoch of each network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from neuralcollapse.study.plan import PlannedCell
from neuralcollapse.training import recipes
from neuralcollapse.training.config import OPTIONS, RunConfig

TIMEOUT = 180.0
"""Seconds after which timing an epoch is given up."""
_AMOUNT_OF_DATA = ("dataset", "num_examples", "num_test_examples")


@dataclass(frozen=True)
class Estimate:
    """What the rest of a cell will cost.

    Args:
        seconds: time; None where it could not be measured.
        memory: bytes at the peak, the GPU's included.
        note: how it was measured, where less than an epoch was timed; or why it was not measured.
        gpu: the bytes of `memory` that are the GPU's.
    """

    seconds: float | None
    memory: float | None
    note: str = ""
    gpu: float = 0.0


def estimate_costs(
    chosen: Sequence[PlannedCell], threads: int | None, timing: Callable[[str], object] = lambda name: None
) -> dict[str, Estimate]:
    """Time and memory of each cell, by name; of cells whose settings differ in nothing that costs, one is timed.

    Args:
        chosen: the cells, with their data.
        threads: processor threads that each will have.
        timing: called with the name of a cell before it is timed.
    """
    measured: dict[tuple[Any, ...], dict[str, Any] | str] = {}
    estimates = {}
    for each in chosen:
        assert each.resolved is not None
        names = [*_AMOUNT_OF_DATA, *(name for name, option in OPTIONS.items() if option.changes_cost)]
        key = tuple(getattr(each.resolved, name) for name in names)
        if key not in measured:
            timing(each.cell.name)
            measured[key] = _time_epoch(each, threads)
        estimates[each.cell.name] = _estimate(each, each.resolved, measured[key])
    return estimates


def _estimate(each: PlannedCell, config: RunConfig, cost: dict[str, Any] | str) -> Estimate:
    left = config.epochs - each.epoch
    own = each.seconds / each.epoch * left if each.epoch else None  # the finished epochs of the run itself
    if isinstance(cost, str):
        return Estimate(own, None, cost)
    milestones = recipes.milestone_epochs(config.milestones, config.epochs)
    measurements = sum(epoch > each.epoch for epoch in recipes.measured_epochs(config.epochs, milestones))
    seconds = cost["start"] + left * cost["training"] + measurements * cost["measuring"]
    return Estimate(seconds if own is None else own, cost["memory"] + cost["gpu"], cost["note"], cost["gpu"])


def _time_epoch(each: PlannedCell, threads: int | None) -> dict[str, Any] | str:
    """Run `timed_epoch` in a process whose memory is this cell's alone; returns what it prints, or why it failed."""
    environment = {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "neuralcollapse.study.timed_epoch"],
            input=json.dumps(each.cell.config.to_json()),
            capture_output=True,
            text=True,
            env=environment,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not timed: a few steps and their measurement take more than {TIMEOUT:.0f} s here"
    lines = [line.strip() for line in (done.stderr if done.returncode else done.stdout).split("\n") if line.strip()]
    if done.returncode:
        return f"not timed: {lines[-1] if done.returncode > 0 and lines else 'killed (out of memory?)'}"
    result: dict[str, Any] = json.loads(lines[-1])
    result["start"] = time.monotonic() - begun - result["timed"]  # importing PyTorch, reading the data
    return result
