"""A metric over the epochs: a curve for each run, or mean, band and seeds of runs that differ in their seed only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox, offset_copy

from neuralcollapse._checks import InputError
from neuralcollapse._errors import suggest
from neuralcollapse.plots import style
from neuralcollapse.plots.quantities import Quantity, quantity
from neuralcollapse.plots.repetitions import REPETITIONS_DIFFER_IN

Errorbar = Literal["sd", "se", "range"] | None
ONLY_SEED = ("run", "first_zero_error", "stays_zero_error", "rate_divisions", "last_epoch", *REPETITIONS_DIFFER_IN)
"""Runs that differ in these columns alone are repetitions, of which the mean is drawn."""
_TITLES = {"mse": "MSE", "ce": "cross-entropy"}


def curves(
    table: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    hue: str | None = None,
    dash: str | None = None,
    errorbar: Errorbar = "sd",
    seeds: bool = True,
    events: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw one or several metrics over the epochs.

    Runs that differ in nothing but their seed are drawn as their mean, at the epochs that all of them measured, with a
    band, and each as a thin line; n in a corner is how many they are. The mean is geometric on a logarithmic axis,
    but arithmetic for shares and on a linear one. Other runs are never averaged.

    Args:
        table: as `History.to_frame` has it, of the metrics to draw.
        runs: as `History.runs` has it.
        hue, dash: the columns, or settings of a run, that give colour and dashes.
        errorbar: half the band's width: the standard deviation, the standard error of the mean, or all seeds' range.
        seeds: whether to draw every seed.
        events: whether to mark zero error and the divisions of the learning rate, see `mark_events`.
        ax: where; by default pyplot's current axes.

    Raises:
        InputError: nothing to draw, or an unknown column.
    """
    if table.empty:
        raise InputError("nothing to draw: no run has these metrics")
    shown = quantity(table["metric"].iloc[0])
    by_run = runs.set_index("run")
    settings = [name for name in by_run.columns if name not in ONLY_SEED]
    units = {row[0]: repr(row[1:]) for row in by_run[settings].itertuples()}
    frame = table.assign(unit=table["run"].map(units), **{"": ""})
    for name in (hue, dash):
        if name is not None and name not in frame:
            if name not in runs:
                known = [*table.columns, *runs.columns]
                raise InputError(f"unknown column {name!r}{suggest(name, known)}; expected one of {', '.join(known)}")
            frame[name] = table["run"].map(by_run[name])
    order = list(style.COLORS)  # MSE before cross-entropy, whatever the folders are called
    values = sorted(frame[hue or ""].unique(), key=lambda each: order.index(each) if each in order else len(order))
    colors = style.palette(hue, values)
    dashes = {value: style.DASHES[place % 4] for place, value in enumerate(frame[dash or ""].unique())}

    ax = style.current(ax)
    if shown.log:
        style.log_axis(ax, "y", shown.percent)
    elif shown.percent:
        ax.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    counts: dict[Any, set[int]] = {}
    for (color, dashed), group in frame.groupby([hue or "", dash or ""], sort=False, dropna=False):
        for _, unit in group.groupby(["unit", "layer", "metric"], sort=False):
            wide = unit.pivot(index="epoch", columns="run", values="value").sort_index()
            _draw(ax, wide, shown, errorbar, seeds, color=colors[color], linestyle=dashes[dashed])
            counts.setdefault(color, set()).add(wide.shape[1])
    ranks = [metric for metric in table["metric"].unique() if metric.startswith("snr.")]
    if ranks:
        style.rank_bar(ax, len(ranks))
    elif hue is not None and (hue != "metric" or len(colors) > 1):
        for value, color in colors.items():
            ax.plot([], [], color=color, label=_named(hue, value, runs))
    elif hue is None and max(counts[""]) > 1:
        ax.plot([], [], color=colors[""], label="mean")
    if dash is not None and dash != hue:
        for value, dashed in dashes.items():
            ax.plot([], [], color=style.GREY, linestyle=dashed, label=_named(dash, value, runs))
    if events:
        own = {} if hue in (None, "metric", "layer") else dict(zip(frame["run"], frame[hue], strict=True))
        mark_events(ax, runs, {run: colors[value] for run, value in own.items()})
    beside = style.sharing(ax, "x")
    epochs = np.concatenate([frame["epoch"], *(x for each in beside for x, _ in style.drawn_curves(each))])
    first, last = float(epochs.min()), float(epochs.max())
    if first > 0:
        style.log_axis(ax, "x")
        ax.set_xlim(first / 1.06, max(last * 1.06, first * 1.3))
    ax.set(xlabel="epoch", ylabel=shown.label)
    style.fit([ax])
    _write_counts(ax, {color: counts[value] for value, color in colors.items()})
    for each in {*beside, *style.sharing(ax, "y")}:
        place_counts(each)
    return ax


