"""The options of a run in words, for figures and the terminal; empty for what the paper does, and for older runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from neuralcollapse.networks import heads
from neuralcollapse.training import losses, optimizers, protocol


def data_words(config: Mapping[str, Any]) -> list[str]:
    """What was done to the training half: `step imbalance 100:1`, `20 % label noise`."""
    words = []
    if config.get("imbalance"):
        words.append(f"{config['imbalance']} imbalance {config['imbalance_ratio']:g}:1")
    noise = config.get("label_noise") or 0
    if noise:
        words.append("random labels" if noise == 1 else f"{100 * noise:g} % label noise")
    return words


def head_words(config: Mapping[str, Any]) -> list[str]:
    """The last layer: `fixed ETF head`."""
    name = config.get("head", "linear")
    if name == "linear":
        return []
    temperature = config.get("temperature")
    return [f"{heads.get(name).title} head" + ("" if temperature is None else f" (τ = {temperature:g})")]


def optimizer_words(config: Mapping[str, Any]) -> list[str]:
    """The optimiser, with its own weight decay, which is not the λ of every one: `AdamW (decay 0.01)`."""
    name = config.get("optimizer", "sgd")
    return [] if name == "sgd" else [f"{optimizers.get(name).title} (decay {config['weight_decay']:g})"]


def protocol_words(config: Mapping[str, Any]) -> list[str]:
    """In what the training is not the paper's SGD: `rate 0.01`, `decay 0.005`, `batch 64`, `milestones 0.6 0.85`.

    The paper's rates were tuned for each of its cells, so a rate is compared in those only; the rest of its protocol is
    the same everywhere. The decay of another optimiser than SGD is among `optimizer_words`.
    """
    dataset, model, loss = config["dataset"], config["model"], config["loss"]
    if loss not in losses.LOSSES:  # of a later version
        return []
    tuned = dataset in protocol.DATASETS and protocol.family(model) in protocol.NETWORKS
    paper = protocol.recipe(dataset if tuned else protocol.DATASETS[0], model, loss, config.get("num_classes", 10))
    words = []
    if tuned and _differ(config.get("learning_rate"), paper.learning_rate):
        words.append(f"rate {config['learning_rate']:.3g}")
    if config.get("optimizer", "sgd") == "sgd" and _differ(config.get("weight_decay"), paper.weight_decay):
        words.append(f"decay {config['weight_decay']:.3g}")
    if _differ(config.get("momentum"), paper.momentum):
        words.append(f"momentum {config['momentum']:g}")
    if _differ(config.get("batch_size"), paper.batch_size):
        words.append(f"batch {config['batch_size']}")
    shares = config.get("milestones")
    if shares is not None and _last_epochs(shares) != _last_epochs(paper.milestones):
        words.append(" ".join(["milestones", *(f"{share:.3g}" for share in shares)]) if shares else "no milestones")
    return words


def _differ(value: float | None, paper: float) -> bool:
    """Whether a number is there and another one; the last digits of a converted rate do not count."""
    return value is not None and not math.isclose(value, paper, rel_tol=1e-6)


def _last_epochs(shares: Sequence[float]) -> tuple[int, ...]:
    """0.333 of the paper's 350 epochs is the same epoch as 1/3."""
    return protocol.milestone_epochs(tuple(shares), 350)
