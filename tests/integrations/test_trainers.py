"""The trainers' callbacks: the data they measure on, what they leave behind, what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ways
from helpers.gloo import on_processes
from helpers.metric_tester import OPTIONS, examples, measure_where_one_has_nan, split
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

import neuralcollapse as nc
from neuralcollapse.integrations._shards import require_known_part, shard_of

WAYS = {
    "monitor": "torch",
    "model": "torch",
    "small_budget": "torch",
    "lightning_callback": "lightning",
    "trainer_callback": "transformers",
}


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_shards_hold_each_example_once_and_in_order(processes: int) -> None:
    data = DataLoader(torch.arange(7), batch_size=2, shuffle=True)  # type: ignore[arg-type]
    shards = [torch.cat([torch.zeros(0).long(), *shard_of(data, None, rank, processes)]) for rank in range(processes)]
    assert sorted(torch.cat(shards).tolist()) == list(range(7))
    for shard in shards:
        assert shard.tolist() == sorted(shard.tolist())


@pytest.mark.parametrize("processes", [1, 3])
def test_shuffled_shards_hold_each_example_once_in_another_order(processes: int) -> None:
    data = DataLoader(torch.arange(100), batch_size=20, shuffle=True)  # type: ignore[arg-type]
    twice = [
        [torch.cat(list(shard_of(data, None, rank, processes, shuffled=True))) for rank in range(processes)]
        for _ in range(2)
    ]
    assert sorted(torch.cat(twice[0]).tolist()) == list(range(100))
    assert all(torch.equal(*pair) for pair in zip(*twice, strict=True))
    for shard in twice[0]:  # about as many of either half in each part
        assert 0.2 < (shard[: len(shard) // 2] < 50).float().mean() < 0.8


def test_a_sampler_of_a_part_decides_what_is_measured() -> None:
    """As the split of one data set into training and validation."""
    part = [3, 1, 7, 5]
    for data in (
        DataLoader(torch.arange(9), 2, sampler=SubsetRandomSampler(part)),  # type: ignore[arg-type]
        DataLoader(torch.arange(9), batch_sampler=BatchSampler(SubsetRandomSampler(part), 2, False)),  # type: ignore[arg-type]
    ):
        for shuffled in (False, True):
            shards = [torch.cat(list(shard_of(data, None, rank, 2, shuffled=shuffled))) for rank in range(2)]
            assert sorted(torch.cat(shards).tolist()) == sorted(part)


class EverySecond(Sampler[int]):
    """A sampler of one's own."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(0, 9, 2))

    def __len__(self) -> int:
        return 5


class FirstHalf(SequentialSampler):
    """Derived from a known one."""

    def __len__(self) -> int:
        return 4


class Drawn:
    """A data set of what a sampler draws, as Lightning makes one."""

    def __init__(self, sampler: Sampler[int]) -> None:
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler)  # type: ignore[arg-type]


class Divided(DistributedSampler):
    """What Lightning puts around that."""


class AtRandom:
    """A batch sampler of one's own, of the global random numbers."""

    def __iter__(self) -> Iterator[list[int]]:
        return iter(torch.randperm(9).split(2))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return 5


def test_asking_a_batch_sampler_what_it_draws_leaves_the_random_state() -> None:
    state = torch.get_rng_state()
    shard = shard_of(DataLoader(torch.arange(9), batch_sampler=AtRandom()), 3, 0, 1)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.cat(list(shard)).tolist() == list(range(9))


def test_accelerates_loaders_are_of_the_sampler_within() -> None:
    """Every Trainer of Transformers on several devices has them."""
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    part = list(range(20))
    whole = DataLoader(torch.arange(100), 4, sampler=SubsetRandomSampler(part))  # type: ignore[arg-type]
    for processes in (1, 2):
        prepared = accelerate.data_loader.prepare_data_loader(whole, num_processes=processes, process_index=0)
        shards = [torch.cat(list(shard_of(prepared, None, rank, processes))) for rank in range(processes)]
        assert sorted(torch.cat(shards).tolist()) == part


