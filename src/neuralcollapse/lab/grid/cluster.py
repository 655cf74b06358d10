"""Cells as tasks of a Ray cluster: each on the machine that has the processors and GPUs asked for, in a worker process.

Where the machine that trains a cell sees the folder of the grid (a shared file system, or the same machine), the run
directory is used in place: a task that Ray starts again, after its process or its machine was lost, goes on from the
checkpoint. Elsewhere the directory so far is sent there, kept in a scratch folder, and sent back at the end: a task
that is started again on the same machine goes on from there, on another it begins where the grid's own copy is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import shutil
import subprocess
import tarfile
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse.lab.grid.processes import GRACE, Ending, ask_to_stop, ending, launch, wait_or_kill
from neuralcollapse.lab.grid.task import Task, note_failure
from neuralcollapse.lab.runs import Run, replace_file

RETRIES = 3
"""How often Ray starts a task again whose process or machine was lost."""


class RayPool:
    """Tasks of a Ray cluster.

    Args:
        address: of the cluster; auto for the one this machine belongs to, local for one started here.
        out: the folder of the grid.
        cpus: processor cores of each task.
        gpus: GPUs of each task, or a share of one; None for 1 where the cluster has any.

    Raises:
        InputError: Ray is not installed, no cluster answers, or it has not what a task asks for.
    """

    def __init__(self, address: str, out: Path, *, cpus: float, gpus: float | None) -> None:
        self._ray = _connected(address)
        have = self._ray.cluster_resources()
        gpus = float("GPU" in have) if gpus is None else gpus
        for name, asked in (("CPU", cpus), ("GPU", gpus)):
            if asked > have.get(name, 0.0):
                self._ray.shutdown()
                raise InputError(
                    f"--{name.lower()}s-per-cell {asked:g} is more than the Ray cluster has, {have.get(name, 0.0):g}"
                )
        out.mkdir(parents=True, exist_ok=True)
        self._token = out.resolve() / f".grid-{uuid.uuid4().hex}"
        self._token.touch()
        self._remote = self._ray.remote(train_cell).options(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)
        self._tasks: dict[Any, str] = {}

    def room(self) -> bool:
        return True  # Ray keeps what does not fit now

    def busy(self) -> bool:
        return bool(self._tasks)

    def start(self, task: Task) -> None:
        path = Path(task.path)
        elsewhere = len(self._ray.nodes()) > 1  # on a machine that may not see the folder
        archive = pack(path) if elsewhere and (path / "config.json").is_file() else None
        self._tasks[self._remote.remote(dataclasses.asdict(task), str(self._token), archive)] = task.path

    def collect(self, wait: float) -> dict[str, Ending]:
        ready, _ = self._ray.wait(list(self._tasks), timeout=wait)
        return {
            path: self._ending(reference, Path(path)) for reference in ready if (path := self._tasks.pop(reference))
        }

    def stop(self) -> dict[str, Ending]:
        for reference in self._tasks:
            self._ray.cancel(reference)  # raises KeyboardInterrupt in a task that has begun
        end = time.monotonic() + GRACE
        ended: dict[str, Ending] = {}
        while self._tasks and time.monotonic() < end:
            ended |= self.collect(wait=1.0)
        return ended

    def close(self) -> None:
        self._token.unlink(missing_ok=True)
        self._ray.shutdown()

    def _ending(self, reference: Any, path: Path) -> Ending:
        try:
            code, archive = self._ray.get(reference)
        except (self._ray.exceptions.TaskCancelledError, KeyboardInterrupt):
            return Ending("interrupted")
        except self._ray.exceptions.RayError as error:
            why = f"Ray: {type(error).__name__}, {' '.join(str(error).split())[:200]}"
            note_failure(path, why)
            return Ending("failed", why)
        if archive is not None:
            unpack(archive, path)
        return ending(path, code)


def train_cell(task: dict[str, Any], token: str, archive: bytes | None) -> tuple[int, bytes | None]:
    """Train one cell, on whatever machine this runs.

    Args:
        task: the fields of a `Task`.
        token: a file of the grid's folder; where it is seen, the folder is.
        archive: the run directory so far, for machines that do not see it.

    Returns:
        The worker's exit code, and the run directory where it has to be sent back.
    """
    path = Path(task["path"])
    shared = Path(token).exists()
    if not shared:
        path = _scratch(token) / path.name
        if archive is not None and not path.exists():
            unpack(archive, path)
    _wait_for_lock(path)
    process = launch(Task(**{**task, "path": str(path)}))
    try:
        code = _wait(process)
    finally:  # also when the task is cancelled
        ask_to_stop(process)
        wait_or_kill(process)
    if shared:
        return code, None
    content = pack(path)
    shutil.rmtree(path)
    with contextlib.suppress(OSError):  # other cells are still there
        path.parent.rmdir()
    return code, content


def pack(path: Path) -> bytes:
    """A run directory as one gzipped tar archive, without its hidden files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for file in sorted(path.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                archive.add(file, arcname=file.relative_to(path))
    return buffer.getvalue()


def unpack(content: bytes, path: Path) -> None:
    """Put a packed run directory at `path`, file by file, over what is there."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                target = path / file.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open("rb") as source:
                    replace_file(target, lambda copy, source=source: shutil.copyfileobj(source, copy))  # type: ignore[misc]


def _connected(address: str) -> Any:
    """Ray, connected."""
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError("--ray needs the package ray: pip install 'neuralcollapse[ray]'") from None
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {"address": address}
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"no Ray cluster at {address} ({reason}); start one by `ray start --head`, or use --ray local"
        ) from error
    return ray


def _scratch(token: str) -> Path:
    """Where a machine that does not see the grid's folder keeps the run directories of one grid."""
    folder = Path(tempfile.gettempdir()) / f"neuralcollapse-{Path(token).name.removeprefix('.')}"
    folder.mkdir(exist_ok=True)
    return folder


def _wait(process: subprocess.Popen[bytes]) -> int:
    while (code := process.poll()) is None:
        time.sleep(0.2)  # in Python, so that a cancelled task is interrupted at once
    return code


def _wait_for_lock(path: Path) -> None:
    """A task started again may find the worker of its lost predecessor still ending."""
    end = time.monotonic() + GRACE
    while (path / "config.json").is_file() and Run.open(path).is_locked() and time.monotonic() < end:
        time.sleep(0.2)
