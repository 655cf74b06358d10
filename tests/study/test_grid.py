"""Grids: which cells there are, what is left to do, and that a kill or a failure costs no other cell anything."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.grids import OPTIONS, TINY, epoch, kill_all, start, uninterrupted, wait_for, without_clock
from rich.console import Console

from neuralcollapse import InputError
from neuralcollapse.study import board, grid, plan, processes, task
from neuralcollapse.study.board import duration, plan_notes, plan_table
from neuralcollapse.study.estimate import Estimate, estimate
from neuralcollapse.study.grid import How
from neuralcollapse.study.plan import State
from neuralcollapse.study.task import Task
from neuralcollapse.training import recipes
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import load_and_resolve, prepare
from neuralcollapse.training.run_directory import Run
from neuralcollapse.training.trainer import train

PAPER = [
    *("mnist-vgg11-mse", "mnist-resnet18-mse", "mnist-densenet40-mse"),
    *("fashion-mnist-vgg11-mse", "fashion-mnist-resnet18-mse", "fashion-mnist-densenet250-mse"),
    *("svhn-vgg13-mse", "svhn-resnet34-mse", "svhn-densenet40-mse"),
    *("cifar10-vgg11-mse", "cifar10-resnet50-mse", "cifar10-densenet100-mse"),
    *("stl10-vgg11-mse", "stl10-resnet18-mse", "stl10-densenet201-mse"),
]
QUICK = TrainingConfig(**{**TINY, "epochs": 3})


def tiny(*seeds: int, common: TrainingConfig = QUICK, **options: Any) -> list[plan.Cell]:
    return plan.cells(["digits"], ["mlp"], ["mse"], seeds or (0,), common, **options)


def run_now(cell: plan.Cell, out: Path) -> Run:
    run, data = prepare(cell.settings, out=out / cell.name)
    train(run, data)
    return run


def only_state(cells: list[plan.Cell], out: Path) -> plan.Planned:
    (planned,) = plan.plan(cells, out)
    return planned


def test_the_papers_cells_with_their_depths() -> None:
    from neuralcollapse.training import protocol

    cells = plan.cells(protocol.DATASETS, protocol.NETWORKS, ["mse"], [0], TrainingConfig())
    assert [cell.name for cell in cells] == PAPER
    assert all(cell.settings.learning_rate is None for cell in cells)  # left to the protocol's tuned rates
    both = plan.cells(protocol.DATASETS, protocol.NETWORKS, ["mse", "ce"], [0, 1], TrainingConfig(epochs=7))
    assert len(both) == 60 and both[3].name == "mnist-vgg11-ce-s1"
    assert both[3].settings == TrainingConfig(dataset="mnist", model="vgg11", loss="ce", seed=1, epochs=7)


def test_only_takes_patterns_and_refuses_what_matches_nothing() -> None:
    cells = plan.cells(["mnist", "digits"], ["vgg", "resnet"], ["mse", "ce"], [0], TrainingConfig())
    assert [cell.name for cell in plan.only(cells, ["mnist-*-mse"])] == ["mnist-vgg11-mse", "mnist-resnet18-mse"]
    assert plan.only(cells, []) == cells
    with pytest.raises(InputError, match="--only svhn"):
        plan.only(cells, ["mnist-*", "svhn*"])
    with pytest.raises(InputError, match="unknown data set 'imagenet'"):
        plan.cells(["imagenet"], ["vgg"], ["mse"], [0], TrainingConfig())
    with pytest.raises(InputError, match="--seeds"):
        plan.cells(["mnist"], ["vgg"], ["mse"], [], TrainingConfig())


def test_a_recipe_changes_the_cells_it_is_for_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "recipes.json"
    path.write_text(json.dumps([{"seed": 1, "learning_rate": 0.5}, {"model": "mlp", "momentum": 0.0}]))
    cells = tiny(0, 1, found=recipes.read(path))
    assert [cell.settings.learning_rate for cell in cells] == [None, 0.5]
    assert [cell.settings.momentum for cell in cells] == [0.0, 0.0]
    given = dataclasses.replace(QUICK, learning_rate=0.1)  # what is typed goes before
    assert [cell.settings.learning_rate for cell in tiny(0, 1, common=given, found=recipes.read(path))] == [0.1, 0.1]
    path.write_text(json.dumps([{"dataset": "mnist", "learning_rate": 0.5}]))
    with pytest.raises(InputError, match="none of the cells"):
        tiny(found=recipes.read(path))
    path.write_text(json.dumps([{"seed": 1, "learning_rate": 0.5}, {"learning_rate": 0.4}]))
    with pytest.raises(InputError, match=r"learning_rate of digits, mlp, mse: 0\.5 and 0\.4"):
        tiny(1, found=recipes.read(path))


def test_the_plan_sees_how_far_each_cell_is(tmp_path: Path) -> None:
    (cell,) = cells = tiny()
    assert only_state(cells, tmp_path).state is State.NEW
    (tmp_path / cell.name).touch()
    planned = only_state(cells, tmp_path)
    assert planned.state is State.OTHER and planned.why.endswith("is a file; choose another --out")
    (tmp_path / cell.name).unlink()
    run = run_now(cell, tmp_path)
    assert only_state(cells, tmp_path).state is State.FINISHED
    run.write_status(**{**run.status(), "status": "running", "epoch": 2})  # as a killed process leaves it
    planned = only_state(cells, tmp_path)
    assert (planned.state, planned.epoch) == (State.STARTED, 2) and plan.to_run([planned]) == [planned]
    with run.locked():
        planned = only_state(cells, tmp_path)
        assert planned.state is State.BUSY and not plan.to_run([planned])
    planned = only_state(tiny(common=dataclasses.replace(QUICK, epochs=4)), tmp_path)
    assert planned.state is State.OTHER and "epochs: 3, now 4" in planned.why and not plan.to_run([planned])
    run.write_status(status="failed", epoch=2, error="RuntimeError: no")
    planned = only_state(cells, tmp_path)
    assert (planned.state, planned.why) == (State.FAILED, "RuntimeError: no") and plan.to_run([planned]) == [planned]


def test_a_diverged_cell_is_reported_until_its_rate_is_another(tmp_path: Path) -> None:
    wild = tiny(common=dataclasses.replace(QUICK, learning_rate=1e6))
    run_now(wild[0], tmp_path)
    planned = only_state(wild, tmp_path)
    assert planned.state is State.DIVERGED and "diverged in epoch 1" in planned.why
    assert not plan.to_run([planned]) and plan.to_run([planned], retry_diverged=True) == [planned]
    planned = only_state(tiny(), tmp_path)
    assert planned.state is State.NEW and planned.aside
    for number in (1, 2):
        plan.set_aside(planned.path)
        assert (tmp_path / ".earlier" / f"digits-mlp-mse-{number}" / "config.json").is_file()
        run_now(wild[0], tmp_path)


def test_a_cell_without_its_data_stops_no_other(tmp_path: Path) -> None:
    cells = plan.cells(["digits", "svhn"], ["mlp"], ["mse"], [0], QUICK)
    states = [planned.state for planned in plan.plan(cells, tmp_path)]
    assert states == [State.NEW, State.NO_DATA]
    with pytest.raises(InputError, match="svhn not found"):
        plan.plan(cells[1:], tmp_path)


def test_the_estimate_times_equal_networks_once(tmp_path: Path) -> None:
    attacked = dataclasses.replace(QUICK, epochs=100, robustness_examples=100)
    cells = plan.cells(["digits"], ["mlp"], ["mse", "ce"], [0, 1], attacked)
    planned = plan.plan(cells, tmp_path)
    planned[1] = dataclasses.replace(planned[1], epoch=60, seconds=30.0)
    asked: list[str] = []
    found = estimate(planned, 1, asked.append)
    assert asked == ["digits-mlp-mse"] and set(found) == {cell.name for cell in cells}
    cost = found["digits-mlp-ce-s1"]
    assert cost.seconds is not None and cost.memory is not None and not cost.note
    assert 8 < cost.seconds < 300 and 1e8 < cost.memory < 4e9  # PyTorch alone has some 300 MB
    assert found["digits-mlp-mse-s1"].seconds == pytest.approx(20.0)  # by its own first 60 epochs


def test_robustness_is_in_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second an image, on the thirty of them, at each of the measured epochs that are left."""
    cost = {"train": 0.0, "measure": 0.0, "fixed": 0.0, "dim": 1, "whole": 1.0, "memory": 0, "gpu": 0, "attack": 0.5}
    module = importlib.import_module("neuralcollapse.study.estimate")  # its name in the package is the function
    monkeypatch.setattr(module, "_probe", lambda *_: cost)
    (cell,) = tiny(common=dataclasses.replace(QUICK, epochs=18, robustness_examples=30))
    planned = plan.plan([cell], tmp_path)
    (found,) = estimate(planned, 1).values()
    assert found.seconds == pytest.approx(8 + 17 * 30 * 0.5)  # epochs 1 … 14, 16, 17 and 18


