"""A flow from random features, integrated and in closed form, as `neuralcollapse dynamics` shows it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from neuralcollapse._checks import InputError, as_count, as_number
from neuralcollapse.metrics.least_squares import least_squares_classifier
from neuralcollapse.metrics.nc1_to_nc4 import nc1, nc2, nc3
from neuralcollapse.metrics.signal_to_noise import snr_singular_values
from neuralcollapse.moments.class_moments import ClassMoments
from neuralcollapse.theory import central_path
from neuralcollapse.theory.central_path import CentralPath
from neuralcollapse.theory.flow import Flow, integrate, renormalize

LARGEST_GROWTH = 1000
"""The most that a singular value may grow by: a flow that runs for longer shows nothing new."""


@dataclass(frozen=True)
class Simulation:
    """An integrated flow and the closed form from the same start.

    Args:
        path: the closed form.
        flow: the integrated features.
        times: (t,) of `flow`.
        labels: (n,).
        classifiers: (t, C, p) the least-squares classifier at each time.
        right_vectors: (C, C−1) V at the start, which the flow keeps.
        measured: NC1, NC2 and NC3 of the integrated features as the metrics give them, named as in `PathMetrics`.
        error: largest relative difference of the ω_j between the two.
    """

    path: CentralPath
    flow: Flow
    times: np.ndarray
    labels: np.ndarray
    classifiers: np.ndarray
    right_vectors: np.ndarray
    measured: dict[str, np.ndarray]
    error: float


def simulate(
    *,
    classes: int = 10,
    examples_per_class: int = 50,
    dim: int = 64,
    time: float | None = None,
    weight_decay: float = 0.0,
    flow: central_path.FlowKind = "projected",
    seed: int = 0,
    frames: int = 60,
    progress: Callable[[float], object] | None = None,
) -> Simulation:
    """Draw class means and noise at random, renormalize them, and let them flow.

    Args:
        classes, examples_per_class, dim: C, N and p, with C − 1 ≤ p ≤ C (N − 1): with more, Σ_W would be singular.
        time: the end of the flow; by default when every ω_j has grown tenfold.
        weight_decay: λ on W alone.
        flow: the renormalization, "projected" (the paper's) or "multiplicative".
        seed: of the start.
        frames: how many times are kept, at least 3: the start, and others evenly spaced in log time.
        progress: called with the share of the work that is done.

    Raises:
        InputError: sizes that no flow can have, or a time that is not positive or too long.
    """
    classes = as_count(classes, "a number of classes", least=2)
    examples_per_class = as_count(examples_per_class, "a number of examples per class", least=2)
    dim, frames = as_count(dim, "a dimension"), as_count(frames, "a number of frames", least=3)
    most = classes * (examples_per_class - 1)
    if not classes - 1 <= dim <= most:
        raise InputError(f"expected between C − 1 = {classes - 1} and C (N − 1) = {most} dimensions, got {dim}")
    weight_decay = as_number(weight_decay, "weight decay", most=1e100)  # its square is a number too
    seed = as_count(seed, "a seed", least=0, most=2**63 - 1)
    if time is not None:
        time = as_number(time, "time", above=True)

    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(examples_per_class)
    means = torch.randn(classes, dim, generator=generator, dtype=torch.float64) / dim**0.5
    noise = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    features = renormalize(noise + means[labels] - (noise + means[labels]).mean(dim=0), labels)
    moments = ClassMoments(classes)
    moments.update(features, labels)
    start = snr_singular_values(moments).singular_values.numpy()
    right_vectors = torch.linalg.svd(moments.centred_means)[0][:, : classes - 1].numpy()
    path = CentralPath(
        start, num_classes=classes, samples_per_class=examples_per_class, weight_decay=weight_decay, flow=flow
    )

    latest = float(np.max(path.time(LARGEST_GROWTH * start)))
    end = float(np.max(path.time(10 * start))) if time is None else time
    if end > latest:
        raise InputError(
            f"expected a time of at most {latest:.3g}, when every singular value has grown {LARGEST_GROWTH}-fold, "
            f"got {end:.3g}"
        )
    times = np.concatenate([[0.0], np.geomspace(end / 1e5, end, frames - 1)])

    def share_done(reached: float) -> None:
        """The work goes with the logarithm of time, over five decades."""
        if progress is not None:
            progress(min(max(1 + math.log10(max(reached, 1e-300) / end) / 5, 0.0), 1.0))

    integrated = integrate(
        features, labels, torch.from_numpy(times), weight_decay=weight_decay, renormalization=flow, progress=share_done
    )
    classifiers, measured = [], []
    for at_time in integrated.features:
        moments = ClassMoments(classes)
        moments.update(at_time, labels)
        weight, _ = least_squares_classifier(moments, weight_decay)
        angle = nc2(moments, weight)
        angles = (angle.maximal_angle_means, angle.maximal_angle_classifier)
        measured.append((nc1(moments), *angles, nc3(moments, weight)))
        classifiers.append(weight.numpy())
    names = ("nc1", "maximal_angle_means", "maximal_angle_classifier", "nc3")
    return Simulation(
        path=path,
        flow=integrated,
        times=times,
        labels=labels.numpy(),
        classifiers=np.stack(classifiers),
        right_vectors=right_vectors,
        measured=dict(zip(names, np.array(measured).T, strict=True)),
        error=float(np.abs(integrated.singular_values.numpy() / path.singular_values(times) - 1).max()),
    )
