"""How options are read: a wrong value is answered with what was expected, a wrong word also with the nearest one."""

from __future__ import annotations

import dataclasses
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from neuralcollapse._errors import suggest

RULES = ConstructorRegistry()
"""The rules that tyro follows before its own."""


@RULES.primitive_rule
def one_of(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """One of a few words: an option of type ``Literal["a", "b"]``."""
    if get_origin(info.type) is not Literal:
        return None
    words = get_args(info.type)

    def read(given: list[str]) -> Any:
        if given[0] not in words:
            raise ValueError(
                f"unknown value {given[0]!r}{suggest(given[0], words)}; expected one of {', '.join(words)}"
            )
        return given[0]

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(words) + "}",
        instance_from_str=read,
        is_instance=lambda value: value in words,
        str_from_instance=lambda value: [value],
    )


@RULES.primitive_rule
def number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A number: an option of type ``int`` or ``float``."""
    if info.type not in (int, float):
        return None

    def read(given: list[str]) -> Any:
        try:
            return info.type(given[0])
        except ValueError:
            expected = "a whole number" if info.type is int else "a number"
            raise ValueError(f"expected {expected}, got {given[0]!r}") from None

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=info.type.__name__.upper(),
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, (int, info.type)) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


@RULES.primitive_rule
def left_open(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A value or nothing: an option of type ``X | None`` is read as X, and is None where it is not given."""
    kinds = [kind for kind in get_args(info.type) if kind is not NoneType]
    if get_origin(info.type) not in (Union, UnionType) or len(kinds) != 1:
        return None
    given = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], info.markers))
    if not isinstance(given, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        given,
        is_instance=lambda value: value is None or given.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else given.str_from_instance(value),
    )
