"""The picture of a sweep: final test error, training error and NC1 against the setting that was varied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from neuralcollapse.figures import style
from neuralcollapse.figures.save import save
from neuralcollapse.study.sweep import Point, Sweep, best

_PANELS = (
    ("test_error", "final test error", style.ORANGE),
    ("train_error", "final training error", style.BLUE),
    ("nc1", r"final NC1   $\mathrm{tr}(\Sigma_W \Sigma_B^{\dagger})\,/\,C$", style.BLACK),
)


def draw_sweep(sweep: Sweep, points: Sequence[Point]) -> list[Path]:
    """Draw a sweep into its folder as `sweep.png` and `sweep.svg`; a run that diverged is a cross at the upper edge."""
    with matplotlib.rc_context(style.RC):  # type: ignore[arg-type]
        width, height = style.PANEL
        figure = Figure(figsize=(width * len(_PANELS), height + 0.3))
        winner = best(points)
        for position, (key, label, color) in enumerate(_PANELS, start=1):
            axes = figure.add_subplot(1, len(_PANELS), position)
            _panel(axes, points, key, color)
            if winner is not None:
                axes.axvline(winner.value, color=style.GREEN, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
                value = getattr(winner, key)
                if key != "nc1" or 0 < value < np.inf:
                    axes.plot(
                        [winner.value], [value], marker="*", markersize=12, color=style.GREEN, zorder=4, clip_on=False
                    )
            axes.set_ylabel(label)
            axes.set_xlabel(sweep.setting.replace("_", " "))
            _value_axis(axes, sweep.values)
        figure.suptitle(sweep.title.replace("$", r"\$") + _said(sweep, points, winner), fontsize=9)
        return save(figure, sweep.out, "sweep")


def _panel(axes: Axes, points: Sequence[Point], key: str, color: str) -> None:
    finished = [point for point in points if getattr(point, key) is not None]
    values, heights = [point.value for point in finished], [getattr(point, key) for point in finished]
    if key == "nc1":
        axes.set_yscale("log")
        style.line(axes, values, heights, color=color)
        heights = [height if 0 < height < np.inf else np.nan for height in heights]
    else:
        axes.plot(values, heights, color=color, clip_on=False)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.plot(values, heights, linestyle="", marker="o", markersize=3.5, color=color, clip_on=False)
    diverged = [point.value for point in points if point.status == "diverged"]
    edge = axes.get_xaxis_transform()
    axes.plot(
        diverged, [1.0] * len(diverged), linestyle="", marker="x", color=style.VERMILION, transform=edge, clip_on=False
    )


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


def _said(sweep: Sweep, points: Sequence[Point], winner: Point | None) -> str:
    parts = []
    if winner is not None:
        assert winner.test_error is not None
        name = sweep.setting.replace("_", " ")
        parts.append(f"green: {name} {winner.value:.4g}, test error {100 * winner.test_error:.2f} %")
    diverged = sum(point.status == "diverged" for point in points)
    if diverged:
        parts.append(f"red crosses: {diverged} diverged")
    missing = sum(point.status not in ("finished", "diverged") for point in points)
    if missing:
        parts.append(f"{missing} of {len(points)} not finished")
    return "\n" + "; ".join(parts) if parts else ""
