"""Grids on a Ray cluster: runs that are sent there and back, what it is given, and a worker that is killed."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.grids import OPTIONS, TINY, epoch, start, uninterrupted, wait_for, without_clock
from rich.console import Console

from neuralcollapse import InputError
from neuralcollapse.study import grid, processes
from neuralcollapse.study import ray_cluster as cluster
from neuralcollapse.study.grid import Cell, How
from neuralcollapse.study.task import INTERRUPTED, Task
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import prepare
from neuralcollapse.training.run_directory import Run
from neuralcollapse.training.trainer import train

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: the extra ray")


def test_a_machine_that_does_not_see_the_folder_sends_the_run_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.tempfile, "gettempdir", lambda: str(tmp_path))
    here, settings = tmp_path / "here" / "cell", {**TINY, "dataset": "digits", "model": "mlp"}
    run, data = prepare(TrainingConfig(**settings), out=here)
    train(dataclasses.replace(job, config=dataclasses.replace(run.config, epochs=40)), quiet=True)
    whole = without_clock(here)
    run.write_status(**{**run.status(), "status": "interrupted"})
    asked = dataclasses.asdict(Task(str(here), settings, ["neuralcollapse"], 1))
    code, archive = cluster.train_cell(asked, str(tmp_path / "absent"), "scratch", cluster.pack(here))
    assert code == 0 and archive is not None
    cluster.unpack(archive, tmp_path / "there")
    assert Run.open(tmp_path / "there").status()["status"] == "finished" and without_clock(tmp_path / "there") == whole
    assert run.status()["status"] == "interrupted"  # this copy was not touched
    assert not (tmp_path / "scratch").exists()


def test_a_cancelled_task_sends_back_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.tempfile, "gettempdir", lambda: str(tmp_path))
    settings = {**TINY, "dataset": "digits", "model": "mlp", "epochs": 100_000}
    asked = Task(str(tmp_path / "here" / "cell"), settings, ["neuralcollapse"], 1)
    kept = tmp_path / cluster.scratch(asked) / "cell"

    def cancelled(process: Any) -> int:
        while epoch(kept) < 2:
            time.sleep(0.05)
            assert process.poll() is None
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "_wait", cancelled)
    monkeypatch.setattr(processes, "GRACE", 20.0)
    fields, token = dataclasses.asdict(asked), str(tmp_path / "absent")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as in the thread in which Ray calls it
    try:
        code, archive = cluster.train_cell(fields, token, cluster.scratch(asked), None)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    assert code == INTERRUPTED and archive is not None
    cluster.unpack(archive, tmp_path / "back")
    status = Run.open(tmp_path / "back").status()
    assert status["status"] == "interrupted" and status["epoch"] >= 2
    assert Run.open(kept).status() == status  # for the next grid, if nobody took what was sent
    other = dataclasses.replace(asked, settings={**settings, "epochs": 7})
    assert cluster.scratch(other) != cluster.scratch(asked) == cluster.scratch(dataclasses.replace(asked, threads=2))


@pytest.mark.parametrize(("sent", "kept", "used"), [(3, 5, 5), (5, 3, 5), (4, 4, 4), (2, None, 2)])
def test_the_scratch_folder_keeps_what_has_come_further(tmp_path: Path, sent: int, kept: int | None, used: int) -> None:
    for name, epochs in (("here", sent), ("there", kept)):
        if epochs is not None:
            Run.create(tmp_path / name, {"from": name}).write_status(epoch=epochs)
    cluster._take_up(cluster.pack(tmp_path / "here"), tmp_path / "there")
    run = Run.open(tmp_path / "there")
    assert run.status() == {"epoch": used} and run.config["from"] == ("here" if sent > (kept or 0) else "there")
    assert {path.name for path in tmp_path.iterdir()} == {"here", "there"}
    (tmp_path / "there" / "status.json").write_text("{")  # damaged: the grid's own copy is taken
    cluster._take_up(cluster.pack(tmp_path / "here"), tmp_path / "there")
    assert run.status() == {"epoch": sent}


class _Ray:
    """As much of Ray as a pool needs: one living machine, and tasks that never end."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.cancelled: list[Any] = []

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 5.0, "GPU": 1.0}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True}, {"Alive": False}]

    def remote(self, *arguments: Any) -> Any:
        return self if callable(arguments[0]) else (self.sent.append(arguments), len(self.sent))[1]

    def options(self, **_: Any) -> Any:
        return self

    def wait(self, tasks: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return [], tasks

    def cancel(self, reference: Any) -> None:
        self.cancelled.append(reference)

    def shutdown(self) -> None:
        pass


@pytest.mark.parametrize(("cpus", "gpus", "held"), [(2, 0, 2), (1, 0.25, 4), (1, None, 1)])
def test_ray_is_given_what_it_can_hold_and_one_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: float, gpus: float | None, held: int
) -> None:
    ray = _Ray()
    monkeypatch.setattr(cluster, "_connected", lambda _: ray)
    monkeypatch.setattr(cluster, "GRACE", 0.0)
    monkeypatch.setattr(cluster, "SENDING", 0.05)
    monkeypatch.setattr(cluster, "pack", lambda _: pytest.fail("packed for a machine that is no longer there"))
    pool = cluster.RayPool("auto", tmp_path, cpus=cpus, gpus=gpus)
    while pool.room():
        Run.create(tmp_path / str(len(ray.sent)), {})
        pool.start(Task(str(tmp_path / str(len(ray.sent))), {}, [], 1))
    assert len(ray.sent) == held + 1
    ended = pool.stop()  # none answers
    assert len(ray.cancelled) == held + 1 and not pool.busy()
    assert {ending.status for ending in ended.values()} == {"interrupted"} and len(ended) == held + 1
    pool.close()


