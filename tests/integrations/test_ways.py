"""Every way of measuring, through the one tester."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import ways
from helpers.metric_tester import check_one_process, check_two_processes

PACKAGES = {"torchmetrics": "torchmetrics", "lightning_callback": "lightning", "trainer_callback": "transformers"}
EVERYWHERE = ["core", "model", "small_budget", "monitor", *PACKAGES]


@pytest.fixture(params=EVERYWHERE)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name], reason=f"{PACKAGES[name]} is not installed")
    return name


def test_splits_orders_and_types_do_not_matter(way: str) -> None:
    check_one_process(getattr(ways, way))


@pytest.mark.parametrize("sizes", [(45, 19), (64, 0)], ids=["uneven", "one-empty"])
def test_two_processes_give_the_report_of_one(way: str, sizes: tuple[int, int], tmp_path: Path) -> None:
    check_two_processes(tmp_path, "helpers.ways", way, sizes)
