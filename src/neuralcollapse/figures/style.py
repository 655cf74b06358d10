"""One look for every figure: sizes, colours, axes, titles, and marks for values that a logarithm cannot show."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import ArrayLike

# Okabe & Ito's colours, told apart by colour-blind readers too; one colour for one quantity in every figure.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"
MEANS, CLASSIFIER = BLUE, VERMILION
ZERO_ERROR: dict[str, Any] = {"color": "#D00000", "linestyle": (0, (4, 2)), "linewidth": 1.0}
"""The line at the first epoch without a training error."""

RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "mathtext.fontset": "cm",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "svg.fonttype": "path",  # the same glyphs on every machine, without the font
    "svg.hashsalt": "neuralcollapse",  # the same run gives the same bytes
}
PANEL = (3.6, 2.7)
"""Inches of one panel: a column of a two-column paper."""
_GLYPH = 0.55  # mean width of DejaVu Sans over its size


def plain(text: object) -> str:
    """Text from outside, such as the name of a data set or of a class, that matplotlib must not read as a formula."""
    return str(text).replace("$", r"\$")


def figure_title(figure: Figure, title: str, size: float) -> None:
    """The title over a figure; lines that would not fit its width are broken between words."""
    room = int(figure.get_figwidth() * 72 / (_GLYPH * size))
    shown = title.replace(r"$\lambda$", "λ").split("\n")  # one glyph wide
    lines = [textwrap.fill(line, room, break_long_words=False, break_on_hyphens=False) for line in shown]
    figure.suptitle("\n".join(lines).replace("λ", r"$\lambda$"), fontsize=size)


def line(axes: Axes, epochs: ArrayLike, values: ArrayLike, *, color: str, **options: Any) -> None:
    """Draw a curve on a logarithmic axis.

    A zero, which has no logarithm, is a triangle at the lower edge, an infinity is one at the upper edge, and NaN is a
    gap.
    """
    x, y = np.asarray(epochs, dtype=float), np.asarray(values, dtype=float)
    shown = np.where(np.isfinite(y) & (y > 0), y, np.nan)
    marker = "o" if np.isfinite(shown).sum() == 1 else ""
    axes.plot(x, shown, color=color, marker=marker, markersize=4, **options)
    edge = axes.get_xaxis_transform()
    for outside, height, symbol in ((y <= 0, 0.0, "v"), (np.isposinf(y), 1.0, "^")):
        if outside.any():
            heights = np.full(outside.sum(), height)
            axes.plot(x[outside], heights, symbol, markersize=4, color=color, transform=edge, clip_on=False)


def rank_colors(count: int) -> list[str]:
    """Colours of singular values, from the largest to the smallest."""
    return [matplotlib.colors.to_hex(color) for color in matplotlib.colormaps["viridis"](np.linspace(0, 0.85, count))]


def epoch_axis(axes: Axes, epochs: ArrayLike, zero_error_epoch: int | None, *, label: bool = True) -> None:
    """A logarithmic axis of epochs, and the red line at the first epoch without a training error."""
    axes.set_xscale("log")
    first, last = np.min(epochs), np.max(epochs)
    axes.set_xlim(first * 0.95, max(last * 1.05, first * 1.2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if label:
        axes.set_xlabel("epoch")
    if zero_error_epoch is not None:
        axes.axvline(zero_error_epoch, label="_zero_error", **ZERO_ERROR)


def legend(axes: Axes) -> None:
    """A legend of the named curves; matplotlib leaves out the zero-error line, whose name begins with "_"."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
