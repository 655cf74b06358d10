"""The commands: what they print, what they leave, and one line with exit code 2 for every wrong input."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.dataset_files import pictures, random_images, write_archive, write_cifar_python, write_folder
from rich.console import Console

import neuralcollapse as nc
from neuralcollapse.cli import main, tables
from neuralcollapse.study.study_file import add_to_study
from neuralcollapse.training import recipes
from neuralcollapse.training.resolve import prepare

RUN = [
    "run",
    "--model",
    "mlp",
    "--width",
    "0.0625",
    "--examples-per-class",
    "20",
    "--device",
    "cpu",
    "--precision",
    "32",
]


def call(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    return int(exit_.value.code or 0)


def arrays(**changes: Any) -> dict[str, Any]:
    """A collapsed last layer with a little noise: four classes of six examples."""
    generator = np.random.default_rng(0)
    frame = nc.simplex_etf(4, 5).numpy()
    labels = np.arange(24) % 4
    features = frame[labels] + 0.01 * generator.standard_normal((24, 5))
    return {"features": features, "labels": labels, "weight": frame, "bias": np.zeros(4), **changes}


def saved(path: Path, **changes: Any) -> str:
    np.savez(path, **{name: value for name, value in arrays(**changes).items() if value is not None})
    return str(path)


def agree(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same numbers, up to how arrays lie in memory."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        near = value if isinstance(value, str) else pytest.approx(value, rel=1e-12, abs=1e-14)
        assert found[name] == near, name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    with pytest.raises(SystemExit) as exit_:
        main([*RUN, "--epochs", "2", "--out", str(path)])
    assert not exit_.value.code
    return path


def test_measure_prints_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "layer.npz")
    assert call(["measure", path, "--weight-decay", "0.01"]) == 0
    table = capsys.readouterr().out
    assert table == f"{nc.measure_features(**arrays(), weight_decay=0.01)}\n"
    for name in ("NC1", "NC2 equinorm", "NC3", "NC4 mismatch", "L⊥_LS", "24 examples"):
        assert name in table


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("bias", [True, False])
def test_measure_json_is_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str, bias: bool
) -> None:
    content = arrays() if bias else {name: value for name, value in arrays().items() if name != "bias"}
    path = tmp_path / f"layer.{ending}"
    if ending == "npz":
        np.savez(path, **content)
    else:
        safetensors = pytest.importorskip("safetensors.torch")
        safetensors.save_file({name: torch.tensor(value) for name, value in content.items()}, path)
    assert call(["measure", str(path), "--json", "-", "--weighting", "class", "--metrics", "cdnv, nc0"]) == 0
    expected = nc.measure_features(**content, weighting="class", metrics=["cdnv", "nc0"]).to_dict()
    agree(json.loads(capsys.readouterr().out), expected)
    assert call(["measure", str(path), "--json", str(tmp_path / "report.json"), "--metrics", "all"]) == 0
    assert capsys.readouterr().out == ""
    expected = nc.measure_features(**content, metrics="all").to_dict()
    agree(json.loads((tmp_path / "report.json").read_text()), expected)


def test_measure_in_parts_is_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of `measure --help`, by three jobs each."""
    pytest.importorskip("safetensors")
    for name in ("features", "labels", "weight"):
        np.save(tmp_path / f"{name}.npy", arrays()[name])
    features = ["measure", str(tmp_path / "features.npy"), "--labels", str(tmp_path / "labels.npy")]
    weight = ["--weight", str(tmp_path / "weight.npy")]
    merged, jobs = str(tmp_path / "all.safetensors"), ("2/3", "1/3", "3/3")
    parts, counts = ([str(tmp_path / f"{kind}-{job[0]}.safetensors") for job in jobs] for kind in ("part", "count"))
    for job, part in zip(jobs, parts, strict=True):
        assert call([*features, "--classes", "4", "--shard", job, "--save", part]) == 0
    assert "rows 16 to 23 of 24 saved in" in capsys.readouterr().out
    assert call([*features, *weight, "--shard", "2/3"]) == 0
    assert "of shard 2/3 alone, rows 8 to 15 of 24" in capsys.readouterr().out
    assert call(["measure", "--merge", *parts, "--save", merged, *weight]) == 0
    printed = capsys.readouterr()
    assert "not measured" in printed.out and "24 examples saved in" in printed.err
    for job, count in zip(jobs, counts, strict=True):
        assert call([*features, *weight, "--moments", merged, "--shard", job, "--save", count]) == 0
    assert "0 NC4 mismatches, 8 classified correctly" in capsys.readouterr().out
    assert call(["measure", "--merge", *counts, "--moments", merged, *weight]) == 0
    assert capsys.readouterr().out == f"{nc.measure_features(**arrays(bias=None))}\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_tells_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """A bar on a terminal, else lines; what was done before a measurement was taken up does not count as fast."""
    monkeypatch.setattr(tables, "_LINE_EVERY", 0.0)
    clock = iter((0.0, 100.0, 110.0, 130.0))
    monkeypatch.setattr(tables, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    shown = io.StringIO()
    with tables.share_bar(Console(file=shown, force_terminal=terminal, width=80), "measuring") as advance:
        for share in (0.5, 0.6, 0.8):
            advance(share)
    if terminal:
        assert "left" in shown.getvalue() and not capsys.readouterr().err
    else:
        assert capsys.readouterr().err == "measuring: 60%, 0:00:40 left\nmeasuring: 80%, 0:00:20 left\n"


def test_measure_help_tells_how_to_measure_in_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["measure", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for text in (
        "measure FEATURES --shard I/N --classes C --save part-I.safetensors",
        "measure --merge count-*.safetensors --moments all.safetensors --weight W",
        "a compressed .npz is read whole",
    ):
        assert text in printed


def test_run_leaves_a_run_with_pictures_and_continues(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads((trained / "status.json").read_text())["status"] == "finished"
    names = {path.name for path in (trained / "figures").iterdir()}
    for stem in ("overview", "decomposition", "nc1", "nc2", "nc3", "nc4", "accuracy", "snr", "portrait"):
        assert {f"{stem}.png", f"{stem}.svg"} <= names
    before = (trained / "history.jsonl").read_bytes()
    assert call(["run", "--resume", str(trained)]) == 0
    assert call([*RUN, "--epochs", "2", "--out", str(trained)]) == 0
    assert (trained / "history.jsonl").read_bytes() == before
    assert str(trained / "figures") in capsys.readouterr().out


def test_figures_draws_elsewhere(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["figures", str(trained), "--out", str(tmp_path / "pictures")]) == 0
    printed = capsys.readouterr().out.split()
    assert sorted(printed) == sorted(str(path) for path in (tmp_path / "pictures").iterdir())


def test_a_printed_config_reads_back_to_the_same_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [*RUN, "--epochs", "2", "--milestones", "0.5", "--learning-rate", "1e-5", "--notebook-weight-decay"]
    assert call([*given, "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "# momentum: 0.9" in printed and "\nepochs: 2\n" in printed
    for ending, text in (("yaml", printed), ("json", json.dumps({"epochs": 2, "model": "mlp"}))):
        (tmp_path / f"settings.{ending}").write_text(text)
    assert call(["run", "--config", "settings.yaml", "--print-config"]) == 0
    assert capsys.readouterr().out == printed
    assert call(["run", "--config", "settings.json", "--epochs", "3", "--print-config"]) == 0
    assert "\nepochs: 3\n" in capsys.readouterr().out  # what is typed counts
    uncommented = printed.replace("# Left open", "## Left open").replace("\n# ", "\n")
    (tmp_path / "all.yaml").write_text(uncommented)
    read = recipes.read_settings(tmp_path / "all.yaml")
    assert read.momentum == 0.9 and read.precision == "32"
    plan = prepare(recipes.read_settings(tmp_path / "settings.yaml"))[0]
    assert call(given) == 0
    assert json.loads((plan.path / "config.json").read_text())["learning_rate"] == 1e-5
    assert json.loads((plan.path / "status.json").read_text())["status"] == "finished"  # the same directory


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.yaml", None, "cannot read the file of settings absent.yaml"),
        ("a.yaml", "epoch: 3", "unknown setting 'epoch' (did you mean 'epochs'"),
        ("a.yaml", "- epochs: 3\n- epochs: 4", "holds 2 sets of settings; expected one"),
        ("a.json", "{", "is not a JSON file"),
        ("a.yaml", "a: 1\n b: [", "a.yaml is not a YAML file: line 2, column 3: mapping values are not allowed here"),
        ("x.png", "\x89PNG", "x.png is no YAML or JSON file; expected one ending in .yaml, .yml or .json"),
        ("a.yaml", "epochs: many", "epochs must"),
    ],
)
def test_a_wrong_config_is_said_in_one_line(
    name: str,
    content: str | None,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_text(content)
    refused(capsys, ["run", "--config", name], message)


def test_the_plan_of_a_study_is_shown_without_any_data(
    nothing_found: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call(["grid", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    cells = printed.split("3 cells: ")[0].rstrip()
    assert cells.count("no data") == 15 and "stl10-densenet201-mse" in cells and "3.8e-4" in cells
    assert max(len(line.rstrip()) for line in cells.splitlines()) <= 80
    for name in ("mnist", "fashion-mnist", "svhn", "cifar10", "stl10"):
        assert printed.count(f"3 cells: {name} not found") == 1
    refused(capsys, ["grid"], "mnist not found")
    assert not (nothing_found / "runs").exists()


def test_a_grid_ends_by_saying_how_to_see_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a study"
    cell = ["--datasets", "digits", "--models", "mlp", *RUN[3:], "--epochs", "1"]
    assert call(["grid", *cell, "--out", str(out)]) == 0
    assert f"draw the study:   neuralcollapse figures '{out}'" in capsys.readouterr().out


@pytest.fixture
def nothing_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder; data sets are found nowhere else, whatever this machine has."""
    monkeypatch.delenv("NEURALCOLLAPSE_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_data_lists_every_data_set(capsys: pytest.CaptureFixture[str], nothing_found: Path) -> None:
    assert call(["data", "--data-dir", str(nothing_found)]) == 0
    printed = capsys.readouterr().out
    assert "10 × 145 to 152" in printed and printed.count("not found") == 6


def test_a_path_is_one_line_however_narrow_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], nothing_found: Path
) -> None:
    folder = nothing_found / "a-folder-of-data-sets" / "below-a-folder-with-a-long-name"
    folder.mkdir(parents=True)
    write_cifar_python(folder, random_images(6, 3, 32, 32).reshape(6, 1, 3, 32, 32), np.zeros((6, 1), int))
    monkeypatch.setenv("COLUMNS", "80")
    assert call(["data", "--data-dir", str(folder)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert f"cifar10: in {folder}" in printed
    assert all(len(line) <= 80 for line in printed if "/" not in line)


def test_data_lists_what_is_broken_beside_the_rest(capsys: pytest.CaptureFixture[str], nothing_found: Path) -> None:
    write_cifar_python(nothing_found, random_images(6, 3, 32, 32).reshape(6, 1, 3, 32, 32), np.zeros((6, 1), int))
    (nothing_found / "data_batch_1").write_bytes(b"\x80\x02]r\xff\xff\xff\x07.")
    (nothing_found / "train_32x32.mat").write_bytes(b"none")
    (nothing_found / "test_32x32.mat").write_bytes(b"none")
    assert call(["data", "--data-dir", str(nothing_found)]) == 0
    printed = capsys.readouterr().out
    assert "data_batch_1: expected data" in printed and "train_32x32.mat is not a readable MATLAB file" in printed
    assert "10 × 145 to 152" in printed and printed.count("not found") == 4


@pytest.mark.parametrize("name", ["set", "set.tar"])
def test_what_a_folder_leaves_out_is_one_line(
    capsys: pytest.CaptureFixture[str], nothing_found: Path, name: str
) -> None:
    files = pictures(2) | {"train/ant/notes.txt": b"", "train/.old/1.png": b"", "test/bee/1.svg": b""}
    path = (write_archive if "." in name else write_folder)(nothing_found / name, files)
    for command in (["data"], ["run", "--dataset", "folder", *RUN[1:], "--examples-per-class", "2", "--epochs", "1"]):
        with pytest.warns(UserWarning, match="left out") as said:
            assert call([*command, "--data-dir", str(path)]) == 0
        (line,) = {str(each.message) for each in said}
        assert "1 hidden (train/.old" in line and "2 without the ending of an image (" in line and "\n" not in line


def test_a_diverged_run_exits_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call([*RUN, "--epochs", "2", "--learning-rate", "1e6", "--out", str(tmp_path / "run")]) == 1
    assert "diverged" in capsys.readouterr().err


NAN = arrays()["features"].copy()
NAN[3, 1] = np.nan


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": NAN}, "row 3"),
        ({"labels": np.arange(24) % 5}, "expected labels in 0..3, got 4"),
        ({"labels": np.arange(23) % 4}, "shape (24,)"),
        ({"labels": (np.arange(24) % 4).astype(float)}, "integer labels"),
        ({"weight": None}, "has no weight"),
        ({"features": None, "labels": None}, "has no features and no labels"),
        ({"weight": np.ones((4, 6))}, "(4, 5)"),
        ({"bias": np.zeros(3)}, "(4,)"),
        ({"labels": np.array(["a"] * 24)}, "numeric"),
        ({"labels": np.array([None] * 24)}, "pickled objects"),
    ],
)
def test_measure_refuses_wrong_arrays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    refused(capsys, ["measure", saved(tmp_path / "layer.npz", **changes)], message)


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert call(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("neuralcollapse: ") and "Traceback" not in error
    assert message in error


def test_measure_refuses_files_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path(saved(tmp_path / "layer.npz"))
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:700])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    (tmp_path / "layer.csv").write_text("1,2")
    (tmp_path / "empty.npz").write_bytes(b"")
    torch.save(torch.nn.Linear(5, 4), tmp_path / "module.pt")
    moments = str(tmp_path / "moments.safetensors")
    assert call(["measure", str(whole), "--save", moments]) == 0
    capsys.readouterr()
    (tmp_path / "run").mkdir()
    refused(capsys, ["measure", str(tmp_path / "run")], "run is a folder; expected a file ending in .npy")
    (tmp_path / "run" / "config.json").write_text("{}")
    refused(capsys, ["measure", str(tmp_path / "run")], f"see a run by `neuralcollapse report {tmp_path / 'run'}`")
    refused(capsys, ["measure", str(whole), "--weight", str(tmp_path / "module.pt")], "save model.state_dict()")
    for command in (["measure", moments], ["compare", moments, str(whole)]):
        refused(capsys, command, f"{moments} holds saved moments, not features: use `measure --merge")
    refused(capsys, ["measure", str(tmp_path / "absent.npz")], "no file")
    refused(capsys, ["measure", str(tmp_path / "cut.npz")], "not a readable .npz")
    refused(capsys, ["measure", str(tmp_path / "empty.npz")], "not a readable .npz")
    refused(capsys, ["measure", str(tmp_path / "cut.safetensors")], "not a readable .safetensors")
    refused(capsys, ["measure", str(tmp_path / "layer.csv")], ".npy, .npz, .safetensors, .pt or .parquet")


