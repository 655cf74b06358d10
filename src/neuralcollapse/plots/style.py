"""One look for every panel: colours, sizes, axes, and marks for values that a logarithm cannot show."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend_handler import HandlerTuple
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike

from neuralcollapse.plots.options import Drawing

# One colour has one meaning in all figures. tests/plots/test_style.py holds them apart for colour-blind readers.
BLACK, GREY = "#000000", "#767676"
COLORS = {
    "mse": "#0072B2", "ce": "#D55E00",
    "mse.total": BLACK, "mse.nc1": "#E69F00", "mse.nc23": "#CC79A7", "mse.ls_perp": "#332288",
    "mse.ls_perp_share": "#332288",
}  # fmt: skip
"""Of the losses, and of the parts of the MSE loss, after Okabe & Ito and Tol."""
CLASS_COLORS = ("#009E73", "#C79DF2", "#661100", "#882255")
"""Of classes in a portrait, and of anything else that has no colour of its own."""
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
BELOW = 1e-100
"""Stands for zero on a logarithmic axis."""
WIDTHS = {"iclr": 5.5, "neurips": 5.5, "column": 3.25, "talk": 10.0}
"""Inches: the width of the text in the venues' style files, of a column, and of a slide."""


def rc(drawing: Drawing) -> dict[Any, Any]:
    """matplotlib's settings for a style: Times-like type in papers, the larger sans serif on slides."""
    talk = drawing.style == "talk"
    size, family = (14.0, ["DejaVu Sans"]) if talk else (8.0, ["STIXGeneral", "DejaVu Sans"])
    small = size - (2 if talk else 1)
    return {
        "font.family": family,
        **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize"), size),
        **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), small),
        "figure.titlesize": size + 1,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": size / 13,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#E8E8E8",
        "grid.linewidth": size / 16,
        "legend.frameon": False,
        "lines.linewidth": size / 6.5,
        "lines.markersize": size / 2,
        **{f"{axis}tick.{name}": size * share for axis in "xy" for name, share in _TICKS.items()},
        "figure.dpi": 100,
        "savefig.dpi": 300 if not talk else 160,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "svg.hashsalt": "neuralcollapse",  # the same content gives the same bytes
        "path.simplify": False,
    }


_TICKS = {"major.size": 0.3, "minor.size": 0.18, "major.width": 1 / 13, "minor.width": 1 / 18, "major.pad": 0.25}


class OneTwoFive(Locator):
    """Ticks of a logarithmic axis: 1, 2, 5 times a power of ten where there is room for their labels, else powers.

    Where there are fewer than two of these, as within a decade, round numbers at equal distances.

    Args:
        label: the text of a tick, whose length counts.
    """

    axis: Any

    def __init__(self, label: Callable[[float], str]) -> None:
        self._label = label

    def __call__(self) -> Any:
        return self.tick_values(*self.axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> Any:
        low, high = sorted((vmin, vmax))
        if not (0 < low < high < math.inf):
            return np.array([])
        powers = np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1.0)
        steps = range(1, len(powers) + 1)
        decades = [np.outer(10.0**powers, [1, 2, 5]).ravel(), *(10.0 ** powers[powers % step == 0] for step in steps)]
        even = [np.array(MaxNLocator(n, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)) for n in range(6, 0, -1)]
        inside = [ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))] for ticks in (*decades, *even)]
        most = max(filter(self._fits, inside[: len(decades)]), key=len, default=inside[0][:1])
        if len(most) > 1:
            return most
        others = [inside[0][[0, -1][: len(inside[0])]], *inside[len(decades) :]]
        others += [ticks[[0, -1]] for ticks in others if len(ticks) > 2]
        return next((ticks for ticks in others if len(ticks) > 1 and self._fits(ticks)), most)

    def _fits(self, ticks: np.ndarray) -> bool:
        """Whether labels at these ticks are there, and neither touch one another nor say the same."""
        if not len(ticks):
            return False
        across, at = self.axis.axis_name == "x", np.log10(ticks)
        box, dpi = self.axis.axes.bbox, self.axis.axes.figure.dpi
        low, high = np.log10(sorted(self.axis.get_view_interval()))
        gaps = np.diff(at) / (high - low) * (box.width if across else box.height) * 72 / dpi
        font = self.axis.get_major_ticks(1)[0].label1.get_fontproperties()
        texts = [self._label(tick) for tick in ticks]
        widths, size = np.array([_text_width(text, font) for text in texts]), font.get_size_in_points()
        apart = 0.55 if np.allclose(at, at.round()) else 0.8  # powers are read at a glance, in a closer row
        needed = (widths[1:] + widths[:-1]) / 2 + apart * size if across else 1.35 * size
        return len(set(texts)) == len(texts) and bool((gaps > needed).all())


