"""TrainingConfig all tests share: one thread unless asked for more, the same random numbers every time."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import settings

# The shapes in the signatures are checked at every call; before anything imports the package.
_CHECKED = (
    "moments.class_moments",
    *(f"metrics.{name}" for name in ("nc1_to_nc4", "duality", "frames", "geometry", "least_squares", "mse")),
    *(f"metrics.{name}" for name in ("nearest_mean", "signal_to_noise", "variability")),
)
jaxtyping.install_import_hook([f"neuralcollapse.{name}" for name in _CHECKED], "beartype.beartype")

settings.register_profile("project", max_examples=20, deadline=None, derandomize=True, database=None)
settings.load_profile("project")
# What a shell begins in the background ignores SIGINT, and so would all that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(int(os.environ.get("NEURALCOLLAPSE_TEST_THREADS", "1")))


_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium; one for all tests of a process, in which Playwright starts only once."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pages are tested with playwright")
    found = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    with playwright.sync_playwright() as started:
        try:  # one of the machine, or one that playwright has brought
            running = started.chromium.launch(
                executable_path=found, args=["--no-sandbox", "--enable-unsafe-swiftshader"]
            )
        except playwright.Error as error:
            pytest.skip(f"no Chromium on this machine: {str(error).splitlines()[0]}")
        yield running
        running.close()


@pytest.fixture(autouse=True)
def _shapes_checked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave a test of wrong input to the package's own checks, as a user meets them."""
    off = request.node.get_closest_marker("wrong_input") is not None
    jaxtyping.config.update("jaxtyping_disable", off)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Start each test from one random state, and leave none behind."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    np.random.seed(0)
    yield
    torch.set_rng_state(state)
