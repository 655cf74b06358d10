"""One run on a page, and its portraits (Fig. 1 of the paper), from its snapshots."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuralcollapse.figures import captions
from neuralcollapse.figures.metrics_over_epochs import PARTS, Row, has
from neuralcollapse.figures.portrait import Projection, portrait, portrait_classes, portrait_legend, project
from neuralcollapse.figures.study_runs import Study, StudyRun
from neuralcollapse.figures.writing import write_figure
from neuralcollapse.plots import style
from neuralcollapse.plots.options import Drawing
from neuralcollapse.plots.quantities import quantity
from neuralcollapse.training.run_directory import Run

_PORTRAIT = (
    "Fig. 1 of Han, Papyan & Donoho: {} classes in the {} of their simplex, turned by Procrustes' method; means and "
    "classifier are scaled to mean norm 1 each, so the grey simplex has the same size everywhere. Frames differ."
)


def draw_portraits(run: StudyRun, folder: Path, drawing: Drawing) -> list[Path]:
    """Write `overview`, `portrait` and, where there are four classes, `portrait-3d` of a run with snapshots."""
    directory = Run(run.records.path or Path())
    measured = {record["epoch"] for record in run.records.records}
    snapshots = [epoch for epoch in directory.snapshots() if epoch in measured]
    if not snapshots:
        warnings.warn(f"{directory.path} has no snapshots, so there is no portrait", UserWarning, stacklevel=4)
        return []
    classes = portrait_classes(directory.snapshot(snapshots[-1]), 4)
    events = run.records.summary()
    zero = {events["first_zero_error"], events["stays_zero_error"]} & set(snapshots)
    epochs = sorted({snapshots[0], snapshots[-1], *zero})
    names = run.config.class_names if run.config else ()
    study, written = Study((run,)), []
    for name, count in (("portrait", 3), ("portrait-3d", 4)):
        if len(classes) < count and count == 4:
            continue
        views = {epoch: project(directory.snapshot(epoch), classes[:count], names) for epoch in epochs}
        if count == 3:
            page, text = _overview(study, run, views, drawing)
            written += write_figure(page, folder, "overview", text, drawing)
        figure = _portraits(views, events, drawing)
        number = {2: "two", 3: "three", 4: "four"}[len(classes[:count])]
        said = [_PORTRAIT.format(number, "space" if count == 4 else "plane")]
        said += [captions.subject(study), *captions.state(study)]
        written += write_figure(figure, folder, name, " ".join(said), drawing)
    return written


def _portraits(views: dict[int, Projection], events: dict[str, Any], drawing: Drawing) -> Figure:
    """Fig. 1 at the first snapshot, where the training error is zero first and for good, and at the last snapshot."""
    width = style.WIDTHS[drawing.style]
    columns = min(len(views), 2 if drawing.style == "column" else 4)
    lines = -(-len(views) // columns)
    figure = Figure(
        figsize=(width, lines * width / max(columns, 3) * 1.02 + 0.4 * style.scaled(1)), layout="constrained"
    )
    spatial = next(iter(views.values())).means.shape[1] == 3
    for place, (epoch, view) in enumerate(views.items(), start=1):
        ax = figure.add_subplot(lines, columns, place, projection="3d" if spatial else None)
        portrait(view, ax, zoom=place == len(views))
        stays, first = epoch == events["stays_zero_error"], epoch == events["first_zero_error"]
        event = ", error stays zero" if stays else ", first zero error" if first else ""
        size = matplotlib.rcParams["axes.titlesize"]
        title, room = f"epoch {epoch}{event}", 0.9 * figure.bbox.width / max(columns, 3)
        if style.wrapped(figure, title, room, fontsize=size) != title:
            title = title.replace(", ", ",\n")
        ax.set_title(title, y=1, pad=2, loc="left")
    told = explain(figure, next(iter(views.values())))
    # panels of one line are as wide as they may be: if their height decided, the layout could cut off their titles
    figure.set_figheight(figure.get_figheight() + style.scaled(0.08 + 0.16 * (told - 1)))
    return figure


def _overview(study: Study, run: StudyRun, views: dict[int, Projection], drawing: Drawing) -> tuple[Figure, str]:
    """The run on one page: collapse seen, then measured."""
    width = style.WIDTHS[drawing.style]
    columns = 2 if drawing.style == "column" else 3
    figure = Figure(figsize=(width, width * (1.75 if columns == 2 else 0.78)), layout="constrained")
    places: list[Axes] = list(figure.subplots(6 // columns, columns).flat)
    first, last = next(iter(views)), next(reversed(views))
    for ax, epoch in zip(places, (first, last), strict=False):
        portrait(views[epoch], ax, zoom=epoch == last)
        ax.set_title(f"epoch {epoch}", y=1, pad=2, loc="left")
    loss = PARTS if has(run, (Row(PARTS),)) else ("loss",)
    metrics = [loss, ("nc1",), ("nc2.maximal_angle_means", "nc2.maximal_angle_classifier"), ("nc3",)]
    known = set(study.history().metrics)
    shown: list[str] = []
    legends: dict[Axes, dict[str, Any]] = {}
    for ax, names in zip(places[2:], metrics, strict=True):
        if not set(names) <= known:
            ax.remove()
            continue
        shown += names
        hue = "metric" if names is PARTS else "loss"
        dash = "metric" if len(names) == 2 else None
        study.history().plot(list(names), hue=hue, style=dash, legend=False, ax=ax)
        told = {
            label: handle
            for label, handle in style.legend_entries([ax]).items()
            if len(names) > 1 and not _of_events(label) and label not in (run.loss_title, "MSE")
        }
        if told:
            legends[ax] = told
    if drawing.title:
        style.title(figure, f"{run.model_title} on {run.records.dataset}, {run.loss_title} loss")
    lines = explain(figure, next(iter(views.values())), places[3])
    figure.set_figheight(figure.get_figheight() + 0.14 * style.scaled(lines - 2))
    figure.draw_without_rendering()  # type: ignore[no-untyped-call]  # only then the panels have their size
    for ax, told in legends.items():
        style.legend_inside(ax, told)
    meanings = dict.fromkeys(quantity(name).meaning for name in shown)
    said = [f"Collapse of {captions.subject(study)}", "First two panels: " + _PORTRAIT.format("three", "plane")]
    said += [*map(captions.formula, filter(None, meanings)), captions.EVENTS, *captions.state(study)]
    return figure, " ".join(said)


def explain(figure: Figure, view: Projection, curve: Axes | None = None) -> int:
    """Below a figure, what the symbols of a portrait mean, and the marks of a curve beside it; returns its lines."""
    handles: list[Any] = portrait_legend(view)
    if curve is not None:
        handles += [each for each in curve.get_legend_handles_labels()[0] if _of_events(str(each.get_label()))]
    return style.legend_below(figure, {str(each.get_label()): each for each in handles})


def _of_events(label: str) -> bool:
    return label in ("first zero error", "error stays zero", "learning rate divided")