@lru_cache(maxsize=10_000)
def _text_width(text: str, font: FontProperties) -> float:
    return text_to_path.get_text_width_height_descent(text, font, False)[0]


def log_axis(ax: Axes, which: Literal["x", "y", "xy"], percent: bool = False) -> None:
    """Make an axis, or both, logarithmic, with labels that do not touch."""

    def label(at: float, _: object = None) -> str:
        return number(100 * at) + " %" if percent else number(at)

    for name in which:
        ax.set(**{f"{name}scale": "log"})
        axis = ax.xaxis if name == "x" else ax.yaxis
        axis.set_major_locator(OneTwoFive(label))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(label))


def number(value: float) -> str:
    """A tick's label: 0.02, 5, 200, or 10⁻⁵; without a formula, whose exponents would be smaller than the type."""
    if 1e-3 <= abs(value) < 1e4 or not value:
        return f"{value:.6g}"
    power = math.floor(math.log10(value) + 1e-9)
    factor = value / 10.0**power
    raised = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if abs(factor - 1) < 1e-6 else f"{factor:.6g}·10{raised}"


def plain(text: object) -> str:
    """Text from outside, such as the name of a data set or of a class, that matplotlib must not read as a formula."""
    return str(text).replace("$", r"\$")


def current(ax: Axes | None) -> Axes:
    """The axes given, or pyplot's current ones, in a figure that makes room for long labels."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    figure = pyplot.gcf()
    if figure.get_layout_engine() is None:
        figure.set_layout_engine("constrained")
    return pyplot.gca()


def line(ax: Axes, x: ArrayLike, y: ArrayLike, *, color: Any, **options: Any) -> None:
    """Draw a curve; on a logarithmic axis it leaves the frame downwards where it is zero, upwards where infinite.

    A dot on that edge marks each of these values. NaN is a gap.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    logarithmic = ax.get_yscale() == "log"
    shown = np.where(logarithmic & (y <= 0), BELOW, np.where(np.isposinf(y), 1 / BELOW, y))
    alone = np.isfinite(shown) & np.isnan(np.append(shown[1:], np.nan)) & np.isnan(np.append(np.nan, shown[:-1]))
    if alone.any():
        options |= {"marker": "o", "markersize": scaled(2.5), "markevery": list(alone.nonzero()[0])}
    ax.plot(x, shown, color=color, gid="curve", **options)
    for outside, height in ((logarithmic & (y <= 0), 0.0), (np.isposinf(y), 1.0)):
        if outside.any():
            dots: dict[str, Any] = {"color": color, "alpha": options.get("alpha"), "clip_on": False}
            edge = np.full(outside.sum(), height)
            ax.plot(x[outside], edge, ".", gid="edge", markersize=scaled(3), transform=ax.get_xaxis_transform(), **dots)


def palette(name: str | None, values: Sequence[Any]) -> dict[Any, Any]:
    """A colour for each value of a column: its own, or one of a ramp where the values are numbers or ranks."""
    ranks = [value for value in values if str(value).startswith("snr.")]
    if name == "layer" or (len(values) > 1 and (len(ranks) == len(values) or all(map(_is_number, values)))):
        order = list(values) if name == "layer" or ranks else sorted(values)
        ramp = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(order)))
        return dict(zip(order, map(matplotlib.colors.to_hex, ramp), strict=True))
    others = (color for color in (*CLASS_COLORS, *COLORS.values(), *[GREY] * len(values)))
    return {value: COLORS.get(str(value)) or (BLACK if name is None else next(others)) for value in values}


