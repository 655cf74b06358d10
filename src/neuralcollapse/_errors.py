"""The error for wrong input and the hints it gives; nothing is imported here, so that `--help` need not wait."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Entry = TypeVar("Entry")

INTERRUPTED = 130
"""The exit code of an interrupted process by the shell's convention, 128 + SIGINT."""


class InputError(ValueError):
    """A mistake in the input, said in one sentence; the command line prints it without a traceback.

    Example:
        >>> import neuralcollapse as nc
        >>> try:
        ...     nc.simplex_etf(10, 5)
        ... except nc.InputError as error:
        ...     print(error)
        expected dim of at least 9 for 10 classes, got 5
    """


class Named(dict[str, Entry]):
    """The entries of one kind by name, such as the losses; asking for an unknown name is an InputError.

    Args:
        kind: what they are, for the error.
        entries: by name.
    """

    def __init__(self, kind: str, entries: dict[str, Entry]) -> None:
        super().__init__(entries)
        self._kind = kind

    def __missing__(self, name: str) -> Entry:
        raise InputError(f"unknown {self._kind} {name!r}{suggest(name, self)}; expected one of {', '.join(self)}")


def suggest(name: object, known: Iterable[str]) -> str:
    """The hint of an error about an unknown name: `` (did you mean 'resnet18'?)``, empty when no known name is near.

    A name is near that is spelled alike, or whose words begin with the letters given; dashes before it do not count.

    Args:
        name: what was given.
        known: the names that would have been right.

    Example:
        >>> suggest("resent18", ["vgg11", "resnet18"])
        " (did you mean 'resnet18'?)"
        >>> suggest("vci", ["cdnv", "variability_collapse_index"])
        " (did you mean 'variability_collapse_index'?)"
    """
    import difflib

    folded = {each.casefold().lstrip("-"): each for each in known}
    given = str(name).casefold().lstrip("-")
    near = difflib.get_close_matches(given, folded, n=2, cutoff=0.6)
    near = near or [each for each in folded if given == "".join(word[:1] for word in each.split("_"))]
    return f" (did you mean {' or '.join(repr(folded[each]) for each in near)}?)" if near else ""


def install(*packages: str, extra: str | None = None) -> str:
    """The command that installs packages in the versions this one works with; it works without this package's index.

    Args:
        packages: their names.
        extra: instead of names, all packages that an optional part of this package needs, such as "lab".

    Example:
        >>> install("scipy")
        "pip install 'scipy>=1.13'"
    """
    import importlib.metadata
    import re

    try:
        required = importlib.metadata.requires("neuralcollapse") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that was never installed
        required = []
    bounds: dict[str, str] = {}
    for line in required:  # such as: scipy>=1.13; extra == 'lab'
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        name = re.split(r"[<>=!~ \[]", requirement)[0]
        if extra is None or re.search(rf"extra == ['\"]{extra}['\"]", marker):
            bounds[name] = requirement.replace(" ", "")
    wanted = [bounds.get(name, name) for name in packages] or list(bounds.values())
    return "pip install " + " ".join(f"'{each}'" if re.search("[<>=]", each) else each for each in wanted)
