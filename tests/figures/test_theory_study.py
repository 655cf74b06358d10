"""A study against the closed forms: networks that follow one of the flows exactly are told by the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.studies import config, history, write_run
from matplotlib.figure import Figure

import neuralcollapse as nc
from neuralcollapse import InputError, figures
from neuralcollapse.figures import theory_study
from neuralcollapse.figures.study_runs import Study
from neuralcollapse.figures.theory_study import fit_study
from neuralcollapse.plots.options import Drawing
from neuralcollapse.study.study_file import add_to_study
from neuralcollapse.training.run_directory import Run

EPOCHS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 30, 50, 80, 120, 200, 350])
START = np.linspace(6.0, 2.0, 9)
ZERO = 80


def omega(kind: str) -> np.ndarray:
    """(e, 9) singular values along a flow, at times that no network's would be."""
    times = 3e5 * (EPOCHS - 1.0) ** 1.3
    if kind == "none":
        return START * EPOCHS[:, None] ** 0.75
    path = nc.CentralPath(START, num_classes=10, samples_per_class=5000, flow=kind)  # type: ignore[arg-type]
    return path.singular_values(times)


def add_run(root: Path, name: str, model: str, kind: str, **changes: object) -> None:
    lines = history(dict.fromkeys(EPOCHS.tolist(), 0.9), ZERO)
    for line, row in zip(lines, omega(kind), strict=True):
        line |= {"snr": row.tolist(), "num_examples": 50_000, "num_classes": 10}
    write_run(root / name, config(model=model, **changes), lines)
    add_to_study(root, [name])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("flows")
    for seed in (0, 1, 2):
        add_run(root, f"vgg-{seed}", "vgg11", "projected", seed=seed)
    add_run(root, "resnet", "resnet18", "multiplicative")
    add_run(root, "fashion", "vgg11", "none", dataset="fashion-mnist")
    add_run(root, "ce", "vgg11", "none", loss="ce")
    return root


def test_each_network_is_nearest_to_the_flow_that_it_follows(folder: Path, tmp_path: Path) -> None:
    table, written = figures.compare_study(folder, tmp_path, Drawing(format=("svg",)))
    rows = {(row["dataset"], row["network"]): row for row in table.to_dict("records")}
    follows = {("MNIST", "VGG11"): "projected", ("MNIST", "ResNet18"): "multiplicative"}
    follows[("FashionMNIST", "VGG11")] = "none"
    assert set(rows) == set(follows) and rows["MNIST", "VGG11"]["n"] == 3
    for cell, own in follows.items():
        for flow in ("projected", "multiplicative", "none"):
            for late in ("", " from the tenth"):
                off = rows[cell][flow + late]
                assert off < 1e-6 if flow == own else off > 1e-3, (cell, flow, late, off)
    assert rows["FashionMNIST", "VGG11"]["exponent"] == pytest.approx(0.75)
    assert rows["FashionMNIST", "VGG11"]["growth"] == pytest.approx(350**0.75)
    for when in ("first", "least", "last"):
        assert rows["FashionMNIST", "VGG11"][f"max/min {when}"] == pytest.approx(3.0)
    assert rows["MNIST", "VGG11"]["max/min last"] == pytest.approx(
        float(omega("projected")[-1].max() / omega("projected")[-1].min())
    )
    assert {path.name for path in written} == {
        f"theory-{of}.{end}" for of in ("vgg", "resnet") for end in ("svg", "tex", "txt")
    }
    caption = (tmp_path / "theory-vgg.txt").read_text(encoding="utf-8")
    assert "up to 3 seeds" in caption and "cross-entropy" not in caption
    assert "of log(ω_j/ω_j^path) for" in caption and "Triangles and vertical lines: of seed 0." in caption
    assert "\\" not in caption


