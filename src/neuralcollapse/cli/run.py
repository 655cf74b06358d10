"""`neuralcollapse run`: train one network, measure its collapse, draw the figures, write the report."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from neuralcollapse._errors import INTERRUPTED
from neuralcollapse.training.config import TrainingConfig

if TYPE_CHECKING:
    from rich.console import Console

    from neuralcollapse.training.run_directory import Run

DIVERGED = 1
"""The exit code of a run whose loss is no longer finite."""
_FROM_FILE = {"section": "Settings from a file"}


@dataclass(frozen=True)
class RunCommand:
    """Train a network, measure its collapse on the paper's epochs, draw the figures and write the report.

    Without options: a narrow ResNet18 on handwritten digits, a minute or two on two cores.
    """

    training: tyro.conf.OmitArgPrefixes[TrainingConfig] = field(default_factory=TrainingConfig)
    config: Path | None = field(default=None, metadata=_FROM_FILE)
    """A file of settings (YAML or JSON), named as these options; an option given here counts instead of the file's."""
    print_config: bool = field(default=False, metadata=_FROM_FILE)
    """Print the settings as a file for --config, those filled in by default as comments, and train nothing."""
    recipe: Path | None = field(default=None, metadata=_FROM_FILE)
    """A recipe file, as `sweep` writes it: where it is for this data set, network and loss, it fills in what is not
    given here."""
    out: Path | None = None
    """The run directory; by default a folder under runs/. If it holds an unfinished run, that run is continued."""
    resume: Path | None = None
    """Continue the run in this directory with the settings it was started with."""
    log: Literal["tensorboard"] | None = None
    """Write the numbers of each measured epoch for TensorBoard too, into the run directory's folder `tensorboard`."""

    def __call__(self, console: Console) -> int:
        from neuralcollapse import figures, report
        from neuralcollapse.cli import tables
        from neuralcollapse.cli.training_progress import TrainingProgress
        from neuralcollapse.measuring.events import first_zero_error
        from neuralcollapse.training import hardware, recipes, trainer
        from neuralcollapse.training.resolve import load_and_resolve, prepare

        settings = self.training
        if self.config is not None:
            settings = settings.filled(recipes.read_settings(self.config))
        if self.recipe is not None:
            settings = recipes.fill(settings, self.recipe)
        if self.print_config:
            resolved, _ = load_and_resolve(settings)
            print(recipes.as_yaml(settings, resolved), end="")
            return 0
        run, data = prepare(settings, out=self.out, resume=self.resume)
        print_settings(console, run)
        if run.config.device == "cpu":
            hardware.keep_memory()
        events = None if self.log is None else run.path / self.log
        status = trainer.train(run, data, progress=TrainingProgress(tensorboard=events))
        if history := run.history(*tables.SUMMARY_COLUMNS):
            console.print(tables.summary_table(history, first_zero_error(history)))
        if status == "interrupted":
            again = f"neuralcollapse run --resume {shlex.quote(str(run.path))}"
            told = f"interrupted; continue with: {again}"
            tables.print_as_it_is(console, told)
            return INTERRUPTED
        if status == "diverged":  # its last features may be infinite, of which there is no picture
            message = "diverged: the loss is no longer finite; try a smaller --learning-rate"
            print(f"neuralcollapse: {message} (history kept in {run.history_path})", file=sys.stderr)
            return DIVERGED
        if history:
            pictures = {path.stem for path in figures.draw(run.path)}
            page = report.write_report(run.path)
            written = f"{len(pictures)} pictures in {run.path / 'figures'}\nreport: {page}"
            tables.print_as_it_is(console, written)
        return 0


def print_settings(console: Console, run: Run) -> None:
    """Print what is about to be trained, with which settings, and where the run directory is."""
    from neuralcollapse.cli import tables

    config = run.config
    data = ", ".join([f"{config.num_classes} classes", *config.image_description(), *config.data_description()])
    network = ", ".join([f"{config.model}, width {config.width:g}", *config.head_description()])
    optimizer = ", ".join(config.optimizer_description()) or "SGD"
    decays = "".join(f", {decay}" for decay in config.decay_description())
    arithmetic = {"bf16": "bf16", "64": "float64"}.get(config.precision, "float32")
    console.print(
        f"{config.dataset_title}: {config.num_examples:,} training examples, {data}\n"
        f"{network}; {config.loss_title} loss, λ = {config.measured_weight_decay:g}{decays}; "
        f"{optimizer} rate {config.learning_rate:g}, momentum {config.momentum:g}, batches of {config.batch_size}, "
        f"{config.epochs} epochs; {config.device}, {arithmetic}, "
        f"seed {config.seed}",
        highlight=False,
        markup=False,
        emoji=False,
    )
    tables.print_as_it_is(console, f"run directory: {run.path}")
