"""Start training in this process, or in one process for each device, and say how it ended."""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import os
import shlex
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException

from neuralcollapse._errors import InputError
from neuralcollapse.training import checkpoint, hardware
from neuralcollapse.training.run_directory import Run

_Precision = Literal["32-true", "64-true", "bf16-mixed"]
PRECISIONS: dict[str, _Precision] = {"32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}
_GRACE = 10.0
"""Seconds in which a process has to end when it is told to."""


def launch(work: Callable[[Fabric], str], run: Run) -> str:
    """Do the work in this process, or in one process for each device; none of those outlives this call.

    What Fabric and the seed change in this process is restored.

    Args:
        work: what each process does; it returns the status of the run.
        run: says on which devices, and takes the note of a failure.

    Returns:
        The status, or "interrupted".

    Raises:
        InputError: raised by the work, or one of several processes was killed.
    """
    config = run.config
    logger, port = logging.getLogger("lightning_fabric"), os.environ.get("MASTER_PORT")
    level, others = logger.level, set(multiprocessing.active_children())
    messages = multiprocessing.get_context("spawn").SimpleQueue() if config.devices > 1 else None
    logger.setLevel(logging.WARNING)  # it announces what the command has printed already
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count()) if config.device == "cuda" else []):
            fabric = Fabric(
                accelerator=config.device,
                devices=config.devices,
                strategy="auto" if config.devices == 1 else "ddp_spawn",
                precision=PRECISIONS[config.precision],
            )
            status: str = fabric.launch(functools.partial(_work, work=work, messages=messages))
            return status
    except KeyboardInterrupt:
        return "interrupted"
    except ProcessException as error:
        if messages is not None and not messages.empty():
            why = messages.get()
        elif isinstance(error, ProcessExitedException):
            why = f"process {error.error_index} of {config.devices} was ended by "
            why += f"{error.signal_name} (out of memory?)" if error.signal_name else f"exit code {error.exit_code}"
            why += f"; go on with: neuralcollapse run --resume {shlex.quote(str(run.path))}"
        else:
            checkpoint.note_ending(run, "failed", str(error).strip().rpartition("\n")[2])
            raise
        if not why:
            return "interrupted"
        checkpoint.note_ending(run, "failed", why)
        raise InputError(why) from error
    finally:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
            child.join(_GRACE)
            if child.is_alive():
                child.kill()
                child.join()
        logger.setLevel(level)
        os.environ.pop("MASTER_PORT", None)  # Fabric's choice, which may be taken when the next run starts
        if port is not None:
            os.environ["MASTER_PORT"] = port


def _work(fabric: Fabric, work: Callable[[Fabric], str], messages: Any) -> str:
    """Do the work in one process.

    Of several processes, each leaves the group before it ends: the group's threads may otherwise reach for an
    interpreter that is gone, which aborts the process now and then.

    Args:
        messages: of several processes, takes what the user is to be told; an interrupt is an empty text.
    """
    if messages is None:
        return work(fabric)
    if fabric.device.type == "cpu":
        hardware.keep_memory()  # this process was started to train and does nothing else
    try:
        status = work(fabric)
    except InputError as error:
        messages.put(str(error))
        raise
    except KeyboardInterrupt:
        messages.put("")
        raise
    dist.destroy_process_group()
    return status


@contextlib.contextmanager
def failures_noted(run: Run | None) -> Iterator[None]:
    """Note in the run's `status.json` what ends the training; an error about too little memory becomes one sentence."""
    try:
        yield
    except Exception as error:
        why = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
        if memory:
            why = "the training needs more memory than there is; take a smaller --width or --batch-size"
        if run is not None:
            checkpoint.note_ending(run, "failed", why)
        if memory:
            raise InputError(why) from None
        raise
