"""What the terminal shows of a grid: the plan with its estimate, then the cells while they train."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from neuralcollapse._checks import InputError
from neuralcollapse.cli.tables import number, off_path, percent
from neuralcollapse.data.binary_files import machine_memory
from neuralcollapse.data.registry import DATASETS
from neuralcollapse.study.estimate import Estimate
from neuralcollapse.study.executors import executor_for
from neuralcollapse.study.grid import GridProgress
from neuralcollapse.study.options import GridOptions
from neuralcollapse.study.plan import PlannedCell
from neuralcollapse.study.task import State
from neuralcollapse.training import recipes
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.hardware import gpu_memory
from neuralcollapse.training.run_directory import Run, Status

LINE_INTERVAL = 60.0
"""Seconds between two lines about a cell, where there is no terminal to draw a table on."""
_STYLE = {State.FINISHED: "green", State.RUNNING: "bold"} | {
    state: "red" for state in (State.DIVERGED, State.FAILED, State.NO_DATA, State.OTHER)
}


class GridDisplay(GridProgress):
    """The plan as a table, then a live table; where there is no terminal, lines and a last table.

    Args:
        console: the output.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._planned: dict[str, PlannedCell] = {}
        self._estimates: dict[str, Estimate] = {}
        self._states: dict[str, tuple[State, str]] = {}
        self._printed: dict[str, float] = {}
        self._timing = console.status("")
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self.table, auto_refresh=False)

    def __enter__(self) -> GridDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self._timing.stop()
        if self._live.is_started:
            self._live.stop()
        elif self._printed:
            self._console.print(self.table())

    def timing(self, name: str) -> None:
        self._timing.update(f"timing an epoch of {escape(name)}")
        self._timing.start()

    def planned(
        self, planned: list[PlannedCell], estimates: dict[str, Estimate], to_train: list[str], options: GridOptions
    ) -> None:
        self._timing.stop()
        self._console.print(plan_table(planned, estimates))
        for note in plan_notes(planned, estimates, options):
            self._console.print(note, highlight=False, soft_wrap=True, markup=False)
        self._planned, self._estimates = {each.cell.name: each for each in planned}, estimates
        self._states = {name: (each.state, each.why) for name, each in self._planned.items()}
        self._states |= {name: (State.WAITING, "") for name in to_train}

    def changed(self, name: str, state: State, why: str = "") -> None:
        self._states[name] = state, why
        if self._console.is_terminal and not self._live.is_started:
            self._live.start()
        self._report(name)

    def tick(self) -> None:
        before = time.monotonic() - (0.5 if self._live.is_started else LINE_INTERVAL)
        running = [name for name, (state, _) in self._states.items() if state is State.RUNNING]
        for name in running:
            if self._printed[name] < before:
                self._report(name)
                if self._live.is_started:  # with all cells
                    self._printed |= dict.fromkeys(running, time.monotonic())

    def table(self) -> Table:
        """The cells as they are now."""
        table = _table("epoch", "loss", "error", "NC1", "L⊥/L", "left")
        for name, planned in self._planned.items():
            state, style = self._states[name][0], _STYLE.get(self._states[name][0], "none")
            status, last = _read(planned)
            numbers = ["", "", "", ""]
            if last:
                numbers = [_short(last["loss"]), percent(last["train_error"]).replace(" ", "")]
                numbers += [_short(last["nc1"]), _short(off_path(last))]
            epochs = planned.resolved.epochs if planned.resolved else status.epochs or ""
            epoch = f"{status.epoch}/{epochs}" if status.status else ""
            table.add_row(escape(name), f"[{style}]{state}[/]", epoch, *numbers, self._time_left(name, status))
        return table

    def _report(self, name: str) -> None:
        """Draw the live table again, or print a line about a cell."""
        self._printed[name] = time.monotonic()
        if self._live.is_started:
            self._live.refresh()
            return
        state, why = self._states[name]
        status, last = _read(self._planned[name])
        line = f"{name}: {why if why.startswith(state) else ', '.join(filter(None, (state, why)))}"
        if last:
            line += (
                f"  epoch {status.epoch}  loss {number(last['loss'])}  error {percent(last['train_error'])}  "
                f"NC1 {number(last['nc1'])}  L⊥/L {number(off_path(last))}"
            )
        if left := self._time_left(name, status):
            line += f"  {left} left"
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _time_left(self, name: str, status: Status) -> str:
        if self._states[name][0] not in (State.RUNNING, State.WAITING):
            return ""
        resolved, estimate = self._planned[name].resolved, self._estimates.get(name)
        if status.epoch and resolved is not None:
            return duration(status.seconds / status.epoch * (resolved.epochs - status.epoch))
        return duration(estimate.seconds) if estimate is not None else ""


