"""What goes into the report: of runs, logs and measurements; where it is written; what is refused."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from helpers.reports import EPOCHS, HOSTILE, NAMES
from helpers.run_directories import record

import neuralcollapse as nc
from neuralcollapse._errors import InputError
from neuralcollapse._files import append_line
from neuralcollapse.cli import main
from neuralcollapse.report import report_measurement, watch, write_report
from neuralcollapse.report.explanations import EXPLANATIONS, FAMILIES, family_of
from neuralcollapse.report.mathml import mathml
from neuralcollapse.report.metric_formulas import FORMULAS, formula_of
from neuralcollapse.report.projections import MOST_CLASSES, choose_classes, pack
from neuralcollapse.training.run_directory import Run


def content_of(path: Path) -> dict[str, Any]:
    """The data that a page holds."""
    text = path.read_text("utf-8")
    _, _, rest = text.partition('<script type="application/json" id="data">')
    found, _, _ = rest.partition("</script>")
    content: dict[str, Any] = json.loads(found)
    return content


def test_a_page_holds_the_run_and_no_markup_of_others(run: Path, run_page: Path) -> None:
    (view,) = content_of(run_page)["runs"]
    assert view["epochs"] == list(EPOCHS)
    assert view["values"]["nc1"] == pytest.approx([6 / epoch for epoch in EPOCHS], rel=1e-4)
    assert view["events"] == {"first": 3, "stays": 8, "divisions": [8]}
    assert view["class_names"] == list(NAMES)
    assert view["command"] == f"neuralcollapse run {HOSTILE}"
    text = run_page.read_text("utf-8")
    assert HOSTILE not in text
    assert text.count("</script") == 3
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in text


def test_the_classes_are_those_of_the_snapshots(run: Path, run_page: Path) -> None:
    table = content_of(run_page)["runs"][0]["per_class"]
    keys = [column["key"] for column in table["columns"]]
    assert table["epochs"] == list(EPOCHS)
    assert sorted(row[0] for row in table["tables"][-1]) == sorted(NAMES)
    shares = [row[keys.index("nc1_share")] for row in table["tables"][-1]]
    assert sum(shares) == pytest.approx(1.0, abs=1e-3)
    assert shares == sorted(shares, reverse=True)
    assert "6 examples of each class" in table["note"]


def test_coordinates_keep_lengths_and_angles() -> None:
    """Against the inner products of the vectors themselves."""
    rng = np.random.default_rng(0)
    means, weight = rng.normal(size=(6, 20)), rng.normal(size=(6, 20))
    labels = np.repeat(np.arange(6), 4)
    features = means[labels] + 1e-4 * rng.normal(size=(24, 20))
    arrays = {"class_means": means, "weight": weight, "features": features, "labels": labels}
    packed = pack(arrays, [5, 0, 3], examples=2)
    dim = packed["dim"]
    found = np.frombuffer(base64.b64decode(packed["means"]), "<f4").reshape(3, dim)
    centred = (means - means.mean(axis=0))[[5, 0, 3]]
    assert found @ found.T == pytest.approx(centred @ centred.T, rel=1e-5)
    rows = np.frombuffer(base64.b64decode(packed["weight"]), "<f4").reshape(3, dim)
    assert rows @ found.T == pytest.approx(weight[[5, 0, 3]] @ centred.T, rel=1e-4, abs=1e-5)
    steps = np.frombuffer(base64.b64decode(packed["features"]), "<i2").reshape(6, dim) * packed["unit"]
    deviations = np.concatenate([(features - means[labels])[labels == label][:2] for label in (5, 0, 3)])
    assert steps @ found.T == pytest.approx(deviations @ centred.T, abs=1e-7)


def test_of_many_classes_the_pairs_farthest_from_a_simplex_are_kept() -> None:
    means = nc.simplex_etf(60, 60).numpy()
    means[17] = 0.9 * means[3] + 0.1 * means[17]  # two classes that point alike
    chosen = choose_classes(means, np.zeros(60))
    assert {3, 17} <= set(chosen)
    assert len(chosen) == MOST_CLASSES
    assert choose_classes(means[:5], np.zeros(60)) == [0, 1, 2, 3, 4]


def test_large_histories_are_thinned_and_say_so(tmp_path: Path) -> None:
    lines = [{"epoch": epoch, **{f"m{n}": 1.0 for n in range(400)}, "nc1": 1 / epoch} for epoch in range(1, 1001)]
    content = content_of(nc.History.from_records(lines, loss="mse").report(tmp_path / "page.html"))
    (view,) = content["runs"]
    assert list(view["values"]) == ["nc1"]
    assert len(view["epochs"]) == 1000
    lines = [{"epoch": epoch, "nc1": 1 / epoch} for epoch in range(1, 400_001, 1)]
    (view,) = content_of(nc.History.from_records(lines).report(tmp_path / "page.html"))["runs"]
    assert view["thinned"] == [300_000, 400_000]
    assert (view["epochs"][0], view["epochs"][-1]) == (1, 400_000)


def test_a_run_is_read_in_words(run_page: Path) -> None:
    said = [tuple(sentence) for sentence in content_of(run_page)["runs"][0]["reading"]]
    assert ("none", HOSTILE) in said  # a note of the measurement
    assert any(level == "good" and "first zero at epoch 3, and stays zero from epoch 8" in text for level, text in said)


def test_a_measurement_has_every_metric_with_its_family_and_good_value(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 4
    frame = nc.simplex_etf(4, 6).numpy()
    features = frame[labels] + 0.05 * rng.normal(size=(60, 6))
    np.savez(tmp_path / "features.npz", features=features, labels=labels, weight=frame, bias=np.zeros(4))
    content = content_of(write_report(tmp_path / "features.npz"))
    names = [row["name"] for row in content["table"]]
    assert set(names) >= {name for name, metric in nc.METRICS.items() if metric.needs <= {"weight", "scatter"}}
    places = [FAMILIES.index(row["family"]) for row in content["table"]]
    assert places == sorted(places)
    assert "Other" not in {family_of(name) for name in (*names, *nc.METRICS)}
    assert next(row for row in content["table"] if row["name"] == "cdnv")["good"] == "0"
    assert len(content["per_class"]["tables"][0]) == 4
    report = nc.measure_features(features, labels, frame, class_names=["a", HOSTILE, "c", "d"])
    content = content_of(report_measurement(report, tmp_path / "page.html"))
    assert content["class_names"][1] == HOSTILE


def test_what_measure_printed_makes_a_page(tmp_path: Path) -> None:
    report = nc.measure_features(np.eye(6)[:, :4], [0, 0, 0, 1, 1, 1], np.ones((2, 4)))
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report.to_dict()))
    content = content_of(write_report(path))
    assert (content["kind"], content["snapshots"]) == ("features", None)
    assert content["counts"]["num_examples"] == 6


def test_a_monitors_lines_make_a_page(tmp_path: Path) -> None:
    path = tmp_path / "monitor.jsonl"
    lines = [{"epoch": 1, "layer": layer, "nc1": value, "accuracy": 1.0} for layer, value in (("a", 2.0), ("b", "inf"))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (view,) = content_of(write_report(path))["runs"]
    assert view["values"]["nc1"] == ["inf"]
    assert view["layers"]["values"]["a"]["nc1"] == [2]
    assert (tmp_path / "monitor.html").is_file()


def test_the_command_writes_into_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run)])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    (run / "report.html").unlink()


@pytest.mark.parametrize("arguments", [[], ["nowhere"]])
def test_what_is_not_there_is_said_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", *arguments])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_damaged_snapshot_is_named(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "snapshots" / "epoch_0005.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="epoch_0005"):
        write_report(copy)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What `report` says of wrong arguments, in its one line."""
    with pytest.raises(SystemExit) as ended:
        main(["report", *map(str, arguments)])
    out, error = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    return error.removeprefix("neuralcollapse: ").removesuffix("\n")


