"""Numbers as the page holds them: rounded, and as texts where JSON has none for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from neuralcollapse.measuring.tidy import numbers_of


def columns(records: Sequence[Mapping[str, Any]]) -> dict[str, list[float | str | None]]:
    """The numbers of records by name, a value for each record: rounded, None where it was not measured."""
    rows = [numbers_of(record) for record in records]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [rounded(row.get(name)) for row in rows] for name in names}


def rounded(value: float | None) -> float | str | None:
    """A number with five significant digits, whole where it is; "inf", "-inf" and "nan" for those JSON has not."""
    if value is None:
        return None
    if not math.isfinite(value):
        return str(float(value))
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
