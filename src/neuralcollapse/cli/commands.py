"""The commands, their options, and what each calls."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from neuralcollapse.lab.measure_options import Options
from neuralcollapse.lab.settings import Settings

DIVERGED, INTERRUPTED = 1, 130


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

    def __call__(self, console: Console) -> int:
        from neuralcollapse import figures
        from neuralcollapse.lab import progress, trainer
        from neuralcollapse.lab.job import prepare

        job = prepare(self.settings, out=self.out, resume=self.resume)
        progress.announce(console, job)
        status = trainer.train(job)
        history = job.run.history()
        if history:
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
class MeasureCommand:
    """Measure features and a classifier saved in files, and print the report.

    Files are mapped and read in blocks, so that they may be larger than memory; only what an .npz holds compressed
    is read whole, so save it by numpy.savez. Features are (n, p) of 16, 32 or 64 bits, labels (n,) integers from 0.

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
        from neuralcollapse.lab import measuring, progress

        with progress.share_bar(console, "measuring") as advance:
            outcome = measuring.measure_files(self.features, self.options, advance)
        print(outcome.text, end="")
        if outcome.said:  # beside the report, so that what is printed can be piped
            print(outcome.said, file=sys.stderr if outcome.text else sys.stdout)
        return 0


@dataclass(frozen=True)
class FiguresCommand:
    """Draw the figures of a run again, or the figures and Table 1 of a whole study, from directories alone.

    A study is a folder with runs one or two levels below, such as a grid's; each figure then shows its networks ×
    data sets.
    """

    path: tyro.conf.Positional[Path]
    """A run directory, or a folder of them."""
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
        from neuralcollapse.lab import datasets, progress

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
        from neuralcollapse.lab import progress, simulation

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


Command = (
    Annotated[RunCommand, tyro.conf.subcommand("run")]
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
