"""A training epoch of the laboratory against the loop one would first write, and against the network alone.

    python benchmarks/training.py                          # ResNet18 of full width, images of MNIST's shape
    python benchmarks/training.py --model vgg11 --width 0.25
    python benchmarks/training.py --precision 32           # what channels-last alone gives
    python benchmarks/training.py --device cuda            # also the share of the bare forward-backward rate
    python benchmarks/training.py --errors                 # final test errors of both loops, on digits

The plain loop is as published code has it: a data set that makes a tensor of one image at a time (pad, scale,
normalise), a shuffling `DataLoader` without workers or with two, whichever is faster here, float32, channels-first,
SGD. Ours is the trainer's own epoch with the precision it chooses. Same network, same batches' size. Each loop is timed
in processes of its own, since ours changes how memory is given back, the loops in turn; medians. The first epoch of a
process is not counted: it warms up, and starts the workers.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from neuralcollapse.training import losses
from neuralcollapse.training.builders import build_network, build_optimizer, make_batches
from neuralcollapse.training.config import RunConfig, TrainingConfig
from neuralcollapse.training.hardware import environment, keep_memory
from neuralcollapse.training.launch import PRECISIONS
from neuralcollapse.training.progress import Progress
from neuralcollapse.training.resolve import load_and_resolve
from neuralcollapse.training.trainer import train_epoch

PAD = 2


class Plain(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """One image at a time, from its array through PIL to a normalised tensor."""

    def __init__(self, images: np.ndarray, labels: list[int], mean: float, std: float, pad: int) -> None:
        self.images, self.labels, self.mean, self.std, self.pad = images, labels, mean, std, pad

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.images[index])
        padded = Image.new(picture.mode, (picture.width + 2 * self.pad, picture.height + 2 * self.pad))
        padded.paste(picture, (self.pad, self.pad))
        pixels = torch.from_numpy(np.array(padded)).float().div(255)[None]
        return (pixels - self.mean) / self.std, self.labels[index]


class PlainLoop:
    """Network, loader and optimiser of the plain loop."""

    def __init__(self, config: RunConfig, data: Any, workers: int) -> None:
        torch.manual_seed(config.seed)
        self.device = torch.device(config.device)
        self.net = build_network(config, data).to(self.device, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), config.learning_rate, config.momentum, weight_decay=config.weight_decay
        )
        self.loss = losses.objective(config)
        images = data.train.images[:, 0].numpy()
        pad = PAD if images.shape[-1] == 28 else 0
        dataset = Plain(images, data.train.labels.tolist(), data.mean[0], data.std[0], pad)
        keep = {"persistent_workers": True} if workers else {}
        self.loader = DataLoader(dataset, config.batch_size, shuffle=True, num_workers=workers, **keep)  # type: ignore[arg-type]

    def __call__(self) -> None:
        """An epoch."""
        self.net.train()
        for images, labels in self.loader:
            self.optimizer.zero_grad()
            loss = self.loss(self.net(images.to(self.device)), labels.to(self.device))
            loss.backward()
            self.optimizer.step()
            loss.item()


class OurLoop:
    """The trainer's epoch, without its measurements and checkpoints, which the plain loop has not either."""

    def __init__(self, config: RunConfig, data: Any) -> None:
        if config.device == "cpu":
            keep_memory()
        self.fabric = Fabric(accelerator=config.device, devices=1, precision=PRECISIONS[config.precision])
        torch.manual_seed(config.seed)
        self.config, self.net = config, build_network(config, data)
        self.model, self.optimizer = self.fabric.setup(self.net, build_optimizer(config, self.net))
        self.batches = make_batches(data.train, data, config, self.fabric.device, shuffle_seed=config.seed)
        self.epoch = 0

    def __call__(self) -> None:
        """An epoch."""
        self.epoch += 1
        train_epoch(self.fabric, self.model, self.optimizer, self.batches, self.epoch, self.config, Progress())

    def bare(self) -> Callable[[], None]:
        """Forward, backward and step on one random batch, as often as an epoch has batches."""
        images, labels = next(iter(self.batches))
        size = self.config.batch_size
        noise = torch.randn_like(images[:size])
        labels, objective = labels[:size], losses.objective(self.config)

        def run() -> None:
            self.model.train()
            for _ in range(len(self.batches)):
                self.optimizer.zero_grad()
                with self.fabric.autocast():
                    loss = objective(self.model(noise), labels)
                self.fabric.backward(loss)
                self.optimizer.step()

        return run


