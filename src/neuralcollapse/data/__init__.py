"""Data sets by name (`names`), read into memory as uint8 (`load`), and the batches made of them (`Batches`)."""

from neuralcollapse.data.batches import Batches
from neuralcollapse.data.corruption import Corruption
from neuralcollapse.data.dataset import Dataset, ImageData, fingerprint
from neuralcollapse.data.loading import Found, NoData, available, load
from neuralcollapse.data.registry import names

__all__ = [
    "Batches",
    "Corruption",
    "Dataset",
    "Found",
    "ImageData",
    "NoData",
    "available",
    "fingerprint",
    "load",
    "names",
]
