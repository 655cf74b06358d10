"""Training runs of a few epochs: what they leave, that they can be killed, that they say when they fail."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.progress import Interrupt

from neuralcollapse import InputError
from neuralcollapse import data as datasets
from neuralcollapse._files import append_line
from neuralcollapse.networks import registry as models
from neuralcollapse.training import checkpoint, losses
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.progress import Progress
from neuralcollapse.training.resolve import prepare
from neuralcollapse.training.run_directory import Run
from neuralcollapse.training.trainer import train

TINY: dict[str, Any] = {
    "model": "mlp",
    "width": 0.0625,
    "examples_per_class": 20,
    "epochs": 6,
    "batch_size": 64,
    "precision": "32",
    "device": "cpu",
}


def run_in(path: Path, **settings: Any) -> Run:
    run, data = prepare(TrainingConfig(**{**TINY, **settings}), out=path)
    assert train(run, data) == "finished"
    return run


def without_clock(run: Run) -> bytes:
    """The history as written, its only wall-clock field taken out."""
    lines = run.history_path.read_bytes().splitlines()
    return b"\n".join(line[: line.rindex(b', "seconds"')] for line in lines)


def test_a_run_leaves_what_the_design_promises(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    history = run.history()
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5, 6]
    assert (run.status().status, run.status().epoch, run.status().epochs) == ("finished", 6, 6)
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert run.config.measured_weight_decay == run.config.weight_decay == 1e-2
    assert len(run.snapshots()) == 6
    with np.load(run.snapshots()[6], allow_pickle=False) as snapshot:
        assert snapshot["features"].shape == (200, 32) and snapshot["weight"].shape == (10, 32)
        assert np.bincount(snapshot["labels"]).tolist() == [20] * 10
        means = np.stack([snapshot["features"][snapshot["labels"] == label].mean(axis=0) for label in range(10)])
        np.testing.assert_allclose(snapshot["class_means"], means, rtol=1e-4, atol=1e-5)
    classes, last = run.per_class(6), history[-1]
    assert classes is not None and [row.name for row in classes] == list(run.config.class_names)
    assert classes.column("nc1_share").sum() == pytest.approx(last["nc1"], rel=1e-9)
    assert classes.column("accuracy").mean() == pytest.approx(last["train_accuracy"])
    norms = np.linalg.norm(means - means.mean(axis=0), axis=1)
    np.testing.assert_allclose(classes.column("mean_norm"), norms, rtol=1e-4)
    assert np.isfinite(classes.column("nearest_cosine")).all()


def test_the_history_holds_what_the_network_gives(tmp_path: Path) -> None:
    """The last line against a forward pass written here, from the checkpoint's weights."""
    run = run_in(tmp_path / "run", loss="mse", weight_decay=0.003)
    data = datasets.load("digits", examples_per_class=20)
    net = models.build("mlp", num_classes=10, in_channels=1, image_size=8, width=0.0625).eval()
    net.load_state_dict(torch.load(run.path / "checkpoint.pt", weights_only=True)["model"])

    def logits(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return net((images / 255 - data.mean[0]) / data.std[0]).double()

    outputs, targets = logits(data.train.images), torch.eye(10, dtype=torch.float64)[data.train.labels]
    record = run.history()[-1]
    loss = 0.5 * sum(float(((z - y) ** 2).sum()) for z, y in zip(outputs, targets, strict=True)) / 200
    penalty = 0.003 / 2 * sum(float(p.detach().double().square().sum()) for p in list(net.parameters())[-2:])
    assert record["loss"] == pytest.approx(loss, rel=1e-5)
    assert record["mse.total"] == pytest.approx(loss + penalty, rel=1e-5)
    assert record["train_error"] == 1 - record["train_accuracy"]
    assert record["train_accuracy"] == float((outputs.argmax(1) == data.train.labels).double().mean())
    held_out = logits(data.test.images).argmax(1) == data.test.labels
    assert record["test_accuracy"] == pytest.approx(float(held_out.double().mean()), abs=1e-12)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    first, again, other = (run_in(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert without_clock(first) == without_clock(again)
    assert without_clock(first) != without_clock(other)


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_every_loss_learns(tmp_path: Path, loss: Any) -> None:
    history = run_in(tmp_path / "run", loss=loss, epochs=12).history()
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]


def test_a_diverging_run_says_so_and_keeps_its_history(tmp_path: Path) -> None:
    run, data = prepare(TrainingConfig(**{**TINY, "learning_rate": 1e6, "epochs": 4}), out=tmp_path / "run")
    assert train(run, data) == "diverged"
    assert run.status().status == "diverged"
    assert all(math.isfinite(record["loss"]) for record in run.history())


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    before = run.history_path.read_bytes(), (run.path / "snapshots" / "epoch_0006.npz").stat().st_mtime_ns
    run_in(tmp_path / "run")
    assert before == (run.history_path.read_bytes(), (run.path / "snapshots" / "epoch_0006.npz").stat().st_mtime_ns)


def test_resume_takes_over_the_settings_and_refuses_others(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    assert prepare(TrainingConfig(), resume=run.path)[0].config.epochs == 6
    with pytest.raises(InputError, match=r"expected epochs 6, .*, got 7"):
        prepare(TrainingConfig(epochs=7), resume=run.path)
    with pytest.raises(InputError, match="other settings"):
        prepare(TrainingConfig(**{**TINY, "seed": 5}), out=run.path)


PROGRAM = """
import sys, pathlib
from neuralcollapse.training.progress import Progress
from neuralcollapse.training.resolve import prepare
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.trainer import train
import torch
torch.set_num_threads(1)
run, data = prepare(TrainingConfig(model="resnet18", width=0.0625, examples_per_class=30, epochs=8, batch_size=64,
    precision="32", device="cpu", seed=3), out=pathlib.Path(sys.argv[1]))
print("ready", flush=True)
train(run, data)
"""


def start(path: Path) -> subprocess.Popen[str]:
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
    return process


def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    """Kill −9 at ten random moments; the history then equals an uninterrupted run's, byte for byte."""
    began = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    duration = time.monotonic() - began
    whole = Run.open(tmp_path / "whole")
    moments = random.Random(0)
    kills = 0
    for _ in range(10):
        process = start(tmp_path / "killed")
        time.sleep(moments.uniform(0, duration / 8))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        killed = Run.open(tmp_path / "killed")
        for name in ("status.json", "environment.json"):  # whole or not there, never half-written
            if (killed.path / name).exists():
                json.loads((killed.path / name).read_text())
        checkpoint.read(killed)
        for file in killed.snapshots().values():
            with np.load(file, allow_pickle=False) as snapshot:
                assert snapshot["weight"].shape[0] == 10
    assert kills >= 8  # a moment may fall after the end
    assert start(tmp_path / "killed").wait() == 0
    killed = Run.open(tmp_path / "killed")
    assert without_clock(killed) == without_clock(whole)
    assert killed.snapshots().keys() == whole.snapshots().keys()
    for left, right in zip(killed.snapshots().values(), whole.snapshots().values(), strict=True):
        with np.load(left) as a, np.load(right) as b:
            assert all(np.array_equal(a[name], b[name]) for name in a.files)
    assert not list(killed.path.rglob("*.tmp*"))


@pytest.mark.parametrize("cut", ["history", "snapshot", "history absent"])
def test_whatever_was_written_after_the_checkpoint_is_made_again(tmp_path: Path, cut: str) -> None:
    """A kill between two writes: the history or the snapshot is ahead of the checkpoint."""
    whole = run_in(tmp_path / "whole")
    run, data = prepare(TrainingConfig(**TINY), out=tmp_path / "run")
    if cut == "history absent":  # killed in the first epoch, before its checkpoint
        assert train(run, data, progress=Interrupt(at_step_of=1)) == "interrupted"
        assert (run.path / "checkpoint.pt").exists()
        append_line(run.history_path, {"epoch": 1})
        run.save_snapshot(1, weight=np.zeros(1))
    else:
        shutil.copytree(whole.path, run.path, dirs_exist_ok=True)
        if cut == "history":
            with run.history_path.open("ab") as file:
                file.write(b'{"epoch": 7, "los')
        else:
            run.save_snapshot(7, weight=np.zeros(1))
    assert train(run, data) == "finished"
    assert without_clock(run) == without_clock(whole)
    assert len(run.snapshots()) == 6


@dataclass
class Recorder(Progress):
    """Keeps what it is told; interrupts after an epoch."""

    stop_after: int = 0
    heard: list[tuple[Any, ...]] = field(default_factory=list)

    def begin(self, epochs: int, done: int) -> None:
        self.heard.append(("begin", epochs, done))

    def step(self, epoch: int, share: float) -> None:
        self.heard.append(("step", epoch, share))

    def measured(self, record: dict[str, Any]) -> None:
        self.heard.append(("measured", record["epoch"], record["nc1"]))

    def epoch(self, epoch: int, loss: float) -> None:
        self.heard.append(("epoch", epoch, loss))
        if epoch == self.stop_after:
            raise KeyboardInterrupt

    def end(self) -> None:
        self.heard.append(("end",))


def test_a_program_follows_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """200 examples in batches of 64 are four steps; what is told of measurements is what the history holds."""
    run, data = prepare(TrainingConfig(**{**TINY, "epochs": 3}), out=tmp_path / "run")
    first, second = Recorder(stop_after=2), Recorder()
    assert train(run, data, progress=first) == "interrupted"
    assert train(run, data, progress=second) == "finished"
    assert first.heard[0] == ("begin", 3, 0) and second.heard[0] == ("begin", 3, 2)
    assert first.heard[-1] == second.heard[-1] == ("end",)
    assert [event[1:] for event in second.heard if event[0] == "step"] == [(3, share / 4) for share in (1, 2, 3, 4)]
    heard = [event[1:] for event in first.heard + second.heard if event[0] == "measured"]
    assert heard == [(record["epoch"], record["nc1"]) for record in run.history()]
    losses = [event[2] for event in first.heard + second.heard if event[0] == "epoch"]
    assert len(losses) == 3 and losses == sorted(losses, reverse=True)
    assert capsys.readouterr() == ("", "")


EXACT = {"model": "resnet18", "precision": "64"}
"""In float32 a unit soon falls on the other side of the rectifier's corner, whichever way a sum is made."""


@pytest.mark.parametrize(("settings", "tolerance"), [({"model": "mlp"}, 1e-5), (EXACT, 1e-10)], ids=["mlp", "resnet18"])
def test_two_processes_give_the_history_of_one(tmp_path: Path, settings: dict[str, Any], tolerance: float) -> None:
    """Batches of 63, so uneven shards, and a rest of 11; the two are interrupted after the second epoch."""
    settings = {**TINY, **settings, "batch_size": 63, "epochs": 3, "milestones": (), "seed": 3}
    one = run_in(tmp_path / "one", **settings).history()
    run, data = prepare(TrainingConfig(**settings, devices=2), out=tmp_path / "two")
    assert train(run, data, progress=Interrupt(after=2)) == "interrupted"
    assert train(run, data) == "finished"
    two = run.history()
    assert [record["epoch"] for record in two] == [1, 2, 3]
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        numbers = {name for name, value in left.items() if isinstance(value, float)} - {"seconds"}
        assert len(numbers) > 15
        for name in numbers:
            assert right[name] == pytest.approx(left[name], rel=tolerance, abs=tolerance * (left[name] == 0)), name
    state = checkpoint.read(run)
    assert state is not None and len(state["random_states"]) == 2


def test_every_process_needs_an_example(tmp_path: Path) -> None:
    """200 examples in batches of 66 leave a rest of 2."""
    with pytest.raises(InputError, match=r"a batch of 2 examples is left for 4 processes.* at most --devices 2"):
        prepare(TrainingConfig(**{**TINY, "devices": 4, "batch_size": 66}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
