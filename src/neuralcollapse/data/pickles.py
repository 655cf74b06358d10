"""Pickles of dictionaries of texts, lists, numbers and NumPy arrays, read without Python's own unpickler.

That one takes 2 GiB for a place of the memo named in nine bytes, and calls whatever a file names. Here the few
instructions that such a dictionary consists of are followed, and every other one is refused; their arguments are read
by `pickletools`, which never holds more than the file has.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuralcollapse._checks import InputError

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = ("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
_OLD_TEXTS = ("BINSTRING", "SHORT_BINSTRING")  # of Python 2, in which text was bytes
_TEXTS = ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_OTHERS = {
    *("PROTO", "FRAME", "GLOBAL", "STACK_GLOBAL", "MARK", "EMPTY_DICT", "EMPTY_LIST", "TUPLE", "LIST", "DICT"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS", "REDUCE", "BUILD"),
    *("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
}
_FOLLOWED = {*_CONSTANTS, *_NUMBERS, *_BYTES, *_OLD_TEXTS, *_TEXTS, *_TUPLES, *_OTHERS}
_INSTRUCTIONS = {code.code.encode("latin-1"): code for code in pickletools.opcodes if code.name in _FOLLOWED}
_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _Mark:
    """Where the members of the container that is built next begin."""


@dataclass
class _Name:
    """A name of another module, of which no more than the name is ever used."""

    name: str


@dataclass
class _Type:
    """A NumPy type, whose byte order comes later."""

    code: str
    order: str = "="


@dataclass
class _Array:
    """A NumPy array, whose content comes later."""

    content: np.ndarray[Any, Any] | None = None


@dataclass
class _Reader:
    """The stack and the memo of the format, and how many bytes of text may still be turned into bytes."""

    room: int
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def follow(self, name: str, argument: Any) -> None:
        """Do one instruction."""
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _NUMBERS or name in _TEXTS:
            stack.append(argument)
        elif name in _BYTES:
            stack.append(bytes(argument))
        elif name in _OLD_TEXTS:
            stack.append(argument.encode("latin-1"))
        elif name == "GLOBAL":
            stack.append(_name(*argument))
        elif name == "STACK_GLOBAL":
            attribute, module = self._pop(str), self._pop(str)
            stack.append(_name(module, attribute))
        elif name == "MARK":
            stack.append(_Mark())
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in _TUPLES:
            members = stack[len(stack) - _TUPLES[name] :]
            del stack[len(stack) - _TUPLES[name] :]
            stack.append(tuple(members))
        elif name == "TUPLE":
            stack.append(tuple(self._members()))
        elif name == "LIST":
            stack.append(self._members())
        elif name == "DICT":
            members = self._members()
            stack.append({})
            self._set(members)
        elif name == "APPEND":
            member = stack.pop()
            self._top(list).append(member)
        elif name == "APPENDS":
            members = self._members()
            self._top(list).extend(members)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self._set([key, value])
        elif name == "SETITEMS":
            self._set(self._members())
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "REDUCE":
            arguments = self._pop(tuple)
            stack.append(self._called(self._pop(_Name).name, *arguments))
        elif name == "BUILD":
            state = self._pop(tuple)
            _completed(stack[-1], *state)

    def _pop(self, kind: type) -> Any:
        value = self.stack.pop()
        if not isinstance(value, kind):
            raise ValueError(f"{type(value).__name__} in place of {kind.__name__}")
        return value

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"{type(self.stack[-1]).__name__} in place of {kind.__name__}")
        return self.stack[-1]

    def _members(self) -> list[Any]:
        members = []
        while not isinstance(member := self.stack.pop(), _Mark):
            members.append(member)
        return members[::-1]

    def _set(self, members: list[Any]) -> None:
        content = self._top(dict)
        for key, value in zip(members[::2], members[1::2], strict=True):
            if not isinstance(key, bytes | str | int):  # a deep tuple's hash would crash
                raise ValueError(f"{type(key).__name__} as a key")
            content[key] = value

    def _called(self, name: str, *arguments: Any) -> Any:
        """What the named function gives, without calling it."""
        match name, arguments:
            case "dtype", (bytes() | str() as code, *_):
                return _Type(_short(code))
            case "encode", (str() as text, "latin1" | b"latin1"):
                self.room -= len(text)  # the same text again and again would grow without end
                if self.room < 0:
                    raise ValueError("more text than the file has bytes")
                return text.encode("latin-1")
            case "_reconstruct", _:
                return _Array()
            case "_frombuffer", (bytes() as content, _Type() as kind, tuple() as shape, "C" | "F" as order):
                return _Array(_array(content, kind, shape, order == "F"))
        raise ValueError(f"{name} with {len(arguments)} arguments")


def read_pickle(stored: bytes) -> Any:
    """What is pickled, arrays as NumPy arrays.

    Raises:
        InputError: the pickle asks for something that such a dictionary does not need.
        Exception: a damaged pickle; of any type.
    """
    reader, file = _Reader(room=len(stored)), io.BytesIO(stored)
    while (byte := file.read(1)) != pickle.STOP:
        if not byte:
            raise EOFError
        code = _INSTRUCTIONS.get(byte)
        if code is None:
            raise InputError(f"refused, it has the instruction {byte!r}, which no CIFAR batch needs")
        if code.name == "GLOBAL":
            argument: Any = (file.readline(100).decode().rstrip("\n"), file.readline(100).decode().rstrip("\n"))
        else:
            argument = None if code.arg is None else code.arg.reader(file)
        reader.follow(code.name, argument)
    (content,) = reader.stack
    if isinstance(content, dict):
        return {key: value.content if isinstance(value, _Array) else value for key, value in content.items()}
    return content


def _name(module: str, name: str) -> _Name:
    key = (module.replace("numpy._core.", "numpy.core."), name)  # NumPy 2 renamed it
    if key not in _NAMES:
        asked = f"{module}.{name}"[:80]
        raise InputError(f"refused, it asks for {asked!r}, which no CIFAR batch needs")
    return _Name(name)


def _completed(value: Any, *state: Any) -> None:
    match value, state:
        case _Type(), (int(), str() | bytes() as order, *_):
            value.order = _short(order)
        case _Array(), (int(), tuple() as shape, _Type() as kind, bool() | int() as columns_first, bytes() as content):
            value.content = _array(content, kind, shape, bool(columns_first))
        case _:
            raise ValueError(f"a state of {len(state)} entries for {type(value).__name__}")


def _short(text: str | bytes) -> str:
    """The beginning of a text, which is all of one that makes sense."""
    return text[:9].decode("latin-1") if isinstance(text, bytes) else text[:9]


def _array(content: bytes, kind: _Type, shape: tuple[Any, ...], columns_first: bool) -> np.ndarray[Any, Any]:
    if not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", kind.code) or kind.order not in ("<", ">", "|", "="):
        raise InputError(f"expected an array of numbers, found one of type {kind.code!r}")
    dtype = np.dtype(kind.code).newbyteorder(kind.order)  # type: ignore[arg-type]
    if not all(type(size) is int and size >= 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{len(content)} bytes for an array of another shape")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if columns_first else "C")
