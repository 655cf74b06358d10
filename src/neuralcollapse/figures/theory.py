"""The theory drawn: a network against the closed form, and the closed form against integration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuralcollapse.figures import style
from neuralcollapse.figures.animation import write_gif
from neuralcollapse.figures.portrait import draw_projection, project
from neuralcollapse.figures.runview import RunView
from neuralcollapse.figures.save import save
from neuralcollapse.theory.clock import ClockFit, fit_clock
from neuralcollapse.theory.flow import Flow
from neuralcollapse.theory.simulation import Simulation


def compare_run(run_dir: Path, flow: str = "projected", out: Path | None = None) -> tuple[ClockFit, list[Path]]:
    """Fit one clock to a run's singular values and draw `theory` and `proximity`.

    Args:
        run_dir: a run directory; classes must be balanced to the example or nearly so (N = n/C).
        flow: "projected", the paper's, or "multiplicative".
        out: where the pictures go; by default the run's `figures/`.

    Raises:
        InputError: no run, or fewer than two epochs with finite singular values.
    """
    run = RunView.read(run_dir)
    records = [record for record in run.records if np.isfinite(np.asarray(record["snr"], dtype=float)).all()]
    fit = fit_clock(
        np.array([record["epoch"] for record in records]),
        np.array([record["snr"] for record in records]),
        num_classes=int(run.records[0]["num_classes"]),
        samples_per_class=run.records[0]["num_examples"] / run.records[0]["num_classes"],
        flow=flow,  # type: ignore[arg-type]
    )
    folder = Path(run_dir) / "figures" if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(style.RC):  # type: ignore[arg-type]
        written = save(_against_path(run, fit, flow), folder, "theory") + save(_proximity(run), folder, "proximity")
    return fit, written


def draw_simulation(found: Simulation, out: Path) -> list[Path]:
    """Draw `dynamics`, closed form against integration, and the animation `collapse.gif`, into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(style.RC):  # type: ignore[arg-type]
        written = save(_simulation(found), out, "dynamics")
        return [*written, _animation(found.flow, found.classifiers, found.labels, out / "collapse.gif")]


def _against_path(run: RunView, fit: ClockFit, flow: str) -> Figure:
    width, height = style.PANEL
    figure = Figure(figsize=(3 * width, 1.15 * height))
    spectrum, residual, condition = (figure.add_subplot(1, 3, position) for position in (1, 2, 3))
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, fit.measured.shape[1]))
    moved = fit.times > 0
    for rank, color in enumerate(colors):
        hexadecimal = matplotlib.colors.to_hex(color)
        spectrum.plot(fit.times[moved], fit.predicted[moved, rank], color=hexadecimal, linewidth=1.2)
        spectrum.plot(
            fit.times[moved], fit.measured[moved, rank], color=hexadecimal, linestyle="", marker="o", markersize=3
        )
    spectrum.plot([], [], color=style.GREY, label="closed form")
    spectrum.plot([], [], color=style.GREY, linestyle="", marker="o", markersize=3, label="network")
    spectrum.set(xscale="log", yscale="log", xlabel="fitted time $t$ of the flow", ylabel=r"$\omega_j$")
    style.legend(spectrum)
    style.line(residual, fit.epochs, fit.unmoved, color=style.GREY, label="path standing still")
    style.line(residual, fit.epochs, fit.residual, color=style.BLACK, label="closed form, one clock")
    residual.set(yscale="log", ylabel=r"rms$_j\ \log(\omega_j / \omega_j^{\mathrm{path}})$")
    style.line(condition, fit.epochs, fit.measured_condition, color=style.BLUE, label="network")
    style.line(condition, fit.epochs, fit.predicted_condition, color=style.VERMILION, label="closed form")
    condition.set(ylabel=r"$\max_j \omega_j\,/\,\min_j \omega_j$", ylim=(0.9, None))
    for axes in (residual, condition):
        style.epoch_axis(axes, fit.epochs.tolist(), run.zero_error_epoch)
        style.legend(axes)
    style.head(figure, f"{run.subject}, {run.objective}; {flow} flow", 9)
    return figure


