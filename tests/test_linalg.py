"""Linear algebra that must not depend on which of many right answers a routine of LAPACK returns."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from neuralcollapse._linalg import part_within


def exact_part(rows: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """R B (BᵀB)⁻¹ Bᵀ in 80 digits."""
    with mpmath.workdps(80):
        r, b = mpmath.matrix(rows.tolist()), mpmath.matrix(basis.tolist())
        return np.array((r * b * mpmath.inverse(b.T * b) * b.T).tolist(), dtype=float)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize("sizes", ["one-large", "one-small", "all-different"])
def test_a_projection_does_not_depend_on_how_its_basis_is_turned(seed: int, columns: int, sizes: str) -> None:
    """Entries of the projection that are small beside the basis's largest row keep their digits too.

    Turned by chance, two columns have entries of 2⁴⁰ in one row, where the projection has one of 2⁻⁴⁰.
    """
    rng = np.random.default_rng([seed, columns])
    scale = {
        "one-large": 2.0 ** np.where(np.arange(9) == 4, 40, 0),
        "one-small": 2.0 ** np.where(np.arange(9) == 4, -40, 0),
        "all-different": 2.0 ** rng.permutation(np.arange(-20, 25, 5)),
    }[sizes]
    basis = np.linalg.qr(rng.normal(size=(9, columns)))[0] * scale[:, None]
    rows = rng.normal(size=(3, 9)) * np.minimum(1.0, 1.0 / scale)
    found = part_within(torch.from_numpy(rows), torch.from_numpy(basis)).numpy()
    wanted = exact_part(rows, basis)
    size = np.maximum(np.abs(wanted), np.minimum(1.0, 1.0 / scale) * 1e-3)
    assert np.all(np.abs(found - wanted) <= 1e-10 * size)
