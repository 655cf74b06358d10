"""`measure --jobs`: the report of one process, whatever job is killed on the way."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from helpers.fake_slurm import FakeSlurm
from helpers.feature_tables import Save, layer, npy, npz, safetensors, same_report

from neuralcollapse import ClassMoments, InputError, measure_features
from neuralcollapse.files import jobs
from neuralcollapse.files.jobs import measure_in_jobs
from neuralcollapse.files.measure_files import measure_files
from neuralcollapse.files.options import FileOptions, JobOptions

pytest.importorskip("safetensors")
pytest.importorskip("submitit")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_POLL", 0.02)


class Done:
    """A job that has run."""

    def __init__(self, result: str) -> None:
        self.result = lambda: result

    def done(self) -> bool:
        return True

    def exception(self) -> None:
        return None

    def cancel(self, check: bool) -> None:
        pass


class Here:
    """An executor whose jobs run at once in this process."""

    def map_array(self, task: Any, options: list[FileOptions]) -> list[Done]:
        return [Done(task(each)) for each in options]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Jobs run one after another in this process, which takes no time to start."""
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    monkeypatch.setattr(jobs, "_executor", lambda *_: Here())
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)


def test_jobs_give_the_report_of_one_process(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer())
    options = replace(options, save=tmp_path / "all.safetensors", metrics="cdnv", weight_decay=1e-3, min_count=20)
    told: list[float] = []
    measured = measure_in_jobs(path, options, JobOptions(jobs=2), told.append)
    expected = measure_features(**layer(), metrics="cdnv", weight_decay=1e-3, min_count=20)
    same_report(measured.report, expected)
    assert measured.text == f"{measured.report}\n" and "examples saved in" in measured.note
    assert told == sorted(told) and told[0] == 0.0
    assert ClassMoments.load(tmp_path / "all.safetensors").num_examples == expected.num_examples
    assert not (tmp_path / "all.jobs").exists()


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("number", [1, 3, 10])
@pytest.mark.parametrize("changes", [{}, {"weighting": "class"}, {"max_count": 45}], ids=str)
@pytest.mark.parametrize("save", [npy, npz, safetensors], ids=lambda save: save.__name__)
def test_any_number_of_jobs_gives_it(save: Save, changes: dict, number: int, tmp_path: Path) -> None:
    """The classifier in a file of its own, or in that of the features."""
    path, options = save(tmp_path, layer())
    options = replace(options, save=tmp_path / "all.safetensors", **changes)
    same_report(measure_in_jobs(path, options, JobOptions(jobs=number)).report, measure_features(**layer(), **changes))


@pytest.mark.usefixtures("in_this_process")
def test_the_classifier_may_be_one_of_a_state_dict(tmp_path: Path) -> None:
    """Found by the number of features in the jobs, by its name where they are merged."""
    arrays = layer()
    path, _ = npz(tmp_path, {name: arrays[name] for name in ("features", "labels")})
    weight, bias = torch.tensor(arrays["weight"]), torch.tensor(arrays["bias"])
    torch.save({"stem.weight": torch.ones(6, 9), "fc.weight": weight, "fc.bias": bias}, tmp_path / "model.pt")
    options = FileOptions(
        weight=tmp_path / "model.pt", save=tmp_path / "all.safetensors", json=tmp_path / "report.json"
    )
    same_report(measure_in_jobs(path, options, JobOptions(jobs=1)).report, measure_features(**arrays))
    assert json.loads((tmp_path / "report.json").read_text())["num_examples"] == 96


@pytest.mark.usefixtures("in_this_process")
def test_jobs_without_a_classifier_save_moments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths relative to this folder, and everything in one file."""
    content = {name: value for name, value in layer().items() if name in ("features", "labels")}
    path, _ = npz(tmp_path, content)
    monkeypatch.chdir(tmp_path)
    options = FileOptions(classes=4, save=Path("all.safetensors"))
    measured = measure_in_jobs(Path(path.name), options, JobOptions(jobs=2))
    assert measured.report is None and "96 examples saved in" in measured.note
    one = tmp_path / "one.safetensors"
    measure_files(path, FileOptions(classes=4, save=one))
    for name, tensor in ClassMoments.load(one).state_dict().items():
        same = ClassMoments.load(tmp_path / "all.safetensors").state_dict()[name]
        np.testing.assert_allclose(same, tensor, rtol=1e-12, atol=1e-12)


def worker_of(folder: Path) -> psutil.Process | None:
    """A process that a job of this folder runs in."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if {"submitit.core._submit", str(folder / "log")} <= set(child.cmdline()):
                return child
    return None


class Killer(threading.Thread):
    """Kills so many workers of the jobs as soon as it sees them."""

    def __init__(self, folder: Path, number: float) -> None:
        super().__init__(daemon=True)
        self.folder, self.number, self.killed, self.ended = folder, number, 0, False

    def run(self) -> None:
        while not self.ended and self.killed < self.number:
            if (worker := worker_of(self.folder)) is not None:
                with contextlib.suppress(psutil.Error):
                    worker.kill()
                    worker.wait(10)
                    self.killed += 1
            time.sleep(0.01)


