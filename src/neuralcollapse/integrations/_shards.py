"""A trainer's training data for measuring: each example once, divided among the processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Subset

from neuralcollapse._checks import InputError

# For a loader that makes batches in its own way, and does not tell how large they are.
_BATCH_SIZE = 64


def shard_of(
    loader: object, batch_size: int | None, rank: int, processes: int, shuffled: bool = False
) -> DataLoader[Any]:
    """A loader of every ``processes``-th example of another loader's data set, from the ``rank``-th on.

    A trainer's own sampler may repeat examples so that all processes get equally many; this loader does not. A data set
    that makes its own batches (``batch_size=None``) is asked for them as the trainer's loader does: by lists of
    indices, if its sampler gives lists, or one batch at a time.

    Args:
        loader: the trainer's; batch_size: of the new one, by default the same.
        shuffled: in an order drawn at random, the same each time; otherwise in the data set's own. Statistics of
            batches, which data in class order would not give as training has them, need it.

    Raises:
        InputError: anything but a ``DataLoader`` over a data set with a length.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        kind = type(loader.dataset if isinstance(loader, DataLoader) else loader).__name__
        raise InputError(f"expected a DataLoader over a data set with a length, got {kind}: pass loader=")
    try:
        length = len(loader.dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        kind = type(loader.dataset).__name__
        raise InputError(f"expected a DataLoader over a data set with a length, got {kind}: pass loader=") from None
    indices: Sequence[int] = range(rank, length, processes)
    if shuffled:
        order = torch.randperm(length, generator=torch.Generator().manual_seed(0))
        indices = order[rank::processes].tolist()
    same: dict[str, Any] = {
        name: getattr(loader, name)
        for name in ("collate_fn", "num_workers", "worker_init_fn", "multiprocessing_context", "timeout", "pin_memory")
    }
    if loader.batch_sampler is not None:
        size = batch_size or getattr(loader.batch_sampler, "batch_size", None) or _BATCH_SIZE
        return DataLoader(Subset(loader.dataset, indices), batch_size=size, **same)
    if isinstance(loader.sampler, BatchSampler):
        size = batch_size or loader.sampler.batch_size
        lists = [list(indices[start : start + size]) for start in range(0, len(indices), size)]
        return DataLoader(loader.dataset, batch_size=None, sampler=lists, **same)
    return DataLoader(loader.dataset, batch_size=None, sampler=indices, **same)