def test_the_exponent_is_that_of_the_epochs_before_the_error_is_zero(folder: Path) -> None:
    """Independent: between two epochs alone, for a power law it does not matter which."""
    (fit,) = [each for each in fit_study(Study.read(folder)) if each.run.records.dataset == "FashionMNIST"]
    values = omega("none").mean(axis=1)
    first, last = list(EPOCHS).index(10), list(EPOCHS).index(ZERO)
    expected = np.log(values[last] / values[first]) / np.log(EPOCHS[last] / EPOCHS[first])
    assert fit.row()["exponent"] == pytest.approx(expected)


def test_the_distance_is_told_apart_by_that_from_the_path(tmp_path: Path) -> None:
    """L⊥_LS/L of 10 % at five epochs, 5 % at one, 1 % later; one factor for all is the best of any."""
    add_run(tmp_path, "run", "vgg11", "multiplicative")
    lines = Run.open(tmp_path / "run").history()
    for line, share in zip(lines, [0.1] * 5 + [0.05] + [0.01] * 13, strict=True):
        line |= {"mse.ls_perp": share * 0.2, "mse.total": 0.2}
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "run" / "history.jsonl").write_text(text, encoding="utf-8")
    (fit,) = fit_study(Study.read(tmp_path))
    row, off = fit.row(), fit.fits["projected"].residual
    assert row["projected off the path"] == np.median(off[1:6])
    assert row["projected near the path"] == np.median(off[6:])
    grown = np.log(omega("multiplicative") / START)
    least = [min(np.sqrt(np.mean((each - at) ** 2)) for at in np.linspace(0, 9, 9001)) for each in grown[1:]]
    assert row["one factor"] == pytest.approx(np.median(least), rel=1e-4)


def test_the_legend_names_an_event_that_one_panel_alone_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_run(tmp_path, "mnist", "vgg11", "projected")
    add_run(tmp_path, "fashion", "vgg11", "none", dataset="fashion-mnist")
    lines = Run.open(tmp_path / "fashion").history()
    back = next(line for line in lines if line["epoch"] > ZERO)  # its error comes back once
    back["train_error"], back["train_accuracy"] = 0.25, 0.75
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "fashion" / "history.jsonl").write_text(text, encoding="utf-8")
    legends: list[list[str]] = []

    def keep(figure: Figure, *_: object) -> list[Path]:
        legends.append([entry.get_text() for legend in figure.legends for entry in legend.get_texts()])
        return []

    monkeypatch.setattr(theory_study, "write_figure", keep)
    figures.compare_study(tmp_path, tmp_path)
    assert {"first zero error", "error stays zero", "network"} <= set(legends[0])
    assert len(legends[0]) == len(set(legends[0]))


@pytest.mark.parametrize("wrong", [float("inf"), 0.0])
def test_a_run_that_cannot_be_fitted_costs_the_others_nothing(wrong: float, tmp_path: Path) -> None:
    add_run(tmp_path, "good", "vgg11", "projected")
    add_run(tmp_path, "broken", "resnet18", "projected")
    lines = Run.open(tmp_path / "broken").history()
    for line in lines:
        line["snr"][0 if wrong else -1] = wrong
    text = "".join(json.dumps(line) + "\n" for line in lines).replace("Infinity", '"inf"')
    (tmp_path / "broken" / "history.jsonl").write_text(text, encoding="utf-8")
    with pytest.warns(UserWarning, match="broken is left out: expected|the fit leaves out epochs"):
        (found,) = fit_study(Study.read(tmp_path))
    assert found.run.records.run == "good"


def test_one_measured_epoch_is_no_flow(tmp_path: Path) -> None:
    write_run(tmp_path / "run", config(model="vgg11"), history({1: 0.9}, ZERO)[:1])
    add_to_study(tmp_path, ["run"])
    with pytest.raises(InputError, match="has two measured epochs"), pytest.warns(UserWarning, match="one measured"):
        fit_study(Study.read(tmp_path))


def test_cross_entropy_alone_is_refused(tmp_path: Path) -> None:
    add_run(tmp_path, "ce", "vgg11", "none", loss="ce")
    with pytest.raises(InputError, match="no run trained with the MSE loss"):
        figures.compare_study(tmp_path)
    assert not (tmp_path / "figures").exists()
