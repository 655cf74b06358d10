"""GNC2, hyperspherical uniformity: the energy of directions, and how evenly pairs share in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import Array, as_word
from neuralcollapse.metrics.geometry import as_rows, each_pair, have_directions, squared_distance_tiles, unit_rows
from neuralcollapse.metrics.undefined import warn_undefined

Kernel = Literal["log", "riesz", "riesz_p_2", "distance"]
KERNELS: tuple[Kernel, ...] = get_args(Kernel)


@dataclass(frozen=True)
class HypersphericalEnergy:
    """Mean of the kernel over pairs, and its coefficient of variation, which vanishes where all distances agree."""

    mean: float
    variation: float


def hyperspherical_energy(vectors: Float[Tensor, "c p"] | Array, kernel: Kernel = "log") -> HypersphericalEnergy:
    """GNC2: Avg over c ≠ c' of K(u_c, u_c'), u = v/‖v‖, and Std K/|Avg K| (unbiased).

    K is −log ‖u − u'‖ (``"log"``), 1/‖u − u'‖ (``"riesz"``, exponent 1), sign(s) ‖u − u'‖^-s with s = p − 2
    (``"riesz_p_2"``: 0 for p = 2, −‖u − u'‖ for p = 1), or ‖u − u'‖ itself (``"distance"``, which is largest where the
    others are least). A simplex ETF has the least energy where p ≥ C − 1: −½ log(2C/(C−1)), and √((C−1)/(2C)).

    The mean is infinite, with a warning, where two directions coincide, unless K is then finite. The variation is nan
    where the mean is infinite for that, or 0. In hundreds of dimensions the mean of ``"riesz_p_2"`` may leave the range
    of floats: it is then 0, or infinite with a warning; its variation stays.

    Raises:
        InputError: another kernel.

    Source: Liu et al. (2023), Generalizing and decoupling neural collapse via hyperspherical uniformity gap; its
    coefficient of variation: Wu & Papyan (2024), Linguistic collapse, whose code has the kernels of distance and of
    s = p − 2.
    """
    as_word(kernel, "the kernel", KERNELS)
    vectors = as_rows(vectors)
    if not have_directions(vectors, "the hyperspherical energy"):
        return HypersphericalEnergy(float("nan"), float("nan"))
    unit = unit_rows(vectors)
    # s, where the kernel is ± ‖u − u'‖^-s
    powers = {"log": None, "riesz": 1.0, "riesz_p_2": unit.shape[1] - 2.0, "distance": -1.0}
    pairs, exponent = len(unit) * (len(unit) - 1), powers[kernel]
    if exponent == 0.0:  # sign(0) = 0
        return HypersphericalEnergy(0.0, float("nan"))
    repels = exponent is None or exponent > 0.0
    first = total = squares = None
    scale = 0.0  # values are kept divided by e^scale: in hundreds of dimensions they leave the range of floats
    for rows, columns, squared in squared_distance_tiles(unit):
        distances = each_pair(squared, rows, columns)
        if repels and bool((distances == 0.0).any()):
            warn_undefined("the hyperspherical energy", "two directions coincide", "infinite")
            return HypersphericalEnergy(float("inf"), float("nan"))
        values = -0.5 * distances.log()
        if exponent is not None:
            logs = exponent * values
            largest = float(logs.max()) if logs.numel() and bool(logs.isfinite().any()) else scale
            if first is None or total is None or squares is None:
                scale = largest
            elif largest > scale + 300.0:
                shrink = math.exp(scale - largest)
                first, total, squares, scale = first * shrink, total * shrink, squares * shrink**2, largest
            values = (logs - scale).exp()
        if first is None or total is None or squares is None:
            # sums of squares are taken about a value among them: where all agree, nothing is left of the rounding
            first = values.mean() if values.numel() else values.new_zeros(())
            total, squares = torch.zeros_like(first), torch.zeros_like(first)
        total = total + 2 * (values - first).sum()
        squares = squares + 2 * (values - first).square().sum()
    assert first is not None and total is not None and squares is not None
    offset = float(total) / pairs
    mean = float(first) + offset
    variance = max(0.0, float(squares) - pairs * offset**2) / (pairs - 1)
    variation = variance**0.5 / abs(mean) if mean else float("nan")
    energy = mean * float(torch.tensor(scale, dtype=torch.float64).exp())
    if math.isinf(energy):
        warn_undefined("the hyperspherical energy", "no float holds it", "infinite")
    return HypersphericalEnergy(-energy if kernel == "riesz_p_2" and unit.shape[1] < 2 else energy, variation)
