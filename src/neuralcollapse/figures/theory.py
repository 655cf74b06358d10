"""Figures of the theory: a network against the closed form, and the closed form against an integrated flow."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from neuralcollapse.figures import captions
from neuralcollapse.figures.animation import animate
from neuralcollapse.figures.portrait import project
from neuralcollapse.figures.study_runs import Study
from neuralcollapse.figures.writing import write_figure
from neuralcollapse.plots import curves, spectrum, style
from neuralcollapse.plots.options import Drawing
from neuralcollapse.theory.clock import ClockFit
from neuralcollapse.theory.flow import Renormalization
from neuralcollapse.theory.simulation import Simulation

_NC = (("nc1", "NC1", "-"), ("maximal_angle_means", "NC2, means", style.DASHES[1]),
       ("maximal_angle_classifier", "NC2, classifier", style.DASHES[2]), ("nc3", "NC3", style.DASHES[3]))  # fmt: skip


def compare_run(
    run_dir: Path, flow: Renormalization = "projected", out: Path | None = None, drawing: Drawing | None = None
) -> tuple[ClockFit, list[Path]]:
    """Fit one clock to a run's singular values and write `theory`.

    Args:
        run_dir: what holds one run; classes must be balanced to the example or nearly so (N = n/C).
        flow: "projected", the paper's, "multiplicative", or "none": not renormalized, all ω_j growing alike.
        out: the folder of the pictures; by default the run's `figures/`.
        drawing: formats, size and title.

    Raises:
        InputError: no run, one trained with another loss than the squared error, or fewer than two epochs with finite
            singular values.
    """
    drawing, study = drawing or Drawing(), Study.read(run_dir)
    history = study.history()
    fit = spectrum.fit_history(history.to_frame(), flow)
    with matplotlib.rc_context(style.rc(drawing)):
        figure, panels = _four_panels(drawing)
        for ax, draw in zip(panels, (spectrum.closed_form, ratios, residual, condition), strict=True):
            draw(fit, ax)
            curves.mark_events(ax, history.runs)
            style.log_axis(ax, "x")
            ax.set(xlabel="epoch", xlim=panels[0].get_xlim())
        if drawing.title:
            run = study.runs[0]
            style.title(figure, f"{run.model_title} on {run.records.dataset} and the central path")
        figure.draw_without_rendering()  # type: ignore[no-untyped-call]  # only then the panels have their size
        for ax in panels:
            told = style.legend_entries([ax])
            if ax is not panels[0]:
                told = {label: handle for label, handle in told.items() if "zero" not in label and "rate" not in label}
            if told:
                style.legend_inside(ax, told)
        said = f"A network and the closed form of the central path, {flow} flow: {captions.subject(study)}"
        shown = captions.formula(
            r"The singular values $\omega_j$ and the path $\omega_j^{\mathrm{path}}$ that starts from those of the "
            r"first epoch, by a monotone change of time, fitted epoch by epoch; their ratio; the root mean "
            r"square of its logarithm over $j$, and that of $\omega_j$ over its own first value, which is what a "
            "path without any motion would leave; and the largest over the smallest of them."
        )
        caption = " ".join([said, shown, captions.EVENTS, *captions.state(study)])
        return fit, write_figure(figure, run_dir / "figures" if out is None else out, "theory", caption, drawing)


def ratios(fit: ClockFit, ax: Axes) -> Axes:
    """Each singular value over that of the closed form; 1 is agreement."""
    style.log_axis(ax, "y")
    for rank, color in enumerate(style.rank_colors(fit.measured.shape[1])):
        style.line(
            ax, fit.epochs, fit.measured[:, rank] / fit.predicted[:, rank], color=color, linewidth=style.scaled(0.9)
        )
    ax.axhline(1, color=style.GREY, linewidth=style.scaled(0.8), zorder=1)
    ax.set_ylabel("ω / ω of the path")
    style.rank_bar(ax, fit.measured.shape[1])
    style.fit([ax])
    return ax


def residual(fit: ClockFit, ax: Axes) -> Axes:
    """How far the network is from the closed form with one clock, and from no motion at all."""
    style.log_axis(ax, "y")
    dashed: dict[str, Any] = {"linestyle": style.DASHES[1], "label": "from ω of the first epoch"}
    style.line(ax, fit.epochs[1:], fit.unmoved[1:], color=style.GREY, **dashed)
    style.line(ax, fit.epochs[1:], fit.residual[1:], color=style.BLACK, label="from the closed form")
    ax.set_ylabel("distance of log ω")
    style.fit([ax])
    return ax


def condition(fit: ClockFit, ax: Axes) -> Axes:
    """Largest over smallest singular value, of the network and of the closed form."""
    style.log_axis(ax, "y")
    black: dict[str, Any] = {"color": style.BLACK, "gid": "curve"}
    ax.plot(fit.epochs, fit.predicted_condition, linewidth=style.scaled(0.9), label="closed form", **black)
    ax.plot(
        fit.epochs,
        fit.measured_condition,
        "o",
        markersize=style.scaled(2.2),
        markerfacecolor="w",
        label="network",
        **black,
    )
    ax.set_ylabel("largest ω / smallest ω")
    style.fit([ax])
    return ax


def draw_simulation(simulation: Simulation, out: Path, drawing: Drawing | None = None) -> list[Path]:
    """Write `dynamics`, closed form against integration, and the animation `collapse`, into the folder `out`."""
    drawing = drawing or Drawing()
    path, flow, at = simulation.path, simulation.flow, simulation.times[1:]
    times = np.geomspace(at[0], at[-1], 400)
    omega, closed = flow.singular_values.numpy()[1:], path.metrics(times, simulation.right_vectors)
    labels = ("signal to noise", "MSE loss", "largest ω / smallest ω − 1", "distance from collapse")
    with matplotlib.rc_context(style.rc(drawing)):
        figure, panels = _four_panels(drawing)
        first, loss, spread, collapse = panels
        for rank, color in enumerate(style.rank_colors(omega.shape[1])):
            _overlay(first, times, path.singular_values(times)[:, rank], at, omega[:, rank], color)
        first.plot(
            times, path.asymptote(times), color=style.GREY, linestyle=style.DASHES[1], label="asymptote", gid="curve"
        )
        _overlay(loss, times, path.loss(times), at, flow.loss.numpy()[1:], style.COLORS["mse.total"])
        _overlay(spread, times, path.condition(times) - 1, at, omega[:, 0] / omega[:, -1] - 1, style.BLACK)
        for key, name, dashes in _NC:
            _overlay(collapse, times, getattr(closed, key), at, simulation.measured[key][1:], style.BLACK, dashes, name)
        for ax, label in zip(panels, labels, strict=True):
            alone = ax is spread and omega.shape[1] == 1  # one ω has no other to differ from
            style.log_axis(ax, "x" if alone else "xy")
            ax.set(xlabel="time", ylabel=label)
            style.fit([ax])
        first.plot([], [], color=style.GREY, label="closed form")
        first.plot([], [], "o", color=style.GREY, markersize=style.scaled(2.2), markerfacecolor="w", label="integrated")
        style.rank_bar(first, omega.shape[1])
        if drawing.title:
            style.title(figure, "The central path: closed form and integrated flow")
        figure.draw_without_rendering()  # type: ignore[no-untyped-call]  # only then the panels have their size
        for ax in (first, collapse):
            style.legend_inside(ax, style.legend_entries([ax]))
        c = path.constants
        caption = (
            f"The renormalized gradient flow ({path.flow}) from random features, C = {path.num_classes} classes of "
            f"N = {path.samples_per_class:g}, λ = {path.weight_decay:g}; lines: closed form (constants {c.c1:g}, "
            f"{c.c2:g} and {c.c3:g}), circles: integrated. Singular values of the signal-to-noise matrix, the MSE "
            "loss, how far the largest over the smallest value is from 1, and NC1 to NC3."
        )
        written = write_figure(figure, out, "dynamics", caption, drawing)
    return written + _animate(simulation, out / "collapse")


def _four_panels(drawing: Drawing) -> tuple[Figure, list[Axes]]:
    width, columns = style.WIDTHS[drawing.style], 1 if drawing.style == "column" else 2
    figure = Figure(figsize=(width, 0.34 * width * 4 / columns + 0.3), layout="constrained")
    return figure, list(figure.subplots(4 // columns, columns).flat)


def _overlay(
    ax: Axes, times: ArrayLike, closed: ArrayLike, at: ArrayLike, found: ArrayLike, color: str, dashes: object = "-",
    name: str | None = None,
) -> None:  # fmt: skip
    """A line of the closed form, and circles of what was integrated, every third, so that the line is seen."""
    ax.plot(times, closed, color=color, linestyle=dashes, linewidth=style.scaled(0.9), label=name, gid="curve")
    circles: dict[str, Any] = {
        "markersize": style.scaled(2.4),
        "markerfacecolor": "w",
        "markeredgewidth": style.scaled(0.6),
        "markevery": 3,
    }
    ax.plot(at, found, "o", color=color, gid="curve", **circles)


def _animate(simulation: Simulation, path: Path) -> list[Path]:
    """Three classes of the flow in the plane of their simplex: GIF, and MP4 where its encoder is installed."""
    labels = simulation.labels
    classes = range(labels.max() + 1)
    views, nc1 = {}, {}
    for place in range(1, len(simulation.times)):
        features = simulation.flow.features[place].numpy()
        means = np.stack([features[labels == label].mean(axis=0) for label in classes])
        scene = {"class_means": means, "weight": simulation.classifiers[place], "features": features, "labels": labels}
        at = float(simulation.times[place])
        views[at], nc1[at] = project(scene, classes[:3]), float(simulation.measured["nc1"][place])

    def curve(ax: Axes) -> Axes:
        style.log_axis(ax, "xy")
        style.line(ax, list(nc1), list(nc1.values()), color=style.BLACK)
        ax.set(ylabel="NC1")
        return ax

    endings = ("gif", "mp4") if importlib.util.find_spec("imageio_ffmpeg") else ("gif",)
    return animate(views, nc1, curve, "time", f"The central path ({simulation.path.flow} flow)", path, endings)
