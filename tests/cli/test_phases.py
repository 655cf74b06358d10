"""What the terminal says when training reaches a phase."""

from __future__ import annotations

import io
import re
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


def test_lines_of_a_log_have_every_number_below_its_head_in_eighty_columns() -> None:
    """The widest numbers there are, and a head for the last lines too."""
    console = Console(file=io.StringIO(), width=80)
    progress = TrainingProgress(console)
    progress.begin(epochs=25_000, done=0)
    widest = {"loss": 1.0e-11, "nc1": 1.0e-12, "nc2.maximal_angle_means": 2.5e-5, "nc3": 3.5e-5, "seconds": 86_399.0}
    for epoch in range(24_961, 25_001, 2):
        progress.measured({**line(epoch, 0.9999), **widest})
    progress.measured({**line(25_000, 2e-5), "nc1": "inf", "test_accuracy": 1.0})
    printed = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    heads = ["epoch", "loss", "error", "NC1", "NC2", "NC3", "test", "time"]
    assert max(map(len, printed)) <= 80
    assert printed[0].split() == printed[-2].split() == heads and printed.count(printed[0]) == 2
    assert printed[1] == "24961/25000  1.00e-11   99.99 %  1.00e-12  2.50e-05  3.50e-05   90.00 %  86399 s"
    last = "25000/25000 1.00e+00 0.0020 % inf 0.100 0.100 100.00 % 1 s"
    assert " ".join(printed[-1].split()) == last
    ends = [match.end() for match in re.finditer(r"\S+( [%s])?", printed[1])]
    assert ends == [match.end() for match in re.finditer(r"\S+", printed[0])]