def test_a_sampler_nobody_knows_that_draws_fewer_is_refused() -> None:
    data = DataLoader(torch.arange(9), 2, sampler=EverySecond())  # type: ignore[arg-type]
    with pytest.raises(nc.InputError, match="draws from all 9 examples, EverySecond draws 5: pass loader="):
        shard_of(data, None, 0, 1)
    with pytest.raises(nc.InputError, match="EverySecond draws 5"):  # shared by two processes as Lightning does
        shard_of(DataLoader(torch.arange(9), 2, sampler=Divided(Drawn(EverySecond()), 2, 0)), None, 0, 2)  # type: ignore[arg-type]
    with pytest.raises(nc.InputError, match="FirstHalf draws 4"):
        shard_of(DataLoader(torch.arange(9), 2, sampler=FirstHalf(torch.arange(9))), None, 0, 1)  # type: ignore[arg-type]
    batches: list[list[int]] = [[0, 1], [5, 1]]
    with pytest.raises(nc.InputError, match="list draws 3"):
        shard_of(DataLoader(torch.arange(9), batch_sampler=batches), None, 0, 1)  # type: ignore[arg-type]
    repeated = WeightedRandomSampler([1.0] * 9, 4)
    assert len(torch.cat(list(shard_of(DataLoader(torch.arange(9), 2, sampler=repeated), None, 0, 1)))) == 9  # type: ignore[arg-type]


@pytest.mark.parametrize("loader", [[1, 2], DataLoader(torch.arange(4))])  # type: ignore[arg-type]
def test_of_several_processes_a_loader_is_not_guessed_at(loader: Any) -> None:
    with pytest.raises(nc.InputError, match="distributed= beside loader= of 2 processes"):
        require_known_part(loader, None, 2)
    require_known_part(loader, True, 2)
    require_known_part(loader, None, 1)
    shared = DistributedSampler(torch.arange(4), 2, 0)  # type: ignore[arg-type]
    require_known_part(DataLoader(torch.arange(4), sampler=shared), None, 2)  # type: ignore[arg-type]


class Endless(IterableDataset):
    """Data without a length."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


@pytest.mark.parametrize(("loader", "kind"), [(DataLoader(Endless()), "Endless"), ([1, 2], "list")])
def test_data_without_a_length_are_refused(loader: Any, kind: str) -> None:
    with pytest.raises(nc.InputError, match=f"over a data set with a length, got {kind}: pass loader="):
        shard_of(loader, None, 0, 1)


class Failing(nn.Linear):
    """A classifier that fails while it is measured, at its second batch."""

    calls = 0

    def forward(self, features: Tensor) -> Tensor:
        self.calls += not self.training
        if self.calls > 1:
            raise RuntimeError("the forward pass failed")
        return super().forward(features)


@pytest.mark.parametrize("name", WAYS)
def test_no_hook_is_left_after_an_exception(name: str) -> None:
    pytest.importorskip(WAYS[name], reason=f"{WAYS[name]} is not installed")
    layer = Failing(6, 5, dtype=torch.float64).train()
    with pytest.raises(RuntimeError, match="the forward pass failed"):
        getattr(ways, name)(split(*examples(), 32), layer, **OPTIONS)
    assert layer.calls == 2
    assert layer.training
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(layer, kind) for kind in kinds)


@pytest.mark.parametrize("name", ["monitor", "model"])
def test_an_error_on_one_process_is_an_error_on_all(name: str, tmp_path: Path) -> None:
    on_processes(2, tmp_path, measure_where_one_has_nan, str(tmp_path), "helpers.ways", name)
    for rank in (0, 1):
        assert "NaN" in (tmp_path / f"{rank}.txt").read_text()


def test_wrong_settings_of_the_callbacks_are_named_at_once() -> None:
    pytest.importorskip("lightning", reason="lightning is not installed")
    from neuralcollapse.integrations.lightning import NeuralCollapse

    with pytest.raises(nc.InputError, match="expected every of at least 1 epoch, got 0"):
        NeuralCollapse(every=0)
    with pytest.raises(nc.InputError, match="nc77"):
        NeuralCollapse(metrics="nc77")


def test_wrong_settings_of_the_trainer_callback_are_named_at_once() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from neuralcollapse.integrations.transformers import NeuralCollapse

    with pytest.raises(nc.InputError, match="expected the Trainer to log through, got int"):
        NeuralCollapse(3)  # type: ignore[arg-type]
    with pytest.raises(nc.InputError, match="expected every of at least 1 epoch, got 0"):
        NeuralCollapse(None, every=0)  # type: ignore[arg-type]
