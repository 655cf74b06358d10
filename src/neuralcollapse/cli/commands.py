"""The commands, their options, and what each calls."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from neuralcollapse.files.options import Options
from neuralcollapse.study.grid import How, Outcome, State
from neuralcollapse.training import protocol
from neuralcollapse.training.config import Settings

DIVERGED, UNFINISHED, INTERRUPTED = 1, 1, 130


@dataclass(frozen=True)
class RunCommand:
    """Train a network, measure its collapse on the paper's epochs, and draw the figures.

    Without options: a narrow ResNet18 on handwritten digits, a minute or two on two cores.
    """

    settings: tyro.conf.OmitArgPrefixes[Settings] = field(default_factory=Settings)
    out: Path | None = None
    """The run directory; by default a folder under runs/. Naming an unfinished run continues it."""
    resume: Path | None = None
    """Continue the run in this directory, with its own settings."""
    recipe: Path | None = None
    """Take what is left open from this file, which `sweep` or you wrote."""

    def __call__(self, console: Console) -> int:
        from neuralcollapse import figures
        from neuralcollapse.training import hardware, progress, reading, recipes, trainer
        from neuralcollapse.training.job import prepare

        settings = self.settings if self.recipe is None else recipes.for_run(self.recipe, self.settings)
        job = prepare(settings, out=self.out, resume=self.resume)
        progress.announce(console, job)
        if job.config.device == "cpu":
            hardware.keep_memory()
        status = trainer.train(job)
        history = reading.history(job.run)
        if history:
            reading.numbers(job.run, history, *progress.SUMMARISED)
            console.print(progress.summary(history, job.run.status().get("zero_error_epoch")))
        if status == "interrupted":
            console.print(f"interrupted; go on with: neuralcollapse run --resume {job.run.path}", soft_wrap=True)
            return INTERRUPTED
        if history:
            pictures = figures.make_all(job.run.path)
            console.print(f"{len(pictures)} pictures in {job.run.figures_dir}", soft_wrap=True, highlight=False)
        if status == "diverged":
            message = "diverged: the loss is no longer finite; try a smaller --learning-rate"
            print(f"neuralcollapse: {message} (history kept in {job.run.history_path})", file=sys.stderr)
            return DIVERGED
        return 0


@dataclass(frozen=True)
class _CommonSettings(Settings):
    """The settings of all cells; what a grid has lists of is given there."""

    dataset: tyro.conf.Suppress[Any] = None
    model: tyro.conf.Suppress[Any] = None
    loss: tyro.conf.Suppress[Any] = None
    seed: tyro.conf.Suppress[Any] = None


@dataclass(frozen=True)
class GridCommand:
    """Train data sets × networks × losses × seeds: by default the paper's fifteen cells, each with its tuned rate.

    Each cell is a run directory under --out and a process of its own. The plan comes first, with an estimate of time
    and memory. The same command again goes on: what is finished stays, what was interrupted or failed is continued.
    """

    datasets: tuple[str, ...] = protocol.DATASETS
    """Data sets; `neuralcollapse data` lists those found here."""
    models: tuple[str, ...] = protocol.NETWORKS
    """Networks; without a number, at the paper's depth for the data set."""
    losses: tuple[str, ...] = ("mse",)
    """Losses."""
    seeds: tuple[int, ...] = (0,)
    """Seeds."""
    only: tuple[str, ...] = ()
    """Only the cells whose name matches one of these patterns, such as 'mnist-*-mse'."""
    recipe: tuple[Path, ...] = ()
    """Files of recipes, each for the cells it names; options given here go before."""
    out: Path = Path("runs/grid")
    """The folder of the run directories."""
    how: tyro.conf.OmitArgPrefixes[How] = field(default_factory=How)
    settings: tyro.conf.OmitArgPrefixes[_CommonSettings] = field(default_factory=_CommonSettings)

    def __call__(self, console: Console) -> int:
        from neuralcollapse.study import grid, plan
        from neuralcollapse.training import recipes

        found = [recipe for path in self.recipe for recipe in recipes.read(path)]
        cells = plan.cells(self.datasets, self.models, self.losses, self.seeds, self.settings, found)
        study = [cell.name for cell in cells]
        outcome = grid.carry_out(plan.only(cells, self.only), self.out, self.how, console, study)
        return _conclude(outcome, self.out, expected=())


@dataclass(frozen=True)
class SweepCommand:
    """Train one network at many values of one setting, and choose by final test error, ties by NC1.

    By default the 25 learning rates among which the paper's were chosen: 1e-4 to 0.25 for PyTorch's MSELoss, converted
    to the loss at hand. The winner is written as recipe.json, for `run --recipe` and `grid --recipe`.
    """

    settings: tyro.conf.OmitArgPrefixes[Settings] = field(default_factory=Settings)
    setting: str = "learning-rate"
    """What is varied: any setting of the training that is a number."""
    values: tuple[float, ...] | None = None
    """Its values; the 25 rates without them are those of sgd and sgdw."""
    out: Path | None = None
    """The folder of the run directories; by default one under runs/."""
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
        return _conclude(outcome, made.out, expected=(grid.State.DIVERGED,))


