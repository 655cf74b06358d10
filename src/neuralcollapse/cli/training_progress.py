"""The progress of training on the terminal: a bar, or a line per measured epoch where the output is not a terminal."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from neuralcollapse._errors import InputError, install
from neuralcollapse.cli.tables import number, percent
from neuralcollapse.measuring.trackers import Tracking
from neuralcollapse.training import progress

COLLAPSED = 1e-3
"""The NC1 below which a network is called nearly collapsed: of the order of a thousandth of the variance between."""
STAYS = 3
"""Measured epochs in a row without a training error after which the error is said to stay zero."""
_HEADS = ("loss", "error", "NC1", "NC2", "NC3", "test", "time")
_HEAD_EVERY = 20
"""Lines of measured epochs below each line of heads, so that the last lines of a log show one."""


class Phases:
    """Says what a measured epoch means when it is the first of a phase: zero error, stays zero, nearly collapsed."""

    def __init__(self) -> None:
        self._without_error: list[int] = []
        self._collapsed = False

    def reached(self, record: dict[str, Any]) -> list[str]:
        """The sentences for a line of the history, of which its epoch, train_error and nc1 are read."""
        said = []
        if record["train_error"] > 0:
            if self._without_error:
                said.append("the training error is above zero again")
            self._without_error = []
            return said
        self._without_error.append(record["epoch"])
        if len(self._without_error) == 1:
            said.append("zero error: all training examples are right, the terminal phase begins")
        if len(self._without_error) == STAYS:
            said.append(f"stays zero: no training error at any measured epoch since {self._without_error[0]}")
        if not self._collapsed and float(record["nc1"]) < COLLAPSED:
            self._collapsed = True
            said.append(f"nearly collapsed: NC1 below {COLLAPSED:g}, each class lies close to its mean")
        return said


class TrainingProgress(progress.Progress):
    """Shows how training goes.

    The console is made by `begin`, because with several devices that runs in another process than this constructor.

    Args:
        console: where to show it; by default standard output.
        tensorboard: a folder that gets TensorBoard's events of each measured epoch, or None.

    Raises:
        InputError: TensorBoard is not installed.
    """

    def __init__(self, console: Console | None = None, *, tensorboard: Path | None = None) -> None:
        if tensorboard is not None and importlib.util.find_spec("tensorboard") is None:
            raise InputError(f"--log tensorboard needs TensorBoard: {install('tensorboard')}")
        self._tensorboard = tensorboard
        self._writer: Any = None  # made by `begin` too
        self._console = console
        self._bar: Progress | None = None
        self._epochs, self._measured, self._lines = 0, "", 0
        self._phases = Phases()

    def begin(self, epochs: int, done: int) -> None:
        """Show the bar, on a terminal."""
        self._console = self._console or Console()
        self._epochs = epochs
        if self._tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            # what a killed process wrote after its last checkpoint is measured, and written, again
            self._writer = SummaryWriter(str(self._tensorboard), purge_step=done + 1)
            self._tracking = Tracking(self._writer)
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("epoch"),
                MofNCompleteColumn(),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                console=self._console,
            )
            self._task = self._bar.add_task("training", total=epochs, completed=done, state="")
            self._bar.start()

    def step(self, epoch: int, share: float) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch - 1 + share)

    def measured(self, record: dict[str, Any]) -> None:
        """Print a line, where there is no bar, which shows the numbers after the epoch; and what phase is reached."""
        self._measured = f"  error {percent(record['train_error'])}  NC1 {number(record['nc1'])}"
        if self._bar is None and self._console is not None:
            numbers = [number(record[name]) for name in ("nc1", "nc2.maximal_angle_means", "nc3")]
            cells = [f"{record['loss']:.2e}", percent(record["train_error"]), *numbers]
            cells += [percent(record["test_accuracy"]), f"{record['seconds']:.0f} s"]
            lines = [] if self._lines % _HEAD_EVERY else [self._line("epoch", _HEADS)]
            for line in (*lines, self._line(f"{record['epoch']}/{self._epochs}", cells)):
                self._console.print(line, highlight=False, soft_wrap=True)
            self._lines += 1
        if self._writer is not None:
            self._tracking.write(record, record["epoch"])
            self._writer.flush()
        for sentence in self._phases.reached(record):
            if self._console is not None:
                self._console.print(f"epoch {record['epoch']}: {sentence}", highlight=False)

    def _line(self, epoch: str, cells: Sequence[str]) -> str:
        """The epoch, six numbers of eight signs at most, and the time: up to 99,999 epochs no more than 80 columns."""
        *numbers, time = cells
        width = max(2 * len(str(self._epochs)) + 1, len("epoch"))
        return f"{epoch:>{width}}" + "".join(f"{cell:>10}" for cell in numbers) + f"{time:>9}"

    def epoch(self, epoch: int, loss: float) -> None:
        """Show the loss beside the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch, state=f"loss {loss:.2e}{self._measured}")

    def end(self) -> None:
        """Leave the bar as it is."""
        if self._writer is not None:
            self._writer.close()
        if self._bar is not None:
            self._bar.stop()
