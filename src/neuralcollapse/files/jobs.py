"""`neuralcollapse measure --jobs N`: a file measured by N jobs, of a Slurm array or as processes of this machine.

Two rounds, of N jobs each. Each job of the first saves the class moments of its rows, which are merged; each of the
second counts decisions of its rows about the merged class means. What jobs save lies in a folder beside the file of
`--save`. A job that was killed is done again, from where it was; so is everything still missing when the command
is repeated.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from neuralcollapse._errors import InputError
from neuralcollapse._files import read_json, to_json, write_json
from neuralcollapse.files.features import open_classifier, open_examples
from neuralcollapse.files.measure_files import FileMeasurement, measure_files
from neuralcollapse.files.options import FileOptions, JobOptions, split_key
from neuralcollapse.files.passes import Progress
from neuralcollapse.study.slurm_jobs import slurm_refusals, submitit_executor

ATTEMPTS = 3
"""How often a job is begun before the command gives up."""
_POLL, _STOPPING = 0.5, 20.0  # seconds
_LOCAL_LIMIT = 60 * 24 * 30  # minutes of a job on this machine: submitit wants a number


def measure_in_jobs(
    features: Path | None, options: FileOptions, jobs: JobOptions, progress: Progress = lambda share: None
) -> FileMeasurement:
    """Measure a file by jobs; the report is that of one process, to rounding.

    Args:
        features: the file, on storage that all machines see, as the folder of `options.save` is.
        options: as for `measure_files`, with `save`, which gets the merged moments.
        jobs: how many, and where they run.
        progress: is called with the share of the jobs that is done.

    Raises:
        InputError: options that do not go together, wrong input that a job found, or shards that no job finished, with
            their numbers; what the others saved is kept, and the same call goes on from there.
    """
    jobs.check(options)
    options.check(features)
    assert features is not None
    # absolute, because a job may run in another folder
    paths = {name: getattr(options, name) for name in ("labels", "weight", "bias", "save")}
    options = replace(options, **{name: path and path.absolute() for name, path in paths.items()})
    features, save, number = features.absolute(), options.save, jobs.jobs
    assert save is not None and number is not None
    examples = open_examples(features, options.labels, options.columns)
    total, dim = examples.shape
    if number > total:
        raise InputError(f"expected at most {total} jobs, one for each row of {features}, got --jobs {number}")
    classifier = open_classifier(features, options.weight, options.bias, dim)
    folder = save.with_suffix(".jobs")
    folder.mkdir(exist_ok=True)
    _require_own(folder, {"jobs": number, **_measured(features, options)})
    executor = _executor(folder / "log", jobs)
    threads = jobs.cpus_per_job if jobs.slurm else max(1, torch.get_num_threads() // number)

    def saved_by_jobs(kind: str, options: FileOptions, done: Progress) -> tuple[Path, ...]:
        """What a round of jobs saves, one file a shard."""
        saved = {shard: folder / f"{kind}-{shard}.safetensors" for shard in range(1, number + 1)}
        wanted = {shard: replace(options, shard=f"{shard}/{number}", save=path) for shard, path in saved.items()}
        _run(executor, _ShardTask(features, threads, not jobs.slurm), wanted, folder, done)
        return tuple(saved.values())

    rounds = 1 if classifier is None else 2
    # what is only about the report is for the last step
    plain = replace(options, json=None, metrics=None, weight_decay=0.0)
    parts = saved_by_jobs("moments", plain, lambda share: progress(share / rounds))
    merging = replace(options, labels=None, columns=FileOptions.columns, min_count=None, max_count=None)
    measured = measure_files(None, replace(merging, weight=None, bias=None, merge=parts, json=None))
    if classifier is not None:
        counting = replace(plain, moments=save, min_count=None, max_count=None)
        counts = saved_by_jobs("counts", counting, lambda share: progress((1 + share) / 2))
        # by its name, if it was found by the features, which are not read any more
        key = classifier.found.partition(" and ")[0]
        weight = Path(f"{classifier.path}:{key}") if key else options.weight or features
        merging = replace(merging, weight=weight, merge=counts, moments=save, save=None)
        measured = replace(measure_files(None, merging), note=measured.note)
    shutil.rmtree(folder, ignore_errors=True)
    return measured


class _ShardTask:
    """What a job executes; its result is what was wrong with the input, or nothing."""

    def __init__(self, features: Path, threads: int, local: bool) -> None:
        self._features, self._threads, self._local = features, threads, local

    def __call__(self, options: FileOptions) -> str:
        if self._local:  # `_stop` cancels by it; from Slurm it is the warning of a preemption, after which comes USR2
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        torch.set_num_threads(self._threads)
        try:
            measure_files(self._features, options)
        except InputError as error:
            return str(error)
        return ""

    def checkpoint(self, options: FileOptions) -> Any:
        """Called by submitit before the time limit: what to queue again. It goes on from FILE.unfinished."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, options)


