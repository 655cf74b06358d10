"""What a cell will cost, by one timed epoch."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.grids import TINY

from neuralcollapse.study import estimate, timed_epoch
from neuralcollapse.study.estimate import estimate_costs
from neuralcollapse.study.plan import make_cells, plan_cells
from neuralcollapse.study.timed_epoch import BudgetSpent, EpochClock, time_epoch
from neuralcollapse.training import evaluation
from neuralcollapse.training.config import TrainingConfig

QUICK = TrainingConfig(**{**TINY, "epochs": 100})


def test_equal_networks_on_equal_data_are_timed_once(tmp_path: Path) -> None:
    cells = make_cells(["digits"], ["mlp"], ["mse", "ce"], [0, 1], dataclasses.replace(QUICK, robustness_examples=100))
    planned = plan_cells(cells, tmp_path)
    planned[1] = dataclasses.replace(planned[1], epoch=60, seconds=30.0)
    timed: list[str] = []
    found = estimate_costs(planned, 1, timed.append)
    assert timed == ["digits-mlp-mse"] and set(found) == {cell.name for cell in cells}
    cost = found["digits-mlp-ce-s1"]
    assert cost.seconds is not None and cost.memory is not None and not cost.note
    assert 2 < cost.seconds < 600 and 1e8 < cost.memory < 4e9  # PyTorch alone takes some 300 MB
    assert found["digits-mlp-mse-s1"].seconds == pytest.approx(20.0)  # by its own first 60 epochs


def test_what_changes_the_cost_is_timed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds, rates and losses do not; widths, batch sizes and numbers of examples do."""
    costs = {"training": 2.0, "measuring": 3.0, "start": 5.0, "memory": 100, "gpu": 0, "note": ""}
    monkeypatch.setattr(estimate, "_time_epoch", lambda *_: costs)
    cells = []
    for changes in ({}, {"learning_rate": 0.5}, {"weight_decay": 0.1}, {"width": 0.25}, {"batch_size": 32}):
        cells += make_cells(["digits"], ["mlp"], ["mse"], [0, 1], dataclasses.replace(QUICK, **changes))  # type: ignore[arg-type]
    cells += make_cells(["digits"], ["mlp"], ["ce"], [0], dataclasses.replace(QUICK, examples_per_class=10))
    cells = [dataclasses.replace(cell, name=f"{number}") for number, cell in enumerate(cells)]
    timed: list[str] = []
    found = estimate_costs(plan_cells(cells, tmp_path), 1, timed.append)
    assert timed == ["0", "6", "8", "10"]
    # of 100 epochs 36 are on the paper's list or the last one, and 75, 76, 90 and 91 are beside a milestone
    assert found["0"].seconds == 5 + 100 * 2 + (36 + 4) * 3
    assert found["0"].memory == 100


def test_robustness_is_in_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is measured with the rest of the epoch; three seconds longer here."""
    attack = evaluation.relative_perturbations

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(3)
        return attack(*arguments, **options)

    monkeypatch.setattr(evaluation, "relative_perturbations", slow)
    with_attack = time_epoch(dataclasses.replace(QUICK, robustness_examples=3))
    assert with_attack["measuring"] >= 3 > time_epoch(QUICK)["measuring"] and not with_attack["note"]


def test_a_long_epoch_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """After as many steps as the budget allows; an epoch of 16 steps here."""
    monkeypatch.setattr(timed_epoch, "BUDGET", 0.0)
    cost = time_epoch(dataclasses.replace(QUICK, batch_size=13))
    assert cost["note"] == "timed 6.2% of an epoch, with measuring reckoned at a third of a step's time"
    assert 0 < cost["training"] < 30 and cost["measuring"] < cost["training"] * 5  # digits has more test images


def test_the_first_step_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = EpochClock()
    calls: list[tuple[float, Any]] = [(5.0, 0.25), (6.0, 0.5), (7.0, 0.75), (8.0, 1.0)]
    for moment, share in calls:
        now[0] = moment
        clock.step(1, share)
    now[0] = 10.0
    clock.measured({})
    now[0] = 10.5
    clock.epoch(1, 0.1)
    assert clock.training == pytest.approx(4.0 + 0.5) and clock.measuring == 2.0
    slow = EpochClock()
    now[0] = 40.0
    with pytest.raises(BudgetSpent):
        slow.step(1, 0.01)
    assert slow.training == pytest.approx(29.5 / 0.01)