def test_the_plan_is_told_in_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "machine_memory", lambda: 2.4e10)
    cells = plan.cells(["digits"], ["mlp"], ["mse"], [0, 1], QUICK)
    planned = [plan.Planned(cell, Path(cell.name), State.NEW) for cell in cells]
    planned[1] = dataclasses.replace(planned[1], state=State.NO_DATA, why="digits not found")
    costs = {cells[0].name: Estimate(5400.0, 5e10)}
    console = Console(file=io.StringIO(), width=80)
    console.print(plan_table(planned, costs))
    assert "digits-mlp-mse-s1" in console.file.getvalue() and "1.5 h" in console.file.getvalue()  # type: ignore[attr-defined]
    notes = plan_notes(planned, costs, How())
    assert "1 to train: about 1.5 h in all" in notes[0] and "more memory than there is" in notes[1]
    assert "memory about 50.0 GB of this machine's 24.0 GB" in notes[0] and "GPU" not in notes[0]
    assert notes[2] == "digits-mlp-mse-s1: digits not found"
    monkeypatch.setattr(board, "gpu_memory", lambda: 8e10)
    on_gpu = {cells[0].name: Estimate(5400.0, 5e10, gpu=4e10), cells[1].name: Estimate(5400.0, 5e10, gpu=4e10)}
    notes = plan_notes(planned, on_gpu, How(jobs=2))  # 10 GB of the machine and 40 of the GPU each: fits
    assert "20.0 GB of this machine's 24.0 GB, 80.0 GB of its GPU's 80.0 GB" in notes[0] and len(notes) == 2
    assert "the cluster's are other ones" in plan_notes(planned, on_gpu, How(ray="auto"))[1]
    assert [duration(seconds) for seconds in (3, 600, 2e5, None)] == ["3 s", "10 min", "2.3 d", "?"]


