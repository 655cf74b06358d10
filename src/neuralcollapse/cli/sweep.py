"""`neuralcollapse sweep`: train one network at many values of one setting, and keep the best as a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from neuralcollapse.cli.grid import plan_code, print_result
from neuralcollapse.study.options import WHERE_IT_RUNS, GridOptions
from neuralcollapse.training.config import TrainingConfig

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class SweepCommand:
    """Train one network at many values of one setting, and keep the one with the least test error at the end.

    Of equal ones, that with the least NC1 is kept.

    By default the 25 learning rates among which the paper's were chosen: 1e-4 to 0.25 for PyTorch's MSELoss, converted
    to the loss at hand. The best run is written as recipe.json, for `run --recipe` and `grid --recipe`.
    """

    training: tyro.conf.OmitArgPrefixes[TrainingConfig] = field(default_factory=TrainingConfig)
    setting: str = field(default="learning-rate", metadata={"section": "Sweep"})
    """What is varied: any numeric setting of the training."""
    values: tuple[float, ...] | None = field(default=None, metadata={"section": "Sweep"})
    """Its values; without them, for sgd and sgdw, the paper's 25 learning rates."""
    out: Path | None = None
    """The folder in which each value has its run directory; by default one under runs/."""
    running: tyro.conf.OmitArgPrefixes[GridOptions] = field(default_factory=GridOptions, metadata=WHERE_IT_RUNS)

    def __call__(self, console: Console) -> int:
        from neuralcollapse import figures
        from neuralcollapse.cli import tables
        from neuralcollapse.cli.grid_progress import GridDisplay
        from neuralcollapse.study.grid import run_grid
        from neuralcollapse.study.sweep import make_sweep, write_recipe

        sweep = make_sweep(self.training, self.setting, self.values, self.out)
        with GridDisplay(console) as display:
            result = run_grid(sweep.cells, sweep.out, self.running, display)
        if self.running.dry_run:
            return plan_code(result, may_diverge=True)
        points = sweep.points(result.states)
        if about := write_recipe(sweep, points):
            tables.print_as_it_is(console, f"best: {about}")
            for path in (sweep.recipe_path, *figures.draw_sweep(sweep, points)):
                tables.print_as_it_is(console, path)
        return print_result(console, result, sweep.out, may_diverge=True)
