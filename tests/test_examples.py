"""The examples as a user runs them: no warning, nothing left behind, and numbers that tell of collapse."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NEEDS = {
    "monitor": ["sklearn"],
    "layers": ["sklearn"],
    "out_of_distribution": [],
    "read_history": ["pandas"],
    "torchmetrics_metric": ["sklearn", "torchmetrics"],
    "lightning_callback": ["sklearn", "lightning"],
    "text_classifier": ["transformers", "accelerate"],
    "next_token": ["transformers", "accelerate"],
    "timm_network": ["sklearn", "timm"],
}
SEEN = ("--report", "nc.html", "--figure", "nc1.png")
# Lightning's own, about its use of PyTorch and about loaders without worker processes
ITS_OWN = [
    "ignore:`isinstance(treespec, LeafSpec)` is deprecated",
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:The number of training batches",
]


def run(name: str, folder: Path, *arguments: str) -> str:
    """What the script prints, run in an empty folder with warnings as errors."""
    for package in NEEDS[name]:
        pytest.importorskip(package, reason=f"{package} is not installed")
    warnings = ["-W", "error"]
    if "lightning" in NEEDS[name]:
        warnings += [word for each in ITS_OWN for word in ("-W", each)]
    # the network is not needed; the hub's libraries are told to leave it alone, so that a need for it would fail
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, *warnings, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def table(output: str) -> list[dict[str, float]]:
    """The rows under a heading that starts with "epoch", percentages as shares."""
    lines = output.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("epoch"))
    heads = re.split(r"\s{2,}", lines[start])
    rows = []
    for line in lines[start + 1 :]:
        values = line.split()
        if len(values) != len(heads) or not values[0].isdigit():
            break
        numbers = [float(value.rstrip("%")) / (100 if value.endswith("%") else 1) for value in values]
        rows.append(dict(zip(heads, numbers, strict=True)))
    assert len(rows) > 1
    return rows


def page(path: Path, run: str) -> None:
    """A report on a run of this name is there; it is removed, as nothing else is to be left."""
    text = path.read_text(encoding="utf-8")
    assert text.lstrip().lower().startswith("<!doctype html") and run in text and "NC1" in text
    path.unlink()


def picture(path: Path) -> None:
    """A figure is there with more in it than a frame; it is removed."""
    from PIL import Image

    with Image.open(path) as image:
        assert min(image.size) > 200
        colors = image.convert("L").getcolors(256)
    assert colors is not None and len(colors) > 20
    path.unlink()


def test_each_example_is_tested_and_in_the_table() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    assert scripts == set(NEEDS)
    listed = re.findall(
        r"^\| \[(\w+)\.py\]\(\1\.py\) .*`python examples/\1\.py", (EXAMPLES / "README.md").read_text(), re.M
    )
    assert sorted(listed) == sorted(scripts)


def test_monitor(tmp_path: Path) -> None:
    output = run("monitor", tmp_path, "--epochs", "20", "--every", "10", "--path", "nc.jsonl", *SEEN)
    first, middle, last = table(output)
    assert first["accuracy"] < 0.3
    assert last["accuracy"] > 0.99
    assert last["NC1"] < middle["NC1"] < first["NC1"] / 5
    assert last["NC2 angle"] < first["NC2 angle"] / 2
    assert last["NC3"] < first["NC3"] / 3
    assert last["NC4"] < 0.01 < first["NC4"]
    assert "1,797 examples, 10 of 10 classes, 256 features" in output
    parts = [float(re.search(rf"{part}\s+(\S+)", output)[1]) for part in ("L_NC1", "L_NC2/3", "L⊥_LS")]  # type: ignore[index]
    assert sum(parts) == pytest.approx(float(re.search(r"MSE loss\s+(\S+)", output)[1]), rel=1e-3)  # type: ignore[index]
    page(tmp_path / "nc.html", "digits")
    picture(tmp_path / "nc1.png")
    assert [path.name for path in tmp_path.iterdir()] == ["nc.jsonl"]
    written = [json.loads(line) for line in (tmp_path / "nc.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in written] == [0, 10, 20]
    assert [line["nc1"] for line in written] == pytest.approx([row["NC1"] for row in table(output)], abs=1e-4)


def test_layers(tmp_path: Path) -> None:
    output = run("layers", tmp_path, "--epochs", "12")
    found = re.findall(r"^(\w+) +([\d.]+) +([\d.]+)   █*$", output, re.M)
    assert [name for name, *_ in found] == [*(f"block{number}" for number in range(1, 7)), "classifier"]
    before, after = ([float(row[column]) for row in found] for column in (1, 2))
    assert after[:6] == sorted(after[:6], reverse=True)
    assert after[5] < after[0] / 5
    assert before[5] > before[0]
    assert after[6] == after[5], "what enters the classifier is what the last block gives"
    factor = float(re.search(r"by a factor of ([\d.]+) a block", output)[1])  # type: ignore[index]
    assert factor == pytest.approx((after[0] / after[5]) ** 0.2, rel=1e-2)
    assert not list(tmp_path.iterdir())


def test_read_history(tmp_path: Path) -> None:
    output = run("read_history", tmp_path)
    histories = {
        path.parent: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (EXAMPLES.parent / "results" / "paper-regime").glob("*/history.jsonl")
    }
    assert f"History of {len(histories)} runs" in output
    _, table = output.split("\nnc1 at the last measured epoch")
    rows = re.findall(r"(densenet40|resnet18|vgg11) +([\d.e-]+|nan) +([\d.e-]+|nan)$", table, re.M)
    ends: dict[tuple[str, str], list[float]] = {}
    for folder, history in histories.items():
        config = json.loads((folder / "config.json").read_text())
        ends.setdefault((config["dataset"], config["model"], config["loss"]), []).append(history[-1]["nc1"])
    for model in ("densenet40", "resnet18", "vgg11"):
        for loss, column in (("ce", 1), ("mse", 2)):
            shown = sorted(float(row[column]) for row in rows if row[0] == model and row[column] != "nan")
            means = sorted(sum(seeds) / len(seeds) for (_, *cell), seeds in ends.items() if cell == [model, loss])
            assert shown == pytest.approx(means, rel=6e-3), "three digits"
    back = 0
    for history in histories.values():
        errors = [record["train_error"] for record in history]
        back += any(error > 0 for error in errors[errors.index(0) :])
    assert f"came back after its first zero in {back} of {len(histories)} runs" in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", [["missing.jsonl"], ["--metric", "nc9"]], ids=lambda given: given[0])
def test_read_history_says_what_is_wrong_with_an_argument(tmp_path: Path, argument: list[str]) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    command = [sys.executable, str(EXAMPLES / "read_history.py"), *argument]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=600)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert argument[-1] in done.stderr.splitlines()[-1]


def test_torchmetrics(tmp_path: Path) -> None:
    output = run("torchmetrics_metric", tmp_path, "--epochs", "15")
    number = {
        name: (float(old), float(new)) for name, old, new in re.findall(r"^(\S+/\S+) +(\S+) +(\S+)$", output, re.M)
    }
    for split in ("train", "test"):
        before, after = number[f"{split}/f1"]
        assert before < 0.3 < 0.9 < after
        for name in ("nc1", "cdnv", "nc2.maximal_angle_means", "nc3", "nc4_mismatch"):
            before, after = number[f"{split}/{name}"]
            assert after < before / 2, f"{split}/{name}"
    assert number["test/nc1"][1] > number["train/nc1"][1]
    assert not list(tmp_path.iterdir())


def test_lightning(tmp_path: Path) -> None:
    output = run("lightning_callback", tmp_path, "--until", "0.15", *SEEN)
    page(tmp_path / "nc.html", "digits")
    picture(tmp_path / "nc1.png")
    rows = table(output)
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["NC1"] < 0.15 < min(row["NC1"] for row in rows[:-1])
    assert rows[-1]["accuracy"] > 0.95
    assert f"Stopped after {len(rows)} epochs at nc/nc1 = {rows[-1]['NC1']:.4f}" in output
    assert not list(tmp_path.iterdir())


def test_text_classifier(tmp_path: Path) -> None:
    output = run("text_classifier", tmp_path, "--epochs", "6", *SEEN)
    page(tmp_path / "nc.html", "chapters")
    picture(tmp_path / "nc1.png")
    rows = table(output)
    assert [row["epoch"] for row in rows] == list(range(7))
    assert rows[0]["accuracy"] < 0.4
    assert rows[-1]["accuracy"] > 0.9
    assert rows[-1]["NC1"] < rows[0]["NC1"] / 20
    assert rows[-1]["NC4"] < 0.05 < rows[0]["NC4"]
    passages, others, share = map(int, re.search(r"(\d+) passages; of (\d+) others (\d+)% find", output).groups())  # type: ignore[union-attr]
    names = ("compound", "types", "formatstrings", "string-methods", "debugger")
    assert passages + others == sum(len(re.findall(r"\w+", topics[name])) // 32 for name in names)
    assert share > 45, "chance is 30 %, the longest chapter's share"
    assert not list(tmp_path.iterdir())


def test_next_token(tmp_path: Path) -> None:
    output = run("next_token", tmp_path, "--epochs", "20", "--every", "10")
    first, _, last = table(output)
    assert first["accuracy"] < 0.05
    assert last["accuracy"] > 0.3
    for name in ("NC1", "CDNV", "alignment", "NC4"):
        assert last[name] < 0.8 * first[name], name
    words = re.findall(r"\w+", topics["string-methods"].lower())
    frequent = {word for word, _ in Counter(words).most_common(299)}
    foretold = [word for index, word in enumerate(words[: len(words) // 32 * 32]) if index % 32 and word in frequent]
    assert f"{len(foretold)} positions, {len(set(foretold))} words, 64 features" in output
    assert not list(tmp_path.iterdir())


def test_timm(tmp_path: Path) -> None:
    output = run("timm_network", tmp_path, "--epochs", "6", *SEEN)
    page(tmp_path / "nc.html", "test_resnet")
    picture(tmp_path / "nc1.png")
    rows = table(output)
    assert [row["epoch"] for row in rows] == [0, 3, 6]
    assert rows[-1]["NC1"] < rows[0]["NC1"] / 5 and rows[-1]["accuracy"] > 0.9
    assert "Layer: fc" in output and {"zero", "nine"} <= set(output.split())
    assert not list(tmp_path.iterdir())


def test_out_of_distribution(tmp_path: Path) -> None:
    output = run("out_of_distribution", tmp_path, "--quick")
    if "are needed" in output:
        pytest.skip("FashionMNIST or MNIST is not on this machine")
    scores = {line[:20].strip(): [float(v) for v in line[20:].split()] for line in output.splitlines()[2:]}
    assert scores.keys() == {"NECO", "nearest class mean"}
    assert all(0.0 <= value <= 1.0 for pair in scores.values() for value in pair)
    assert max(auroc for auroc, _ in scores.values()) > 0.6