def plan_table(planned: Sequence[PlannedCell], estimates: Mapping[str, Estimate]) -> Table:
    """Each cell, how far it is, its main settings, and what it will cost on this machine."""
    rows: list[list[str]] = []
    for each in planned:
        config, cost = each.resolved or recipe_of(each), estimates.get(each.cell.name)
        state = f"{each.state} (an earlier run failed)" if each.replaces else str(each.state)
        if each.state in (State.STARTED, State.FAILED, State.DIVERGED, State.BUSY):
            state = f"at epoch {each.epoch}" if each.state is State.STARTED else f"{state}, epoch {each.epoch}"
        images = f"{each.resolved.num_examples:,}" if each.resolved else ""
        rate = "" if config.learning_rate is None else _short(config.learning_rate)
        numbers = [images, f"{config.width:g}", str(config.epochs), rate]
        costs = ["", ""] if cost is None else [duration(cost.seconds), gigabytes(cost.memory).removesuffix(" GB")]
        rows.append([escape(each.cell.name), state, *numbers, *costs])
    titles = ("images", "width", "epochs", "rate", "time", "GB")
    filled = [index for index in range(len(titles)) if any(row[2 + index] for row in rows)]
    table = _table(*(titles[index] for index in filled))
    for row in rows:
        table.add_row(*row[:2], *(row[2 + index] for index in filled))
    return table


def plan_notes(planned: Sequence[PlannedCell], estimates: Mapping[str, Estimate], options: GridOptions) -> list[str]:
    """The totals of the plan, then what is wrong with some of its cells, a line each."""
    notes, jobs = [], options.jobs
    if estimates:
        times = [cost.seconds for cost in estimates.values() if cost.seconds is not None]
        sizes = [(cost.memory - cost.gpu, cost.gpu) for cost in estimates.values() if cost.memory is not None]
        memory = sum(sorted((size for size, _ in sizes), reverse=True)[:jobs])
        gpu = sum(sorted((size for _, size in sizes), reverse=True)[:jobs])
        total = f"about {duration(sum(times))} " + (
            f"one after another, about {duration(sum(times) / jobs)} with {jobs} at a time" if jobs > 1 else "in all"
        )
        if untimed := len(estimates) - len(times):
            total += f", without {untimed} that could not be timed"
        of_gpu = f", {gigabytes(gpu)} of its GPU's {gigabytes(gpu_memory())}" if gpu else ""
        notes.append(
            f"{len(estimates)} to train: {total}; "
            f"memory about {gigabytes(memory)} of this machine's {gigabytes(machine_memory())}{of_gpu}"
        )
        if "jobs" not in executor_for(options).own_options:
            notes.append("time and memory are measured on this machine; those of the cluster differ")
        elif memory > machine_memory() or gpu > gpu_memory():
            notes.append("that is more memory than there is; take fewer --jobs, a smaller --width or --batch-size")
    said: dict[str, list[str]] = {}
    for each in planned:
        if each.why and each.state is not State.FINISHED:
            said.setdefault(each.why, []).append(each.cell.name)
        for words in each.resolved.image_description() if each.resolved else []:
            said.setdefault(words, []).append(each.cell.name)
    notes += [f"{names[0] if len(names) == 1 else f'{len(names)} cells'}: {words}" for words, names in said.items()]
    for note in sorted({cost.note for cost in estimates.values() if cost.note}):
        notes.append(f"{', '.join(name for name, cost in estimates.items() if cost.note == note)}: {note}")
    return notes


def recipe_of(planned: PlannedCell) -> TrainingConfig:
    """The settings of a cell whose data are not there; the rate only where the number of classes is known without."""
    given = planned.cell.config
    dataset, model, loss = given.dataset or "digits", given.model or "resnet", given.loss or "mse"
    if dataset in DATASETS:
        return given.filled(recipes.paper_recipe(dataset, model, loss, len(DATASETS[dataset].class_names)))
    return given.filled(dataclasses.replace(recipes.paper_recipe(dataset, model, loss), learning_rate=None))


def duration(seconds: float | None) -> str:
    """A time in the unit that fits."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes / 60:.1f} h" if minutes < 48 * 60 else f"{minutes / 1440:.1f} d"


def gigabytes(size: float | None) -> str:
    """A size in GB."""
    return "?" if size is None else f"{size / 1e9:.1f} GB"


def _table(*numbers: str) -> Table:
    """Cells by numbers, narrow enough for a terminal of eighty columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, collapse_padding=True, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("cell", overflow="fold")
    table.add_column("state", min_width=8)
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _short(value: float) -> str:
    """Two digits; the files hold all of them."""
    text = f"{value:.1e}" if 0 < abs(value) < 1e-3 or abs(value) >= 1e3 else f"{value:.2g}"
    return text.replace("e-0", "e-").replace("e+0", "e+")


def _read(planned: PlannedCell) -> tuple[Status, dict[str, Any]]:
    """The status of a cell and the last line of its history; the worker of the cell reports a damaged file."""
    status, last = Status(), dict[str, Any]()
    with contextlib.suppress(InputError):
        status = Run(planned.path).status()
        last = (Run(planned.path).history("loss", "train_error", "nc1", "mse.total", "mse.ls_perp") or [last])[-1]
    return status, last
