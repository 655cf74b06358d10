r"""Formulas as MathML from a line of text, so that a person can read them where they are written.

The text is that of the docstrings with LaTeX's marks for what is not in a line: `_` and `^` for an index and a power,
each of one sign or of a group in braces, `\frac{a}{b}`, `\bar{M}`, `\tilde{W}`, `\sqrt{a}`. Words are upright, letters
slanted, as MathML has them by itself.
"""

from __future__ import annotations

import re
from html import escape

from markupsafe import Markup

_TOKEN = re.compile(r"\\(?:frac|bar|tilde|sqrt)(?![a-z])|arg (?:max|min)|[^\W\d_]+|\d+(?:\.\d+)?|[^\s]")
_ACCENTS = {"\\bar": "¯", "\\tilde": "~"}
_GREEK = frozenset("λΣμωσπτΔ")


def mathml(text: str) -> Markup:
    r"""The formula as a block of MathML.

    Args:
        text: such as `NC1 = \frac{tr(Σ_W Σ_B^+)}{C}`.

    Raises:
        ValueError: a brace that is not closed, or none where one is needed.

    Example:
        >>> print(mathml("2^n"))
        <math display="block"><msup><mn>2</mn><mi>n</mi></msup></math>
    """
    tokens = [part for token in _TOKEN.findall(text) for part in _split(token)]
    parts = _sequence(tokens, "")
    return Markup(f'<math display="block">{"".join(parts)}</math>')


def _split(token: str) -> list[str]:
    """A word stays whole; Greek letters are variables of their own."""
    return [part for part in re.split(f"([{''.join(_GREEK)}])", token) if part] if token[0] != "\\" else [token]


def _sequence(tokens: list[str], end: str) -> list[str]:
    """The elements up to a token, which is taken off too."""
    parts: list[str] = []
    while tokens:
        token = tokens.pop(0)
        if token == end:
            return parts
        base = _element(token, tokens)
        below = above = ""
        while tokens and tokens[0] in "_^":
            mark, one = tokens.pop(0), _argument(tokens)
            below, above = (one, above) if mark == "_" else (below, one)
        if below and above:
            base = f"<msubsup>{base}{below}{above}</msubsup>"
        elif below or above:
            tag = "msub" if below else "msup"
            base = f"<{tag}>{base}{below or above}</{tag}>"
        parts.append(base)
    if end:
        raise ValueError(f"expected {end!r} at the end of a formula")
    return parts


def _element(token: str, tokens: list[str]) -> str:
    if token == "{":
        return _row(_sequence(tokens, "}"))
    if token == "\\frac":
        return f"<mfrac>{_argument(tokens)}{_argument(tokens)}</mfrac>"
    if token == "\\sqrt":
        return f"<msqrt>{_argument(tokens)}</msqrt>"
    if token in _ACCENTS:
        return f'<mover>{_argument(tokens)}<mo stretchy="false">{_ACCENTS[token]}</mo></mover>'
    if token[0].isdigit():
        return f"<mn>{token}</mn>"
    if token[0].isalpha():
        return f"<mi>{escape(token)}</mi>"
    return f'<mo stretchy="false">{token}</mo>' if token in "‖|[]()⟨⟩" else f"<mo>{escape(token)}</mo>"


def _argument(tokens: list[str]) -> str:
    """One sign or a group in braces."""
    if not tokens:
        raise ValueError("expected something after the end of a formula")
    return _element(tokens.pop(0), tokens)


def _row(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"<mrow>{''.join(parts)}</mrow>"
