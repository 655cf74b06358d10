"""What the callbacks of trainers share: the data, each example once and divided among processes, and names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from neuralcollapse._checks import InputError, shown
from neuralcollapse.measuring.batches import sampler_of
from neuralcollapse.measuring.preparation import global_random_states_kept, random_states_kept

# What draws from the whole data set, however many it draws.
_DRAWS_FROM_ALL = RandomSampler, WeightedRandomSampler, DistributedSampler
# For a loader that makes batches in its own way, and does not tell how large they are.
_BATCH_SIZE = 64


def shard_of(
    loader: object, batch_size: int | None, rank: int, processes: int, shuffled: bool = False
) -> DataLoader[Any]:
    """A loader of every ``processes``-th example of another loader's data set, from the ``rank``-th on.

    A trainer's own sampler may repeat examples so that all processes get equally many; this loader does not. It has the
    examples that a ``SubsetRandomSampler`` draws from, and with any other sampler all of the data set. A data set
    that makes its own batches (``batch_size=None``) is asked for them as the trainer's loader does: by lists of
    indices, if its sampler gives lists, or one batch at a time.

    Args:
        loader: the trainer's; batch_size: of the new one, by default the same.
        shuffled: in an order drawn at random, the same each time; otherwise in the data set's own. Statistics of
            batches, which data in class order would not give as training has them, need it.

    Raises:
        InputError: anything but a ``DataLoader`` over a data set with a length, or a sampler, or batch sampler, of its
            own kind that draws fewer examples than the data set has.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        kind = type(loader.dataset if isinstance(loader, DataLoader) else loader).__name__
        raise InputError(f"expected a DataLoader over a data set with a length, got {kind}: pass loader=")
    try:
        length = len(loader.dataset)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        kind = type(loader.dataset).__name__
        raise InputError(f"expected a DataLoader over a data set with a length, got {kind}: pass loader=") from None
    indices = _drawn_from(loader, length, processes)
    if shuffled:
        order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0)).tolist()
        indices = [indices[place] for place in order]
    indices = indices[rank::processes]
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


def require_known_part(loader: Iterable[Any] | None, distributed: bool | None, processes: int) -> None:
    """Raise where nothing tells whether the loader given to each of several processes has all examples or a part.

    Args:
        loader: the user's, or None; distributed: what he said, if anything.
    """
    if loader is None or processes == 1 or distributed is not None:
        return
    if not isinstance(sampler_of(loader), DistributedSampler):
        raise InputError(
            f"expected distributed= beside loader= of {processes} processes: True where each has a part of its own, "
            "False where each has all examples"
        )


def as_name(name: object) -> str:
    """The name of a callback, which may be empty.

    Raises:
        InputError: it is no text.
    """
    if not isinstance(name, str):
        raise InputError(f"expected name= to be a text, got {shown(name)}")
    return name


def named(numbers: Mapping[str, float], name: str) -> dict[str, float]:
    """What a callback of this name logs."""
    return {f"{name}/{tag}" if name else tag: value for tag, value in numbers.items()}


def require_own_name(callback: Any, kind: type[Any], others: Iterable[Any]) -> None:
    """Raise where another of these callbacks logs under the same name, for a trainer would log the mean of both."""
    same = [each for each in others if isinstance(each, kind) and each is not callback]
    if any(each.name == callback.name for each in same):
        raise InputError(
            f"expected each NeuralCollapse callback to log under a name of its own, two have {callback.name!r}: pass "
            "name='test', for instance, to one of them"
        )


def _drawn_from(loader: DataLoader[Any], length: int, processes: int) -> Sequence[int]:
    """The places of the data set that the loader's sampler draws from."""
    batches: Any = loader.batch_sampler
    divided = False  # whether something divides what the sampler draws among processes
    while not hasattr(batches, "sampler") and hasattr(batches, "batch_sampler"):
        batches, divided = batches.batch_sampler, True  # Accelerate's
    sampler: Any = loader.sampler if batches is None else getattr(batches, "sampler", batches)
    sampler = sampler.sampler if isinstance(sampler, BatchSampler) else sampler
    if hasattr(getattr(sampler, "dataset", None), "_sampler"):
        sampler, divided = sampler.dataset._sampler, True  # Lightning's, around a sampler that is not its own
    if isinstance(sampler, SubsetRandomSampler):
        return [int(place) for place in sampler.indices]
    try:
        drawn = length if isinstance(sampler, _DRAWS_FROM_ALL) else len(sampler)
        if sampler is batches:  # it has no sampler, and gives batches
            with random_states_kept(sampler), global_random_states_kept():
                drawn = len({int(place) for batch in islice(sampler, drawn) for place in batch})
    except (TypeError, NotImplementedError):
        return range(length)
    shares = 1 if divided else processes
    if drawn * shares <= length - shares:  # each may leave out the rest of a division
        raise InputError(
            f"expected a sampler that draws from all {length:,} examples, {type(sampler).__name__} draws "
            f"{drawn:,}: pass loader= of those to measure"
        )
    return range(length)
