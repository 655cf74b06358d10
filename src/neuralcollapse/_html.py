"""Small pieces of HTML with which objects show themselves in notebooks: tables, curves, sentences.

Text is escaped unless it is :class:`Html`. Lines take the text's own colour, so that they are seen on light and dark
pages; there are no scripts and no style sheets, which notebooks remove.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(text: object) -> Html:
    """The text as HTML, as it is where it is HTML already."""
    return text if isinstance(text, Html) else Html(html.escape(str(text)))


def paragraph(text: object) -> Html:
    """A paragraph."""
    return Html(f"<p>{escaped(text)}</p>")


def listing(items: Iterable[object]) -> Html:
    """Items one below the other, without bullets."""
    lines = "".join(f'<li style="list-style: none">{escaped(item)}</li>' for item in items)
    return Html(f'<ul style="padding-left: 0">{lines}</ul>')


def table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """A table; columns whose cells are all numbers, or no text but a dash, are set to the right."""
    cells = [list(map(escaped, row)) for row in rows]
    sides = ["right" if all(_like_a_number(row[i]) for row in cells) else "left" for i in range(len(heads))]

    def line(tag: str, row: Sequence[Html]) -> str:
        whole = "".join(
            f'<{tag} style="text-align: {side}; padding: 0.1em 0.6em">{cell}</{tag}>'
            for cell, side in zip(row, sides, strict=True)
        )
        return f"<tr>{whole}</tr>"

    body = "".join(line("td", row) for row in cells)
    return Html(f"<table><thead>{line('th', list(map(escaped, heads)))}</thead><tbody>{body}</tbody></table>")


def folded(title: object, content: object) -> Html:
    """Content that a click on its title shows."""
    return Html(f"<details><summary>{escaped(title)}</summary>{escaped(content)}</details>")


def curve(
    x: Sequence[float], y: Sequence[float], label: str, *, log: bool = True, width: int = 120, height: int = 24
) -> Html:
    """A small curve without axes; points that are not finite, or not above zero where ``log``, are left out.

    Args:
        x: positions; y: values; label: what it shows, for those who do not see it, and when the pointer rests on it.
    """
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b) and (b > 0 or not log)]
    if len(points) < 2:
        return Html("")
    points = [(a, math.log10(b)) if log else (a, b) for a, b in points]
    first, last = points[0][0], points[-1][0]
    low, high = min(b for _, b in points), max(b for _, b in points)
    across, down = (width - 2) / max(last - first, 1e-12), (height - 2) / max(high - low, 1e-12)
    line = " ".join(f"{1 + (a - first) * across:.1f},{1 + (high - b) * down:.1f}" for a, b in points)
    name = html.escape(label, quote=True)
    return Html(
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="{name}">'
        f'<title>{name}</title><polyline points="{line}" fill="none" stroke="currentColor"/></svg>'
    )


def _like_a_number(cell: str) -> bool:
    return cell in ("", "–") or cell[0].isdigit() or cell[0] in "−-" or cell in ("inf", "nan")
