"""Batch-normalisation statistics re-estimated for a measurement, and put back after it.

A network in eval mode normalises by running averages, which lag behind its weights: with few steps an epoch by a large
part of a rate's change. The least-squares classifier of features normalised by stale averages is not the one that
training approached, so that L⊥_LS looks larger than it is. Averages made afresh, with the weights as they are, remove
that lag (PreciseBN: Wu & Johnson 2021, Rethinking "Batch" in BatchNorm, Section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from neuralcollapse._checks import InputError
from neuralcollapse.measuring.batches import PreparedLoader, calls, device_of
from neuralcollapse.measuring.hooks import first_tensor
from neuralcollapse.measuring.options import MeasureOptions
from neuralcollapse.measuring.preparation import prepared
from neuralcollapse.measuring.processes import on_all_processes

REESTIMATED = "batch normalisation by statistics re-estimated from these data"
"""A note of the report."""


def batch_norm_layers(model: nn.Module) -> list[_BatchNorm]:
    """The layers of a network that normalise by running averages in eval mode.

    A layer that is in eval mode while the network trains was frozen by the user, keeps its averages in training, and is
    left out.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    found = [layer for layer in layers if layer.running_mean is not None and layer.running_var is not None]
    return [layer for layer in found if layer.training or not model.training]


class _Averages:
    """A layer's sums over batches, and the state it is given back."""

    def __init__(self, layer: _BatchNorm) -> None:
        assert layer.running_mean is not None
        self.layer, self.momentum, self.training = layer, layer.momentum, layer.training
        self.state = {name: buffer.clone() for name, buffer in layer.named_buffers(recurse=False)}
        self.mean = torch.zeros_like(layer.running_mean, dtype=torch.float64)
        self.variance = torch.zeros_like(self.mean)
        self.examples = 0

    def prepare(self) -> None:
        """Make the layer's averages those of the next forward pass alone (of all calls of the layer in it)."""
        self.layer.momentum = None
        self.layer.reset_running_stats()
        self.layer.train()

    def add(self, examples: int) -> None:
        """Add what the forward pass just made left in the layer, unless it did not run."""
        assert self.layer.running_mean is not None and self.layer.running_var is not None
        if self.layer.num_batches_tracked is not None and int(self.layer.num_batches_tracked):
            self.mean += examples * self.layer.running_mean.double()
            self.variance += examples * self.layer.running_var.double()
            self.examples += examples

    def finish(self) -> None:
        """Give the layer the averages over all batches; its own, where it never ran."""
        self.restore()
        self.layer.eval()
        if self.examples:
            assert self.layer.running_mean is not None and self.layer.running_var is not None
            self.layer.running_mean.copy_(self.mean / self.examples)
            self.layer.running_var.copy_(self.variance / self.examples)

    def restore(self) -> None:
        """Put back what the layer had."""
        for name, buffer in self.layer.named_buffers(recurse=False):
            buffer.copy_(self.state[name])
        self.layer.momentum, self.layer.training = self.momentum, self.training


@contextmanager
def prepared_with_statistics(model: nn.Module, loader: Iterable[Any], options: MeasureOptions) -> Iterator[nn.Module]:
    """``preparation.prepared``, and :func:`reestimated` over the batches of the loader if the options ask for it.

    Args:
        model, loader: as for :func:`neuralcollapse.measure`.
    """
    # asked for before eval mode is set
    layers = batch_norm_layers(model) if options.batch_norm == "re-estimate" else None
    with prepared(model, loader, options.ood) as inner:
        if layers is None:
            yield inner
            return
        device = device_of(inner) if options.device is None else torch.device(options.device)
        context = loader.context if isinstance(loader, PreparedLoader) else nullcontext

        def forwards() -> Iterator[tuple[int, Callable[[], object]]]:
            for call in calls(loader, inner, device):
                inputs = first_tensor((call.arguments, call.named))
                with context():
                    yield (0 if inputs is None else len(inputs)), partial(inner, *call.arguments, **call.named)

        with reestimated(inner, layers, forwards(), distributed=options.distributed):
            yield inner


@contextmanager
def reestimated(
    model: nn.Module,
    layers: list[_BatchNorm],
    forwards: Iterable[tuple[int, Callable[[], object]]],
    *,
    distributed: bool = False,
) -> Iterator[None]:
    """Within the block, ``layers`` normalise by averages over ``forwards``, made with the present weights.

    Each average is the mean of the batches' own means and (unbiased) variances, weighted by their examples, as training
    would reach it were the weights to stand still. While the passes run, these layers alone are in train mode: dropout
    and the like stay as they are in the measurement, which the averages are for. Batches of one example are left out,
    as in training.

    Args:
        model: in eval mode.
        layers: see :func:`batch_norm_layers`, asked for before the model was put in eval mode.
        forwards: for each batch the number of its examples, and a function that makes its forward pass.
        distributed: average over the batches of all processes.

    Raises:
        InputError: the network has no such layer, or no batch of at least two examples came.
    """
    if not layers:
        raise InputError(
            f"expected a network with batch normalisation to re-estimate its statistics, {type(model).__name__} has "
            "none that keeps running averages: leave batch_norm out"
        )
    averages = [_Averages(layer) for layer in layers]

    def collect() -> int:
        seen = 0
        for examples, forward in forwards:
            if examples < 2:
                continue
            for each in averages:
                each.prepare()
            forward()
            for each in averages:
                each.add(examples)
            seen += examples
        return seen

    try:
        with torch.no_grad():
            seen = on_all_processes(collect, distributed)
            if distributed:
                seen = _add_other_processes(averages, seen)
            if not seen:
                raise InputError(
                    "expected batches of at least two examples to re-estimate batch-normalisation statistics, got none"
                )
            for each in averages:
                each.finish()
        yield
    finally:
        with torch.no_grad():
            for each in averages:
                each.restore()


def _add_other_processes(averages: list[_Averages], seen: int) -> int:
    """Sum over processes; the number of examples that all of them saw."""
    counts = torch.tensor([seen, *(each.examples for each in averages)], device=averages[0].mean.device)
    dist.all_reduce(counts)
    for each, examples in zip(averages, counts[1:].tolist(), strict=True):
        dist.all_reduce(each.mean)
        dist.all_reduce(each.variance)
        each.examples = examples
    return int(counts[0])