def rank_colors(count: int) -> list[Any]:
    """Colours of singular values, from the largest to the smallest."""
    return list(palette("metric", [f"snr.{rank}" for rank in range(1, count + 1)] if count > 1 else [""]).values())


def rank_bar(ax: Axes, count: int) -> None:
    """A colour bar beside a panel, which says which colour is which singular value."""
    ticks = sorted({1, (count + 1) // 2, count})
    ranks = ScalarMappable(BoundaryNorm(np.arange(0.5, count + 1), count), ListedColormap(rank_colors(count)))
    bar = ax.figure.colorbar(ranks, ax=ax, ticks=ticks, pad=0.02, aspect=25)
    bar.set_label("j, from the largest")
    bar.ax.invert_yaxis()
    bar.minorticks_off()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def legend_entries(panels: Iterable[Axes]) -> dict[str, Any]:
    """What one legend of several panels says: each label once, with the line or marker that it names."""
    return {label: handle for ax in panels for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}


def scaled(points: float) -> float:
    """Points beside type of 8 points, as papers have it, in proportion to the type in use: slides have large marks."""
    return points * float(matplotlib.rcParams["font.size"]) / 8


def wrapped(figure: Figure, text: str, width: float, **font: Any) -> str:
    """Text broken into lines of at most a width in dots of the canvas, as far as its words allow."""
    probe = figure.text(0, 0, text, **font)
    most = len(text)
    while (needed := probe.get_window_extent().width) > width and most > 1:
        most = min(most - 1, max(1, int(most * width / needed)))
        probe.set_text(textwrap.fill(text, most, break_long_words=False))
    probe.remove()
    return str(probe.get_text())


def title(figure: Figure, text: str) -> None:
    """A title above a figure, in as many lines as its width asks for."""
    size = matplotlib.rcParams["figure.titlesize"]
    figure.suptitle(wrapped(figure, plain(text), 0.96 * figure.bbox.width, fontsize=size))


def legend_below(figure: Figure, entries: Mapping[str, Any], **options: Any) -> int:
    """One legend for all panels below them, in as few lines as the width of the figure allows; returns how many."""
    width = 0.97 * figure.bbox.width
    look: dict[str, Any] = {"loc": "outside lower center", "handletextpad": 0.5, "columnspacing": 1.4, **options}
    look["handler_map"] = {tuple: HandlerTuple(ndivide=None, pad=0)}
    for lines in range(1, len(entries) + 1):
        columns = -(-len(entries) // lines)
        legend = figure.legend(list(entries.values()), list(entries), ncols=columns, **look)
        needed = legend.get_window_extent().width
        if needed <= width:
            return lines
        if columns > 1:
            legend.remove()
            continue
        longest = max(text.get_window_extent().width for text in legend.get_texts())
        for text in legend.get_texts():
            text.set_text(wrapped(figure, text.get_text(), width - needed + longest, fontsize=text.get_fontsize()))
    return len(entries)


def legend_inside(ax: Axes, entries: Mapping[str, Any]) -> None:
    """A legend in a panel, where no curve is; where there is no such place, the panel grows downwards to have one.

    The figure must have been laid out, see `Figure.draw_without_rendering`.
    """
    look: dict[str, Any] = {
        "frameon": True,
        "edgecolor": "none",
        "framealpha": 1,
        "borderpad": 0.2,
        "borderaxespad": 0.3,
    }
    legend = ax.legend(list(entries.values()), list(entries), handlelength=1.6, labelspacing=0.2, **look)
    places = [3, 1, 4, 2, 8, 9, 7, 6]  # corners, then edges
    for where, lines in (
        *((at, ("curve", "event", "rate divided")) for at in places),
        *((at, ("curve",)) for at in places),
    ):
        legend.set_loc(where)
        if not covers(ax, legend.get_window_extent().padded(scaled(1.5) * ax.figure.dpi / 72), lines):
            return
    legend.set_loc(3)
    box = legend.get_window_extent()
    share = min(0.6, (box.ymax - ax.bbox.ymin) / ax.bbox.height + 0.03)
    axis = ax.yaxis.get_transform()
    low, high = axis.transform(np.array(ax.get_ylim()))
    ax.set_ylim(bottom=float(axis.inverted().transform(np.array([high - (high - low) / (1 - share)]))[0]))


def covers(ax: Axes, box: Bbox, gids: Sequence[str] = ("curve",), but: Sequence[Any] = ()) -> bool:
    """Whether a box of the canvas lies over curves, bands or texts of a panel.

    Args:
        ax: the panel.
        box: in dots.
        gids: of the lines that count.
        but: texts that do not count.
    """
    paths: list[Any] = [(each, each.get_path(), False) for each in ax.lines if each.get_gid() in gids]
    paths += [(each, path, True) for each in ax.collections if each.get_gid() == "band" for path in each.get_paths()]
    texts = [text.get_window_extent() for text in ax.texts if text not in but]
    drawn = ((artist.get_transform().transform_path(path), filled) for artist, path, filled in paths)
    return bool(box.count_overlaps(texts)) or any(path.intersects_bbox(box, filled) for path, filled in drawn)


def fit(panels: Iterable[Axes]) -> None:
    """Give panels one range of values, so that they can be compared; nothing is cut off unsaid.

    Panels whose axes Matplotlib shares with these have that range too, and count like them. A first epoch whose value
    would take more than a third of a decade from all others alone leaves the frame, and is named there with an arrow.
    """
    panels = list(dict.fromkeys(each for ax in panels for each in sharing(ax, "y")))
    curves = [drawn_curves(ax) for ax in panels]
    bands: list[Any] = [band for ax in panels for band in ax.collections if band.get_gid() == "band"]
    logarithmic = bool(panels) and panels[0].get_yscale() == "log"

    def usable(values: Iterable[np.ndarray]) -> np.ndarray:
        found = np.concatenate([*values, []])
        return found[(found < 1 / BELOW) & ((found > BELOW) | (not logarithmic))]

    everything = usable(y for drawn in curves for _, y in drawn)
    if not len(everything):
        return
    low, high = everything.min(), everything.max()
    later = usable(y[1:] for drawn in curves for _, y in drawn)
    if logarithmic and len(later) and high > 5 * later.max():
        high = everything[everything <= 5 * later.max()].max()
    banded = usable(path.vertices[:, 1] for band in bands for path in band.get_paths())
    if logarithmic:  # the lower end of an arithmetic band may be anywhere near zero
        banded = banded[banded >= low / 10]
    low, high = min([low, *banded]), max([high, *banded[banded <= 2 * high]])
    if logarithmic:
        margin = max((high / low) ** 0.05, 1.15)
        low, high = low / margin, high * margin
    else:
        low, high = (0.0 if low >= 0 else low - 0.05 * (high - low)), high + (0.05 * (high - low) or 1.0)
    for ax, drawn in zip(panels, curves, strict=True):
        ax.set_ylim(low, high)
        for old in [each for each in ax.texts if each.get_gid() == "beyond"]:
            old.remove()
        beyond = [(x[1], y[0]) for x, y in drawn if len(y) > 1 and high < y[0] < 1 / BELOW]
        if beyond:
            at, value = np.max(beyond, axis=0)
            where: dict[str, Any] = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points", "va": "top"}
            text = f"↑ {ax.yaxis.get_major_formatter()(float(f'{value:.2g}'), None)}"
            ax.annotate(text, (float(at), 1.0), (1, 0), fontsize="small", gid="beyond", **where)


def sharing(ax: Axes, which: Literal["x", "y"]) -> list[Axes]:
    """A panel, and those with curves whose range along one direction is the same by Matplotlib's `sharex`, `sharey`."""
    shared = ax.get_shared_x_axes() if which == "x" else ax.get_shared_y_axes()
    return [ax, *(each for each in shared.get_siblings(ax) if each is not ax and drawn_curves(each))]


def drawn_curves(ax: Axes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Epochs and values of the curves of a panel."""
    lines = [each for each in ax.lines if each.get_gid() == "curve"]
    return [(np.asarray(each.get_xdata(), dtype=float), np.asarray(each.get_ydata(), dtype=float)) for each in lines]
