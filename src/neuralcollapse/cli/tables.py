"""Tables, summaries and the progress bar that the commands print, and how they write numbers."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

    from neuralcollapse.data import Found
    from neuralcollapse.theory.clock import ClockFit
    from neuralcollapse.theory.simulation import Simulation

_LINE_EVERY = 60.0


def percent(share: float) -> str:
    """A share as a percentage; an error that is not zero is never shown as zero."""
    digits = 2 if share == 0 or share >= 1e-4 else 4
    return f"{100 * share:.{digits}f} %"


def number(value: float | str) -> str:
    """Three digits after the point, or an exponent below one hundredth and from a thousand on.

    Args:
        value: a number, or the text that a history has for one that is not finite, such as "inf".
    """
    value = float(value)
    return f"{value:.3f}" if value == 0 or 1e-2 <= abs(value) < 1e3 else f"{value:.2e}"


def off_path(record: dict[str, Any]) -> float:
    """L⊥_LS / L: how far the classifier is from the least-squares one for its features."""
    total = record["mse.total"]
    return record["mse.ls_perp"] / total if total else 0.0


_SUMMARY_ROWS = (
    ("training error", "train_error", percent),
    ("test accuracy", "test_accuracy", percent),
    ("NC1  within-class variability", "nc1", number),
    ("NC2  equinorm, class means", "nc2.equinorm_means", number),
    ("NC2  equiangularity, class means", "nc2.equiangularity_means", number),
    ("NC2  maximal angle, class means", "nc2.maximal_angle_means", number),
    ("NC3  self-duality", "nc3", number),
    ("NC4  nearest-centre mismatch", "nc4_mismatch", percent),
    ("loss L of the last layer, with λ", "mse.total", number),
)
SUMMARY_COLUMNS = (*(key for _, key, _ in _SUMMARY_ROWS), "mse.ls_perp")
"""The columns of the history that `summary_table` needs."""


def summary_table(history: list[dict[str, Any]], zero_error_epoch: float | None) -> Table:
    """The last epoch of a run beside the first with zero training error."""
    last = history[-1]
    first = next((record for record in history if record["epoch"] == zero_error_epoch), None)
    heading = f"{last['num_examples']:,} training examples, {last['num_classes']} classes"
    table = Table("", title=heading, title_justify="left")
    columns = [last] if first is None or first is last else [first, last]
    for record in columns:
        note = "\nzero error" if record["epoch"] == zero_error_epoch else "\nlast"
        table.add_column(f"epoch {record['epoch']}{note}", justify="right")
    for title, key, show in _SUMMARY_ROWS:
        table.add_row(title, *(show(record[key]) for record in columns))
    if "robustness" in last:
        table.add_row("robustness, mean ‖r‖ / ‖x‖", *(number(record["robustness"]) for record in columns))
    table.add_row("distance from the central path, L⊥_LS / L", *(number(off_path(record)) for record in columns))
    return table


def data_table(found: list[Found]) -> Table:
    """The data sets of `neuralcollapse.data.available` that can be used, with their sizes."""
    table = Table("name", "title", "classes × training examples", "test", box=box.SIMPLE_HEAD)
    for item in found:
        if not item.problem:
            counts = sorted(set(item.train))
            each = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
            table.add_row(item.name, escape(item.title), f"{len(item.train)} × {each}", f"{item.test:,}")
    return table


def clock_table(fit: ClockFit) -> Table:
    """How close a network is to the closed form, at up to eight of its epochs."""
    table = Table("epoch", "time t", "residual", "unmoved", "growth", "max/min ω", "on the path", box=box.SIMPLE_HEAD)
    for index in sorted({round(position) for position in np.linspace(0, len(fit.epochs) - 1, 8)}):
        columns = (fit.residual, fit.unmoved, fit.exponent, fit.measured_condition, fit.predicted_condition)
        cells = [f"{column[index]:.3f}" for column in columns]
        table.add_row(f"{fit.epochs[index]:g}", f"{fit.times[index]:.3g}", *cells)
    _explain(
        table,
        "time t: of the closed form, the path, at which it is nearest to the network",
        "residual: rms over j of log(ω_j / ω_j on the path), 0.1 is ten per cent",
        "unmoved: the same had every ω_j stayed as at the first epoch",
        "growth: d log ω / d log epoch",
        "max/min ω: the largest ω_j over the least, of the network and on the path",
    )
    return table


def flows_table(found: pd.DataFrame) -> Table:
    """How far the networks of a study are from each flow, as `figures.compare_study` gives it."""
    heads = ("data, network", "n", "projected", "multiplicative", "none", "power", "max/min ω")
    table = Table(*heads, box=box.SIMPLE_HEAD, pad_edge=False)
    for dataset, group in found.groupby("dataset", sort=False):
        table.add_row(escape(str(dataset)))
        for row in group.to_dict("records"):
            spread = ", ".join(f"{row[f'max/min {when}']:.2g}" for when in ("first", "least", "last"))
            off = [f"{100 * row[flow]:.0f} %" for flow in ("projected", "multiplicative", "none")]
            table.add_row(f"  {escape(row['network'])}", str(row["n"]), *off, f"{row['exponent']:.2f}", spread)
    _explain(
        table,
        "n: seeds, of which each number is the median",
        "projected, multiplicative, none: how far the ω_j are from that flow, rms over j",
        "  of log(ω_j / ω_j of the flow), median over the epochs; none: not renormalized",
        "power: of the epoch that ω grows with until the error stays zero",
        "max/min ω: largest ω_j over least, at the first epoch, its lowest, at the last",
    )
    return table


def _explain(table: Table, *lines: str) -> None:
    """Say below a table what its heads mean."""
    table.caption, table.caption_justify = "\n".join(lines), "left"


def simulation_summary(found: Simulation) -> str:
    """A simulated flow in three lines: its singular values, its error against the closed form, its drift."""
    path, flow = found.path, found.flow
    first, last = flow.singular_values[0], flow.singular_values[-1]
    return (
        f"{path.flow} flow to time {float(flow.times[-1]):.4g}: ω from {float(first[-1]):.3g}…{float(first[0]):.3g} "
        f"to {float(last[-1]):.3g}…{float(last[0]):.3g}\n"
        f"integration against closed form: relative difference of the ω_j at most {found.error:.1e}\n"
        f"Σ_W = I kept to {float(flow.drift.max()):.1e}"
    )


def print_as_it_is(console: Console, text: object) -> None:
    """Print a line with a path in it: as one line, and no part of it read as markup."""
    console.print(str(text), soft_wrap=True, highlight=False, markup=False, emoji=False)


@contextlib.contextmanager
def share_bar(console: Console, title: str) -> Iterator[Callable[[float], None]]:
    """A progress bar with the time left; yields the function to call with the share that is done, from 0 to 1.

    Where the output is no terminal, a line a minute on the error stream.
    """
    columns = (TextColumn(title), BarColumn(bar_width=None), TaskProgressColumn(), TimeElapsedColumn())
    left = (TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False))
    # the rate of ten minutes, because blocks of many classes take long
    options: dict[str, Any] = {"console": console, "transient": True, "speed_estimate_period": 600.0}
    first: tuple[float, float] | None = None
    shown = time.monotonic()

    with Progress(*columns, *left, disable=not console.is_terminal, **options) as bar:
        task = bar.add_task(title, total=1.0)

        def advance(share: float) -> None:
            nonlocal first, shown
            bar.update(task, completed=share)
            now = time.monotonic()
            first = first or (now, share)  # of a measurement that was taken up, a part was done before
            if not console.is_terminal and now - shown >= _LINE_EVERY and first[1] < share < 1:
                rest = timedelta(seconds=round((now - first[0]) * (1 - share) / (share - first[1])))
                print(f"{title}: {share:.0%}, {rest} left", file=sys.stderr, flush=True)
                shown = now

        yield advance
