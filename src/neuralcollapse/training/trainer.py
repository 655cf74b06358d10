"""The training loop: steps by the recipe, a measurement after each epoch of the list, a checkpoint after every epoch.

The order of an epoch's examples depends on (seed, epoch) alone, the random state is in the checkpoint, and the history
is cut back to the checkpoint when a run goes on: a run killed at any moment ends, on a CPU, with the history of one
that was not.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException

from neuralcollapse._checks import InputError
from neuralcollapse._files import read_json, shortened, write_json
from neuralcollapse.data import Batches
from neuralcollapse.networks.sync_norm import synchronised
from neuralcollapse.training import hardware, losses, optimizers, protocol
from neuralcollapse.training.assembly import build_network, make_batches
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.evaluation import Analysis, Diverged
from neuralcollapse.training.job import Job
from neuralcollapse.training.progress import Reporter
from neuralcollapse.training.run_directory import Run
from neuralcollapse.training.values import is_a

_PRECISIONS: dict[str, Literal["32-true", "64-true", "bf16-mixed"]] = {
    "32": "32-true",
    "64": "64-true",
    "bf16": "bf16-mixed",
}

_GRACE = 10.0
"""Seconds a process has to end when it is told to."""


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
        InputError: another process trains there, the run is finished work without a checkpoint, the checkpoint is
            damaged or another run's, the network cannot be built, the disk or the memory is full, or one of several
            processes was killed.
    """
    with job.run.locked():
        job.run.check_unfinished()
        _record_environment(job.run)
        status = _launch(job, quiet)
        if status == "interrupted":
            _write_ending(job, status)
    return status


def _launch(job: Job, quiet: bool) -> str:
    """Train in this process, or in one for each device; none of those outlives this call.

    What Fabric and the seed change in this process is put back.
    """
    config = job.config
    logger, port = logging.getLogger("lightning_fabric"), os.environ.get("MASTER_PORT")
    level, others = logger.level, set(multiprocessing.active_children())
    problems = multiprocessing.get_context("spawn").SimpleQueue() if config.devices > 1 else None
    logger.setLevel(logging.WARNING)  # it announces what the run already said
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count()) if config.device == "cuda" else []):
            fabric = Fabric(
                accelerator=config.device,
                devices=config.devices,
                strategy="auto" if config.devices == 1 else "ddp_spawn",
                precision=_PRECISIONS[config.precision],
            )
            work = functools.partial(_work, job=job, quiet=quiet, problems=problems)
            status: str = fabric.launch(work)
            return status
    except KeyboardInterrupt:
        return "interrupted"
    except ProcessException as error:
        if problems is not None and not problems.empty():
            why = problems.get()
        elif isinstance(error, ProcessExitedException):
            why = f"process {error.error_index} of {config.devices} was ended by "
            why += f"{error.signal_name} (out of memory?)" if error.signal_name else f"exit code {error.exit_code}"
            why += f"; go on with: neuralcollapse run --resume {job.run.path}"
        else:
            _write_ending(job, "failed", str(error).strip().rpartition("\n")[2])
            raise
        if not why:
            return "interrupted"
        _write_ending(job, "failed", why)
        raise InputError(why) from error
    finally:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
            child.join(_GRACE)
            if child.is_alive():
                child.kill()
                child.join()
        logger.setLevel(level)
        if port is None:  # Fabric leaves the one it chose, which may be taken when the next run starts
            os.environ.pop("MASTER_PORT", None)
        else:
            os.environ["MASTER_PORT"] = port


def _work(fabric: Fabric, job: Job, quiet: bool, problems: Any) -> str:
    """What each process does; it leaves the group of processes before it ends.

    The group's threads may otherwise reach for an interpreter that is gone, which aborts the process now and then.

    Args:
        problems: of several processes, takes what the user is to be told; an interrupt is an empty text.
    """
    if problems is None:
        return _train(fabric, job, quiet)
    if fabric.device.type == "cpu":
        hardware.keep_memory()  # this process was started to train and does nothing else
    try:
        status = _train(fabric, job, quiet)
    except InputError as error:
        problems.put(str(error))
        raise
    except KeyboardInterrupt:
        problems.put("")
        raise
    dist.destroy_process_group()
    return status


def _write_ending(job: Job, status: str, error: str = "") -> None:
    """Say in `status.json` how the run ended, as far as it came; a full disk may keep that from being said."""
    with contextlib.suppress(InputError):
        fields = {"epoch": 0, "epochs": job.config.epochs, **job.run.status(), "status": status}
        fields.pop("error", None)
        job.run.write_status(**fields, **({"error": " ".join(error.split())[:500]} if error else {}))


