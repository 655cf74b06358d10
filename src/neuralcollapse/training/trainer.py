"""The training loop: steps by the recipe, a measurement after some epochs, a checkpoint after every epoch.

The measured epochs are those of `recipes.measured_epochs`.

The order of an epoch's examples depends on (seed, epoch) alone, the random state is in the checkpoint, and the history
is cut back to the checkpoint when a run continues. So, on a CPU, a run that was killed at any moment ends with the same
history as one that was not.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Iterator

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from neuralcollapse._files import append_line
from neuralcollapse.data import Batches, Dataset
from neuralcollapse.networks.heads import HEADS
from neuralcollapse.networks.sync_norm import synchronised
from neuralcollapse.training import checkpoint, hardware, losses, recipes
from neuralcollapse.training.builders import build_network, build_optimizer, find_last_layer, make_batches
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.evaluation import Analysis, Diverged
from neuralcollapse.training.launch import failures_noted, launch
from neuralcollapse.training.progress import Progress
from neuralcollapse.training.run_directory import Run, Status


def train(run: Run, data: Dataset, *, progress: Progress | None = None) -> str:
    """Train to the end, from the last checkpoint where there is one.

    Args:
        run: the run directory, whose `config.json` says what to do; `resolve.prepare` makes it.
        data: the data set.
        progress: told how training goes.

    Returns:
        The status written to `status.json`: "finished", "diverged" or "interrupted".

    Raises:
        InputError: another process trains there, the run has measured epochs but no checkpoint to go on from, the
            checkpoint is damaged or another run's, the network cannot be built, the disk or the memory is full, or one
            of several processes was killed.
    """
    with run.locked():
        run.check_unfinished()
        run.record_environment(hardware.environment())
        status = launch(functools.partial(_train, run=run, data=data, progress=progress or Progress()), run)
        if status == "interrupted":
            checkpoint.note_ending(run, status)
    return status


def _train(fabric: Fabric, run: Run, data: Dataset, progress: Progress) -> str:
    """Train in one process, which takes its share of each batch, or all of it where it is the only one."""
    config = run.config
    lead = fabric.global_rank == 0
    progress = progress if lead else Progress()
    torch.manual_seed(config.seed)
    net = build_network(config, data)
    if fabric.world_size > 1:
        net = synchronised(net, fabric.device.type)
    last = find_last_layer(config, net, data)
    model, optimizer = fabric.setup(net, build_optimizer(config, net, last))
    status = checkpoint.restore(fabric, run, net, optimizer)
    batches = make_batches(data.train, data, config, fabric.device, shuffle_seed=config.seed)
    analysis = Analysis(net, config, data, fabric.device) if lead else None
    milestones = recipes.milestone_epochs(config.milestones, config.epochs)
    measured = set(recipes.measured_epochs(config.epochs, milestones))
    started = time.monotonic() - status.seconds

    progress.begin(config.epochs, status.epoch)
    with failures_noted(run if lead else None), contextlib.ExitStack() as stack:
        stack.callback(progress.end)
        for epoch in range(status.epoch + 1, config.epochs + 1):
            rate = recipes.learning_rate(config.learning_rate, milestones, epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = train_epoch(fabric, model, optimizer, batches, epoch, config, progress, last)
            diverged = not math.isfinite(loss)
            if analysis is not None and epoch in measured and not diverged:
                try:
                    record, snapshot = analysis(epoch, rate)
                except Diverged:
                    diverged = True
                else:
                    record["seconds"] = round(time.monotonic() - started, 3)
                    run.save_snapshot(epoch, **snapshot)
                    append_line(run.history_path, record)
                    progress.measured(record)
            if fabric.broadcast(diverged):
                break
            seconds = round(time.monotonic() - started, 3)
            status = Status(status="running", epoch=epoch, epochs=config.epochs, seconds=seconds)
            checkpoint.save(fabric, run, net, optimizer, status)
            if lead:
                run.write_status(status)
            progress.epoch(epoch, loss)
        ending = "finished" if status.epoch == config.epochs else "diverged"
        if lead:
            run.write_status(status.model_copy(update={"status": ending, "epochs": config.epochs}))
    return ending


def train_epoch(
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    epoch: int,
    config: RunConfig,
    progress: Progress,
    last: nn.Linear | None = None,
) -> float:
    """Make one pass over the training set; returns the mean loss over its examples, a feature decay's penalty with it.

    Args:
        fabric: of the process.
        model: the network, as Fabric wraps it; optimizer: of its parameters.
        batches: of the training set.
        epoch: decides their order.
        config: the run's configuration.
        progress: told after every step.
        last: the network's last layer, from `builders.find_last_layer`.
    """
    objective, follow = losses.objective(config), HEADS[config.head].follow
    rank, processes = fabric.global_rank, fabric.world_size
    total, seen = torch.zeros((), device=fabric.device), 0
    model.train()
    with inputs_of(last) as entered:
        for step, (images, labels) in enumerate(batches.epoch(epoch), start=1):
            if len(labels) < 2:
                continue  # batch normalisation needs two examples; the next epoch has another remainder
            share = slice(rank, None, processes)
            shard, targets = images[share], labels[share]
            # DDP averages gradients over processes: shards of unequal size are weighted to make the batch's own mean
            weight = len(targets) * processes / len(labels)

            def closure(shard: Tensor = shard, targets: Tensor = targets, weight: float = weight) -> Tensor:
                optimizer.zero_grad()
                with fabric.autocast():  # for the loss, too: Fabric converts only what enters and leaves the model
                    loss = objective(model(shard), targets)
                    if config.feature_decay:
                        loss = loss + losses.feature_penalty(entered[0].to(loss.dtype), config.feature_decay)
                loss = loss if processes == 1 else loss * weight
                fabric.backward(loss)
                return loss

            try:
                total += optimizer.step(closure).detach() * (len(labels) / processes)  # type: ignore[arg-type, attr-defined]
            except RuntimeError as error:
                if "without overflow" not in str(error):
                    raise
                total += math.inf  # a step so large that float32 has no number for it
            if follow is not None and last is not None:
                follow(last, entered[0], targets)
            seen += len(labels)
            progress.step(epoch, step / len(batches))
    if seen == 0:
        return 0.0
    return float(fabric.all_reduce(total, reduce_op="sum")) / seen  # type: ignore[arg-type]


@contextlib.contextmanager
def inputs_of(layer: nn.Linear | None) -> Iterator[list[Tensor]]:
    """A list of what entered the layer in the last forward pass within the block, with its gradient's graph."""
    entered: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        entered[:] = inputs

    with contextlib.ExitStack() as stack:
        if layer is not None:
            stack.callback(layer.register_forward_pre_hook(keep).remove)
        yield entered
