"""Figures of metrics over the epochs, among them Figs. 2–5 of the paper: networks × data sets, all losses in one panel.

A single run is a grid of one panel. What was not run has no panel, and is named in the caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuralcollapse.figures import captions
from neuralcollapse.figures.study_runs import Study, StudyRun
from neuralcollapse.figures.writing import write_figure
from neuralcollapse.plots import style
from neuralcollapse.plots.curves import place_counts
from neuralcollapse.plots.options import Drawing
from neuralcollapse.plots.quantities import quantity
from neuralcollapse.plots.spectrum import SQUARED_ERROR

PARTS = ("mse.total", "mse.nc1", "mse.nc23", "mse.ls_perp")
_SOURCES = {
    "train_error": ("train_error", "accuracy"),
    "test_error": ("test_accuracy",),
    "mse.ls_perp_share": ("mse.ls_perp",),
}
"""What is measured where a metric is worked out."""


@dataclass(frozen=True)
class Row:
    """One kind of panel.

    Args:
        metrics: those it shows, as `History.plot` takes them.
        hue, dash: what gives colour and dashes.
        height: of the panel, relative to others.
        scale: which panels share their range: "all", or those of one "dataset".
    """

    metrics: tuple[str, ...]
    hue: str = "loss"
    dash: str | None = None
    height: float = 1.0
    scale: str = "all"


def _of_nc2(name: str) -> Row:
    return Row((f"nc2.{name}_means", f"nc2.{name}_classifier"), dash="metric")


FIGURES: dict[str, tuple[str, tuple[Row, ...]]] = {
    "decomposition": (
        "The parts of the MSE loss (Fig. 2 of Han, Papyan & Donoho)",
        (Row(PARTS, hue="metric"), Row(("mse.ls_perp_share",), hue="metric", height=0.6)),
    ),
    "nc1": ("NC1: variability within classes", (Row(("nc1",)),)),
    "nc2": (
        "NC2: class means and classifier on their way to a simplex (Figs. 3–5 of Han, Papyan & Donoho)",
        (_of_nc2("equinorm"), _of_nc2("equiangularity"), _of_nc2("maximal_angle")),
    ),
    "nc3": ("NC3: self-duality", (Row(("nc3",)),)),
    "nc4": ("NC4: decisions other than the nearest class mean's", (Row(("nc4_mismatch",)),)),
    "accuracy": ("Training and test error", (Row(("train_error",)), Row(("test_error",), scale="dataset"))),
    "robustness": (
        "Adversarial robustness, an upper bound",
        (Row(("robustness", "robustness.median"), dash="metric"),),
    ),
    "snr": ("The signal-to-noise spectrum", (Row(("snr",), hue="metric"),)),
}
"""By the name of the files: title, and rows of panels."""


def draw_grids(study: Study, folder: Path, drawing: Drawing) -> list[Path]:
    """Write every figure of `FIGURES` that the study has numbers for.

    A figure of three rows is one for each network, as `nc2-resnet`; the spectrum is drawn for a single run.
    """
    written: list[Path] = []
    for name, (_, rows) in FIGURES.items():
        runs = [each for each in study.runs if has(each, rows)]
        if not runs or (name == "snr" and len(study.runs) > 1):
            continue
        networks = list(dict.fromkeys(each.network for each in runs))
        apart = len(rows) > 2 and len(networks) > 1
        for of in [[network] for network in networks] if apart else [networks]:
            part = Study(tuple(each for each in study.runs if each.network in of or not apart))
            figure, caption = draw_grid(part, name, drawing)
            written += write_figure(figure, folder, f"{name}-{of[0].lower()}" if apart else name, caption, drawing)
    return written


def measured(runs: Sequence[StudyRun], row: Row) -> list[str]:
    """Those metrics of a row that some of the runs measured; the parts of the MSE loss where they trained with it."""
    lines = (record for run in runs for record in run.records.records)
    known = {name for line in lines for name, value in line.items() if value not in (None, [])}
    if any(name.startswith("mse.") for name in row.metrics):
        runs = [run for run in runs if run.records.loss in (*SQUARED_ERROR, "")]
    sources = {name: _SOURCES.get(name, (name,)) for name in row.metrics}
    return [name for name, source in sources.items() if runs and known & set(source)]


def has(run: StudyRun, rows: Sequence[Row]) -> bool:
    """Whether a run measured something that the rows show."""
    return any(measured([run], row) for row in rows)


def draw_grid(study: Study, name: str, drawing: Drawing) -> tuple[Figure, str]:
    """One of `FIGURES` for a study, and its caption."""
    title, rows = FIGURES[name]
    shown = Study(tuple(each for each in study.runs if has(each, rows)))
    rows = tuple(row for row in rows if measured(shown.runs, row))
    networks, datasets = shown.networks, shown.datasets
    width = style.WIDTHS[drawing.style]
    figure = Figure(figsize=(width, width), layout="constrained")
    heights = [row.height for _ in networks for row in rows]
    grid = figure.add_gridspec(len(heights), len(datasets), height_ratios=heights)
    panels: dict[tuple[int, int], Axes] = {}
    for column, dataset in enumerate(datasets):
        for line, (network, row) in enumerate((network, row) for network in networks for row in rows):
            group = shown.group(dataset, network)
            if not (names := measured(group, row)):
                continue
            panels[line, column] = ax = figure.add_subplot(grid[line, column])
            shown.history(group).plot(names, hue=row.hue, style=row.dash, legend=False, ax=ax)
            ax.set(xlabel="", ylabel=f"{network}\n{ax.get_ylabel()}" if len(networks) > 1 else ax.get_ylabel())
            if len(datasets) > 1 and line == min(place for place, at in panels if at == column):
                ax.set_title(style.plain(dataset), pad=style.scaled(8 + 5.5 * (len(shown.losses) - 1)))
    _share(panels, [row for _ in networks for row in rows])
    count = style.legend_below(figure, style.legend_entries(panels.values()), handlelength=2)
    each = min(1.9, max(1.0, 0.8 * width / len(datasets))) * (1.6 if drawing.style == "talk" else 1)
    figure.set_size_inches(width, each * sum(heights) + 0.5 + 0.16 * count * style.scaled(1))
    if drawing.title:
        style.title(figure, title)
    if counted := [ax for ax in panels.values() if any(text.get_gid() == "n" for text in ax.texts)]:
        figure.draw_without_rendering()  # type: ignore[no-untyped-call]  # only then the panels have their size
        for ax in counted:
            place_counts(ax)
    return figure, caption(study, shown, title, rows, list(panels.values()))


def caption(study: Study, shown: Study, title: str, rows: Sequence[Row], panels: Sequence[Axes]) -> str:
    """What a figure shows, and of which runs."""
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    meanings = dict.fromkeys(quantity(name).meaning for name in metrics)
    said = [f"{title}. {captions.subject(shown)}", *map(captions.formula, filter(None, meanings)), captions.EVENTS]
    if any(each.get_gid() == "edge" for ax in panels for each in ax.lines):
        said.append("Dots on the lower edge are values of zero, those on the upper edge infinite ones.")
    if any(each.get_gid() == "beyond" for ax in panels for each in ax.texts):
        said.append("Arrows give the value of the first epoch where it lies above the frame.")
    left_out = [each for each in study.runs if each not in shown.runs and each.records.records]
    if left_out and rows[0].metrics[0] not in PARTS:
        said.append(f"Not measured: {captions.where(left_out, study.runs)}.")
    return " ".join([*said, *captions.state(shown if rows[0].metrics[0] in PARTS else study)])


def _share(panels: dict[tuple[int, int], Axes], rows: Sequence[Row]) -> None:
    """Give panels of one kind one range, and only the outer ones its numbers."""
    limits = [ax.get_xlim() for ax in panels.values()]
    first, last = min(low for low, _ in limits), max(high for _, high in limits)
    kinds: dict[Any, list[Axes]] = {}
    for (line, column), ax in panels.items():
        ax.set_xlim(first, last)
        kinds.setdefault((rows[line], column if rows[line].scale == "dataset" else None), []).append(ax)
        below = any(at == column and place > line for place, at in panels)
        ax.tick_params(labelbottom=not below)
        ax.set_xlabel("" if below else "epoch")
        if any(place == line and at < column for place, at in panels):
            ax.set_ylabel("")
            ax.tick_params(labelleft=rows[line].scale == "dataset")
    for alike in kinds.values():
        style.fit(alike)
