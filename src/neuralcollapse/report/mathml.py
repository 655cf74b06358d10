r"""Formulas as MathML from a line of text, so that a person can read them where they are written.

The text is that of the docstrings with LaTeX's marks for what is not in a line: `_` and `^` for an index and a power,
each of one sign or of a group in braces, `\frac{a}{b}`, `\bar{M}`, `\tilde{W}`, `\sqrt{a}`. Words are upright, letters
slanted, as MathML has them by itself.
"""

from __future__ import annotations

import re
from html import escape

from markupsafe import Markup

# a word stays whole, but Greek letters are variables of their own
_TOKEN = re.compile(
    r"\\(?:frac|bar|tilde|sqrt)(?![a-z])|arg (?:max|min)|[λΣμωσπτΔ]|[^\W\d_λΣμωσπτΔ]+|\d+(?:\.\d+)?|[^\s]"
)
_ACCENTS = {"\\bar": "¯", "\\tilde": "~"}


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
    parts = _sequence(_TOKEN.findall(text), "")
    return Markup(f'<math display="block">{"".join(parts)}</math>')


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
        tag = "msubsup" if below and above else "msub" if below else "msup"
        parts.append(f"<{tag}>{base}{below}{above}</{tag}>" if below or above else base)
    if end:
        raise ValueError(f"expected {end!r} at the end of a formula")
    return parts


def _element(token: str, tokens: list[str]) -> str:
    if token == "{":
        parts = _sequence(tokens, "}")
        return parts[0] if len(parts) == 1 else f"<mrow>{''.join(parts)}</mrow>"
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
