"""Batch normalisation of shards; a module of its own, so that spawned processes can import it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from neuralcollapse.networks.sync_norm import synchronised

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "2d": (lambda: nn.BatchNorm2d(3), (3, 4, 5)),
    "1d": (lambda: nn.BatchNorm1d(4), (4,)),
    "1d sequence": (lambda: nn.BatchNorm1d(4, eps=0.1, momentum=0.7), (4, 6)),
    "plain statistics": (lambda: nn.BatchNorm2d(3, affine=False, momentum=None), (3, 2, 2)),
    "no running statistics": (lambda: nn.BatchNorm2d(2, track_running_stats=False), (2, 3, 1)),
}
SHORT = (torch.float32, torch.bfloat16)
SPLITS = {"one example": [1, 6], "three processes": [2, 4, 1]}
STEPS = 2

Passed = dict[str, torch.Tensor]


def batches(shape: tuple[int, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs away from zero, and the gradients that come back."""
    generator = torch.Generator().manual_seed(1)
    made = torch.randn(STEPS, 2, 7, *shape, generator=generator, dtype=torch.float64)
    return [(x + 3, grad) for x, grad in made]


def seeded(norm: nn.Module) -> nn.Module:
    """Weights and biases away from one and zero."""
    generator = torch.Generator().manual_seed(2)
    norm.double()
    for parameter in norm.parameters():
        parameter.data.normal_(generator=generator)
    return norm


def passed(norm: nn.Module, x: torch.Tensor, grad: torch.Tensor) -> Passed:
    """Forward and backward once: what comes out, and what the module then holds."""
    norm.zero_grad()
    x = x.clone().requires_grad_()
    y = norm(x)
    y.backward(grad)
    assert x.grad is not None
    gradients = {f"{name}.grad": p.grad.clone() for name, p in norm.named_parameters() if p.grad is not None}
    buffers = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    return {"y": y.detach(), "x.grad": x.grad, **gradients, **buffers}


def normalise_shards(rank: int, folder: str, sizes: list[int]) -> None:
    """This process's shard of every case through the synchronised norm."""
    part = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    found: dict[str, list[Passed]] = {}
    for case, (make, shape) in CASES.items():
        norm = synchronised(seeded(make()), "cpu")
        found[case] = [passed(norm, x[part], grad[part]) for x, grad in batches(shape)]
        if case != "no running statistics":  # without them, one image is normalised by its own
            found[case].append({"evaluated": norm.eval()(torch.ones(1, *shape, dtype=torch.float64))})
    for dtype in SHORT:
        x, grad = (tensor[part].to(dtype, memory_format=torch.channels_last) for tensor in batches((3, 4, 5))[0])
        found[str(dtype)] = [passed(synchronised(nn.BatchNorm2d(3), "cpu"), x, grad)]
    torch.save(found, Path(folder, f"rank{rank}.pt"))
