"""The simulated flow against the closed form, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from neuralcollapse import InputError
from neuralcollapse.theory.simulation import simulate


def test_the_integrated_flow_is_the_closed_form() -> None:
    shares: list[float] = []
    simulation = simulate(classes=3, examples_per_class=6, dim=5, frames=8, progress=shares.append)
    assert simulation.error < 1e-7
    assert simulation.times[0] == 0 and len(simulation.times) == len(simulation.classifiers) == 8
    predicted = simulation.path.metrics(simulation.times, simulation.right_vectors)
    for name, measured in simulation.measured.items():
        np.testing.assert_allclose(measured, getattr(predicted, name), rtol=1e-5, atol=1e-9)
    growth = simulation.flow.singular_values[-1] / simulation.flow.singular_values[0]
    assert float(growth.min()) == pytest.approx(10, rel=1e-6)  # the slowest has grown tenfold at the end
    assert all(0 <= share <= 1 for share in shares) and shares[-1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 1}, "expected a number of classes of at least 2, got 1"),
        ({"dim": 1}, r"expected between C − 1 = 2 and C \(N − 1\) = 12 dimensions, got 1"),
        ({"time": 1e300}, "expected a time of at most"),
        ({"time": float("nan")}, "expected a positive, finite time, got nan"),
        ({"weight_decay": float("nan")}, "expected a finite weight decay"),
        ({"weight_decay": 1e300}, "expected a weight decay of at most"),
        ({"seed": -1}, "expected a seed"),
        ({"dim": 3.5}, "expected a dimension"),
        ({"dim": "3"}, "expected a dimension"),
        ({"frames": 2}, "expected a number of frames of at least 3, got 2"),
        ({"frames": 2.5}, "expected a number of frames"),
        ({"seed": 10**30}, "expected a seed"),
    ],
)
def test_a_flow_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(**{"classes": 3, "examples_per_class": 5, "dim": 4, **changes})
