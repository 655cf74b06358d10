"""A metric over the layers of a network, over layers and epochs, and the numbers of one report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from neuralcollapse._checks import InputError
from neuralcollapse.plots import style
from neuralcollapse.plots.quantities import quantity

if TYPE_CHECKING:
    import pandas as pd

REPORT = ("nc1", *(f"nc2.{name}_{which}" for name in ("equinorm", "equiangularity", "maximal_angle") for which in
                   ("means", "classifier")), "nc3", "nc4_mismatch", "mse.ls_perp_share")  # fmt: skip
"""The numbers of a report that all tend to zero."""


def over_layers(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """One or several metrics from the first layer to the last, one colour for each metric.

    Args:
        table: as `LayerReports.to_frame` has it, of the metrics to draw.
        ax: where; by default pyplot's current axes.
    """
    ax = style.current(ax)
    layers, metrics = list(table["layer"].unique()), list(table["metric"].unique())
    shown = quantity(metrics[0])
    if shown.log:
        style.log_axis(ax, "y", shown.percent)
    for metric, color in style.palette("metric" if len(metrics) > 1 else None, metrics).items():
        rows = table[table["metric"] == metric].set_index("layer")["value"].reindex(layers)
        name = " ".join(filter(None, [quantity(metric).label, quantity(metric).series]))
        style.line(ax, range(len(layers)), rows, color=color, label=name)
    ax.set_xticks(range(len(layers)), [style.plain(layer) for layer in layers], rotation=35, ha="right")
    ax.set(xlabel="", ylabel=shown.label)
    ax.grid(axis="x", visible=False)
    style.fit([ax])
    if len(metrics) > 1:
        ax.legend()
    return ax


def layers_and_epochs(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """One metric of one run as a map: epochs to the right, layers upwards, the value as colour.

    Args:
        table: as `History.to_frame` has it, of one metric of one run with several layers.
        ax: where; by default pyplot's current axes.

    Raises:
        InputError: several runs or metrics.
    """
    ax = style.current(ax)
    if table["run"].nunique() != 1 or table["metric"].nunique() != 1:
        raise InputError(
            f"a map of layers and epochs shows one metric of one run, got {table['metric'].nunique()} metrics of "
            f"{table['run'].nunique()} runs: history.select(run=...) chooses one"
        )
    shown, layers = quantity(table["metric"].iloc[0]), list(table["layer"].unique())
    wide = table.pivot(index="layer", columns="epoch", values="value").reindex(layers)
    values = wide.to_numpy(dtype=float)
    usable = np.isfinite(values) & ((values > 0) | (not shown.log))
    values = np.where(usable, values, np.nan)
    norm: dict[str, Any] = {"norm": LogNorm()} if shown.log and usable.any() else {}
    epochs = wide.columns.to_numpy(dtype=float)
    if epochs[0] > 0:
        style.log_axis(ax, "x")
        middle = np.sqrt(epochs[1:] * epochs[:-1])
        edges = np.concatenate([[epochs[0] / 1.2], middle, [epochs[-1] * 1.1]])
    else:
        edges = np.concatenate([[epochs[0] - 0.5], (epochs[1:] + epochs[:-1]) / 2, [epochs[-1] + 0.5]])
    mesh = ax.pcolormesh(edges, np.arange(len(layers) + 1) - 0.5, values, cmap="viridis", **norm)
    ax.figure.colorbar(mesh, ax=ax, label=shown.label)
    ax.set_yticks(range(len(layers)), [style.plain(layer) for layer in layers])
    ax.set(xlabel="epoch")
    ax.grid(visible=False)
    return ax


def numbers(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The numbers of a report, each as a dot on one logarithmic axis; all tend to zero, to the left.

    Args:
        table: as `Report.to_frame` has it.
        ax: where; by default pyplot's current axes.
    """
    ax = style.current(ax)
    rows = table.drop_duplicates("metric").set_index("metric")["value"]
    names = [name for name in REPORT if name in rows.index]
    values = rows[names].to_numpy()
    style.log_axis(ax, "x")
    positive = values[(values > 0) & np.isfinite(values)]
    low, high = (positive.min() / 2, positive.max() * 2) if len(positive) else (1e-3, 1.0)
    if style.sharing(ax, "x")[1:]:  # another report's panel has this range, too
        low, high = min(low, ax.get_xlim()[0]), max(high, ax.get_xlim()[1])
    ax.set_xlim(low, high)
    for place, value in enumerate(values):
        finite = 0 < value < np.inf  # anything else stands at an end of the axis, wherever that is
        shown, where = (float(value), ax.transData) if finite else (float(value > 0), ax.get_yaxis_transform())
        ax.plot(
            [style.BELOW, value if value > 0 else style.BELOW],
            [place, place],
            color=style.GREY,
            linewidth=style.scaled(0.8),
        )
        ax.plot([shown], [place], "o", color=style.BLACK, clip_on=False, transform=where, gid="curve")
        text = f" {value:.2g}" if value > 0 or value != value else " 0"
        beside: dict[str, Any] = {"textcoords": "offset points", "va": "center", "annotation_clip": False}
        ax.annotate(text, (shown, place), (4, 0), xycoords=where, fontsize="small", **beside)
    labels = [" ".join(filter(None, [quantity(name).label, quantity(name).series])) for name in names]
    ax.set_yticks(range(len(names)), labels)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    return ax
