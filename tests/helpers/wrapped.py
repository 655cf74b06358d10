"""What the tests of wrapped networks run on several processes, which can import this, not a module of tests."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

import neuralcollapse as nc

Batch = tuple[Tensor, Tensor]


def network() -> nn.Sequential:
    """A network of blocks, with batch normalisation, whose buffers DDP's forward pass broadcasts."""
    torch.manual_seed(3)
    body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
    return nn.Sequential(body, nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 3))


def batches() -> list[Batch]:
    """Five of uneven size."""
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(0, 3, (70,), generator=generator)
    inputs = torch.randn(70, 6, generator=generator) + labels[:, None]
    return list(zip(inputs.split(16), labels.split(16), strict=True))


def shard(rank: int, world: int) -> list[Batch]:
    """The first process has all batches but those of the others, one each; the last of three has none."""
    rest = world - 1 if world < 3 else world - 2
    every = batches()
    if rank == 0:
        return every[rest:]
    return every[rank - 1 : rank] if rank <= rest else []


def wrapped(kind: str) -> nn.Module:
    """The network as a trainer would have it."""
    model = network()
    if kind == "ddp":
        return DistributedDataParallel(model)
    if kind == "ddp of compiled":
        return DistributedDataParallel(torch.compile(model, backend="eager"))  # type: ignore[arg-type]
    if kind.startswith("fsdp1"):
        cpu: dict[str, Any] = {"device_id": torch.device("cpu"), "use_orig_params": kind.endswith("original")}
        parts = range(3) if "classifier" in kind else range(2)
        for index in parts:
            model[index] = FullyShardedDataParallel(model[index], **cpu)
        return FullyShardedDataParallel(model, **cpu)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for index in range(3) if "classifier" in kind else range(2):
        fully_shard(model[index], mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def measure_wrapped(rank: int, folder: str, kinds: list[str], trained: bool) -> None:
    """Measure each kind of wrapper; the processes have unequal numbers of batches, and must then train as before."""
    mine = shard(rank, dist.get_world_size())
    for kind in kinds:
        model = wrapped(kind)
        if trained:
            model(torch.ones(2, 6)).sum().backward()
            model.zero_grad()
        before = kinds_of(model)
        reports = [nc.measure(model, mine, distributed=True, memory_budget=budget) for budget in (1 << 30, 1)]
        numbers = [report.numbers() for report in reports]
        assert kinds_of(model) == before
        assert all(module.training for module in model.modules())
        model(torch.ones(2, 6)).sum().backward()  # a training step still works
        Path(folder, f"{kind} {rank}.json").write_text(json.dumps(numbers))
    dist.barrier()


def kinds_of(model: nn.Module) -> list[str]:
    """The types of all modules and weights, wrappers and shards among them."""
    return [type(part).__name__ for part in (*model.modules(), *model.parameters())]


class Failing:
    """A loader or a network that fails at its second batch; the others' go on."""

    def __init__(self, error: Exception) -> None:
        self.error, self.calls = error, 0

    def __iter__(self) -> Iterator[Batch]:
        yield batches()[0]
        raise self.error

    def __call__(self, *_: Any) -> None:
        self.calls += 1
        if self.calls > 1:
            raise self.error


ERRORS = {"ValueError": ValueError, "ZeroDivisionError": ZeroDivisionError, "InputError": nc.InputError}


def fail(rank: int, folder: str) -> None:
    """Measure where the second process fails, in each way, and write what each is told."""
    told = {}
    for kind, error in ERRORS.items():
        for where in ("loader", "network"):
            model = DistributedDataParallel(network())
            loader: Any = shard(rank, 2)
            if rank == 1:
                failing = Failing(error("it failed"))
                loader = failing if where == "loader" else batches()
                if where == "network":
                    model.module.register_forward_pre_hook(failing)
            try:
                nc.measure(model, loader, distributed=True)
            except Exception as said:
                told[f"{kind} {where}"] = f"{type(said).__name__}: {said}"
            del model
    Path(folder, f"{rank}.json").write_text(json.dumps(told))
    gc.collect()
    dist.barrier()


class Dying:
    """A loader whose process ends at once, as one does that was killed, but for a status that ends the tests."""

    def __iter__(self) -> Iterator[Batch]:
        os._exit(0)


def die(rank: int, folder: str) -> None:
    """Measure where the second process dies, and write what the first is told."""
    try:
        nc.measure(network(), Dying() if rank else batches(), distributed=True)
    except Exception as told:
        Path(folder, f"{rank}.txt").write_text(f"{type(told).__name__}: {told}")
        dist.destroy_process_group()
        os._exit(0)
