"""Processes of the distributed tests, and what they do: a spawned process can import this, not a module of tests."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from helpers.networks import Network, batches_of, inputs_and_labels
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

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


def layers_of_a_shard(rank: int, folder: str, sizes: tuple[int, int]) -> None:
    """Measure every layer, each process its part of the data, and write what this one then holds."""
    torch.manual_seed(0)
    model = Network().double()
    inputs, labels = inputs_and_labels()
    part = slice(0, sizes[0]) if rank == 0 else slice(sizes[0], None)
    batches = batches_of(inputs[part].double(), labels[part]) if sizes[rank] else []
    found = nc.measure_layers(model, batches, weight_decay=0.1, distributed=True)
    Path(folder, f"{rank}.json").write_text(json.dumps({each.name: each.report.numbers() for each in found}))


def measure_with_a_sampler(rank: int, folder: str) -> None:
    """Measure 49 of the examples, of which PyTorch's own sampler gives each of two processes 25; then 50."""
    torch.manual_seed(0)
    notes = []
    for number in (49, 50):
        data = TensorDataset(*(each[:number] for each in inputs_and_labels()))
        report = nc.measure(Network(), DataLoader(data, 8, sampler=DistributedSampler(data)), distributed=True)
        notes.append([report.num_examples, *report.notes])
    Path(folder, f"{rank}.json").write_text(json.dumps(notes))


def features_of_a_shard(rank: int, folder: str, sizes: tuple[int, int], min_count: int | None = None) -> None:
    """Measure features without a classifier, sorted by class, so that the processes see other classes."""
    torch.manual_seed(0)
    model = Network().double()
    inputs, labels = inputs_and_labels()
    order = labels.argsort()
    part = order[: sizes[0]] if rank == 0 else order[sizes[0] :]
    batches = batches_of(inputs[part].double(), labels[part]) if sizes[rank] else []
    report = nc.measure(model, batches, features="body", weight_decay=0.1, distributed=True, min_count=min_count)
    Path(folder, f"{rank}.json").write_text(json.dumps(report.to_dict()))


def per_class_of_a_shard(rank: int, folder: str) -> None:
    """Measure a part of the data, sorted by class, so that the processes see other classes; write each class's row."""
    torch.manual_seed(0)
    model = Network().double()
    inputs, labels = inputs_and_labels()
    part = labels.argsort()[:31] if rank == 0 else labels.argsort()[31:]
    report = nc.measure(model, batches_of(inputs[part].double(), labels[part]), distributed=True)
    Path(folder, f"{rank}.pkl").write_bytes(pickle.dumps(list(report.per_class)))
