"""What a storm does to a run: signals, small disks, sizes out of range. Nothing is lost, and one line says why.

NEURALCOLLAPSE_STORM, 1 by default, is how many times as long the random parts go on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from helpers.grids import start, wait_for
from safetensors.numpy import load_file

from neuralcollapse import InputError, figures
from neuralcollapse.cli import main
from neuralcollapse.study.task import read_ending
from neuralcollapse.training import checkpoint, hardware
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import prepare
from neuralcollapse.training.run_directory import Run, Status
from neuralcollapse.training.trainer import train

BUDGET = int(os.environ.get("NEURALCOLLAPSE_STORM", "1"))
TINY: dict[str, Any] = {"model": "mlp", "width": 0.0625, "examples_per_class": 5, "epochs": 3, "precision": "32"}
LONG = ("--model", "mlp", "--width", "0.0625", "--examples-per-class", "20", "--epochs", "100000", "--precision", "32")


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a run directory but its lock."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "run"
    assert train(*prepare(TrainingConfig(**TINY), out=path)) == "finished"
    return path


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "run"))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and the last line on standard error."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code, (capsys.readouterr().err.strip().splitlines() or [""])[-1]  # type: ignore[return-value]


@pytest.mark.parametrize("way", ["resume", "out"])
def test_finished_work_without_a_checkpoint_is_not_touched(
    run: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the committed results are: a history, snapshots, no checkpoint."""
    (run / "checkpoint.pt").unlink()
    before = files(run)
    options = [text for name, value in TINY.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    code, line = said(capsys, "run", f"--{way}", str(run), *(options if way == "out" else ()))
    assert code == 2 and "is finished work" in line and "another --out" in line
    assert files(run) == before
    _, data = prepare(TrainingConfig(**TINY), out=run.parent / "other")
    with pytest.raises(InputError, match="is finished work"):  # the checkpoint goes between the plan and the start
        train(Run.open(run), data)
    assert files(run) == before


def test_other_data_of_the_same_shape_are_refused(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = {name: generator.integers(0, 256, (30, 8, 8, 1), dtype=np.uint8) for name in ("train", "test")}
    labels = np.arange(30) % 3

    def write(folder: str, **changes: Any) -> Path:
        path = tmp_path / folder / "data.npz"
        path.parent.mkdir()
        arrays = {"train_images": images["train"], "train_labels": labels, "test_images": images["test"]}
        np.savez(path, **{**arrays, "test_labels": labels, **changes})
        return path

    settings = {"dataset": "npz", "model": "mlp", "width": 0.0625, "epochs": 2, "precision": "32"}
    out = tmp_path / "run"
    assert train(*prepare(TrainingConfig(**settings, data_dir=write("a")), out=out)) == "finished"
    before = files(out)
    moved = write("b").rename(tmp_path / "b" / "under another name.npz")
    prepare(TrainingConfig(data_dir=moved), resume=out)  # the same data
    assert files(out) == before
    pixel = images["train"].copy()
    pixel[7, 3, 3] ^= 1
    others = {
        "pixel": {"train_images": pixel},
        "label": {"train_labels": np.roll(labels, 1)},
        "test": {"test_images": images["test"][::-1]},
    }
    for name, changes in others.items():
        with pytest.raises(InputError, match=r"begun with other data .*--data-dir, or start another run"):
            prepare(TrainingConfig(data_dir=write(name, **changes)), resume=out)
    prepare(TrainingConfig(data_dir=write("moved")), resume=out)
    assert files(out) == before


def test_a_wrong_checkpoint_is_named_and_nothing_is_lost(run: Path, tmp_path: Path) -> None:
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    other = tmp_path / "wider"
    train(*prepare(TrainingConfig(**{**TINY, "width": 0.125}), out=other))
    momenta = {key: value["momentum_buffer"][..., :1] for key, value in state["optimizer"]["state"].items()}
    momentum = {key: {"momentum_buffer": value} for key, value in momenta.items()}
    wrong: list[tuple[Any, str]] = [
        ({"a": torch.zeros(1)}, "it has no 'progress'"),
        (torch.zeros(3), "is not of this run"),
        ([], "is not of this run"),
        (torch.load(other / "checkpoint.pt", weights_only=True), "size mismatch"),
        ({**state, "progress": {"epoch": "3"}}, "progress: epoch"),
        ({**state, "history_bytes": -1}, "length of the history"),
        ({**state, "history_bytes": True}, "length of the history"),
        ({**state, "random_states": []}, "is not of this run"),
        ({**state, "random_states": [{"cpu": torch.zeros(3)}]}, "is not of this run"),
        ({**state, "random_states": state["random_states"] * 2}, "random states"),
        ({**state, "optimizer": {}}, "is not of this run"),
        (
            {
                **state,
                "optimizer": {**state["optimizer"], "state": momentum},
            },
            "momentum_buffer of shape",
        ),
        ({**state, "history_bytes": state["history_bytes"] - 1}, "no line of .* ends at"),
        ({**state, "history_bytes": 0, "progress": {**state["progress"], "epoch": 0}}, "several measured epochs"),
    ]
    for content, message in wrong:
        torch.save(content, run / "checkpoint.pt")
        before = {name: content for name, content in files(run).items() if name != "environment.json"}
        with pytest.raises(InputError, match=message) as caught:
            train(*prepare(TrainingConfig(), resume=run))
        assert len(str(caught.value)) < 500
        after = {name: content for name, content in files(run).items() if name != "environment.json"}
        assert after == before, message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": "10"}, "epochs must be a valid integer, got '10'"),
        ({"milestones": [None]}, "milestones.0 must be a valid number, got None"),
        ({"precision": "16"}, "precision must be '32', '64' or 'bf16', got '16'"),
        ({"device": "cpux"}, "device must be 'cpu' or 'cuda', got 'cpux'"),
        ({"loss": "x" * 100_000}, "loss must have at most 300 characters, got 'xxx"),
        ({"model": "x" * 4000}, "model must have at most 300 characters, got 'xxx"),
        ({"seed": 10**400}, "seed must be less than 9223372036854775808, got 1000"),
        ({"batch_size": -1}, "batch_size must be at least 1, got -1"),
        ({"learning_rate": None}, "learning_rate must be a valid number, got None"),
        ({"width": [1.0]}, r"width must be a valid number, got \[1.0\]"),
        ({"data_dir": 3}, "data_dir must be a valid string, got 3"),
        ({"optimizer": "lion"}, "optimizer must be 'sgd', .* or 'lbfgs', got 'lion'"),
    ],
)
def test_a_configuration_is_checked_before_a_run_goes_on(run: Path, changes: dict[str, Any], message: str) -> None:
    path = run / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    before = files(run)
    with pytest.raises(InputError, match=message) as caught:
        prepare(TrainingConfig(), resume=run)
    assert len(str(caught.value)) < 1000 and files(run) == before


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("features", lambda a: a.reshape(-1), "expected class means and weight"),
        ("features", lambda a: a * np.nan, "expected finite numbers"),
        ("labels", lambda a: a[:3], "expected class means and weight"),
        ("labels", lambda a: a + 10, "expected integer labels"),
        ("labels", lambda a: a * 1.0, "expected integer labels"),
        ("labels", lambda a: -a, "expected integer labels"),
        ("class_means", lambda a: a * np.nan, "expected finite numbers"),
        ("class_means", lambda a: a[:0], "expected class means and weight"),
        ("weight", lambda a: a[:, :2], "expected class means and weight"),
        ("weight", lambda a: a.astype(str), "expected finite numbers"),
    ],
)
def test_a_snapshot_no_run_can_have(run: Path, name: str, change: Any, message: str) -> None:
    path = run / "snapshots" / "epoch_0003.npz"
    arrays = dict(np.load(path))
    np.savez_compressed(path, **{**arrays, name: change(arrays[name])})
    shutil.copy(path, run / "snapshots" / "epoch_0001 (copy).npz")
    with pytest.raises(InputError, match=rf"epoch_0003\.npz is not a readable snapshot: {message}"):
        figures.draw(run)


