"""The options of a run in words, for figures and the terminal; empty for what the paper does, and for older runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuralcollapse.lab import heads, optimizers


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
