"""The HTML file: template, style, scripts, plotly and the data, in one."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from neuralcollapse import __version__
from neuralcollapse._errors import InputError, install
from neuralcollapse._files import replacing
from neuralcollapse.files.options import check_written
from neuralcollapse.measuring.reading import BOUNDS
from neuralcollapse.report.explanations import explained, later_metrics

SCRIPTS = ("elements", "numbers", "panels", "portrait", "matrix", "tables", "run", "study", "start")
"""The page's own scripts, in the order in which they run."""


def check_page(path: Path) -> None:
    """Raise unless a path is one of a page, so that what is read is never written over.

    Raises:
        InputError: another ending than .html or .htm, or it cannot be written.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"expected a file ending in .html for the report, got {path}")
    check_written(path)


def write_page(path: Path, content: dict[str, Any]) -> Path:
    """Write the page of some content; a reader never finds half of it.

    Args:
        path: the file.
        content: what the page shows; it has `title`, and `kind`, one of "run", "study" and "features".

    Returns:
        The path.

    Raises:
        InputError: plotly is not installed; not a file ending in .html.
    """
    check_page(path)
    text = render(content)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def render(content: dict[str, Any]) -> str:
    """The text of the page."""
    page = PackageLoader("neuralcollapse.report", "page")
    environment = Environment(
        loader=page, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    used = {name for run in content.get("runs", ()) for name in run["values"]} | set(content.get("numbers", ()))
    return environment.get_template("report.html").render(
        title=content["title"],
        version=__version__,
        data=Markup(as_script_data(content)),
        explanations=explained(used),
        bounds=BOUNDS,
        later=later_metrics(used),
        style=Markup(_own("report.css")),
        scripts=[Markup(_own(f"{name}.js")) for name in SCRIPTS],
        plotly=Markup(_plotly()),
    )


def as_script_data(content: dict[str, Any]) -> str:
    """JSON that may stand inside a script element: no text in it can end the element or begin another."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _own(name: str) -> str:
    return resources.files("neuralcollapse.report").joinpath("page", name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise InputError(f"the report needs plotly: {install('plotly')}") from None
    text: str = get_plotlyjs()
    return text.replace("</script", "<\\/script")
