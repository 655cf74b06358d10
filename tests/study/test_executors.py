"""Where the runs of a grid are trained: the choice, Slurm by submitit's local executor, and Ray."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from helpers.fake_slurm import FakeSlurm
from helpers.grids import OPTIONS, TINY, HereOptions, epoch, start, uninterrupted, wait_for, without_clock

from neuralcollapse import InputError
from neuralcollapse._errors import INTERRUPTED
from neuralcollapse.study import local_processes
from neuralcollapse.study.executors import check_options, executor_for, threads_of_each
from neuralcollapse.study.grid import GridProgress, run_grid
from neuralcollapse.study.options import GridOptions
from neuralcollapse.study.plan import Cell
from neuralcollapse.study.ray_tasks import RayExecutor, train_on_shared_storage
from neuralcollapse.study.slurm_jobs import SlurmExecutor
from neuralcollapse.study.task import Ending, State, Task
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.run_directory import Run

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: the extra ray")
needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="submitit is not installed: the extra slurm"
)
MLP: dict[str, Any] = {**TINY, "dataset": "digits", "model": "mlp", "loss": "mse"}
LONG = {**MLP, "epochs": 100_000}


def wait_until(met: Any, seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "not met in time"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (GridOptions(jobs=0), "--jobs must be at least 1"),
        (GridOptions(threads=0), "--threads"),
        (GridOptions(cpus_per_cell=-1), "--cpus-per-cell must be"),
        (GridOptions(cpus_per_cell=math.nan), "--cpus-per-cell must be"),
        (GridOptions(time_limit=0), "--time-limit must be at least 1"),
        (GridOptions(cpus_per_cell=2), "--cpus-per-cell 2 is not used here; add --slurm or add --ray, or leave it out"),
        (GridOptions(gpus_per_cell=0.5), r"--gpus-per-cell 0\.5 is not used here"),
        (GridOptions(ray="local", jobs=2), "--jobs 2 is not used here; train on this machine, or leave it out"),
        (GridOptions(ray="local", partition="gpu"), "--partition gpu is not used here; add --slurm, or leave it out"),
        (GridOptions(slurm=True, ray="local"), "--slurm and --ray exclude each other"),
        (GridOptions(), "notes.txt is a file; --out must name a folder"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, options: GridOptions, message: str) -> None:
    """Before the plan: there is no such data set."""
    (tmp_path / "notes.txt").touch()
    cell = Cell("cell", TrainingConfig(dataset="absent"))
    for out in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "below"):
        with pytest.raises(InputError, match=message):
            run_grid([cell], out, options)


def test_the_threads_of_each_run() -> None:
    assert threads_of_each(GridOptions()) is None
    assert threads_of_each(GridOptions(jobs=10_000)) == 1
    assert threads_of_each(GridOptions(jobs=2, threads=3)) == 3
    assert threads_of_each(GridOptions(ray="auto", cpus_per_cell=4)) == 4
    assert threads_of_each(GridOptions(slurm=True)) == 1


def test_another_place_is_one_class_and_one_option(tmp_path: Path, untimed: None) -> None:
    """As in `helpers.grids`: nothing else of the package knows of it."""
    options = HereOptions(in_this_process=True)
    check_options(options, tmp_path)
    assert executor_for(options).__name__ == "InThisProcess"
    seen: list[tuple[str, State]] = []

    class Seen(GridProgress):
        def changed(self, name: str, state: State, why: str = "") -> None:
            seen.append((name, state))

    cells = [Cell(f"s{seed}", TrainingConfig(**{**MLP, "epochs": 2, "seed": seed})) for seed in (0, 1)]
    result = run_grid(cells, tmp_path, options, Seen())
    assert result.states == {"s0": State.FINISHED, "s1": State.FINISHED} and not result.problems
    assert seen == [(f"s{seed}", state) for seed in (0, 1) for state in (State.RUNNING, State.FINISHED)]
    with pytest.raises(InputError, match="--ray and --in-this-process exclude each other"):
        check_options(HereOptions(in_this_process=True, ray="local"), tmp_path)


# Slurm -------------------------------------------------------------------------------------------------------------


class LocalSlurm(SlurmExecutor):
    """The same jobs, which submitit runs as processes of this machine."""

    cluster = "local"


@dataclass(frozen=True)
class LocalSlurmOptions(GridOptions):
    slurm: bool = field(default=True, metadata={"executor": f"{__name__}:LocalSlurm"})


def job_process(out: Path) -> psutil.Process:
    """The process of the one job of this grid; its child is the worker."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if {"submitit.core._submit", str(out / ".slurm")} <= set(child.cmdline()):
                return child
    raise AssertionError("no job runs")


