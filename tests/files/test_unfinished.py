"""Measurements that are killed: they go on from what they kept, and no example counts twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.feature_tables import layer, npy, same_report

from neuralcollapse import ClassMoments, InputError, measure_features
from neuralcollapse.files import unfinished
from neuralcollapse.files.measure_files import measure_files
from neuralcollapse.files.options import FileOptions

pytest.importorskip("safetensors")

# `neuralcollapse measure` that keeps what it has after every block of a few rows
MEASURE = """
import sys, time
from neuralcollapse.cli import main
from neuralcollapse.files import features, passes, unfinished
features.BLOCK_BYTES = 7 * 6 * 8
unfinished.EVERY, unfinished._SHARE = 0.0, 0
main(sys.argv[1:])
"""


class Killed(BaseException):
    """What happens to a process in the middle of a measurement."""


@pytest.fixture
def every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralcollapse.files.features.BLOCK_BYTES", 7 * 6 * 8)
    monkeypatch.setattr(unfinished, "EVERY", 0.0)
    monkeypatch.setattr(unfinished, "_SHARE", 0)


def killed_after(path: Path, options: FileOptions, blocks: int) -> bool:
    """Whether a measurement, stopped after so many blocks more, was stopped before its end."""
    left = blocks

    def progress(share: float) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    try:
        measure_files(path, options, progress)
    except Killed:
        return True
    return False


@pytest.mark.usefixtures("every_block")
@pytest.mark.parametrize("changes", [{}, {"weighting": "class"}, {"min_count": 20}], ids=str)
@pytest.mark.parametrize("blocks", [1, 3, 13, 14])
def test_a_killed_measurement_goes_on(tmp_path: Path, blocks: int, changes: dict) -> None:
    """Fourteen blocks a pass; killed again and again until it is through, in both passes and between them."""
    path, options = npy(tmp_path, layer())
    options = replace(options, save=tmp_path / "all.safetensors", **changes)
    kills = 0
    while killed_after(path, options, blocks):
        kills += 1
        assert kills <= 28 // blocks
    assert kills
    # the last one was through: begin anew, be killed in the second pass, and finish
    assert not (tmp_path / "all.safetensors.unfinished").exists()
    assert killed_after(path, options, 20)
    saved = ClassMoments.load(tmp_path / "all.safetensors")
    outcome = measure_files(path, options)
    expected = measure_features(**layer(), **changes)
    assert saved.num_examples == expected.num_examples
    same_report(outcome.report, expected)
    assert {each.name for each in tmp_path.iterdir()} == {
        *(f"{name}.npy" for name in ("features", "labels", "weight", "bias")),
        "all.safetensors",
    }


@pytest.mark.usefixtures("every_block")
def test_a_killed_shard_goes_on_in_both_rounds(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer())
    shard = replace(options, shard="2/2", save=tmp_path / "part-2.safetensors")
    assert killed_after(path, shard, 3) and not shard.save.exists()
    measure_files(path, shard)
    first = replace(options, shard="1/2", save=tmp_path / "part-1.safetensors")
    measure_files(path, first)
    merged = tmp_path / "all.safetensors"
    measure_files(None, FileOptions(merge=(first.save, shard.save), save=merged))
    counts = []
    for number in (1, 2):
        counts.append(tmp_path / f"count-{number}.safetensors")
        count = replace(options, shard=f"{number}/2", moments=merged, save=counts[-1])
        assert killed_after(path, count, 2) and not counts[-1].exists()
        assert measure_files(path, count).report is None
    report = measure_files(None, replace(options, labels=None, merge=tuple(counts), moments=merged)).report
    same_report(report, measure_features(**layer()))
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.usefixtures("every_block")
def test_what_another_measurement_left_is_refused(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer())
    options = replace(options, save=tmp_path / "all.safetensors")
    assert killed_after(path, options, 3)
    left = tmp_path / "all.safetensors.unfinished"
    before = left.read_bytes()
    for changes, word in (
        ({"weighting": "class"}, "weighting"),
        ({"min_count": 2}, "min_count"),
        ({"shard": "1/2"}, "rows"),
        ({"weight": None, "bias": None, "classes": 5}, "classes"),
    ):
        with pytest.raises(InputError, match=rf"all\.safetensors\.unfinished .* other {word} .*delete the file"):
            measure_files(path, replace(options, **changes))
    np.save(tmp_path / "labels.npy", layer()["labels"][::-1])
    with pytest.raises(InputError, match="other labels"):
        measure_files(path, options)
    assert left.read_bytes() == before
    left.write_bytes(before[:-1])
    with pytest.raises(InputError, match=r"unfinished is not a safetensors file"):
        measure_files(path, options)


@pytest.mark.usefixtures("every_block")
def test_counts_of_another_classifier_are_refused(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer())
    options = replace(options, save=tmp_path / "all.safetensors")
    assert killed_after(path, options, 20)
    with pytest.raises(InputError, match="with another classifier"):
        measure_files(path, replace(options, bias=None))
    (tmp_path / "all.safetensors").unlink()  # the moments are made again, the counts are not
    same_report(measure_files(path, options).report, measure_features(**layer()))


def test_kill_9_at_any_moment_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """The command, killed by the system ever later, with whatever it was writing; then it is let through."""
    arrays = layer(examples=1500)
    path, _ = npy(tmp_path, arrays)
    command = [sys.executable, "-c", MEASURE, "measure", str(path), "--save", str(tmp_path / "all.safetensors")]
    command += [f"--{name}={tmp_path / name}.npy" for name in ("labels", "weight", "bias")]
    command += ["--json", str(tmp_path / "report.json")]
    random.seed(0)
    rows: list[int] = []
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        left = tmp_path / "all.safetensors.unfinished"
        seen = left.stat().st_mtime_ns if left.exists() else 0
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            if left.exists() and left.stat().st_mtime_ns != seen:  # it has begun to count
                time.sleep(random.random() * 0.4)
                break
            time.sleep(0.005)
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break
        with_rows = unfinished.read_shard(left).rows if left.exists() else ()
        rows.append(with_rows[0].stop if with_rows else 0)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert any(0 < row < 1500 for row in rows), rows  # some were killed in the middle
    found, expected = json.loads((tmp_path / "report.json").read_text()), measure_features(**arrays).to_dict()
    for name, value in expected.items():
        if isinstance(value, float):
            assert found[name] == pytest.approx(value, rel=1e-11, abs=1e-13), name
    assert found["num_examples"] == 1500
    assert not list(tmp_path.glob("*.unfinished")) and not list(tmp_path.glob(".*tmp*"))


def test_memory_is_that_of_the_moments_not_of_the_file(tmp_path: Path) -> None:
    """A file of 200 MB with a thousand classes: what grows is less than half of it, mapped pages included."""
    rng = np.random.default_rng(0)
    rows, dim, classes = 50_000, 1024, 1000
    features = np.lib.format.open_memmap(tmp_path / "features.npy", "w+", np.float32, (rows, dim))
    for start in range(0, rows, 5000):
        features[start : start + 5000] = rng.standard_normal((5000, dim), dtype=np.float32)
    features.flush()
    np.save(tmp_path / "labels.npy", np.arange(rows) % classes)
    script = """
import resource, sys
from pathlib import Path
import torch
from neuralcollapse.files.measure_files import measure_files
from neuralcollapse.files.options import FileOptions
folder = Path(sys.argv[1])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
torch.ones(64, 64) @ torch.ones(64, 64)
before = peak()
options = FileOptions(labels=folder / "labels.npy", classes=1000, save=folder / "all.safetensors")
measure_files(folder / "features.npy", options)
print(peak() - before)
"""
    grown = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True)
    assert int(grown.stdout) < 100e6