def test_only_a_page_is_written(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not over a run's history, nor into a file that is called "-"."""
    before = (run / "history.jsonl").read_bytes()
    for out in (run / "history.jsonl", "-", tmp_path):
        assert refused(capsys, run, "--out", out) == f"expected a file ending in .html for the report, got {out}"
        assert "ending in .html" in refused(capsys, run, "--watch", "--out", out)
    assert "an existing folder" in refused(capsys, run, "--out", tmp_path / "no" / "page.html")
    assert (run / "history.jsonl").read_bytes() == before and not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["config.json", "history.jsonl", "status.json", "environment.json"])
def test_a_file_of_a_run_stands_for_the_run(run: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    content = content_of(write_report(copy))
    (copy / "report.html").unlink()
    assert write_report(copy / name) == copy / "report.html"
    assert content_of(copy / "report.html") == content
    assert next(watch(copy / name, tmp_path / "page.html")) == tmp_path / "page.html"


def test_the_file_of_a_study_stands_for_the_study(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "study" / "one")
    shutil.copytree(run, tmp_path / "study" / "two")
    (tmp_path / "study" / "study.json").write_text('{"runs": ["one", "two", "three"]}')
    content = content_of(write_report(tmp_path / "study" / "study.json"))
    assert (content["title"], content["not_run"]) == ("study: 2 runs", ["three"])
    assert (tmp_path / "study" / "report.html").is_file()


def test_arguments_of_features_are_not_ignored_for_runs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = f"--labels goes with a file of features, which {run} is not: leave out --labels y.npy"
    assert refused(capsys, run, "--labels", "y.npy") == told
    assert refused(capsys, run, "--watch", "--labels", "y.npy") == told
    with Run.open(run).locked():  # one that goes on
        assert refused(capsys, run, "--watch", "--labels", "y.npy") == told


def test_a_measurement_is_not_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = nc.measure_features(np.eye(6)[:, :4], [0, 0, 0, 1, 1, 1], np.ones((2, 4)))
    (tmp_path / "report.json").write_text(json.dumps(report.to_dict()))
    np.savez(tmp_path / "features.npz", features=np.eye(6)[:, :4])
    for name in ("report.json", "features.npz"):
        path = tmp_path / name
        assert refused(capsys, path, "--watch") == f"{path} does not grow as a run or a log does: leave out --watch"


def test_features_of_torch_save_make_a_page(tmp_path: Path) -> None:
    tensors = {"features": torch.eye(6)[:, :4], "labels": torch.arange(6) % 2, "weight": torch.eye(2, 4)}
    torch.save(tensors, tmp_path / "features.pt")
    shares: list[float] = []
    content = content_of(write_report(tmp_path / "features.pt", progress=shares.append))
    assert (content["kind"], content["counts"]["num_examples"]) == ("features", 6)
    assert shares[-1] == 1


def test_a_watched_page_follows_the_run_and_ends_with_it(run: Path, tmp_path: Path) -> None:
    copy, out = tmp_path / "run", tmp_path / "page.html"
    shutil.copytree(run, copy)
    with Run.open(copy).locked():
        pages = watch(copy, out, every=0.01)
        next(pages)
        assert content_of(out)["watched"] == 0.01
        append_line(copy / "history.jsonl", record(21, train_error=0.0))
        next(pages)
        assert content_of(out)["runs"][0]["epochs"][-1] == 21
    assert list(pages) == [out]
    assert "watched" not in content_of(out)


def test_every_number_of_a_report_is_explained() -> None:
    report = nc.measure_features(np.eye(6)[:, :4], [0, 0, 0, 1, 1, 1], np.ones((2, 4)))
    counts = {"num_examples", "num_classes", "classes_present", "dim"}
    explained = {name for explanation in EXPLANATIONS.values() for name in explanation.names}
    assert set(report.numbers()) - counts <= explained
    assert all(formula_of(name)[1] for name in nc.METRICS)
    named = {name.format(side) for name in FORMULAS for side in ("means", "classifier")}
    assert named <= set(nc.METRICS), "no formula of a metric that is not there"


def test_the_formulas_of_other_conventions_are_others() -> None:
    """No two metrics are shown alike: the divisor or the weights of a convention stand in its formula."""
    assert len({formula for _, formula in FORMULAS.values()}) == len(FORMULAS)
    plain = {mathml(formula_of(name)[1]) for name in ("variability_ratio", "variability_collapse_index")}
    plain |= {explanation.formula for explanation in EXPLANATIONS.values()}
    for name in nc.METRICS:
        if name.endswith(("_biased", "_unbiased", "_mixed", "_example_mean")):
            assert mathml(formula_of(name)[1]) not in plain, name


def structure(formula: str) -> list[str]:
    """The tags and the texts of a formula."""
    root = ElementTree.fromstring(mathml(formula))
    return [f"{each.tag} {each.text or ''}".strip() for each in root.iter()][1:]


def test_formulas_are_mathml() -> None:
    assert structure(r"\frac{tr Σ_W}{2}") == ["mfrac", "mrow", "mi tr", "msub", "mi Σ", "mi W", "mn 2"]
    assert structure(r"\bar{μ}_c^2 < x") == ["msubsup", "mover", "mi μ", "mo ¯", "mi c", "mn 2", "mo <", "mi x"]
    assert structure(r"\sqrt{n_{c − 1}}") == ["msqrt", "msub", "mi n", "mrow", "mi c", "mo −", "mn 1"]
    for name in nc.METRICS:
        assert "\\" not in mathml(formula_of(name)[1]) and structure(formula_of(name)[1])
    for wrong in (r"\frac{a", "x_", r"\frac{a}"):
        with pytest.raises(ValueError, match="expected"):
            mathml(wrong)
