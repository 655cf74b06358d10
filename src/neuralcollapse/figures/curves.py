"""Curves over the epochs of training, among them Figs. 2–5 of the paper.

Each function draws one kind of panel from a run's history (`read_history`) into the axes that it is given, and returns
them. It leaves the legend to whoever composes the figure: one for each panel, or one for all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from neuralcollapse.figures import style
from neuralcollapse.figures.history import column, zero_error_epoch

Curve = Callable[[pd.DataFrame, Axes], Axes]


def decomposition(history: pd.DataFrame, axes: Axes) -> Axes:
    """Fig. 2: the MSE loss of the last layer, and the parts L_NC1, L_NC2/3 and L⊥_LS that it is the sum of."""
    for key, name, color, width in (
        ("mse.total", r"$\mathcal{L}$", style.BLACK, 2.2),
        ("mse.nc1", r"$\mathcal{L}_{\mathrm{NC1}}$", style.BLUE, 1.6),
        ("mse.nc23", r"$\mathcal{L}_{\mathrm{NC2/3}}$", style.GREEN, 1.6),
        ("mse.ls_perp", r"$\mathcal{L}^{\perp}_{\mathrm{LS}}$", style.VERMILION, 1.6),
    ):
        style.line(axes, history.index, column(history, key), color=color, label=name, linewidth=width)
    return _finish(history, axes, "MSE loss of the last layer")


def nc1(history: pd.DataFrame, axes: Axes) -> Axes:
    """Within-class variability (like Fig. 6 of Papyan, Han & Donoho, 2020)."""
    style.line(axes, history.index, column(history, "nc1"), color=style.BLACK)
    return _finish(history, axes, r"NC1   $\mathrm{tr}(\Sigma_W \Sigma_B^{\dagger})\,/\,C$")


def nc2_equinorm(history: pd.DataFrame, axes: Axes) -> Axes:
    """Fig. 3: coefficient of variation of the norms."""
    return _means_and_classifier(history, axes, "nc2.equinorm", r"NC2   Std$\,\|\cdot\|\,/\,$Avg$\,\|\cdot\|$")


def nc2_equiangularity(history: pd.DataFrame, axes: Axes) -> Axes:
    """Fig. 4: standard deviation of the cosines."""
    return _means_and_classifier(history, axes, "nc2.equiangularity", r"NC2   Std$\,\cos(c, c')$")


def nc2_maximal_angle(history: pd.DataFrame, axes: Axes) -> Axes:
    """Fig. 5: mean distance of the cosines from −1/(C−1)."""
    label = r"NC2   Avg$\,|\cos(c, c') + \frac{1}{C-1}|$"
    return _means_and_classifier(history, axes, "nc2.maximal_angle", label)


def nc3(history: pd.DataFrame, axes: Axes) -> Axes:
    """Self-duality of classifier and class means."""
    style.line(axes, history.index, column(history, "nc3"), color=style.PURPLE)
    return _finish(history, axes, r"NC3   $\|\, W^{\top}\!/\|W\|_F - \bar{M}/\|\bar{M}\|_F \,\|_F^2$")


def nc4(history: pd.DataFrame, axes: Axes) -> Axes:
    """Share of the examples that the network and the nearest class mean decide differently."""
    return _shares(history, axes, "NC4   share decided otherwise", (column(history, "nc4_mismatch"), None, style.GREEN))


def accuracy(history: pd.DataFrame, axes: Axes) -> Axes:
    """Training and test error."""
    training = (column(history, "train_error"), "training", style.BLUE)
    test = (1 - column(history, "test_accuracy"), "test", style.ORANGE)
    return _shares(history, axes, "examples misclassified", training, test)


def robustness(history: pd.DataFrame, axes: Axes) -> Axes:
    """Relative size of the smallest adversarial perturbation (like Fig. 8 of Papyan, Han & Donoho, 2020)."""
    style.line(axes, history.index, column(history, "robustness"), color=style.BLACK, label="mean")
    style.line(axes, history.index, column(history, "robustness.median"), color=style.SKY, label="median")
    _finish(history, axes, r"robustness   $\|r(x)\|_2\,/\,\|x\|_2$")
    # one run spans half a decade, another four: 1, 2 and 5 are readable in both
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    return axes


def snr(history: pd.DataFrame, axes: Axes) -> Axes:
    """Singular values of the signal-to-noise matrix, largest to smallest."""
    spectra = np.array(history["snr"].tolist(), dtype=float)
    count = spectra.shape[1]
    names = {0: r"largest, $\omega_1$", count - 1: rf"smallest, $\omega_{{{count}}}$"}
    for rank, color in enumerate(style.rank_colors(count)):
        style.line(axes, history.index, spectra[:, rank], color=color, label=names.get(rank), linewidth=1.2)
    return _finish(history, axes, r"singular values of $\Sigma_W^{-1/2}\bar{M}$")


def path_distance(history: pd.DataFrame, axes: Axes) -> Axes:
    """L⊥_LS / L: how far the classifier is from the central path, on which it is the least-squares one."""
    share = column(history, "mse.ls_perp") / column(history, "mse.total")
    style.line(axes, history.index, share, color=style.VERMILION)
    return _finish(history, axes, r"$\mathcal{L}^{\perp}_{\mathrm{LS}}\,/\,\mathcal{L}$")


def share_axis(axes: Axes, num_examples: int) -> None:
    """A logarithmic axis of shares that is linear below one example, so that zero can be seen."""
    one = 1 / float(num_examples)
    axes.set_yscale("symlog", linthresh=one, linscale=0.4)
    axes.set_ylim(bottom=0)
    ticks = [0.0, *(10.0**power for power in range(int(np.ceil(np.log10(one))), 1))]
    axes.set_yticks(ticks, ["0", *(f"{100 * tick:g} %" for tick in ticks[1:])])
    axes.minorticks_off()


def _means_and_classifier(history: pd.DataFrame, axes: Axes, key: str, label: str) -> Axes:
    style.line(axes, history.index, column(history, f"{key}_means"), color=style.MEANS, label="class means")
    style.line(axes, history.index, column(history, f"{key}_classifier"), color=style.CLASSIFIER, label="classifier")
    return _finish(history, axes, label)


def _shares(history: pd.DataFrame, axes: Axes, label: str, *curves: tuple[np.ndarray, str | None, str]) -> Axes:
    """Shares of the examples, each with its name and colour, down to zero."""
    marker = "o" if len(history) == 1 else ""
    for shares, name, color in curves:
        axes.plot(history.index, shares, color=color, label=name, marker=marker, clip_on=False, zorder=3)
    share_axis(axes, history["num_examples"].iloc[-1])
    return _finish(history, axes, label, log=False)


def _finish(history: pd.DataFrame, axes: Axes, label: str, *, log: bool = True) -> Axes:
    """Scale and label of the vertical axis, and the axis of epochs with its red line."""
    if log:
        axes.set_yscale("log")
    axes.set_ylabel(label)
    if history.index.name == "epoch":
        style.epoch_axis(axes, history.index, zero_error_epoch(history))
    return axes
