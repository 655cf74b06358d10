"""The arrows of a Mermaid picture as a table: drawing them would take a script of several megabytes on each page."""

from __future__ import annotations

import re
from typing import Any

_PICTURE = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)


def table(found: re.Match[str]) -> str:
    """A row for each caller."""
    names = dict(re.findall(r'(\w+)\["([^"]+)"\]', found[1]))
    rows: dict[str, list[str]] = {}
    for line in found[1].splitlines():
        if ends := re.fullmatch(r"\s+(\w+)(?:\[.*?\])? --> (\w+)(?:\[.*?\])?", line):
            rows.setdefault(names[ends[1]], []).append(names[ends[2]])
    body = [f"| `{caller}` | {', '.join(f'`{name}`' for name in called)} |" for caller, called in rows.items()]
    return "\n".join(["| function | calls |", "| --- | --- |", *body, ""])


def replace_pictures(app: Any, name: str, source: list[str]) -> None:
    """Replace each picture of a page."""
    source[0] = _PICTURE.sub(table, source[0])


def setup(app: Any) -> dict[str, bool]:
    """Change the source of each page as it is read."""
    app.connect("source-read", replace_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
