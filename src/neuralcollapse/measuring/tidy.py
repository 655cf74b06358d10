"""The tidy table of measurements: one value a row, and beside it what was measured, where and when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from neuralcollapse._checks import InputError
from neuralcollapse._errors import install
from neuralcollapse._files import numbers, shortened

if TYPE_CHECKING:
    import pandas as pd

LABELS = ("run", "dataset", "network", "loss", "seed")
UNLABELLED = ("", "", "", "", None)
"""The labels of what no run is known of."""
COLUMNS = (*LABELS, "epoch", "layer", "metric", "value")
_CONSTANTS = ("num_examples", "num_classes", "classes_present", "dim", "mse.weight_decay")
AGAIN = ("re_estimated", "notebook")
"""What stands before the names of numbers that a run measures in a second way, with a dot between."""
RENAMED = {"numerical_rank": "stable_rank"}
"""What older histories call a number that has another name now."""


def plain_name(name: str) -> str:
    """The name of a number without the word for a second way in which a run measures it."""
    again, _, rest = name.partition(".")
    return rest if again in AGAIN else name


def is_constant(name: str) -> bool:
    """Whether a number says what was measured on, not what was found: it stays the same in a training."""
    return plain_name(name) in _CONSTANTS


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a report or of a line of a history by name, those that are not finite too.

    Of a list, such as the singular values `snr`, the entries are `snr.1`, `snr.2` and so on. Texts, notes and what was
    not measured (None) are left out. A number of an older name comes by its present one.

    Raises:
        InputError: an integer that is too large for a float.

    Example:
        >>> numbers_of({"epoch": 3, "nc1": "inf", "nc3": None, "snr": [9.0, 8.5], "weighting": "class"})
        {'nc1': inf, 'snr.1': 9.0, 'snr.2': 8.5}
    """
    found = {}
    for name, value in record.items():
        if name in ("epoch", "layer", "notes"):
            continue
        value = numbers(value.tolist() if hasattr(value, "tolist") else value)  # an array or a tensor
        entries = {f"{name}.{rank}": each for rank, each in enumerate(value, 1)} if isinstance(value, list) else {}
        for key, number in (entries or {RENAMED.get(name, name): value}).items():
            if isinstance(number, int | float) and not isinstance(number, bool):
                try:
                    found[key] = float(number)
                except OverflowError:
                    raise InputError(
                        f"expected a number that a float can hold for {key}, got {shortened(number)}"
                    ) from None
    return found


def layer_of(record: Mapping[str, Any]) -> str:
    """The layer that a record is about; empty where it does not say."""
    layer = record.get("layer")
    return "" if layer is None else str(layer)


def tidy_table(records: Iterable[tuple[tuple[Any, ...], Mapping[str, Any]]]) -> pd.DataFrame:
    """The table with the columns of `COLUMNS`.

    Args:
        records: the labels `run`, `dataset`, `network`, `loss`, `seed`, and a record that they belong to. A record
            without an epoch, or a run without a seed, has a missing value in that column.

    Raises:
        InputError: pandas is not installed.
    """
    pandas = import_pandas()
    rows = [
        (*labels, record.get("epoch"), layer_of(record), name, value)
        for labels, record in records
        for name, value in numbers_of(record).items()
    ]
    table = pandas.DataFrame(rows, columns=list(COLUMNS))
    for name in ("run", "dataset", "network", "loss", "layer", "metric"):
        table[name] = table[name].astype("str")
    return table.astype({"value": "float64"}).assign(
        **{name: column_of_numbers(table[name]) for name in ("seed", "epoch")}
    )


def column_of_numbers(column: Any) -> pd.Series:
    """Integers where all that are there are integers, missing ones as <NA>; floats otherwise."""
    present = column.dropna()
    if not all(isinstance(value, int) or float(value).is_integer() for value in present):
        return column.astype("float64")
    return column.astype("int64" if len(present) == len(column) else "Int64")


def import_pandas() -> Any:
    """pandas, which only tables need.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise InputError(f"a table needs pandas: {install('pandas')}") from None
    return pandas


def setting_text(value: Any) -> str:
    """A setting of a run as a person writes it."""
    if isinstance(value, list | tuple):
        return ", ".join(setting_text(each) for each in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {setting_text(each)}" for name, each in value.items())
    return f"{value:.6g}" if isinstance(value, float) else "–" if value is None else str(value)
