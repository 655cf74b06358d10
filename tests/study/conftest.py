"""Fixtures of the tests of grids and sweeps."""

from __future__ import annotations

import pytest

from neuralcollapse.study import grid


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No epoch is timed for the estimate, which takes seconds."""
    monkeypatch.setattr(grid, "estimate_costs", lambda *_: {})
