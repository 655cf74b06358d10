"""The process that measures what a cell costs: `python -m neuralcollapse.study.probe`, configuration on its input.

It trains the cell's own network by the trainer itself, on a few random images of the cell's own shape, and prints what
a step, a forward pass and an epoch's fixed part take. Three sizes of training and test half give the three.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from neuralcollapse.data import Dataset, ImageData
from neuralcollapse.training import hardware
from neuralcollapse.training.builders import build_network
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.robustness import relative_perturbations
from neuralcollapse.training.run_directory import Run
from neuralcollapse.training.trainer import train

_FEW = 16  # examples of a batch that even a large network on a slow machine gets through
_BUDGET = 30.0  # seconds for all that is timed in whole batches
_LEAST = 1.0  # seconds of steps that are timed at least, where there is time for them


def measure(config: RunConfig, image: tuple[int, int, int]) -> dict[str, float]:
    """Seconds and bytes of a configuration.

    Returns:
        `train` and `measure`: seconds an example; `attack`: seconds an image whose robustness is measured; `fixed`:
        seconds an epoch; `memory` and `gpu`: bytes at the peak, of this process and of its GPU, data not counted;
        `dim`: p, features of the last layer; `whole`: 1 when timed in whole batches, 0 when scaled from small ones.
    """
    if config.device == "cpu":
        hardware.keep_memory()  # as a worker does
    before = _peak()
    batch = max(1, config.batch_size // config.devices)
    least = 2 * config.num_classes  # two examples of each class, or there is nothing to measure
    few = min(batch, max(_FEW, least))
    quick, dim = _epoch(config, image, few, max(few, least), least)
    after = _peak()
    forward = quick / (3 * few + few + least)  # a step is about three forward passes
    found = {"train": 3 * forward, "measure": forward, "fixed": 0.0, "dim": dim, "whole": 0.0}
    parameters = _parameters(config, image)
    for name in ("memory", "gpu"):
        found[name] = before[name] + parameters[name] + (after[name] - before[name]) * batch / few
    size = batch * -(-least // batch)
    if 40 * forward * size < _BUDGET:
        more = size * int(np.clip(_LEAST / (4 * forward * size), 2, 20))
        base, _ = _epoch(config, image, batch, size, least)
        longer, _ = _epoch(config, image, batch, size + more, least)
        wider, _ = _epoch(config, image, batch, size, least + more)
        forward = max(wider - base, 0.0) / more
        step = max((longer - base) / more - forward, forward)
        fixed = max(base - size * (step + forward) - least * forward, 0.0)
        found |= {"train": step, "measure": forward, "fixed": fixed, "whole": 1.0, **_peak()}
    found["attack"] = _attack(config, image) if config.robustness_examples else 0.0
    return found


def _epoch(
    config: RunConfig, image: tuple[int, int, int], batch: int, train_size: int, test_size: int
) -> tuple[float, int]:
    """Seconds of a second epoch, measured and saved like any other, and the number of features."""
    halves = [_random(size, image, config.num_classes) for size in (train_size, test_size)]
    small = dataclasses.replace(
        config, num_examples=train_size, num_test_examples=test_size, epochs=3, batch_size=batch, devices=1,
        learning_rate=1e-6, robustness_examples=0,
    )  # fmt: skip
    channels = (0.5,) * image[0]
    data = Dataset(config.dataset, "random", halves[0], halves[1], config.class_names, channels, channels, "")
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", small)
        train(run, data)
        seconds = np.diff([record["seconds"] for record in run.history()])
        with np.load(run.snapshots()[3], allow_pickle=False) as snapshot:
            return float(seconds.min()), int(snapshot["features"].shape[1])


def _random(size: int, image: tuple[int, int, int], classes: int) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (size, *image), dtype=torch.uint8, generator=generator)
    return ImageData(images, torch.arange(size) % classes)


def _attack(config: RunConfig, image: tuple[int, int, int]) -> float:
    """Seconds of DeepFool an image, on a network as it begins; a trained one can take more or fewer steps."""
    pixels = _random(min(_FEW, config.robustness_examples), image, config.num_classes).images.to(config.device)
    channels = (0.5,) * image[0]
    net = build_network(config, _shapes(config, image)).to(config.device)
    begun = time.perf_counter()
    relative_perturbations(net, pixels, channels, channels)
    return (time.perf_counter() - begun) / len(pixels)


def _parameters(config: RunConfig, image: tuple[int, int, int]) -> dict[str, int]:
    """Bytes of weights, gradients and momentum."""
    with torch.device("meta"):
        network = build_network(config, _shapes(config, image))
    size = 12 * sum(parameter.numel() for parameter in network.parameters())
    return {"memory": 0, "gpu": size} if config.device == "cuda" else {"memory": size, "gpu": 0}


def _shapes(config: RunConfig, image: tuple[int, int, int]) -> Dataset:
    """What a network is built for: the shape of its images, and the number of classes."""
    pixels = ImageData(torch.zeros(1, *image, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    return Dataset(config.dataset, "", pixels, pixels, config.class_names, (0.5,), (0.5,), "")


def _peak() -> dict[str, int]:
    """The most memory this process has had, of the machine's and of the GPU's."""
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"memory": own, "gpu": torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print(json.dumps(measure(RunConfig.from_json(asked["config"], "standard input"), tuple(asked["image"]))))
