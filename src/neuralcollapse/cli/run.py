"""`neuralcollapse run`: train one network, measure its collapse, draw the figures."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from neuralcollapse.training.config import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from neuralcollapse.training.job import Job

DIVERGED, INTERRUPTED = 1, 130  # exit codes; 130 is the shell's own for an interrupt, 128 + SIGINT


@dataclass(frozen=True)
class RunCommand:
    """Train a network, measure its collapse on the paper's epochs, and draw the figures.

    Without options: a narrow ResNet18 on handwritten digits, a minute or two on two cores.
    """

    settings: tyro.conf.OmitArgPrefixes[Settings] = field(default_factory=Settings)
    out: Path | None = None
    """The run directory; by default a folder under runs/. If it holds an unfinished run, that run is continued."""
    resume: Path | None = None
    """Continue the run in this directory with the settings it was started with."""
    recipe: Path | None = None
    """A recipe file, as `sweep` writes it: it fills in the settings that are not given here."""

    def __call__(self, console: Console) -> int:
        from neuralcollapse import figures
        from neuralcollapse.cli import tables
        from neuralcollapse.training import hardware, reading, recipes, trainer
        from neuralcollapse.training.job import prepare

        settings = self.settings if self.recipe is None else recipes.for_run(self.recipe, self.settings)
        job = prepare(settings, out=self.out, resume=self.resume)
        print_settings(console, job)
        if job.config.device == "cpu":
            hardware.keep_memory()
        status = trainer.train(job)
        history = reading.history(job.run)
        if history:
            reading.numbers(job.run, history, *tables.SUMMARY_COLUMNS)
            console.print(tables.summary_table(history, job.run.status().get("zero_error_epoch")))
        if status == "interrupted":
            console.print(f"interrupted; continue with: neuralcollapse run --resume {job.run.path}", soft_wrap=True)
            return INTERRUPTED
        if history:
            pictures = figures.make_all(job.run.path)
            console.print(f"{len(pictures)} pictures in {job.run.figures_dir}", soft_wrap=True, highlight=False)
        if status == "diverged":
            message = "diverged: the loss is no longer finite; try a smaller --learning-rate"
            print(f"neuralcollapse: {message} (history kept in {job.run.history_path})", file=sys.stderr)
            return DIVERGED
        return 0


def print_settings(console: Console, job: Job) -> None:
    """Print what is about to be trained, with which settings, and where the run directory is."""
    from neuralcollapse.training.wording import data_words, head_words, optimizer_words

    config = job.config
    made = dataclasses.asdict(config)
    data = ", ".join([f"{config.num_classes} classes", *data_words(made)])
    network = ", ".join([f"{config.model}, width {config.width:g}", *head_words(made)])
    optimizer = ", ".join(optimizer_words(made)) or "SGD"
    console.print(
        f"{config.dataset_title}: {config.num_examples:,} training examples, {data}\n"
        f"{network}; {config.loss_title} loss, λ = {config.measured_weight_decay:g}; "
        f"{optimizer} rate {config.learning_rate:g}, momentum {config.momentum:g}, batches of {config.batch_size}, "
        f"{config.epochs} epochs; {config.device}, {'bf16' if config.precision == 'bf16' else 'float32'}, "
        f"seed {config.seed}\nrun directory: {job.run.path}",
        highlight=False,
        soft_wrap=True,
    )
