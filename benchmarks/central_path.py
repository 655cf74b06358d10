"""The closed form of the central path against integrating its equation, and a million values at once.

    python benchmarks/central_path.py

The equation is integrated by SciPy's DOP853 to a relative tolerance of 1e-10, for 9 singular values until they have
grown tenfold; the closed form gives the same values at the same times.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy
from scipy.integrate import solve_ivp

import neuralcollapse as nc
from neuralcollapse.training.hardware import environment


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall-clock time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Time and print."""
    classes, samples = 10, 50
    start = np.geomspace(0.5, 3.0, classes - 1)
    path = nc.CentralPath(start, num_classes=classes, samples_per_class=samples)
    end = float(np.max(path.time(10 * start)))

    def integrate() -> np.ndarray:
        def rate(_: float, w: np.ndarray) -> np.ndarray:
            return w / samples / (classes + w**2) ** 2

        found = solve_ivp(rate, (0.0, end), start, method="DOP853", rtol=1e-10, atol=1e-14, t_eval=[end])
        return np.asarray(found.y[:, -1])

    difference = np.abs(path.singular_values(end) / integrate() - 1).max()
    # the closed form once is dominated by the call itself: many starts and times at once are what it is for
    rng = np.random.default_rng(0)
    times = 10.0 ** rng.uniform(0, 40, 10**6)
    wide = nc.CentralPath(1e-3, num_classes=classes, samples_per_class=samples)
    million = seconds(lambda: wide.singular_values(times), 7)
    one = seconds(integrate, 7) / (classes - 1)
    machine = environment()
    print(f"closed form, a million values  {million:8.3f} s   {1e9 * million / 1e6:8.1f} ns each")
    print(f"integration to 1e-10           {1e9 * one:8.0f} ns each")
    print(f"ratio                          {one / (million / 1e6):8.0f}")
    print(f"largest relative difference    {difference:8.1e}")
    print(
        f"{machine['cpu']}, {machine['threads']} threads, Python {platform.python_version()}, NumPy {np.__version__}, "
        f"SciPy {scipy.__version__}, commit {machine['git_commit']}"
    )


if __name__ == "__main__":
    main()
