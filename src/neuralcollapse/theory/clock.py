"""Measured singular values compared with the closed form, by one change of time that all of them share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from neuralcollapse._checks import Array, InputError, as_count, as_number, as_tensor, as_word
from neuralcollapse.theory.central_path import CentralPath
from neuralcollapse.theory.flow import Renormalization
from neuralcollapse.theory.unrenormalized import UnrenormalizedPath


@dataclass(frozen=True)
class ClockFit:
    """How well the central path describes measured singular values.

    Args:
        epochs: (e,), the first is where the path starts.
        measured: (e, j) singular values, descending.
        predicted: (e, j) the path's, from the first epoch's values, at the fitted times.
        times: (e,) the fitted clock, never falling, 0 at the first epoch.
        residual: (e,) root mean square over j of log(measured/predicted): 0.1 is ten per cent.
        unmoved: (e,) the same if every ω_j kept its first value, for comparison.
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
    flow: Renormalization = "projected",
) -> ClockFit:
    """Fit one monotone change of time, epoch by epoch, that brings the closed form near to all singular values.

    At each epoch the fitted time minimises Σ_j (log ω_j − log ω_j^path(t))² over all t from the time of the previous
    epoch on, so that the clock never runs backwards. The path starts from the first epoch's values. What remains is
    disagreement between the ω_j.

    Args:
        epochs: (e,) rising, positive; omega: (e, j) measured values, each row in descending order.
        num_classes, samples_per_class, weight_decay: of the path, see `CentralPath`.
        flow: "projected" or "multiplicative", see `CentralPath`; "none" is the flow without renormalization of features
            whose variance is the same in all directions of the class means, where every ω_j grows by the same factor:
            see `UnrenormalizedPath`.

    Raises:
        InputError: fewer than two epochs, values that are not positive and finite, an unknown flow, or λ > 0 with
            "none".
    """
    as_word(flow, "the flow", ("projected", "multiplicative", "none"))
    num_classes = as_count(num_classes, "num_classes", least=2)
    samples_per_class = as_number(samples_per_class, "number of samples per class", above=True)
    weight_decay = as_number(weight_decay, "weight decay")
    if flow == "none" and weight_decay != 0.0:
        raise InputError(f"the flow without renormalization has a closed form for λ = 0 alone, got {weight_decay:g}")
    epochs = as_tensor(epochs, "epochs").cpu().double().resolve_neg().numpy().copy()
    omega = as_tensor(omega, "singular values").cpu().double().resolve_neg().numpy().copy()
    if omega.ndim != 2 or epochs.ndim != 1 or not omega.shape[1] or len(epochs) < 2 or len(epochs) != len(omega):
        raise InputError(f"expected two or more epochs with a row of singular values each, got shape {omega.shape}")
    if omega.shape[1] > num_classes - 1:
        raise InputError(f"expected at most C − 1 = {num_classes - 1} singular values a row, got {omega.shape[1]}")
    wrong = omega[~(np.isfinite(omega) & (omega > 0))]
    if wrong.size:
        raise InputError(f"expected positive, finite singular values at every epoch, got {wrong[0]}")
    if not bool((np.isfinite(epochs) & (epochs > 0)).all()) or not bool((np.diff(epochs) > 0).all()):
        raise InputError("expected finite, positive epochs that rise, the first one where the path starts")
    path: CentralPath | UnrenormalizedPath
    if flow == "none":
        path = UnrenormalizedPath(omega[0], 1.0 / (num_classes**2 * samples_per_class))
    else:
        path = CentralPath(
            omega[0], num_classes=num_classes, samples_per_class=samples_per_class, weight_decay=weight_decay, flow=flow
        )

    times = np.zeros(len(epochs))
    for index in range(1, len(epochs)):
        times[index] = _best_time(path, omega[index], times[index - 1])
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


def _best_time(path: CentralPath | UnrenormalizedPath, row: Array, earliest: float) -> float:
    """The best time from ``earliest`` on, and no later than the last ω_j of the path reaches its measured value."""

    def misfit(log_time: Array) -> Array:
        return np.square(np.log(row / path.singular_values(np.exp(log_time)))).sum(axis=-1)  # type: ignore[no-any-return]

    reached = path.time(row)
    latest = float(np.max(reached))
    if latest <= earliest:
        return earliest
    # times span many decades, so the search is in log t: seven points for each, from well before any ω_j is reached
    first = max(earliest, 1e-9 * latest if reached.min() <= 0 else min(1e-9 * latest, 1e-3 * reached.min()))
    points = max(64, int(7 * np.log10(latest / first)))
    grid = np.linspace(np.log(first), np.log(latest), points)
    start = int(np.argmin(misfit(grid)))
    bounds = grid[max(start - 1, 0)], grid[min(start + 1, len(grid) - 1)]
    found = minimize_scalar(misfit, bounds=bounds, method="bounded", options={"xatol": 1e-10})
    stays = float(np.square(np.log(row / path.singular_values(np.asarray(earliest)))).sum())
    return float(np.exp(found.x)) if float(found.fun) <= stays else earliest
