"""In every style, whatever stands around the panels of a figure lies on the canvas: titles and legends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import pytest
from helpers.run_directories import make_run, record
from helpers.studies import config, history, write_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neuralcollapse import figures
from neuralcollapse.figures import metrics_over_epochs, overview, theory, theory_study
from neuralcollapse.plots import style
from neuralcollapse.plots.options import Drawing


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [{**record(epoch), "num_examples": 1000, "num_classes": 5} for epoch in (1, 2, 5, 10, 30)]
    return make_run(tmp_path_factory.mktemp("run") / "run", lines).path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    for dataset in ("mnist", "fashion-mnist", "cifar10", "digits"):
        for loss in ("mse", "ce"):
            for seed in (0, 1):
                lines = history({1: 0.5, 20: 0.9, 350: 1.0}, 20, seed + 1.0)
                for line in lines:
                    snr = [rank * line["epoch"] ** (0.5 + 0.01 * rank) for rank in range(9, 0, -1)]
                    line |= {"snr": snr, "num_examples": 1000, "num_classes": 10}
                settings = config(dataset, "resnet18", loss, seed=seed)
                write_run(root / f"{dataset}-{loss}-{seed}", settings, lines)
    return root


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """The figures, by name, in place of their files."""
    found: dict[str, Figure] = {}

    def keep(figure: Figure, folder: Path, name: str, caption: str, drawing: Drawing) -> list[Path]:
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
        found[name] = figure
        return []

    for module in (metrics_over_epochs, overview, theory, theory_study):
        monkeypatch.setattr(module, "write_figure", keep)
    return found


def outside(figure: Figure) -> list[str]:
    """Titles, and entries of legends, that lie outside of the canvas, if only in part."""
    around: list[Any] = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    said: list[Any] = [text for legend in around for text in legend.get_texts()]
    said += [ax.title for ax in figure.axes] + [ax._left_title for ax in figure.axes] + list(figure.texts)
    canvas = figure.bbox.padded(0.5)
    boxes = [(repr(each), each.get_window_extent()) for each in (*around, *(text for text in said if text.get_text()))]
    return [name for name, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > canvas.x1 or box.y1 > canvas.y1]


@pytest.mark.parametrize("name", style.WIDTHS)
def test_legends_and_titles_lie_on_the_canvas(name: Any, run: Path, study: Path, drawn: dict[str, Figure]) -> None:
    drawing = Drawing(style=name)
    with matplotlib.rc_context(style.rc(drawing)):
        figures.draw(run, drawing=drawing)
        figures.compare_run(run, drawing=drawing)
        assert {"overview", "portrait", "portrait-3d", "nc2", "theory"} <= set(drawn)
        assert not {name: out for name, figure in drawn.items() if (out := outside(figure))}
        drawn.clear()
        figures.draw(study, drawing=drawing)
        figures.compare_study(study, drawing=drawing)
        assert {"nc2", "accuracy", "theory-resnet"} <= set(drawn)
        assert not {name: out for name, figure in drawn.items() if (out := outside(figure))}
