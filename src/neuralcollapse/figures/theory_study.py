"""A study's networks against the closed forms of the central path: one figure for each family of networks, one table.

Three flows are laid beside each run, each with a monotone change of time fitted epoch by epoch: both renormalized ones
of `CentralPath`, and the one without renormalization, in which every ω_j grows by the same factor.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuralcollapse._checks import Array, InputError
from neuralcollapse.figures import captions
from neuralcollapse.figures.study_runs import Study, StudyRun
from neuralcollapse.figures.writing import write_figure
from neuralcollapse.measuring.events import stays_zero_error
from neuralcollapse.plots import curves, style
from neuralcollapse.plots.options import Drawing
from neuralcollapse.plots.spectrum import SQUARED_ERROR, draw_ranks, fit_history
from neuralcollapse.theory.clock import ClockFit
from neuralcollapse.theory.flow import Renormalization

FLOWS: dict[Renormalization, str] = {
    "projected": "projected (paper)",
    "multiplicative": "multiplicative",
    "none": "not renormalized",
}
"""The flows, and what legends call them."""
_TENTH = 9
"""Place of the tenth measured epoch, from which on the paper calls L⊥_LS negligible."""
_NEAR = 0.05
"""L⊥_LS/L below which a network counts as near the path."""


@dataclass(frozen=True)
class RunFits:
    """One run and its fits.

    Args:
        run: the run.
        fits: for each flow, from the first measured epoch on.
        later: the same from the tenth on; empty where there are fewer.
        tenth: the tenth measured epoch, or the last of fewer.
    """

    run: StudyRun
    fits: dict[Renormalization, ClockFit]
    later: dict[Renormalization, ClockFit]
    tenth: float

    def row(self) -> dict[str, object]:
        """Its numbers, a column each, as `summary` describes them."""
        found: dict[str, object] = {"dataset": self.run.records.dataset, "network": self.run.model_title}
        for name, fits in (("", self.fits), (" from the tenth", self.later)):
            for flow, fit in fits.items():
                found[f"{flow}{name}"] = float(np.median(fit.residual[1:]))
        fit = self.fits["projected"]
        logs = np.log(fit.measured / fit.measured[0])
        share = self._off_the_path(fit.epochs[1:])
        found |= {
            "projected off the path": _middle(fit.residual[1:][share >= _NEAR]),
            "projected near the path": _middle(fit.residual[1:][share < _NEAR]),
            "one factor": float(np.median(logs.std(axis=1)[1:])),
            "growth": float(np.exp(logs[-1].mean())),
            "exponent": self._exponent(fit),
            "max/min first": float(fit.measured_condition[0]),
            "max/min least": float(fit.measured_condition.min()),
            "max/min last": float(fit.measured_condition[-1]),
        }
        return found

    def _off_the_path(self, epochs: Array) -> Array:
        """L⊥_LS/L at each epoch; NaN where it was not measured."""
        measured = [each for each in self.run.records.records if "mse.ls_perp" in each]
        shares = {each["epoch"]: np.divide(float(each["mse.ls_perp"]), float(each["mse.total"])) for each in measured}
        return np.array([shares.get(at, np.nan) for at in epochs])

    def _exponent(self, fit: ClockFit) -> float:
        """Slope of mean log ω over log epoch, from the tenth measured epoch to that from which the error stays zero."""
        until = stays_zero_error(self.run.records.records) or fit.epochs[-1]
        chosen = (fit.epochs >= self.tenth) & (fit.epochs <= until)
        if chosen.sum() < 3:
            return float("nan")
        return float(np.polyfit(np.log(fit.epochs[chosen]), np.log(fit.measured[chosen]).mean(axis=1), 1)[0])


def fit_study(study: Study) -> list[RunFits]:
    """Every run of the study that was trained with the squared error, with its fits.

    Raises:
        InputError: there is none of two measured epochs.

    Warns:
        UserWarning: a run is left out, and why.
    """
    found = []
    for run in study.runs:
        if run.records.loss not in SQUARED_ERROR:
            continue
        table = study.history([run]).to_frame()
        epochs = np.unique(table["epoch"])
        if len(epochs) < 2:
            warnings.warn(f"{run.records.run} has one measured epoch, and is left out", UserWarning, stacklevel=2)
            continue
        late = table[table["epoch"] >= epochs[_TENTH]] if len(epochs) > _TENTH + 1 else None
        try:
            fits = {flow: fit_history(table, flow) for flow in FLOWS}
            later = {} if late is None else {flow: fit_history(late, flow) for flow in FLOWS}
        except InputError as error:
            warnings.warn(f"{run.records.run} is left out: {error}", UserWarning, stacklevel=2)
            continue
        found.append(RunFits(run, fits, later, float(epochs[min(_TENTH, len(epochs) - 1)])))
    if not found:
        names = captions.listed([run.records.run for run in study.runs])
        raise InputError(
            f"{names}: no run trained with the MSE loss, which alone the closed form describes, has two measured "
            "epochs with finite singular values"
        )
    return found


def summary(study: Study) -> pd.DataFrame:
    """A row for each network and data set, medians over the seeds `n`.

    Columns `projected`, `multiplicative` and `none`: the median over the epochs of the root mean square over j of
    log(ω_j/ω_j of that flow), 0.1 is ten per cent; the same `from the tenth` measured epoch, and for the paper's flow
    `off the path` and `near the path`, L⊥_LS/L ≥ 5 % and below; `one factor`: the same where all ω_j are taken to have
    grown by one factor, free at each epoch, while that of `none` never falls; `growth` of the mean log ω as a factor,
    first to last epoch; `exponent` of ω over the epoch, from the tenth measured epoch to that from which the training
    error stays zero; `max/min` of the ω_j at the first epoch, at its least, and at the last.
    """
    return _summary(fit_study(study))


def _middle(values: Array) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def _summary(found: list[RunFits]) -> pd.DataFrame:
    groups = pd.DataFrame([each.row() for each in found]).groupby(["dataset", "network"], sort=False)
    return groups.median().assign(n=groups.size()).reset_index()


def compare_study(
    path: Path, out: Path | None = None, drawing: Drawing | None = None
) -> tuple[pd.DataFrame, list[Path]]:
    """Lay the closed forms over the singular values of all MSE runs of a study; write `theory-vgg`, `theory-resnet`, …

    Args:
        path: a study.
        out: the folder of the pictures; by default the study's `figures/`.
        drawing: formats, size and title.

    Returns:
        The table of `summary`, and the files written.

    Raises:
        InputError: nothing that `Study.read` reads, or no run trained with the squared error.
    """
    drawing, study = drawing or Drawing(), Study.read(path)
    found = fit_study(study)
    table = _summary(found)
    folder, written = path / "figures" if out is None else out, []
    with matplotlib.rc_context(style.rc(drawing)):
        for network in dict.fromkeys(each.run.network for each in found):
            part = [each for each in found if each.run.network == network]
            figure = _draw(part, drawing)
            if drawing.title:
                style.title(figure, f"{network} and the central path")
            written += write_figure(figure, folder, f"theory-{network.lower()}", _caption(part), drawing)
    return table, written


def _draw(found: list[RunFits], drawing: Drawing) -> Figure:
    """Data sets in columns; the spectrum of the first seed, the distance of each flow, and max ω / min ω in rows."""
    datasets = list(dict.fromkeys(each.run.records.dataset for each in found))
    tall = 1.6 if drawing.style == "talk" else 1
    figure = Figure(figsize=(style.WIDTHS[drawing.style], 4.6 * tall), layout="constrained")
    panels = figure.subplots(3, len(datasets), sharex=True, sharey="row", squeeze=False)
    for column, dataset in zip(panels.T, datasets, strict=True):
        group = [each for each in found if each.run.records.dataset == dataset]
        column[0].set_title(style.plain(dataset), pad=style.scaled(11))  # above the triangles of the events
        for ax, draw in zip(column, (_spectrum, _distances, _conditions), strict=True):
            draw(group, ax)
            curves.mark_events(ax, Study((group[0].run,)).history().runs)
            style.log_axis(ax, "xy")
    for row, label in zip(panels, ("signal to noise", "distance of log ω", "largest ω / smallest ω"), strict=True):
        row[0].set_ylabel(label)
        style.fit(row)
    for ax in panels[-1]:
        ax.set_xlabel("epoch")
    count = max(each.fits["projected"].measured.shape[1] for each in found)
    dots: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": style.scaled(2.5), "markeredgewidth": 0}
    ranks = tuple(Line2D([], [], color=color, **dots) for color in style.rank_colors(count))
    last = str(count).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
    entries = {f"ω₁ … ω{last} of the network": ranks, **style.legend_entries(panels[-1])}
    style.legend_below(figure, entries, handlelength=1.8)
    return figure


def _spectrum(group: list[RunFits], ax: Axes) -> None:
    draw_ranks(group[0].fits["projected"], ax, style.scaled(0.8), style.scaled(1.6))


def _distances(group: list[RunFits], ax: Axes) -> None:
    _median(ax, [each.fits["projected"] for each in group], "unmoved", color=style.GREY, linewidth=style.scaled(0.8))
    for flow, look in _LOOKS.items():
        _median(ax, [each.fits[flow] for each in group], "residual", **look)


def _conditions(group: list[RunFits], ax: Axes) -> None:
    for number, each in enumerate(group):
        fit = each.fits["projected"]
        dots: dict[str, Any] = {"markersize": style.scaled(1.6), "markeredgewidth": 0, "gid": "curve"}
        name = "network" if not number else None
        ax.plot(fit.epochs, fit.measured_condition, "o", color=style.BLACK, label=name, **dots)
    for flow, look in _LOOKS.items():
        _median(ax, [each.fits[flow] for each in group], "predicted_condition", label=FLOWS[flow], first=0, **look)
    ax.plot([], [], color=style.GREY, linewidth=style.scaled(0.8), label="standing still")


_LOOKS: dict[Renormalization, dict[str, Any]] = {
    flow: {"color": color, "linestyle": dashes}
    for flow, color, dashes in zip(FLOWS, style.CLASS_COLORS[:3], style.DASHES, strict=False)
}


def _median(ax: Axes, fits: list[ClockFit], name: str, first: int = 1, **look: Any) -> None:
    """The median over the seeds, at the epochs that all of them measured."""
    epochs = sorted(set.intersection(*(set(fit.epochs[first:]) for fit in fits)))
    look = {"linewidth": style.scaled(1.0), **look}
    rows = [getattr(fit, name)[np.isin(fit.epochs, epochs)] for fit in fits]
    style.line(ax, epochs, np.median(rows, axis=0), **look)


def _caption(found: list[RunFits]) -> str:
    study = Study(tuple(each.run for each in found))
    cells = [run.cell for run in study.runs]
    seeds = max(map(cells.count, cells))  # of the cell with the most of them
    seeded = "one seed each" if seeds == 1 else f"up to {seeds} seeds"
    first = {each.cell: each.records.seed for each in reversed(study.runs)}.values()
    of = f"seed {seed}" if len({*first}) == 1 and (seed := next(iter(first))) is not None else "the first seed"
    shown = captions.formula(
        rf"Top: the singular values $\omega_j$ of {of} (dots, the largest dark), and the paper's closed form from "
        "those of the first epoch, by a monotone change of time, fitted epoch by epoch (lines). Middle: the "
        r"root mean square over $j$ of $\log(\omega_j/\omega_j^{\mathrm{path}})$ for three flows, each by its "
        "own change of time, and for a path that stands still; medians over the seeds. Bottom: the largest "
        r"over the smallest $\omega_j$ of every seed, and of the flows. "
        f"Triangles and vertical lines: of {of}."
    )
    said = f"Networks and the closed forms of the central path: {captions.subject(study).split(';')[0]}; {seeded}."
    return " ".join([said, shown, captions.EVENTS, *captions.state(study)])
