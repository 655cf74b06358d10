"""CIFAR batches, which are pickles of dictionaries of texts, lists, numbers and arrays, read without running them.

`pickle` calls whatever function a file names, and takes 2 GiB of memory for a place in its memo that nine bytes name.
So the instructions are checked first, and each name of NumPy's stands for a class below that only holds an array.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from neuralcollapse._errors import InputError

_INSTRUCTIONS = {
    *("PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT"),
    *("BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "BINSTRING", "SHORT_BINSTRING", "UNICODE"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE"),
    *("EMPTY_LIST", "LIST", "EMPTY_DICT", "DICT", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
}
_MOST_TUPLES = 1000  # an array has five; the hash of tuples in tuples, a few hundred thousand deep, ends the process


def read_pickle(stored: bytes) -> Any:
    """What is pickled, arrays as NumPy arrays.

    Raises:
        InputError: the pickle asks for something that such a dictionary does not need.
        Exception: a damaged pickle; of any type.
    """
    places = tuples = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names with escapes
        for instruction, argument, _ in pickletools.genops(stored):  # which reads no more than the file has
            name = instruction.name
            if name not in _INSTRUCTIONS:
                raise InputError(f"refused, it has the instruction {instruction.code!r}, which no CIFAR batch needs")
            if argument is not None and "PUT" in name and not 0 <= argument <= places:
                raise ValueError(f"place {argument} of the memo follows {places}")
            places += "PUT" in name or name == "MEMOIZE"
            tuples += "TUPLE" in name
    if tuples > _MOST_TUPLES:
        raise ValueError(f"{tuples} tuples")
    content = _Unpickler(stored).load()
    if isinstance(content, dict):
        return {key: value.content if isinstance(value, _Array) else value for key, value in content.items()}
    return content


class _Unpickler(pickle.Unpickler):
    def __init__(self, stored: bytes) -> None:
        super().__init__(io.BytesIO(stored), encoding="bytes")
        self._encodable = len(stored)
        self._known = {
            "numpy.core.multiarray._reconstruct": _Array,
            "numpy.core.numeric._frombuffer": _Function(_Array.from_buffer),
            "numpy.ndarray": None,  # an argument of `_reconstruct`
            "numpy.dtype": _Dtype,
            "_codecs.encode": _Function(self._encode),
        }

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module.replace('numpy._core.', 'numpy.core.')}.{name}"  # NumPy 2 renamed it
        if asked not in self._known:
            raise InputError(f"refused, it asks for {asked[:80]!r}, which no CIFAR batch needs")
        return self._known[asked]

    def _encode(self, text: str, encoding: str | bytes) -> bytes:
        self._encodable -= len(text)  # encoding the same text again and again would fill the memory
        if self._encodable < 0 or encoding not in ("latin1", b"latin1"):
            raise ValueError("more text than the file has bytes, or in another encoding")
        return text.encode("latin-1")


class _Function:
    """A function that a pickle may call, and whose attributes it cannot set."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a function has no state")


class _Dtype:
    """A NumPy type, whose byte order comes with its state."""

    __slots__ = ("code", "order")

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self.code, self.order = _short(code), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _short(state[1])


class _Array:
    """A NumPy array, whose content comes with its state, or at once from `_frombuffer`."""

    __slots__ = ("content",)

    def __init__(self, *_: Any) -> None:
        self.content: np.ndarray[Any, Any] | None = None

    @classmethod
    def from_buffer(cls, content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
        array = cls()
        array.__setstate__((1, shape, dtype, order == "F", content))
        return array

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, dtype, fortran, content = state
        if not re.fullmatch(r"[<>|=]?(b1|[iu][1248]|f[248])", dtype.code) or dtype.order not in ("<", ">", "|", "="):
            raise InputError(f"expected an array of numbers, found one of type {dtype.code!r}")
        numbers = np.dtype(dtype.code).newbyteorder(dtype.order)  # type: ignore[arg-type]
        sizes = [size for size in shape if type(size) is int and size >= 0]
        if len(sizes) != len(shape) or math.prod(sizes) * numbers.itemsize != len(content):
            raise ValueError(f"{len(content)} bytes for an array of another shape")
        self.content = np.frombuffer(content, numbers).reshape(shape, order="F" if fortran else "C")


def _short(text: str | bytes) -> str:
    """The beginning of a text, which is all of a valid one."""
    return text[:9].decode("latin-1") if isinstance(text, bytes) else text[:9]