def finished_or_running(out: Path, finished: int, least: int) -> bool:
    done = sum(
        (out / name / "status.json").is_file() and Run.open(out / name).status()["status"] == "finished"
        for name in (path.name for path in out.iterdir())
    )
    return done >= finished and any(epoch(path) >= least for path in out.iterdir())


def test_killed_in_the_middle_and_started_again(tmp_path: Path) -> None:
    """Six cells, one of which diverges; kill −9 of all processes, then the same command once more."""
    out = tmp_path / "grid"
    wild = tmp_path / "wild.json"
    wild.write_text(json.dumps({"loss": "ce", "seed": 1, "learning_rate": 1e6}))
    sizes = ["--datasets", "digits", "--models", "mlp", "--losses", "mse", "ce", "--seeds", "0", "1", "2", *OPTIONS]
    command = ["grid", *sizes, "--recipe", str(wild), "--out", str(out), "--jobs", "2", "--threads", "1"]
    process = start(*command)
    out.mkdir()
    wait_for(lambda: finished_or_running(out, finished=1, least=5), process)
    kill_all(process)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*/checkpoint.pt") if epoch(path.parent) == -1}
    again = start(*command)
    told, problems = again.communicate(timeout=180)
    assert again.returncode == 1
    assert problems == "neuralcollapse: digits-mlp-ce-s1: diverged in epoch 1: the loss is no longer finite\n"
    assert "at epoch" in told and told.count("finished  epoch 40") == 6 - 1 - len(kept)
    assert kept and all(path.stat().st_mtime_ns == time for path, time in kept.items())  # left alone
    for loss in ("mse", "ce"):
        for seed in (0, 1, 2):
            name = f"digits-mlp-{loss}" + (f"-s{seed}" if seed else "")
            if name != "digits-mlp-ce-s1":
                whole = uninterrupted(tmp_path / "whole" / name, loss=loss, seed=seed)
                assert without_clock(out / name) == whole, name
    environment = json.loads((out / "digits-mlp-mse" / "environment.json").read_text())
    assert environment["command"].startswith("neuralcollapse grid --datasets digits")


