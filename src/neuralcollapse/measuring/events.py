"""What happens in the course of a training, found in the records of its measured epochs.

A record is a dictionary of one measured epoch: its `epoch`, and numbers by name, as a line of `history.jsonl` and
`Monitor.history` have them. Records come in the order of their epochs.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

Records = Sequence[Mapping[str, Any]]


def first_zero_error(records: Records) -> float | None:
    """The first measured epoch without a training error; the error may rise again after it.

    The training error is `train_error`, or where a record has none, 1 − `accuracy`, for :class:`neuralcollapse.Monitor`
    and the callbacks measure on the training data.

    Returns:
        The epoch, or None if there is none.

    Example:
        >>> records = [{"epoch": epoch, "train_error": error} for epoch, error in enumerate((0.3, 0, 0.1, 0, 0), 1)]
        >>> first_zero_error(records), stays_zero_error(records)
        (2, 4)
    """
    return next((epoch for epoch, error in _training_errors(records) if error == 0), None)


def stays_zero_error(records: Records) -> float | None:
    """The first measured epoch from which on no measured epoch has a training error; see :func:`first_zero_error`.

    Returns:
        The epoch, or None if the last measured epoch has an error.
    """
    zeros = list(itertools.takewhile(lambda each: each[1] == 0, reversed(_training_errors(records))))
    return zeros[-1][0] if zeros else None


def rate_divisions(records: Records) -> list[float]:
    """The measured epochs at which the learning rate is a half or less of that at the measured epoch before.

    The rate was divided between the two. A schedule that also falls by less, or to zero, as a cosine or a straight line
    does, has no divisions.

    Example:
        >>> rate_divisions([{"epoch": 1, "learning_rate": 0.1}, {"epoch": 4, "learning_rate": 0.01}])
        [4]
    """
    rates = [(each["epoch"], each["learning_rate"]) for each in records if is_number(each.get("learning_rate"))]
    falls = [
        (epoch, rate / before)
        for (_, before), (epoch, rate) in itertools.pairwise(rates)
        if rate < before and before > 0
    ]
    divided = all(0 < ratio <= 0.5 + 1e-9 for _, ratio in falls)
    return [epoch for epoch, _ in falls] if divided else []


def _training_errors(records: Records) -> list[tuple[float, float]]:
    """Epoch and training error of the records that tell it."""
    found: list[tuple[float, float]] = []
    for record in records:
        error: Any = record.get("train_error")
        accuracy: Any = record.get("accuracy")
        if is_number(error):
            found.append((record["epoch"], error))
        elif is_number(accuracy):
            found.append((record["epoch"], 1 - accuracy))
    return found


def is_number(value: Any) -> bool:
    """Whether it is an integer or a float, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)
