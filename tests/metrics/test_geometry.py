"""The simplex and the three distances from it, against sums written out and values by hand."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import neuralcollapse as nc
from neuralcollapse.metrics import geometry

# A 3-4-5 triangle of vectors: norms 1, 5, 1 and cosines 0.6, 0, 0.8 between the pairs.
VECTORS = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)


def test_the_three_distances_by_hand() -> None:
    assert float(nc.equinorm(VECTORS)) == pytest.approx(math.sqrt(16 / 3) / (7 / 3), rel=1e-14)
    cosines = [0.6, 0.6, 0.0, 0.0, 0.8, 0.8]  # ordered pairs
    assert float(nc.equiangularity(VECTORS)) == pytest.approx(statistics.stdev(cosines), rel=1e-13)
    assert float(nc.maximal_angle(VECTORS)) == pytest.approx((1.1 + 0.5 + 1.3) / 3, rel=1e-13)


@pytest.mark.parametrize(("offset", "close"), [(0.0, 1e-11), (1.0, 1e-11), (1e4, 1e-6)])
def test_the_angles_of_very_many_vectors(monkeypatch: pytest.MonkeyPatch, offset: float, close: float) -> None:
    """Squares are summed as those of a p × p matrix, but not where all vectors point the same way."""
    monkeypatch.setattr(geometry, "_MANY", 200)
    rows = np.random.default_rng(0).normal(size=(300, 6)) + offset
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[~np.eye(300, dtype=bool)]
    vectors = torch.from_numpy(rows)
    # with the offset of 1e4 cosines are 1 − 1e-8, of which float64 leaves eight digits
    assert float(nc.equiangularity(vectors)) == pytest.approx(cosines.std(ddof=1), rel=close)
    assert float(nc.maximal_angle(vectors)) == pytest.approx(np.abs(cosines + 1 / 299).mean(), rel=1e-7)


@given(classes=st.integers(2, 12), dim=st.integers(2, 9), seed=st.integers(0, 10**6))
def test_the_three_distances_are_the_sums_written_out(classes: int, dim: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(classes, dim))
    vectors = torch.from_numpy(rows)
    norms = [math.hypot(*row) for row in rows]
    cosines = [
        math.fsum(rows[a] * rows[b]) / (norms[a] * norms[b]) for a, b in itertools.permutations(range(classes), 2)
    ]
    angles = statistics.fmean(abs(cosine + 1 / (classes - 1)) for cosine in cosines)
    assert float(nc.equinorm(vectors)) == pytest.approx(statistics.stdev(norms) / statistics.fmean(norms), rel=1e-11)
    assert float(nc.equiangularity(vectors)) == pytest.approx(statistics.stdev(cosines), rel=1e-9, abs=1e-12)
    assert float(nc.maximal_angle(vectors)) == pytest.approx(angles, rel=1e-11, abs=1e-13)


@pytest.mark.parametrize("classes", [2, 3, 10, 257])
@pytest.mark.parametrize("spare", [-1, 0, 5])
def test_the_simplex_is_equinorm_equiangular_and_centred(classes: int, spare: int) -> None:
    """The Gram matrix C/(C−1) (I − 11ᵀ/C), in C − 1 dimensions or more."""
    frame = nc.simplex_etf(classes, classes + spare)
    gram = frame @ frame.T
    want = classes / (classes - 1) * (np.eye(classes) - 1 / classes)
    np.testing.assert_allclose(gram, want, atol=1e-13)
    np.testing.assert_allclose(frame.sum(dim=0), 0, atol=1e-12)
    assert max(float(nc.equinorm(frame)), float(nc.equiangularity(frame)), float(nc.maximal_angle(frame))) < 1e-13