def test_a_cell_that_fails_says_why(tmp_path: Path) -> None:
    """By an error, by a kill, and by an interrupt; each in a process of its own."""
    long = {**TINY, "dataset": "digits", "model": "mlp", "epochs": 100_000}
    damaged = Run.create(tmp_path / "damaged", dataclasses.asdict(prepare(QUICK, out=tmp_path / "x").config))
    (damaged.path / "checkpoint.pt").write_bytes(b"no")
    pool = processes.LocalPool(jobs=3)
    for name, settings in (("damaged", {}), ("killed", long), ("interrupted", long)):
        pool.start(Task(str(tmp_path / name), settings, ["neuralcollapse", "grid"], 1))
    assert not pool.room()
    ended: dict[str, processes.Ending] = {}
    while len(ended) < 1 or min(epoch(tmp_path / name) for name in ("killed", "interrupted")) < 2:
        ended |= pool.collect(0.1)
    pool._running[str(tmp_path / "killed")].kill()
    while len(ended) < 2:
        ended |= pool.collect(0.1)
    ended |= pool.stop()
    assert not pool.busy()
    by_name = {Path(path).name: (ending.status, ending.why) for path, ending in ended.items()}
    assert by_name["interrupted"] == ("interrupted", "")
    assert by_name["killed"] == ("failed", "killed by SIGKILL (out of memory?)")
    assert by_name["damaged"][0] == "failed" and "checkpoint.pt is no readable checkpoint" in by_name["damaged"][1]
    assert Run.open(tmp_path / "killed").status()["epoch"] >= 2
    assert {name: Run.open(tmp_path / name).status()["status"] for name in by_name} == {
        name: status for name, (status, _) in by_name.items()
    }
    assert "no readable checkpoint" in (tmp_path / "damaged" / "log.txt").read_text()


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "estimate", lambda *_: {})
    console = Console(file=io.StringIO())
    outcome = grid.carry_out(tiny(), tmp_path / "grid", How(dry_run=True), console)
    assert outcome.states == {"digits-mlp-mse": State.NEW} and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (How(jobs=0), "--jobs must be at least 1"),
        (How(threads=0), "--threads"),
        (How(cpus_per_cell=-1), "--cpus-per-cell must be"),
        (How(cpus_per_cell=2), "--cpus-per-cell 2 is what Ray is asked for; add --ray"),
        (How(gpus_per_cell=0.5), r"--gpus-per-cell 0\.5 is what Ray is asked for"),
        (How(ray="local", jobs=2), "--jobs 2 has no use with --ray"),
        (How(), "notes.txt is a file; --out must name a folder"),
    ],
)
def test_what_cannot_be_is_refused_before_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: How, message: str
) -> None:
    monkeypatch.setattr(plan, "plan", lambda *_: pytest.fail("planned"))
    (tmp_path / "notes.txt").touch()
    for out in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "below"):
        with pytest.raises(InputError, match=message):
            grid.carry_out(tiny(), out, how, Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("status.json", '{"epoch"'),
        ("status.json", '{"status": "running", "epoch": null}'),
        ("status.json", '{"status": ["running"]}'),
        ("status.json", '{"epoch": 2, "seconds": "x"}'),
        ("config.json", "[1]"),
        ("history.jsonl", '{"epoch": 1\n{}\n'),
        ("history.jsonl", '{"loss": 1}\n'),
        ("history.jsonl", "[" * 100_000 + "\n"),
    ],
)
def test_a_damaged_file_of_one_cell_stops_no_other(tmp_path: Path, name: str, content: str) -> None:
    cells = tiny(0, 1)
    config, _ = load_and_resolve(cells[0].settings)
    run = Run.create(tmp_path / cells[0].name, dataclasses.asdict(config))
    (run.path / name).write_text(content)
    planned = plan.plan(cells, tmp_path)
    damaged = name != "history.jsonl"  # which no plan reads
    assert [each.state for each in planned] == [State.FAILED if damaged else State.STARTED, State.NEW]
    assert (name in planned[0].why) == damaged and plan.to_run(planned) == planned
    console = Console(file=io.StringIO(), width=200)
    console.print(plan_table(planned, {}), board.Board(console, planned, {}, []).table())
    if damaged:
        assert name in processes.ending(run.path, 1).why
        task.note_failure(run.path, "so")
        assert Run(run.path, {}).status() == {"epoch": 0, "status": "failed", "error": "so"} | (
            {} if name == "config.json" else {"epochs": 3}
        )


