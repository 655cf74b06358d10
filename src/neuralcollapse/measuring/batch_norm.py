"""Batch-normalisation statistics re-estimated for a measurement, and put back after it.

A network in eval mode normalises by running averages, which lag behind its weights: with few steps an epoch by a large
part of a rate's change. The least-squares classifier of features normalised by stale averages is not the one that
training approached, so that L⊥_LS looks larger than it is. Averages made afresh, with the weights as they are, remove
that lag (PreciseBN: Wu & Johnson 2021, Rethinking "Batch" in BatchNorm, Section 3).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from neuralcollapse._checks import InputError
from neuralcollapse.measuring.batches import (
    Call,
    Examples,
    PreparedLoader,
    calls,
    device_of,
    length_of,
    no_batches,
    run,
    times_of_labels,
)
from neuralcollapse.measuring.hooks import require_hookable
from neuralcollapse.measuring.options import MeasureOptions
from neuralcollapse.measuring.preparation import prepared, require_network, unwrapped
from neuralcollapse.measuring.processes import on_all_processes

REESTIMATED = "batch normalisation by statistics re-estimated from these data"
"""A note of the report."""
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
# Batches with fewer classes than this share of what batches drawn at random have are told of.
_FEW_CLASSES = 0.75


def batch_norm_layers(model: nn.Module) -> list[_BatchNorm]:
    """The layers of a network that normalise by running averages in eval mode, and that training would change.

    A layer that is in eval mode while the network trains, or whose class stays in eval mode, was frozen by the user,
    keeps its averages in training, and is left out. One that only stopped keeping averages (``track_running_stats``)
    normalises by its batches in training, and is re-estimated.
    """
    model = unwrapped(model)
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    found = [layer for layer in layers if layer.running_mean is not None and layer.running_var is not None]
    return [layer for layer in found if (layer.training or not model.training) and not _stays_in_eval_mode(layer)]


def _stays_in_eval_mode(layer: nn.Module) -> bool:
    modes = {module: module.training for module in layer.modules()}
    layer.train()
    frozen = not layer.training
    for module, mode in modes.items():
        module.training = mode
    return frozen


class _Averages:
    """A layer's sums over batches, and the state it is given back."""

    def __init__(self, layer: _BatchNorm, name: str) -> None:
        if isinstance(layer, LazyModuleMixin) and layer.has_uninitialized_params():  # type: ignore[misc]
            raise InputError(
                f"expected a network that has run once, the layer {name!r} has no sizes yet: run it before"
            )
        assert layer.running_mean is not None
        self.layer, self.name = layer, name
        # its own tensors are put aside, not written to: a graph that holds them can still be gone back through
        self.own = {each: layer._buffers[each] for each in _STATISTICS}
        self.settings = {each: getattr(layer, each) for each in ("training", "momentum", "track_running_stats")}
        self.mean = torch.zeros_like(layer.running_mean, dtype=torch.float64)
        self.variance = torch.zeros_like(self.mean)
        self.examples = 0
        self._pass_mean, self._pass_variance, self._calls = self.mean.clone(), self.mean.clone(), 0
        self._moved = torch.zeros((), dtype=torch.bool, device=self.mean.device)
        self._past_hooks = self._moved.clone()

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Within the block the layer, and nothing in it, is in train mode, and each of its calls is counted."""
        layer = self.layer
        layer._buffers.update({name: None if own is None else own.clone() for name, own in self.own.items()})
        layer.training, layer.momentum, layer.track_running_stats = True, 1.0, True
        with layer.register_forward_hook(self._called):
            self._reset()
            yield

    def _written(self) -> Tensor:
        """Whether a call has left its statistics in the layer."""
        assert self.layer.running_mean is not None and self.layer.running_var is not None
        return (self.layer.running_mean != 0).any() | (self.layer.running_var != 1).any()

    def _reset(self) -> None:
        assert self.layer.running_mean is not None and self.layer.running_var is not None
        self.layer.running_mean.zero_()
        self.layer.running_var.fill_(1)

    def _called(self, *_: Any) -> None:
        """Take what a call left in the layer: with a momentum of 1, the statistics of its batch alone."""
        mean, variance = self.layer.running_mean, self.layer.running_var
        assert mean is not None and variance is not None
        self._moved |= self._written()
        self._pass_mean += mean.double()
        self._pass_variance += variance.double()
        self._calls += 1
        self._reset()

    def add(self, examples: int) -> None:
        """Add the mean over the calls of the forward pass just made, unless the layer did not run in it."""
        self._past_hooks |= self._written()
        if self._calls:
            self.mean += examples * (self._pass_mean / self._calls)
            self.variance += examples * (self._pass_variance / self._calls)
            self.examples += examples
        self.drop()

    def drop(self) -> None:
        """Leave out the calls since the last forward pass that was added."""
        self._reset()
        self._pass_mean.zero_()
        self._pass_variance.zero_()
        self._calls = 0

    def require_statistics(self) -> None:
        """Refuse a layer that ran and keeps no averages in train mode, or that was run past its hooks."""
        if bool(self._past_hooks):
            raise InputError(
                f"expected the layer {self.name!r} to be called as a module, its forward is called by itself: write "
                "`layer(x)` instead of `layer.forward(x)`, or leave batch_norm out"
            )
        if self.examples and not bool(self._moved):
            raise InputError(
                f"expected batch normalisation that keeps running averages in train mode, {self.name!r} "
                f"({type(self.layer).__name__}) does not: leave batch_norm out"
            )

    def finish(self) -> None:
        """Give the layer the averages over all batches; its own, where it never ran."""
        self.restore()
        self.layer.training = False
        if self.examples:
            for name, total in (("running_mean", self.mean), ("running_var", self.variance)):
                own = self.own[name]
                assert own is not None
                self.layer._buffers[name] = (total / self.examples).to(own.dtype)

    def restore(self) -> None:
        """Put back what the layer had."""
        self.layer._buffers.update(self.own)
        for name, value in self.settings.items():
            setattr(self.layer, name, value)


class Ready(NamedTuple):
    """A network made ready for its passes over a loader.

    Attributes:
        options: whose progress goes on where the pass of the re-estimation ended; notes: of the report.
        seen: how often each label came in that pass; None where there was none.
    """

    model: nn.Module
    options: MeasureOptions
    notes: tuple[str, ...] = ()
    seen: Counter[int] | None = None


@contextmanager
def prepared_with_statistics(model: nn.Module, loader: Iterable[Any], options: MeasureOptions) -> Iterator[Ready]:
    """``preparation.prepared``, and :func:`reestimated` over the batches of the loader if the options ask for it.

    Args:
        model, loader: as for :func:`neuralcollapse.measure`.
    """
    require_network(model)
    # asked for before eval mode is set
    layers = batch_norm_layers(model) if options.batch_norm == "re-estimate" else None
    with prepared(model, loader, options.ood) as inner:
        if layers is None:
            yield Ready(inner, options)
            return
        require_hookable(inner)
        mix = _ClassMix()
        seen: Counter[int] = Counter()
        passes = _forwards(inner, loader, options, mix, seen)
        with reestimated(inner, layers, passes, distributed=options.distributed):
            notes = [REESTIMATED]
            if doubt := mix.doubt():
                warnings.warn(doubt, UserWarning, stacklevel=4)
                notes.append(doubt)
            tell, stages = options.progress, options.stages
            if tell is not None:
                options = replace(options, progress=lambda share: tell((1 + stages * share) / (1 + stages)))
            yield Ready(inner, options, tuple(notes), seen)


def _forwards(
    model: nn.Module, loader: Iterable[Any], options: MeasureOptions, mix: _ClassMix, seen: Counter[int]
) -> Iterator[tuple[int, Callable[[], object]]]:
    """The number of examples of each batch, and its forward pass; tells the progress after each.

    Raises:
        InputError: there is no batch, unless other processes may have some.
    """
    device = device_of(model) if options.device is None else torch.device(options.device)
    context = loader.context if isinstance(loader, PreparedLoader) else nullcontext
    length = length_of(loader)

    def forward(call: Call, number: int) -> object:
        with context():
            return run(model, call, number)

    number = -1
    for number, call in enumerate(calls(loader, model, device)):
        assert call.labels is not None
        mix.add(call.labels)
        seen.update(times_of_labels(Examples(call.labels, options.next_token).labels))
        yield len(call.labels), partial(forward, call, number)
        if options.progress is not None and length:
            options.progress(min(1.0, (number + 1) / length) / (1 + options.stages))
    if number < 0 and not options.distributed:
        raise no_batches(loader)


class _ClassMix:
    """How many classes the batches of a loader hold, against batches drawn at random from the same examples."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._sizes: Counter[int] = Counter()
        self._held = 0

    def add(self, labels: Tensor) -> None:
        """Count a batch with a label for each example; pixels and words of one example are not drawn one by one."""
        if labels.numel() != len(labels):
            return
        values, counts = torch.unique(labels[labels >= 0], return_counts=True)
        self._counts.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        self._sizes[int(counts.sum())] += 1
        self._held += len(values)

    def doubt(self) -> str | None:
        """A sentence where the batches hold few classes, as those of data in class order do."""
        examples, batches = sum(self._counts.values()), sum(self._sizes.values())
        shares = torch.tensor(list(self._counts.values()), dtype=torch.float64) / max(examples, 1)
        random = sum(many * float((1 - (1 - shares) ** size).sum()) for size, many in self._sizes.items())
        if self._held >= _FEW_CLASSES * random:
            return None
        return (
            f"a batch of the loader holds {self._held / batches:.3g} classes in the mean, one drawn at random would "
            f"hold {random / batches:.3g}: re-estimated statistics are those of training only if its batches are like "
            "these; shuffle the loader if they are not"
        )


