"""Named tensors in a safetensors file: written whole or not at all, read without executing anything."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from neuralcollapse._checks import InputError
from neuralcollapse._errors import install
from neuralcollapse._files import replacing


def write_state(path: Path, state: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write tensors and metadata; a reader never sees half a file."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import save_file
    except ImportError:
        raise InputError(f"saved moments need safetensors: {install('safetensors')}") from None
    if not path.parent.is_dir():
        raise InputError(f"expected an existing folder to write {path.name} in, got {path.parent}")
    with replacing(path) as temporary:
        try:
            save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, temporary, metadata=about)
        except SafetensorError as error:
            raise InputError(f"cannot write {path}: {error}") from error


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata.

    Raises:
        InputError: no such file, or not a safetensors file.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise InputError(f"saved moments need safetensors: {install('safetensors')}") from None
    if not os.path.isfile(path):  # False, too, for a name that the file system does not allow
        raise InputError(f"no file of saved moments at {path}: ClassMoments.save() writes one")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from None
