"""What the terminal says when training reaches a phase."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from neuralcollapse.cli.training_progress import COLLAPSED, Phases, TrainingProgress


def line(epoch: int, error: float, nc1: float | str = 1.0) -> dict[str, Any]:
    numbers = {"loss": 1.0, "nc2.maximal_angle_means": 0.1, "nc3": 0.1, "test_accuracy": 0.9, "seconds": 1.0}
    return {"epoch": epoch, "train_error": error, "nc1": nc1, **numbers}


def test_each_phase_is_said_once_when_it_is_reached() -> None:
    phases = Phases()
    said = {
        epoch: [text.partition(":")[0] for text in phases.reached(line(epoch, error, nc1))]
        for epoch, error, nc1 in [
            (1, 0.5, 2.0),
            (2, 0.0, 1.0),
            (3, 0.01, 1.0),
            (5, 0.01, 1.0),
            (8, 0.0, 0.5),
            (10, 0.0, 0.1),
            (14, 0.0, COLLAPSED),
            (20, 0.0, 0.9 * COLLAPSED),
            (30, 0.0, "0.0"),
        ]
    }
    assert said == {
        1: [],
        2: ["zero error"],
        3: ["the training error is above zero again"],
        5: [],
        8: ["zero error"],
        10: [],
        14: ["stays zero"],
        20: ["nearly collapsed"],
        30: [],
    }


@pytest.mark.parametrize("terminal", [True, False])
def test_they_are_shown_with_and_without_a_terminal_in_eighty_columns(terminal: bool) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, no_color=True)
    progress = TrainingProgress(console)
    progress.begin(epochs=350, done=0)
    for epoch in (335, 340, 345):
        progress.measured(line(epoch, 0.0, 1e-4))
    progress.end()
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    for text in ("epoch 335: zero error", "epoch 335: nearly collapsed", "epoch 345: stays zero"):
        (found,) = (row for row in printed.splitlines() if text in row)
        assert len(found.split("epoch", 1)[1]) <= 80
