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
    finished, diverged = (runs[runs["status"] == status] for status in ("finished", "diverged"))
    star: dict[str, Any] = {"marker": "*", "markersize": 12, "color": style.GREEN, "zorder": 4}
    cross: dict[str, Any] = {"linestyle": "", "marker": "x", "color": style.VERMILION}
    for key, axes in zip(("test_error", "train_error", "nc1"), figure.subplots(1, 3), strict=True):
        final_nc1(finished, axes) if key == "nc1" else final_error(finished, axes, key)
        axes.plot(diverged.index, [1.0] * len(diverged), transform=axes.get_xaxis_transform(), clip_on=False, **cross)
        if winner is not None:
            axes.axvline(winner.value, color=style.GREEN, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
            value = getattr(winner, key)
            if key != "nc1" or 0 < value < np.inf:
                axes.plot([winner.value], [value], clip_on=False, **star)
        low, high = min(sweep.values), max(sweep.values)
        if low > 0 and high / low >= 10:  # logarithmic where the values span a decade
            axes.set_xscale("log")
            axes.set_xlim(low / 1.2, high * 1.2)
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            margin = 0.05 * (high - low) or 0.5
            axes.set_xlim(low - margin, high + margin)
        axes.set_xlabel(setting)
    remarks = []
    if winner is not None:
        error = finished.at[winner.value, "test_error"]
        remarks.append(f"green: {setting} {winner.value:.4g}, test error {100 * error:.2f} %")
    if len(diverged):
        remarks.append(f"red crosses: {len(diverged)} diverged")
    if missing := len(runs) - len(finished) - len(diverged):
        remarks.append(f"{missing} of {len(runs)} not finished")
    figure.suptitle("\n".join(filter(None, [style.plain(sweep.title), "; ".join(remarks)])), fontsize=9)
    return figure


def final_error(runs: pd.DataFrame, axes: Axes, key: str) -> Axes:
    """An error at the end of training, in per cent, against the setting that is the index of `runs`."""
    name, color = {"test_error": ("test", style.ORANGE), "train_error": ("training", style.BLUE)}[key]
    axes.plot(runs.index, column(runs, key), color=color, clip_on=False, marker="o", markersize=3.5)
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
