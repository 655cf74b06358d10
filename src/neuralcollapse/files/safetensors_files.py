"""Tensors of .safetensors files, sliced where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from neuralcollapse._checks import InputError
from neuralcollapse.files.rows import Arrays, Rows, first_line

_NAMES = {
    **{"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "BOOL": "bool"},
    **{"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"},
    **{"U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64"},
}


def safetensors_arrays(path: Path) -> Arrays:
    """The tensors of a file by name."""
    try:
        from safetensors import safe_open
    except ImportError:
        raise InputError(f"{path} needs safetensors: pip install 'neuralcollapse[lab]'") from None
    with _readable(path):
        # left open for as long as a slice of it lives
        file: Any = safe_open(path, framework="pt")
        return {name: partial(_open, path, file, name) for name in file.keys()}  # noqa: SIM118


def _open(path: Path, file: Any, name: str) -> Rows:
    with _readable(path):
        tensor = file.get_slice(name)
        dtype, shape = tensor.get_dtype(), tuple(tensor.get_shape())
    if dtype not in _NAMES:
        raise InputError(f"{path}: expected {name} of 16, 32 or 64 bits, got {dtype}")
    return _SliceRows(path, tensor, shape, _NAMES[dtype])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say what is wrong with a file in one sentence."""
    try:
        yield
    except Exception as error:  # safetensors raises whatever the damaged bytes led it to
        raise InputError(f"{path} is no readable .safetensors: {first_line(error)}") from error


@dataclass(frozen=True)
class _SliceRows:
    path: Path
    tensor: Any
    shape: tuple[int, ...]
    dtype: str

    def blocks(self, start: int, stop: int, step: int) -> Iterator[Tensor]:
        for first in range(start, stop, step):
            with _readable(self.path):
                rows = self.tensor[first : min(first + step, stop)]
            yield rows
