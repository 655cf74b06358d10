"""Train many runs as one study: plan them, estimate their cost, and train each in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuralcollapse._checks import InputError
from neuralcollapse.study.estimate import Estimate, estimate_costs
from neuralcollapse.study.executors import Executor, SubmittedTask, check_options, executor_for, threads_of_each
from neuralcollapse.study.options import GridOptions
from neuralcollapse.study.plan import Cell, PlannedCell, cells_to_train, plan_cells, set_aside
from neuralcollapse.study.study_file import add_to_study
from neuralcollapse.study.task import Ending, State, Task
from neuralcollapse.study.worker import GRACE

POLL_INTERVAL = 0.1
"""Seconds between two looks at the running tasks."""


class GridProgress:
    """Receives the progress of a grid. These methods do nothing; a subclass overrides those it has a use for."""

    def timing(self, name: str) -> None:
        """An epoch of this cell is about to be timed, for the estimate."""

    def planned(
        self, planned: list[PlannedCell], estimates: dict[str, Estimate], to_train: list[str], options: GridOptions
    ) -> None:
        """The plan: every cell, the estimates and the names of those to be trained, and the options of the grid."""

    def changed(self, name: str, state: State, why: str = "") -> None:
        """A cell has begun to train, or ended; `why` says what went wrong."""

    def tick(self) -> None:
        """Called several times a second while cells train, such as to read how far they are."""


@dataclass
class GridResult:
    """How a grid ended.

    Args:
        states: the state of each run, by name.
        problems: why a run is not finished, by name.
        interrupted: the user stopped the grid.
    """

    states: dict[str, State]
    problems: dict[str, str]
    interrupted: bool = False


def run_grid(
    cells: Sequence[Cell],
    out: Path,
    options: GridOptions,
    progress: GridProgress | None = None,
    study_runs: Sequence[str] = (),
) -> GridResult:
    """Plan the runs, estimate what they will cost, and train those that are not finished.

    Args:
        cells: the runs.
        out: the folder of their directories.
        options: where and how they are trained.
        progress: what happens is reported there.
        study_runs: names of all runs of the study, for `study.json`; by default those of `cells`.

    Raises:
        InputError: impossible options, settings no run can have, no cluster where one is asked for, or data for none
            of the cells, unless only the plan is wanted.
    """
    progress = progress or GridProgress()
    check_options(options, out)
    planned = plan_cells(cells, out)
    if not options.dry_run and planned and all(each.state is State.NO_DATA for each in planned):
        raise InputError(planned[0].why)
    chosen = cells_to_train(planned, retry_diverged=options.retry_diverged)
    result = GridResult(
        {each.cell.name: each.state for each in planned},
        {each.cell.name: each.why for each in planned if each.why and each.state is not State.FINISHED},
    )
    to_train, threads = [each.cell.name for each in chosen], threads_of_each(options)
    with contextlib.ExitStack() as stack:
        if not options.dry_run:
            if chosen:  # before the estimate, so that a cluster that is not there is reported at once
                executor = stack.enter_context(contextlib.closing(executor_for(options)(out, options)))
            add_to_study(out, study_runs or [cell.name for cell in cells])
        stack.enter_context(_interrupted_by_sigterm())  # after the executor: Ray sets a handler of its own
        progress.planned(planned, estimate_costs(chosen, threads, progress.timing), to_train, options)
        if chosen and not options.dry_run:
            _train(chosen, executor, threads, progress, result)
    return result


def _train(
    chosen: Sequence[PlannedCell], executor: Executor, threads: int | None, progress: GridProgress, result: GridResult
) -> None:
    """Keep the executor busy until every cell has ended, or the user interrupts."""
    waiting, running = deque(chosen), dict[str, SubmittedTask]()

    def report(name: str, ending: Ending) -> None:
        result.states[name] = ending.state
        result.problems.pop(name, None)
        if ending.state is not State.FINISHED:
            result.problems[name] = ending.why or str(ending.state)
        progress.changed(name, ending.state, ending.why)

    def start(each: PlannedCell) -> None:
        name, config = each.cell.name, each.cell.config
        if config.data_dir is not None:
            config = dataclasses.replace(config, data_dir=config.data_dir.expanduser().absolute())
        task = Task(str(each.path.resolve()), config.to_json(), ["neuralcollapse", *sys.argv[1:]], threads)
        refused = State.BUSY
        try:
            if each.replaces or each.state is State.DIVERGED:
                set_aside(each.path)
            refused = State.FAILED
            progress.changed(name, State.RUNNING)
            running[name] = executor.submit(task)
        except InputError as error:
            report(name, Ending(refused, str(error)))

    def poll() -> None:
        for name, task in list(running.items()):
            if (ending := task.poll()) is not None:
                del running[name]
                report(name, ending)
        progress.tick()
        time.sleep(POLL_INTERVAL)

    try:
        while waiting or running:
            while waiting and len(running) < executor.capacity:
                start(waiting.popleft())
            poll()
    except KeyboardInterrupt:
        result.interrupted = True
    finally:
        for task in running.values():
            task.stop()
    end = time.monotonic() + GRACE + 5
    while running and time.monotonic() < end:
        poll()
    for name in running:
        report(name, Ending(State.INTERRUPTED, "asked to stop; its worker has not confirmed that it did"))


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM acts as Ctrl-C, so that jobs on other machines are cancelled too, and the epoch that is timed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
