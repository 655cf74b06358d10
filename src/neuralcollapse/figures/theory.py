"""Figures of the theory: a network against the closed form, and the closed form against an integrated flow."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from neuralcollapse.figures import curves, style
from neuralcollapse.figures.history import read_history, zero_error_epoch
from neuralcollapse.figures.portrait import portrait, project
from neuralcollapse.figures.titles import objective, subject
from neuralcollapse.figures.writing import write_animation, write_figure
from neuralcollapse.theory.clock import ClockFit, fit_clock
from neuralcollapse.theory.simulation import Simulation
from neuralcollapse.training.run_directory import Run


@matplotlib.rc_context(style.RC)
def compare_run(run_dir: Path, flow: str = "projected", out: Path | None = None) -> tuple[ClockFit, list[Path]]:
    """Fit one clock to a run's singular values and draw `theory` and `proximity`.

    Args:
        run_dir: a run directory; classes must be balanced to the example or nearly so (N = n/C).
        flow: "projected", the paper's, or "multiplicative".
        out: the folder of the pictures; by default the run's `figures/`.

    Raises:
        InputError: no run, or fewer than two epochs with finite singular values.
    """
    run = Run.open(run_dir)
    history = read_history(run)
    finite = history[[bool(np.isfinite(values).all()) for values in history["snr"]]]
    fit = fit_clock(
        finite.index.to_numpy(),
        np.array(finite["snr"].tolist()),
        num_classes=int(history["num_classes"].iloc[0]),
        samples_per_class=history["num_examples"].iloc[0] / history["num_classes"].iloc[0],
        flow=flow,  # type: ignore[arg-type]
    )
    width, height = style.PANEL
    theory = Figure(figsize=(3 * width, 1.15 * height))
    spectrum, residual, condition = theory.subplots(1, 3)
    style.legend(spectrum_on_path(fit, spectrum))
    for axes in (clock_residual(fit, residual), clock_condition(fit, condition)):
        style.epoch_axis(axes, fit.epochs, zero_error_epoch(history))
        style.legend(axes)
    style.figure_title(theory, f"{subject(run.config)}, {objective(run.config)}; {flow} flow", 9)

    proximity = Figure(figsize=style.PANEL)
    curves.path_distance(history, proximity.add_subplot())
    distance = f"{subject(run.config)}\n{objective(run.config)}; distance from the central path"
    style.figure_title(proximity, distance, 7.5)

    folder = run.path / "figures" if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    return fit, write_figure(theory, folder, "theory") + write_figure(proximity, folder, "proximity")


@matplotlib.rc_context(style.RC)
def draw_simulation(simulation: Simulation, out: Path) -> list[Path]:
    """Draw `dynamics`, closed form against integration, and the animation `collapse.gif`, into the folder `out`."""
    path, flow, at = simulation.path, simulation.flow, simulation.times[1:]
    times = np.geomspace(at[0], at[-1], 400)
    omega, closed = flow.singular_values.numpy()[1:], path.metrics(times, simulation.right_vectors)
    width, height = style.PANEL
    figure = Figure(figsize=(2 * width, 2 * height))
    spectrum, loss, condition, collapse = figure.subplots(2, 2).flat
    names = ("closed form", "integrated")
    _spectra(spectrum, times, path.singular_values(times), at, omega, "integrated")
    spectrum.plot(times, path.asymptote(times), color=style.GREY, label="asymptote", linestyle="--", linewidth=1.4)
    _overlay(loss, times, path.loss(times), at, flow.loss.numpy()[1:], style.BLACK, names)
    _overlay(condition, times, path.condition(times) - 1, at, omega[:, 0] / omega[:, -1] - 1, style.BLACK, names)
    for name, key, color in (
        ("NC1", "nc1", style.BLACK),
        ("NC2 maximal angle, means", "maximal_angle_means", style.MEANS),
        ("NC2 maximal angle, classifier", "maximal_angle_classifier", style.CLASSIFIER),
        ("NC3", "nc3", style.PURPLE),
    ):
        _overlay(collapse, times, getattr(closed, key), at, simulation.measured[key][1:], color, (name, None))
    for axes, label in (
        (spectrum, r"$\omega_j$"),
        (loss, r"$\mathcal{L}$"),
        (condition, r"$\max_j \omega_j / \min_j \omega_j - 1$"),
        (collapse, "distance from collapse"),
    ):
        axes.set(xscale="log", yscale="log", xlabel="time $t$", ylabel=label)
        style.legend(axes)
    c = path.constants
    figure.suptitle(
        f"Renormalized gradient flow ({path.flow}), C = {path.num_classes}, N = {path.samples_per_class:g}, "
        f"$\\lambda$ = {path.weight_decay:g}; $c_1$ = {c.c1:g}, $c_2$ = {c.c2:g}, $c_3$ = {c.c3:g}",
        fontsize=9,
    )
    out.mkdir(parents=True, exist_ok=True)
    return [*write_figure(figure, out, "dynamics"), _animate(simulation, out / "collapse.gif")]


def spectrum_on_path(fit: ClockFit, axes: Axes) -> Axes:
    """Singular values of a network, at the times of the fitted clock, over those of the closed form."""
    moved = fit.times > 0
    _spectra(axes, fit.times[moved], fit.predicted[moved], fit.times[moved], fit.measured[moved], "network")
    axes.set(xscale="log", yscale="log", xlabel="fitted time $t$ of the flow", ylabel=r"$\omega_j$")
    return axes


def clock_residual(fit: ClockFit, axes: Axes) -> Axes:
    """Distance of the network from the closed form with one clock, and from a path that stands still."""
    style.line(axes, fit.epochs, fit.unmoved, color=style.GREY, label="path standing still")
    style.line(axes, fit.epochs, fit.residual, color=style.BLACK, label="closed form, one clock")
    axes.set(yscale="log", ylabel=r"rms$_j\ \log(\omega_j / \omega_j^{\mathrm{path}})$")
    return axes


def clock_condition(fit: ClockFit, axes: Axes) -> Axes:
    """Largest over smallest singular value, of the network and of the closed form."""
    style.line(axes, fit.epochs, fit.measured_condition, color=style.BLUE, label="network")
    style.line(axes, fit.epochs, fit.predicted_condition, color=style.VERMILION, label="closed form")
    axes.set(ylabel=r"$\max_j \omega_j\,/\,\min_j \omega_j$", ylim=(0.9, None))
    return axes


def _spectra(axes: Axes, times: np.ndarray, closed: np.ndarray, at: np.ndarray, found: np.ndarray, name: str) -> None:
    """Singular values, a column for each: lines of the closed form, and dots that are explained by `name`."""
    for rank, color in enumerate(style.rank_colors(found.shape[1])):
        _overlay(axes, times, closed[:, rank], at, found[:, rank], color, linewidth=1.2)
    _overlay(axes, [], [], [], [], style.GREY, ("closed form", name), linewidth=1.6)


def _overlay(
    axes: Axes,
    times: ArrayLike,
    closed: ArrayLike,
    at: ArrayLike,
    found: ArrayLike,
    color: str,
    names: tuple[str | None, str | None] = (None, None),
    linewidth: float = 1.4,
) -> None:
    """A line of the closed form, and dots of what was measured or integrated."""
    axes.plot(times, closed, color=color, label=names[0], linewidth=linewidth)
    axes.plot(at, found, color=color, label=names[1], linestyle="", marker="o", markersize=3)


def _animate(simulation: Simulation, path: Path) -> Path:
    """Three classes of the flow in the plane of their simplex, a frame for each time."""
    figure = Figure(figsize=(4.2, 4.2))
    axes = figure.add_subplot()
    labels = simulation.labels
    classes = range(labels.max() + 1)

    def draw(index: int) -> None:
        features = simulation.flow.features[index].numpy()
        means = np.stack([features[labels == label].mean(axis=0) for label in classes])
        weight = simulation.classifiers[index]
        snapshot = {"class_means": means, "weight": weight, "features": features, "labels": labels}
        axes.clear()
        portrait(project(snapshot, classes[:3]), axes, reach=2.0)
        axes.set_title(f"time {simulation.times[index]:.3g}")

    return write_animation(figure, draw, range(len(simulation.times)), path, fps=12)
