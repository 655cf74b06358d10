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
from neuralcollapse.figures.writing import write_figure, write_gif
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
    width, height = style.PANEL
    figure = Figure(figsize=(2 * width, 2 * height))
    panels = (simulated_spectrum, simulated_loss, simulated_condition, simulated_collapse)
    for draw, axes in zip(panels, figure.subplots(2, 2).flat, strict=True):
        draw(simulation, axes).set(xscale="log", yscale="log", xlabel="time $t$")
        style.legend(axes)
    path, constants = simulation.path, simulation.path.constants
    figure.suptitle(
        f"Renormalized gradient flow ({path.flow}), C = {path.num_classes}, N = {path.samples_per_class:g}, "
        f"$\\lambda$ = {path.weight_decay:g}; "
        f"$c_1$ = {constants.c1:g}, $c_2$ = {constants.c2:g}, $c_3$ = {constants.c3:g}",
        fontsize=9,
    )
    out.mkdir(parents=True, exist_ok=True)
    return [*write_figure(figure, out, "dynamics"), _animate(simulation, out / "collapse.gif")]


def spectrum_on_path(fit: ClockFit, axes: Axes) -> Axes:
    """Singular values of a network, at the times of the fitted clock, over those of the closed form."""
    moved = fit.times > 0
    for rank, color in enumerate(style.rank_colors(fit.measured.shape[1])):
        axes.plot(fit.times[moved], fit.predicted[moved, rank], color=color, linewidth=1.2)
        _dots(axes, fit.times[moved], fit.measured[moved, rank], color)
    axes.plot([], [], color=style.GREY, label="closed form")
    _dots(axes, [], [], style.GREY, "network")
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


def simulated_spectrum(simulation: Simulation, axes: Axes) -> Axes:
    """The ω_j in closed form, as integrated, and their asymptote."""
    times = _dense_times(simulation)
    omega, measured = simulation.path.singular_values(times), simulation.flow.singular_values.numpy()
    for rank, color in enumerate(style.rank_colors(measured.shape[1])):
        axes.plot(times, omega[:, rank], color=color, linewidth=1.2)
        _dots(axes, simulation.times[1:], measured[1:, rank], color)
    axes.plot([], [], color=style.GREY, label="closed form")
    _dots(axes, [], [], style.GREY, "integrated")
    asymptote = simulation.path.asymptote(times)
    axes.plot(times, asymptote, color=style.GREY, label="asymptote", linestyle="--", linewidth=1.4)
    axes.set_ylabel(r"$\omega_j$")
    return axes


def simulated_loss(simulation: Simulation, axes: Axes) -> Axes:
    """The loss in closed form and as integrated."""
    times = _dense_times(simulation)
    _closed_form(axes, times, simulation.path.loss(times), style.BLACK, "closed form")
    _dots(axes, simulation.times[1:], simulation.flow.loss.numpy()[1:], style.BLACK, "integrated")
    axes.set_ylabel(r"$\mathcal{L}$")
    return axes


def simulated_condition(simulation: Simulation, axes: Axes) -> Axes:
    """By how much the largest ω_j exceeds the smallest, in closed form and as integrated."""
    times, measured = _dense_times(simulation), simulation.flow.singular_values.numpy()[1:]
    _closed_form(axes, times, simulation.path.condition(times) - 1, style.BLACK, "closed form")
    _dots(axes, simulation.times[1:], measured[:, 0] / measured[:, -1] - 1, style.BLACK, "integrated")
    axes.set_ylabel(r"$\max_j \omega_j / \min_j \omega_j - 1$")
    return axes


def simulated_collapse(simulation: Simulation, axes: Axes) -> Axes:
    """NC1, NC2 and NC3 in closed form, and as the metrics measure them on the integrated features."""
    times = _dense_times(simulation)
    predicted = simulation.path.metrics(times, simulation.right_vectors)
    for name, key, color in (
        ("NC1", "nc1", style.BLACK),
        ("NC2 maximal angle, means", "maximal_angle_means", style.MEANS),
        ("NC2 maximal angle, classifier", "maximal_angle_classifier", style.CLASSIFIER),
        ("NC3", "nc3", style.PURPLE),
    ):
        _closed_form(axes, times, getattr(predicted, key), color, name)
        _dots(axes, simulation.times[1:], simulation.measured[key][1:], color)
    axes.set_ylabel("distance from collapse")
    return axes


def _dense_times(simulation: Simulation) -> np.ndarray:
    return np.geomspace(simulation.times[1], simulation.times[-1], 400)


def _closed_form(axes: Axes, x: ArrayLike, y: ArrayLike, color: str, label: str) -> None:
    axes.plot(x, y, color=color, label=label, linewidth=1.4)


def _dots(axes: Axes, x: ArrayLike, y: ArrayLike, color: str, label: str | None = None) -> None:
    axes.plot(x, y, color=color, linestyle="", marker="o", markersize=3, label=label)


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

    return write_gif(figure, draw, range(len(simulation.times)), path, fps=12)
