"""`neuralcollapse dynamics`: the central path in closed form, against an integrated flow or a trained network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from neuralcollapse.plots.options import Drawing

if TYPE_CHECKING:
    from rich.console import Console

_FLOW = {"section": "Flow"}


@dataclass(frozen=True)
class DynamicsCommand:
    """Draw the central path: the closed form against an integrated flow, or against a trained network.

    Without --run: features start at random and collapse; a figure, and a film as GIF and, with the extra video, MP4.
    With --run: the singular values of that run, trained with MSE, against the closed form, by one change of time; of a
    study, every network against three flows, one figure for each family.
    """

    classes: int = field(default=10, metadata=_FLOW)
    """C, the number of classes."""
    examples_per_class: int = field(default=50, metadata=_FLOW)
    """N, the examples of each class."""
    dim: int = field(default=64, metadata=_FLOW)
    """Dimension of the features."""
    time: float | None = field(default=None, metadata=_FLOW)
    """How long the flow runs; by default until every singular value has grown tenfold."""
    weight_decay: float = field(default=0.0, metadata=_FLOW)
    """λ on the classifier's weight; above zero an extension of the paper."""
    flow: Literal["projected", "multiplicative", "none"] = field(default="projected", metadata=_FLOW)
    """The renormalization; projected is the paper's. none, for --run alone, lets every ω grow by the same factor."""
    seed: int = field(default=0, metadata=_FLOW)
    """Seed of the random start."""
    run: Path | None = field(default=None, metadata={"section": "Against a run"})
    """Compare the singular values of the run in this directory, or of all runs in it, with the closed form instead."""
    out: Path | None = None
    """Where the pictures go; by default dynamics/, or the run's own figures/."""
    drawing: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)

    def __call__(self, console: Console) -> int:
        from neuralcollapse import figures
        from neuralcollapse._errors import InputError
        from neuralcollapse.cli import tables
        from neuralcollapse.files.options import check_folder, given
        from neuralcollapse.measuring.history import History
        from neuralcollapse.study import study_file
        from neuralcollapse.theory import simulation

        of_flow = ("classes", "examples_per_class", "dim", "time", "weight_decay", "seed")
        if self.run is not None and (unused := given(self, of_flow)):
            raise InputError(f"{unused[0]} is not used with --run, whose network tells it; leave one of the two out")
        if self.run is None or self.out is not None:
            check_folder(self.out or Path("dynamics"))
        if self.run is not None and ((self.run / study_file.FILE).is_file() or len(History.read(self.run)) > 1):
            if self.flow != "projected":
                raise InputError(f"a study is laid beside all three flows: leave out --flow {self.flow}")
            table, written = figures.compare_study(self.run, self.out, self.drawing)
            console.print(tables.flows_table(table))
        elif self.run is not None:
            fit, written = figures.compare_run(self.run, self.flow, self.out, self.drawing)
            console.print(tables.clock_table(fit))
        else:
            with tables.share_bar(console, "integrating") as advance:
                found = simulation.simulate(
                    classes=self.classes,
                    examples_per_class=self.examples_per_class,
                    dim=self.dim,
                    time=self.time,
                    weight_decay=self.weight_decay,
                    flow=self.flow,  # type: ignore[arg-type]  # "none" is refused there
                    seed=self.seed,
                    progress=advance,
                )
            console.print(tables.simulation_summary(found), soft_wrap=True, highlight=False)
            written = figures.draw_simulation(found, self.out or Path("dynamics"), self.drawing)
        for path in written:
            tables.print_as_it_is(console, path)
        return 0