def seconds(work: Callable[[], object], device: str) -> float:
    """Wall-clock time of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


LOOPS: dict[str, Callable[[RunConfig, Any], Callable[[], None]]] = {
    "ours": OurLoop,
    "bare": lambda config, data: OurLoop(config, data).bare(),
    "plain, 0 workers": lambda config, data: PlainLoop(config, data, 0),
    "plain, 2 workers": lambda config, data: PlainLoop(config, data, 2),
}


def write_images(root: Path, examples: int) -> None:
    """Random images in MNIST's files, so that both loops read what a user's would."""
    import gzip
    import struct

    folder = root / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for half, count in (("train", examples), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        files = {
            f"{half}-images-idx3-ubyte.gz": struct.pack(">4i", 2051, count, 28, 28) + images.tobytes(),
            f"{half}-labels-idx1-ubyte.gz": struct.pack(">2i", 2049, count) + labels.tobytes(),
        }
        for name, content in files.items():
            (folder / name).write_bytes(gzip.compress(content, 1))


def assembled(options: argparse.Namespace) -> tuple[RunConfig, Any]:
    """Configuration and data of the timed loops."""
    examples = options.batch * options.steps
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), examples)
        settings = TrainingConfig(
            dataset="mnist",
            data_dir=Path(folder),
            examples_per_class=examples // 10,
            model=options.model,
            width=options.width,
            batch_size=options.batch,
            device=options.device,
            precision=options.precision,
        )
        return load_and_resolve(settings)


def timed(options: argparse.Namespace) -> None:
    """One loop in this process; prints the seconds of its epochs as JSON."""
    loop = LOOPS[options.loop](*assembled(options))
    loop()
    print(json.dumps([seconds(loop, options.device) for _ in range(options.epochs)]))


def speed(options: argparse.Namespace) -> None:
    """The table of speeds."""
    config, data = assembled(options)
    times: dict[str, list[float]] = {name: [] for name in LOOPS}
    for _ in range(options.repeats):
        for name, values in times.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--loop", name]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            values += json.loads(found.splitlines()[-1])
    median = {name: statistics.median(values) for name, values in times.items()}
    best = min((name for name in median if name.startswith("plain")), key=lambda name: median[name])
    count = len(data.train.labels)
    print("| loop | images/s | slowest and fastest | epoch of 50,000 |\n| --- | --- | --- | --- |")
    for name, value in median.items():
        spread = f"{count / max(times[name]):,.0f} … {count / min(times[name]):,.0f}"
        print(f"| {name} | {count / value:,.0f} | {spread} | {50_000 * value / count:,.0f} s |")
    print(f"\nours over the plain loop ({best}): {median[best] / median['ours']:.2f} ×")
    print(f"ours over forward, backward and step alone, on random data: {100 * median['bare'] / median['ours']:.0f} %")
    print(f"{config.model}, width {config.width:g}, batches of {config.batch_size}, ours in {config.precision}")


@torch.no_grad()
def test_error(net: nn.Module, data: Any) -> float:
    """Share of wrong test images, in float32."""
    net.eval()
    images = (data.test.images.float() / 255 - data.mean[0]) / data.std[0]
    device = next(net.parameters()).device
    wrong = net(images.to(device)).argmax(dim=1).cpu() != data.test.labels
    return float(wrong.double().mean())


def errors(options: argparse.Namespace) -> None:
    """Final test errors of both loops, trained alike on digits with five seeds."""
    print("| seed | ours | plain |\n| --- | --- | --- |")
    found = []
    for seed in range(5):
        config, data = load_and_resolve(
            TrainingConfig(model=options.model, seed=seed, epochs=20, device=options.device)
        )
        ours, plain = OurLoop(config, data), PlainLoop(config, data, 0)
        for rate, epochs in ((config.learning_rate, 15), (config.learning_rate / 10, 5)):
            for loop in (ours, plain):
                for group in loop.optimizer.param_groups:
                    group["lr"] = rate
                for _ in range(epochs):
                    loop()
        found.append((test_error(ours.net, data), test_error(plain.net, data)))
        print(f"| {seed} | {100 * found[-1][0]:.2f} % | {100 * found[-1][1]:.2f} % |", flush=True)
    means = [100 * statistics.mean(column) for column in zip(*found, strict=True)]
    print(f"\nmean {means[0]:.2f} % ours, {means[1]:.2f} % plain; {config.model}, width {config.width:g}, 20 epochs")


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5, help="batches of the timed epochs")
    parser.add_argument("--epochs", type=int, default=2, help="timed epochs of a process")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each loop")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="auto", choices=("auto", "32", "bf16"), help="of our loop")
    parser.add_argument("--errors", action="store_true", help="final test errors instead of speeds")
    parser.add_argument("--loop", choices=tuple(LOOPS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        timed(options)
        return
    machine = environment()
    where = machine["gpus"][0] if options.device == "cuda" else f"{machine['cpu']}, {machine['threads']} threads"
    print(f"{where}; Python {platform.python_version()}, torch {torch.__version__}, commit {machine['git_commit']}\n")
    (errors if options.errors else speed)(options)


if __name__ == "__main__":
    main()
