"""Grids: which cells there are, what is left to do, and that a kill or a failure costs no other cell anything."""

from __future__ import annotations

import dataclasses
import io
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.grids import (
    OPTIONS,
    TINY,
    HereOptions,
    InThisProcess,
    epoch,
    kill_when,
    start,
    uninterrupted,
    wait_for,
    without_clock,
)
from rich.console import Console

from neuralcollapse import InputError
from neuralcollapse.cli import main
from neuralcollapse.cli.grid import plan_code
from neuralcollapse.cli.grid_progress import GridDisplay
from neuralcollapse.study.grid import GridProgress, GridResult, run_grid
from neuralcollapse.study.local_processes import WorkerProcess
from neuralcollapse.study.options import GridOptions
from neuralcollapse.study.plan import (
    Cell,
    PlannedCell,
    cells_to_train,
    make_cells,
    plan_cells,
    select_cells,
    set_aside,
)
from neuralcollapse.study.task import Ending, State, Task, read_ending, write_failure
from neuralcollapse.training import checkpoint, recipes
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import load_and_resolve, prepare
from neuralcollapse.training.run_directory import Run, Status
from neuralcollapse.training.trainer import train

PAPER = [
    *("mnist-vgg11-mse", "mnist-resnet18-mse", "mnist-densenet40-mse"),
    *("fashion-mnist-vgg11-mse", "fashion-mnist-resnet18-mse", "fashion-mnist-densenet250-mse"),
    *("svhn-vgg13-mse", "svhn-resnet34-mse", "svhn-densenet40-mse"),
    *("cifar10-vgg11-mse", "cifar10-resnet50-mse", "cifar10-densenet100-mse"),
    *("stl10-vgg11-mse", "stl10-resnet18-mse", "stl10-densenet201-mse"),
]
QUICK = TrainingConfig(**{**TINY, "epochs": 3})


def tiny(*seeds: int, common: TrainingConfig = QUICK, **options: Any) -> list[Cell]:
    return make_cells(["digits"], ["mlp"], ["mse"], seeds or (0,), common, **options)


def run_now(cell: Cell, out: Path) -> Run:
    run, data = prepare(cell.config, out=out / cell.name)
    train(run, data)
    return run


def only_state(cells: list[Cell], out: Path) -> PlannedCell:
    (planned,) = plan_cells(cells, out)
    return planned


def test_the_papers_cells_with_their_depths() -> None:
    from neuralcollapse.training import recipes

    cells = make_cells(recipes.PAPER_DATASETS, recipes.PAPER_FAMILIES, ["mse"], [0], TrainingConfig())
    assert [cell.name for cell in cells] == PAPER
    assert all(cell.config.learning_rate is None for cell in cells)  # left to the protocol's tuned rates
    both = make_cells(recipes.PAPER_DATASETS, recipes.PAPER_FAMILIES, ["mse", "ce"], [0, 1], TrainingConfig(epochs=7))
    assert len(both) == 60 and both[3].name == "mnist-vgg11-ce-s1"
    assert both[3].config == TrainingConfig(dataset="mnist", model="vgg11", loss="ce", seed=1, epochs=7)


def test_only_takes_patterns_and_refuses_what_matches_nothing() -> None:
    cells = make_cells(["mnist", "digits"], ["vgg", "resnet"], ["mse", "ce"], [0], TrainingConfig())
    assert [cell.name for cell in select_cells(cells, ["mnist-*-mse"])] == ["mnist-vgg11-mse", "mnist-resnet18-mse"]
    assert select_cells(cells, []) == cells
    with pytest.raises(InputError, match="--only svhn"):
        select_cells(cells, ["mnist-*", "svhn*"])
    with pytest.raises(InputError, match="unknown data set 'imagenet'"):
        make_cells(["imagenet"], ["vgg"], ["mse"], [0], TrainingConfig())
    with pytest.raises(InputError, match="--seeds"):
        make_cells(["mnist"], ["vgg"], ["mse"], [], TrainingConfig())


