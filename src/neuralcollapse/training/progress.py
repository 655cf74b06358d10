"""What the terminal shows: a progress bar, or a line per analysed epoch where there is none; then a summary."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from neuralcollapse.data import Found
from neuralcollapse.theory.clock import ClockFit
from neuralcollapse.theory.simulation import Simulation
from neuralcollapse.training.job import Job
from neuralcollapse.training.wording import data_words, head_words, optimizer_words


class Reporter:
    """Shows how training goes.

    Args:
        console: where to; a terminal gets a bar, anything else a line per analysed epoch.
        epochs: epochs of the whole run.
        done: epochs finished before, when a run is continued.
    """

    def __init__(self, console: Console, epochs: int, done: int = 0) -> None:
        self.console = console
        self.epochs = epochs
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("epoch"),
                MofNCompleteColumn(),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                console=console,
            )
            self._task = self._bar.add_task("training", total=epochs, completed=done, state="")
        self._measured = ""

    def __enter__(self) -> Reporter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, epoch: int, share: float) -> None:
        """A share of the epoch's batches is done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch - 1 + share)

    def epoch(self, epoch: int, loss: float) -> None:
        """An epoch is done; `loss` is its mean while training."""
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch, state=f"loss {loss:.2e}{self._measured}")

    def analysed(self, record: dict[str, Any]) -> None:
        """An epoch was measured."""
        self._measured = f"  error {percent(record['train_error'])}  NC1 {number(record['nc1'])}"
        if self._bar is None:
            self.console.print(
                f"epoch {record['epoch']:4d}/{self.epochs}  loss {record['loss']:.3e}{self._measured}  "
                f"NC2 {number(record['nc2.maximal_angle_means'])}  NC3 {number(record['nc3'])}  "
                f"test {percent(record['test_accuracy'])}  {record['seconds']:.0f} s",
                highlight=False,
                soft_wrap=True,
            )


def announce(console: Console, job: Job) -> None:
    """Say what is about to be trained, by which settings, and where it goes."""
    config = job.config
    made = dataclasses.asdict(config)
    data = ", ".join([f"{config.num_classes} classes", *data_words(made)])
    network = ", ".join([f"{config.model}, width {config.width:g}", *head_words(made)])
    optimizer = ", ".join(optimizer_words(made)) or "SGD"
    console.print(
        f"{config.dataset_title}: {config.num_examples:,} training examples, {data}\n"
        f"{network}; {config.loss_title} loss, λ = {config.measured_weight_decay:g}; "
        f"{optimizer} rate {config.learning_rate:g}, momentum {config.momentum:g}, batches of {config.batch_size}, "
        f"{config.epochs} epochs; {config.device}, {'bf16' if config.precision == 'bf16' else 'float32'}, "
        f"seed {config.seed}\nrun directory: {job.run.path}",
        highlight=False,
        soft_wrap=True,
    )


def summary(history: list[dict[str, Any]], zero_error_epoch: int | None) -> Table:
    """The last epoch beside the first with zero training error, as a table."""
    last = history[-1]
    first = next((record for record in history if record["epoch"] == zero_error_epoch), None)
    table = Table(
        title=f"{last['num_examples']:,} training examples, {last['num_classes']} classes", title_justify="left"
    )
    table.add_column("")
    columns = [record for record in (first, last) if record is not None]
    if first is last:
        columns = [last]
    for record in columns:
        note = "\nzero error" if record["epoch"] == zero_error_epoch else "\nlast"
        table.add_column(f"epoch {record['epoch']}{note}", justify="right")
    for title, key, show in _ROWS:
        table.add_row(title, *(show(record[key]) for record in columns))
    if "robustness" in last:
        table.add_row("robustness, mean ‖r‖ / ‖x‖", *(number(record["robustness"]) for record in columns))
    table.add_row("distance from the central path, L⊥_LS / L", *(number(off_path(record)) for record in columns))
    return table


def data_table(found: list[Found]) -> Table:
    """The data sets of `datasets.available`, as a table."""
    table = Table("name", "title", "training examples", "test", box=box.SIMPLE_HEAD)
    table.add_column("where", overflow="fold")
    for item in found:
        if item.problem:
            table.add_row(item.name, "", "-", "-", escape(item.problem))
            continue
        counts = sorted(set(item.train))
        each = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        table.add_row(item.name, item.title, f"{len(item.train)} × {each}", f"{item.test:,}", escape(item.path))
    return table


def clock_table(fit: ClockFit) -> Table:
    """How near the closed form is to a network, at up to eight of its epochs."""
    table = Table(
        "epoch", "time t", "residual", "standing still", "growth", "max/min ω", "closed form", box=box.SIMPLE_HEAD
    )
    chosen = sorted({round(index) for index in np.linspace(0, len(fit.epochs) - 1, 8)})
    for index in chosen:
        columns = (fit.residual, fit.unmoved, fit.exponent, fit.measured_condition, fit.predicted_condition)
        cells = [f"{column[index]:.3f}" for column in columns]
        table.add_row(f"{fit.epochs[index]:g}", f"{fit.times[index]:.3g}", *cells)
    table.caption = "residual: rms over j of log(ω_j / ω_j on the path); growth: d log ω / d log epoch"
    return table


def simulation_summary(found: Simulation) -> str:
    """What came of a simulated flow, in three lines."""
    path, flow = found.path, found.flow
    first, last = flow.singular_values[0], flow.singular_values[-1]
    return (
        f"{path.flow} flow to time {float(flow.times[-1]):.4g}: ω from {float(first[-1]):.3g}…{float(first[0]):.3g} "
        f"to {float(last[-1]):.3g}…{float(last[0]):.3g}\n"
        f"integration against closed form: relative difference of the ω_j at most {found.error:.1e}\n"
        f"Σ_W = I kept to {float(flow.drift.max()):.1e}"
    )


@contextlib.contextmanager
def share_bar(console: Console, title: str) -> Iterator[Callable[[float], None]]:
    """A progress bar, told the share that is done."""
    columns = (TextColumn(title), BarColumn(bar_width=None), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share: bar.update(task, completed=share)


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


_ROWS = (
    ("training error", "train_error", percent),
    ("test accuracy", "test_accuracy", percent),
    ("NC1  within-class variability", "nc1", number),
    ("NC2  equinorm, class means", "nc2.equinorm_means", number),
    ("NC2  equiangularity, class means", "nc2.equiangularity_means", number),
    ("NC2  maximal angle, class means", "nc2.maximal_angle_means", number),
    ("NC3  self-duality", "nc3", number),
    ("NC4  nearest-centre mismatch", "nc4_mismatch", percent),
    ("loss L of the last layer, with λ", "mse.total", number),
)
SUMMARISED = (*(key for _, key, _ in _ROWS), "mse.ls_perp")
"""The columns of the history that `summary` shows."""
