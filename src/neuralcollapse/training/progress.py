"""How training tells what it is doing."""

from __future__ import annotations

from typing import Any


class Progress:
    """Receives the progress of a training. These methods do nothing; a subclass overrides those it has a use for.

    With several devices it is pickled and sent to the first of their processes, where all its methods are called.
    """

    def begin(self, epochs: int, done: int) -> None:
        """Training begins: the epochs of the whole run, and those already done when the run is continued."""

    def step(self, epoch: int, share: float) -> None:
        """A step was made; this share of the epoch's batches is done."""

    def measured(self, record: dict[str, Any]) -> None:
        """The network was measured after an epoch; the line of the history."""

    def epoch(self, epoch: int, loss: float) -> None:
        """An epoch has ended; its mean loss during training."""

    def end(self) -> None:
        """Training has ended, well or not."""