def test_measure_refuses_options_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = saved(tmp_path / "layer.npz")
    part = str(tmp_path / "part.safetensors")
    for options, message in (
        (["--weight-decay", "-1"], "weight decay"),
        (["--metrics", "nc9"], "unknown metric 'nc9'"),
        (["--metrics", "cdnv,vci"], "unknown metric 'vci' (did you mean 'variability_collapse_index'?)"),
        (["--metrics", "nc5"], "out-of-distribution data"),
        (["--shard", "4/3"], "1 ≤ I ≤ N, such as 1/8, got '4/3'"),
        (["--shard", "0/3"], "got '0/3'"),
        (["--shard", "1"], "got '1'"),
        (["--shard", "1/25"], "at most 24 parts"),
        (["--classes", "0"], "--classes 0"),
        (["--classes", "5"], "(5, 5), got (4, 5)"),
        (["--save", "part.npz"], "ending in .safetensors, got part.npz"),
        (["--save", str(tmp_path / "absent" / "part.safetensors")], "existing folder"),
        (["--json", str(tmp_path)], "is a folder or a device"),
        (["--json", whole], "which is read"),
        (["--json", "-", "--shard", "1/2", "--save", part], "no --json"),
        (["--merge", part], "only saved shards with --merge"),
        (["--min-count", "0"], "min_count"),
        (["--min-count", "5", "--max-count", "4"], "min_count of at most max_count, got 5 and 4"),
        (["--min-count", "7"], "a class with at least 7 examples, classes here have 6"),
        (["--jobs", "2"], "expected --save with --jobs"),
        (["--slurm"], "--slurm is not used here; add --jobs"),
        (["--columns", "layer"], f"--columns layer is of .parquet alone, got {whole}; leave it out"),
    ):
        refused(capsys, ["measure", whole, *options], message)
    refused(capsys, ["measure"], "a file of features, or --merge")
    refused(capsys, ["measure", "--merge", whole, "--shard", "1/2"], "got --shard")
    assert {path.name for path in tmp_path.iterdir()} == {"layer.npz"}


