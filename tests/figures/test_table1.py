"""Table 1 against numbers worked out by hand, and its three formats."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.studies import config, history, write_run
from hypothesis import given
from hypothesis import strategies as st

from neuralcollapse.figures import table1
from neuralcollapse.figures.study_runs import Study, StudyRun
from neuralcollapse.measuring.run_records import RunRecords
from neuralcollapse.training.run_directory import Status

NASTY = r'A&B_50% #{x} | [y] \$^~ <"`*'


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """MSE: improvements of 1, 2 and 6 points, one cell never at zero error, one unfinished, one diverged; CE: −1."""
    cells: tuple[tuple[str, str, str, dict[int, float], int | None, str, dict[str, Any]], ...] = (
        ("mnist", "vgg11", "mse", {1: 0.50, 10: 0.90, 350: 0.91}, 10, "finished", {}),
        ("mnist", "resnet18", "mse", {1: 0.50, 20: 0.80, 350: 0.82}, 20, "finished", {}),
        ("mnist", "densenet40", "mse", {1: 0.50, 350: 0.70}, None, "finished", {}),
        ("cifar10", "vgg11", "mse", {1: 0.20, 100: 0.40, 150: 0.46}, 100, "finished", {"epochs": 150, "width": 0.25}),
        ("cifar10", "resnet50", "mse", {1: 0.20, 50: 0.40, 101: 0.99}, 50, "running", {}),
        ("cifar10", "densenet100", "mse", {1: 0.20, 2: 0.30}, 1, "diverged", {}),
        ("mnist", "vgg11", "ce", {1: 0.50, 10: 0.92, 350: 0.91}, 10, "finished", {}),
    )
    for place, (dataset, model, loss, accuracies, zero, status, changes) in enumerate(cells):
        write_run(tmp_path / f"{place}", config(dataset, model, loss, **changes), history(accuracies, zero), status)
    return Study.read(tmp_path)


def csv_of(study: Study) -> str:
    return str(table1.runs_table(study).to_csv(index=False))


def entries(line: str) -> list[str]:
    return [entry.strip() for entry in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_medians_and_means_are_over_finished_pairs_that_reached_zero_error(study: Study) -> None:
    assert table1.improvements(study, "mse", "test_accuracy") == pytest.approx([0.01, 0.02, 0.06])
    lines = [
        entries(line) for line in table1.markdown(study, table1.TEST_ACCURACY).splitlines() if "of 3 pairs" in line
    ]
    bold = [[text.strip("*") for text in line] for line in lines]
    assert bold[0] == ["median", "", "of 3 pairs", "", "+2.00", "of 1 pair", "", "-1.00"]
    assert bold[1] == ["mean", "", "of 3 pairs", "", "+3.00", "of 1 pair", "", "-1.00"]


def test_markdown_shows_every_cell_and_says_in_three_notes_what_is_wrong_with_some(study: Study) -> None:
    text = table1.markdown(study, table1.TEST_ACCURACY)
    rows = {tuple(entries(line)[:2]): entries(line)[2:] for line in text.splitlines() if line.startswith("| ")}
    notes = dict(re.findall(r"^<sup>(\w+)</sup> ([^<\n]+)", text, re.MULTILINE))
    assert rows["MNIST", "VGG11"] == ["90.00 (10)", "91.00 (350)", "+1.00", "92.00 (10)", "91.00 (350)", "-1.00"]
    assert rows["MNIST", "ResNet18"][:3] == ["80.00 (20)", "82.00 (350)", "+2.00"]
    assert rows["MNIST", "DenseNet40"][:3] == ["–<sup>c</sup>", "70.00 (350)", "–"]
    assert rows["CIFAR10 (JPEG)", "VGG11"][:3] == ["40.00 (100)<sup>a</sup>", "46.00 (150)", "+6.00"]
    assert rows["CIFAR10 (JPEG)", "ResNet50"][:3] == ["40.00 (50)<sup>b</sup>", "99.00 (101)", "–"]
    assert rows["CIFAR10 (JPEG)", "DenseNet100"] == ["20.00 (1)<sup>b</sup>", "30.00 (2)", "–", "–", "–", "–"]
    assert list(notes) == ["a", "b", "c"]
    assert notes["a"].endswith("but width ×0.25 (VGG on CIFAR10 (JPEG)); 150 epochs (VGG on CIFAR10 (JPEG))")
    unfinished = (
        "unfinished: epoch 101 of 350 (ResNet on CIFAR10 (JPEG))",
        "diverged after epoch 2 (DenseNet on CIFAR10 (JPEG))",
    )
    assert notes["b"] == "; ".join(unfinished)
    assert notes["c"] == "training errors at the last epoch: 2.3 % at epoch 350 (DenseNet on MNIST)"
    assert "+0.962 in the median and +1.833 in the mean" in text


def test_the_error_must_stay_zero(tmp_path: Path) -> None:
    records = history({1: 0.1, 10: 0.2, 20: 0.25, 40: 0.4, 350: 0.5}, 10)
    records[2]["train_error"] = 0.01  # zero first at 10, for good from 40 on
    write_run(tmp_path / "a", config(), records)
    study = Study.read(tmp_path)
    (row,) = (entries(line) for line in table1.markdown(study, table1.TEST_ACCURACY).splitlines() if "VGG11" in line)
    assert row[2:] == ["40.00 (40)", "50.00 (350)", "+10.00"]
    line = next(csv.DictReader(io.StringIO(csv_of(study))))
    assert (line["first_zero_error"], line["stays_zero_error"]) == ("10", "40")


def test_robustness_has_a_table_only_where_it_was_recorded(study: Study, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    table1.write_table1(study, folder)
    assert "robustness" not in (folder / "table1.md").read_text()
    robust = history({1: 0.1, 10: 0.2, 350: 0.3}, 10, robustness={1: 0.01, 10: 0.02, 350: 0.05})
    write_run(tmp_path / "more" / "a", config(), robust)
    table1.write_table1(Study.read(tmp_path / "more"), folder)
    text = (folder / "table1.md").read_text().partition("# Adversarial")[2]
    (row,) = (entries(line) for line in text.splitlines() if "VGG11" in line)
    assert row == ["MNIST", "VGG11", "0.0200 (10)", "0.0500 (350)", "+0.0300"]
    assert "+0.1762 in the median and +0.9278 in the mean" in text
    assert (folder / "table1.tex").read_text().count(r"\begin{table}") == 2


def test_a_robustness_that_is_no_number_is_no_value(tmp_path: Path) -> None:
    """It is one when no image of the epoch could be attacked."""
    never = {1: float("nan"), 10: 0.02, 350: float("nan")}
    write_run(tmp_path / "a", config(), history({1: 0.1, 10: 0.2, 350: 0.3}, 10, robustness=never))
    study = Study.read(tmp_path)
    assert table1.improvements(study, "mse", "robustness") == []
    (row,) = (line for line in table1.markdown(study, table1.ROBUSTNESS).splitlines() if "VGG11" in line)
    assert entries(row) == ["MNIST", "VGG11", "0.0200 (10)", "–", "–"]
    line = next(csv.DictReader(io.StringIO(csv_of(study))))
    assert (line["robustness_zero_error"], line["robustness_last"], line["robustness_improvement"]) == ("0.02", "", "")


def check_latex(text: str) -> list[list[str]]:
    """Environments nest, braces and dollars balance, every row has as many columns as the table; the rows."""
    stack: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    bare = re.sub(r"\\.", "", text)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[#^_~<>|\"]", bare)
    (columns,) = set(re.findall(r"\\begin\{tabular\}\{(\w+)\}", text))
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    rows = [line.removesuffix(r" \\") for line in body.splitlines() if line.endswith(r"\\")]
    cells = [re.split(r"(?<!\\)&", row) for row in rows]
    assert {len(row) for row in cells} == {len(columns)}
    return [[cell.strip() for cell in row] for row in cells]


def test_latex_has_the_same_rows(study: Study) -> None:
    text = table1.latex(study, table1.TEST_ACCURACY)
    rows = check_latex(text)
    assert rows[0] == ["MNIST", "VGG11", "90.00 (10)", "91.00 (350)", "$+1.00$", "92.00 (10)", "91.00 (350)", "$-1.00$"]
    assert rows[-1][:5] == ["mean", "", "of 3 pairs", "", "$+3.00$"]
    assert len(rows) == 6 + 2
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\cmidrule(lr){6-8}"))


def test_what_a_data_set_is_called_breaks_no_format(tmp_path: Path) -> None:
    write_run(tmp_path / "a", config("npz", dataset_title=NASTY), history({1: 0.5, 350: 0.6}, 1))
    study = Study.read(tmp_path)
    (row, *_) = check_latex(table1.latex(study, table1.TEST_ACCURACY))
    assert row[0].startswith(r"A\&B\_50\% \#\{x\} \textbar{} {[}y{]} \textbackslash{}\$\textasciicircum{}")
    (line,) = (line for line in table1.markdown(study, table1.TEST_ACCURACY).splitlines() if "VGG11" in line)
    plain = re.sub(r"\\(.)", r"\1", entries(line)[0]).replace("&amp;", "&")
    assert (plain, len(entries(line))) == (NASTY, 5)
    assert next(csv.DictReader(io.StringIO(csv_of(study))))["dataset"] == NASTY


@given(text=st.text(min_size=1, max_size=30))
def test_any_text_is_escaped_to_balanced_latex_on_one_line(text: str) -> None:
    if not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u0085]", text):
        records = tuple(history({1: 0.5, 350: 0.6}, 1))
        run = StudyRun(RunRecords("a", text, text, text, 0, records=records), None, Status(status="finished"))
        assert len(check_latex(table1.latex(Study((run,)), table1.TEST_ACCURACY))) == 1 + 2


def test_csv_gives_every_number_back(study: Study) -> None:
    lines = list(csv.DictReader(io.StringIO(csv_of(study))))
    assert len(lines) == 2 * 3 * 2  # each network, data set and loss, run or not
    by_cell = {(line["dataset"], line["network"], line["loss"]): line for line in lines}
    for found in study.runs:
        line, last = by_cell[found.cell], found.records.last
        assert float(line["test_accuracy_last"]) == last["test_accuracy"]
        assert float(line["nc1_last"]) == last["nc1"]
        assert int(line["last_epoch"]) == last["epoch"]
        assert line["status"] == found.status.status
    best = by_cell["CIFAR10 (JPEG)", "VGG", "mse"]
    assert float(best["test_accuracy_improvement"]) == 0.46 - 0.40
    assert (best["stays_zero_error"], best["departures"]) == ("100", "width ×0.25; 150 epochs")
    assert by_cell["CIFAR10 (JPEG)", "ResNet", "mse"]["test_accuracy_improvement"] == ""
    absent = by_cell["CIFAR10 (JPEG)", "VGG", "ce"]
    assert {key: value for key, value in absent.items() if value} == {
        "dataset": "CIFAR10 (JPEG)",
        "network": "VGG",
        "loss": "ce",
        "status": "not run",
    }


def test_tables_have_the_mean_and_the_deviation_over_the_seeds_and_csv_every_seed(tmp_path: Path) -> None:
    for seed in (4, 2):
        records = history({1: 0.1 * seed, 2: 0.12 * seed, 350: 0.15 * seed}, 1 if seed == 2 else 2)
        write_run(tmp_path / f"{9 - seed}", config(seed=seed), records)
    study = Study.read(tmp_path)
    lines = list(csv.DictReader(io.StringIO(csv_of(study))))
    assert [(line["seed"], line["stays_zero_error"]) for line in lines] == [("2", "1"), ("4", "2")]
    text = table1.markdown(study, table1.TEST_ACCURACY)
    (row,) = (entries(line) for line in text.splitlines() if "VGG11" in line)
    # 20 and 48 at zero error, 30 and 60 at the end: deviations are those of two values, their distance over √2
    assert row[2:] == ["34.00 ± 19.80 (1–2)", "45.00 ± 21.21 (350)", "+11.00 ± 1.41"]
    assert "Means ± standard deviations over 2 seeds." in text
    (row, *_) = check_latex(table1.latex(study, table1.TEST_ACCURACY))
    assert row[2:] == [r"34.00 $\pm$ 19.80 (1--2)", r"45.00 $\pm$ 21.21 (350)", r"$+11.00 \pm 1.41$"]


@given(order=st.permutations(range(6)))
def test_the_order_of_the_folders_does_not_matter(order: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("study")
    models = ("vgg11", "resnet18", "densenet40", "mlp", "vgg11", "resnet18")
    for place, model in enumerate(models):
        accuracies = {1: 0.3 + 0.01 * place, 350: 0.5 + 0.02 * place}
        write_run(folder / str(order[place]), config("mnist" if place < 4 else "digits", model), history(accuracies, 1))
    text = csv_of(Study.read(folder))
    accuracies = [line["test_accuracy_last"] for line in csv.DictReader(io.StringIO(text))]
    expected = (
        [str(0.5 + 0.02 * place) for place in range(4)] + [str(0.5 + 0.02 * place) for place in (4, 5)] + ["", ""]
    )
    assert accuracies == expected
