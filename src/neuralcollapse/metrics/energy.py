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
    (``"riesz_p_2"``), or ‖u − u'‖ itself (``"distance"``, which is largest where the others are least). A simplex ETF
    has the least energy where p ≥ C − 1: −½ log(2C/(C−1)), and √((C−1)/(2C)).

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
    pairs = len(unit) * (len(unit) - 1)
    first = total = squares = None
    for rows, columns, squared in squared_distance_tiles(unit):
        distances = each_pair(squared, rows, columns)
        if kernel != "distance" and bool((distances == 0.0).any()):
            warn_undefined("the hyperspherical energy", "two directions coincide", "infinite")
            return HypersphericalEnergy(float("inf"), float("nan"))
        values = _kernel_values(distances, kernel, unit.shape[1])
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
    return HypersphericalEnergy(mean, variance**0.5 / abs(mean) if mean else float("nan"))


def _kernel_values(squared: Tensor, kernel: Kernel, dim: int) -> Tensor:
    """The kernel of each squared distance."""
    if kernel == "log":
        return -0.5 * squared.log()
    if kernel == "riesz":
        return squared.rsqrt()
    if kernel == "distance":
        return squared.sqrt()
    exponent = dim - 2
    return math.copysign(1.0, exponent) * torch.exp(-0.5 * exponent * squared.log())