@pytest.mark.usefixtures("nothing_found")
def test_run_refuses_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    out = ["--out", str(tmp_path / "run")]
    refused(capsys, ["run", "--resume", str(tmp_path / "absent")], "is not a run directory: no such folder")
    refused(capsys, ["run", "--resume", str(tmp_path / "full")], "no config.json")
    refused(capsys, [*RUN, "--out", str(tmp_path / "full")], "not empty")
    refused(capsys, [*RUN, "--out", str(tmp_path / "file")], "must name a folder")
    refused(capsys, [*RUN, "--out", str(tmp_path / "file" / "run")], "Not a directory")
    refused(capsys, ["run", "--dataset", "mnist", "--data-dir", str(tmp_path), *out], "train-images-idx3-ubyte")
    refused(capsys, ["run", "--dataset", "imagenet", *out], "unknown data set")
    refused(capsys, ["run", "--model", "resnet19", *out], "did you mean")
    refused(capsys, ["run", "--epochs", "0", *out], "--epochs must be at least 1")
    refused(capsys, ["run", "--learning-rate", "nan", *out], "--learning-rate")
    refused(capsys, ["run", "--examples-per-class", "1000", *out], "1,000 examples of each class")
    refused(capsys, ["run", "--milestones", "0.8", "0.5", *out], "--milestones")
    assert not (tmp_path / "run").exists()  # nothing was begun