def ending_of(job: Any) -> Ending:
    """How a job ends; waits for it."""
    end = time.monotonic() + 400
    while (ending := job.poll()) is None:
        assert time.monotonic() < end, "it does not end"
        time.sleep(0.05)
    return ending  # type: ignore[no-any-return]


def submitted(tmp_path: Path, settings: dict[str, Any], name: str = "cell") -> Any:
    executor = LocalSlurm(tmp_path, LocalSlurmOptions())
    return executor.submit(Task(str(tmp_path / name), settings, ["neuralcollapse", "grid"], 1))


@needs_submitit
def test_a_grid_of_slurm_jobs(tmp_path: Path, untimed: None) -> None:
    wild = {**MLP, "epochs": 3, "learning_rate": 1e6}
    cells = [Cell("good", TrainingConfig(**MLP)), Cell("wild", TrainingConfig(**wild))]
    result = run_grid(cells, tmp_path / "grid", LocalSlurmOptions())
    assert result.states == {"good": State.FINISHED, "wild": State.DIVERGED}
    assert result.problems == {"wild": "diverged in epoch 1: the loss is no longer finite"}
    assert without_clock(tmp_path / "grid" / "good") == uninterrupted(tmp_path / "whole", loss="mse")
    run = Run.open(tmp_path / "grid" / "good")
    assert json.loads((run.path / "environment.json").read_text())["threads"] == 1


@needs_submitit
def test_a_job_that_is_stopped_keeps_its_epochs(tmp_path: Path) -> None:
    job, run = submitted(tmp_path, LONG), tmp_path / "cell"
    wait_until(lambda: epoch(run) >= 2)
    assert job.poll() is None
    job.stop()
    assert ending_of(job) == Ending(State.INTERRUPTED)
    wait_until(lambda: not Run.open(run).is_locked())
    status = Run.open(run).status()
    assert status.status == "interrupted" and status.epoch >= 2


@needs_submitit
def test_jobs_that_are_killed_are_named(tmp_path: Path) -> None:
    """The worker, which its job notices; and the job itself, whose worker stops by itself."""
    job, run = submitted(tmp_path, LONG), tmp_path / "cell"
    wait_until(lambda: epoch(run) >= 1)
    (worker,) = job_process(tmp_path).children()
    worker.kill()
    assert ending_of(job) == Ending(State.FAILED, "killed by SIGKILL (out of memory?)")
    assert Run.open(run).status().status == "failed"

    job = submitted(tmp_path, LONG)
    begun = Run.open(run).status().epoch
    wait_until(lambda: epoch(run) > begun)
    job_process(tmp_path).kill()
    wait_until(lambda: not Run.open(run).is_locked())
    ending = ending_of(job)
    assert ending.state is State.FAILED and "Slurm job" in ending.why and "without a result" in ending.why
    status = Run.open(run).status()
    assert status.status == "failed" and status.epoch > begun and "without a result" in status.error


@needs_submitit
def test_a_job_near_its_time_limit_is_queued_again_and_continues(tmp_path: Path) -> None:
    job, run = submitted(tmp_path, {**MLP, "epochs": 200}), tmp_path / "cell"
    wait_until(lambda: epoch(run) >= 2)
    job_process(tmp_path).send_signal(signal.SIGUSR2)  # as Slurm does before it ends a job
    assert ending_of(job) == Ending(State.FINISHED)
    assert "resumed" in json.loads((run / "environment.json").read_text())
    assert without_clock(run) == uninterrupted(tmp_path / "whole", epochs=200)


@needs_submitit
def test_what_slurm_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script that sbatch is given, by a fake of Slurm's commands; then a refusal."""
    slurm = FakeSlurm.install(tmp_path / "bin", monkeypatch)
    options = GridOptions(slurm=True, partition="gpu", time_limit=90, cpus_per_cell=4, gpus_per_cell=1)
    SlurmExecutor(tmp_path / "grid", options).submit(Task(str(tmp_path / "grid" / "cell"), MLP, [], 4))
    slurm.require_asked("--partition=gpu", "--time=90", "--cpus-per-task=4", "--gpus-per-node=1", "--signal=USR2@90")
    slurm.answer("echo sbatch: error: invalid partition specified: gpu >&2; exit 1")
    with pytest.raises(InputError, match=r"Slurm refused the job: .*invalid partition specified: gpu"):
        SlurmExecutor(tmp_path / "grid", options).submit(Task(str(tmp_path / "grid" / "cell"), MLP, [], 4))


