"""A progress object that interrupts training, as a user does by the keyboard."""

from __future__ import annotations

from dataclasses import dataclass

from neuralcollapse.training.progress import Progress


@dataclass
class Interrupt(Progress):
    """Interrupts in the first step of an epoch, or at its end, when its checkpoint is written."""

    at_step_of: int | None = None
    after: int | None = None

    def step(self, epoch: int, share: float) -> None:
        if epoch == self.at_step_of:
            raise KeyboardInterrupt

    def epoch(self, epoch: int, loss: float) -> None:
        if epoch == self.after:
            raise KeyboardInterrupt
