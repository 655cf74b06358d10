"""A network's singular values held against the closed form: one change of time for all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from neuralcollapse._checks import InputError, as_tensor
from neuralcollapse.theory.central_path import CentralPath, Flow

Array = np.ndarray


@dataclass(frozen=True)
class ClockFit:
    """How well the central path describes measured singular values.

    Args:
        epochs: (e,), the first is where the path starts.
        measured: (e, j) singular values, descending.
        predicted: (e, j) the path's, from the first epoch's values, at the fitted times.
        times: (e,) the fitted clock, never falling, 0 at the first epoch.
        residual: (e,) root mean square over j of log(measured/predicted): 0.1 is ten per cent.
        unmoved: (e,) the same for a path that stands still, which a fit has to beat.
        exponent: (e,) slope of the mean log ω against log epoch around each epoch.
        measured_condition, predicted_condition: (e,) max_j ω_j / min_j ω_j.
    """

    epochs: Array
    measured: Array
    predicted: Array
    times: Array
    residual: Array
    unmoved: Array
    exponent: Array
    measured_condition: Array
    predicted_condition: Array


def fit_clock(
    epochs: Array,
    omega: Array,
    *,
    num_classes: int,
    samples_per_class: float,
    weight_decay: float = 0.0,
    flow: Flow = "projected",
) -> ClockFit:
    """Fit the one monotone change of time that brings the closed form nearest to all singular values.

    At each epoch the time minimises Σ_j (log ω_j − log ω_j^path(t))² over t not before the epoch before: a network that
    goes back on its path is held at the time it had reached. The spread between the j is what one clock cannot mend.

    Args:
        epochs: (e,) rising, positive; omega: (e, j) measured values, each row in descending order.
        num_classes, samples_per_class, weight_decay, flow: of the path, see `CentralPath`.

    Raises:
        InputError: fewer than two epochs, or values that are not positive and finite.
    """
    epochs = as_tensor(epochs, "epochs").cpu().double().resolve_neg().numpy()
    omega = as_tensor(omega, "singular values").cpu().double().resolve_neg().numpy()
    if omega.ndim != 2 or epochs.ndim != 1 or not omega.shape[1] or len(epochs) < 2 or len(epochs) != len(omega):
        raise InputError(f"expected two or more epochs with a row of singular values each, got shape {omega.shape}")
    if not bool((np.isfinite(omega) & (omega > 0)).all()):
        wrong = omega[~(np.isfinite(omega) & (omega > 0))][0]
        raise InputError(f"expected positive, finite singular values at every epoch, got {wrong}")
    if not bool((np.isfinite(epochs) & (epochs > 0)).all()) or not bool((np.diff(epochs) > 0).all()):
        raise InputError("expected finite, positive epochs that rise, the first one where the path starts")
    path = CentralPath(
        omega[0], num_classes=num_classes, samples_per_class=samples_per_class, weight_decay=weight_decay, flow=flow
    )

    def misfit(time: float, row: Array) -> float:
        return float(np.square(np.log(row / path.singular_values(np.asarray(time)))).sum())

    times = np.zeros(len(epochs))
    for index in range(1, len(epochs)):
        times[index] = _best_time(path, omega[index], times[index - 1], misfit)
    predicted = path.singular_values(times)
    logs = np.log(omega).mean(axis=1)
    return ClockFit(
        epochs=epochs,
        measured=omega,
        predicted=predicted,
        times=times,
        residual=np.sqrt(np.square(np.log(omega / predicted)).mean(axis=1)),
        unmoved=np.sqrt(np.square(np.log(omega / omega[0])).mean(axis=1)),
        exponent=np.gradient(logs, np.log(epochs)),
        measured_condition=omega.max(axis=1) / omega.min(axis=1),
        predicted_condition=predicted.max(axis=1) / predicted.min(axis=1),
    )


def _best_time(path: CentralPath, row: Array, earliest: float, misfit) -> float:  # type: ignore[no-untyped-def]
    """The best time from `earliest` on; between the times at which the slowest and the fastest ω_j would be reached."""
    own = np.asarray(path.time(row))
    latest = float(own.max())
    if latest <= earliest:
        return earliest
    # in log t, from where nothing has moved yet: times span many decades
    low = np.log(max(earliest, 1e-9 * latest))
    grid = np.linspace(low, np.log(latest), 64)
    start = int(np.argmin([misfit(np.exp(point), row) for point in grid]))
    bounds = grid[max(start - 1, 0)], grid[min(start + 1, len(grid) - 1)]
    found = minimize_scalar(
        lambda point: misfit(np.exp(point), row), bounds=bounds, method="bounded", options={"xatol": 1e-10}
    )
    best = float(np.exp(found.x))
    return best if misfit(best, row) <= misfit(earliest, row) else earliest
