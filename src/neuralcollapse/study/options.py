"""The options of `grid` and `sweep`: where the runs are trained, how many at a time, and which of them again."""

from __future__ import annotations

from dataclasses import dataclass, field

WHERE_IT_RUNS = {"section": "Where it runs"}
"""The section of the help that these options stand in."""


@dataclass(frozen=True)
class GridOptions:
    """Where and how the runs of a grid or of a sweep are trained."""

    # an option with an `executor` in its metadata chooses a place other than this machine: see `study.executors`

    dry_run: bool = False
    """Print the plan and its estimate of time and memory, and train nothing."""
    jobs: int = 1
    """How many runs are trained at a time on this machine."""
    threads: int | None = None
    """Processor threads of each run; by default all of this machine shared among --jobs, or --cpus-per-cell."""
    retry_diverged: bool = False
    """Train diverged runs again from the start; without it only those whose settings have changed."""
    slurm: bool = field(default=False, metadata={"executor": "neuralcollapse.study.slurm_jobs:SlurmExecutor"})
    """Train each run as a Slurm job; --out and --data-dir must lie on storage that all machines share."""
    ray: str | None = field(default=None, metadata={"executor": "neuralcollapse.study.ray_tasks:RayExecutor"})
    """Train on the Ray cluster at HOST:PORT; auto: the one this machine belongs to; local: start one here."""
    cpus_per_cell: float = 1
    """Processor cores requested for each run, with --slurm and --ray."""
    gpus_per_cell: float | None = None
    """GPUs requested for each run; with --ray also a share such as 0.5, by default 1 where the cluster has any."""
    partition: str | None = None
    """Slurm partition; by default the cluster's own default."""
    time_limit: int = 240
    """Minutes a Slurm job may take; a run that needs more is stopped in time, queued again and continued."""