def test_figures_refuses_what_is_no_run(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    refused(capsys, ["figures", str(tmp_path / "empty")], "holds no run")
    refused(capsys, ["figures", str(tmp_path / "absent")], "it is not there")
    refused(capsys, ["figures", str(tmp_path), "--animate"], "is not a run directory")
    refused(capsys, ["figures", str(run), "--out", str(tmp_path / "file")], "file is a file; --out must name a folder")
    (tmp_path / "one.json").write_text('{"nc1": 1.0}')
    refused(capsys, ["figures", str(tmp_path / "one.json")], "one measurement's report, which has no epochs: see it by")
    (run / "snapshots" / "epoch_0002.npz").write_bytes(b"PK")
    refused(capsys, ["figures", str(run)], "epoch_0002.npz is not a readable snapshot")
    (run / "history.jsonl").write_text("")
    refused(capsys, ["figures", str(run)], "no measured epoch yet")


def test_a_truncated_data_set_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 4, 0, 1, 2, 3]))
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(whole[:-9])
    arguments = ["run", "--dataset", "mnist", "--data-dir", str(tmp_path), "--out", str(tmp_path / "run")]
    refused(capsys, arguments, "train-labels-idx1-ubyte.gz is damaged or incomplete")


def test_a_network_without_a_linear_layer_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuralcollapse.networks import registry as models

    def without_linear(name: str, **options: Any) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Conv2d(1, 10, 8), torch.nn.Flatten())

    monkeypatch.setattr(models, "build", without_linear)
    refused(capsys, [*RUN, "--epochs", "1", "--out", str(tmp_path / "run")], "nn.Linear")


