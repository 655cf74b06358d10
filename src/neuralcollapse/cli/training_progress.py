"""The progress of training on the terminal: a bar, or a line per measured epoch where the output is not a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from neuralcollapse.cli.tables import number, percent
from neuralcollapse.training import progress


class TrainingProgress(progress.Progress):
    """Shows how training goes.

    The console is made by `begin`, because with several devices that runs in another process than this constructor.

    Args:
        console: where to show it; by default standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._epochs, self._measured = 0, ""

    def begin(self, epochs: int, done: int) -> None:
        """Show the bar, on a terminal."""
        self._console = self._console or Console()
        self._epochs = epochs
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
        """Print a line, where there is no bar; the bar shows the numbers after the epoch."""
        self._measured = f"  error {percent(record['train_error'])}  NC1 {number(record['nc1'])}"
        if self._bar is None and self._console is not None:
            self._console.print(
                f"epoch {record['epoch']:4d}/{self._epochs}  loss {record['loss']:.3e}{self._measured}  "
                f"NC2 {number(record['nc2.maximal_angle_means'])}  NC3 {number(record['nc3'])}  "
                f"test {percent(record['test_accuracy'])}  {record['seconds']:.0f} s",
                highlight=False,
                soft_wrap=True,
            )

    def epoch(self, epoch: int, loss: float) -> None:
        """Show the loss beside the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=epoch, state=f"loss {loss:.2e}{self._measured}")

    def end(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()
