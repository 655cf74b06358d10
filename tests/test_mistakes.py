"""docs/mistakes.md: what the likeliest mistakes of each framework say, as they are typed.

python tests/test_mistakes.py writes the page again.
"""

from __future__ import annotations

import contextlib
import html
import importlib.util
import io
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers.mistakes import FRAMEWORKS, SETUP

PAGE = Path(__file__).parents[1] / "docs" / "mistakes.md"
HEAD = """# Mistakes, and what they say

The likeliest mistakes in each framework, tried as they stand here. In all of them `loader` gives batches of `inputs` of
shape (n, 6) and `labels` from 0 to 2, and `model` is a small network with three outputs.
"""


def names_of(title: str) -> dict[str, Any]:
    """What the lines of a framework may use, or a skip where its package is not installed."""
    package, setup, _ = FRAMEWORKS[title]
    pytest.importorskip(package)
    names: dict[str, Any] = {}
    with quiet():
        exec(SETUP + setup, names)
    return names


@contextlib.contextmanager
def quiet() -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def said(line: str, names: dict[str, Any]) -> str:
    """What a line raises or prints, on one line, without what differs from machine to machine."""
    printed = io.StringIO()
    try:
        with quiet(), contextlib.redirect_stdout(printed):
            exec(line, names)
        text = printed.getvalue()
    except Exception as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        text = f"{type(error).__name__}: {error}{notes}".removeprefix("InputError: ")
    text = re.sub(r"names among .*", "names among …", " ".join(text.split()))  # the metrics, of which more are added
    return text if len(text) <= 360 else f"{text[:357]}…"


def section(title: str) -> str:
    names = names_of(title)
    rows = [f"| `{line}` | {html.escape(said(line, names), quote=False)} |" for line in FRAMEWORKS[title][2]]
    assert not any("|" in row.strip("|").replace("` | ", "") for row in rows)  # a cell of a table
    return "\n".join([f"## {title}", "", "| typed | what it says |", "|---|---|", *rows]) + "\n"


def written(title: str) -> dict[str, str]:
    """The messages on the page, by line."""
    found = re.search(rf"## {title}\n(.*?)(?=\n## |\Z)", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    rows = re.findall(r"^\| `(.*)` \| (.*) \|$", found[1], re.MULTILINE)
    return {line: html.unescape(message) for line, message in rows}


@pytest.mark.wrong_input
@pytest.mark.parametrize("title", FRAMEWORKS)
def test_the_page_says_what_each_mistake_says(title: str, request: pytest.FixtureRequest) -> None:
    names, page = names_of(title), written(title)
    assert tuple(page) == FRAMEWORKS[title][2] and len(page) >= 20
    for line, message in page.items():
        assert said(line, names) == message, line


@pytest.mark.parametrize("title", FRAMEWORKS)
def test_each_message_is_a_sentence_and_not_a_defect(title: str) -> None:
    """What was got or expected, or the nearest name: no bare error from within, nothing silent."""
    for line, message in written(title).items():
        assert message, line
        if not line.startswith("print("):
            words = (
                r"expected|did you mean|needs|cannot|missing 1 required|positional|not subscriptable|raised by|found"
            )
            assert re.search(words, message), (line, message)


if __name__ == "__main__":
    missing = [title for title, (package, _, _) in FRAMEWORKS.items() if importlib.util.find_spec(package) is None]
    if missing:
        sys.exit(f"the page needs all frameworks; not installed: {', '.join(missing)}")
    PAGE.write_text("\n".join([HEAD, *map(section, FRAMEWORKS)]), encoding="utf-8")
