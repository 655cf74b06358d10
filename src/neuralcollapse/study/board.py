"""What the terminal shows of a grid: the plan, and the cells while they train."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from neuralcollapse._checks import InputError
from neuralcollapse.study.estimate import Estimate
from neuralcollapse.study.options import How
from neuralcollapse.study.plan import Planned, State
from neuralcollapse.training.hardware import gpu_memory, machine_memory
from neuralcollapse.training.run_directory import Run

_EVERY = 60.0  # seconds between two lines about a cell, where there is no terminal to draw a table on
_SHOWN = ("loss", "train_error", "nc1", "mse.total", "mse.ls_perp")  # of the last analysed epoch
_STYLE = {
    State.FINISHED: "green", State.RUNNING: "bold", State.DIVERGED: "red", State.FAILED: "red", State.NO_DATA: "red",
    State.OTHER: "red",
}  # fmt: skip


def plan_table(planned: Sequence[Planned], estimates: Mapping[str, Estimate]) -> Table:
    """Each cell, what there is to do, and what it will cost on this machine."""
    table = _table("images", "width", "epochs", "rate", "time", "memory")
    for each in planned:
        config, cost = each.config, estimates.get(each.cell.name)
        numbers = ["", "", "", ""]
        if config is not None:
            numbers = [f"{config.num_examples:,}", f"{config.width:g}"]
            numbers += [str(config.epochs), f"{config.learning_rate:.3g}"]
        costs = ["", ""] if cost is None else [duration(cost.seconds), gigabytes(cost.memory)]
        table.add_row(escape(each.cell.name), _described(each), *numbers, *costs)
    return table


def plan_notes(planned: Sequence[Planned], estimates: Mapping[str, Estimate], how: How) -> list[str]:
    """The total of the plan, then what is wrong with some of its cells, a line each."""
    notes, jobs = [], how.jobs
    if estimates:
        known = [cost.seconds for cost in estimates.values() if cost.seconds is not None]
        sizes = [(cost.memory - cost.gpu, cost.gpu) for cost in estimates.values() if cost.memory is not None]
        memory = sum(sorted((size for size, _ in sizes), reverse=True)[:jobs])
        gpu = sum(sorted((size for _, size in sizes), reverse=True)[:jobs])
        beside = f"one after another, {jobs} at a time about {duration(sum(known) / jobs)}" if jobs > 1 else "in all"
        unknown = (
            f", without {len(estimates) - len(known)} that could not be timed" if len(known) < len(estimates) else ""
        )
        graphics = f", {gigabytes(gpu)} of its GPU's {gigabytes(gpu_memory())}" if gpu else ""
        notes.append(
            f"{len(estimates)} to train: about {duration(sum(known))} {beside}{unknown}; "
            f"memory about {gigabytes(memory)} of this machine's {gigabytes(machine_memory())}{graphics}"
        )
        if how.ray:
            notes.append("times and memory are those of a cell on this machine; the cluster's are other ones")
        if memory > machine_memory() or gpu > gpu_memory():
            notes.append("that is more memory than there is: fewer --jobs, a smaller --width or --batch-size")
    notes += [f"{each.cell.name}: {each.why}" for each in planned if each.why and each.state is not State.FINISHED]
    for note in sorted({cost.note for cost in estimates.values() if cost.note}):
        notes.append(f"{', '.join(name for name, cost in estimates.items() if cost.note == note)}: {note}")
    return notes


@dataclass
class _Row:
    """A cell while the grid runs."""

    plan: Planned
    cost: Estimate | None
    state: State
    why: str
    begun: bool = False
    before: dict[str, Any] = field(default_factory=dict)
    said: float = 0.0


class Board:
    """The live table, or lines where there is no terminal.

    Args:
        console: where to.
        planned: all cells, those not trained now too.
        estimates: their cost, by name.
        waiting: names of the cells to be trained.
    """

    def __init__(
        self, console: Console, planned: Sequence[Planned], estimates: Mapping[str, Estimate], waiting: Sequence[str]
    ) -> None:
        self._console = console
        self._rows = {
            each.cell.name: _Row(
                each,
                estimates.get(each.cell.name),
                State.WAITING if each.cell.name in waiting else each.state,
                "" if each.cell.name in waiting else each.why,
            )
            for each in planned
        }
        self._live = Live(console=console, refresh_per_second=2) if console.is_terminal else None

    @property
    def plain(self) -> bool:
        """Whether lines are shown, not the table."""
        return self._live is None

    def __enter__(self) -> Board:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
            self._live.stop()

    def set(self, name: str, state: State, why: str = "") -> None:
        """A cell has begun or ended."""
        row = self._rows[name]
        row.state, row.why = state, why
        if state is State.RUNNING:
            row.before, row.said = _status(row.plan), time.monotonic()
        if self._live is None:
            self._console.print(f"{name}: {self._line(row)}", highlight=False, soft_wrap=True, markup=False)

    def refresh(self) -> None:
        """Show how far the running cells are."""
        if self._live is not None:
            self._live.update(self.table())
            return
        for name, row in self._rows.items():
            if row.state is State.RUNNING and time.monotonic() - row.said > _EVERY:
                row.said = time.monotonic()
                self._console.print(f"{name}: {self._line(row)}", highlight=False, soft_wrap=True, markup=False)

    def table(self) -> Table:
        """The cells as they are now."""
        table = _table("epoch", "loss", "error", "NC1", "L⊥/L", "left")
        for name, row in self._rows.items():
            status, last = _status(row.plan), _last(row.plan)
            cells = ["", "", "", ""]
            if last:
                cells = [_short(last["loss"]), percent(last["train_error"])]
                cells += [_short(last["nc1"]), _short(off_path(last))]
            epochs = row.plan.config.epochs if row.plan.config else status.get("epochs", "")
            epoch = f"{status.get('epoch', 0)}/{epochs}" if status else ""
            table.add_row(escape(name), self._state(row, status), epoch, *cells, self._left(row, status))
        return table

    def _line(self, row: _Row) -> str:
        status, last = _status(row.plan), _last(row.plan)
        words = [row.why if row.why.startswith(str(row.state)) else ", ".join(filter(None, (row.state, row.why)))]
        if last:
            words.append(
                f"epoch {status.get('epoch', 0)}  loss {number(last['loss'])}  error {percent(last['train_error'])}  "
                f"NC1 {number(last['nc1'])}  L⊥/L {number(off_path(last))}"
            )
        left = self._left(row, status)
        return "  ".join(words) + (f"  {left} left" if left and row.state is State.RUNNING else "")

    def _state(self, row: _Row, status: dict[str, Any]) -> str:
        row.begun = row.begun or status != row.before
        shown = "starting" if row.state is State.RUNNING and not row.begun else str(row.state)
        style = _STYLE.get(row.state, "")
        return f"[{style}]{shown}[/]" if style else shown

    def _left(self, row: _Row, status: dict[str, Any]) -> str:
        if row.state not in (State.RUNNING, State.WAITING):
            return ""
        epoch, seconds = status.get("epoch", 0), status.get("seconds", 0.0)
        if epoch and row.plan.config is not None:
            return duration(seconds / epoch * (row.plan.config.epochs - epoch))
        return duration(row.cost.seconds) if row.cost is not None else ""


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
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("cell", overflow="fold", min_width=24)
    table.add_column("state", min_width=8)
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _short(value: float) -> str:
    """Two digits; the files hold all of them."""
    return f"{value:.1e}" if 0 < abs(value) < 1e-2 or abs(value) >= 1e3 else f"{value:.2g}"


def _described(each: Planned) -> str:
    if each.state in (State.STARTED, State.FAILED, State.DIVERGED, State.BUSY):
        return f"at epoch {each.epoch}" if each.state is State.STARTED else f"{each.state}, epoch {each.epoch}"
    return f"{each.state} (an earlier run failed)" if each.aside else str(each.state)


def _status(each: Planned) -> dict[str, Any]:
    try:
        status = Run(each.path).status()
        return status.model_dump() if status.status else {}
    except InputError:  # a damaged file of one cell is for its worker to report
        return {}


def _last(each: Planned) -> dict[str, Any]:
    try:
        return (Run(each.path).history(*_SHOWN) or [{}])[-1]
    except InputError:
        return {}


def off_path(record: dict[str, Any]) -> float:
    """L⊥_LS / L: how far the classifier is from the least-squares one for its features."""
    total = record["mse.total"]
    return record["mse.ls_perp"] / total if total else 0.0


def percent(share: float) -> str:
    """A share as a percentage; an error that is not zero is never shown as zero."""
    digits = 2 if share == 0 or share >= 1e-4 else 4
    return f"{100 * share:.{digits}f} %"


def number(value: float | str) -> str:
    """Three digits, with an exponent where it is short of one hundredth; records write an infinity as "inf"."""
    value = float(value)
    return f"{value:.3f}" if value == 0 or 1e-2 <= abs(value) < 1e3 else f"{value:.2e}"
