"""How options are read: a wrong value is answered with what was expected, a wrong word also with the nearest one."""

from __future__ import annotations

import dataclasses
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from neuralcollapse._errors import suggest
from neuralcollapse.cli.help import default_hint, field_texts

MARKERS = (tyro.conf.FlagCreatePairsOff,)
"""How tyro reads all commands: a switch is `--dry-run`, without a `--no-dry-run` beside it."""
RULES = ConstructorRegistry()
"""The rules that tyro follows before its own."""


class WrongValue(Exception):
    """A value that an option does not take, in words; no ValueError, of which tyro would print a box of lines."""


@RULES.primitive_rule
def one_of(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """One of a few words: an option of type ``Literal["a", "b"]``."""
    if get_origin(info.type) is not Literal:
        return None
    words = get_args(info.type)

    def read(given: list[str]) -> Any:
        (word,) = given
        if word not in words:
            raise ValueError(f"unknown value {word!r}{suggest(word, words)}; expected one of {', '.join(words)}")
        return word

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
def several(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Values in a row: an option of type ``tuple[X, ...]``, each of which is read as X."""
    if get_origin(info.type) is not tuple:
        return None
    one = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(get_args(info.type)[0], info.markers))
    if not isinstance(one, PrimitiveConstructorSpec):
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"[{one.metavar} ...]",
        instance_from_str=lambda given: tuple(one.instance_from_str([each]) for each in given),
        is_instance=lambda value: isinstance(value, tuple) and all(map(one.is_instance, value)),
        str_from_instance=lambda value: [text for each in value for text in one.str_from_instance(each)],
        choices=one.choices,
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


@RULES.struct_rule
def described(info: StructTypeInfo) -> StructConstructorSpec | None:
    """A command or a group of options, each with what the help says of it and its name in errors about its value."""
    if not dataclasses.is_dataclass(info.type) or not info.type.__module__.startswith("neuralcollapse"):
        return None
    made: Any = info.type
    texts, hints = field_texts(made), get_type_hints(made, include_extras=True)
    switches = [name for name, hint in get_type_hints(made).items() if hint == bool | None]
    hints |= dict.fromkeys(switches, bool)

    def instantiate(**given: Any) -> Any:
        return made(**given | {name: given[name] or None for name in switches})  # a switch not given is left open

    fields = []
    for field in dataclasses.fields(made):
        hint: Any = _naming_itself(f"--{field.name.replace('_', '-')}", hints[field.name])
        hint = Annotated[hint, tyro.conf.arg(help_behavior_hint=default_hint(field))]
        default: Any = tyro.MISSING if field.default is dataclasses.MISSING else field.default
        default = default if field.default_factory is dataclasses.MISSING else field.default_factory()
        default = False if field.name in switches else default
        fields.append(StructFieldSpec(field.name, hint, default, helptext=texts.get(field.name, "")))
    return StructConstructorSpec(instantiate, tuple(fields))


def _naming_itself(name: str, hint: Any) -> Any:
    """The type of an option, a wrong value of which is a :class:`WrongValue` with the option's name."""
    found = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(hint, set()))
    if hint is bool or not isinstance(found, PrimitiveConstructorSpec):  # a switch, or a group of options
        return hint

    def read(given: list[str]) -> Any:
        try:
            return found.instance_from_str(given)
        except ValueError as error:
            raise WrongValue(f"{name}: {error}") from None

    return Annotated[hint, dataclasses.replace(found, instance_from_str=read)]