@pytest.mark.parametrize("size", [0, 50, 400, 2_000, 8_000, 20_000, 45_000])
def test_a_disk_that_gets_full(tmp_path: Path, size: int) -> None:
    """No file may grow beyond so many bytes: one sentence names the file, and the run goes on later."""
    out = tmp_path / "run"
    child = os.fork()
    if not child:
        code = 9
        try:
            run, data = prepare(TrainingConfig(**TINY), out=out)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            try:
                code = 0 if train(run, data) == "finished" else 8
            except InputError as error:
                code = 2 if str(error).startswith(f"cannot write {out}") and "File too large" in str(error) else 7
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 2) and (code == 2 or size > 20_000)
    assert not list(out.rglob("*tmp*"))
    run = Run.open(out)
    if code == 2 and size >= 400 and run.status().status:
        assert run.status().status == "failed" and "cannot write" in run.status().error
    for record in run.history():
        assert record["num_classes"] == 10
    assert train(*prepare(TrainingConfig(**TINY), out=out)) == "finished"
    assert [record["epoch"] for record in run.history()] == [1, 2, 3]


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("ended_by", ["interrupt", "error", "kill"])
def test_an_ending_between_checkpoint_and_status(tmp_path: Path, ended_by: str, first: int) -> None:
    """The status takes its epoch from the checkpoint, which is there before it."""
    run, data = prepare(TrainingConfig(**TINY), out=tmp_path / "run")
    write_status = Run.write_status

    def ends(self: Run, status: Status) -> None:
        if (status.status, status.epoch) != ("running", first):
            write_status(self, status)
        elif ended_by == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif ended_by == "error":
            raise RuntimeError("no")
        else:
            raise KeyboardInterrupt

    child = os.fork()
    if not child:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Run, "write_status", ends)
            with contextlib.suppress(RuntimeError):
                train(run, data)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended_by == "kill":
        assert read_ending(run.path, code).why.startswith("killed by SIGKILL")
    status, state = run.status(), checkpoint.read(run)
    assert status.status == ("interrupted" if ended_by == "interrupt" else "failed")
    assert state is not None and status.epoch == state["progress"]["epoch"] == first
    assert status.seconds == state["progress"]["seconds"] > 0 and status.epochs == 3
    assert train(*prepare(TrainingConfig(), resume=run.path)) == "finished"