def _proximity(run: RunView) -> Figure:
    figure = Figure(figsize=style.PANEL)
    axes = figure.add_subplot()
    share = np.array(run.column("mse.ls_perp")) / np.array(run.column("mse.total"))
    style.line(axes, run.epochs, share.tolist(), color=style.VERMILION)
    axes.set(yscale="log", ylabel=r"$\mathcal{L}^{\perp}_{\mathrm{LS}}\,/\,\mathcal{L}$")
    style.epoch_axis(axes, run.epochs, run.zero_error_epoch)
    style.head(figure, f"{run.subject}\n{run.objective}; distance from the central path", 7.5)
    return figure


def _simulation(simulated: Simulation) -> Figure:
    path, flow = simulated.path, simulated.flow
    times = flow.times.numpy()
    dense = np.geomspace(times[1], times[-1], 400)
    width, height = style.PANEL
    figure = Figure(figsize=(2 * width, 2 * height))
    spectrum, loss, condition, metrics = (figure.add_subplot(2, 2, position) for position in (1, 2, 3, 4))
    omega = path.singular_values(dense)
    measured = flow.singular_values.numpy()
    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, measured.shape[1]))
    for rank, color in enumerate(colors):
        hexadecimal = matplotlib.colors.to_hex(color)
        spectrum.plot(dense, omega[:, rank], color=hexadecimal, linewidth=1.2)
        _dots(spectrum, times[1:], measured[1:, rank], hexadecimal)
    spectrum.plot([], [], color=style.GREY, label="closed form")
    spectrum.plot([], [], color=style.GREY, linestyle="", marker="o", markersize=3, label="integrated")
    _closed(spectrum, dense, path.asymptote(dense), style.GREY, "asymptote", linestyle="--")
    _closed(loss, dense, path.loss(dense), style.BLACK, "closed form")
    _dots(loss, times[1:], flow.loss.numpy()[1:], style.BLACK, label="integrated")
    _closed(condition, dense, path.condition(dense) - 1, style.BLACK, "closed form")
    _dots(condition, times[1:], measured[1:, 0] / measured[1:, -1] - 1, style.BLACK, label="integrated")
    found = path.metrics(dense, simulated.right_vectors)
    for name, key, color in (
        ("NC1", "nc1", style.BLACK),
        ("NC2 maximal angle, means", "maximal_angle_means", style.MEANS),
        ("NC2 maximal angle, classifier", "maximal_angle_classifier", style.CLASSIFIER),
        ("NC3", "nc3", style.PURPLE),
    ):
        _closed(metrics, dense, getattr(found, key), color, name)
        _dots(metrics, times[1:], simulated.measured[key][1:], color)
    labels = (r"$\omega_j$", r"$\mathcal{L}$", r"$\max_j \omega_j / \min_j \omega_j - 1$", "distance from collapse")
    for axes, label in zip((spectrum, loss, condition, metrics), labels, strict=True):
        axes.set(xscale="log", yscale="log", xlabel="time $t$", ylabel=label)
        style.legend(axes)
    c = path.constants
    figure.suptitle(
        f"Renormalized gradient flow ({path.flow}), C = {path.num_classes}, N = {path.samples_per_class:g}, "
        f"$\\lambda$ = {path.weight_decay:g}; $c_1$ = {c.c1:g}, $c_2$ = {c.c2:g}, $c_3$ = {c.c3:g}",
        fontsize=9,
    )
    return figure


def _closed(axes: Axes, x: np.ndarray, y: Any, color: str, label: str, **options: Any) -> None:
    axes.plot(x, y, color=color, label=label, linewidth=1.4, **options)


def _dots(axes: Axes, x: np.ndarray, y: np.ndarray, color: str, label: str | None = None) -> None:
    axes.plot(x, y, color=color, linestyle="", marker="o", markersize=3, label=label)


def _animation(flow: Flow, weight: list[np.ndarray], labels: np.ndarray, path: Path) -> Path:
    """Three classes of the flow in the plane of their simplex, a frame per time."""
    figure = Figure(figsize=(4.2, 4.2))
    axes = figure.add_subplot()
    count = int(labels.max()) + 1

    def frame(index: int) -> None:
        features = flow.features[index].numpy()
        means = np.stack([features[labels == label].mean(axis=0) for label in range(count)])
        content = {"class_means": means, "weight": weight[index], "features": features, "labels": labels}
        axes.clear()
        draw_projection(axes, project(content, tuple(range(min(3, count)))), reach=2.0)
        axes.set_title(f"time {float(flow.times[index]):.3g}")

    return write_gif(figure, frame, list(range(len(flow.times))), path, fps=12)
