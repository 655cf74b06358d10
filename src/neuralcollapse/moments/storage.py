"""Named tensors in a safetensors file: written whole or not at all, read without executing anything."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from neuralcollapse._checks import InputError
from neuralcollapse._files import replacing

_NEEDED = "saved moments need safetensors: pip install 'neuralcollapse[lab]'"


def write_state(path: Path, state: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write tensors and a few words about them; a reader never sees half a file."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import save_file
    except ImportError:
        raise InputError(_NEEDED) from None
    if not path.parent.is_dir():
        raise InputError(f"expected an existing folder to write {path.name} in, got {path.parent}")
    with replacing(path) as temporary:
        try:
            save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, temporary, metadata=about)
        except SafetensorError as error:
            raise InputError(f"cannot write {path}: {error}") from error


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the words about them.

    Raises:
        InputError: no such file, or not a safetensors file.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise InputError(_NEEDED) from None
    if not os.path.isfile(path):  # which is False of a name that no file can have, too
        raise InputError(f"expected a file of saved moments, {path} is none")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"expected a safetensors file, {path} is not one: {error}") from None
