"""A network with batch normalisation whose running averages are stale, and data for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse.networks.sync_norm import synchronised

LABELS = torch.arange(60) % 4


def network() -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(48, 5),
        nn.BatchNorm1d(5),
        nn.Linear(5, 4),
    )
    with torch.no_grad():
        for layer in (net[1], net[5]):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
    return net


def trained_like() -> tuple[nn.Sequential, list[tuple[Tensor, Tensor]]]:
    """A network whose running averages are stale, and batches of one size with their labels."""
    net = network()
    inputs = torch.randn(4, 2, 6, 6)[LABELS] + 0.3 * torch.randn(60, 2, 6, 6)
    return net, [(inputs[start : start + 20], LABELS[start : start + 20]) for start in range(0, 60, 20)]


def measure_part(rank: int, folder: str) -> None:
    torch.manual_seed(0)
    net, data = trained_like()
    mine = data[:2] if rank == 0 else data[2:]
    report = nc.measure(net, mine, batch_norm="re-estimate", distributed=True)
    torch.save(report.nc1, f"{folder}/{rank}.pt")


def measure_synchronised(rank: int, folder: str) -> None:
    """The same with layers that synchronise, and without the second process where the first measures alone."""
    torch.manual_seed(0)
    net, data = trained_like()
    net = synchronised(net, "cpu")  # type: ignore[assignment]
    mine = data[:2] if rank == 0 else data[2:]
    found = {"together": nc.measure(net, mine, batch_norm="re-estimate", distributed=True).nc1}
    if rank == 0:
        found["alone"] = nc.measure(net, mine, batch_norm="re-estimate").nc1
    torch.save(found, f"{folder}/{rank}.pt")
