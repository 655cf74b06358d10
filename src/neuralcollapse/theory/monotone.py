"""Solve c₁ log(ω/ω₀) + c₂ (ω² − ω₀²) + c₃ (ω⁴ − ω₀⁴) = t for ω ≥ ω₀, to the last digits, for whole arrays.

Written in ω/ω₀, every term on the left is positive, so nothing cancels however small ω₀ is. Newton's method in log ω,
where the left side is convex, falls monotonically from an upper bound that is never more than a factor of four off; two
last steps take the residual in twice the working precision.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

_CHUNK = 1 << 14  # elements whose temporaries stay in a processor's cache
_STEPS = 5
_SPLITTER = 134217729.0  # 2²⁷ + 1 (Dekker, 1971)


def travelled(start: Array, end: Array, c1: float, c2: float, c3: float) -> Array:
    """The left side: the time from `start` to `end`."""
    squares = (end - start) * (end + start)
    result: Array = c1 * np.log1p((end - start) / start) + squares * (c2 + c3 * (end * end + start * start))
    return result


def invert(start: Array, t: Array, c1: float, c2: float, c3: float) -> Array:
    """ω for each start and time t ≥ 0 of one shape."""
    flat_start, flat_t = np.ascontiguousarray(start).ravel(), np.ascontiguousarray(t).ravel()
    omega = np.empty_like(flat_start, dtype=np.float64)
    for begin in range(0, omega.size, _CHUNK):
        part = slice(begin, begin + _CHUNK)
        omega[part] = _invert(flat_start[part], flat_t[part], c1, c2, c3)
    return omega.reshape(np.shape(start))


def _invert(start: Array, t: Array, c1: float, c2: float, c3: float) -> Array:
    with np.errstate(over="ignore"):
        # each term alone is at most t: three upper bounds, of which the least is close
        omega = np.minimum(start * np.exp(t / c1), np.sqrt(start * start + t / c2))
        if c3 > 0.0:
            omega = np.minimum(omega, np.sqrt(np.sqrt(start**4 + t / c3)))
    omega = np.maximum(omega, start)  # powers of a tiny start may vanish
    for _ in range(_STEPS):
        square = omega * omega
        residual = travelled(start, omega, c1, c2, c3) - t
        omega = np.maximum(omega * np.exp(-residual / (c1 + square * (2.0 * c2 + 4.0 * c3 * square))), start)
    for _ in range(2):
        square = omega * omega
        residual = _residual(start, omega, t, c1, c2, c3)
        omega = omega - omega * (residual / (c1 + square * (2.0 * c2 + 4.0 * c3 * square)))
    result: Array = np.where(t == 0.0, start, omega)
    return result


def _residual(start: Array, omega: Array, t: Array, c1: float, c2: float, c3: float) -> Array:
    """travelled − t in doubled precision; the logarithm alone is rounded, by what c₁ log(ω/ω₀) ≤ t permits."""
    ratio = omega / start
    high, low = _product(ratio, start)
    correction = ((omega - high) - low) / omega  # what rounding the ratio left out
    near = ratio < 2.0
    growth = np.where(near, np.log1p(np.where(near, (omega - start) / start, 0.0)), np.log(ratio) + correction)
    total = _product(np.full_like(omega, c1), growth)
    difference, plus = _sum(omega, -start), _sum(omega, start)
    squares = _times(difference, plus)
    total = _add(total, _times(squares, _double(c2, omega)))
    if c3 > 0.0:
        fourth = _times(squares, _add(_product(omega, omega), _product(start, start)))
        total = _add(total, _times(fourth, _double(c3, omega)))
    rest, error = _sum(total[0], -t)
    residual: Array = rest + (error + total[1])
    return residual


Double = tuple[Array, Array]
"""An unevaluated sum high + low of two doubles."""


def _double(value: float, like: Array) -> Double:
    return np.full_like(like, value), np.zeros_like(like)


def _sum(a: Array, b: Array) -> Double:
    """a + b exactly (Knuth, 1969)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _product(a: Array, b: Array) -> Double:
    """a · b exactly (Dekker, 1971)."""
    product = a * b
    a_high, b_high = _SPLITTER * a, _SPLITTER * b
    a_high, b_high = a_high - (a_high - a), b_high - (b_high - b)
    a_low, b_low = a - a_high, b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def _add(a: Double, b: Double) -> Double:
    total, error = _sum(a[0], b[0])
    return total, error + (a[1] + b[1])


def _times(a: Double, b: Double) -> Double:
    product, error = _product(a[0], b[0])
    return product, error + (a[0] * b[1] + a[1] * b[0])
