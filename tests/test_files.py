"""The one writer of files: whole or not at all, by several processes at once, on a full disk, and after a kill."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import matplotlib.figure
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import neuralcollapse as nc
from neuralcollapse import InputError
from neuralcollapse._files import (
    append_line,
    lock,
    locked,
    read_json,
    read_lines,
    replacing,
    shortened,
    validated,
    write_json,
)
from neuralcollapse.moments.storage import write_state
from neuralcollapse.training import recipes
from neuralcollapse.training.run_directory import Run

VALUES = st.recursive(
    st.one_of(st.integers(-(2**53), 2**53), st.floats(), st.text(max_size=5), st.none(), st.booleans()),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


def write_picture(path: Path) -> None:
    """Matplotlib opens and writes the file itself, and replaces the error of a full disk by its own."""
    with replacing(path) as temporary:
        matplotlib.figure.Figure(figsize=(60, 60)).savefig(temporary, format="png")


def write(path: Path, content: Callable[[IO[bytes]], object]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        content(file)


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: write(path, lambda file: file.write(bytes(300_000))),
    "json": lambda path: write_json(path, {"text": "x" * 300_000}),
    "array": lambda path: write(path, lambda file: np.savez(file, a=np.zeros(300_000))),
    "checkpoint": lambda path: write(path, lambda file: torch.save({"a": torch.zeros(300_000)}, file)),
    "tensors": lambda path: write_state(path, {"a": torch.zeros(300_000)}, {}),
    "pixels": lambda path: write_picture(path),
}

EMPTY = ("pixels", 200_000)  # an empty picture is smaller than that


def in_child(work: Callable[[], object], *, file_size: int | None = None) -> int:
    """Do something in a forked process; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if not child:
        code = 9
        try:
            if file_size is not None:  # stands for a disk with so much room left
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@given(content=st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_json_comes_back_as_it_was_written(content: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    for _ in range(2):
        append_line(path, content)
    texts = ("inf", "-inf", "nan")  # stand for the numbers, so that a text of these letters does not come back

    def expected(value: object) -> object:
        if isinstance(value, list):
            return [expected(item) for item in value]
        return float(value) if value in texts else value  # type: ignore[arg-type]

    assert repr(read_lines(path)) == repr([{key: expected(value) for key, value in content.items()}] * 2)


def test_what_is_written_is_json_for_every_reader(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": math.inf, "b": [math.nan, {"c": (-math.inf, 1)}]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": "inf", "b": ["nan", {"c": ["-inf", 1]}]}
    assert read_json(tmp_path / "a.json")["a"] == "inf"


PROGRAM = """
import sys, pathlib
from neuralcollapse._files import replacing
path = pathlib.Path(sys.argv[1])
for turn in range(60):
    with replacing(path) as temporary:
        with temporary.open("w") as file:
            for _ in range(200):
                file.write(sys.argv[2] * 1000)
"""


def test_processes_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    processes = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), letter], env={**os.environ, "PYTHONPATH": paths})
        for letter in "abc"
    ]
    seen = set()
    while any(process.poll() is None for process in processes):
        if path.exists():
            content = path.read_text()
            assert len(content) == 200_000 and len(set(content)) == 1
            seen.add(content[0])
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert os.listdir(tmp_path) == ["status.json"] and len(seen) > 1


def test_threads_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    problems: list[Exception] = []

    def write(number: int) -> None:
        try:
            for _ in range(20):
                write_json(tmp_path / "a.json", {"number": number})
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems and os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("name", ["bytes", "json", "array", "checkpoint", "tensors"])
def test_a_killed_writer_leaves_the_earlier_file_and_its_rest_is_removed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file.x"
    path.write_bytes(b"earlier")

    def killed() -> None:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        WRITERS[name](path)

    for _ in range(3):
        assert in_child(killed) == -signal.SIGKILL
        assert path.read_bytes() == b"earlier" and len(os.listdir(tmp_path)) == 2  # the rest of the one before is gone
    WRITERS[name](path)
    assert os.listdir(tmp_path) == ["file.x"] and path.stat().st_size >= 300_000


def test_what_another_writer_is_at_work_on_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with replacing(path) as mine:
        mine.write_text("mine")
        write_json(path, {"a": 1})
        assert mine.exists() and read_json(path) == {"a": 1}
    assert path.read_text() == "mine" and os.listdir(tmp_path) == ["a.json"]


def test_a_file_of_another_name_is_no_rest(tmp_path: Path) -> None:
    others = [".a.json.notes", ".a.json.tmp", ".b.json.0123.tmp.json", "a.json.tmp.json"]
    for name in others:
        (tmp_path / name).touch()
    write_json(tmp_path / "a.json", {})
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "a.json"])


@pytest.mark.parametrize(
    ("name", "size"), [(name, size) for name in WRITERS for size in (0, 100, 5_000, 200_000) if (name, size) != EMPTY]
)
def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path: Path, name: str, size: int) -> None:
    path = tmp_path / "file.x"
    path.write_bytes(b"earlier")
    before = sorted(os.listdir(tmp_path))

    def full() -> None:
        with pytest.raises(InputError, match=r"^cannot write \S*file\.x: .*(File too large|os error 27)"):
            WRITERS[name](path)

    assert in_child(full, file_size=size) == 0
    assert sorted(os.listdir(tmp_path)) == before and path.read_bytes() == b"earlier"


