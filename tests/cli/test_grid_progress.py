"""What the terminal shows of a grid, at eighty columns."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from helpers.grids import TINY
from rich.console import Console

from neuralcollapse._files import append_line
from neuralcollapse.cli import grid_progress
from neuralcollapse.cli.grid_progress import GridDisplay, duration, plan_notes, plan_table
from neuralcollapse.study.estimate import Estimate
from neuralcollapse.study.options import GridOptions
from neuralcollapse.study.plan import Cell, PlannedCell, make_cells, plan_cells
from neuralcollapse.study.task import State
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.run_directory import Run, Status

QUICK = TrainingConfig(**{**TINY, "epochs": 3})


def printed(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_the_plan_is_told_in_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_progress, "machine_memory", lambda: 2.4e10)
    cells = make_cells(["digits"], ["mlp"], ["mse"], [0, 1], QUICK)
    planned = [PlannedCell(cell, Path(cell.name), State.NEW) for cell in cells]
    planned[1] = dataclasses.replace(planned[1], state=State.NO_DATA, why="digits not found")
    costs = {cells[0].name: Estimate(5400.0, 5e10)}
    console = Console(file=io.StringIO(), width=80)
    console.print(plan_table(planned, costs))
    assert "digits-mlp-mse-s1" in printed(console) and "1.5 h" in printed(console)
    notes = plan_notes(planned, costs, GridOptions())
    assert "1 to train: about 1.5 h in all" in notes[0] and "more memory than there is" in notes[1]
    assert "memory about 50.0 GB of this machine's 24.0 GB" in notes[0] and "GPU" not in notes[0]
    assert notes[2] == "digits-mlp-mse-s1: digits not found"
    monkeypatch.setattr(grid_progress, "gpu_memory", lambda: 8e10)
    on_gpu = {cells[0].name: Estimate(5400.0, 5e10, gpu=4e10), cells[1].name: Estimate(5400.0, 5e10, gpu=4e10)}
    notes = plan_notes(planned, on_gpu, GridOptions(jobs=2))  # 10 GB of the machine and 40 of the GPU each: fits
    assert "20.0 GB of this machine's 24.0 GB, 80.0 GB of its GPU's 80.0 GB" in notes[0] and len(notes) == 2
    for elsewhere in (GridOptions(ray="auto"), GridOptions(slurm=True)):
        assert "those of the cluster differ" in plan_notes(planned, on_gpu, elsewhere)[1]
    assert [duration(seconds) for seconds in (3, 600, 2e5, None)] == ["3 s", "10 min", "2.3 d", "?"]


def test_the_widest_rows_fit_into_eighty_columns(tmp_path: Path) -> None:
    """The longest name, state and numbers: names are folded, numbers never cut."""
    (cell,) = make_cells(["digits"], ["mlp"], ["mse"], [0], dataclasses.replace(QUICK, epochs=350))
    (planned,) = plan_cells([cell], tmp_path)
    assert planned.resolved is not None
    config = dataclasses.replace(planned.resolved, num_examples=60_000, width=0.125, learning_rate=0.001880302)
    name = "fashion-mnist-densenet250-mse-s12"
    wide = dataclasses.replace(planned, cell=Cell(name, cell.config), path=tmp_path / name, resolved=config)
    wide = dataclasses.replace(wide, state=State.FAILED, epoch=123)
    run = Run.create(wide.path, config)
    counts = {"epoch": 123, "num_examples": 200, "num_classes": 10, "snr": [1.0]}
    last = {"loss": 1.2e-5, "train_error": 0.12345, "nc1": 2.3e-4, "mse.total": 1.0, "mse.ls_perp": 4e-5}
    append_line(run.history_path, {**counts, **last})
    run.write_status(Status(status="failed", epoch=123, epochs=350))
    planning, console = Console(file=io.StringIO(), width=80), Console(file=io.StringIO(), width=80)
    planning.print(plan_table([wide], {name: Estimate(86_400.0, 1.23e10)}))
    with GridDisplay(console) as display:
        display.planned([wide], {name: Estimate(86_400.0, 1.23e10)}, [name], GridOptions())
        display.changed(name, State.RUNNING)
        display.changed(name, State.INTERRUPTED)
        console.file = io.StringIO()
    plan, live = printed(planning), printed(console)
    plan, live = (" " + table.replace("\n", " ") for table in (plan, live))
    for number in ("60,000", "0.125", "350", "0.0019", "24.0 h", "GB", "12.3"):
        assert f" {number} " in plan, plan
    for number in ("123/350", "1.2e-5", "12.35%", "2.3e-4", "4.0e-5", "L⊥/L", "left"):
        assert f" {number} " in live, live
    for table in (printed(planning), printed(console)):
        assert "".join(line.split(" ")[0] for line in table.splitlines()[2:]) == name
    assert "interrupted" in live and "…" not in plan + live


def test_smaller_images_are_told_under_the_plan(tmp_path: Path) -> None:
    cells = make_cells(["digits"], ["mlp"], ["mse"], [0, 1], dataclasses.replace(QUICK, downsample=2))
    planned = plan_cells([*cells, *make_cells(["digits"], ["mlp"], ["ce"], [0], QUICK)], tmp_path)
    assert plan_notes(planned, {}, GridOptions()) == ["2 cells: images of 1/2 the side"]


def test_names_in_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    planned = [PlannedCell(Cell("[bold]digits[/x]", QUICK), tmp_path / "none", State.NEW)]
    console = Console(file=io.StringIO(), width=120)
    with GridDisplay(console) as display:
        display.planned(planned, {}, [], GridOptions())
        display.changed("[bold]digits[/x]", State.FAILED, "no [data]")
    assert printed(console).count("[bold]digits[/x]") == 3 and "no [data]" in printed(console)


def test_a_terminal_has_a_live_table(tmp_path: Path) -> None:
    planned = [PlannedCell(Cell("digits-mlp-mse", QUICK), tmp_path / "none", State.NEW)]
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with GridDisplay(console) as display:
        display.timing("digits-mlp-mse")
        display.planned(planned, {}, ["digits-mlp-mse"], GridOptions())
        display.changed("digits-mlp-mse", State.RUNNING)
        display.tick()
        assert "running" in str(list(display.table().columns[1].cells))
        display.changed("digits-mlp-mse", State.FINISHED)
    assert "finished" in printed(console) and "digits-mlp-mse: running" not in printed(console)
