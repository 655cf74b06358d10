"""`neuralcollapse sweep`: train one network at many values of one setting, and keep the best as a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from neuralcollapse.cli.grid import print_outcome
from neuralcollapse.study.options import How
from neuralcollapse.training.config import TrainingConfig

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class SweepCommand:
    """Train one network at many values of one setting, and choose by final test error, ties by NC1.

    By default the 25 learning rates among which the paper's were chosen: 1e-4 to 0.25 for PyTorch's MSELoss, converted
    to the loss at hand. The best run is written as recipe.json, for `run --recipe` and `grid --recipe`.
    """

    settings: tyro.conf.OmitArgPrefixes[TrainingConfig] = field(default_factory=TrainingConfig)
    setting: str = "learning-rate"
    """What is varied: any numeric setting of the training."""
    values: tuple[float, ...] | None = None
    """Its values; without them, for sgd and sgdw, the paper's 25 learning rates."""
    out: Path | None = None
    """The folder in which each value has its run directory; by default one under runs/."""
    how: tyro.conf.OmitArgPrefixes[How] = field(default_factory=How)

    def __call__(self, console: Console) -> int:
        from neuralcollapse.figures.sweep import draw_sweep
        from neuralcollapse.study import grid, sweep

        made = sweep.make(self.settings, self.setting, self.values, self.out)
        outcome = grid.carry_out(made.cells, made.out, self.how, console)
        if not outcome.dry and (chosen := sweep.write_recipe(made, made.points())):
            pictures = draw_sweep(made, made.points())
            console.print(f"best: {chosen.about}", soft_wrap=True, highlight=False)
            for path in (chosen.path, *pictures):
                console.print(str(path), soft_wrap=True, highlight=False)
        return print_outcome(outcome, made.out, may_diverge=True)
