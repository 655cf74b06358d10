"""How long the cells of a plan will take and how much memory they need, from a few steps of each network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from neuralcollapse.study.plan import Planned
from neuralcollapse.training import recipes
from neuralcollapse.training.config import OPTIONS, RunConfig

_TIMEOUT = 180.0
_START = 8.0  # seconds to import PyTorch and to read the data
_PADDED = 3  # copies of the images that a run holds: as read, to train on, to measure on


@dataclass(frozen=True)
class Estimate:
    """What is left of a cell.

    Args:
        seconds: time, None where it could not be measured.
        memory: bytes at the peak, the GPU's included.
        note: how it was found, where that is not by timed steps; or why it was not.
        gpu: bytes of `memory` that are the GPU's.
    """

    seconds: float | None
    memory: float | None
    note: str = ""
    gpu: float = 0.0


def estimate(
    chosen: Sequence[Planned], threads: int | None, told: Callable[[str], object] = lambda name: None
) -> dict[str, Estimate]:
    """Time and memory of each cell, by name; equal networks on equal images are timed once.

    Args:
        chosen: the cells, with their data.
        threads: those each cell will have.
        told: called with the name of a cell before its steps are timed.
    """
    measured: dict[str, dict[str, float] | str] = {}
    found = {}
    for each in chosen:
        assert each.config is not None and each.image is not None
        fields = {k: v for k, v in each.config.to_json().items() if OPTIONS[k].changes_cost}
        key = json.dumps([fields, each.image, threads])
        if key not in measured:
            told(each.cell.name)
            measured[key] = _probe(each.config, each.image, threads)
        found[each.cell.name] = _of(each, each.config, measured[key])
    return found


def _of(each: Planned, config: RunConfig, cost: dict[str, float] | str) -> Estimate:
    left = config.epochs - each.epoch
    own = each.seconds / each.epoch * left if each.epoch else None  # the run knows better than the steps
    if isinstance(cost, str):
        return Estimate(own, None, cost)
    measured = sum(epoch > each.epoch for epoch in recipes.analysis_epochs(config.epochs))
    examples = config.num_examples + config.num_test_examples
    training = left * (cost["train"] * config.num_examples / config.devices + cost["fixed"])
    measuring = cost["measure"] * examples + cost["attack"] * config.robustness_examples
    seconds = _START + training + measured * measuring
    assert each.image is not None
    channels, height, width = each.image
    images = _PADDED * examples * channels * height * width
    features = 16 * config.num_examples * cost["dim"]  # in float32, twice while they are joined, and in float64
    note = "" if cost["whole"] else "scaled from batches of a few examples"
    gpu = config.devices * cost["gpu"] + images + features if config.device == "cuda" else 0.0
    host = config.devices * cost["memory"] + (images if gpu else images + features)
    return Estimate(seconds if own is None else own, host + gpu, note, gpu)


def _probe(config: RunConfig, image: Any, threads: int | None) -> dict[str, float] | str:
    """Measure in a process of its own, whose memory is the cell's alone; why not, where it ends otherwise."""
    environment = {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "neuralcollapse.study.probe"],
            input=json.dumps({"config": config.to_json(), "image": image}),
            capture_output=True,
            text=True,
            env=environment,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not timed: a few steps take more than {_TIMEOUT:.0f} s here"
    if done.returncode:
        lines = [line for line in done.stderr.split("\n") if line.strip()]
        reason = lines[-1].strip() if done.returncode > 0 and lines else "killed, out of memory?"
        return f"not timed: {reason}"
    result: dict[str, float] = json.loads(done.stdout.strip().split("\n")[-1])
    return result
