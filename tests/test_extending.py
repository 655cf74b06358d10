"""What CONTRIBUTING.md promises: each of its examples is all that a loss, an optimizer, … of one's own needs.

The examples are put where they say into a copy of the package, and used from there by the commands.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import neuralcollapse as nc

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(r"```python\n# (\S+), (.+)\n((?:.|\n)+?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
SMALL_RUN = ["--model", "mlp", "--width", "0.0625", "--epochs", "1", "--precision", "32", "--device", "cpu"]


def put(text: str, place: str, example: str) -> str:
    """A file with an example where it says: `at the end`, `before NAME` or `in NAME`, a table or a class."""
    if place == "at the end":
        return f"{text}\n\n{example}"
    position, name = place.split()
    (statement,) = (node for node in ast.parse(text).body if name in names_of(node))
    lines = text.splitlines(keepends=True)
    if position == "before":
        line = statement.lineno - 1
    else:
        line = last_entry(statement).end_lineno or 0
        example = example if isinstance(statement, ast.ClassDef) else example.rstrip(",\n") + ",\n"
        indent = lines[line - 1][: len(lines[line - 1]) - len(lines[line - 1].lstrip())]
        example = "".join(indent + each if each.strip() else each for each in example.splitlines(keepends=True))
    return "".join([*lines[:line], example, "\n\n" if position == "before" else "", *lines[line:]])


def names_of(node: ast.stmt) -> set[str]:
    """What a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def last_entry(statement: ast.stmt) -> ast.AST:
    """The last entry of a table, or the last line of a class."""
    if isinstance(statement, ast.ClassDef):
        return statement.body[-1]
    assert isinstance(statement, ast.Assign | ast.AnnAssign)
    table = statement.value
    if isinstance(table, ast.Call):
        table = table.args[-1]
    assert isinstance(table, ast.Dict)
    return table.values[-1]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package in which every example stands."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for file, place, example in EXAMPLES:
        path = root / file
        if place == "a new file":
            assert not path.exists()
            path.write_text(example, encoding="utf-8")
        else:
            path.write_text(put(path.read_text("utf-8"), place, example), encoding="utf-8")
    return root


def command(extended: Path, *arguments: str, expected: int = 0) -> str:
    """What `neuralcollapse ARGUMENTS` of the extended package prints, where no other data are found."""
    surroundings = {name: value for name, value in os.environ.items() if name != "NEURALCOLLAPSE_DATA"}
    done = subprocess.run(
        [sys.executable, "-m", "neuralcollapse", *arguments],
        cwd=extended,
        env={**surroundings, "HOME": str(extended), "PYTHONPATH": str(extended / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == expected, done.stderr
    return done.stdout + done.stderr


def test_there_is_an_example_of_everything_that_can_be_added() -> None:
    assert {(Path(file).name, place) for file, place, _ in EXAMPLES} >= {
        ("losses.py", "in LOSSES"),
        ("optimizers.py", "in OPTIMIZERS"),
        ("heads.py", "in HEADS"),
        ("registry.py", "in DATASETS"),
        ("registry.py", "in METRICS"),
        ("options.py", "in GridOptions"),
    }


@pytest.fixture(scope="module")
def run(extended: Path) -> tuple[Path, str]:
    """A run with a data set, a loss, an optimizer and a head of one's own, and what it printed."""
    labels = np.arange(40) % 2
    images = np.random.default_rng(0).integers(0, 60, (40, 8, 8)).astype(np.uint8)
    images[labels == 0, ::2] += 150
    images[labels == 1, :, ::2] += 150
    (extended / "data" / "stripes").mkdir(parents=True)
    halves = {f"{half}_images": images for half in ("train", "test")}
    halves |= {f"{half}_labels": labels for half in ("train", "test")}
    np.savez(extended / "data" / "stripes" / "stripes.npz", **halves)
    own = ["--dataset", "stripes", "--loss", "huber", "--optimizer", "rmsprop", "--head", "orthogonal"]
    out = extended / "run"
    return out, command(extended, "run", *own, *SMALL_RUN, "--learning-rate", "1e-9", "--out", str(out))


def test_a_loss(extended: Path, run: tuple[Path, str]) -> None:
    out, printed = run
    assert "Huber loss" in printed and "Huber loss" in (out / "figures" / "overview.txt").read_text("utf-8")
    assert json.loads((out / "config.json").read_text())["loss"] == "huber"
    assert "did you mean 'huber'" in command(extended, "run", "--loss", "hubber", expected=2)


def test_an_optimizer(extended: Path, run: tuple[Path, str]) -> None:
    out, printed = run
    assert "RMSprop" in printed and "RMSprop" in (out / "figures" / "overview.txt").read_text("utf-8")
    assert json.loads((out / "status.json").read_text())["status"] == "finished"
    assert "did you mean 'rmsprop'" in command(extended, "run", "--optimizer", "rmspropp", expected=2)


def test_a_head(extended: Path, run: tuple[Path, str]) -> None:
    out, printed = run
    assert "orthogonal start head" in printed
    with np.load(out / "snapshots" / "epoch_0001.npz") as snapshot:
        assert np.abs(snapshot["weight"] @ snapshot["weight"].T - np.eye(2)).max() < 1e-5
    assert "did you mean 'orthogonal'" in command(extended, "run", "--head", "ortogonal", expected=2)


def test_a_data_set(extended: Path, run: tuple[Path, str]) -> None:
    out, printed = run
    assert "Stripes: 40 training examples" in printed and "Stripes" in command(extended, "data")
    assert json.loads((out / "config.json").read_text())["class_names"] == ["lying", "standing"]
    assert "did you mean 'stripes'" in command(extended, "run", "--dataset", "stripe", expected=2)


def test_a_metric(extended: Path) -> None:
    means = nc.simplex_etf(5, 7).numpy()
    np.savez(extended / "layer.npz", features=means.repeat(3, axis=0), labels=np.arange(15) // 3, weight=means)
    report = json.loads(command(extended, "measure", "layer.npz", "--metrics", "flatness_means", "--json", "-"))
    assert report["flatness_means"] == pytest.approx(4)
    assert "flatness_means" in json.loads(command(extended, "measure", "layer.npz", "--metrics", "all", "--json", "-"))


def test_a_way_to_run_a_grid(extended: Path) -> None:
    cells = ["--datasets", "digits", "--models", "mlp", *SMALL_RUN[2:], "--examples-per-class", "10"]
    assert "--nice" in command(extended, "grid", "--help")
    command(extended, "grid", "--nice", *cells, "--out", "grid")
    assert json.loads((extended / "grid" / "digits-mlp-mse" / "status.json").read_text())["status"] == "finished"
    assert "exclude each other" in command(extended, "grid", "--nice", "--slurm", *cells, "--out", "grid", expected=2)
