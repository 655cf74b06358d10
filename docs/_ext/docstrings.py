"""Docstrings are plain text with formulas: what reStructuredText would take for markup in them is escaped."""

from __future__ import annotations

import re
from typing import Any

_LITERAL = re.compile(r"(``.+?``|`[^`]+`|:\w+:`[^`]+`|^\s*>>>.*$|^\s*\.\. .*$|^\s*:\w[^:]*:)")


def escape(line: str) -> str:
    """`|x|`, `a_` and a lone `*` as they stand; code and roles are left alone."""
    if line.startswith("    ") and ">>>" in line:
        return line
    parts = _LITERAL.split(line)
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"[|*]|(?<=\w)_(?!\w)", lambda found: "\\" + found[0], parts[index])
    return "".join(parts)


def escape_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape the text of a docstring, before its sections are made into fields."""
    example = False
    for index, line in enumerate(lines):
        if line.strip().startswith(">>>"):
            example = True
        elif not line.strip():
            example = False
        if not example:
            lines[index] = escape(line)


def setup(app: Any) -> dict[str, bool]:
    """Escape before Napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", escape_docstring, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
