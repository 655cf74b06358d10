"""Which directories in a folder are the runs of one study: those that `study.json` lists, or those directly in it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from helpers.studies import config, history, write_run

from neuralcollapse import InputError
from neuralcollapse.measuring.run_readers import read_runs
from neuralcollapse.study.study_file import add_to_study


def begin(path: Path, seed: int = 0) -> Path:
    """A run of one measured epoch."""
    return write_run(path, config(seed=seed), history({1: 0.5}, None))


def runs_of_study(folder: Path) -> list[Path]:
    """The folders of the runs that are read of a study."""
    return [run.path for run in read_runs(folder) if run.path is not None]


def test_runs_that_a_grid_has_set_aside_are_passed_over(tmp_path: Path) -> None:
    grid = tmp_path / ".hidden" / "grid"  # that the folder itself lies in a hidden one does not matter
    run = begin(grid / "mnist-vgg11-mse")
    begin(grid / ".earlier" / "mnist-vgg11-mse-1")
    assert runs_of_study(grid) == [run]


def test_other_programs_folders_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(InputError, match="no folder in it does"):
        runs_of_study(tmp_path)
    run = begin(tmp_path / "run")
    (run / "figures").mkdir()
    assert runs_of_study(tmp_path) == [run]


@pytest.mark.parametrize("content", ["[1]", "{", "\x00"])
def test_a_foreign_configuration_is_passed_over_and_a_damaged_one_named(tmp_path: Path, content: str) -> None:
    run = begin(tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(content)
    assert runs_of_study(tmp_path) == [run]
    (run / "config.json").write_text(content)  # its history shows that it was a run
    with pytest.raises(InputError, match=r"run.config\.json"):
        runs_of_study(tmp_path)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["a", "b", "study/c", "study/d"], r"holds 2 runs \(a, b\) and a folder of runs \(study\)"),
        (["study/c", "other/d"], r"holds folders of runs \(other, study\)"),
        (["x", *(f"y{number}/z" for number in range(12))], r"y0, y1, y10, y11, y2, y3, y4, y5, … 4 more"),
    ],
)
def test_runs_on_two_levels_are_no_study_until_they_are_listed(tmp_path: Path, runs: list[str], message: str) -> None:
    """As in `results/`: single runs beside a whole study."""
    for seed, name in enumerate(runs):
        begin(tmp_path / name, seed)
    with pytest.raises(InputError, match=f"{message}.*; name the folders to read, such as"):
        runs_of_study(tmp_path)
    add_to_study(tmp_path, [*runs[-1:], "absent/e"])
    with pytest.warns(UserWarning, match="does not list") if "/" not in runs[0] else nullcontext():
        assert runs_of_study(tmp_path) == [tmp_path / runs[-1]]


def test_a_study_knows_its_runs(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b", "stranger")):
        begin(tmp_path / name, seed)
    add_to_study(tmp_path, ["a"])
    add_to_study(tmp_path, ["b", "a"])
    assert json.loads((tmp_path / "study.json").read_text()) == {"runs": ["a", "b"]}
    with pytest.warns(UserWarning, match=r"study\.json does not list stranger; they are left out"):
        assert [path.name for path in runs_of_study(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a JSON file"),
        ('{"runs": "a"}', "expected .* got 'a'"),
        ('{"runs": [1]}', r"got \[1\]"),
        ("{}", "got None"),
        ('{"runs": ["../other"]}', "expected paths within"),
        ('{"runs": ["/etc"]}', "expected paths within"),
        ('{"runs": ["a\\u0000b"]}', "expected paths within"),
        ('{"runs": ["b"]}', "none of the 1 runs that .* lists has begun yet"),
    ],
)
def test_a_damaged_list_of_runs(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(InputError, match=message):
        runs_of_study(tmp_path)
