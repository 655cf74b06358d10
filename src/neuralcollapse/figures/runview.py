"""A run directory as the figures see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.training.run_directory import Run


@dataclass(frozen=True)
class RunView:
    """The history of a run by column, and where its snapshots are.

    Args:
        run: the run directory.
        subject: data set and network, for the head of a figure, with what was done to either.
        objective: loss, optimiser where it is not SGD, and λ.
        records: the analysed epochs.
        zero_error_epoch: the first analysed epoch without a training error.
        snapshots: epoch → file.
        class_names: one per label.
    """

    run: Run
    subject: str
    objective: str
    records: list[dict[str, Any]]
    zero_error_epoch: int | None
    snapshots: dict[int, Path]
    class_names: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> RunView:
        """Read the directory.

        Raises:
            InputError: it is no run, has no analysed epoch yet, or a file holds what it cannot.
        """
        run = Run.open(path)
        records = run.history()
        if not records:
            raise InputError(f"{path} has no analysed epoch yet; go on with: neuralcollapse run --resume {path}")
        config = run.config
        width = "" if config.width == 1 else f" (width ×{config.width:g})"
        zero = next((record["epoch"] for record in records if record["train_error"] == 0), None)
        subject = [config.dataset_title, *config.data_description(), f"{config.model}{width}"]
        objective = ", ".join([f"{config.loss_title} loss", *config.optimizer_description()])
        return cls(
            run=run,
            subject=plain(", ".join([*subject, *config.head_description()])),
            objective=f"{plain(objective)}, $\\lambda$ = {config.measured_weight_decay:g}",
            records=records,
            zero_error_epoch=zero,
            snapshots=run.snapshots(),
            class_names=config.class_names,
        )

    @property
    def epochs(self) -> list[int]:
        """The analysed epochs."""
        return [int(record["epoch"]) for record in self.records]

    def column(self, key: str) -> list[float]:
        """One measurement over the analysed epochs.

        Raises:
            InputError: the history does not hold it.
        """
        try:
            return [float(record[key]) for record in self.records]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"expected a number {key!r} in every line of the history") from error

    def measured(self, key: str) -> bool:
        """Whether the history holds this measurement, of those that are made on request."""
        return any(key in record for record in self.records)

    def snapshot(self, epoch: int) -> dict[str, np.ndarray]:
        """The arrays of one snapshot.

        Raises:
            InputError: the file is damaged.
        """
        return self.run.snapshot(epoch)


def plain(text: object) -> str:
    """Text that matplotlib does not take for a formula."""
    return str(text).replace("$", r"\$")
