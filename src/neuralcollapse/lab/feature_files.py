"""Features and a classifier from one file, for `neuralcollapse measure`."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuralcollapse._checks import InputError

_REQUIRED = ("features", "labels", "weight")


def read_feature_file(path: Path) -> dict[str, Tensor]:
    """Read `features` (n, p), `labels` (n,), `weight` (c, p) and, if present, `bias` (c,) of an .npz or .safetensors.

    Nothing in the file is executed: pickled objects are refused.

    Raises:
        InputError: no such file, another format, a damaged file, or one of the required arrays is not in it.
    """
    if not path.is_file():
        raise InputError(f"no file {path}; expected an .npz or .safetensors with features, labels, weight and bias")
    if path.suffix == ".npz":
        arrays = _read_npz(path)
    elif path.suffix == ".safetensors":
        arrays = _read_safetensors(path)
    else:
        raise InputError(f"{path}: expected a file ending in .npz or .safetensors, got {path.suffix or 'no ending'!r}")
    if absent := [name for name in _REQUIRED if name not in arrays]:
        raise InputError(
            f"{path} has no {' and no '.join(absent)}; expected features, labels, weight and, if the layer has one, "
            f"bias, found {', '.join(sorted(arrays)) or 'nothing'}"
        )
    return {name: arrays[name] for name in (*_REQUIRED, "bias") if name in arrays}


def _read_npz(path: Path) -> dict[str, Tensor]:
    arrays: dict[str, Tensor] = {}
    try:
        # opened here: NumPy leaves a damaged file open when it opened it itself
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            for name in content.files:
                if name in (*_REQUIRED, "bias"):
                    arrays[name] = torch.from_numpy(content[name])
                else:
                    arrays[name] = torch.empty(0)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no readable .npz: {_first_line(error)}; was it written completely?") from error
    except TypeError as error:  # a type PyTorch has no equal of
        raise InputError(f"{path}: expected numeric arrays, {_first_line(error)}") from error
    return arrays


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is no readable .safetensors: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
