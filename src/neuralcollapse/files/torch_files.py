"""Tensors of files that torch.save wrote: state dicts, checkpoints, and plain dictionaries of tensors.

Only weights are read: torch.load with weights_only=True executes nothing. The file must be the zip archive that
torch.save writes, with what it holds stored uncompressed, so that it never takes more memory than its size.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuralcollapse._errors import InputError
from neuralcollapse._files import readable
from neuralcollapse.files.rows import Arrays, Rows

ENDINGS = (".pt", ".pth", ".ckpt", ".bin")
_ADVICE = "; expected what torch.save(model.state_dict(), path) writes"


def torch_arrays(path: Path) -> Arrays:
    """The tensors of a file by name, those of nested dictionaries by names such as ``state_dict.fc.weight``."""
    with readable(path, "file of torch.save", _ADVICE), zipfile.ZipFile(path) as archive:
        if any(item.compress_type != zipfile.ZIP_STORED for item in archive.infolist()):
            raise InputError(f"{path}: expected a file as torch.save writes it, got a compressed archive")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError as error:
            if "Unsupported global" not in str(error):
                raise
            raise InputError(
                f"{path} holds a whole module or other objects, which are not read: save model.state_dict()"
            ) from error
    if isinstance(content, Tensor):
        content = {path.stem: content}
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: expected a dictionary of tensors, got {type(content).__name__}{_ADVICE}")
    return {name: partial(_tensor_rows, tensor.detach()) for name, tensor in _named(content, "", 0)}


def _named(content: Mapping[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized:
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping) and depth < 8:
            yield from _named(value, f"{prefix}{key}.", depth + 1)


def _tensor_rows(tensor: Tensor) -> Rows:
    """Rows of a tensor, which torch.load has mapped."""

    def blocks(start: int, stop: int, step: int) -> Iterator[Tensor]:
        for first in range(start, stop, step):
            yield tensor[first : min(first + step, stop)]

    return Rows(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), blocks)