def test_a_line_is_added_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    append_line(path, {"epoch": 1, "text": "x" * 1000})
    size = path.stat().st_size

    def full() -> None:
        with pytest.raises(InputError, match=r"cannot write .*history\.jsonl: File too large"):
            append_line(path, {"epoch": 2, "text": "x" * 1000})

    for room in (size, size + 1, size + 999):
        assert in_child(full, file_size=room) == 0
        assert path.stat().st_size == size
    append_line(path, {"epoch": 3})
    assert [line["epoch"] for line in read_lines(path)] == [1, 3]


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (b'{"epoch": 2, "los', [1, 3]),
        (b'{"epoch": 2}', [1, 2, 3]),
        (b'{"epoch": 2, "text": "' + b"x" * 200_000, [1, 3]),
        (b"[" * 100_000, [1, 3]),
        (b"7", [1, 3]),
    ],
)
def test_a_last_line_without_its_end_is_not_glued_to_the_next(tmp_path: Path, rest: bytes, expected: list) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"epoch": 1}\n' + rest)
    append_line(path, {"epoch": 3})
    assert [line["epoch"] for line in read_lines(path)] == expected


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path, why in (
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "folder", "it is a folder"),
        (Path("/dev/null"), "not a regular file"),
        (tmp_path / "absent" / "a.json", "No such file or directory"),
        (tmp_path / ("a" * 300), "File name too long"),
    ):
        with pytest.raises(InputError, match=f"cannot write .*: .*{why}"):
            write_json(path, {})
    with pytest.raises(InputError, match=r"cannot write .*absent/history\.jsonl: No such file"):
        append_line(tmp_path / "absent" / "history.jsonl", {})
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "a.json").symlink_to(tmp_path / "real" / "b.json")
    write_json(tmp_path / "a.json", {"a": 1})
    assert (tmp_path / "a.json").is_symlink() and read_json(tmp_path / "real" / "b.json") == {"a": 1}


def test_an_error_of_the_writer_is_its_own(tmp_path: Path) -> None:
    """One that came before, or is no matter of the disk, is not taken for a full disk."""
    for handled in (OSError("earlier"), KeyboardInterrupt()):
        try:
            raise handled
        except BaseException:
            with pytest.raises(KeyError), replacing(tmp_path / "a.json"):
                raise KeyError("ours")  # noqa: B904
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.json"):
        raise KeyboardInterrupt
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("path", ["absent/m.safetensors", "folder"])
def test_moments_that_cannot_be_saved(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    moments = nc.ClassMoments(3)
    moments.update(torch.randn(30, 4), torch.arange(30) % 3)
    with pytest.raises(InputError, match="folder"):
        moments.save(tmp_path / path)


def test_a_snapshot_on_a_full_disk(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.save_snapshot(1, features=np.random.default_rng(0).normal(size=1000))

    def full() -> None:
        with pytest.raises(InputError, match=r"cannot write .*epoch_0002\.npz"):
            run.save_snapshot(2, features=np.random.default_rng(0).normal(size=1000))

    assert in_child(full, file_size=1000) == 0
    assert [path.name for path in (run.path / "snapshots").iterdir()] == ["epoch_0001.npz"]


def test_a_lock_keeps_other_processes_out_until_its_holder_ends(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):

        def taken(path: Path = path) -> None:
            with pytest.raises(BlockingIOError), locked(path, wait=False):
                pass

        with locked(path):
            assert in_child(taken) == 0
        with locked(path, wait=False):
            pass

        def killed(path: Path = path) -> None:
            with locked(path):
                os.kill(os.getpid(), signal.SIGKILL)

        assert in_child(killed) == -signal.SIGKILL
        with locked(path, wait=False):
            pass


def test_a_shared_lock_keeps_out_only_those_that_do_not_share(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (tmp_path / "file").open() as first, (tmp_path / "file").open() as second:
        assert lock(first, shared=True) and lock(second, shared=True, wait=False)
        with pytest.raises(BlockingIOError):
            lock(second, wait=False)
        first.close()
        assert lock(second, wait=False)


@dataclass(frozen=True)
class Entry:
    name: str
    rate: float = 0.1


def test_content_is_checked_by_its_type() -> None:
    """Texts stand for non-finite numbers where a number is expected, and for themselves where a text is."""
    assert validated(Entry, {"name": "nan", "rate": "inf"}, "x.json") == Entry("nan", math.inf)
    assert validated(list[Entry], b'[{"name": "a"}]', "x.json") == [Entry("a")]
    for kind, content, message in (
        (Entry, {"name": "a", "rate": "much"}, r"^x\.json: rate must be a valid number, .*, got 'much'$"),
        (list[Entry], [{"name": "a"}, {"name": 3}], r"^x\.json: 1\.name must be a valid string, got 3$"),
        (Entry, {}, r"^x\.json has no 'name'$"),
        (Entry, b"{", r"x\.json: "),
        (Entry, b"[" * 100_000, r"x\.json: "),
    ):
        with pytest.raises(InputError, match=message) as error:
            validated(kind, content, "x.json")  # type: ignore[arg-type]
        assert "\n" not in str(error.value)


def test_a_message_is_short() -> None:
    assert shortened(10**5000) == "a number of thousands of digits"
    assert shortened("x" * 500) == "x" * 60 + " … " + "x" * 17
    assert shortened(ValueError("first line\nsecond")) == "first line"
    assert shortened([1.5]) == "[1.5]"


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_a_device_that_never_ends_is_no_file_of_settings(tmp_path: Path, ending: str) -> None:
    if not Path("/dev/zero").exists():
        pytest.skip("this system has no /dev/zero")
    link = tmp_path / f"settings.{ending}"
    link.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"at most 256 MiB, got more from .*settings"):
        recipes.read(link)
