"""Interval: a number of a report with its confidence interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A number of a report, and between which values that of the population lies.

    Attributes:
        value: as measured.
        low, high: of the interval, value more or less a multiple of √(error² + bias²). It is cut off at 0 where the
            number cannot be negative. That of a share of examples (accuracy, nearest_mean_accuracy, nc4_mismatch) ends
            at 1, and is never narrower than the binomial's exact one, so that 0 of 100 says [0, 0.036]. nan where the
            number was not finite in a resample, or depends on features while a class has one example.
        error: standard error; bias: by how much examples as few as these make the number too large.
        level: the share of samples whose interval holds the population's number.

    Example:
        >>> interval = Interval(value=0.5, low=0.4, high=0.6, error=0.05, bias=0.0, level=0.95)
        >>> interval.low <= interval.value <= interval.high
        True
    """

    value: float
    low: float
    high: float
    error: float
    bias: float
    level: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"
