"""Processes of the distributed tests, and what they do: a spawned process can import this, not a module of tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import neuralcollapse as nc


def on_processes(number: int, folder: Path, work: Callable[..., None], *arguments: Any) -> None:
    """Call ``work(rank, *arguments)`` on as many gloo processes; ``work`` is from a module like this one."""
    torch.multiprocessing.spawn(_joined, (number, str(folder), work, arguments), number)


def _joined(rank: int, number: int, folder: str, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=number)
    try:
        work(rank, *arguments)
    finally:
        dist.destroy_process_group()


def state(moments: nc.ClassMoments) -> dict[str, torch.Tensor]:
    return {
        "counts": moments.counts,
        "means": moments.means,
        "global_mean": moments.global_mean,
        "within": moments.within_covariance,
        "between": moments.between_covariance,
    }


def reduce_shards(rank: int, folder: str, shards: list[list[int]], weighting: str, knows_dim: bool) -> None:
    """Update with this rank's shard in batches of 7, reduce, and write what this rank then holds."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(shards))
    try:
        data = torch.load(Path(folder, "data.pt"), weights_only=True)
        dim = data["features"].shape[1] if knows_dim else None
        moments = nc.ClassMoments(data["num_classes"], dim, weighting=weighting)  # type: ignore[arg-type]
        rows = torch.tensor(shards[rank], dtype=torch.int64)
        for batch in rows.split(7) if len(rows) else ():
            moments.update(data["features"][batch], data["labels"][batch])
        moments.all_reduce()
        torch.save(state(moments), Path(folder, f"rank{rank}.pt"))
    finally:
        dist.destroy_process_group()


def reduce_states_that_differ(rank: int, folder: str, difference: str) -> None:
    """Reduce two states of which the second differs in one respect, and write the refusal."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        options = {"num_classes": 3, "dim": 4, "weighting": "example"}
        if rank == 1:
            options[difference] = {"num_classes": 2, "dim": 5, "weighting": "class"}[difference]
        try:
            nc.ClassMoments(**options).all_reduce()  # type: ignore[arg-type]
        except nc.InputError as error:
            Path(folder, f"rank{rank}.txt").write_text(str(error))
    finally:
        dist.destroy_process_group()


def monitor_where_one_has_no_data(rank: int, folder: str) -> None:
    """Measure one network on both processes, of which the first, which writes, has no data."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    batches = [(torch.randn(30, 4), torch.arange(30) % 3)] if rank else []
    nc.Monitor(model, batches, path=Path(folder) / "nc.jsonl", distributed=True)(1)
