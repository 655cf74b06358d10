"""Equations as MathML, which browsers draw by themselves: no script, no fonts from elsewhere, readable aloud."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)
_ACCENT = re.compile(r"(\\(?:tilde|bar|hat|dot)\s*(?:\\[A-Za-z]+|[A-Za-z]|\{[^{}]*\}))\s*(?=[_^])")
_SPACED = re.compile(r"(?<=[}\w])(?=\\operatorname\{)|(?<=\\operatorname\{)(\w+)\}(?=\s*(?:\\[a-zA-Z]|[A-Za-z]))")
_FRACTION = re.compile(r"\\([dt]?frac)(\d)(\d)")


def mathml(node: nodes.Element, as_block: bool) -> str:
    """The MathML of a node; LaTeX that is not understood is a warning."""
    text = node.astext()
    # docutils would put the index of an accented letter under it, and read the 12 of \frac12 as one number
    text = _FRACTION.sub(r"\\\1{\2}{\3}", _ACCENT.sub(r"\1{}", text))
    # thin spaces about the names of functions, as LaTeX sets them
    text = _SPACED.sub(lambda found: f"{found[1]}}}\\," if found[1] else "\\,", text)
    if as_block and "\\\\" in text and "\\begin" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    try:
        # a norm's bars as high as each other
        return re.sub(r"<mo([^>]*)>‖", r'<mo\1 stretchy="false">‖', tex2mathml(text, as_block=as_block))
    except MathError as error:
        logger.warning("equation %r: %s", text, error, location=node)
        return ""


def visit_math(writer: Any, node: nodes.Element) -> None:
    """An equation within a line."""
    writer.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_displaymath(writer: Any, node: nodes.Element) -> None:
    """An equation on a line of its own."""
    writer.body.append(f'<div class="equation">{mathml(node, as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
