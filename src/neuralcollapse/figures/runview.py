"""A run directory as the figures see it."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.figures import reading
from neuralcollapse.lab.runs import Run
from neuralcollapse.lab.wording import data_words, head_words, optimizer_words


@dataclass(frozen=True)
class RunView:
    """The history of a run by column, and where its snapshots are.

    Args:
        subject: data set and network, for the head of a figure, with what was done to either.
        objective: loss, optimiser where it is not SGD, and λ.
        records: the analysed epochs.
        zero_error_epoch: the first analysed epoch without a training error.
        snapshots: epoch → file.
        class_names: one per label.
    """

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
        records = reading.history(run)
        if not records:
            raise InputError(f"{path} has no analysed epoch yet; go on with: neuralcollapse run --resume {path}")
        config = reading.configuration(run)
        width = "" if config.get("width", 1) == 1 else f" (width ×{config['width']:g})"
        title = config.get("dataset_title", config.get("dataset"))
        decay = config.get("measured_weight_decay")
        zero = next((record["epoch"] for record in records if record.get("train_error") == 0), None)
        snapshots = {int(file.stem.removeprefix("epoch_")): file for file in run.snapshots()}
        return cls(
            subject=plain(
                ", ".join([str(title), *data_words(config), f"{config.get('model')}{width}", *head_words(config)])
            ),
            objective=plain(
                ", ".join([f"{config.get('loss_title', config.get('loss'))} loss", *optimizer_words(config)])
            )
            + (f", $\\lambda$ = {decay:g}" if decay is not None else ""),
            records=records,
            zero_error_epoch=zero,
            snapshots=snapshots,
            class_names=tuple(config.get("class_names", ())),
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
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"expected a number {key!r} in every line of the history") from error

    def measured(self, key: str) -> bool:
        """Whether the history holds this measurement, of those that are made on request."""
        return any(key in record for record in self.records)

    def snapshot(self, epoch: int) -> dict[str, np.ndarray]:
        """The arrays of one snapshot.

        Raises:
            InputError: the file is damaged.
        """
        path = self.snapshots[epoch]
        try:
            # opened here: NumPy leaves a damaged file open when it opened it itself
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                return {name: content[name] for name in ("class_means", "weight", "features", "labels")}
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} is no readable snapshot; delete it to draw the rest") from error


def plain(text: object) -> str:
    """Text that matplotlib does not take for a formula."""
    return str(text).replace("$", r"\$")
