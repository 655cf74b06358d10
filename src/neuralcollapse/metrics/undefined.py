"""One warning a call about the numbers that are undefined or infinite, shown at the line of the caller."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

# reason, with the verb's complement ("undefined: all features are equal"), → the names of the numbers
_Reasons = dict[str, list[str]]
_collected: ContextVar[_Reasons | None] = ContextVar("numbers that are undefined", default=None)


def warn_undefined(name: str, reason: str, state: str = "undefined") -> None:
    """Warn that the number of this name is ``"undefined"`` or ``"infinite"``, and why.

    Within :func:`one_warning` it is kept for the warning at the end.
    """
    with one_warning():
        collected = _collected.get()
        assert collected is not None
        names = collected.setdefault(f"{state}: {reason}", [])
        if name not in names:
            names.append(name)


@contextmanager
def one_warning() -> Iterator[None]:
    """Put what the block warns of by :func:`warn_undefined` into one warning at its end; blocks may be nested."""
    if _collected.get() is not None:
        yield
        return
    reasons: _Reasons = {}
    token = _collected.set(reasons)
    try:
        yield
    finally:
        _collected.reset(token)
    if reasons:
        text = "; ".join(f"{_listed(names)} {_verb(names)} {reason}" for reason, names in reasons.items())
        warnings.warn(text, UserWarning, stacklevel=_callers_level())


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _verb(names: list[str]) -> str:
    return "are" if len(names) > 1 or names[0].startswith(("the angles", "the principal angles")) else "is"


def _callers_level() -> int:
    """The stack level, as :func:`warnings.warn` counts it for its caller, of the code that called the package."""
    frame: FrameType | None = sys._getframe(1)
    modules = []
    while frame is not None:
        modules.append(frame.f_globals.get("__name__", "").partition(".")[0])
        frame = frame.f_back
    level = len(modules) - modules[::-1].index(__name__.partition(".")[0])
    while level < len(modules) and modules[level] == "contextlib":  # of one_warning as a decorator
        level += 1
    return level + 1
