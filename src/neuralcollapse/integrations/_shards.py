"""A trainer's training data, once through: in order, and each process its part."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader, IterableDataset, Subset

from neuralcollapse._checks import InputError


def shard_of(loader: object, batch_size: int | None, rank: int, processes: int) -> DataLoader[Any]:
    """A loader of every ``processes``-th example of another loader's data set, from the ``rank``-th on.

    Trainers' own samplers shuffle, and repeat examples so that every process gets as many; this one does neither.

    Args:
        loader: the trainer's; batch_size: of the new one, by default the same.

    Raises:
        InputError: anything but a ``DataLoader`` over a data set with a length.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        kind = type(loader.dataset if isinstance(loader, DataLoader) else loader).__name__
        raise InputError(f"expected a DataLoader over a data set with a length, got {kind}: pass loader=")
    part = Subset(loader.dataset, range(rank, len(loader.dataset), processes))  # type: ignore[arg-type]
    size = batch_size or loader.batch_size or 1
    return DataLoader(part, batch_size=size, collate_fn=loader.collate_fn, num_workers=loader.num_workers)
