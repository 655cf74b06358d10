"""No exception but InputError, and no foreign warning, out of random calls of the public functions.

See :mod:`random_calls`; NEURALCOLLAPSE_FUZZ=20000 for many. A failure names its seed: ``random_calls.call(seed)`` is
that call again, and ``random_calls.call(seed, random_calls.MORE)`` that of the other arguments.
"""

from __future__ import annotations

import os

import jaxtyping
import pytest
from helpers import random_calls

import neuralcollapse as nc

CALLS = int(os.environ.get("NEURALCOLLAPSE_FUZZ", "1200"))
BLOCKS = 8
# Calls that longer runs found something with: squares in the order of classes, a quotient, a kernel's square.
KEPT = (2418, 2486, 4917, 10285, 11587, 17543, 18752)


@pytest.mark.wrong_input
@pytest.mark.parametrize("block", range(BLOCKS))
def test_nothing_but_input_errors(block: int) -> None:
    found = [(seed, random_calls.fault(seed)) for seed in range(block, CALLS, BLOCKS)]
    wrong = [f"seed {seed}: {text}" for seed, text in found if text is not None]
    assert not wrong, f"{len(wrong)} faults\n" + "\n".join(wrong[:40])


@pytest.mark.wrong_input
@pytest.mark.parametrize("seed", KEPT)
def test_what_was_found_once_stays_mended(seed: int) -> None:
    assert random_calls.fault(seed) is None


@pytest.mark.wrong_input
@pytest.mark.parametrize("block", range(BLOCKS))
def test_nothing_but_input_errors_from_the_other_arguments(block: int) -> None:
    found = [(seed, random_calls.fault(seed, functions=random_calls.MORE)) for seed in range(block, CALLS, BLOCKS)]
    wrong = [f"seed {seed}: {text}" for seed, text in found if text is not None]
    assert not wrong, f"{len(wrong)} faults\n" + "\n".join(wrong[:40])


def test_the_run_time_check_of_shapes_says_so_itself() -> None:
    """With the shapes in the signatures checked, as in all other tests, its own error comes as well."""
    allowed = (nc.InputError, jaxtyping.TypeCheckError)
    found = [(seed, random_calls.fault(seed, allowed)) for seed in range(CALLS, CALLS + CALLS // 8)]
    wrong = [f"seed {seed}: {text}" for seed, text in found if text is not None and "no clear sentence" not in text]
    assert not wrong, f"{len(wrong)} faults\n" + "\n".join(wrong[:40])