@pytest.mark.parametrize("content", ["none", "bytes", "list", "epoch"])
def test_an_ending_beside_a_damaged_checkpoint_keeps_the_status(run: Path, content: str) -> None:
    """What the checkpoint cannot say stays as it was, and no error hides the one that is noted."""
    path = run / "checkpoint.pt"
    if content == "none":
        path.unlink()
    elif content == "bytes":
        path.write_bytes(b"no")
    else:
        torch.save([] if content == "list" else {"progress": {"epoch": "3"}}, path)
    checkpoint.note_ending(Run.open(run), "failed", "so\nit is")
    status = Run.open(run).status()
    assert (status.status, status.epoch, status.error) == ("failed", 3, "so it is")


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what a process reads")
def test_an_ending_is_noted_without_reading_the_weights(run: Path) -> None:
    state = {"progress": {"epoch": 2, "seconds": 1.0}, "model": {"weight": torch.zeros(1 << 22)}}
    torch.save(state, run / "checkpoint.pt")

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = bytes_read()
    checkpoint.note_ending(Run.open(run), "interrupted")
    assert bytes_read() - before < 1 << 20 < (run / "checkpoint.pt").stat().st_size
    assert Run.open(run).status().epoch == 2


@pytest.mark.parametrize("who", ["child", "parent", "lead"])
def test_two_processes_that_are_stopped(tmp_path: Path, who: str) -> None:
    """A killed child is said in one line; an interrupt of the parent alone, or of one child, ends them all."""
    out = tmp_path / "run"
    process = start("run", *LONG, "--batch-size", "64", "--devices", "2", "--out", str(out))

    def trains() -> bool:
        return (out / "status.json").exists() and Run.open(out).status().epoch >= 1

    wait_for(trains, process)
    parent = psutil.Process(process.pid)
    children = [child for child in parent.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]
    assert len(children) == 2
    if who == "child":
        children[1].kill()
    elif who == "parent":
        process.send_signal(signal.SIGINT)
    else:
        children[0].send_signal(signal.SIGINT)
    _, problems = process.communicate(timeout=90)
    assert not any(child.is_running() for child in children)
    status = Run.open(out).status()
    assert status.epoch >= 1 and "Traceback" not in problems
    if who == "child":
        assert process.returncode == 2 and status.status == "failed"
        assert "was ended by SIGKILL" in problems.strip().splitlines()[-1]
    else:
        assert (process.returncode, status.status) == (130, "interrupted")
    assert not Run.open(out).is_locked()


def end(process: subprocess.Popen[str]) -> None:
    _, problems = process.communicate(timeout=120)
    assert process.returncode == 0, problems


def saved(path: Path) -> dict[str, bytes]:
    """The arrays of a file of moments; the order of the words about them changes from process to process."""
    return {name: value.tobytes() for name, value in load_file(path).items()}


def test_kills_of_measure_save(tmp_path: Path) -> None:
    """At random moments: what was saved before stays whole, and of what was half written nothing is left in the end."""
    features, moments = tmp_path / "features.npz", tmp_path / "saved.safetensors"
    generator = np.random.default_rng(0)
    np.savez(features, features=generator.normal(size=(2000, 300)), labels=np.arange(2000) % 10)
    command = ("measure", str(features), "--classes", "10", "--save", str(moments))
    begun = time.monotonic()
    end(start(*command))
    duration, whole = time.monotonic() - begun, saved(moments)
    moment = random.Random(0)
    for _ in range(3 * BUDGET):
        process = start(*command)
        time.sleep(moment.uniform(0.6, 1.0) * duration)
        process.kill()
        process.communicate()
        assert saved(moments) == whole
    end(start(*command))
    assert saved(moments) == whole and sorted(os.listdir(tmp_path)) == ["features.npz", "saved.safetensors"]


