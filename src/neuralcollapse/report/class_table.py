"""The classes of a measurement one by one, as the page takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuralcollapse.measuring.per_class import ClassReport, ClassReports
from neuralcollapse.report.numbers import rounded

_COLUMNS: dict[str, tuple[str, bool]] = {
    "examples": ("Examples", False),
    "accuracy": ("Accuracy", True),
    "nc1": ("NC1 of its own examples", False),
    "nc1_share": ("Share of NC1", True),
    "variability": ("Variability within", False),
    "mean_norm": ("Norm of the mean", False),
    "nearest": ("Nearest other class", False),
    "nearest_cosine": ("Cosine with it", False),
    "duality": ("Cosine with its classifier row", False),
    "nc4_mismatch": ("NC4", True),
    "nearest_mean_accuracy": ("Accuracy of the nearest mean", True),
}
"""The numbers of a class: what the page calls each, and whether it is a percentage."""


def class_table(measured: Mapping[int, ClassReports], note: str) -> dict[str, Any]:
    """The tables of some epochs, in each the least collapsed class first.

    Args:
        measured: the numbers by epoch; those that the last epoch has not have no column.
        note: a sentence that says of what they are.
    """
    tables = [classes.least_collapsed() for classes in measured.values()]
    names = [name for name in _COLUMNS if any(getattr(row, name) is not None for row in tables[-1])]
    columns: list[dict[str, Any]] = [{"key": "class", "title": "Class"}]
    for name in names:
        title, percent = _COLUMNS[name]
        columns.append({"key": name, "title": title, "percent": percent, "number": name != "nearest"})
    cells = [[_cells(row, names, rows) for row in rows] for rows in tables]
    return {"columns": columns, "epochs": list(measured), "tables": cells, "note": note}


def _cells(row: ClassReport, names: Sequence[str], rows: Sequence[ClassReport]) -> list[Any]:
    found: list[Any] = [row.name]
    for name in names:
        value = getattr(row, name)
        if name == "nc1_share" and value is not None:  # of the whole: the reader has not to divide
            total = sum(each.nc1_share or 0.0 for each in rows)
            value = value / total if total else None
        found.append(value if isinstance(value, str) else rounded(value))
    return found
