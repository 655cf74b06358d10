"""What a run is called in the titles of figures."""

from __future__ import annotations

from neuralcollapse.figures.style import plain
from neuralcollapse.training.config import RunConfig


def subject(config: RunConfig) -> str:
    """Data set and network of a run, with what was done to either."""
    network = config.model if config.width == 1 else f"{config.model} (width ×{config.width:g})"
    return plain(", ".join([config.dataset_title, *config.data_description(), network, *config.head_description()]))


def objective(config: RunConfig) -> str:
    """Loss of a run, its optimizer where that is not SGD, and λ."""
    words = plain(", ".join([f"{config.loss_title} loss", *config.optimizer_description()]))
    return f"{words}, $\\lambda$ = {config.measured_weight_decay:g}"
