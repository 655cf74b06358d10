"""Where and how the runs of a grid are trained: the options, and those that do not go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neuralcollapse._checks import InputError


@dataclass(frozen=True)
class How:
    """Where and how the runs of a grid or of a sweep are trained."""

    dry_run: bool = False
    """Stop after the plan."""
    jobs: int = 1
    """How many runs at a time on this machine; not with --ray."""
    threads: int | None = None
    """Processor threads of each run; by default all, shared among the --jobs."""
    retry_diverged: bool = False
    """Begin anew the runs that diverged; they are left alone otherwise, unless their settings are other ones now."""
    ray: str | None = None
    """Train on a Ray cluster: HOST:PORT, auto for the one this machine is part of, local for one started here."""
    cpus_per_cell: float = 1
    """With --ray: processor cores asked for, for each run."""
    gpus_per_cell: float | None = None
    """With --ray: GPUs asked for, for each run, such as 0.5; by default 1 where the cluster has any."""


def check(how: How, out: Path) -> None:
    """Refuse what cannot be, before anything is read or timed.

    Args:
        how: the options.
        out: the folder of the run directories.

    Raises:
        InputError: a number out of range, an option that would be ignored, or a file where the folder should be.
    """
    for name in ("jobs", "threads"):
        value = getattr(how, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be at least 1, got {value}")
    for name in ("cpus_per_cell", "gpus_per_cell"):
        value, option = getattr(how, name), f"--{name.replace('_', '-')}"
        if value is not None and not 0 <= value < float("inf"):
            raise InputError(f"{option} must be at least 0, got {value}")
        if how.ray is None and value != getattr(How, name):
            raise InputError(f"{option} {value:g} is what Ray is asked for; add --ray, or leave it out")
    if how.ray is not None and how.jobs != How.jobs:
        raise InputError(f"--jobs {how.jobs} has no use with --ray, which takes what fits; use --cpus-per-cell")
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{there} is a file; --out must name a folder")
