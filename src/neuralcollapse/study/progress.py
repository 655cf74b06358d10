"""What a grid reports while it plans and trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from neuralcollapse.study.estimate import Estimate
from neuralcollapse.study.options import GridOptions
from neuralcollapse.study.plan import PlannedCell
from neuralcollapse.study.task import State


class GridProgress:
    """Receives the progress of a grid. These methods do nothing; a subclass overrides those it has a use for."""

    def timing(self, name: str) -> None:
        """An epoch of this cell is about to be timed, for the estimate."""

    def planned(
        self,
        planned: Sequence[PlannedCell],
        estimates: Mapping[str, Estimate],
        to_train: Sequence[str],
        options: GridOptions,
    ) -> None:
        """The plan: every cell, the estimates and the names of those to be trained, and the options of the grid."""

    def changed(self, name: str, state: State, why: str = "") -> None:
        """A cell has begun to train, or ended; ``why`` says what went wrong."""

    def tick(self) -> None:
        """Called several times a second while cells train, such as to read how far they are."""
