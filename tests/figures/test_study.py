"""The figures of a study: seeds, bands, both losses in one panel, and captions that say what is shown and what not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from helpers.panels import beneath_counts
from helpers.studies import KEYS, config, history, write_run
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from neuralcollapse import InputError, figures
from neuralcollapse.figures import captions
from neuralcollapse.figures.captions import readable
from neuralcollapse.figures.metrics_over_epochs import draw_grid, draw_grids
from neuralcollapse.figures.study_runs import Study
from neuralcollapse.plots import style
from neuralcollapse.plots.options import Drawing
from neuralcollapse.study.study_file import add_to_study
from neuralcollapse.training.config import RunConfig

EPOCHS = (1, 5, 20, 100, 350)
ACCURACIES = {epoch: 0.5 + 0.001 * epoch for epoch in EPOCHS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two networks × two data sets × two losses × three seeds; one cell has one seed, one was not run, one diverged."""
    root = tmp_path_factory.mktemp("study")
    place = 0
    for dataset, model in (("mnist", "vgg11"), ("mnist", "resnet18"), ("cifar10", "vgg11")):
        for loss in ("mse", "ce"):
            for seed in (0, 1, 2) if (dataset, model) != ("cifar10", "vgg11") else (0,):
                place += 1
                path = root / f"{99 - place}"
                settings = config(dataset, model, loss, seed=seed, width=0.25)
                if (dataset, model, loss) == ("mnist", "resnet18", "ce"):
                    write_run(path, settings, history({1: 0.5, 5: 0.6}, None), "diverged", epoch=6)
                else:
                    factor = (seed + 1) * (10.0 if loss == "ce" else 1.0)
                    write_run(path, settings, history(ACCURACIES, 20, factor))
    return root


