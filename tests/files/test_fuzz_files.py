"""No file, however damaged, gives anything but arrays that fit one another or one sentence; see `file_mutations`.

NEURALCOLLAPSE_FUZZ=50000 reads so many files instead of some hundred.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("resource")  # of Unix
pytest.importorskip("pyarrow")
pytest.importorskip("safetensors")

from helpers import file_mutations

BUDGET = int(os.environ.get("NEURALCOLLAPSE_FUZZ", "760"))
# Mutations that longer runs found something with.
KEPT = [
    ("npy labels", 11),  # a type's name with a line break in it
    ("parquet lists", 789),  # statistics that contradict the schema, at which Arrow ended the process
    ("parquet fixed", 1287),
    ("cifar python 2", 133),  # a name with escapes, of which Python warned
    ("cifar pickle 5", 1287),  # a name with a line break in it
    ("svhn packed", 561),
]


def faults_of(ranges: list[tuple[str, int, int]], folder: Path) -> list[dict[str, Any]]:
    """What a process says of these mutations; one that ends in the midst is a fault, and the next goes on behind it."""
    found: list[dict[str, Any]] = []
    progress = folder / "progress"
    environment = {name: value for name, value in os.environ.items() if name != "NEURALCOLLAPSE_DATA"}
    environment |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    while ranges:
        progress.unlink(missing_ok=True)
        command = [sys.executable, file_mutations.__file__, str(progress), json.dumps(ranges)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=folder)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        found += [line for line in lines if "fault" in line]
        if not done.returncode:
            break
        assert progress.is_file(), done.stderr
        name, number = json.loads(progress.read_text())
        if not found or (found[-1]["case"], found[-1]["number"]) != (name, number):
            found.append({"case": name, "number": number, "fault": f"exit {done.returncode}: {done.stderr[-300:]}"})
        place = next(index for index, each in enumerate(ranges) if each[0] == name and each[1] <= number < each[2])
        ranges = [(name, number + 1, ranges[place][2]), *ranges[place + 1 :]]
    return found


def test_every_file_is_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    each = -(-BUDGET // len(file_mutations.CASES))
    assert faults_of([(name, 0, each) for name in file_mutations.CASES], tmp_path) == []


def test_what_was_found_once_stays_mended(tmp_path: Path) -> None:
    assert faults_of([(name, number, number + 1) for name, number in KEPT], tmp_path) == []
