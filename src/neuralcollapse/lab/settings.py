"""What a user can ask for, and the complete configuration of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch

from neuralcollapse._checks import InputError
from neuralcollapse.lab import hardware, losses, protocol
from neuralcollapse.lab.datasets import Dataset
from neuralcollapse.lab.robustness import robustness_subset

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What to train on what, and how; whatever is left out follows the recipe of `protocol`."""

    dataset: str | None = None
    """digits (the default), mnist, fashion-mnist, cifar10, svhn, stl10, or folder / npz with --data-dir."""
    data_dir: Path | None = None
    """Where the data lie; see `neuralcollapse data` for what is found without it."""
    examples_per_class: int | None = None
    """Train on this many examples of each class; by default as many as the paper."""
    model: str | None = None
    """resnet18, vgg11, densenet40, mlp, torchvision:NAME, timm:NAME, …; by default resnet at the paper's depth."""
    width: float | None = None
    """Factor on the network's width; 1 is the published network, digits take 0.25."""
    loss: Literal["mse", "mse-torch", "ce"] | None = None
    """mse: the paper's, half the mean squared distance (default); mse-torch: PyTorch's MSELoss; ce: cross-entropy."""
    epochs: int | None = None
    """Passes over the training set."""
    batch_size: int | None = None
    """Examples a step, over all devices together."""
    learning_rate: float | None = None
    """SGD's rate at the start; divided by ten at the milestones."""
    momentum: float | None = None
    """SGD's momentum."""
    weight_decay: float | None = None
    """SGD's weight decay, on all parameters."""
    milestones: tuple[float, ...] | None = None
    """Shares of the epochs after which the rate is divided by ten; by default the recipe's, 1/3 and 2/3."""
    seed: int | None = None
    """Decides initial weights, subsample and order of the examples (default 0)."""
    precision: Literal["auto", "32", "bf16"] | None = None
    """Training arithmetic; auto takes bf16 where the processor multiplies it natively. Measuring is in float32."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """auto takes a CUDA device where there is one."""
    devices: int | None = None
    """Number of devices, one process each."""
    robustness_examples: int | None = None
    """Measure adversarial robustness too, by DeepFool on this many test images; 0, the default, leaves it out."""


@dataclass(frozen=True)
class RunConfig:
    """Every setting that decides the numbers of a run; the content of `config.json`."""

    dataset: str
    dataset_title: str
    data_dir: str | None
    examples_per_class: int | None
    num_examples: int
    num_test_examples: int
    num_classes: int
    class_names: tuple[str, ...]
    model: str
    width: float
    loss: str
    loss_title: str
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    measured_weight_decay: float
    milestones: tuple[float, ...]
    seed: int
    precision: str
    device: str
    devices: int
    robustness_examples: int


def configure(settings: Settings, data: Dataset, examples_per_class: int | None) -> RunConfig:
    """Fill in what the settings leave open: the recipe, the device, the precision."""
    num_classes = len(data.class_names)
    loss = losses.get(settings.loss or "mse")
    model = protocol.network(data.name, settings.model or "resnet")
    recipe = protocol.recipe(data.name, model, loss.name, num_classes)
    device = hardware.choose_device(settings.device or "auto")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but PyTorch sees no CUDA device here; use --device cpu")
    precision = settings.precision or "auto"
    if precision == "auto":
        precision = "bf16" if hardware.native_bf16(device) else "32"
    if settings.robustness_examples:
        robustness_subset(data.test, settings.robustness_examples)  # too many are refused before anything is written
    epochs = _given(settings.epochs, recipe.epochs)
    weight_decay = _given(settings.weight_decay, recipe.weight_decay)
    return RunConfig(
        dataset=data.name,
        dataset_title=data.title,
        data_dir=str(settings.data_dir.expanduser().resolve()) if settings.data_dir else None,
        examples_per_class=examples_per_class,
        num_examples=len(data.train.labels),
        num_test_examples=len(data.test.labels),
        num_classes=num_classes,
        class_names=tuple(data.class_names),
        model=model,
        width=_given(settings.width, 1.0 if ":" in model else recipe.width),  # another package's comes in its own
        loss=loss.name,
        loss_title=loss.title,
        epochs=epochs,
        batch_size=_given(settings.batch_size, recipe.batch_size),
        learning_rate=_given(settings.learning_rate, recipe.learning_rate),
        momentum=_given(settings.momentum, recipe.momentum),
        weight_decay=weight_decay,
        measured_weight_decay=loss.measured_weight_decay(weight_decay, num_classes),
        milestones=_given(settings.milestones, recipe.milestones),
        seed=settings.seed or 0,
        precision=precision,
        device=device,
        devices=_given(settings.devices, 1),
        robustness_examples=_given(settings.robustness_examples, 0),
    )


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def check(settings: Settings) -> None:
    """Refuse numbers no training can use, each by name."""
    for name in ("epochs", "batch_size", "examples_per_class", "devices"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    for name in ("learning_rate", "width"):
        value = getattr(settings, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise InputError(f"--{name.replace('_', '-')} must be a positive number, got {value}")
    if settings.momentum is not None and not 0 <= settings.momentum < 1:
        raise InputError(f"--momentum must be at least 0 and below 1, got {settings.momentum}")
    if settings.weight_decay is not None and not 0 <= settings.weight_decay < math.inf:
        raise InputError(f"--weight-decay must be at least 0, got {settings.weight_decay}")
    if settings.milestones is not None:
        ordered = sorted(settings.milestones) == list(settings.milestones)
        if not ordered or not all(0 < share < 1 for share in settings.milestones):
            raise InputError(f"--milestones must be rising shares between 0 and 1, got {settings.milestones}")
    if settings.robustness_examples is not None and settings.robustness_examples < 0:
        raise InputError(f"--robustness-examples must be at least 0, got {settings.robustness_examples}")
    if settings.seed is not None and not 0 <= settings.seed < 2**63:
        raise InputError(f"--seed must be at least 0, got {settings.seed}")
