"""Measured singular values of the signal-to-noise matrix, and the closed form of the central path laid over them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from neuralcollapse._checks import InputError
from neuralcollapse.plots import style
from neuralcollapse.theory.clock import ClockFit, fit_clock
from neuralcollapse.theory.flow import Renormalization

if TYPE_CHECKING:
    import pandas as pd

SQUARED_ERROR = ("mse", "mse-torch")
"""The losses whose central path the closed form describes; "" is a loss that nobody named."""


def fit_history(table: pd.DataFrame, flow: Renormalization = "projected") -> ClockFit:
    """Fit the closed form's clock to the singular values of one run, with N = n/C.

    Args:
        table: as `History.to_frame` has it, with all metrics of one run.
        flow: "projected", the paper's, "multiplicative" or "none", see `fit_clock`.

    Raises:
        InputError: several runs, a loss other than the squared error, or fewer than two epochs with finite values.

    Warns:
        UserWarning: epochs are left out that have more or fewer finite singular values than most.
    """
    if table["run"].nunique() != 1:
        raise InputError(f"the closed form is fitted to one run, got {table['run'].nunique()}; choose one")
    loss = str(table["loss"].iloc[0])
    if loss not in (*SQUARED_ERROR, "", "None", "nan"):
        raise InputError(
            f"the closed form describes training with the MSE loss; {table['run'].iloc[0]} was trained with {loss}"
        )
    wide = table.pivot(index="epoch", columns="metric", values="value")
    names = sorted((name for name in wide if name.startswith("snr.")), key=lambda name: int(name[4:]))
    if not names or not {"num_examples", "num_classes"} <= set(wide):
        raise InputError("expected a run with snr, num_examples and num_classes, as a report has them")
    counts = wide[names].notna().sum(axis=1)
    count = int(counts.mode().max())
    omega = wide[names[:count]].to_numpy()
    finite = np.isfinite(omega).all(axis=1) & (counts == count).to_numpy()
    if others := [f"{epoch:g}" for epoch in wide.index[~finite]]:
        listed = f"{'epochs' if others[1:] else 'epoch'} {', '.join(others[:5])}{', …' if others[5:] else ''}"
        why = f"not {count} finite singular values, as most have"
        warnings.warn(f"the fit leaves out {listed} of {table['run'].iloc[0]}: {why}", UserWarning, stacklevel=2)
    classes, examples = int(wide["num_classes"].iloc[0]), float(wide["num_examples"].iloc[0])
    epochs = wide.index.to_numpy(dtype=float)[finite]
    return fit_clock(epochs, omega[finite], num_classes=classes, samples_per_class=examples / classes, flow=flow)


def draw_ranks(fit: ClockFit, ax: Axes, linewidth: float, markersize: float) -> None:
    """Draw each singular value as dots, and the closed form as a line, in the colour of its rank."""
    dots: dict[str, Any] = {"markersize": markersize, "markeredgewidth": 0, "gid": "curve"}
    for rank, color in enumerate(style.rank_colors(fit.measured.shape[1])):
        ax.plot(fit.epochs, fit.predicted[:, rank], color=color, linewidth=linewidth)
        ax.plot(fit.epochs, fit.measured[:, rank], "o", color=color, **dots)


def closed_form(fit: ClockFit, ax: Axes | None = None) -> Axes:
    """Draw the spectrum as dots and the closed form at the fitted times as lines, with a bar that tells the ranks."""
    ax = style.current(ax)
    draw_ranks(fit, ax, style.scaled(0.9), style.scaled(2.2))
    ax.plot([], [], "o", color=style.GREY, markersize=style.scaled(2.2), label="network")
    ax.plot([], [], color=style.GREY, linewidth=style.scaled(0.9), label="closed form")
    style.log_axis(ax, "xy")
    ax.set(xlabel="epoch", ylabel="signal to noise")
    style.rank_bar(ax, fit.measured.shape[1])
    style.fit([ax])
    return ax