def panels(folder: Path, name: str) -> tuple[dict[tuple[str, str], list[Axes]], str]:
    """The panels of each cell from top to bottom, and the caption."""
    study = Study.read(folder)
    figure, caption = draw_grid(study, name, Drawing())
    found: dict[tuple[str, str], list[Axes]] = {}
    for ax in figure.axes:
        spec = ax.get_subplotspec()
        rows = spec.get_gridspec().nrows // len(study.networks)
        cell = study.networks[spec.rowspan.start // rows], study.datasets[spec.colspan.start]
        found.setdefault(cell, []).append(ax)
    return found, readable(caption)


def test_losses_share_a_panel_with_means_and_bands_over_the_seeds(folder: Path) -> None:
    found, caption = panels(folder, "nc1")
    assert list(found) == [("VGG", "MNIST"), ("ResNet", "MNIST"), ("VGG", "CIFAR10 (JPEG)")]
    (ax,) = found["VGG", "MNIST"]
    place = 2 + KEYS.index("nc1")
    thick = {to_hex(each.get_color()): each for each in ax.lines if each.get_gid() == "curve" and not each.get_alpha()}
    for loss, factor in (("mse", 1), ("ce", 10)):
        mean = np.array([factor * place * 6 ** (1 / 3) / epoch for epoch in EPOCHS])  # geometric, of 1, 2, 3
        np.testing.assert_allclose(thick[style.COLORS[loss].lower()].get_ydata(), mean)
    assert sum(each.get_gid() == "curve" and each.get_alpha() == 0.5 for each in ax.lines) == 6
    assert len(ax.collections) == 2
    (alone,) = found["VGG", "CIFAR10 (JPEG)"]
    assert not alone.collections
    assert {tuple(panel.get_ylim()) for (panel,) in found.values()} == {tuple(ax.get_ylim())}
    assert {tuple(panel.get_xlim()) for (panel,) in found.values()} == {tuple(ax.get_xlim())}
    assert [text.get_text() for text in (*ax.texts, *alone.texts) if text.get_gid() == "n"] == ["n = 3"]
    assert "n = 1 to 3 seeds, written in each panel of several: lines are means over the seeds, geometric" in caption


def test_the_number_of_seeds_is_written_over_nothing_in_the_committed_study() -> None:
    committed, drawing = Study.read(Path(__file__).parents[2] / "results" / "paper-regime"), Drawing()
    study = Study(tuple(run for run in committed.runs if run.network in ("VGG", "ResNet")))
    with matplotlib.rc_context(style.rc(drawing)):
        figure, _ = draw_grid(study, "accuracy", drawing)
        figure.draw_without_rendering()  # type: ignore[no-untyped-call]
    counted = [ax for ax in figure.axes if any(text.get_gid() == "n" for text in ax.texts)]
    assert len(counted) == 16 and not [beneath_counts(ax) for ax in counted if beneath_counts(ax)]


def test_captions_say_what_was_not_run_what_has_ended_and_what_is_reduced(folder: Path) -> None:
    _, caption = panels(folder, "nc1")
    assert "Not run: ResNet on CIFAR10 (JPEG)." in caption
    assert "Not at their end: diverged after epoch 6 (ResNet with cross-entropy)." in caption
    assert "Reduced: not the paper's protocol" in caption and "but width ×0.25" in caption
    assert "Open triangles: the first measured epoch without a training error" in caption


def test_the_decomposition_has_the_share_in_a_row_of_its_own_and_is_about_mse(folder: Path) -> None:
    found, caption = panels(folder, "decomposition")
    parts, share = found["ResNet", "MNIST"]
    assert parts.get_position().height > share.get_position().height
    (mean,) = (each for each in share.lines if each.get_gid() == "curve" and not each.get_alpha())
    assert mean.get_ydata()[0] == pytest.approx((2 + KEYS.index("mse.ls_perp")) / (2 + KEYS.index("mse.total")))
    assert "cross-entropy" not in caption


def test_nc2_is_three_rows_for_each_network_and_empty_figures_are_not_written(folder: Path, tmp_path: Path) -> None:
    written = draw_grids(Study.read(folder), tmp_path, Drawing(format=("svg",)))
    names = [path.stem for path in written if path.suffix == ".svg"]
    assert names == ["decomposition", "nc1", "nc2-vgg", "nc2-resnet", "nc3", "nc4", "accuracy"]
    assert "ResNet" not in (tmp_path / "nc2-vgg.txt").read_text()


def test_test_errors_have_a_linear_axis_of_each_data_set(folder: Path) -> None:
    found, _ = panels(folder, "accuracy")
    training, test = found["VGG", "MNIST"]
    assert (training.get_yscale(), test.get_yscale(), test.get_ylim()[0]) == ("log", "linear", 0)


def test_the_lowest_edges_and_titles_of_panels_do_not_touch(folder: Path) -> None:
    figure, _ = draw_grid(Study.read(folder), "nc1", Drawing())
    figure.draw_without_rendering()
    top = figure.axes[0]
    title = top.title.get_window_extent()
    marks = [
        each.get_window_extent() for each in top.lines if each.get_gid() in ("first zero error", "error stays zero")
    ]
    assert marks and all(mark.y1 <= title.y0 + 1 for mark in marks)


def test_files_do_not_depend_on_the_names_of_folders(folder: Path, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "other"
    for path in sorted(folder.iterdir()):
        if (path / "config.json").exists():
            shutil.copytree(path, other / f"{100 - int(path.name)}")
    drawn = [draw_grid(Study.read(each), "nc1", Drawing())[1] for each in (folder, other)]
    assert drawn[0] == drawn[1]


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
        ({"num_examples": 49_990}, ("4,999 examples a class",)),
        ({"width": 0.5}, ("width ×0.5",)),
        ({"epochs": 349}, ("349 epochs",)),
        ({"model": "vgg13"}, ("VGG13 for VGG11",)),
        ({"dataset": "svhn", "model": "vgg13", "num_examples": 46_000}, ("rate 0.0051",)),
        ({"dataset": "digits", "num_examples": 300, "examples_per_class": 30}, ("30 examples a class",)),
        ({"dataset": "digits", "num_examples": 1497}, ()),
        ({"model": "torchvision:vgg11_bn"}, ()),
    ],
)
def test_each_departure_from_the_paper_is_named(tmp_path: Path, changes: dict[str, Any], said: tuple[str, ...]) -> None:
    settings = RunConfig.from_json({**config().to_json(), **changes}, "test")
    write_run(tmp_path / "a", settings, history({1: 0.5, settings.epochs: 0.6}, 1))
    (found,) = Study.read(tmp_path).runs
    assert found.departures == said


