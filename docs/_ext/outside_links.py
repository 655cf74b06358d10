"""Links of a page to files outside docs/: to the repository where its address is known, else to copies of the files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sphinx.util import logging

logger = logging.getLogger(__name__)
DOCS = Path(__file__).parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|!?\[[^\]]*\])*)\]\(((?:\.\./)+[^)#\s]*)(#[^)\s]*)?\)")


def in_repository(text: str, page: Path, config: Any) -> str:
    """The text of a page with the address of each such link; a file that is not there is a warning."""

    def address(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(page.parent / found[2]))
        if DOCS in target.parents:
            return found[0]
        if not target.exists():
            logger.warning("no file %s", found[2], location=str(page))
        kind = "tree" if target.is_dir() else "blob"
        if target.parent == DOCS.parent / "notebooks":  # conf.py copies them into the site
            return f"[{found[1]}]({os.path.relpath(DOCS / 'notebooks' / target.name, page.parent)}{found[3] or ''})"
        repository = (config.html_theme_options or {}).get("source_repository", "").rstrip("/")
        if target.name in PAGES and target.parent == DOCS.parent:
            return f"[{found[1]}]({os.path.relpath(DOCS / PAGES[target.name], page.parent)}{found[3] or ''})"
        if not repository:  # a folder is named only
            if target.suffix == ".md" and "`" not in found[1]:
                return f"{{download}}`{found[1]} <{found[2]}>`"
            return found[1] if target.is_dir() else f"[{found[1]}]({found[2]})"
        return f"[{found[1]}]({repository}/{kind}/main/{target.relative_to(DOCS.parent).as_posix()}{found[3] or ''})"

    return _LINK.sub(address, text)


def change_source(app: Any, name: str, source: list[str]) -> None:
    """Change a Markdown page as it is read."""
    page = Path(app.env.doc2path(name))
    if page.suffix == ".md":
        source[0] = in_repository(source[0], page, app.config)


def setup(app: Any) -> dict[str, bool]:
    """Register the change."""
    app.connect("source-read", change_source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