@dataclass(frozen=True)
class MeasureCommand:
    """Measure features and a classifier saved in files, and print the report.

    Files are mapped and read in blocks, so that they may be larger than memory; only what an .npz holds compressed
    is read whole, so save it by numpy.savez. Of an .npz the checksums are compared first, for which each job reads it
    once; an .npy has none. Features are (n, p) of 16, 32 or 64 bits, labels (n,) integers from 0.

    In parts, by N jobs of an array, each for its own I; the report has no NC4 and no accuracies:
      measure FEATURES --shard I/N --classes C --save part-I.safetensors
      measure --merge part-*.safetensors --save all.safetensors --weight W

    Those need the class means of all parts. The jobs count them in a second round, which gives the full report:
      measure FEATURES --shard I/N --moments all.safetensors --weight W --save count-I.safetensors
      measure --merge count-*.safetensors --moments all.safetensors --weight W
    """

    features: tyro.conf.Positional[Path | None] = None
    """An .npz or .safetensors with features, and maybe labels, weight and bias; a Parquet file with features and maybe
    label or labels; or an .npy with features alone. None with --merge."""
    options: tyro.conf.OmitArgPrefixes[Options] = field(default_factory=Options)

    def __call__(self, console: Console) -> int:
        from neuralcollapse.files import measuring
        from neuralcollapse.training import progress

        with progress.share_bar(console, "measuring") as advance:
            outcome = measuring.measure_files(self.features, self.options, advance)
        print(outcome.text, end="")
        if outcome.said:  # beside the report, so that what is printed can be piped
            print(outcome.said, file=sys.stderr if outcome.text else sys.stdout)
        return 0


@dataclass(frozen=True)
class FiguresCommand:
    """Draw the figures of a run again, or the figures and Table 1 of a whole study, from directories alone.

    A study is a folder whose study.json lists its runs, as grid and sweep write it; or, without that file, one whose
    folders are runs. Each figure then shows its networks × data sets.
    """

    path: tyro.conf.Positional[Path]
    """A run directory, or the folder of a study."""
    out: Path | None = None
    """Where the files go; by default into figures/ there."""
    animate: bool = False
    """Also the portrait of a run over its epochs, as GIF and MP4 (extra: video)."""

    def __call__(self, console: Console) -> int:
        from neuralcollapse import figures

        for path in figures.make(self.path, self.out, animate=self.animate):
            console.print(str(path), soft_wrap=True, highlight=False)
        return 0


@dataclass(frozen=True)
class DataCommand:
    """List the data sets found on this machine, with their counts per class."""

    data_dir: Path | None = None
    """A folder to look in first."""

    def __call__(self, console: Console) -> int:
        from neuralcollapse import data as datasets
        from neuralcollapse.training import progress

        console.print(progress.data_table(datasets.available(self.data_dir)))
        return 0


@dataclass(frozen=True)
class DynamicsCommand:
    """Draw the central path: the closed form against an integrated flow, or against a trained network.

    Without --run: features start at random and collapse; figures and an animation.
    With --run: the singular values of that run against the closed form, by one change of time.
    """

    classes: int = 10
    """C."""
    examples_per_class: int = 50
    """N."""
    dim: int = 64
    """Dimension of the features."""
    time: float | None = None
    """How long the flow runs; by default until every singular value has grown tenfold."""
    weight_decay: float = 0.0
    """λ on the classifier's weight; above zero an extension of the paper."""
    flow: Literal["projected", "multiplicative"] = "projected"
    """The renormalization; projected is the paper's."""
    seed: int = 0
    """Of the random start."""
    run: Path | None = None
    """Compare this run's singular values with the closed form instead."""
    out: Path | None = None
    """Where the pictures go; by default dynamics/, or the run's own figures/."""

    def __call__(self, console: Console) -> int:
        from neuralcollapse.figures import theory
        from neuralcollapse.theory import simulation
        from neuralcollapse.training import progress

        if self.run is not None:
            fit, written = theory.compare_run(self.run, self.flow, self.out)
            console.print(progress.clock_table(fit))
        else:
            with progress.share_bar(console, "integrating") as advance:
                found = simulation.simulate(
                    classes=self.classes,
                    examples_per_class=self.examples_per_class,
                    dim=self.dim,
                    time=self.time,
                    weight_decay=self.weight_decay,
                    flow=self.flow,
                    seed=self.seed,
                    progress=advance,
                )
            console.print(progress.simulation_summary(found), soft_wrap=True, highlight=False)
            folder = Path("dynamics") if self.out is None else self.out
            written = theory.draw_simulation(found, folder)
        for path in written:
            console.print(str(path), soft_wrap=True, highlight=False)
        return 0


def _conclude(outcome: Outcome, out: Path, expected: tuple[State, ...]) -> int:
    """Say what is not finished and why; the exit code."""
    if outcome.dry:
        return 0
    for name, why in outcome.problems.items():
        print(f"neuralcollapse: {name}: {why}", file=sys.stderr)
    if outcome.interrupted:
        print(f"neuralcollapse: interrupted; the same command goes on from {out}", file=sys.stderr)
        return INTERRUPTED
    done = all(state in (State.FINISHED, *expected) for state in outcome.states.values())
    return 0 if done else UNFINISHED


Command = (
    Annotated[RunCommand, tyro.conf.subcommand("run")]
    | Annotated[GridCommand, tyro.conf.subcommand("grid")]
    | Annotated[SweepCommand, tyro.conf.subcommand("sweep")]
    | Annotated[MeasureCommand, tyro.conf.subcommand("measure")]
    | Annotated[FiguresCommand, tyro.conf.subcommand("figures")]
    | Annotated[DynamicsCommand, tyro.conf.subcommand("dynamics")]
    | Annotated[DataCommand, tyro.conf.subcommand("data")]
)


def dispatch(arguments: list[str]) -> int:
    """Parse the arguments and run the command; returns the exit code."""
    command = tyro.cli(
        Command,  # type: ignore[arg-type]
        prog="neuralcollapse",
        description="Measure, reproduce and see Neural Collapse.",
        args=arguments,
    )
    return command(Console())  # type: ignore[operator,no-any-return]
