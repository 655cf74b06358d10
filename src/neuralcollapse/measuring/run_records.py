"""RunRecords: one training run, as a history holds it."""

from __future__ import annotations

import numbers as kinds
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse._files import numbers, shortened
from neuralcollapse.measuring.events import first_zero_error, rate_divisions, stays_zero_error
from neuralcollapse.measuring.tidy import LABELS, layer_of, numbers_of


@dataclass(frozen=True)
class RunRecords:
    """What was measured in one training run.

    Attributes:
        run: a name that tells it from the others.
        dataset: the data set's title, such as "CIFAR10 (JPEG)", for two data sets may share a short name; empty, as
            network and loss are, where nobody said.
        settings: all other settings, by name.
        records: a dictionary a measured epoch, and layer where there are several, in the order of epochs.
        path: where it was read, or None.
        unfinished: why it has not reached its end, in words; empty where it has, or where nobody says how long it is.
    """

    run: str
    dataset: str = ""
    network: str = ""
    loss: str = ""
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    records: tuple[dict[str, Any], ...] = ()
    path: Path | None = None
    unfinished: str = ""

    @property
    def labels(self) -> tuple[str, str, str, str, int | None]:
        """What the rows of a table say of the run: `run`, `dataset`, `network`, `loss`, `seed`."""
        return self.run, self.dataset, self.network, self.loss, self.seed

    @property
    def last(self) -> Mapping[str, Any]:
        """The last record; empty before the first."""
        return self.records[-1] if self.records else {}

    @property
    def course(self) -> Sequence[dict[str, Any]]:
        """The records of the last layer, the one before the classifier, where there are several."""
        if len({record["epoch"] for record in self.records}) == len(self.records):
            return self.records
        return [record for record in self.records if layer_of(record) == layer_of(self.last)]

    def summary(self) -> dict[str, Any]:
        """Its labels, what happened in its course, and its settings.

        Of several layers the last counts, which is the one before the classifier.
        """
        records = self.course
        events = {
            "first_zero_error": first_zero_error(records),
            "stays_zero_error": stays_zero_error(records),
            "rate_divisions": tuple(rate_divisions(records)),
            "last_epoch": self.last.get("epoch"),
        }
        known = {**dict(zip(LABELS, self.labels, strict=True)), **events}
        return {**known, **{name: value for name, value in self.settings.items() if name not in known}}


def checked_records(records: Iterable[Any], where: str | Path) -> tuple[dict[str, Any], ...]:
    """Records with numbers in place of the texts "inf", "-inf" and "nan", in the order of their epochs.

    Where the epochs of a layer fall back, training went on from an earlier epoch: later records replace those of the
    same epoch and after it.

    Args:
        records: dictionaries, each with its `epoch`.
        where: the file or the name, for messages.

    Warns:
        UserWarning: records were replaced.

    Raises:
        InputError: something else than a dictionary with a finite `epoch` of at least 0.
    """
    layers: dict[str, list[dict[str, Any]]] = {}
    replaced = 0
    for place, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            raise InputError(f"{where}, record {place}: expected a dictionary, got {shortened(record)}")
        epoch = checked_epoch(record.get("epoch"), f"{where}, record {place}")
        try:
            numbers_of(record)
        except InputError as error:
            raise InputError(f"{where}, record {place}: {error}") from None
        kept = layers.setdefault(layer_of(record), [])
        while kept and kept[-1]["epoch"] >= epoch:
            kept.pop()
            replaced += 1
        kept.append({**{name: numbers(value) for name, value in record.items()}, "epoch": epoch})
    if replaced:
        warnings.warn(
            f"{where}: the epochs fall back, as where training goes on from an earlier one; {replaced} earlier "
            "records are left out",
            UserWarning,
            stacklevel=2,
        )
    found = [record for kept in layers.values() for record in kept]
    return tuple(sorted(found, key=lambda record: record["epoch"]))  # stable: layers stay in their order


def checked_epoch(value: Any, where: str) -> int | float:
    """An epoch, as an integer where it is whole.

    Raises:
        InputError: no number of 0 to 10¹⁵.
    """
    fits = isinstance(value, kinds.Real) and not isinstance(value, bool)
    if fits and 0 <= value <= 10**15:
        return int(value) if float(value).is_integer() else float(value)
    raise InputError(f"{where}: expected an epoch, a number of 0 to 1e15, got {shortened(value)}")


def check_seed(value: Any, where: str | Path) -> None:
    """Raise unless a seed is an integer of 64 bits."""
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise InputError(f"{where}: expected an integer of 64 bits as seed, got {shortened(value)}")
