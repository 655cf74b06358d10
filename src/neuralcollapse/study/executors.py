"""Where the runs of a grid are trained: one interface, and the choice among its implementations.

    local_processes   worker processes on this machine (the default)
    slurm_jobs        Slurm jobs, through submitit (--slurm)
    ray_tasks         tasks of a Ray cluster (--ray)

A further one is a module with an `Executor`, and an option of `GridOptions` that names it in its metadata.
"""

from __future__ import annotations

import dataclasses
import math
import pkgutil
from pathlib import Path
from typing import ClassVar, Protocol

from neuralcollapse._checks import InputError
from neuralcollapse.study.options import GridOptions
from neuralcollapse.study.task import Ending, Task

LOCAL = "neuralcollapse.study.local_processes:LocalExecutor"


class SubmittedTask(Protocol):
    """A task that an executor has taken."""

    def poll(self) -> Ending | None:
        """How the worker ended; None while it waits or trains. Returns at once."""

    def stop(self) -> None:
        """Ask the worker to stop after its current step, without waiting; what has not begun never begins."""


class Executor(Protocol):
    """Trains tasks, on this machine or elsewhere.

    Args:
        out: the folder of the run directories.
        options: the options of the grid.

    Raises:
        InputError: it is not there, or lacks what the options ask for.
    """

    own_options: ClassVar[tuple[str, ...]]
    """Names of the options that this executor uses, but not every other one."""

    def __init__(self, out: Path, options: GridOptions) -> None: ...

    @property
    def capacity(self) -> float:
        """How many tasks are submitted at a time."""

    def submit(self, task: Task) -> SubmittedTask:
        """Start a task or queue it.

        Raises:
            InputError: the task is refused.
        """

    def close(self) -> None:
        """Release what the executor holds. Every task has ended or was asked to stop."""


def executor_for(options: GridOptions) -> type[Executor]:
    """The executor that the options choose.

    Raises:
        InputError: they choose two.
    """
    chosen = [name for name in executors_by_option(options) if name and getattr(options, name)]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(map(_flag, chosen))} exclude each other; give one of them")
    return executors_by_option(options)[chosen[0] if chosen else ""]


def threads_of_each(options: GridOptions) -> int | None:
    """Processor threads of each run; None leaves the number to PyTorch."""
    if options.threads is not None:
        return options.threads
    if "cpus_per_cell" in executor_for(options).own_options:
        return max(1, int(options.cpus_per_cell))
    if options.jobs == 1:
        return None
    import torch

    return max(1, torch.get_num_threads() // options.jobs)


def check_options(options: GridOptions, out: Path) -> None:
    """Refuse impossible options before anything is read or timed.

    Raises:
        InputError: a number is out of range, an option would be ignored, or a file is where the folder should be.
    """
    for name, least in (("jobs", 1), ("threads", 1), ("cpus_per_cell", 0), ("gpus_per_cell", 0), ("time_limit", 1)):
        value = getattr(options, name)
        if value is not None and not least <= value < math.inf:
            raise InputError(f"{_flag(name)} must be at least {least}, got {value}")
    chosen, executors = executor_for(options), executors_by_option(options)
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        users = [option for option, executor in executors.items() if field.name in executor.own_options]
        if users and value != field.default and field.name not in chosen.own_options:
            advice = " or ".join(f"add {_flag(user)}" if user else "train on this machine" for user in users)
            raise InputError(f"{_flag(field.name)} {value} is not used here; {advice}, or leave it out")
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"{existing} is a file; --out must name a folder")


def executors_by_option(options: GridOptions) -> dict[str, type[Executor]]:
    """The executors, by the name of the option that chooses each; this machine's has the name ""."""
    paths = {f.name: f.metadata["executor"] for f in dataclasses.fields(options) if "executor" in f.metadata}
    return {name: pkgutil.resolve_name(path) for name, path in {"": LOCAL, **paths}.items()}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
