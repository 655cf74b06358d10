"""A trainer's training data, once through: in order, and each process its part."""

from __future__ import annotations

from typing import Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Subset

from neuralcollapse._checks import InputError

# Where a loader's own way to make batches does not tell how large they are.
_BATCH_SIZE = 64


def shard_of(loader: object, batch_size: int | None, rank: int, processes: int) -> DataLoader[Any]:
    """A loader of every ``processes``-th example of another loader's data set, from the ``rank``-th on.

    Trainers' own samplers shuffle, and repeat examples so that every process gets as many; this one does neither. A
    data set that makes its own batches (``batch_size=None``) is asked for them in the same way, by lists of places
    where its sampler gives lists, and else one of its batches at a time.

    Args:
        loader: the trainer's; batch_size: of the new one, by default the same.

    Raises:
        InputError: anything but a ``DataLoader`` over a data set with a length.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        kind = type(loader.dataset if isinstance(loader, DataLoader) else loader).__name__
        raise InputError(f"expected a DataLoader over a data set with a length, got {kind}: pass loader=")
    try:
        places = range(rank, len(loader.dataset), processes)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        kind = type(loader.dataset).__name__
        raise InputError(f"expected a DataLoader over a data set with a length, got {kind}: pass loader=") from None
    same: dict[str, Any] = {
        name: getattr(loader, name)
        for name in ("collate_fn", "num_workers", "worker_init_fn", "multiprocessing_context", "timeout", "pin_memory")
    }
    if loader.batch_sampler is not None:
        size = batch_size or getattr(loader.batch_sampler, "batch_size", None) or _BATCH_SIZE
        return DataLoader(Subset(loader.dataset, places), batch_size=size, **same)
    if isinstance(loader.sampler, BatchSampler):
        size = batch_size or loader.sampler.batch_size
        lists = [list(places[start : start + size]) for start in range(0, len(places), size)]
        return DataLoader(loader.dataset, batch_size=None, sampler=lists, **same)
    return DataLoader(loader.dataset, batch_size=None, sampler=places, **same)