def _train(fabric: Fabric, job: Job, quiet: bool) -> str:
    """One process's share of the work; all of it when there is one."""
    run, config, data = job.run, job.config, job.data
    lead = fabric.global_rank == 0
    torch.manual_seed(config.seed)
    net = build_network(config, data)
    if fabric.world_size > 1:
        net = synchronised(net, fabric.device.type)
    model, optimizer = fabric.setup(net, optimizers.build(net, config))
    progress = _restore(fabric, job, net, optimizer)
    batches = make_batches(data.train, data, config, fabric.device, shuffle_seed=config.seed)
    analysis = Analysis(net, config, data, fabric.device) if lead else None
    milestones = protocol.milestone_epochs(config.milestones, config.epochs)
    measured = set(protocol.analysis_epochs(config.epochs))
    started = time.monotonic() - progress.seconds

    with (
        _failures(job if lead else None),
        Reporter(Console(quiet=quiet or not lead), config.epochs, progress.epoch) as reporter,
    ):
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

        try:
            total += optimizer.step(closure).detach() * (len(labels) / processes)
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            total += math.inf  # a step so large that float32 has no number for it
        seen += len(labels)
        reporter.step(epoch, step / len(batches))
    if seen == 0:
        return 0.0
    return float(fabric.all_reduce(total, reduce_op="sum")) / seen  # type: ignore[arg-type]


@contextlib.contextmanager
def _failures(job: Job | None) -> Iterator[None]:
    """Note in `status.json` of this job what ends the training; too little memory is said in a sentence."""
    try:
        yield
    except Exception as error:
        memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
        if memory:
            error = InputError("the training needs more memory than there is; take a smaller --width or --batch-size")
        if job is not None:
            said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            _write_ending(job, "failed", said)
        if memory:
            raise error from None
        raise


def _restore(fabric: Fabric, job: Job, net: nn.Module, optimizer: Any) -> Progress:
    """Take up the checkpoint, and cut off what was written after it; before the first epoch, write one.

    Raises:
        InputError: it is another network's, or a part of it is absent or no such thing; nothing is changed then.
    """
    run = job.run
    state = run.load_checkpoint()
    fabric.barrier()  # all have looked before one writes
    if state is None:
        if fabric.world_size > 1:
            torch.manual_seed(_rank_seed(torch.initial_seed(), fabric.global_rank))
        _save(fabric, run, net, optimizer, Progress())  # no history is ever without one
        return Progress()
    where = run.path / "checkpoint.pt"
    try:
        progress = Progress(**state["progress"])
        random_state, size = state["random_states"][fabric.global_rank], state["history_bytes"]
        hints = {"epoch": int, "seconds": float, "zero_error_epoch": int | None}
        if not all(is_a(getattr(progress, name), hint) for name, hint in hints.items()):
            raise ValueError("its progress is no numbers")
        if len(state["random_states"]) != fabric.world_size or not (type(size) is int and size >= 0):
            raise ValueError("the random states or the length of the history are not this run's")
        net.load_state_dict(state["model"])
        _load_optimizer(optimizer, state["optimizer"])
        torch.set_rng_state(random_state["cpu"])
        if "cuda" in random_state:
            torch.cuda.set_rng_state(random_state["cuda"])
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else shortened(" ".join(str(error).split()), 160)
        raise InputError(
            f"{where} is not of this run ({reason}), so that it cannot go on; "
            "put the right file back, or start another run with another --out"
        ) from error
    if fabric.global_rank == 0:
        run.cut_back(size, progress.epoch)
    return progress


def _load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Load its state, whose tensors PyTorch does not compare with those of the parameters."""
    optimizer.load_state_dict(state)
    for parameter, kept in optimizer.state.items():
        for name in ("momentum_buffer", "exp_avg", "exp_avg_sq"):
            value = kept.get(name)
            if value is not None and value.shape != parameter.shape:
                raise ValueError(f"{name} of shape {tuple(value.shape)} for weights of {tuple(parameter.shape)}")


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
        earlier = first.get("resumed")
        environment = {**first, "resumed": [*(earlier if isinstance(earlier, list) else []), environment]}
    write_json(path, environment)


def _rank_seed(seed: int, rank: int) -> int:
    """Another random stream for every process, from the same initial weights on."""
    return (seed + 1_000_003 * rank) % 2**63