def test_an_error_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    from neuralcollapse import data as datasets

    def broken(*_: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(datasets, "available", broken)
    with pytest.raises(ValueError, match="a defect"):
        main(["data"])


def test_dynamics_simulates_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--classes", "4", "--examples-per-class", "8", "--dim", "6", "--time", "50"]
    assert call(["dynamics", *sizes, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "projected flow to time 50" in printed and "relative difference of the ω_j at most" in printed
    drawn = {f"dynamics.{ending}" for ending in ("png", "svg", "tex", "txt")}
    assert {path.name for path in tmp_path.iterdir()} - {"collapse.mp4"} == {*drawn, "collapse.gif"}


def test_dynamics_holds_a_run_against_the_closed_form(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["dynamics", "--run", str(trained), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    heads, explained = printed.splitlines()[1], printed.partition("time t: ")[2]
    for head in ("residual", "unmoved", "growth", "max/min ω", "on the path"):
        assert head in heads and head in explained, head
    assert all(len(line) <= 80 for line in printed.splitlines() if "/" not in line)
    assert {path.name for path in tmp_path.iterdir()} == {f"theory.{ending}" for ending in ("png", "svg", "tex", "txt")}


def test_dynamics_refuses_what_no_flow_can_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "pictures")]
    refused(capsys, ["dynamics", "--classes", "1", *out], "a number of classes of at least 2, got 1")
    refused(capsys, ["dynamics", "--dim", "5", *out], "between C − 1 = 9 and")
    refused(capsys, ["dynamics", "--examples-per-class", "3", *out], "C (N − 1) = 20 dimensions, got 64")
    refused(capsys, ["dynamics", "--time", "-1", *out], "positive time, got -1.0")
    refused(capsys, ["dynamics", "--weight-decay", "-1", *out], "weight decay")
    absent = ["dynamics", "--run", str(tmp_path / "absent"), *out]
    refused(capsys, absent, "it is not there")
    for option, value in (("time", 5.0), ("dim", 3), ("seed", 1), ("weight-decay", 0.1), ("examples-per-class", 7)):
        refused(capsys, [*absent, f"--{option}", str(value)], f"--{option} {value} is not used with --run")
    refused(capsys, [*absent, "--classes", "3"], "--classes 3 is not used with --run, whose network tells it")
    assert not (tmp_path / "pictures").exists()


def test_dynamics_looks_at_its_folder_before_it_integrates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuralcollapse.theory.simulation.simulate", None)
    (tmp_path / "file").write_text("x")
    refused(capsys, ["dynamics", "--out", str(tmp_path / "file")], "file is a file; --out must name a folder")
    monkeypatch.setattr("os.access", lambda *_: False)
    out = str(tmp_path / "pictures")
    refused(capsys, ["dynamics", "--out", out], f"cannot write into {tmp_path}: Permission denied; name another")


def test_a_run_writes_for_tensorboard_and_goes_on_without_gaps(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    out = tmp_path / "run"
    assert call([*RUN, "--epochs", "3", "--out", str(out), "--log", "tensorboard"]) == 0
    history = {line["epoch"]: line for line in map(json.loads, (out / "history.jsonl").read_text().splitlines())}
    frame = nc.History.read(out / "tensorboard").to_frame().set_index(["epoch", "metric"])["value"]
    for epoch, line in history.items():
        for name in ("nc1", "nc3", "mse.ls_perp"):
            assert frame[epoch, name] == pytest.approx(line[name], rel=1e-6)
        assert frame[epoch, "train/loss"] == pytest.approx(line["loss"], rel=1e-6)
    assert (1, "num_classes") in frame.index and (2, "num_classes") not in frame.index


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "folder"])
def test_dynamics_holds_a_study_against_three_flows(
    listed: bool, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    shutil.copytree(trained, study / "one")
    if listed:
        add_to_study(study, ["one"])
    else:  # a folder of runs without a list: more than one of them
        shutil.copytree(trained, study / "two")
        settings = json.loads((trained / "config.json").read_text())
        (study / "two" / "config.json").write_text(json.dumps({**settings, "seed": 1}))
    assert call(["dynamics", "--run", str(study)]) == 0
    printed = capsys.readouterr().out
    heads, explained = printed.splitlines()[1], printed.partition("n: seeds")[2]
    for head in ("projected", "multiplicative", "none", "power", "max/min ω"):
        assert head in heads and head in explained, head
    assert all(len(line) <= 80 for line in printed.splitlines() if "/" not in line)
    drawn = {path.suffix for path in (study / "figures").iterdir() if path.stem.startswith("theory-")}
    assert drawn == {".png", ".svg", ".tex", ".txt"}
