"""Confidence intervals of the numbers of a report, by the bootstrap over examples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from neuralcollapse._checks import Array, InputError, as_count, as_number
from neuralcollapse.measuring.bootstrap import (
    RESAMPLES,
    Sample,
    Settings,
    errors_and_biases,
    few_examples,
    reach,
    resampled,
)
from neuralcollapse.measuring.interval import Interval
from neuralcollapse.measuring.report import Report
from neuralcollapse.metrics.registry import METRICS
from neuralcollapse.moments.class_moments import Weighting

SHARES = ("accuracy", "nearest_mean_accuracy", "nc4_mismatch")
"""Numbers of a report that are the share of its examples of which something holds."""


def confidence_intervals(
    features: Float[Tensor, "n p"] | Array,
    labels: Integer[Tensor, " n"] | Array,
    weight: Float[Tensor, "c p"] | Array | None = None,
    bias: Float[Tensor, " c"] | Array | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    weighting: Weighting = "example",
    weight_decay: float = 0.0,
    metrics: str | Sequence[str] | None = None,
) -> dict[str, Interval]:
    """Intervals of all that a report of these features says, for the population that its examples were drawn from.

    The examples of each class are drawn with replacement, ``resamples`` times, and measured again; the network is held
    fixed. With θ the number measured and θ* those of the resamples, the interval is θ ± z √(Std² θ* + (Avg θ* − θ)²).
    Avg θ* − θ estimates a bias that is large where class means are of few examples. It widens the interval and is not
    taken off θ, because what is left, 2θ − Avg θ*, varies by up to a fifth more than θ does, which no Std θ* tells.

    An interval is cut off at 0, unless the number can be negative. Of a share of examples (accuracy,
    nearest_mean_accuracy, nc4_mismatch) it ends at 1, and it is at least the exact one of a binomial: where none of 100
    examples is mistaken, no resample has a mistake either, but [0, 0.036] holds the population's share.

    The cost is that of ``resamples`` reports, the memory that of one. Numbers that need Σ_W⁻¹ (L_LS, VCI) want more
    examples than features by far: a resample has only 63 % of them, each as often as drawn.

    Args:
        features: (n, p); labels: (n,); weight: (C, p) or None; bias: (C,) or None.
        level: the share of samples whose interval holds the population's number.
        resamples: how many; the error of an interval's width is about 1/√(2 · resamples).
        seed: of the draws.
        weighting, weight_decay, metrics: as for :func:`neuralcollapse.measure_features`.

    Returns:
        By name, as in ``Report.numbers()``.

    Warns:
        UserWarning: a class has fewer than ten examples.

    Raises:
        InputError: what ``measure_features`` refuses; a level outside 0 … 1; fewer than two resamples.

    Source: Efron & Tibshirani (1993), An introduction to the bootstrap, Chapters 6, 10 (root mean square error, and why
    not to take the bias off) and 12; Clopper & Pearson (1934), The use of confidence or fiducial limits illustrated in
    the case of the binomial.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(200) % 2
        >>> features = 3 * torch.eye(4)[labels] + torch.randn(200, 4, generator=generator)
        >>> interval = confidence_intervals(features, labels, resamples=50)["nc1"]
        >>> interval.low < interval.value < interval.high
        True
    """
    sample = Sample.of(features, labels, weight, bias)
    found = intervals_of(sample, Settings(weighting, weight_decay, metrics), level, resamples, seed)
    for sentence in few_examples([sample]):
        warnings.warn(sentence, UserWarning, stacklevel=2)
    return found


def with_intervals(
    report: Report,
    sample: Sample,
    settings: Settings,
    level: float,
    resamples: int,
    progress: Callable[[float], object] = lambda share: None,
) -> Report:
    """A report with the intervals of its sample, and with notes on those that resamples do not tell."""
    intervals = intervals_of(sample, settings, level, resamples, 0, progress)
    alike = [name for name in SHARES if name in intervals and intervals[name].error == intervals[name].bias == 0.0]
    exact = (f"Interval of {', '.join(alike)}: the binomial's exact one, for all resamples agree.",) if alike else ()
    return replace(report, confidence=intervals, notes=(*report.notes, *exact, *few_examples([sample])))


def intervals_of(
    sample: Sample,
    settings: Settings,
    level: float,
    resamples: int,
    seed: int,
    progress: Callable[[float], object] = lambda share: None,
) -> dict[str, Interval]:
    """The same of a sample, which may lie in files."""
    level, resamples, seed = check_bootstrap(level, resamples, seed)
    values = sample.numbers(settings)
    drawn = [numbers for (numbers,) in resampled([sample], settings, resamples, seed, progress)]
    draws = {name: [numbers[name] for numbers in drawn] for name in values}
    found = {}
    for name, (error, bias) in errors_and_biases([sample], values, draws).items():
        value, width = values[name], reach(level, error, bias)
        low, high = value - width, value + width
        if name in SHARES and math.isfinite(error):
            count = len(sample.labels)
            least, most = binomial_interval(round(value * count), count, level)
            low, high = min(low, least), min(max(high, most), 1.0)
        if math.isfinite(error) and not (name in METRICS and METRICS[name].signed):
            low = max(low, min(value, 0.0))
        found[name] = Interval(value, low, high, error, bias, level)
    return found


def binomial_interval(successes: int, trials: int, level: float) -> tuple[float, float]:
    """The shares q for which so many successes, or fewer, have a chance of (1 − level)/2 or more; and so many or more.

    Of none it is 0 to 1 − ((1 − level)/2)^{1/n}.

    Source: Clopper & Pearson (1934), The use of confidence or fiducial limits illustrated in the case of the binomial.
    """
    return 1.0 - _highest_share(trials - successes, trials, level), _highest_share(successes, trials, level)


def difference_of_shares(a: tuple[int, int], b: tuple[int, int], level: float) -> tuple[float, float]:
    """The interval of the difference of two shares, each of so many successes in so many trials, drawn independently.

    With p the shares found and l to u their own intervals, those of :func:`binomial_interval`, it is
    p_a − p_b − √((p_a − l_a)² + (u_b − p_b)²) to p_a − p_b + √((u_a − p_a)² + (p_b − l_b)²).

    Source: Newcombe (1998), Interval estimation for the difference between independent proportions: comparison of
    eleven methods, Method 10, with exact intervals in place of Wilson's.
    """
    (share_a, low_a, high_a), (share_b, low_b, high_b) = (
        (successes / trials, *binomial_interval(successes, trials, level)) for successes, trials in (a, b)
    )
    difference = share_a - share_b
    low = difference - math.hypot(share_a - low_a, high_b - share_b)
    return low, difference + math.hypot(high_a - share_a, share_b - low_b)


def _highest_share(successes: int, trials: int, level: float) -> float:
    """The q for which so many successes or fewer have a chance of (1 − level)/2."""
    if successes == trials:
        return 1.0
    # terms so far below the greatest that a float does not see them beside it are left out
    least = max(0, successes - 100 - 40 * math.isqrt(trials))
    terms = torch.arange(least, successes + 1, dtype=torch.float64)
    rest = trials - terms
    choices = math.lgamma(trials + 1) - torch.lgamma(terms + 1) - torch.lgamma(rest + 1)
    low, high = successes / trials, 1.0
    while low < (middle := 0.5 * (low + high)) < high:
        chance = (choices + terms * math.log(middle) + rest * math.log1p(-middle)).exp().sum()
        low, high = (middle, high) if float(chance) > 0.5 - level / 2 else (low, middle)
    return high


def check_bootstrap(level: Any, resamples: Any, seed: Any) -> tuple[float, int, int]:
    """The three as numbers.

    Raises:
        InputError: a level that is not between 0 and 1, fewer than two resamples, or a negative seed.
    """
    return check_level(level), as_count(resamples, "resamples", least=2), as_count(seed, "seed", least=0)


def check_level(level: Any) -> float:
    """The level as a number.

    Raises:
        InputError: it is not between 0 and 1.
    """
    share: float = as_number(level, "level", most=1.0)
    if not 0.0 < share < 1.0:
        raise InputError(f"expected a level between 0 and 1, such as 0.95, got {share:g}")
    return share