def test_what_is_taken_up_meanwhile_is_not_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between plan and start another process trains the diverged run: it is left where it is."""
    monkeypatch.setattr(grid, "estimate", lambda *_: {})
    monkeypatch.setattr(processes.LocalPool, "start", lambda *_: pytest.fail("started"))
    (cell,) = cells = tiny()
    config, _ = load_and_resolve(cell.settings)
    run = Run.create(tmp_path / cell.name, dataclasses.asdict(config))
    run.write_status(status="diverged", epoch=0)
    planned = plan.plan(cells, tmp_path)
    monkeypatch.setattr(plan, "plan", lambda *_: planned)
    how, console = How(retry_diverged=True), Console(file=io.StringIO())
    with run.locked():
        outcome = grid.carry_out(cells, tmp_path, how, console)
    assert outcome.states == {cell.name: State.BUSY} and "another process is training" in outcome.problems[cell.name]
    run.write_status(status="running", epoch=1)
    assert grid.carry_out(cells, tmp_path, how, console).states == {cell.name: State.BUSY}
    assert run.status()["epoch"] == 1 and not (tmp_path / ".earlier").exists()


def test_a_grid_lists_the_runs_of_its_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, whether trained now or not; a later grid adds its own."""
    monkeypatch.setattr(grid, "estimate", lambda *_: {})
    monkeypatch.setattr(grid, "_train", lambda *_: False)
    console = Console(file=io.StringIO())
    grid.carry_out(tiny(0), tmp_path, How(), console, ["digits-mlp-mse", "digits-mlp-mse-s1"])
    assert json.loads((tmp_path / "study.json").read_text()) == {"runs": ["digits-mlp-mse", "digits-mlp-mse-s1"]}
    grid.carry_out(tiny(2), tmp_path, How(), console)
    assert json.loads((tmp_path / "study.json").read_text())["runs"][2:] == [tiny(2)[0].name]


def test_names_in_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    planned = [plan.Planned(plan.Cell("[bold]digits[/x]", QUICK), tmp_path / "none", State.NEW)]
    console = Console(file=io.StringIO(), width=120)
    console.print(plan_table(planned, {}), board.Board(console, planned, {}, []).table())
    assert console.file.getvalue().count("[bold]digits[/x]") == 2  # type: ignore[attr-defined]
