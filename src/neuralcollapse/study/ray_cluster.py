"""Cells as tasks of a Ray cluster: each on the machine that has the processors and GPUs asked for, in a worker process.

Where the machine that trains a cell sees the folder of the grid (a shared file system, or the same machine), the run
directory is used in place: a task that Ray starts again, after its process or its machine was lost, goes on from the
checkpoint. Elsewhere the directory so far is sent there, kept in a scratch folder, and sent back when the cell ends or
the user interrupts it. Where the user's process is lost meanwhile, the scratch folder stays: the same cell, sent to
that machine again, goes on from there, and on another from the grid's own copy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import math
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse._files import replace_file
from neuralcollapse.study.processes import GRACE, Ending, ask_to_stop, ending, launch, wait_or_kill
from neuralcollapse.study.task import INTERRUPTED, Task, note_failure
from neuralcollapse.training.run_directory import Run

RETRIES = 3
"""How often Ray starts a task again whose process or machine was lost."""
SENDING = 30.0
"""Seconds, beyond those a worker has to stop, in which an interrupted run may be sent back."""
REACH = 5.0
"""Seconds in which a cluster's port has to answer."""


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
        self._needs = {"CPU": cpus, "GPU": gpus}
        for name, asked in self._needs.items():
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
        """Room for as many as the cluster has processors and GPUs for, and one that waits: more would wait packed."""
        have = self._ray.cluster_resources()
        fitting = [have.get(name, 0.0) // asked for name, asked in self._needs.items() if asked]
        return len(self._tasks) < min(fitting, default=math.inf) + 1

    def busy(self) -> bool:
        return bool(self._tasks)

    def start(self, task: Task) -> None:
        path = Path(task.path)
        elsewhere = sum(node["Alive"] for node in self._ray.nodes()) > 1  # on a machine that may not see the folder
        archive = pack(path) if elsewhere and (path / "config.json").is_file() else None
        self._tasks[self._remote.remote(dataclasses.asdict(task), str(self._token), scratch(task), archive)] = task.path

    def collect(self, wait: float) -> dict[str, Ending]:
        ready, _ = self._ray.wait(list(self._tasks), timeout=wait)
        return {
            path: self._ending(reference, Path(path)) for reference in ready if (path := self._tasks.pop(reference))
        }

    def stop(self) -> dict[str, Ending]:
        for reference in self._tasks:
            self._ray.cancel(reference)  # raises KeyboardInterrupt in a task that has begun
        end = time.monotonic() + GRACE + SENDING
        ended: dict[str, Ending] = {}
        while self._tasks and time.monotonic() < end:
            ended |= self.collect(wait=1.0)
        silent = {path: Ending("interrupted", "Ray did not say how it ended") for path in self._tasks.values()}
        self._tasks.clear()
        return ended | silent

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


def train_cell(task: dict[str, Any], token: str, folder: str, archive: bytes | None) -> tuple[int, bytes | None]:
    """Train one cell, on whatever machine this runs.

    Args:
        task: the fields of a `Task`.
        token: a file of the grid's folder; where it is seen, the folder is.
        folder: name of the scratch folder, for machines that do not see it.
        archive: the run directory so far, for such machines.

    Returns:
        The worker's exit code, and the run directory where it has to be sent back.
    """
    path = Path(task["path"])
    shared = Path(token).exists()
    if not shared:
        path = Path(tempfile.gettempdir()) / folder / path.name
    _wait_for_lock(path)
    if not shared and archive is not None:
        _take_up(archive, path)
    process = launch(Task(**{**task, "path": str(path)}))
    try:
        code = _wait(process)
    except KeyboardInterrupt:  # the task is cancelled: what it has is sent back all the same
        code = INTERRUPTED
    finally:
        ask_to_stop(process)
        wait_or_kill(process)
    if shared:
        return code, None
    content = pack(path)
    if code != INTERRUPTED:  # else it may be that nobody is there to take it
        shutil.rmtree(path.parent)
    return code, content


def scratch(task: Task) -> str:
    """Name of the folder that keeps this run, with these settings, of this machine's grid on others."""
    key = json.dumps([socket.gethostname(), task.path, task.settings], sort_keys=True)
    return f"neuralcollapse-{hashlib.sha256(key.encode()).hexdigest()[:24]}"


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
        _reach(address)
        ray.init(**options, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, ValueError, RuntimeError) as error:  # no connection and no answer in time are OSErrors
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"no Ray cluster at {address} ({reason}); start one by `ray start --head`, or use --ray local"
        ) from error
    return ray


def _reach(address: str) -> None:
    """Try the port of a cluster's address: Ray itself tries for minutes, and says nothing."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("expected auto, local or HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), timeout=REACH).close()


def _take_up(archive: bytes, path: Path) -> None:
    """Put the grid's copy of a run in the scratch folder, unless what an earlier grid left there has come as far."""
    incoming = path.with_name(f".incoming-{path.name}")
    shutil.rmtree(incoming, ignore_errors=True)
    unpack(archive, incoming)
    if path.exists() and _epoch(path) >= _epoch(incoming):
        shutil.rmtree(incoming)
        return
    shutil.rmtree(path, ignore_errors=True)
    incoming.rename(path)


def _epoch(path: Path) -> int:
    """The last finished epoch; −1 where the status cannot be read."""
    try:
        return int(Run(path).status().epoch)
    except InputError:
        return -1


def _wait(process: subprocess.Popen[bytes]) -> int:
    while (code := process.poll()) is None:
        time.sleep(0.2)  # in Python, so that a cancelled task is interrupted at once
    return code


def _wait_for_lock(path: Path) -> None:
    """A task started again may find the worker of its lost predecessor still ending."""
    end = time.monotonic() + GRACE
    while Run(path).is_locked() and time.monotonic() < end:
        time.sleep(0.2)
