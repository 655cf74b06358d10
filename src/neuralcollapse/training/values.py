"""Values of JSON against the types of a dataclass's fields: checked before anything relies on them."""

from __future__ import annotations

import sys
import types
import typing
from pathlib import Path
from typing import Any

_WORDS = {
    float: "a number",
    int: "a whole number",
    str: "a text",
    Path: "a path",
    bool: "true or false",
    types.NoneType: "null",
}
_MANY = {float: "numbers", int: "whole numbers", str: "texts"}
_UNIONS = (typing.Union, types.UnionType)


def is_a(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is of a type: those in the fields of `Settings` and `RunConfig`, and no others."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        return any(is_a(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, list) and all(is_a(item, arguments[0]) for item in value)
    if hint is Path:
        return isinstance(value, str)
    if hint is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # not infinite, not NaN
    return type(value) is hint


def said(hint: Any) -> str:
    """The type in a user's words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in _UNIONS:
        return " or ".join(said(argument) for argument in arguments)
    if origin is typing.Literal:
        return ", ".join(map(str, arguments)) if len(arguments) == 1 else f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list of {_MANY[arguments[0]]}"
    return _WORDS[hint]