def mark_events(ax: Axes, runs: pd.DataFrame, colors: Mapping[str, str] | None = None) -> None:
    """Mark what happened in the course of runs.

    Above the panel, in the colour of the run, an open triangle stands at the first epoch without a training error and a
    full one where the error stays zero; where a panel has one run, lines go down from them. Dotted lines: the learning
    rate was divided.

    Args:
        ax: the panel.
        runs: as `History.runs` has it.
        colors: by the name of the run; black by default.
    """
    colors = {run: (colors or {}).get(run, style.BLACK) for run in runs["run"]}
    levels = {color: level for level, color in enumerate(dict.fromkeys(colors.values()))}
    mark: dict[str, Any] = {"marker": "v", "markersize": style.scaled(3.6), "linestyle": ""}
    mark["markeredgewidth"] = style.scaled(0.7)
    figure: Any = ax.figure
    named = set(ax.get_legend_handles_labels()[1])
    for run, first, stays in runs[["run", "first_zero_error", "stays_zero_error"]].itertuples(index=False):
        color = colors[run]
        above = offset_copy(ax.get_xaxis_transform(), figure, y=style.scaled(3.5 + 5.5 * levels[color]), units="points")
        for label, epoch, dashes in (("first zero error", first, (0, (4, 2))), ("error stays zero", stays, "-")):
            full = label == "error stays zero"
            if not pd.notna(epoch) or (not full and pd.notna(stays) and epoch == stays):
                continue
            at: dict[str, Any] = {"transform": above, "clip_on": False, "zorder": 5 + full, "gid": label}
            ax.plot([epoch], [1], color=color, markerfacecolor=color if full else "w", **mark, **at)
            if label not in named:
                ax.plot([], [], color=style.BLACK, markerfacecolor=style.BLACK if full else "w", label=label, **mark)
                named.add(label)
            if len(runs) == 1:
                thin: dict[str, Any] = {"linewidth": style.scaled(0.7), "zorder": 1, "gid": "event"}
                ax.axvline(epoch, color=style.GREY, linestyle=dashes, **thin)
    for place, epoch in enumerate(sorted({epoch for found in runs["rate_divisions"] for epoch in found})):
        told = None if place else "learning rate divided"
        dotted: dict[str, Any] = {"color": style.GREY, "linestyle": ":", "linewidth": style.scaled(0.9), "zorder": 1}
        ax.axvline(epoch, label=told, gid="rate divided", **dotted)


