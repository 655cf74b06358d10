"""Runs as Slurm jobs, through submitit: each job starts a worker process on the machine that Slurm gives it.

The folder of the grid and the data lie on storage that all machines share. What submitit writes (the job scripts, and
the output of each job) is in `OUT/.slurm`. A job that reaches its time limit, or is preempted with a warning, stops its
worker, is queued again by submitit and continues from the checkpoint.
"""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse._errors import install
from neuralcollapse.study.local_processes import train_here
from neuralcollapse.study.options import GridOptions
from neuralcollapse.study.task import Ending, State, Task, read_ending, write_failure

REQUEUES = 100
"""How often a job that reached its time limit is queued again."""
_PATIENCE = 20.0
"""Seconds after which a job that was told to stop, and has not, is told again: a signal can be lost."""


def submitit_executor(folder: Path, cluster: str, option: str) -> Any:
    """Submitit's executor, whose scripts and outputs are in `folder`.

    Args:
        cluster: "slurm", or "local" for processes of this machine.
        option: that asked for it, for messages.

    Raises:
        InputError: submitit or Slurm is not there.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise InputError(f"{option} needs the package submitit: {install('submitit')}") from None
    try:
        return submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=REQUEUES)
    except RuntimeError:
        raise InputError(
            f"{option} did not find Slurm's command srun here; type the command on a login node of the cluster"
        ) from None


class SlurmExecutor:
    """Slurm jobs; all are queued at once, and Slurm decides which of them run.

    Raises:
        InputError: submitit or Slurm is not there, or a share of a GPU or of a core is asked for.
    """

    own_options = ("slurm", "cpus_per_cell", "gpus_per_cell", "partition", "time_limit")
    cluster = "slurm"
    """submitit's name of the scheduler; "local" runs the same jobs as processes, for tests."""
    capacity = math.inf

    def __init__(self, out: Path, options: GridOptions) -> None:
        cpus, gpus = options.cpus_per_cell, options.gpus_per_cell
        if cpus != int(cpus) or cpus < 1 or (gpus is not None and gpus != int(gpus)):
            raise InputError(
                f"expected whole cores and GPUs with --slurm, got --cpus-per-cell {cpus:g}, --gpus-per-cell {gpus}"
            )
        self._executor = submitit_executor(out.resolve() / ".slurm", self.cluster, "--slurm")
        self._executor.update_parameters(
            name="neuralcollapse",
            timeout_min=options.time_limit,
            cpus_per_task=int(cpus),
            gpus_per_node=None if gpus is None else int(gpus),
            slurm_partition=options.partition,
        )

    def submit(self, task: Task) -> SlurmJob:
        with slurm_refusals():
            return SlurmJob(self._executor.submit(JobTask(task)), Path(task.path))

    def close(self) -> None:
        pass


@contextlib.contextmanager
def slurm_refusals() -> Iterator[None]:
    """Turn the error of a job that Slurm does not take into one sentence with what Slurm said."""
    from submitit.core.utils import FailedJobError

    try:
        yield
    except (FailedJobError, subprocess.CalledProcessError, OSError) as error:
        raise InputError(f"Slurm refused the job: {' '.join(str(error).split())[-300:]}") from error


class SlurmJob:
    """A queued or running job; `job` is submitit's."""

    def __init__(self, job: Any, path: Path) -> None:
        self._job, self._path = job, path
        self._told_to_stop: float | None = None

    def poll(self) -> Ending | None:
        if not self._job.done():
            if self._told_to_stop is not None and time.monotonic() > self._told_to_stop + _PATIENCE:
                self.stop()
            return None
        if self._told_to_stop is not None and not self._job.paths.result_pickle.exists():
            return Ending(State.INTERRUPTED)
        if self._job.exception() is None:
            return read_ending(self._path, self._job.result())
        why = f"Slurm job {self._job.job_id} ended in state {self._job.state} without a result; "
        log = self._job.paths.stderr
        why += f"see {log}" if log.exists() else f"does the machine that ran it see {self._path.parent}?"
        return write_failure(self._path, why)

    def stop(self) -> None:
        self._told_to_stop = time.monotonic()
        self._job.cancel(check=False)


class JobTask:
    """What a job executes: a worker process, until it ends."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __call__(self) -> int:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # sent by scancel; submitit ignores it
        # what is begun in the background of a shell ignores SIGINT, and so would the jobs that it starts
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return train_here(self._task)

    def checkpoint(self) -> Any:
        """Called by submitit before the time limit: what to queue again. The worker stops when this process ends."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(JobTask(self._task))
