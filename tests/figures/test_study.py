"""The figures of a study show what its run directories hold, and say of each panel what it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.studies import KEYS, config, history, write_run
from matplotlib.axes import Axes

from neuralcollapse import InputError, figures
from neuralcollapse.figures import study as drawing
from neuralcollapse.figures.study_runs import Study
from neuralcollapse.study.study_file import add_to_study
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.losses import LOSSES

EPOCHS = (1, 5, 20, 100, 350)
ACCURACIES = {epoch: 0.5 + 0.001 * epoch for epoch in EPOCHS}
DATASETS = ("mnist", "fashion-mnist", "cifar10", "digits")
DEPTHS = {  # the paper's
    "mnist": ("vgg11", "resnet18", "densenet40"),
    "fashion-mnist": ("vgg11", "resnet18", "densenet250"),
    "cifar10": ("vgg11", "resnet50", "densenet100"),
    "digits": ("vgg11", "resnet18", "densenet40"),
}
FACTORS = {name: 1.0 + place for place, name in enumerate(DATASETS)}


def build(folder: Path, *, order: int = 1) -> Path:
    """Three networks × four data sets in two levels of folders, as study.json says; names sort forwards or backwards.

    One cell is absent, one diverged, one unfinished, one without an epoch, and one reduced.
    """
    place = 0
    for dataset in DATASETS:
        for model in DEPTHS[dataset]:
            place += order
            path = folder / f"group{place % 2}" / f"{100 + place}"
            records = history(ACCURACIES, zero=20, factor=FACTORS[dataset])
            match dataset, model:
                case "cifar10", "densenet100":
                    continue
                case "mnist", "densenet40":
                    write_run(path, config(dataset, model), history({1: 0.5, 2: 0.6}, None), "diverged", epoch=3)
                case "fashion-mnist", "resnet18":
                    write_run(path, config(dataset, model, num_examples=60_000), records[:3], "running", epoch=31)
                case "fashion-mnist", "vgg11":
                    write_run(path, config(dataset, model, num_examples=60_000), [], "running")
                case "mnist", "vgg11":
                    reduced = config(dataset, model, num_examples=3000, width=0.25, epochs=150)
                    write_run(path, reduced, history({1: 0.5, 20: 0.6, 150: 0.7}, 20))
                case _:
                    full = 60_000 if dataset == "fashion-mnist" else 50_000
                    write_run(path, config(dataset, model, num_examples=full), records)
    listed = sorted(str(path.parent.relative_to(folder)) for path in folder.glob("*/*/config.json"))
    add_to_study(folder, [*listed, "not-begun"])
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("study"))


def panels(folder: Path, name: str, loss: str = "mse") -> dict[tuple[str, str], Axes]:
    study = Study.read(folder)
    axes = drawing.draw_panels(study, loss, name).axes
    keys = [(network, dataset) for network in study.networks for dataset, _ in study.datasets]
    return dict(zip(keys, axes, strict=True))


def texts(axes: Axes) -> list[str]:
    """Title and what is written into the panel, as one reads it."""
    found = [axes.get_title(), *(text.get_text() for text in axes.texts)]
    return [text.replace("\n", " ").replace("\N{NO-BREAK SPACE}", " ") for text in found]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("decomposition", ("mse.total", "mse.nc1", "mse.nc23", "mse.ls_perp")),
        ("nc1", ("nc1",)),
        ("nc2-equinorm", ("nc2.equinorm_means", "nc2.equinorm_classifier")),
        ("nc2-equiangularity", ("nc2.equiangularity_means", "nc2.equiangularity_classifier")),
        ("nc2-maximal-angle", ("nc2.maximal_angle_means", "nc2.maximal_angle_classifier")),
        ("nc3", ("nc3",)),
    ],
)
def test_each_panel_shows_the_numbers_of_its_own_run(folder: Path, name: str, keys: tuple[str, ...]) -> None:
    found = panels(folder, name)
    assert [pair for pair in found] == [
        (network, dataset) for network in ("vgg", "resnet", "densenet") for dataset in DATASETS
    ]
    for network, dataset in (("vgg", "cifar10"), ("resnet", "mnist"), ("densenet", "digits")):
        *curves, zero = found[network, dataset].lines
        for line, key in zip(curves, keys, strict=True):
            assert list(line.get_xdata()) == list(EPOCHS)
            assert list(line.get_ydata()) == [FACTORS[dataset] * (2 + KEYS.index(key)) / epoch for epoch in EPOCHS]
        assert list(zero.get_xdata()) == [20, 20]
    diverged, unfinished = found["densenet", "mnist"], found["resnet", "fashion-mnist"]
    assert list(diverged.lines[0].get_xdata()) == [1, 2]
    assert list(unfinished.lines[0].get_xdata()) == [1, 5, 20]
    assert len(diverged.lines) == len(keys)  # no red line: it never came to zero error


def test_errors_and_nc4_are_shown_down_to_zero(folder: Path) -> None:
    training, test, _ = panels(folder, "accuracy")["resnet", "mnist"].lines
    assert list(training.get_ydata()) == [0.023, 0.023, 0.0, 0.0, 0.0]
    assert list(test.get_ydata()) == pytest.approx([1 - value for value in ACCURACIES.values()])
    mismatch = panels(folder, "nc4")["resnet", "mnist"].lines[0]
    assert list(mismatch.get_ydata()) == [0.1 / epoch for epoch in EPOCHS]


def test_every_panel_says_what_it_is(folder: Path) -> None:
    found = {pair: texts(axes) for pair, axes in panels(folder, "nc1").items()}
    assert found["densenet", "cifar10"] == ["", "not run"]
    assert found["vgg", "fashion-mnist"] == ["VGG11", "unfinished: epoch 0 of 350", "FashionMNIST"]
    assert found["densenet", "mnist"] == ["DenseNet40 diverged after epoch 3"]
    assert found["resnet", "fashion-mnist"] == ["ResNet18 unfinished: epoch 31 of 350"]
    assert found["vgg", "mnist"] == ["VGG11 300 a class, width ×0.25, 150 epochs", "MNIST"]
    assert found["resnet", "cifar10"] == ["ResNet50"]


def test_an_empty_cell_is_gray_and_shares_the_scale(folder: Path) -> None:
    found = panels(folder, "nc1")
    absent, present = found["densenet", "cifar10"], found["resnet", "cifar10"]
    assert absent.get_facecolor() != present.get_facecolor()
    assert {axes.get_ylim() for axes in found.values()} == {present.get_ylim()}
    assert {axes.get_xlim() for axes in found.values()} == {present.get_xlim()}
    low, high = present.get_ylim()
    for axes in found.values():
        for line in axes.lines:
            if line.get_label() != "_zero_error":
                assert all(low <= value <= high for value in line.get_ydata())


def test_only_the_outer_panels_carry_labels_and_one_legend_stands_below(folder: Path) -> None:
    study = Study.read(folder)
    figure = drawing.draw_panels(study, "mse", "decomposition")
    for place, axes in enumerate(figure.axes):
        row, column = divmod(place, 4)
        assert axes.get_ylabel() == (["VGG", "ResNet", "DenseNet"][row] if column == 0 else "")
        assert axes.get_xlabel() == ("epoch" if row == 2 else "")
        assert axes.get_legend() is None
        assert bool(axes.yaxis.get_tick_params(which="major")["labelleft"]) == (column == 0)
        assert bool(axes.xaxis.get_tick_params(which="major")["labelbottom"]) == (row == 2)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][-1] == "zero training error"
    assert len(legend.get_texts()) == 5
    assert "REDUCED" in figure.get_suptitle()


def test_a_study_of_the_papers_own_protocol_is_not_called_reduced(tmp_path: Path) -> None:
    write_run(tmp_path / "a", config(), history(ACCURACIES, 20))
    assert "REDUCED" not in drawing.draw_panels(Study.read(tmp_path), "mse", "decomposition").get_suptitle()


def test_the_papers_networks_are_rows_whether_run_or_not(tmp_path: Path) -> None:
    write_run(tmp_path / "a", config("cifar10", "resnet50"), history(ACCURACIES, 20))
    found = panels(tmp_path, "nc1")
    assert list(found) == [(network, "cifar10") for network in ("vgg", "resnet", "densenet")]
    assert "not run" in texts(found["vgg", "cifar10"]) and "not run" in texts(found["densenet", "cifar10"])
    write_run(tmp_path / "b", config("cifar10", "mlp"), history(ACCURACIES, 20))
    assert Study.read(tmp_path).networks == ("vgg", "resnet", "densenet", "mlp")
    shutil.rmtree(tmp_path / "a")
    assert Study.read(tmp_path).networks == ("mlp",)


# rates and decay of the published table for PyTorch's mean, times 2/C and C/2 for the paper's loss, C = 10
VGG11 = {"learning_rate": 0.0051039236, "weight_decay": 2.5e-3, "milestones": [0.333, 0.667]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (VGG11, ()),
        ({"loss": "mse-torch", "learning_rate": 0.025519618, "weight_decay": 5e-4}, ()),
        ({"loss": "ce", "learning_rate": 0.0679, "weight_decay": 5e-4}, ()),
        ({**VGG11, "learning_rate": 0.01}, ("rate 0.01",)),
        ({**VGG11, "weight_decay": 5e-4}, ("decay 0.0005",)),
        ({**VGG11, "momentum": 0.0, "batch_size": 64}, ("momentum 0", "batch 64")),
        ({**VGG11, "milestones": [0.6, 0.85]}, ("milestones 0.6 0.85",)),
        ({**VGG11, "milestones": []}, ("no milestones",)),
        ({"model": "resnet18", **VGG11}, ("rate 0.0051",)),  # ResNet's is 0.0036840314
        ({"model": "mlp", **VGG11, "learning_rate": 0.01}, ()),  # the paper has no rate for it
        ({"dataset": "digits", **VGG11, "learning_rate": 0.03, "weight_decay": 0.01}, ("decay 0.01",)),
        ({"loss": "of a later version", "learning_rate": 0.03}, ()),
        (
            {**VGG11, "optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01},
            ("AdamW (decay 0.01)", "rate 0.001"),
        ),
    ],
)
def test_what_is_not_the_papers_sgd_is_named(tmp_path: Path, changes: dict[str, Any], said: tuple[str, ...]) -> None:
    write_run(tmp_path / "a", RunConfig.from_json({**config().to_json(), **changes}, "test"), history(ACCURACIES, 20))
    (found,) = Study.read(tmp_path).runs
    assert found.departures == said


def test_what_all_runs_share_is_said_once_in_the_head(tmp_path: Path) -> None:
    shared = {"width": 0.25, "weight_decay": 0.005, "batch_size": 64}
    write_run(tmp_path / "a", config(**shared), history(ACCURACIES, 20))
    write_run(tmp_path / "b", config(model="resnet18", **shared), history(ACCURACIES, 20))
    head = drawing.draw_panels(Study.read(tmp_path), "mse", "nc1").get_suptitle()
    assert " ".join(head.split()).endswith("and 350 epochs of tuned SGD; everywhere width ×0.25, decay 0.005, batch 64")
    write_run(tmp_path / "c", config("cifar10", epochs=150, **shared), history({1: 0.5, 150: 0.6}, 1))
    head = drawing.draw_panels(Study.read(tmp_path), "mse", "nc1").get_suptitle()
    assert " ".join(head.split()).endswith("width ×0.25, decay 0.005, batch 64; each panel says what else")
    found = panels(tmp_path, "nc1")
    assert texts(found["vgg", "mnist"])[0] == "VGG11"
    assert texts(found["vgg", "cifar10"])[0] == "VGG11 150 epochs"


def test_the_decomposition_is_drawn_for_the_losses_whose_optimum_it_is_about() -> None:
    assert [name for name, loss in LOSSES.items() if loss.decomposed] == ["mse", "mse-torch"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_examples": 49_990}, "VGG11 4,999 a class"),
        ({"width": 0.5}, "VGG11 width ×0.5"),
        ({"epochs": 349}, "VGG11 349 epochs"),
        ({"model": "vgg13"}, "VGG13; the paper's is VGG11"),
        ({"dataset": "svhn", "model": "vgg13", "num_examples": 46_000}, "VGG13"),
        ({"dataset": "stl10", "num_examples": 5_000}, "VGG11"),
        ({"dataset": "svhn", "num_examples": 45_990}, "VGG11; the paper's is VGG13 4,599 a class"),
        ({"dataset": "digits", "num_examples": 300, "examples_per_class": 30}, "VGG11 30 a class"),
        ({"dataset": "digits", "num_examples": 1497}, "VGG11"),
        ({"model": "mlp"}, "mlp"),
        ({"model": "torchvision:vgg11_bn"}, "torchvision:vgg11_bn"),
    ],
)
def test_each_way_to_fall_short_of_the_paper_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    settings = config(**changes)
    write_run(tmp_path / "a", settings, history({1: 0.5, settings.epochs: 0.6}, 1))
    figure = drawing.draw_panels(Study.read(tmp_path), "mse", "nc1")
    assert texts(figure.axes[0])[0] == said
    assert ("REDUCED" in figure.get_suptitle()) == (said not in ("VGG11", "VGG13", "mlp", "torchvision:vgg11_bn"))


def test_the_lowest_of_several_seeds_is_drawn_and_that_is_said(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 3), ("c", 5)):
        write_run(tmp_path / name, config(seed=seed), history(ACCURACIES, 20, factor=seed))
    axes = panels(tmp_path, "nc1")["vgg", "mnist"]
    assert texts(axes)[0] == "VGG11 seed 3, the lowest of 3"
    assert next(iter(axes.lines[0].get_ydata())) == 3 * (2 + KEYS.index("nc1"))


def test_the_same_data_set_under_two_titles_is_two_columns_in_the_papers_order(tmp_path: Path) -> None:
    for place, (dataset, title) in enumerate(
        (
            ("mine", "$ mine"),
            ("digits", "digits"),
            ("cifar10", "CIFAR10"),
            ("cifar10", "CIFAR10 (JPEG)"),
            ("mnist", "MNIST"),
        )
    ):
        write_run(tmp_path / str(place), config(dataset, dataset_title=title), history(ACCURACIES, 20))
    found = Study.read(tmp_path)
    assert [title for _, title in found.datasets] == ["MNIST", "CIFAR10", "CIFAR10 (JPEG)", "digits", "$ mine"]


def test_files_are_the_same_whatever_the_folders_are_called(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(drawing, "CURVES", {"decomposition": drawing.CURVES["decomposition"]})  # one is enough here
    other = build(tmp_path / "other", order=-1)
    first = figures.draw_study(folder, tmp_path / "first")
    again = figures.draw_study(other)
    assert {path.parent for path in again} == {other / "figures"}
    names = ["decomposition.png", "decomposition.svg"]
    assert [path.name for path in first] == [*names, "table1.md", "table1.tex", "table1.csv"]
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert len(Study.read(other).runs) == 11  # the pictures are no runs


def test_cross_entropy_has_figures_of_its_own_without_the_decomposition(tmp_path: Path, monkeypatch: Any) -> None:
    some = ("decomposition", "nc1", "robustness")
    monkeypatch.setattr(drawing, "CURVES", {name: drawing.CURVES[name] for name in some})
    robustness = {epoch: 0.1 + 0.001 * epoch for epoch in EPOCHS}
    write_run(tmp_path / "runs" / "a", config(), history(ACCURACIES, 20))
    write_run(tmp_path / "runs" / "b", config(loss="ce"), history(ACCURACIES, 5, 2.0, robustness))
    names = [path.name for path in figures.draw(tmp_path / "runs") if path.suffix == ".png"]
    assert names == ["decomposition.png", "nc1.png", "nc1-ce.png", "robustness-ce.png"]
    axes = panels(tmp_path / "runs", "robustness", "ce")["vgg", "mnist"]
    mean, median, _ = axes.lines
    assert list(mean.get_ydata()) == list(robustness.values())
    assert list(median.get_ydata()) == [value / 2 for value in robustness.values()]
    absent = panels(tmp_path / "runs", "robustness", "mse")["vgg", "mnist"]
    assert "robustness not recorded" in texts(absent)


def test_a_run_with_robustness_has_it_among_its_figures(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("neuralcollapse.figures.run.CURVES", {})
    run = write_run(tmp_path / "a", config(), history(ACCURACIES, 20, robustness=dict.fromkeys(EPOCHS, 0.1)))
    with pytest.warns(UserWarning, match="no snapshots"):
        names = {path.name for path in figures.draw(run)}
    assert "robustness.svg" in names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0.5, "epochs": 20}, "differ in epochs, width"),
        ({"model": "vgg13", "seed": 1}, "differ in model"),
        ({}, "the same seed, 0"),
        ({"device": "cuda", "precision": "bf16"}, "the same seed, 0"),
    ],
)
def test_two_runs_for_one_panel_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_run(tmp_path / "first", config(), history(ACCURACIES, 20))
    write_run(tmp_path / "second", config(**changes), history({1: 0.5}, 1))
    with pytest.raises(InputError, match=rf"first and .*second are both VGG on MNIST with MSE, .*{message}"):
        figures.draw(tmp_path)


def test_a_damaged_line_of_a_history_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", config(), history({1: 0.5, 350: 0.6}, 1))
    lines = (run / "history.jsonl").read_text().replace('"nc1":', '"nc":')
    (run / "history.jsonl").write_text(lines)
    for path in (run, tmp_path):
        with pytest.raises(InputError, match=r"history\.jsonl, line 1: nc1"):
            figures.draw(path)


def test_nothing_is_written_for_what_is_no_study(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "study/b")):
        write_run(tmp_path / name, config(seed=seed), history(ACCURACIES, 20))
    with pytest.raises(InputError, match="name the folders to read, such as"):
        figures.draw(tmp_path)
    assert not list(tmp_path.rglob("figures"))