def test_a_recipe_changes_the_cells_it_is_for_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "recipes.json"
    path.write_text(json.dumps([{"seed": 1, "learning_rate": 0.5}, {"model": "mlp", "momentum": 0.0}]))
    cells = tiny(0, 1, found=recipes.read(path))
    assert [cell.config.learning_rate for cell in cells] == [None, 0.5]
    assert [cell.config.momentum for cell in cells] == [0.0, 0.0]
    given = dataclasses.replace(QUICK, learning_rate=0.1)  # what is typed goes before
    assert [cell.config.learning_rate for cell in tiny(0, 1, common=given, found=recipes.read(path))] == [0.1, 0.1]
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
    run.write_status(run.status().model_copy(update={"status": "running", "epoch": 2}))  # as a killed process leaves it
    planned = only_state(cells, tmp_path)
    assert (planned.state, planned.epoch) == (State.STARTED, 2) and cells_to_train([planned]) == [planned]
    with run.locked():
        planned = only_state(cells, tmp_path)
        assert planned.state is State.BUSY and not cells_to_train([planned])
    planned = only_state(tiny(common=dataclasses.replace(QUICK, epochs=4)), tmp_path)
    assert planned.state is State.OTHER and "epochs: 3, now 4" in planned.why and not cells_to_train([planned])
    run.write_status(Status(status="failed", epoch=2, error="RuntimeError: no"))
    planned = only_state(cells, tmp_path)
    assert (planned.state, planned.why) == (State.FAILED, "RuntimeError: no") and cells_to_train([planned]) == [planned]


def test_a_diverged_cell_is_reported_until_its_rate_is_another(tmp_path: Path) -> None:
    wild = tiny(common=dataclasses.replace(QUICK, learning_rate=1e6))
    run_now(wild[0], tmp_path)
    planned = only_state(wild, tmp_path)
    assert planned.state is State.DIVERGED and "diverged in epoch 1" in planned.why
    assert not cells_to_train([planned]) and cells_to_train([planned], retry_diverged=True) == [planned]
    planned = only_state(tiny(), tmp_path)
    assert planned.state is State.NEW and planned.replaces
    for number in (1, 2):
        set_aside(planned.path)
        assert (tmp_path / ".earlier" / f"digits-mlp-mse-{number}" / "config.json").is_file()
        run_now(wild[0], tmp_path)


