"""Many runs as one study: planned, estimated, each trained in a process of its own, gone on with after any crash."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape

from neuralcollapse._checks import InputError
from neuralcollapse.study import listing as study
from neuralcollapse.study import plan as planning
from neuralcollapse.study.board import Board, plan_notes, plan_table
from neuralcollapse.study.estimate import Estimate, estimate
from neuralcollapse.study.options import How, check
from neuralcollapse.study.plan import Cell, Planned, State, set_aside, to_run
from neuralcollapse.study.processes import Ending, LocalPool, Pool
from neuralcollapse.study.task import Task

__all__ = ["Cell", "How", "Outcome", "State", "carry_out"]


@dataclass(frozen=True)
class Outcome:
    """How a grid ended.

    Args:
        states: of each run, by name.
        problems: why a run is not finished, by name.
        interrupted: the user stopped it.
        dry: nothing was to be trained.
    """

    states: dict[str, State]
    problems: dict[str, str]
    interrupted: bool = False
    dry: bool = False


def carry_out(cells: Sequence[Cell], out: Path, how: How, console: Console, study_runs: Sequence[str] = ()) -> Outcome:
    """Plan the runs, say what they will cost, and train those that are not finished.

    Args:
        cells: the runs.
        out: the folder of their directories.
        how: where and how.
        console: what is told goes there.
        study_runs: names of all runs of the study, for `study.json`; those of the cells without it.

    Raises:
        InputError: options that cannot be, no run with its data, or no Ray where it is asked for.
    """
    check(how, out)
    planned = planning.plan(cells, out)
    listed = study_runs or [cell.name for cell in cells]
    chosen = to_run(planned, retry_diverged=how.retry_diverged)
    states = {each.cell.name: each.state for each in planned}
    problems = {each.cell.name: each.why for each in planned if each.why and each.state is not State.FINISHED}
    if how.dry_run or not chosen:
        if not how.dry_run:
            study.record(out, listed)
        _tell(planned, chosen, how, console)
        return Outcome(states, problems, dry=how.dry_run)
    with contextlib.closing(_pool(out, how)) as pool:  # before the estimate: no cluster is said at once
        study.record(out, listed)
        costs = _tell(planned, chosen, how, console)
        with Board(console, planned, costs, [each.cell.name for each in chosen]) as board:
            tasks = deque((each, _task(each, _threads(how))) for each in chosen)
            interrupted = _train(tasks, pool, board, states, problems)
    if board.plain:
        console.print(board.table())
    return Outcome(states, problems, interrupted)


def _tell(planned: Sequence[Planned], chosen: Sequence[Planned], how: How, console: Console) -> dict[str, Estimate]:
    """Print the plan; what each cell to be trained will cost."""
    with console.status("timing a few steps") as status:
        costs = estimate(chosen, _threads(how), lambda name: status.update(f"timing a few steps of {escape(name)}"))
    console.print(plan_table(planned, costs))
    for note in plan_notes(planned, costs, how):
        console.print(note, highlight=False, soft_wrap=True, markup=False)
    return costs


def _train(
    tasks: deque[tuple[Planned, Task]],
    pool: Pool,
    board: Board,
    states: dict[str, State],
    problems: dict[str, str],
) -> bool:
    """Keep the pool at work until every task has ended; whether the user interrupted it."""
    names = {task.path: each.cell.name for each, task in tasks}

    def settle(ended: dict[str, Ending]) -> None:
        for path, how_it_ended in ended.items():
            name, state = names[path], State(how_it_ended.status)
            states[name] = state
            problems.pop(name, None)
            if state is not State.FINISHED:
                problems[name] = how_it_ended.why or str(state)
            board.set(name, state, how_it_ended.why)

    try:
        while tasks or pool.busy():
            while tasks and pool.room():
                each, task = tasks.popleft()
                if (each.aside or each.state is State.DIVERGED) and (why := _make_way(each.path)):
                    states[each.cell.name], problems[each.cell.name] = State.BUSY, why
                    board.set(each.cell.name, State.BUSY, why)
                    continue
                board.set(each.cell.name, State.RUNNING)
                pool.start(task)
            settle(pool.collect(wait=0.5) if pool.busy() else {})
            board.refresh()
    except KeyboardInterrupt:
        settle(pool.stop())
        return True
    return False


def _make_way(path: Path) -> str:
    """Set a run aside; why not, where another process has taken it up meanwhile."""
    try:
        set_aside(path)
    except InputError as error:
        return str(error)
    return ""


def _threads(how: How) -> int | None:
    """Those of each run; None leaves them to PyTorch."""
    if how.threads is not None or (how.jobs == 1 and how.ray is None):
        return how.threads
    return max(1, int(how.cpus_per_cell) if how.ray else torch.get_num_threads() // how.jobs)


def _task(each: Planned, threads: int | None) -> Task:
    settings = each.cell.settings.to_json()
    if each.cell.settings.data_dir is not None:
        settings["data_dir"] = str(each.cell.settings.data_dir.expanduser().absolute())
    return Task(str(each.path.resolve()), settings, ["neuralcollapse", *sys.argv[1:]], threads)


def _pool(out: Path, how: How) -> Pool:
    if how.ray is None:
        return LocalPool(how.jobs)
    from neuralcollapse.study.ray_cluster import RayPool

    return RayPool(how.ray, out, cpus=how.cpus_per_cell, gpus=how.gpus_per_cell)
