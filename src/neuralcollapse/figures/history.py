"""The history of a run as a table: a row for each measured epoch, a column for each measurement."""

from __future__ import annotations

import numpy as np
import pandas as pd

from neuralcollapse._checks import InputError
from neuralcollapse.measuring.events import first_zero_error
from neuralcollapse.training.run_directory import Run


def read_history(run: Run) -> pd.DataFrame:
    """The measured epochs of a run, indexed by `epoch`; empty before the first.

    A measurement that is missing from some epoch is left out: nothing is drawn or tabulated from half a column.

    Raises:
        InputError: `history.jsonl` is damaged.
    """
    records = run.history()
    complete = [name for name in (records or [{}])[0] if all(line.get(name) is not None for line in records)]
    epochs = pd.Index([record["epoch"] for record in records], name="epoch", dtype="int64")
    return pd.DataFrame(records, columns=complete, index=epochs)


def column(history: pd.DataFrame, name: str) -> np.ndarray:
    """One measurement over the epochs.

    Raises:
        InputError: the history lacks it, or holds something else than numbers in its place.
    """
    try:
        return np.asarray(history[name], dtype=float)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"expected a number {name!r} in every line of the history") from error


def zero_error_epoch(history: pd.DataFrame) -> int | None:
    """The first measured epoch without a training error, where the terminal phase begins; None if there is none."""
    first = first_zero_error(history.reindex(columns=["train_error"]).reset_index().to_dict("records"))
    return None if first is None else int(first)
