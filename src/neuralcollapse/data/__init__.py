"""Data sets by name (`registry`), read into memory as uint8 (`load`), and the batches made of them (`Batches`)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuralcollapse.data.batches import Batches
    from neuralcollapse.data.corruption import Corruption
    from neuralcollapse.data.dataset import Dataset, ImageData, fingerprint
    from neuralcollapse.data.loading import Found, available, load
    from neuralcollapse.data.registry import names

__all__ = ["Batches", "Corruption", "Dataset", "Found", "ImageData", "available", "fingerprint", "load", "names"]

_MODULES = {
    "batches": ("Batches",),
    "corruption": ("Corruption",),
    "dataset": ("Dataset", "ImageData", "fingerprint"),
    "loading": ("Found", "available", "load"),
    "registry": ("names",),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that the options of the command line are listed without importing PyTorch."""
    for module, members in _MODULES.items():
        if name in members:
            return getattr(importlib.import_module(f"neuralcollapse.data.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
