"""`neuralcollapse grid`: train data sets × networks × losses × seeds, each cell a run of its own."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from neuralcollapse._errors import INTERRUPTED
from neuralcollapse.study.options import WHERE_IT_RUNS, GridOptions
from neuralcollapse.training import recipes
from neuralcollapse.training.config import TrainingConfig

if TYPE_CHECKING:
    from rich.console import Console

    from neuralcollapse.study.grid import GridResult

UNFINISHED = 1
"""The exit code of a grid with a run that is not finished."""
_CELLS = {"section": "Cells"}
_NEXT = {"figures": "draw the study:  ", "report": "one page to open:"}
"""What a finished grid proposes, by command."""


@dataclass(frozen=True)
class CommonSettings(TrainingConfig):
    """The settings that all cells share; the four that differ between cells are options of `grid` itself."""

    dataset: tyro.conf.Suppress[Any] = None
    model: tyro.conf.Suppress[Any] = None
    loss: tyro.conf.Suppress[Any] = None
    seed: tyro.conf.Suppress[Any] = None


@dataclass(frozen=True)
class GridCommand:
    """Train data sets × networks × losses × seeds: by default the paper's fifteen cells, each with its tuned rate.

    Each cell is a run directory under --out, trained by a process of its own. The plan is printed first, with an
    estimate of time and memory. Repeat the command to continue: finished cells stay as they are, interrupted and
    failed cells are continued.
    """

    datasets: tuple[str, ...] = field(default=recipes.PAPER_DATASETS, metadata=_CELLS)
    """Data sets; `neuralcollapse data` lists those found here."""
    models: tuple[str, ...] = field(default=recipes.PAPER_FAMILIES, metadata=_CELLS)
    """Networks; a name without a depth, such as resnet, takes the paper's depth for the data set."""
    losses: tuple[str, ...] = field(default=("mse",), metadata=_CELLS)
    """Losses."""
    seeds: tuple[int, ...] = field(default=(0,), metadata=_CELLS)
    """Seeds."""
    only: tuple[str, ...] = field(default=(), metadata=_CELLS)
    """Train only the cells whose name matches one of these patterns, such as 'mnist-*-mse'."""
    recipe: tuple[Path, ...] = field(default=(), metadata={"section": "Settings from a file"})
    """Recipe files, as `sweep` writes them; each fills in, for the cells it names, the settings not given here."""
    out: Path = Path("runs/grid")
    """The folder in which each cell has its run directory."""
    running: tyro.conf.OmitArgPrefixes[GridOptions] = field(default_factory=GridOptions, metadata=WHERE_IT_RUNS)
    training: tyro.conf.OmitArgPrefixes[CommonSettings] = field(default_factory=CommonSettings)

    def __call__(self, console: Console) -> int:
        from neuralcollapse.cli.grid_progress import GridDisplay
        from neuralcollapse.study.grid import run_grid
        from neuralcollapse.study.plan import make_cells, select_cells

        found = [recipe for path in self.recipe for recipe in recipes.read(path)]
        cells = make_cells(self.datasets, self.models, self.losses, self.seeds, self.training, found)
        names = [cell.name for cell in cells]
        with GridDisplay(console) as display:
            result = run_grid(select_cells(cells, self.only), self.out, self.running, display, names)
        if self.running.dry_run:
            return plan_code(result, may_diverge=self.running.retry_diverged)
        return print_result(console, result, self.out)


def plan_code(result: GridResult, *, may_diverge: bool) -> int:
    """The exit code of a plan: not 0 where a run has failed or diverged, or a directory is another run's.

    Data that are not there are no fault of a plan: it is how one sees what the paper's cells would take. A failed run
    would be continued, but why it failed is to be read before.

    Args:
        result: of the grid or sweep.
        may_diverge: whether a diverged run is no fault, as in a sweep of learning rates.
    """
    from neuralcollapse.study.task import State

    faulty = {State.FAILED, State.OTHER} | (set() if may_diverge else {State.DIVERGED})
    return UNFINISHED if faulty & set(result.states.values()) else 0


def print_result(console: Console, result: GridResult, out: Path, *, may_diverge: bool = False) -> int:
    """Print which runs are not finished and why, and how to see the others; returns the exit code.

    Args:
        console: the output.
        result: of the grid or sweep.
        out: the folder of its run directories.
        may_diverge: whether a diverged run counts as finished, as in a sweep of learning rates.
    """
    from neuralcollapse.study.task import State

    for name, reason in result.problems.items():
        print(f"neuralcollapse: {name}: {reason}", file=sys.stderr)
    if result.interrupted:
        print(f"neuralcollapse: interrupted; repeat the command to continue the runs in {out}", file=sys.stderr)
        return INTERRUPTED
    for command, what in _NEXT.items():
        console.print(f"{what} neuralcollapse {command} {shlex.quote(str(out))}", soft_wrap=True, highlight=False)
    finished = (State.FINISHED, State.DIVERGED) if may_diverge else (State.FINISHED,)
    return 0 if all(state in finished for state in result.states.values()) else UNFINISHED
