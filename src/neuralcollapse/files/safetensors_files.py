"""Tensors of .safetensors files, read in slices."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from neuralcollapse._errors import InputError, install
from neuralcollapse._files import readable
from neuralcollapse.files.rows import Arrays, Rows

_DTYPES = {
    **{"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "BOOL": "bool"},
    **{"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"},
    **{"U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64"},
}


def safetensors_arrays(path: Path) -> Arrays:
    """The tensors of a file by name."""
    try:
        from safetensors import safe_open
    except ImportError:
        raise InputError(f"{path} needs safetensors: {install('safetensors')}") from None
    with readable(path, ".safetensors file"):
        file: Any = safe_open(path, framework="pt")  # stays open as long as a slice of it lives
        return {name: partial(_open, path, file, name) for name in file.keys()}  # noqa: SIM118


def _open(path: Path, file: Any, name: str) -> Rows:
    with readable(path, ".safetensors file"):
        tensor = file.get_slice(name)
        dtype, shape = tensor.get_dtype(), tuple(tensor.get_shape())
    if dtype not in _DTYPES:
        raise InputError(f"{path}: expected {name} of 16, 32 or 64 bits, got {dtype}")

    def blocks(start: int, stop: int, step: int) -> Iterator[Tensor]:
        for first in range(start, stop, step):
            with readable(path, ".safetensors file"):
                rows = tensor[first : min(first + step, stop)]
            yield rows

    return Rows(shape, _DTYPES[dtype], blocks)
