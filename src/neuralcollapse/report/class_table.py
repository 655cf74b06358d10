"""The classes of a measurement one by one, as the page takes them."""

from __future__ import annotations

from typing import Any

from neuralcollapse.measuring.per_class import ClassReports
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


def class_table(classes: ClassReports, note: str) -> dict[str, Any]:
    """The table, the least collapsed class first.

    Args:
        classes: the numbers; those that were not measured have no column.
        note: a sentence that says of what they are.
    """
    rows = classes.least_collapsed()
    total = sum(row.nc1_share or 0.0 for row in rows)
    names = [name for name in _COLUMNS if any(getattr(row, name) is not None for row in rows)]
    columns: list[dict[str, Any]] = [{"key": "class", "title": "Class"}]
    for name in names:
        title, percent = _COLUMNS[name]
        columns.append({"key": name, "title": title, "percent": percent, "number": name != "nearest"})

    def cell(row: Any, name: str) -> Any:
        value = getattr(row, name)
        if name == "nc1_share" and value is not None:
            value = value / total if total else None  # of the whole, not of a number that the reader must divide by
        return value if isinstance(value, str) else rounded(value)

    return {
        "columns": columns,
        "rows": [[row.name, *(cell(row, name) for name in names)] for row in rows],
        "note": note,
    }