def summary(values: np.ndarray, errorbar: Errorbar, geometric: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean over seeds and the ends of its band.

    Args:
        values: (e, n), a column for each seed.
        errorbar: "sd" is the standard deviation with n − 1; "se" that over √n; "range" from least to greatest.
        geometric: whether mean and deviation are those of the logarithms.

    Example:
        >>> import numpy as np
        >>> [round(float(each[0]), 6) for each in summary(np.array([[1.0, 100.0]]), "range", geometric=True)]
        [10.0, 1.0, 100.0]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.log(values) if geometric else values
        mean = scaled.mean(axis=1)
        deviation = scaled.std(axis=1, ddof=1) / (np.sqrt(values.shape[1]) if errorbar == "se" else 1)
        low, high = mean - deviation, mean + deviation
        if errorbar == "range":
            low, high = scaled.min(axis=1), scaled.max(axis=1)
        back = np.exp if geometric else np.asarray
        return back(mean), back(low), back(high)


def _draw(ax: Axes, wide: pd.DataFrame, shown: Quantity, errorbar: Errorbar, seeds: bool, **options: Any) -> None:
    """The curves of one metric of runs that differ in their seed, a column for each."""
    if wide.shape[1] == 1:
        return style.line(ax, wide.index, wide.iloc[:, 0], **options)
    common = wide.dropna()
    if seeds or common.empty:
        for run in wide:
            thin = wide[run].dropna()
            style.line(ax, thin.index, thin, linewidth=style.scaled(0.5), alpha=0.5, **options)
    if not common.empty:
        mean, low, high = summary(common.to_numpy(), errorbar, shown.log and not shown.percent)
        style.line(ax, common.index, mean, **options)
        if errorbar is not None:
            epochs, color = common.index.to_numpy(dtype=float), options["color"]
            ax.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0, gid="band")
    return None


def _named(column: str, value: Any, runs: pd.DataFrame) -> str:
    """What the legend calls a value."""
    if column == "metric":
        return quantity(str(value)).series or quantity(str(value)).label
    if column == "loss":
        title = dict(zip(runs["loss"], runs.get("loss_title", runs["loss"]), strict=True))[value]
        return style.plain(title if title == title and title != value else _TITLES.get(value, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    alone = column in ("run", "dataset", "network", "layer")
    return style.plain(text if alone else f"{column.replace('_', ' ')} {text}")


def _write_counts(ax: Axes, counts: Mapping[str, set[int]]) -> None:
    """Write into a corner of a panel how many seeds were averaged: once, or in each colour where these differ."""
    said = {color: f"n = {min(n)}" if len(n) == 1 else f"n = {min(n)}–{max(n)}" for color, n in counts.items()}
    if max(max(n) for n in counts.values()) == 1:
        return
    if len(set(said.values())) == 1:
        said = {style.BLACK: next(iter(said.values()))}
    # on white, because a line may pass where the rate was divided
    how: dict[str, Any] = {"fontsize": "small", "bbox": {"facecolor": "w", "edgecolor": "none", "pad": 0.5}}
    how |= {"xycoords": "axes fraction", "textcoords": "offset points", "gid": "n"}
    for color, text in said.items():
        ax.annotate(text, (0, 0), (3, 2), color=color, **how)


def place_counts(ax: Axes) -> None:
    """Move the number of seeds to a corner, or along an edge, where nothing else is drawn.

    Where there is no such place, it may lie over lines that mark the divisions of the learning rate; else below left.
    `curves` does so; again where limits or size of the panel change afterwards.

    Args:
        ax: the panel.
    """
    counts: list[Any] = [text for text in ax.texts if text.get_gid() == "n"]
    if not counts:
        return
    line_height, points = 1.1 * counts[0].get_fontsize(), counts[0].get_figure().dpi / 72
    corners = [(0, 0), (0, 1), (1, 1), (1, 0), (0.5, 0), (0.5, 1)]
    everywhere = [*corners, *((across, top) for top in (1, 0) for across in (0.6, 0.4, 0.7, 0.3, 0.8, 0.2))]
    tries = [(at, ("curve", "rate divided")) for at in everywhere] + [(at, ("curve",)) for at in corners]
    for (across, top), lines in (*tries, ((0, 0), ())):
        for place, text in enumerate(counts if top else reversed(counts)):
            text.xy = across, top
            text.xyann = 3 - 6 * across, (-1 if top else 1) * (2 + line_height * place)
            text.set(ha="center" if 0 < across < 1 else ("left", "right")[int(across)], va="top" if top else "bottom")
        # the white around a number and half the width of a line are two points together
        box = Bbox.union([text.get_window_extent() for text in counts]).padded(2 * points)
        if not style.covers(ax, box, lines, counts):
            return
