"""The curves over epochs: each function draws one figure of the paper into axes it is given.

The legend is left to whoever composes the panels: one for each, or one for all.
"""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from neuralcollapse.figures import style
from neuralcollapse.figures.runview import RunView


def decomposition(axes: Axes, run: RunView) -> None:
    """The MSE loss and its parts (Fig. 2)."""
    for key, name, color, width in (
        ("mse.total", r"$\mathcal{L}$", style.BLACK, 2.2),
        ("mse.nc1", r"$\mathcal{L}_{\mathrm{NC1}}$", style.BLUE, 1.6),
        ("mse.nc23", r"$\mathcal{L}_{\mathrm{NC2/3}}$", style.GREEN, 1.6),
        ("mse.ls_perp", r"$\mathcal{L}^{\perp}_{\mathrm{LS}}$", style.VERMILION, 1.6),
    ):
        style.line(axes, run.epochs, run.column(key), color=color, label=name, linewidth=width)
    _finish(axes, run, "MSE loss of the last layer")


def nc1(axes: Axes, run: RunView) -> None:
    """Within-class variability (like Fig. 6 of Papyan, Han & Donoho, 2020)."""
    style.line(axes, run.epochs, run.column("nc1"), color=style.BLACK)
    _finish(axes, run, r"NC1   $\mathrm{tr}(\Sigma_W \Sigma_B^{\dagger})\,/\,C$")


def nc2_equinorm(axes: Axes, run: RunView) -> None:
    """Coefficient of variation of the norms (Fig. 3)."""
    _means_and_classifier(axes, run, "nc2.equinorm", r"NC2   Std$\,\|\cdot\|\,/\,$Avg$\,\|\cdot\|$")


def nc2_equiangularity(axes: Axes, run: RunView) -> None:
    """Standard deviation of the cosines (Fig. 4)."""
    _means_and_classifier(axes, run, "nc2.equiangularity", r"NC2   Std$\,\cos(c, c')$")


def nc2_maximal_angle(axes: Axes, run: RunView) -> None:
    """Mean distance of the cosines from −1/(C−1) (Fig. 5)."""
    _means_and_classifier(axes, run, "nc2.maximal_angle", r"NC2   Avg$\,|\cos(c, c') + \frac{1}{C-1}|$")


def nc3(axes: Axes, run: RunView) -> None:
    """Self-duality of classifier and class means."""
    style.line(axes, run.epochs, run.column("nc3"), color=style.PURPLE)
    label = r"NC3   $\|\, W^{\top}\!/\|W\|_F - \bar{M}/\|\bar{M}\|_F \,\|_F^2$"
    _finish(axes, run, label)


def nc4(axes: Axes, run: RunView) -> None:
    """Share of examples on which network and nearest class mean disagree."""
    axes.plot(run.epochs, run.column("nc4_mismatch"), color=style.GREEN, marker=_marker(run), clip_on=False, zorder=3)
    share_axis(axes, run.records[-1]["num_examples"])
    _finish(axes, run, "NC4   share decided otherwise", log=False)


def accuracy(axes: Axes, run: RunView) -> None:
    """Training and test error."""
    test = [1 - value for value in run.column("test_accuracy")]
    for values, name, color in (
        (run.column("train_error"), "training", style.BLUE),
        (test, "test", style.ORANGE),
    ):
        axes.plot(run.epochs, values, color=color, label=name, marker=_marker(run), clip_on=False, zorder=3)
    share_axis(axes, run.records[-1]["num_examples"])
    _finish(axes, run, "examples misclassified", log=False)


def robustness(axes: Axes, run: RunView) -> None:
    """Relative size of the smallest adversarial perturbation (like Fig. 8 of Papyan, Han & Donoho, 2020)."""
    style.line(axes, run.epochs, run.column("robustness"), color=style.BLACK, label="mean")
    style.line(axes, run.epochs, run.column("robustness.median"), color=style.SKY, label="median")
    _finish(axes, run, r"robustness   $\|r(x)\|_2\,/\,\|x\|_2$")
    # one run spans half a decade, another four: 1, 2 and 5 are readable in both
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def snr(axes: Axes, run: RunView) -> None:
    """Singular values of the signal-to-noise matrix, largest to smallest."""
    spectra = [np.asarray(record["snr"], dtype=float) for record in run.records]
    count = max(len(spectrum) for spectrum in spectra)
    table = np.full((len(spectra), count), np.nan)
    for row, spectrum in zip(table, spectra, strict=True):
        row[: len(spectrum)] = spectrum
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, count))
    for rank in range(count):
        named = {0: r"largest, $\omega_1$", count - 1: rf"smallest, $\omega_{{{count}}}$"}
        color = matplotlib.colors.to_hex(colors[rank])
        style.line(axes, run.epochs, table[:, rank].tolist(), color=color, label=named.get(rank), linewidth=1.2)
    _finish(axes, run, r"singular values of $\Sigma_W^{-1/2}\bar{M}$")


def _means_and_classifier(axes: Axes, run: RunView, key: str, label: str) -> None:
    style.line(axes, run.epochs, run.column(f"{key}_means"), color=style.MEANS, label="class means")
    style.line(axes, run.epochs, run.column(f"{key}_classifier"), color=style.CLASSIFIER, label="classifier")
    _finish(axes, run, label)


def _finish(axes: Axes, run: RunView, label: str, *, log: bool = True) -> None:
    if log:
        axes.set_yscale("log")
    axes.set_ylabel(label)
    style.epoch_axis(axes, run.epochs, run.zero_error_epoch)


def share_axis(axes: Axes, num_examples: int) -> None:
    """A logarithmic axis of shares, linear below one example, so that zero can be seen."""
    one = 1 / float(num_examples)
    axes.set_yscale("symlog", linthresh=one, linscale=0.4)
    axes.set_ylim(bottom=0)
    ticks = [0.0, *(10.0**power for power in range(int(np.ceil(np.log10(one))), 1))]
    axes.set_yticks(ticks, ["0", *(f"{100 * tick:g} %" for tick in ticks[1:])])
    axes.minorticks_off()


def _marker(run: RunView) -> str:
    return "o" if len(run.records) == 1 else ""