def test_the_shard_of_a_killed_worker_is_done_again(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer())
    options = replace(options, save=tmp_path / "all.safetensors")
    killer = Killer(tmp_path / "all.jobs", 1)
    killer.start()
    measured = measure_in_jobs(path, options, JobOptions(jobs=2))
    killer.ended = True
    killer.join()
    assert killer.killed == 1
    same_report(measured.report, measure_features(**layer()))


def test_missing_shards_are_named_and_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, options = npy(tmp_path, layer())
    options = replace(options, save=tmp_path / "all.safetensors")
    folder = tmp_path / "all.jobs"
    # the first shard is there; every worker of the second is killed
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            measure_in_jobs(path, options, JobOptions(jobs=2))
    measure_files(path, replace(options, shard="1/2", save=folder / "moments-1.safetensors"))
    before = (folder / "moments-1.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(jobs, "ATTEMPTS", 1)
    killer = Killer(folder, 100)
    killer.start()
    with pytest.raises(InputError) as error:
        measure_in_jobs(path, options, JobOptions(jobs=2))
    killer.ended = True
    killer.join()
    assert "1 of 2 shards are missing, 2, each begun 1 times: its job" in str(error.value)
    assert "the same command goes on from there" in str(error.value)
    assert (folder / "moments-1.safetensors").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"all\.jobs is what jobs with other jobs left"):
        measure_in_jobs(path, options, JobOptions(jobs=3))
    with pytest.raises(InputError, match="jobs with other weighting left"):
        measure_in_jobs(path, replace(options, weighting="class"), JobOptions(jobs=2))
    same_report(measure_in_jobs(path, options, JobOptions(jobs=2)).report, measure_features(**layer()))


@pytest.mark.wrong_input
@pytest.mark.parametrize("place", ["processes", "here"])
def test_what_a_job_found_wrong_is_said_at_once(tmp_path: Path, place: str, request: pytest.FixtureRequest) -> None:
    if place == "here":
        request.getfixturevalue("in_this_process")
    arrays = layer()
    arrays["features"][70, 2] = np.nan
    path, options = npy(tmp_path, arrays)
    with pytest.raises(InputError, match=r"features\.npy: expected finite features, got NaN or infinity in row 70"):
        measure_in_jobs(path, replace(options, save=tmp_path / "all.safetensors"), JobOptions(jobs=2))


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("changes", "own", "message"),
    [
        ({}, {"slurm": True, "jobs": None}, "--slurm is not used here; add --jobs"),
        ({}, {"partition": "gpu"}, "--partition gpu is not used here; add --slurm"),
        ({}, {"jobs": 0}, "--jobs of at least 1, got 0"),
        ({"save": None}, {}, "expected --save with --jobs"),
        ({"shard": "1/2"}, {}, "no --shard with --jobs"),
        ({"confidence": 0.9}, {}, "no --confidence with --jobs"),
        ({}, {"jobs": 97}, "at most 96 jobs"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, changes: dict, own: dict, message: str) -> None:
    path, options = npy(tmp_path, layer())
    options = replace(options, **{"save": tmp_path / "all.safetensors", **changes})
    with pytest.raises(InputError, match=message):
        measure_in_jobs(path, options, JobOptions(**{"jobs": 2, **own}))


def test_what_slurm_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script that sbatch is given, by a fake of Slurm's commands that refuses it then."""
    path, options = npy(tmp_path, layer())
    slurm = FakeSlurm.install(tmp_path / "bin", monkeypatch)
    slurm.answer("echo sbatch: error: full >&2; exit 1")
    own: dict[str, Any] = {"slurm": True, "partition": "cpu", "time_limit": 30, "cpus_per_job": 4}
    with pytest.raises(InputError, match=r"Slurm refused the job: .*full"):
        measure_in_jobs(path, replace(options, save=tmp_path / "all.safetensors"), JobOptions(jobs=8, **own))
    slurm.require_asked("--partition=cpu", "--time=30", "--cpus-per-task=4", "--array=0-7%8", "--signal=USR2@90")


@pytest.mark.wrong_input
def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(20, 3))
    np.save(tmp_path / "x.npy", features)
    np.save(tmp_path / "y.npy", np.arange(20) % 2)
    (tmp_path / "all.jobs").mkdir()
    (tmp_path / "all.jobs" / "precious.txt").write_text("mine")
    options = FileOptions(labels=tmp_path / "y.npy", save=tmp_path / "all.safetensors")
    with pytest.raises(InputError, match="holds other files"):
        measure_in_jobs(tmp_path / "x.npy", options, JobOptions(jobs=2))
    assert (tmp_path / "all.jobs" / "precious.txt").read_text() == "mine"
