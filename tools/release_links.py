"""Write the repository's public address into what a package index shows: URLs of the project, links of the README and
of the notebooks.

python tools/release_links.py https://github.com/OWNER/NAME v0.1.0

An index shows README.md without the files beside it, so its relative links and pictures become links to the files
of the tag. The address is given, not stored: the release workflow knows it, and a fork releases with its own.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?!https?:|#|mailto:)(?P<target>[^)\s]+)\)")


def absolute_links(page: str, url: str, ref: str) -> str:
    """The Markdown with links to files of the repository at ``ref``; pictures are linked raw."""

    def absolute(found: re.Match[str]) -> str:
        kind = "raw" if found["picture"] else "blob"
        return f"{found['picture']}[{found['text']}]({url}/{kind}/{ref}/{found['target']})"

    return LINK.sub(absolute, page)


def with_urls(project: str, url: str, ref: str) -> str:
    """The pyproject.toml with the repository's addresses among the URLs."""
    urls = {"Source": url, "Issues": f"{url}/issues", "Changelog": f"{url}/blob/{ref}/CHANGELOG.md"}
    lines = "".join(f'{name} = "{address}"\n' for name, address in urls.items())
    head, section, rest = project.partition("[project.urls]\n")
    if not section:
        raise SystemExit("pyproject.toml has no [project.urls]")
    return f"{head}{section}{lines}{rest}"


def main() -> None:
    if len(sys.argv) != 3 or not re.fullmatch(r"https://[\w.-]+(/[\w.-]+)+", sys.argv[1]):
        raise SystemExit(__doc__)
    url, ref = sys.argv[1:]
    for name, write in (("README.md", absolute_links), ("pyproject.toml", with_urls)):
        path = ROOT / name
        path.write_text(write(path.read_text(encoding="utf-8"), url, ref), encoding="utf-8")
    colab = f"https://colab.research.google.com/github/{url.removeprefix('https://github.com/')}/blob/{ref}/notebooks"
    for notebook in ROOT.glob("notebooks/*.ipynb") if url.startswith("https://github.com/") else ():
        badge = f"[Open in Colab]({colab}/{notebook.name})"
        notebook.write_text(notebook.read_text("utf-8").replace("<!-- Colab -->", badge), "utf-8")
    citation = ROOT / "CITATION.cff"
    text = citation.read_text(encoding="utf-8").replace("\nlicense: ", f'\nrepository-code: "{url}"\nlicense: ', 1)
    citation.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
