"""The figure of a sweep: final errors and NC1 against the setting that was varied."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from neuralcollapse.figures.writing import write_figure
from neuralcollapse.plots import style
from neuralcollapse.plots.options import Drawing
from neuralcollapse.study.sweep import Point, Sweep, best


def draw_sweep(sweep: Sweep, points: Sequence[Point], drawing: Drawing | None = None) -> list[Path]:
    """Draw a sweep into its folder as `sweep`."""
    drawing = drawing or Drawing()
    with matplotlib.rc_context(style.rc(drawing)):
        figure, caption = sweep_panels(sweep, points, drawing)
        return write_figure(figure, sweep.out, "sweep", caption, drawing)


def sweep_panels(sweep: Sweep, points: Sequence[Point], drawing: Drawing) -> tuple[Figure, str]:
    """Test and training error, and below them NC1, on one axis of the setting; where runs diverged it is shaded."""
    setting, winner = sweep.setting.replace("_", " "), best(points)
    runs = pd.DataFrame(map(dataclasses.asdict, points)).set_index("value").sort_index()
    finished, diverged = (runs[runs["status"] == status] for status in ("finished", "diverged"))
    low, high = min(sweep.values), max(sweep.values)
    decades = low > 0 and high / low >= 10  # logarithmic where the values span a decade
    edges = _edges(np.array(sweep.values, dtype=float), decades)
    width = style.WIDTHS[drawing.style]
    figure = Figure(figsize=(width, 0.62 * width), layout="constrained")
    errors, nc1 = figure.subplots(2, 1, sharex=True)
    style.log_axis(nc1, "y")
    drawn = ((errors, "test_error", "-", "test error"), (errors, "train_error", style.DASHES[1], "training error"))
    for ax, key, dashes, name in (*drawn, (nc1, "nc1", "-", None)):
        values = finished[key].astype(float)
        style.line(ax, values.index, values, color=style.BLACK, linestyle=dashes, label=name)
        dots = values.where(values > 0) if ax is nc1 else values
        ax.plot(values.index, dots, ".", color=style.BLACK, markersize=style.scaled(4), clip_on=False)
        if winner is not None and np.isfinite(value := getattr(winner, key)) and (value > 0 or ax is errors):
            ax.plot(
                [winner.value], [value], "*", color=style.BLACK, markersize=style.scaled(8), clip_on=False, zorder=4
            )
    for ax in (errors, nc1):
        for value in diverged.index:
            place = sweep.values.index(value)
            ax.axvspan(edges[place], edges[place + 1], color="#E4E4E4", linewidth=0, zorder=0, gid="diverged")
        style.fit([ax])
    errors.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    errors.set_ylabel("final error")
    nc1.set(xlabel=setting, ylabel="final NC1", xlim=(edges[0], edges[-1]))
    if decades:
        style.log_axis(nc1, "x")
    if len(diverged):
        errors.fill_between([], [], facecolor="#E4E4E4", edgecolor="#767676", label="diverged")
    errors.legend()
    if drawing.title:
        style.title(figure, sweep.title)
    said = [f"{sweep.title}: errors and NC1 at the end of training against the {setting}."]
    if winner is not None:
        said.append(f"Star: the best, {setting} {winner.value:.4g}, test error {100 * (winner.test_error or 0):.2f} %.")
    if len(diverged):
        said.append(f"Shaded: {len(diverged)} diverged.")
    if missing := len(runs) - len(finished) - len(diverged):
        said.append(f"{missing} of {len(runs)} not finished.")
    return figure, " ".join(said)


def _edges(values: np.ndarray, decades: bool) -> np.ndarray:
    """Where the share of the axis that belongs to each value begins, and where the last one ends."""
    at = np.log(values) if decades else values
    half = 0.5 * np.diff(at) if len(at) > 1 else np.array([0.5])
    edges = np.concatenate([[at[0] - half[0]], at[:-1] + half[: len(at) - 1], [at[-1] + half[-1]]])
    return np.exp(edges) if decades else edges
