"""What runs, networks and losses are called in the titles and legends of figures."""

from __future__ import annotations

from neuralcollapse.figures.style import plain
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.wording import data_words, head_words, optimizer_words


def subject(config: RunConfig) -> str:
    """Data set and network of a run, with what was done to either."""
    width = "" if config.width == 1 else f" (width ×{config.width:g})"
    return plain(
        ", ".join([config.dataset_title, *data_words(config), f"{config.model}{width}", *head_words(config)])
    )


def objective(config: RunConfig) -> str:
    """Loss of a run, its optimizer where that is not SGD, and λ."""
    words = plain(", ".join([f"{config.loss_title} loss", *optimizer_words(config)]))
    return f"{words}, $\\lambda$ = {config.measured_weight_decay:g}"
