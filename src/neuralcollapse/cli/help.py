"""The help of the commands: each option with its section, the value it takes, what it does, and its default.

All of it is read from the dataclass of the command: the names and types of its fields, the text under each, and the
section: that of a field's metadata, else that of the field it is nested in. PyTorch is not imported.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import shutil
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from neuralcollapse.training.config import OPTIONS, TrainingConfig

SECTIONS = (
    "Arguments",
    "Cells",
    "Sweep",
    "Flow",
    "Against a run",
    "Data",
    "Network",
    "Optimisation",
    "Measuring",
    "Large files in parts",
    "Where it runs",
    "Settings from a file",
    "Output",
)
"""The sections of a help text, in their order."""
_INDENT = 26


@dataclass(frozen=True)
class OptionHelp:
    """What the help says of one option.

    Args:
        name: as it is typed, such as ``--epochs``; of a positional argument such as ``[PATH]``.
        value: what follows it, such as ``INT`` or ``{mse,ce}``; empty for a switch.
        section: the heading it stands under.
        text: what it does.
        default: ``(default 1)``, the value it has when it is left out; empty where the text says it.
    """

    name: str
    value: str
    section: str
    text: str
    default: str


def options_of(command: type, section: str = "Output") -> Iterator[OptionHelp]:
    """The options of a command, those of nested dataclasses too.

    Args:
        command: a dataclass.
        section: of the fields that name none.
    """
    hints, texts = typing.get_type_hints(command, include_extras=True), field_texts(command)
    for field in dataclasses.fields(command):
        kind, markers = _unwrapped(hints[field.name])
        own = field.metadata.get("section", section)
        if issubclass(command, TrainingConfig):
            own = OPTIONS[field.name].section
        if dataclasses.is_dataclass(kind):
            yield from options_of(typing.cast(type, kind), own)
        elif tyro.conf.Positional in markers:
            name = field.name.upper() if field.default is dataclasses.MISSING else f"[{field.name.upper()}]"
            yield OptionHelp(name, "", "Arguments", texts.get(field.name, ""), default_hint(field))
        elif tyro.conf.Suppress not in markers:
            name, text = field.name.replace("_", "-"), texts.get(field.name, "")
            if field.default is True:
                name, text = f"no-{name}", f"Leave out {text[:1].lower()}{text[1:]}"
            yield OptionHelp(f"--{name}", _value(kind), own, text, default_hint(field))


def help_text(name: str, command: type) -> str:
    """The whole help of a command, in lines as wide as the terminal, from 60 to 100.

    Args:
        name: of the command.
        command: its dataclass.
    """
    width = min(max(shutil.get_terminal_size().columns, 60), 100)
    found = list(options_of(command))
    arguments = "".join(f" {option.name}" for option in found if not option.name.startswith("--"))
    lines = [f"usage: neuralcollapse {name}{arguments} [options]", "", *_paragraphs(command.__doc__ or "", width)]
    for section in SECTIONS:
        inside = [option for option in found if option.section == section]
        lines += ["", f"{section}:"] if inside else []
        for option in inside:
            lines += _entry(option, width)
    return "\n".join(lines)


def field_texts(command: type) -> dict[str, str]:
    """The text under each field of a dataclass and of its bases, on one line, by the field's name."""
    found: dict[str, str] = {}
    for cls in reversed([base for base in command.__mro__ if dataclasses.is_dataclass(base)]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for node, after in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(after, ast.Expr):
                found[node.target.id] = " ".join(str(ast.literal_eval(after.value)).split())
    return found


def default_hint(field: dataclasses.Field[Any]) -> str:
    """``(default 1)``; empty for a switch, and for a value that is left open, where the text says what it becomes."""
    if field.default in (None, ()) or isinstance(field.default, bool) or field.default is dataclasses.MISSING:
        return ""
    values = field.default if isinstance(field.default, tuple) else (field.default,)
    return f"(default {' '.join(map(str, values))})"


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without None and without annotations, and those annotations."""
    markers: tuple[Any, ...] = ()
    while True:
        if typing.get_origin(hint) is typing.Annotated:
            hint, *more = typing.get_args(hint)
            markers += tuple(more)
        elif typing.get_origin(hint) in (typing.Union, types.UnionType):
            (hint,) = (each for each in typing.get_args(hint) if each is not types.NoneType)
        else:
            return hint, markers


def _value(kind: Any) -> str:
    """What is typed after an option of a type."""
    if typing.get_origin(kind) is typing.Literal:
        return "{" + ",".join(typing.get_args(kind)) + "}"
    if typing.get_origin(kind) is tuple:
        return f"{_value(_unwrapped(typing.get_args(kind)[0])[0])} ..."
    return {bool: "", Path: "PATH"}.get(kind, getattr(kind, "__name__", str(kind)).upper())


def _entry(option: OptionHelp, width: int) -> list[str]:
    """The lines of one option: its usage, and beside or below it the text."""
    text = textwrap.wrap(f"{option.text} {option.default}".strip(), width - _INDENT, break_on_hyphens=False)
    usage = textwrap.wrap(f"  {option.name} {option.value}".replace(",", ", "), width, subsequent_indent=" " * 6)
    usage = [line.replace(", ", ",") for line in usage] if len(usage) == 1 else usage
    if len(usage) == 1 and len(usage[0]) < _INDENT - 1 and text:
        return [usage[0].ljust(_INDENT) + text[0], *(" " * _INDENT + line for line in text[1:])]
    return [*usage, *(" " * _INDENT + line for line in text)]


def _paragraphs(text: str, width: int) -> list[str]:
    """A docstring with its paragraphs filled; lines that are indented, such as examples, stay as they are."""
    lines: list[str] = []
    for block in inspect.cleandoc(text).split("\n\n"):
        kept = [line for line in block.split("\n") if line.startswith(" ")]
        filled = " ".join(line for line in block.split("\n") if not line.startswith(" "))
        lines += [*([""] if lines else []), *textwrap.wrap(filled, width, break_on_hyphens=False), *kept]
    return lines
