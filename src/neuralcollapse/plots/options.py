"""How figures are written: formats, size and title."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Drawing:
    """How figures are written."""

    format: tuple[Literal["pdf", "svg", "png"], ...] = ("png", "svg")
    """One or several of pdf (fonts embedded as Type 42), svg (text stays text) and png."""
    style: Literal["iclr", "neurips", "column", "talk"] = "iclr"
    """Width and type size: the text of ICLR or NeurIPS (5.5 in), a column (3.25 in), or a slide (10 in)."""
    title: bool = True
    """The title above the figures; captions are always written beside them, in .tex and .txt."""
