"""Settings all tests share: one thread, the same random numbers every time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("project", max_examples=20, deadline=None, derandomize=True, database=None)
settings.load_profile("project")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Start each test from one random state, and leave none behind."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    np.random.seed(0)
    yield
    torch.set_rng_state(state)
