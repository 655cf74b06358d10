"""A flow from random features, for `neuralcollapse dynamics`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from neuralcollapse._checks import InputError, as_number
from neuralcollapse.metrics.collapse import nc1, nc2, nc3
from neuralcollapse.metrics.least_squares import least_squares_classifier
from neuralcollapse.metrics.signal_to_noise import snr_singular_values
from neuralcollapse.moments.class_moments import ClassMoments
from neuralcollapse.theory.central_path import CentralPath
from neuralcollapse.theory.flow import Flow, integrate, renormalize

LONGEST = 1000
"""How manyfold the singular values may grow: in a flow that runs for longer nothing new is seen."""


@dataclass(frozen=True)
class Simulation:
    """An integrated flow and the closed form from the same start.

    Args:
        path: the closed form.
        flow: the integrated features.
        classifiers: the least-squares classifier (C, p) at each time.
        right_vectors: V (C, C−1) of the start, which the flow keeps.
        measured: NC1, NC2 and NC3 of the integrated features by the measuring core, named as in `PathMetrics`.
        labels: (n,).
        error: largest relative difference of the ω_j between the two.
    """

    path: CentralPath
    flow: Flow
    classifiers: list[np.ndarray]
    right_vectors: np.ndarray
    measured: dict[str, np.ndarray]
    labels: np.ndarray
    error: float


def simulate(
    *,
    classes: int = 10,
    examples_per_class: int = 50,
    dim: int = 64,
    time: float | None = None,
    weight_decay: float = 0.0,
    flow: Literal["projected", "multiplicative"] = "projected",
    seed: int = 0,
    frames: int = 60,
    progress: Callable[[float], object] | None = None,
) -> Simulation:
    """Random class means and noise, renormalized, then the flow.

    Args:
        classes, examples_per_class, dim: C, N and p; p < C N − C, or Σ_W would be singular.
        time: how long; by default until every ω_j has grown tenfold.
        weight_decay: λ on W alone.
        flow: the renormalization.
        seed: of the start.
        frames: times kept, evenly spaced in log time.
        progress: called with the share done.

    Raises:
        InputError: sizes no flow can have, or a time that is not positive.
    """
    if classes < 2 or examples_per_class < 2:
        raise InputError(f"expected two classes of two examples or more, got {classes} of {examples_per_class}")
    if not classes - 1 <= dim <= classes * (examples_per_class - 1):
        most = classes * (examples_per_class - 1)
        raise InputError(f"expected between C − 1 = {classes - 1} and C (N − 1) = {most} dimensions, got {dim}")
    if time is not None and not 0.0 < time < float("inf"):
        raise InputError(f"expected a positive time, got {time}")
    weight_decay = as_number(weight_decay, "weight decay")
    if weight_decay > 1e100:  # its square has no number
        raise InputError(f"expected a weight decay of at most 1e100, got {weight_decay}")
    if not 0 <= seed < 2**63:
        raise InputError(f"expected a seed of at least 0 and below 2**63, got {seed}")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(examples_per_class)
    means = torch.randn(classes, dim, generator=generator, dtype=torch.float64) / dim**0.5
    noise = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    features = renormalize(noise + means[labels] - (noise + means[labels]).mean(dim=0), labels)
    moments = _moments(features, labels)
    start = snr_singular_values(moments).singular_values.numpy()
    right_vectors = torch.linalg.svd(moments.centred_means)[0][:, : classes - 1].numpy()
    path = CentralPath(
        start, num_classes=classes, samples_per_class=examples_per_class, weight_decay=weight_decay, flow=flow
    )
    end = float(np.max(path.time(10 * start))) if time is None else time
    longest = float(np.max(path.time(LONGEST * start)))
    if not end <= longest:
        raise InputError(
            f"expected a time of at most {longest:.3g}, at which every singular value has grown {LONGEST}-fold, "
            f"got {end:.3g}"
        )
    times = np.concatenate([[0.0], np.geomspace(end / 1e5, end, frames - 1)])
    found = integrate(
        features,
        labels,
        torch.from_numpy(times),
        weight_decay=weight_decay,
        renormalization=flow,
        progress=None if progress is None else lambda t: progress(_share(t, end)),
    )
    along = [_moments(x, labels) for x in found.features]
    weights = [least_squares_classifier(each, weight_decay)[0] for each in along]
    angles = [nc2(each, weight) for each, weight in zip(along, weights, strict=True)]
    measured = {
        "nc1": np.array([nc1(each) for each in along]),
        "maximal_angle_means": np.array([angle.maximal_angle_means for angle in angles]),
        "maximal_angle_classifier": np.array([angle.maximal_angle_classifier for angle in angles]),
        "nc3": np.array([nc3(each, weight) for each, weight in zip(along, weights, strict=True)]),
    }
    classifiers = [weight.numpy() for weight in weights]
    error = np.abs(found.singular_values.numpy() / path.singular_values(times) - 1).max()
    return Simulation(path, found, classifiers, right_vectors, measured, labels.numpy(), float(error))


def _share(t: float, end: float) -> float:
    """Of the work, which goes with the logarithm of time."""
    return float(np.clip(1 + np.log10(max(t, 1e-300) / end) / 5, 0.0, 1.0))


def _moments(features: torch.Tensor, labels: torch.Tensor) -> ClassMoments:
    moments = ClassMoments(int(labels.max()) + 1)
    moments.update(features, labels)
    return moments
