"""`neuralcollapse compare` on files of features, saved reports and runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import neuralcollapse as nc
from neuralcollapse.cli import main


def features_file(path: Path, seed: int, spread: float = 1.0) -> Path:
    rng = np.random.default_rng(seed)
    labels = np.arange(90) % 3
    features = 3 * np.eye(3, 5)[labels] + spread * rng.normal(size=(90, 5))
    np.savez(path, features=features, labels=labels, weight=np.eye(3, 5), bias=np.zeros(3))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["compare", *map(str, arguments)])
    out, error = capsys.readouterr()
    return int(exit_.value.code or 0), out, error


def test_files_of_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command prints what nc.compare finds of the same arrays."""
    paths = [features_file(tmp_path / f"{name}.npz", seed, s) for name, seed, s in (("a", 0, 1.0), ("b", 1, 1.6))]
    code, out, error = run(capsys, *paths, "--resamples", 20)
    assert code == 0 and not error
    sides = []
    for path in paths:
        arrays = np.load(path)
        sides.append(tuple(torch.from_numpy(arrays[name]) for name in ("features", "labels", "weight", "bias")))
    assert out == f"{nc.compare(*sides, resamples=20)}\n"
    assert "nc1" in out and "Linear CKA" in out and max(map(len, out.splitlines())) <= 80


def test_the_damaged_one_of_two_files_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = features_file(tmp_path / "good.npz", 0), tmp_path / "bad.npz"
    arrays = dict(np.load(good))
    arrays["features"][41, 2] = np.inf
    np.savez(bad, **arrays)
    code, out, error = run(capsys, good, bad, "--resamples", 5)
    assert (code, out) == (2, "")
    assert error == f"neuralcollapse: {bad}: expected finite features, got NaN or infinity in row 41\n"


@pytest.mark.parametrize("label", [-1, 3])
def test_the_row_of_a_wrong_label_is_named_as_by_measure(
    label: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = features_file(tmp_path / "good.npz", 0), tmp_path / "bad.npz"
    arrays = dict(np.load(good))
    arrays["labels"][[41, 50]] = label
    np.savez(bad, **arrays)
    told = f"neuralcollapse: {bad}: expected labels in 0..2, got {label} in row 41\n"
    assert run(capsys, good, bad, "--resamples", 5) == (2, "", told)
    with pytest.raises(SystemExit):
        main(["measure", str(bad)])
    assert capsys.readouterr().err == told


def test_saved_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralcollapse.files.measure_files.RESAMPLES", 10)
    written = []
    for name, spread in (("a", 1.0), ("b", 2.0)):
        features = features_file(tmp_path / f"{name}.npz", 0, spread)
        written.append(tmp_path / f"{name}.json")
        with pytest.raises(SystemExit):
            main(["measure", str(features), "--confidence", "0.95", "--json", str(written[-1])])
    code, out, _ = run(capsys, *written, "--json", "-")
    found = json.loads(out)
    assert code == 0 and found["differences"]["nc1"]["differs"] is True
    assert found["method"].startswith("From the standard errors")


def test_runs_without_features_have_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"epoch": 1, "nc1": value}) + "\n")
    code, out, _ = run(capsys, tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert code == 0 and "No intervals: of 1 and 1 runs there is no spread" in out.replace("\n", " ")


def test_an_unfinished_run_is_told_in_text_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, status in (("a", {"status": "finished", "epoch": 9}), ("b", {"status": "interrupted", "epoch": 5})):
        folder = tmp_path / name
        folder.mkdir()
        config = {"dataset": "digits", "model": "mlp", "loss": "mse", "epochs": 9}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "status.json").write_text(json.dumps(status))
        (folder / "history.jsonl").write_text(json.dumps({"epoch": status["epoch"], "nc1": 1.0}) + "\n")
    told = ["Not at their end: unfinished: epoch 5 of 9 (B).", "Compared at different epochs: 9 (A), 5 (B)."]
    code, out, error = run(capsys, tmp_path / "a", tmp_path / "b")
    assert code == 0 and not error and out.splitlines()[-2:] == told
    assert json.loads(run(capsys, tmp_path / "a", tmp_path / "b", "--json", "-")[1])["notes"] == told


@pytest.mark.parametrize(
    "option", ["--resamples 9", "--seed 1", "--weighting class", "--weight-decay 0.1", "--metrics all"]
)
def test_options_of_features_are_refused_for_what_was_measured(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"epoch": 1, "nc1": 1.0}) + "\n")
    told = f"{option} is used for files of features alone, got {path} and {path}; leave it out"
    assert run(capsys, path, path, *option.split()) == (2, "", f"neuralcollapse: {told}\n")


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file or folder"),
        ('{"nc1": 1.0, "confidence": {"nc1": {"error": "x"}}}', "expected error and bias in the interval of 'nc1'"),
        ("{", "is not a JSON file"),
    ],
)
def test_a_wrong_file_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    code, _, error = run(capsys, path, path)
    assert code == 2 and message in error and error.count("\n") == 1


def test_what_is_compared_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A link to a side is that side, and a run's folder holds its files; nothing is resampled before it is told."""
    a, b = (features_file(tmp_path / f"{name}.npz", seed) for seed, name in enumerate("ab"))
    (tmp_path / "link.npz").symlink_to(a)
    (tmp_path / "run").mkdir()
    for out, told in (
        (b, f"expected another file to write than {b}, which is read"),
        (tmp_path / "link.npz", f"expected another file to write than {tmp_path / 'link.npz'}, which is read"),
        (tmp_path / "no" / "x.json", f"expected an existing folder to write x.json in, got {tmp_path / 'no'}"),
        (tmp_path, f"expected a file to write, got {tmp_path}, which is a folder or a device"),
    ):
        before = a.read_bytes(), b.read_bytes()
        assert run(capsys, a, b, "--resamples", 10**9, "--json", out) == (2, "", f"neuralcollapse: {told}\n")
        assert (a.read_bytes(), b.read_bytes()) == before
    inside = tmp_path / "run" / "history.jsonl"
    told = f"expected another folder to write history.jsonl in than {inside.parent}, which is read"
    assert run(capsys, inside.parent, a, "--json", inside) == (2, "", f"neuralcollapse: {told}\n")


def test_features_of_torch_save(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (features_file(tmp_path / f"{name}.npz", seed) for seed, name in enumerate("ab"))
    torch.save({name: torch.from_numpy(array) for name, array in np.load(b).items()}, tmp_path / "b.pt")
    npz, pt = (run(capsys, a, other, "--resamples", 20) for other in (b, tmp_path / "b.pt"))
    assert pt == npz and npz[0] == 0
