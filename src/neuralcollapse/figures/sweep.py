"""The figure of a sweep: final test error, training error and NC1 against the setting that was varied."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from neuralcollapse.figures import curves, style
from neuralcollapse.figures.history import column
from neuralcollapse.figures.writing import write_figure
from neuralcollapse.study.sweep import Point, Sweep, best


@matplotlib.rc_context(style.RC)
def draw_sweep(sweep: Sweep, points: Sequence[Point]) -> list[Path]:
    """Draw a sweep into its folder as `sweep.png` and `sweep.svg`; a run that diverged is a cross at the upper edge."""
    return write_figure(sweep_panels(sweep, points), sweep.out, "sweep")


def sweep_panels(sweep: Sweep, points: Sequence[Point]) -> Figure:
    """The three panels of a sweep, with the best run marked in each."""
    width, height = style.PANEL
    figure = Figure(figsize=(3 * width, height + 0.3))
    setting, winner = sweep.setting.replace("_", " "), best(points)
    runs = pd.DataFrame(map(dataclasses.asdict, points)).set_index("value").rename_axis(setting)
    finished = runs[runs["status"] == "finished"]
    for place, key in enumerate(("test_error", "train_error", "nc1")):
        axes = figure.add_subplot(1, 3, place + 1)
        final_nc1(finished, axes) if key == "nc1" else final_error(finished, axes, key)
        diverged = runs.index[runs["status"] == "diverged"]
        crosses: dict[str, Any] = {"linestyle": "", "marker": "x", "color": style.VERMILION, "clip_on": False}
        axes.plot(diverged, np.ones(len(diverged)), transform=axes.get_xaxis_transform(), **crosses)
        if winner is not None:
            axes.axvline(winner.value, color=style.GREEN, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
            value = getattr(winner, key)
            if key != "nc1" or 0 < value < np.inf:
                star: dict[str, Any] = {"marker": "*", "markersize": 12, "color": style.GREEN, "zorder": 4}
                axes.plot([winner.value], [value], clip_on=False, **star)
        axes.set_xlabel(setting)
        _value_axis(axes, sweep.values)
    figure.suptitle("\n".join([style.plain(sweep.title), *_remarks(setting, points, winner)]), fontsize=9)
    return figure


def final_error(runs: pd.DataFrame, axes: Axes, key: str) -> Axes:
    """An error at the end of training, in per cent, against the setting that is the index of `runs`."""
    name, color = {"test_error": ("test", style.ORANGE), "train_error": ("training", style.BLUE)}[key]
    errors = column(runs, key)
    axes.plot(runs.index, errors, color=color, clip_on=False, marker="o", markersize=3.5)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.set_ylabel(f"final {name} error")
    return axes


def final_nc1(runs: pd.DataFrame, axes: Axes) -> Axes:
    """NC1 at the end of training against the setting that is the index of `runs`."""
    curves.nc1(runs, axes)
    values = column(runs, "nc1")
    shown = np.where((values > 0) & (values < np.inf), values, np.nan)
    axes.plot(runs.index, shown, linestyle="", marker="o", markersize=3.5, color=style.BLACK, clip_on=False)
    axes.set_ylabel(f"final {axes.get_ylabel()}")
    return axes


def _value_axis(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic where the values span a decade."""
    low, high = min(values), max(values)
    if low > 0 and high / low >= 10:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.2, high * 1.2)
        axes.xaxis.set_minor_formatter(NullFormatter())
        return
    margin = 0.05 * (high - low) or 0.5
    axes.set_xlim(low - margin, high + margin)


def _remarks(setting: str, points: Sequence[Point], winner: Point | None) -> list[str]:
    """What the colours mean, and what is missing, on one line."""
    remarks = []
    if winner is not None:
        assert winner.test_error is not None
        remarks.append(f"green: {setting} {winner.value:.4g}, test error {100 * winner.test_error:.2f} %")
    if diverged := sum(point.status == "diverged" for point in points):
        remarks.append(f"red crosses: {diverged} diverged")
    if missing := sum(point.status not in ("finished", "diverged") for point in points):
        remarks.append(f"{missing} of {len(points)} not finished")
    return ["; ".join(remarks)] if remarks else []