OUT_OF_RANGE = [
    (("--width", "1e6"), "a network of .* parameters takes .* GiB"),
    (("--width", "1e300"), "of width 1e\\+300 cannot be built"),
    (("--width", "1e9", "--model", "densenet40"), "of width 1e\\+09 cannot be built"),
    (("--width", "nan"), "--width must be a finite number, got nan"),
    (("--learning-rate", "inf"), "--learning-rate must be a finite number, got inf"),
    (("--learning-rate", "-1"), "--learning-rate must be greater than 0, got -1"),
    (("--epochs", "9" * 20), "--epochs must be at most 1000000000, got 9999"),
    (("--epochs", "9" * 400), "--epochs must be at most 1000000000, got 999.* … 999"),
    (("--batch-size", "0"), "--batch-size must be at least 1"),
    (("--batch-size", "1"), "expected batches of at least 2 examples"),
    (("--examples-per-class", "9" * 30), "--examples-per-class must be"),
    (("--seed", "-1"), "--seed must be at least 0"),
    (("--seed", str(2**63)), "--seed must be less than 9223372036854775808"),
    (("--devices", "9" * 9), "a batch of 50 examples is left for"),
    (("--momentum", "nan"), "--momentum must be a finite number"),
    (("--weight-decay", "inf"), "--weight-decay must be a finite number"),
    (("--milestones", "nan"), "--milestones must be a finite number"),
    (("--rescale", "nan", "--loss", "rescaled-mse"), "--rescale must be a finite number"),
    (("--label-noise", "nan"), "--label-noise must be a finite number"),
]
TOO_LARGE = [
    ("--learning-rate", "1e300"),
    ("--learning-rate", "1e300", "--optimizer", "adam"),
    ("--learning-rate", "1e300", "--optimizer", "sgdw"),
    ("--learning-rate", "1e30", "--precision", "64"),
    ("--learning-rate", "1e20", "--precision", "64"),
    ("--learning-rate", "1e300", "--optimizer", "lbfgs"),
    ("--weight-decay", "1e300"),
    ("--temperature", "1e-300", "--head", "normalised"),
    ("--target", "1e300", "--loss", "rescaled-mse"),
]
SMALL = ("run", "--model", "mlp", "--width", "0.125", "--epochs", "2", "--examples-per-class", "5", "--precision", "32")


@pytest.mark.parametrize(("options", "message"), OUT_OF_RANGE, ids=[" ".join(o)[:40] for o, _ in OUT_OF_RANGE])
def test_what_is_out_of_range_is_said_in_one_line(
    tmp_path: Path, options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = said(capsys, *SMALL, *options, "--out", str(tmp_path / "run"))
    assert code == 2 and len(line) < 400
    assert re.search(message, line), line
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")  # on its way to infinity a network may be degenerate
@pytest.mark.parametrize("options", TOO_LARGE, ids=[" ".join(options)[:40] for options in TOO_LARGE])
def test_what_is_too_large_diverges(
    tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = said(capsys, *SMALL, *options, "--out", str(tmp_path / "run"))
    assert code == 1 and "diverged: the loss is no longer finite" in line
    assert Run.open(tmp_path / "run").status().status == "diverged"


def test_what_does_not_fit_into_memory_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "machine_memory", lambda: 1000)
    code, line = said(capsys, *SMALL, "--out", str(tmp_path / "run"))
    assert code == 2 and "take a smaller --width" in line and not (tmp_path / "run").exists()
    monkeypatch.undo()

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr("neuralcollapse.training.trainer.train_epoch", full)
    code, line = said(capsys, *SMALL, "--out", str(tmp_path / "run"))
    assert code == 2 and line.endswith("needs more memory than there is; take a smaller --width or --batch-size")
    assert Run.open(tmp_path / "run").status().status == "failed"


def test_training_leaves_the_process_as_it_was(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a first run, whose imports set variables of their own."""
    assert base.exists()
    monkeypatch.setattr(hardware, "keep_memory", lambda: pytest.fail("that belongs to the command line's processes"))
    logger = logging.getLogger("lightning_fabric")
    for port in (None, "12345"):
        if port is not None:
            monkeypatch.setenv("MASTER_PORT", port)
        torch.manual_seed(3)
        before = dict(os.environ), torch.get_rng_state(), torch.get_num_threads(), logger.level
        numpy_before = np.random.get_state()[1].tolist()  # type: ignore[union-attr]
        assert train(*prepare(TrainingConfig(**TINY), out=tmp_path / f"run-{port}")) == "finished"
        after = dict(os.environ), torch.get_rng_state(), torch.get_num_threads(), logger.level
        assert torch.equal(before[1], after[1])
        assert dict(before[0].items() ^ after[0].items()) == {}
        assert before[2:] == after[2:]
        assert np.random.get_state()[1].tolist() == numpy_before  # type: ignore[union-attr]