@needs_ray
def test_a_cluster_that_is_not_there_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is timed, and without Ray's own minutes of trying."""
    import ray

    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked"))
    monkeypatch.setattr(grid, "estimate", lambda *_: pytest.fail("timed"))
    cell = Cell("cell", TrainingConfig(**{**TINY, "dataset": "digits", "model": "mlp"}))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        for address in (nobody, f"ray://{nobody}", "nonsense", "host:port", "127.0.0.1:99999"):
            with pytest.raises(InputError, match=f"no Ray cluster at {address} "):
                grid.carry_out([cell], tmp_path / "grid", How(ray=address), Console(file=io.StringIO()))
    for error in (RuntimeError, TimeoutError, ConnectionError, ValueError):
        monkeypatch.setattr(ray, "init", lambda error=error, **_: (_ for _ in ()).throw(error("no answer")))
        with pytest.raises(InputError, match=r"no Ray cluster at auto \(no answer\)"):
            grid.carry_out([cell], tmp_path / "grid", How(ray="auto"), Console(file=io.StringIO()))
    assert not list(tmp_path.iterdir())


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'neuralcollapse\[ray\]'"):
        cluster.RayPool("local", tmp_path, cpus=1, gpus=None)


@needs_ray
def test_ray_with_a_worker_killed(tmp_path: Path) -> None:
    """Two cells on a local Ray; the process of the Ray task that trains one is killed −9 in the middle."""
    out = tmp_path / "grid"
    sizes = ["--datasets", "digits", "--models", "mlp", "--seeds", "0", "1", *OPTIONS, "--epochs", "200"]
    process = start("grid", *sizes, "--out", str(out), "--ray", "local", "--threads", "1")
    wait_for(lambda: epoch(out / "digits-mlp-mse") >= 5, process)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.cmdline()[-1:] == ["neuralcollapse.study.worker"]
    ]
    for worker in workers:
        parent = worker.parent()
        assert parent is not None and "ray" in " ".join(parent.cmdline())
        parent.kill()
    told, problems = process.communicate(timeout=150)
    assert process.returncode == 0, (told, problems)
    for seed, name in enumerate(("digits-mlp-mse", "digits-mlp-mse-s1")):
        assert without_clock(out / name) == uninterrupted(tmp_path / name, loss="mse", seed=seed, epochs=200)
    assert "resumed" in json.loads((out / "digits-mlp-mse" / "environment.json").read_text())
    assert not [path for path in out.iterdir() if path.name.startswith(".grid-")]
