"""Runs as tasks of a Ray cluster: each starts a worker process on the machine that Ray gives it.

The folder of the grid and the data lie on storage that all machines share under one path. A task whose process or
machine is lost is started again by Ray, and continues from the checkpoint.
"""

from __future__ import annotations

import logging
import math
import socket
import uuid
from pathlib import Path
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse._errors import install
from neuralcollapse.study.local_processes import train_here
from neuralcollapse.study.options import GridOptions
from neuralcollapse.study.task import Ending, State, Task, read_ending, write_failure

RETRIES = 3
"""How often Ray starts a task again whose process or machine was lost."""
CONNECTION_TIMEOUT = 5.0
"""Seconds in which the port of a cluster has to answer."""


class RayExecutor:
    """Tasks of a Ray cluster.

    Raises:
        InputError: Ray is not installed, no cluster answers, or it has less than one task asks for.
    """

    own_options = ("ray", "cpus_per_cell", "gpus_per_cell")

    def __init__(self, out: Path, options: GridOptions) -> None:
        assert options.ray is not None
        self._ray = _connect(options.ray)
        resources, gpus = self._ray.cluster_resources(), options.gpus_per_cell
        self._needs = {"CPU": options.cpus_per_cell, "GPU": float("GPU" in resources) if gpus is None else gpus}
        for name, needed in self._needs.items():
            if needed > (available := resources.get(name, 0.0)):
                self._ray.shutdown()
                option = f"--{name.lower()}s-per-cell"
                raise InputError(f"expected {option} of at most the Ray cluster's {available:g}, got {needed:g}")
        out.mkdir(parents=True, exist_ok=True)
        self._token = out.resolve() / f".grid-{uuid.uuid4().hex}"
        self._token.touch()
        self._remote = self._ray.remote(train_on_shared_storage).options(
            num_cpus=self._needs["CPU"], num_gpus=self._needs["GPU"], max_retries=RETRIES
        )

    @property
    def capacity(self) -> float:
        """As many as the cluster has cores and GPUs for now, and one that waits."""
        resources = self._ray.cluster_resources()
        fitting = [resources.get(name, 0.0) // needed for name, needed in self._needs.items() if needed]
        return min(fitting, default=math.inf) + 1

    def submit(self, task: Task) -> RayTask:
        return RayTask(self._ray, self._remote.remote(task, self._token), Path(task.path))

    def close(self) -> None:
        self._token.unlink(missing_ok=True)
        self._ray.shutdown()


class RayTask:
    """A task that waits or runs; `reference` is Ray's, of its result."""

    def __init__(self, ray: Any, reference: Any, path: Path) -> None:
        self._ray, self._reference, self._path = ray, reference, path

    def poll(self) -> Ending | None:
        if not self._ray.wait([self._reference], timeout=0)[0]:
            return None
        try:
            result = self._ray.get(self._reference)
        except (self._ray.exceptions.TaskCancelledError, KeyboardInterrupt):
            return Ending(State.INTERRUPTED)
        except self._ray.exceptions.RayError as error:
            result = f"Ray: {type(error).__name__}, {' '.join(str(error).split())[:200]}"
        return write_failure(self._path, result) if isinstance(result, str) else read_ending(self._path, result)

    def stop(self) -> None:
        self._ray.cancel(self._reference)  # raises KeyboardInterrupt in a task that has begun


def train_on_shared_storage(task: Task, token: Path) -> int | str:
    """Train a task on the machine that Ray has chosen.

    Args:
        task: what is to be trained.
        token: a file that the grid has made in its folder: only on shared storage is it seen here.

    Returns:
        The exit code of the worker, or why none was started.
    """
    if not token.exists():
        return (
            f"{socket.gethostname()} does not see {token.parent}; --out (and --data-dir) must lie on storage that "
            "all machines of the Ray cluster share under the same path"
        )
    return train_here(task)


def _connect(address: str) -> Any:
    """The package ray, connected to a cluster."""
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError(f"--ray needs the package ray: {install('ray')}") from None
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {"address": address}
    try:
        if address not in ("auto", "local"):  # try the port first: Ray itself tries for minutes without a word
            host, _, port = address.removeprefix("ray://").rpartition(":")
            if not host or not port.isdecimal() or int(port) > 65535:
                raise ValueError("expected auto, local or HOST:PORT")
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTION_TIMEOUT).close()
        ray.init(**options, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, ValueError, RuntimeError) as error:  # a refused connection and a timeout are OSErrors
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"no Ray cluster at {address} ({reason}); start one with `ray start --head`, or use --ray local"
        ) from error
    return ray
