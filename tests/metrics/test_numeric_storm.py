"""Random numerical cases against exact arithmetic, see :mod:`numeric_cases`; NEURALCOLLAPSE_STORM=4000 for many."""

from __future__ import annotations

import os
import warnings

import pytest
from helpers import numeric_cases

CASES = int(os.environ.get("NEURALCOLLAPSE_STORM", "80"))
BLOCKS = 8


@pytest.mark.parametrize("block", range(BLOCKS))
def test_reports_agree_with_exact_arithmetic(block: int) -> None:
    """Each failure names the seed: ``numeric_cases.numeric(seed)`` is the case again."""
    found = []
    for seed in range(block, CASES, BLOCKS):
        case = numeric_cases.numeric(seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            wrong = numeric_cases.faults(case)
        wrong += [f"a foreign warning: {w.message}" for w in caught if w.category is not UserWarning]
        found += [f"seed {seed}: {line}" for line in wrong]
    assert not found, f"{len(found)} faults\n" + "\n".join(found[:40])
