"""The training loop: steps by the recipe, a measurement after each epoch of the list, a checkpoint after every epoch.

The order of an epoch's examples depends on (seed, epoch) alone, the random state is in the checkpoint, and the history
is cut back to the checkpoint when a run goes on: a run killed at any moment ends, on a CPU, with the history of one
that was not.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from neuralcollapse._files import read_json, write_json
from neuralcollapse.lab import hardware, losses, optimizers, protocol
from neuralcollapse.lab.analysis import Analysis, Diverged
from neuralcollapse.lab.assembly import build_network, make_batches
from neuralcollapse.lab.datasets import Batches
from neuralcollapse.lab.job import Job
from neuralcollapse.lab.models.sync_norm import synchronised
from neuralcollapse.lab.progress import Reporter
from neuralcollapse.lab.runs import Run
from neuralcollapse.lab.settings import RunConfig

_PRECISIONS: dict[str, Literal["32-true", "64-true", "bf16-mixed"]] = {
    "32": "32-true",
    "64": "64-true",
    "bf16": "bf16-mixed",
}


@dataclass
class Progress:
    """How far a run has come; kept in its checkpoint.

    Args:
        epoch: the last finished epoch.
        seconds: wall-clock time spent, over all sittings.
        zero_error_epoch: the first analysed epoch without a training error.
    """

    epoch: int = 0
    seconds: float = 0.0
    zero_error_epoch: int | None = None


def train(job: Job, *, quiet: bool = False) -> str:
    """Train to the end, from the last checkpoint where there is one.

    Args:
        job: what `prepare` made.
        quiet: show no progress.

    Returns:
        The status written to `status.json`: "finished", "diverged" or "interrupted".

    Raises:
        InputError: another process trains there, the checkpoint is damaged, or the network cannot be built.
    """
    config = job.config
    with job.run.locked():
        _record_environment(job.run)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces what the run already said
        fabric = Fabric(
            accelerator=config.device,
            devices=config.devices,
            strategy="auto" if config.devices == 1 else "ddp_spawn",
            precision=_PRECISIONS[config.precision],
        )
        port = os.environ.get("MASTER_PORT")
        try:
            status: str = fabric.launch(functools.partial(_work, job=job, quiet=quiet))
        except KeyboardInterrupt:
            status = "interrupted"
            job.run.write_status(**{"epoch": 0, "epochs": config.epochs, **job.run.status(), "status": status})
        finally:
            if port is None:  # Fabric leaves the one it chose, which may be taken when the next run starts
                os.environ.pop("MASTER_PORT", None)
    return status


def _work(fabric: Fabric, job: Job, quiet: bool) -> str:
    """What each process does; it leaves the group of processes before it ends.

    The group's threads may otherwise reach for an interpreter that is gone, which aborts the process now and then.
    """
    status = _train(fabric, job, quiet)
    if fabric.world_size > 1:
        dist.destroy_process_group()
    return status


def _train(fabric: Fabric, job: Job, quiet: bool) -> str:
    """One process's share of the work; all of it when there is one."""
    run, config, data = job.run, job.config, job.data
    lead = fabric.global_rank == 0
    if fabric.device.type == "cpu":
        hardware.keep_memory()
    torch.manual_seed(config.seed)
    net = build_network(config, data)
    if fabric.world_size > 1:
        net = synchronised(net, fabric.device.type)
    model, optimizer = fabric.setup(net, optimizers.build(net, config))
    progress = _restore(fabric, run, net, optimizer)
    batches = make_batches(data.train, data, config, fabric.device, shuffle_seed=config.seed)
    analysis = Analysis(net, config, data, fabric.device) if lead else None
    milestones = protocol.milestone_epochs(config.milestones, config.epochs)
    measured = set(protocol.analysis_epochs(config.epochs))
    started = time.monotonic() - progress.seconds

    with Reporter(Console(quiet=quiet or not lead), config.epochs, progress.epoch) as reporter:
        for epoch in range(progress.epoch + 1, config.epochs + 1):
            rate = protocol.learning_rate(config.learning_rate, milestones, epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = _train_epoch(fabric, model, optimizer, batches, epoch, config, reporter)
            diverged = not math.isfinite(loss)
            if analysis is not None and epoch in measured and not diverged:
                try:
                    record, snapshot = analysis(epoch, rate)
                except Diverged:
                    diverged = True
                else:
                    record["seconds"] = round(time.monotonic() - started, 3)
                    run.save_snapshot(epoch, **snapshot)
                    run.append_history(record)
                    if progress.zero_error_epoch is None and record["train_error"] == 0:
                        progress.zero_error_epoch = epoch
                    reporter.analysed(record)
            if fabric.broadcast(diverged):
                if lead:
                    _write_status(run, "diverged", config, progress)
                return "diverged"
            progress.epoch, progress.seconds = epoch, time.monotonic() - started
            _save(fabric, run, net, optimizer, progress)
            if lead:
                _write_status(run, "running", config, progress)
            reporter.epoch(epoch, loss)
    if lead:
        _write_status(run, "finished", config, progress)
    return "finished"


def _train_epoch(
    fabric: Fabric,
    model: nn.Module,
    optimizer: Any,
    batches: Batches,
    epoch: int,
    config: RunConfig,
    reporter: Reporter,
) -> float:
    """One pass over the training set; the mean loss over its examples."""
    objective = losses.objective(config)
    rank, processes = fabric.global_rank, fabric.world_size
    total, seen = torch.zeros((), device=fabric.device), 0
    model.train()
    for step, (images, labels) in enumerate(batches.epoch(epoch), start=1):
        if len(labels) < 2:
            continue  # batch normalisation needs two examples; the next epoch has another remainder
        share = slice(rank, None, processes)
        shard, targets = images[share], labels[share]
        # DDP averages gradients over processes: shards of unequal size are weighted to make the batch's own mean
        weight = len(targets) * processes / len(labels)

        def closure(shard: Tensor = shard, targets: Tensor = targets, weight: float = weight) -> Tensor:
            optimizer.zero_grad()
            with fabric.autocast():  # the default precision too: what leaves the model is converted to it
                loss = objective(model(shard), targets)
            loss = loss if processes == 1 else loss * weight
            fabric.backward(loss)
            return loss

        total += optimizer.step(closure).detach() * (len(labels) / processes)
        seen += len(labels)
        reporter.step(epoch, step / len(batches))
    if seen == 0:
        return 0.0
    return float(fabric.all_reduce(total, reduce_op="sum")) / seen  # type: ignore[arg-type]


def _restore(fabric: Fabric, run: Run, net: nn.Module, optimizer: Any) -> Progress:
    """Take up the checkpoint, and cut off what was written after it."""
    state = run.load_checkpoint()
    fabric.barrier()
    if fabric.global_rank == 0:
        run.truncate_history(state["history_bytes"] if state else 0)
        run.drop_snapshots_after(state["progress"]["epoch"] if state else 0)
    if state is None:
        if fabric.world_size > 1:
            torch.manual_seed(_rank_seed(torch.initial_seed(), fabric.global_rank))
        return Progress()
    net.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    random_state = state["random_states"][fabric.global_rank]
    torch.set_rng_state(random_state["cpu"])
    if "cuda" in random_state:
        torch.cuda.set_rng_state(random_state["cuda"])
    return Progress(**state["progress"])


def _save(fabric: Fabric, run: Run, net: nn.Module, optimizer: Any, progress: Progress) -> None:
    """Write the checkpoint: all that decides what comes next, for every process."""
    mine: dict[str, Tensor] = {"cpu": torch.get_rng_state()}
    if fabric.device.type == "cuda":
        mine["cuda"] = torch.cuda.get_rng_state()
    states: list[Any] = [mine]
    if fabric.world_size > 1:
        states = [None] * fabric.world_size
        dist.all_gather_object(states, mine)
    if fabric.global_rank == 0:
        run.save_checkpoint(
            {
                "progress": vars(progress),
                "model": net.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random_states": states,
                "history_bytes": run.history_size(),
            }
        )
    fabric.barrier()


def _write_status(run: Run, status: str, config: RunConfig, progress: Progress) -> None:
    run.write_status(
        status=status,
        epoch=progress.epoch,
        epochs=config.epochs,
        zero_error_epoch=progress.zero_error_epoch,
        seconds=round(progress.seconds, 3),
    )


def _record_environment(run: Run) -> None:
    """Write what the run is made with; when it goes on later, perhaps elsewhere, that is added under "resumed"."""
    path = run.path / "environment.json"
    environment = hardware.environment()
    if path.is_file():
        first = read_json(path)
        environment = {**first, "resumed": [*first.get("resumed", []), environment]}
    write_json(path, environment)


def _rank_seed(seed: int, rank: int) -> int:
    """Another random stream for every process, from the same initial weights on."""
    return (seed + 1_000_003 * rank) % 2**63