def _run(executor: Any, task: _ShardTask, wanted: dict[int, FileOptions], folder: Path, progress: Progress) -> None:
    """Have jobs save what is wanted of each shard and is not there, each begun up to `ATTEMPTS` times."""
    total, reasons = len(wanted), {}
    for _ in range(ATTEMPTS):
        if not (missing := _missing(wanted)):
            return
        with slurm_refusals():
            running = dict(zip(missing, executor.map_array(task, list(missing.values())), strict=True))
        try:
            while running:
                progress(1 - len(running) / total)
                for shard in [shard for shard, job in running.items() if job.done()]:
                    job = running.pop(shard)
                    if job.exception() is not None:
                        reasons[shard] = f"its job {job.job_id} ended in state {job.state}, see {job.paths.stderr}"
                    elif wrong := job.result():
                        raise InputError(wrong)
                time.sleep(_POLL)
        finally:
            _stop(list(running.values()))
    if missing := _missing(wanted):
        shard, listed = next(iter(missing)), ", ".join(map(str, missing))
        raise InputError(
            f"{len(missing)} of {total} shards are missing, {listed}, each begun {ATTEMPTS} times: "
            f"{reasons.get(shard, f'no machine that ran it wrote into {folder}')}; what the others saved is in "
            f"{folder}, and the same command goes on from there"
        )


def _stop(jobs: list[Any]) -> None:
    """Cancel jobs, and wait a little for those of this machine, which write into the folder until they end."""
    from submitit import LocalJob

    end = time.monotonic() + _STOPPING
    local = [job for job in jobs if isinstance(job, LocalJob)]
    for job in jobs:
        if job not in local:
            job.cancel(check=False)
        elif not job.done():
            os.kill(int(job.job_id), signal.SIGTERM)  # by its cancel() it would end with a traceback on the terminal
    while any(not job.done() for job in local) and time.monotonic() < end:
        time.sleep(0.05)


def _missing(wanted: dict[int, FileOptions]) -> dict[int, FileOptions]:
    """The shards of which nothing is saved yet."""
    return {shard: options for shard, options in wanted.items() if options.save is None or not options.save.is_file()}


def _executor(log: Path, jobs: JobOptions) -> Any:
    executor = submitit_executor(log, "slurm" if jobs.slurm else "local", "--slurm" if jobs.slurm else "--jobs")
    executor.update_parameters(
        name="neuralcollapse",
        timeout_min=jobs.time_limit if jobs.slurm else _LOCAL_LIMIT,
        cpus_per_task=jobs.cpus_per_job,
        slurm_partition=jobs.partition,
        slurm_array_parallelism=jobs.jobs,
    )
    return executor


def _measured(features: Path, options: FileOptions) -> dict[str, Any]:
    """What tells this measurement from others, by name; what only the report needs may change."""
    files = {"features": features, "labels": options.labels, "weight": options.weight, "bias": options.bias}
    states = {name: None if path is None else split_key(path)[0].stat() for name, path in files.items()}
    seen = {name: state and [str(files[name]), state.st_size, state.st_mtime_ns] for name, state in states.items()}
    names = ("columns", "classes", "weighting", "min_count", "max_count")
    return {**seen, **{name: getattr(options, name) for name in names}}


def _require_own(folder: Path, measured: dict[str, Any]) -> None:
    """Note what the folder is of; raise where it is of another measurement."""
    path, measured = folder / "measured.json", json.loads(to_json(measured))
    if not path.is_file():
        if any(folder.iterdir()):  # it is deleted in the end
            raise InputError(f"{folder} is needed for what jobs save, and holds other files: give --save another file")
        write_json(path, measured)
        return
    left = read_json(path)
    if other := [name for name in measured if left.get(name) != measured[name]]:
        raise InputError(
            f"{folder} is what jobs with other {' and '.join(other)} left: repeat that command to finish them, delete "
            "the folder to begin anew, or give --save another file"
        )