@contextmanager
def _without_waiting(layers: list[_BatchNorm]) -> Iterator[None]:
    """Within the block these layers take the statistics of this process's batch; others of their classes as ever.

    What synchronises waits in train mode for the other processes, which may have no batch now. The class is changed,
    not the layer, so that a subclass still does what it does after it, such as an activation.
    """
    alone = set(layers)
    kinds: set[Any] = {kind for layer in layers for kind in type(layer).__mro__ if _waits(kind)}

    def by_itself(waiting: Callable[[_BatchNorm, Tensor], Tensor]) -> Callable[[_BatchNorm, Tensor], Tensor]:
        return lambda layer, batch: (_BatchNorm.forward if layer in alone else waiting)(layer, batch)

    with ExitStack() as stack:
        for kind in kinds:
            stack.callback(setattr, kind, "forward", kind.forward)
            kind.forward = by_itself(kind.forward)
        yield


def _waits(kind: type) -> bool:
    return kind is nn.SyncBatchNorm or bool(vars(kind).get("waits_for_processes"))


@contextmanager
def reestimated(
    model: nn.Module,
    layers: list[_BatchNorm],
    forwards: Iterable[tuple[int, Callable[[], object]]],
    *,
    distributed: bool = False,
) -> Iterator[None]:
    """Within the block, ``layers`` normalise by averages over ``forwards``, made with the present weights.

    Each average is the mean of the batches' own means and (unbiased) variances, weighted by their examples, which for
    batches of one size is where training's own average would settle were the weights to stand still; there a smaller
    last batch counts like any other. While the passes run, these layers alone are in train mode: dropout and the like
    stay as they are in the measurement, which the averages are for. A batch of one example is left out where a layer
    would have one value of a channel, which training refuses. Layers that synchronise over processes take the
    statistics of this process's batch.

    Args:
        model: in eval mode.
        layers: see :func:`batch_norm_layers`, asked for before the model was put in eval mode.
        forwards: for each batch the number of its examples, and a function that makes its forward pass.
        distributed: average over the batches of all processes.

    Raises:
        InputError: the network has no such layer, or one without sizes or averages, or that calls no hooks; no batch of
            at least two examples came, or no layer ran.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and "running_mean" in dict(module.named_buffers(recurse=False)):
            raise InputError(
                f"expected batch normalisation that runs in Python, {name!r} is scripted: script the network after it "
                "is measured, or leave batch_norm out"
            )
    if not layers:
        has = any(isinstance(each, _BatchNorm) and each.running_mean is not None for each in model.modules())
        why = "only frozen layers of that kind" if has else "none that keeps running averages"
        raise InputError(
            "expected a network with batch normalisation to re-estimate its statistics, "
            f"{type(model).__name__} has {why}: leave batch_norm out"
        )
    names = {module: name for name, module in model.named_modules()}
    averages = [_Averages(layer, names.get(layer, type(layer).__name__)) for layer in layers]

    def collect() -> int:
        seen = 0
        with ExitStack() as stack:
            stack.enter_context(_without_waiting(layers))
            for each in averages:
                stack.enter_context(each.collecting())
            for examples, forward in forwards:
                try:
                    forward()
                except ValueError as error:
                    if examples > 1 or "more than 1 value per channel" not in str(error):
                        raise
                    for each in averages:
                        each.drop()
                    continue
                for each in averages:
                    each.add(examples)
                seen += examples
        for each in averages:
            each.require_statistics()
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
            if not any(each.examples for each in averages):
                raise InputError(
                    f"expected {type(model).__name__}'s forward pass to run batch normalisation, it ran none of "
                    f"{', '.join(repr(each.name) for each in averages[:3])}: leave batch_norm out"
                )
            for each in averages:
                each.finish()
        yield
    finally:
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
