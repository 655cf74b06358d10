"""Links of a page to files outside docs/, which GitHub follows, lead to the repository on the site too."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sphinx.util import logging

logger = logging.getLogger(__name__)
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|!?\[[^\]]*\])*)\]\(((?:\.\./)+[^)#\s]*)(#[^)\s]*)?\)")


def to_repository(app: Any, name: str, source: list[str]) -> None:
    """Give each such link its address; a file that is not there is a warning."""
    page = Path(app.env.doc2path(name))
    if page.suffix != ".md":
        return
    docs = Path(app.srcdir)

    def address(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(page.parent / found[2]))
        if docs in target.parents:
            return found[0]
        if not target.exists():
            logger.warning("no file %s", found[2], location=name)
        kind = "tree" if target.is_dir() else "blob"
        repository = app.config.html_theme_options["source_repository"].rstrip("/")
        return f"[{found[1]}]({repository}/{kind}/main/{target.relative_to(docs.parent).as_posix()}{found[3] or ''})"

    source[0] = _LINK.sub(address, source[0])


def setup(app: Any) -> dict[str, bool]:
    """Change the source of each page as it is read."""
    app.connect("source-read", to_repository)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