@needs_submitit
def test_slurm_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="did not find Slurm's command srun"):
        SlurmExecutor(tmp_path, GridOptions(slurm=True))
    with pytest.raises(InputError, match="whole cores and GPUs"):
        SlurmExecutor(tmp_path, GridOptions(slurm=True, gpus_per_cell=0.5))


@pytest.mark.parametrize(
    ("package", "options"), [("ray", GridOptions(ray="local")), ("submitit", GridOptions(slurm=True))]
)
def test_an_absent_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, options: GridOptions
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"pip install '?{package}"):
        executor_for(options)(tmp_path, options)


# Ray ---------------------------------------------------------------------------------------------------------------


def test_a_machine_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    """Nothing is written there, though the same path could be made."""
    task = Task(str(tmp_path / "grid" / "cell"), MLP, ["neuralcollapse"], 1)
    said = train_on_shared_storage(task, tmp_path / "grid" / ".grid-0")
    assert isinstance(said, str) and f"{socket.gethostname()} does not see {tmp_path / 'grid'}; --out" in said
    assert "storage that all machines of the Ray cluster share" in said and not list(tmp_path.iterdir())


def test_a_cancelled_task_keeps_its_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "cell"

    def cancelled(seconds: float) -> None:
        time.sleep(seconds)
        if epoch(run) >= 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(local_processes, "time", SimpleNamespace(sleep=cancelled, monotonic=time.monotonic))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as in the thread in which Ray calls it
    try:
        code = train_on_shared_storage(Task(str(run), LONG, ["neuralcollapse"], 1), tmp_path)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    status = Run.open(run).status()
    assert code == INTERRUPTED and status.status == "interrupted" and status.epoch >= 2


class FakeRay:
    """As much of Ray as an executor needs: tasks that never end."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.cancelled: list[Any] = []

    def init(self, **_: Any) -> None:
        pass

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 5.0, "GPU": 1.0}

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
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    executor = RayExecutor(tmp_path, GridOptions(ray="auto", cpus_per_cell=cpus, gpus_per_cell=gpus))
    assert executor.capacity == held + 1
    task = executor.submit(Task(str(tmp_path / "cell"), {}, [], 1))
    assert task.poll() is None and len(ray.sent) == 1
    task.stop()
    assert ray.cancelled == [1]
    assert len(list(tmp_path.iterdir())) == 1
    executor.close()
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="--cpus-per-cell of at most the Ray cluster's 5, got 6"):
        RayExecutor(tmp_path, GridOptions(ray="auto", cpus_per_cell=6))


@needs_ray
def test_a_cluster_that_is_not_there_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is timed, and without Ray's own minutes of trying."""
    import ray

    class NotTimed(GridProgress):
        def timing(self, name: str) -> None:
            pytest.fail("timed")

    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was asked"))
    cell = Cell("cell", TrainingConfig(**MLP))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        for address in (nobody, f"ray://{nobody}", "nonsense", "host:port", "127.0.0.1:99999"):
            with pytest.raises(InputError, match=f"no Ray cluster at {address} "):
                run_grid([cell], tmp_path / "grid", GridOptions(ray=address), NotTimed())
    for error in (RuntimeError, TimeoutError, ConnectionError, ValueError):
        monkeypatch.setattr(ray, "init", lambda error=error, **_: (_ for _ in ()).throw(error("no answer")))
        with pytest.raises(InputError, match=r"no Ray cluster at auto \(no answer\)"):
            run_grid([cell], tmp_path / "grid", GridOptions(ray="auto"), NotTimed())
    assert not list(tmp_path.iterdir())


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
    told, problems = process.communicate(timeout=400)
    assert process.returncode == 0, (told, problems)
    for seed, name in enumerate(("digits-mlp-mse", "digits-mlp-mse-s1")):
        assert without_clock(out / name) == uninterrupted(tmp_path / name, loss="mse", seed=seed, epochs=200)
    assert "resumed" in json.loads((out / "digits-mlp-mse" / "environment.json").read_text())
    assert not [path for path in out.iterdir() if path.name.startswith(".grid-")]
