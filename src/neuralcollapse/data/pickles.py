"""CIFAR batches, which are pickles of dictionaries of texts, lists, numbers and arrays, read without running them.

`pickle.Unpickler` calls whatever function a file names, and takes 2 GiB of memory for a place in its memo that nine
bytes name. Here the same class as written in Python follows only the instructions that such a dictionary needs, and
each name of NumPy's stands for a class below that does no more than hold an array.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from neuralcollapse._errors import InputError

_INSTRUCTIONS = (
    *("PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT"),
    *("BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE"),
    *("SHORT_BINUNICODE", "BINUNICODE8", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE", "EMPTY_LIST", "LIST"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS", "GLOBAL", "STACK_GLOBAL", "REDUCE"),
)


class _Dictionary(dict[Any, Any]):
    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, bytes | str | int):  # the hash of a deeply nested tuple would end the process
            raise ValueError(f"{type(key).__name__} as a key")
        super().__setitem__(key, value)


class _Dtype:
    """A NumPy type, whose byte order comes with its state."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self.code, self.order = _short(code), "="

    def set_state(self, _version: int, order: str | bytes, *_: Any) -> None:
        self.order = _short(order)


class _Array:
    """A NumPy array, whose content comes with its state, or at once from `_frombuffer`."""

    def __init__(self, *_: Any) -> None:
        self.content: np.ndarray[Any, Any] | None = None

    @classmethod
    def from_buffer(cls, content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
        array = cls()
        array.set_state(1, shape, dtype, order == "F", content)
        return array

    def set_state(self, _version: int, shape: tuple[int, ...], dtype: _Dtype, fortran: bool, content: bytes) -> None:
        if not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", dtype.code) or dtype.order not in ("<", ">", "|", "="):
            raise InputError(f"expected an array of numbers, got one of type {dtype.code!r}")
        numbers = np.dtype(dtype.code).newbyteorder(dtype.order)  # type: ignore[arg-type]
        sizes = [size for size in shape if type(size) is int and size >= 0]
        if len(sizes) != len(shape) or math.prod(sizes) * numbers.itemsize != len(content):
            raise ValueError(f"{len(content)} bytes for an array of another shape")
        self.content = np.frombuffer(content, numbers).reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle._Unpickler):
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    # what each instruction does, by its byte; any other is a KeyError
    dispatch: ClassVar[dict[int, Any]] = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _INSTRUCTIONS
    }
    dispatch[pickle.BYTEARRAY8[0]] = dispatch[pickle.BINBYTES8[0]]  # else memory is taken before bytes are read

    def __init__(self, stored: bytes) -> None:
        super().__init__(io.BytesIO(stored), encoding="bytes")
        self._encodable = len(stored)
        self._known = {
            "numpy.core.multiarray._reconstruct": _Array,
            "numpy.core.numeric._frombuffer": _Array.from_buffer,
            "numpy.ndarray": None,  # an argument of `_reconstruct`
            "numpy.dtype": _Dtype,
            "_codecs.encode": self._encode,
        }

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module.replace('numpy._core.', 'numpy.core.')}.{name}"  # NumPy 2 renamed it
        if asked not in self._known:
            raise InputError(f"refused: it asks for {asked[:80]!r}, which no CIFAR batch needs")
        return self._known[asked]

    def _encode(self, text: str, encoding: str | bytes) -> bytes:
        self._encodable -= len(text)  # encoding the same text again and again would fill the memory
        if self._encodable < 0 or encoding not in ("latin1", b"latin1"):
            raise ValueError("more text than the file has bytes, or in another encoding")
        return text.encode("latin-1")

    def load_dictionary(self) -> None:
        members = self.pop_mark()
        self.append(made := _Dictionary())
        for key, value in zip(members[::2], members[1::2], strict=True):
            made[key] = value

    dispatch[pickle.EMPTY_DICT[0]] = lambda self: self.append(_Dictionary())
    dispatch[pickle.DICT[0]] = load_dictionary
    dispatch[pickle.BUILD[0]] = lambda self: self.stack[-2].set_state(*self.stack.pop())


def read_pickle(stored: bytes) -> Any:
    """The pickled object, with its arrays as NumPy arrays.

    Raises:
        InputError: the pickle asks for something that such a dictionary does not need.
        Exception: a damaged pickle; of any type.
    """
    content = _Unpickler(stored).load()
    if isinstance(content, dict):
        return {key: value.content if isinstance(value, _Array) else value for key, value in content.items()}
    return content


def _short(text: str | bytes) -> str:
    """The first nine characters of a text; every valid one is shorter."""
    return text[:9].decode("latin-1") if isinstance(text, bytes) else text[:9]
