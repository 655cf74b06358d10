"""The run directory: atomic files, a history that survives, and refusals of what is no run."""

from __future__ import annotations

import fcntl
import json
import math
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.run_directories import record
from helpers.studies import config as run_config
from hypothesis import given
from hypothesis import strategies as st

from neuralcollapse import InputError
from neuralcollapse._files import append_line, read_lines, replacing, write_json
from neuralcollapse.training import checkpoint
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import base_name, prepare, resumed
from neuralcollapse.training.run_directory import Run

RESULTS = sorted(path.parent for path in (Path(__file__).parents[2] / "results").rglob("config.json"))
JSON_VALUES = st.one_of(
    st.integers(-(2**53), 2**53), st.floats(), st.lists(st.floats(), max_size=3), st.text(max_size=5), st.none()
).filter(lambda value: value not in ("inf", "-inf", "nan"))


@given(records=st.lists(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4), max_size=4))
def test_history_comes_back_as_it_was_written(records: list[dict], tmp_path_factory: pytest.TempPathFactory) -> None:
    run = Run(tmp_path_factory.mktemp("run"))
    for line in records:
        append_line(run.history_path, line)
    assert repr(read_lines(run.history_path) if records else []) == repr(records)  # repr: nan is not equal to itself


def test_a_line_cut_short_is_left_out_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"epoch": 1, "nc1": "inf"}\n{"epoch": 2, "nc')
    assert read_lines(path) == [{"epoch": 1, "nc1": math.inf}]
    path.write_text('{"epoch": 1}\n{"epoch": 2, "nc\n{"epoch": 3}\n')
    with pytest.raises(InputError, match="line 2"):
        read_lines(path)
    path.write_text("[1]\n")
    with pytest.raises(InputError, match="expected a JSON object"):
        read_lines(path)


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_json(path, {"epoch": 1})

    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("disk full")
    assert json.loads(path.read_text()) == {"epoch": 1}
    assert os.listdir(tmp_path) == ["status.json"]


def test_a_directory_is_taken_up_by_the_same_settings_only(tmp_path: Path) -> None:
    config = run_config(epochs=3)
    Run.create(tmp_path / "run", config)
    assert Run.create(tmp_path / "run", config).config == config
    with pytest.raises(InputError, match=r"other settings \(epochs: 3, now 4\)"):
        Run.create(tmp_path / "run", run_config(epochs=4))
    assert Run.create(tmp_path / "run", run_config(epochs=3, seed=1), ignoring=("seed",)).config.seed == 0


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("dear")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        Run.create(tmp_path / "notes", run_config())
    with pytest.raises(InputError, match="must name a folder"):
        Run.create(tmp_path / "file", run_config())
    with pytest.raises(InputError, match="no such folder"):
        Run.open(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no config\.json"):
        Run.open(tmp_path / "notes")
    (tmp_path / "notes" / "config.json").write_text("{")
    with pytest.raises(InputError, match="not a JSON file"):
        Run.open(tmp_path / "notes")
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "dear"


def save(run: Run, state: dict[str, Any]) -> None:
    with replacing(run.path / "checkpoint.pt") as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def test_a_checkpoint_executes_nothing(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "owned"),)

    run = Run.create(tmp_path / "run", run_config())
    for write in (torch.save, lambda value, path: Path(path).write_bytes(pickle.dumps(value))):
        write({"model": Malicious()}, run.path / "checkpoint.pt")
        with pytest.raises(InputError, match="not a readable checkpoint"):
            checkpoint.read(run)
        assert not (tmp_path / "owned").exists()


def test_an_interrupt_while_a_checkpoint_is_written_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.save, interrupted, raises a RuntimeError of its zip writer instead."""
    run = Run.create(tmp_path / "run", run_config())
    save(run, {"weight": torch.zeros(3)})

    def interrupted(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise RuntimeError("unexpected pos 3648 vs 3542")

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(run, {"weight": torch.ones(3)})
    state = checkpoint.read(run)
    assert state is not None and not state["weight"].any()


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named(tmp_path: Path, keep: float) -> None:
    run = Run.create(tmp_path / "run", run_config())
    save(run, {"weight": torch.arange(1000.0)})
    path = run.path / "checkpoint.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    with pytest.raises(InputError, match=r"checkpoint\.pt is not a readable checkpoint"):
        checkpoint.read(run)


def test_history_is_cut_back_to_the_checkpoint_and_never_padded(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", run_config())
    append_line(run.history_path, {"epoch": 1})
    size = run.history_size()
    append_line(run.history_path, {"epoch": 2})
    run.save_snapshot(1, weight=np.zeros(2))
    run.save_snapshot(2, weight=np.zeros(2))
    run.cut_back(size, 1)
    assert read_lines(run.history_path) == [{"epoch": 1}]
    assert [path.name for path in run.snapshots().values()] == ["epoch_0001.npz"]
    with pytest.raises(InputError, match="the files were changed"):
        run.cut_back(size + 5, 1)


@pytest.mark.parametrize(
    ("size", "epoch", "why"),
    [
        (0, 0, "several measured epochs after epoch 0"),
        (13, 1, "several measured epochs after epoch 1"),
        (26, 1, "several measured epochs after epoch 1"),  # of the history only one, of the snapshots two
        (27, 2, "ends at byte 27"),
        (40, 3, "has 39 bytes"),
    ],
)
def test_a_checkpoint_that_is_not_this_historys_cuts_nothing(tmp_path: Path, size: int, epoch: int, why: str) -> None:
    run = Run.create(tmp_path / "run", run_config())
    for number in (1, 2, 3):
        append_line(run.history_path, {"epoch": number})
        run.save_snapshot(number, weight=np.zeros(2))
    with pytest.raises(InputError, match=f"{why}.* left as it is: start another run"):
        run.cut_back(size, epoch)
    assert len(read_lines(run.history_path)) == len(run.snapshots()) == 3


@pytest.mark.parametrize("left", ["history", "snapshots", "both"])
def test_a_history_without_a_checkpoint_is_finished_work(tmp_path: Path, left: str) -> None:
    run = Run.create(tmp_path / "run", run_config())
    if left != "snapshots":
        append_line(run.history_path, {"epoch": 1})
    if left != "history":
        run.save_snapshot(1, weight=np.zeros(2))
    with pytest.raises(InputError, match=r"is finished work.* another --out"):
        Run.create(run.path, run_config())
    save(run, {})
    Run.create(run.path, run_config())


def test_snapshots_are_in_the_order_of_their_epochs_and_copies_none(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", run_config())
    for epoch in (2, 10_000, 9_999):
        run.save_snapshot(epoch, weight=np.zeros(2))
    for name in ("epoch_0002 (copy).npz", "epoch_.npz", "epoch_-001.npz", "epoch_٠٠٠١.npz", f"epoch_{'1' * 200}.npz"):
        (run.path / "snapshots" / name).touch()
    assert [path.name for path in run.snapshots().values()] == ["epoch_0002.npz", "epoch_9999.npz", "epoch_10000.npz"]


def test_of_two_settings_at_once_one_is_refused(tmp_path: Path) -> None:
    """Both find an empty folder; the second to write must see what the first has written."""
    outcomes: dict[int, str] = {}
    barrier = threading.Barrier(4)

    def begin(path: Path, seed: int) -> None:
        barrier.wait()
        try:
            outcomes[seed] = str(Run.create(path, run_config(seed=seed)).config.seed)
        except InputError as error:
            outcomes[seed] = str(error)

    for trial in range(10):
        path = tmp_path / str(trial)
        threads = [threading.Thread(target=begin, args=(path, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        written = Run.open(path).config.seed
        assert [seed for seed, said in outcomes.items() if said == str(seed)] == [written]
        assert sum("other settings (seed: " in said for said in outcomes.values()) == 3


def test_two_processes_cannot_train_in_one_directory(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", run_config())
    with run.locked(), pytest.raises(InputError, match="another process is training"), run.locked():
        pass
    with run.locked():
        pass


def test_to_look_whether_a_run_is_locked_writes_nothing(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", run_config())
    before = sorted(os.listdir(run.path))
    assert not run.is_locked() and sorted(os.listdir(run.path)) == before
    with run.locked():
        assert run.is_locked()
    with (run.path / ".lock").open("rb") as other:  # another process that looks at the same moment
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not run.is_locked()
    (run.path / ".lock").chmod(0o400)
    assert not run.is_locked()


def test_a_history_has_the_numbers_asked_for(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", run_config())
    assert run.history("nc3") == []
    append_line(run.history_path, record(1, nc1=math.inf, nc3=math.nan))
    assert run.history("nc3")[0]["nc1"] == math.inf
    append_line(run.history_path, record(2, nc3=None))
    assert len(run.history()) == 2
    with pytest.raises(InputError, match=r"history\.jsonl, line 2: nc3 must be a number, got None"):
        run.history("nc3")


def test_one_example_of_each_class_has_no_variability(tmp_path: Path) -> None:
    few = TrainingConfig(model="mlp", width=0.1, examples_per_class=1, epochs=1)
    with pytest.warns(UserWarning, match="nothing varies within classes and NC1 is 0 from the start; take more"):
        prepare(few, out=tmp_path / "run")


def test_a_folder_that_digits_did_not_read_does_not_stop_their_run(tmp_path: Path) -> None:
    """Older versions took it without a word."""
    run = Run.create(tmp_path / "run", run_config(dataset="digits", data_dir="/gone"))
    assert resumed(run, TrainingConfig()).data_dir is None


def test_a_spectrum_may_lose_directions(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", run_config())
    spectra = [[3.0, 2.0, 1.0], [3.0], []]
    for epoch, snr in enumerate(spectra, start=1):
        append_line(run.history_path, record(epoch, snr=snr))
    assert [line["snr"] for line in run.history()] == spectra


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 0}, "line 1: epoch must be at least 1, got 0"),
        ({"num_classes": "10"}, "line 1: num_classes must be a valid integer, got '10'"),
        ({"nc1": None}, "line 1: nc1 must be a valid number, got None"),
        ({"train_error": True}, "line 1: train_error must be a valid number, got True"),
        ({"snr": 3.0}, "line 1: snr must be a valid list, got 3.0"),
        ({"nc3": 10**400}, "line 1: nc3 must be a number"),
    ],
)
def test_a_damaged_history_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    run = Run.create(tmp_path / "run", run_config())
    append_line(run.history_path, {**record(1), **changes})
    with pytest.raises(InputError, match=message):
        run.history()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"epoch": -1}', "epoch must .*got -1"),
        ('{"seconds": "x"}', "seconds must .*got 'x'"),
        ("{", "status.json .*JSON"),
    ],
)
def test_a_damaged_status_is_named_with_a_way_out(tmp_path: Path, content: str, message: str) -> None:
    run = Run.create(tmp_path / "run", run_config())
    (run.path / "status.json").write_text(content)
    with pytest.raises(InputError, match=f"{message}.*; delete the file to continue without it"):
        run.status()


def test_a_damaged_environment_is_named_with_a_way_out(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", run_config())
    run.record_environment({"python": "3.11"})
    run.record_environment({"python": "3.12"})
    assert json.loads((run.path / "environment.json").read_text())["resumed"] == [{"python": "3.12"}]
    (run.path / "environment.json").write_text("{")
    with pytest.raises(InputError, match=r"environment\.json .*; delete the file to continue without it"):
        run.record_environment({})


@pytest.mark.skipif(not RESULTS, reason="the results are not in this copy")
@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_the_run_directories_of_the_results_read(path: Path) -> None:
    """Made by earlier versions, the first of which knew neither options nor fingerprints."""
    run = Run.open(path)
    history = run.history("mse.total", "mse.ls_perp", "nc3", "test_accuracy")
    assert history[-1]["epoch"] == run.config.epochs == run.status().epoch
    assert run.status().status == "finished"
    for epoch in (min(run.snapshots()), max(run.snapshots())) if run.snapshots() else ():
        assert run.snapshot(epoch)["class_means"].shape[0] == run.config.num_classes


@pytest.mark.parametrize(
    ("dataset", "place", "name"),
    [
        ("folder", ".", "birds.v2"),
        ("folder", "inside/..", "birds.v2"),
        ("folder", "birds.tar.gz", "birds"),
        ("folder", "a.target.v2", "a.target.v2"),
        ("npz", "quarters.v1.npz", "quarters.v1"),
        ("folder", "/", "folder"),
    ],
)
def test_runs_on_own_data_have_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str, place: str, name: str
) -> None:
    (tmp_path / "birds.v2").mkdir()
    monkeypatch.chdir(tmp_path / "birds.v2")
    assert base_name(dataset, Path(place), "timm:a/b", "mse") == f"{name}-timm-a-b-mse"


def test_the_name_of_a_run_tells_every_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs that differ in an option do not meet in one directory."""
    monkeypatch.chdir(tmp_path)
    usual = {"dataset": "digits", "model": "mlp", "examples_per_class": 2}
    options = [
        {"batch_size": 32}, {"momentum": 0.5}, {"milestones": (0.5, 0.75)}, {"milestones": ()}, {"precision": "64"},
        {"devices": 2}, {"robustness_examples": 3}, {"weight_decay": 0.0}, {},
    ]  # fmt: skip
    paths = [prepare(TrainingConfig(**{**usual, **option}))[0].path for option in options]
    assert len(set(paths)) == len(options)
    assert paths[2].name == "digits-mlp-mse-n2-at0.5+0.75"
    assert prepare(TrainingConfig(**usual, precision="auto", device="auto"))[0].path == paths[-1]