def test_a_cell_without_its_data_stops_no_other(tmp_path: Path) -> None:
    cells = make_cells(["digits", "svhn"], ["mlp"], ["mse"], [0], QUICK)
    states = [planned.state for planned in plan_cells(cells, tmp_path)]
    assert states == [State.NEW, State.NO_DATA]
    with pytest.raises(InputError, match="svhn not found"):
        run_grid(cells[1:], tmp_path, GridOptions())


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"downsample": 3}, "digits-mlp-mse: .*8 × 8"),
        ({"examples_per_class": 500}, "digits-mlp-mse: expected at least 500 examples of each class"),
        ({"test_examples_per_class": 500}, "digits-mlp-mse: .*--test-examples-per-class"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_settings_that_do_not_fit_the_data_are_no_missing_data(wrong: dict[str, Any], why: str, tmp_path: Path) -> None:
    """Beside a data set that is missing indeed: the command must not end well."""
    cells = make_cells(["svhn", "digits"], ["mlp"], ["mse"], [0], dataclasses.replace(QUICK, **wrong))
    with pytest.raises(InputError, match=why):
        run_grid(cells, tmp_path / "out", GridOptions())
    assert not (tmp_path / "out").exists()


def test_damaged_data_stop_no_other(tmp_path: Path) -> None:
    (tmp_path / "train_32x32.mat").write_bytes(b"no data")
    (tmp_path / "test_32x32.mat").write_bytes(b"no data")
    with pytest.warns(UserWarning, match="data-dir .* is not used for digits, which come with scikit-learn"):
        cells = make_cells(["digits", "svhn"], ["mlp"], ["mse"], [0], dataclasses.replace(QUICK, data_dir=tmp_path))
    planned = plan_cells(cells, tmp_path / "out")
    assert [each.state for each in planned] == [State.NEW, State.NO_DATA]
    assert "32x32.mat" in planned[1].why and "not found" not in planned[1].why


def finished_in(out: Path) -> list[Path]:
    """The run directories whose training has ended."""
    return [path for path in sorted(out.iterdir()) if Run(path).status().status == "finished"]


def test_killed_in_the_middle_and_started_again(tmp_path: Path) -> None:
    """Six cells, one of which diverges; kill −9 of all processes, then the same command once more."""
    out = tmp_path / "grid"
    wild = tmp_path / "wild.json"
    wild.write_text(json.dumps({"loss": "ce", "seed": 1, "learning_rate": 1e6}))
    sizes = ["--datasets", "digits", "--models", "mlp", "--losses", "mse", "ce", "--seeds", "0", "1", "2", *OPTIONS]
    command = ["grid", *sizes, "--recipe", str(wild), "--out", str(out), "--jobs", "2", "--threads", "1"]
    process = start(*command)
    out.mkdir()
    kill_when(lambda: bool(finished_in(out)) and any(5 <= epoch(path) < 40 for path in out.iterdir()), process)
    kept = {run / "checkpoint.pt": (run / "checkpoint.pt").stat().st_mtime_ns for run in finished_in(out)}
    again = start(*command)
    told, problems = again.communicate(timeout=500)
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


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_grid_that_is_stopped_stops_its_workers(tmp_path: Path, sent: signal.Signals) -> None:
    """Both keep their last finished epoch, as status and checkpoint say."""
    out, long = tmp_path / "grid", [*OPTIONS, "--epochs", "100000"]
    sizes = ["--datasets", "digits", "--models", "mlp", "--seeds", "0", "1", *long]
    process = start("grid", *sizes, "--out", str(out), "--jobs", "2", "--threads", "1")
    names = ("digits-mlp-mse", "digits-mlp-mse-s1")
    wait_for(lambda: all(epoch(out / name) >= 2 for name in names), process)
    process.send_signal(sent)
    _, problems = process.communicate(timeout=300)
    assert process.returncode == 130 and "repeat the command to continue" in problems
    for name in names:
        run = Run.open(out / name)
        status, state = run.status(), checkpoint.read(run)
        assert status.status == "interrupted" and not run.is_locked()
        assert state is not None and state["progress"]["epoch"] == status.epoch >= 2


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_grid_that_is_stopped_stops_the_epoch_it_times(tmp_path: Path, sent: signal.Signals) -> None:
    slow = ["--datasets", "digits", "--models", "resnet18", "--precision", "32", "--device", "cpu"]
    process = start("grid", *slow, "--out", str(tmp_path / "grid"), "--threads", "1")
    grid = psutil.Process(process.pid)
    # by then the grid waits for it; before, it would end at the end of its input, after importing
    wait_for(lambda: any(child.cpu_times().user > 1 for child in grid.children()), process)
    timed = grid.children()
    process.send_signal(sent)
    process.communicate(timeout=300)
    assert process.returncode == 130
    assert not psutil.wait_procs(timed, timeout=5)[1]


def test_sigterm_stops_a_grid_whose_executor_has_a_handler_of_its_own(
    tmp_path: Path, untimed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `ray.init` sets one, by which the process would end at once, without stopping what it has begun."""

    class OfRay(InThisProcess):
        def __init__(self, out: Path, options: GridOptions) -> None:
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))

        def submit(self, task: Task) -> Any:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("helpers.grids.InThisProcess", OfRay)
    before = signal.getsignal(signal.SIGTERM)
    try:
        result = run_grid(tiny(), tmp_path / "grid", HereOptions(in_this_process=True))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert result.interrupted


def test_a_cell_that_fails_says_why(tmp_path: Path) -> None:
    """By an error, by a kill, and by an interrupt; each in a process of its own."""
    long = {**TINY, "dataset": "digits", "model": "mlp", "epochs": 100_000}
    damaged = Run.create(tmp_path / "damaged", prepare(QUICK, out=tmp_path / "x")[0].config)
    (damaged.path / "checkpoint.pt").write_bytes(b"no")
    workers = {
        name: WorkerProcess(Task(str(tmp_path / name), settings, ["neuralcollapse", "grid"], 1))
        for name, settings in (("damaged", {}), ("killed", long), ("interrupted", long))
    }
    end = time.monotonic() + 400
    while min(epoch(tmp_path / name) for name in ("killed", "interrupted")) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    workers["killed"].process.kill()
    workers["interrupted"].stop()
    for worker in workers.values():
        worker.process.wait()
    endings = {name: worker.poll() for name, worker in workers.items()}
    assert endings["interrupted"] == Ending(State.INTERRUPTED)
    assert endings["killed"] == Ending(State.FAILED, "killed by SIGKILL (out of memory?)")
    assert endings["damaged"] is not None and endings["damaged"].state is State.FAILED
    assert "checkpoint.pt is not a readable checkpoint" in endings["damaged"].why
    assert Run.open(tmp_path / "killed").status().epoch >= 2
    for name, ending in endings.items():
        assert ending is not None and Run.open(tmp_path / name).status().status == ending.state
    assert "not a readable checkpoint" in (tmp_path / "damaged" / "log.txt").read_text()


def test_a_pattern_without_a_cell_names_the_nearest_and_not_all() -> None:
    cells = make_cells(["digits", "mnist"], ["mlp", "resnet18"], ["mse", "ce"], [0, 1], TrainingConfig())
    with pytest.raises(InputError, match=r"matches none of the cells \(did you mean 'mnist-mlp-mse-s1'.*and 4 more$"):
        select_cells(cells, ["mnist-mlp-mse-s3"])


def test_the_plan_says_by_its_exit_code_that_a_directory_is_another_runs(
    tmp_path: Path, untimed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (cell,) = make_cells(["digits"], ["mlp"], ["mse"], [0], TrainingConfig(**TINY))
    plan = ["grid", "--datasets", "digits", "--models", "mlp", "--out", str(tmp_path), "--dry-run"]
    Run.create(tmp_path / cell.name, load_and_resolve(cell.config)[0])
    for command, code in (([*plan, *OPTIONS], 0), (plan, 1)):
        with pytest.raises(SystemExit) as exit_:
            main(command)
        assert exit_.value.code == code
    assert "other settings" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("state", "code", "in_a_sweep"),
    [
        *((State.NEW, 0, 0), (State.STARTED, 0, 0), (State.NO_DATA, 0, 0), (State.FINISHED, 0, 0)),
        *((State.FAILED, 1, 1), (State.OTHER, 1, 1), (State.DIVERGED, 1, 0)),
    ],
)
def test_the_exit_code_of_a_plan(state: State, code: int, in_a_sweep: int) -> None:
    result = GridResult({"one": State.FINISHED, "two": state}, {})
    assert plan_code(result, may_diverge=False) == code
    assert plan_code(result, may_diverge=True) == in_a_sweep


def test_a_dry_run_writes_nothing(tmp_path: Path, untimed: None) -> None:
    result = run_grid(tiny(), tmp_path / "grid", GridOptions(dry_run=True))
    assert result.states == {"digits-mlp-mse": State.NEW} and not list(tmp_path.iterdir())


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
    config, _ = load_and_resolve(cells[0].config)
    run = Run.create(tmp_path / cells[0].name, config)
    (run.path / name).write_text(content)
    planned = plan_cells(cells, tmp_path)
    damaged = name != "history.jsonl"  # which no plan reads
    assert [each.state for each in planned] == [State.FAILED if damaged else State.STARTED, State.NEW]
    assert (name in planned[0].why) == damaged and cells_to_train(planned) == planned
    console = Console(file=io.StringIO(), width=200)
    with GridDisplay(console) as display:
        display.planned(planned, {}, [], GridOptions())
        display.changed(planned[0].cell.name, State.FAILED, planned[0].why)
    if damaged:
        assert name in read_ending(run.path, 1).why
        write_failure(run.path, "so")
        epochs = None if name == "config.json" else 3
        assert Run(run.path).status() == Status(status="failed", epochs=epochs, error="so")


class TakenUp(GridProgress):
    """Between plan and start another process trains the run."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def planned(self, *_: object) -> None:
        self.run.write_status(Status(status="running", epoch=1))


def test_what_is_taken_up_meanwhile_is_not_set_aside(tmp_path: Path, untimed: None) -> None:
    """A diverged run that another process has taken up since the plan was made is left where it is."""
    (cell,) = cells = tiny()
    config, _ = load_and_resolve(cell.config)
    run = Run.create(tmp_path / cell.name, config)
    run.write_status(Status(status="diverged"))
    with pytest.raises(InputError, match="another process is training"), run.locked():
        set_aside(run.path)
    result = run_grid(cells, tmp_path, GridOptions(retry_diverged=True), TakenUp(run))
    assert result.states == {cell.name: State.BUSY} and "by another process meanwhile" in result.problems[cell.name]
    assert run.status().epoch == 1 and not (tmp_path / ".earlier").exists()


def test_a_grid_lists_the_runs_of_its_study(tmp_path: Path, untimed: None) -> None:
    """All of them, whether trained now or not; a later grid adds its own."""
    options = HereOptions(in_this_process=True)
    run_grid(tiny(0), tmp_path, options, None, ["digits-mlp-mse", "digits-mlp-mse-s1"])
    assert json.loads((tmp_path / "study.json").read_text()) == {"runs": ["digits-mlp-mse", "digits-mlp-mse-s1"]}
    run_grid(tiny(2), tmp_path, options)
    assert json.loads((tmp_path / "study.json").read_text())["runs"][2:] == [tiny(2)[0].name]