def test_where_something_holds_is_said_in_few_words(tmp_path: Path) -> None:
    cells = [
        (dataset, model, loss)
        for dataset in ("mnist", "cifar10")
        for model in ("vgg11", "mlp")
        for loss in ("mse", "ce")
    ]
    for place, cell in enumerate(cells):
        write_run(tmp_path / str(place), config(*cell), history(ACCURACIES, 20))
    runs = Study.read(tmp_path).runs
    for wanted, expected in (
        (lambda run: run.cell[0] == "MNIST", "MNIST"),
        (lambda run: run.cell[1] == "mlp", "mlp"),
        (lambda run: run.cell[2] == "ce", "cross-entropy"),
        (lambda run: run.cell[:2] == ("MNIST", "VGG"), "VGG on MNIST"),
        (lambda run: run.cell[1:] == ("VGG", "mse"), "VGG with MSE"),
        (lambda run: run.cell[0] == "MNIST" and run.cell[2] == "ce", "MNIST with cross-entropy"),
    ):
        assert captions.where([run for run in runs if wanted(run)], runs) == expected


def test_the_same_data_set_under_two_titles_is_two_columns_in_the_papers_order(tmp_path: Path) -> None:
    names = (
        ("mine", "$ mine"),
        ("digits", "digits"),
        ("cifar10", "CIFAR10"),
        ("cifar10", "CIFAR10 (JPEG)"),
        ("mnist", "MNIST"),
    )
    for place, (dataset, title) in enumerate(names):
        write_run(tmp_path / str(place), config(dataset, dataset_title=title), history(ACCURACIES, 20))
    assert Study.read(tmp_path).datasets == ["MNIST", "CIFAR10", "CIFAR10 (JPEG)", "digits", "$ mine"]


def test_what_study_json_lists_is_the_study(tmp_path: Path) -> None:
    for seed, name in enumerate(("group/a", "b")):
        write_run(tmp_path / name, config(seed=seed), history(ACCURACIES, 20))
    with pytest.raises(InputError, match="name the folders to read, such as"):
        figures.draw(tmp_path)
    assert not list(tmp_path.rglob("figures"))
    add_to_study(tmp_path, ["group/a", "b", "not-begun"])
    assert [run.records.seed for run in Study.read(tmp_path).runs] == [0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0.5, "epochs": 20}, "differ in epochs, width"),
        ({"model": "vgg13", "seed": 1}, "differ in model"),
        ({}, "the same seed, 0"),
        ({"device": "cuda", "precision": "bf16"}, "the same seed, 0"),
    ],
)
def test_two_runs_for_one_place_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_run(tmp_path / "first", config(), history(ACCURACIES, 20))
    write_run(tmp_path / "second", config(**changes), history({1: 0.5}, 1))
    with pytest.raises(InputError, match=rf"first and .*second are both VGG on MNIST with MSE, .*{message}"):
        figures.draw(tmp_path)


def test_a_damaged_line_of_a_history_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", config(), history({1: 0.5, 350: 0.6}, 1))
    (run / "history.jsonl").write_text((run / "history.jsonl").read_text().replace('"epoch": 1,', '"epoch": "one",'))
    for path in (run, tmp_path):
        with pytest.raises(InputError, match=r"history\.jsonl, record 1: expected an epoch"):
            figures.draw(path)


def test_nothing_is_written_for_what_is_no_study(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "study/b")):
        write_run(tmp_path / name, config(seed=seed), history(ACCURACIES, 20))
    with pytest.raises(InputError, match="name the folders to read, such as"):
        figures.draw(tmp_path)
    assert not list(tmp_path.rglob("figures"))
