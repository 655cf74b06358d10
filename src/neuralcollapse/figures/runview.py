"""A run directory as the figures see it."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuralcollapse._checks import InputError
from neuralcollapse.training import reading
from neuralcollapse.training.run_directory import Run, epoch_of
from neuralcollapse.training.wording import data_words, head_words, optimizer_words

_UNREADABLE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, KeyError, NotImplementedError,
    RuntimeError, SyntaxError, MemoryError,
)  # fmt: skip
"""What a damaged or hostile .npz makes its readers raise."""


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
        snapshots = {epoch_of(file): file for file in run.snapshots()}
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
        path = self.snapshots[epoch]
        try:
            # opened here: NumPy leaves a damaged file open when it opened it itself
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                arrays = {name: content[name] for name in ("class_means", "weight", "features", "labels")}
        except _UNREADABLE as error:
            raise InputError(f"{path} is no readable snapshot; move it away to draw the rest") from error
        if wrong := _wrong(arrays):
            raise InputError(f"{path}: {wrong}; move it away to draw the rest")
        return arrays


def _wrong(arrays: dict[str, np.ndarray]) -> str:
    """What no snapshot of a run can have; empty where all is right."""
    means, labels = arrays["class_means"], arrays["labels"]
    shapes = ", ".join(f"{name} {value.shape}" for name, value in arrays.items())
    if means.ndim != 2 or labels.ndim != 1 or not means.size:
        return f"expected class means (C, p) and labels (n,), got {shapes}"
    if arrays["weight"].shape != means.shape or arrays["features"].shape != (len(labels), means.shape[1]):
        return f"expected weights (C, p) as class means, and features (n, p) with n labels, got {shapes}"
    if not np.issubdtype(labels.dtype, np.integer) or not ((labels >= 0) & (labels < len(means))).all():
        return f"expected labels of 0 to {len(means) - 1} as integers, got {labels.dtype}"
    for name, value in arrays.items():
        if not np.issubdtype(value.dtype, np.number) or not np.isfinite(value).all():
            return f"expected finite {name.replace('_', ' ')}, got NaN, infinity or no numbers in them"
    return ""


def plain(text: object) -> str:
    """Text that matplotlib does not take for a formula."""
    return str(text).replace("$", r"\$")
