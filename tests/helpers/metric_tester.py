"""One tester that every way of measuring goes through, in one process and in two.

A way of measuring is a function of batches of (features, labels), the classifier and options, which gives the numbers
of a report as a flat dictionary. It must not matter how the examples are split, ordered or spread over processes.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import neuralcollapse as nc

Batches = list[tuple[Tensor, Tensor]]
Measure = Callable[..., dict[str, Any]]

DTYPES = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-5, torch.bfloat16: 2e-5}
OPTIONS: dict[str, Any] = {"metrics": "all", "weight_decay": 1e-2}


@functools.cache
def examples() -> tuple[Tensor, Tensor]:
    """64 features of 5 classes, uneven and shuffled."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, 5, (64,), generator=generator)
    features = torch.randn(64, 6, generator=generator, dtype=torch.float64) * 0.4
    return features + torch.randn(5, 6, generator=generator, dtype=torch.float64)[labels], labels


def classifier(dtype: torch.dtype = torch.float64) -> nn.Linear:
    """A classifier that is neither optimal nor random: the least-squares one, disturbed."""
    features, labels = examples()
    moments = nc.ClassMoments(5)
    moments.update(features, labels)
    weight, bias = nc.least_squares_classifier(moments, 1e-2)
    layer = nn.Linear(6, 5, dtype=dtype)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        layer.weight.copy_(weight + 0.05 * torch.randn(5, 6, generator=generator))
        layer.bias.copy_(bias)
    return layer


def split(features: Tensor, labels: Tensor, size: int) -> Batches:
    return list(zip(features.split(size), labels.split(size), strict=True))


def reference(features: Tensor, labels: Tensor, layer: nn.Linear) -> dict[str, Any]:
    return nc.measure_features(features, labels, layer.weight.detach(), layer.bias.detach(), **OPTIONS).to_dict()


def assert_same(got: dict[str, Any], want: dict[str, Any], tolerance: float) -> None:
    """Every number of ``want`` is in ``got``, to a tolerance relative to its size, or to 1 where that is less."""
    for name, value in want.items():
        if not isinstance(value, (int, float)):
            continue
        mine = float(got[name])
        assert math.isclose(mine, value, rel_tol=tolerance, abs_tol=tolerance), f"{name}: {mine} != {value}"


def check_one_process(measure: Measure) -> None:
    """Split batches, any order, every floating type, and a second time."""
    features, labels = examples()
    for dtype, tolerance in DTYPES.items():
        layer = classifier(torch.float64 if dtype == torch.float64 else torch.float32)
        narrow = features.to(dtype)
        want = reference(narrow, labels, layer)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(8))
        for batches in (split(narrow, labels, 64), split(narrow, labels, 7), split(narrow[order], labels[order], 10)):
            assert_same(measure(batches, layer, **OPTIONS), want, tolerance)
    assert_same(measure(batches, layer, **OPTIONS), want, tolerance)


def check_two_processes(folder: Path, module: str, name: str, sizes: tuple[int, int] = (45, 19)) -> None:
    """Two gloo processes with uneven shards, both of which must have the single process's report to 1e-12."""
    torch.multiprocessing.spawn(_process, (str(folder), module, name, sizes), 2)
    features, labels = examples()
    want = reference(features, labels, classifier())
    for rank in (0, 1):
        assert_same(torch.load(folder / f"rank{rank}.pt", weights_only=True), want, 1e-12)


def _process(rank: int, folder: str, module: str, name: str, sizes: tuple[int, int]) -> None:
    torch.set_num_threads(1)
    # as torchrun would leave it, for trainers that look there
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": "2"}
    os.environ |= {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "localhost"}
    os.environ |= {"MASTER_PORT": "0"}
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        features, labels = examples()
        mine = slice(0, sizes[0]) if rank == 0 else slice(sizes[0], 64)
        batches = split(features[mine], labels[mine], 7) if sizes[rank] else []
        measure = getattr(importlib.import_module(module), name)
        found = measure(batches, classifier(), distributed=True, **OPTIONS)
        kept = {key: float(value) for key, value in found.items() if isinstance(value, (int, float, Tensor))}
        torch.save(kept, Path(folder, f"rank{rank}.pt"))
    finally:
        dist.destroy_process_group()


def measure_where_one_has_nan(rank: int, folder: str, module: str, name: str) -> None:
    """Measure on both processes, of which the second has a NaN, and write what each is told."""
    features, labels = examples()
    if rank:
        features = features.clone()
        features[40] = torch.nan
    measure = getattr(importlib.import_module(module), name)
    try:
        measure(split(features, labels, 32), classifier(), distributed=True)
    except nc.InputError as error:
        Path(folder, f"{rank}.txt").write_text(str(error))
