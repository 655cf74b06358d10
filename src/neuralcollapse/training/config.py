"""What a user can ask for, and the complete configuration of a run."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from neuralcollapse._checks import InputError
from neuralcollapse._files import shortened
from neuralcollapse.data import Corruption, Dataset
from neuralcollapse.data.corruption import DEFAULT_RATIO, ImbalanceName
from neuralcollapse.networks import heads
from neuralcollapse.networks.heads import HeadName
from neuralcollapse.training import hardware, losses, optimizers, protocol
from neuralcollapse.training.losses import LossName
from neuralcollapse.training.optimizers import OptimizerName
from neuralcollapse.training.robustness import robustness_subset

T = TypeVar("T")
LARGEST = 10**9
"""Of what is counted: epochs, examples, devices. More of them no run can have."""


@dataclass(frozen=True)
class Settings:
    """What to train on what, and how; whatever is left out follows the recipe of `protocol`."""

    dataset: str | None = None
    """digits (the default), mnist, fashion-mnist, cifar10, cifar100, svhn, stl10, or folder / npz with --data-dir."""
    data_dir: Path | None = None
    """Where the data lie; see `neuralcollapse data` for what is found without it."""
    examples_per_class: int | None = None
    """Train on this many examples of each class; by default as many as the paper."""
    imbalance: ImbalanceName | None = None
    """Unbalance the training classes: step, half of them small; exponential, each smaller than the one before."""
    imbalance_ratio: float | None = None
    """Examples of the largest class over those of the smallest (default 100)."""
    label_noise: float | None = None
    """Share of training labels changed to another class; 1 draws them all at random. Measured are these labels."""
    test_examples_per_class: int | None = None
    """Test on this many examples of each class; by default on all."""
    model: str | None = None
    """resnet18, vgg11, densenet40, mlp, torchvision:NAME, timm:NAME, …; by default resnet at the paper's depth."""
    width: float | None = None
    """Factor on the network's width; 1 is the published network, digits take 0.25."""
    head: HeadName | None = None
    """Last layer. linear: as the network has it (default); no-bias; etf: fixed simplex; normalised: cosines."""
    temperature: float | None = None
    """Of the normalised head; by default 0.1, or 1 / target with squared error."""
    loss: LossName | None = None
    """mse: the paper's (default); mse-torch: PyTorch's mean; rescaled-mse: for many classes; ce: cross-entropy; …"""
    rescale: float | None = None
    """k of rescaled-mse, weight of the true class; by default 1, from 1000 classes 15 (Hui & Belkin, 2021)."""
    target: float | None = None
    """M of rescaled-mse, output wanted of the true class; by default 1, from 11 classes 15, from 1000 classes 30."""
    focal_gamma: float | None = None
    """γ of focal (default 2, Lin et al., 2017)."""
    smoothing: float | None = None
    """ε of label-smoothing (default 0.1, Szegedy et al., 2016)."""
    optimizer: OptimizerName | None = None
    """sgd (default) and adam add the decay to the gradient, sgdw and adamw keep it apart; lbfgs: full batches."""
    epochs: int | None = None
    """Passes over the training set."""
    batch_size: int | None = None
    """Examples a step, over all devices together; for lbfgs by default all, up to 4096."""
    learning_rate: float | None = None
    """The rate before the milestones; by default the recipe's, for adam and adamw 1e-3, for lbfgs 1."""
    momentum: float | None = None
    """SGD's momentum, Adam's first β."""
    weight_decay: float | None = None
    """On all trained parameters; by default the recipe's, for sgdw 1 / (1 - momentum) times that, for adamw 0.01."""
    milestones: tuple[float, ...] | None = None
    """Shares of the epochs after which the rate is divided by ten; by default 1/3 and 2/3, for lbfgs none."""
    seed: int | None = None
    """Decides initial weights, subsample and order of the examples (default 0)."""
    precision: Literal["auto", "32", "64", "bf16"] | None = None
    """Training arithmetic; auto takes bf16 where the processor multiplies it natively. Measuring is in float32, and in
    float64 with 64, which is for comparing runs: in shorter formats rounding soon decides which units are rectified."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """auto takes a CUDA device where there is one."""
    devices: int | None = None
    """Number of devices, one process each."""
    robustness_examples: int | None = None
    """Measure adversarial robustness too, by DeepFool on this many test images; 0, the default, leaves it out."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Every setting that decides the numbers of a run; the content of `config.json`.

    A field with a default came later: an older `config.json` without it means the default.
    """

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
    imbalance: str | None = None
    imbalance_ratio: float | None = None
    label_noise: float = 0.0
    head: str = "linear"
    temperature: float | None = None
    rescale: float | None = None
    target: float | None = None
    focal_gamma: float | None = None
    smoothing: float | None = None
    optimizer: str = "sgd"
    robustness_examples: int = 0
    test_examples_per_class: int | None = None
    data_sha256: str | None = None
    """`datasets.fingerprint` of the data, in a run directory; None where an older run did not record it."""


LATER_FIELDS: dict[str, Any] = {
    field.name: field.default for field in fields(RunConfig) if field.default is not MISSING
}
"""What a configuration without these fields means."""


def configure(settings: Settings, data: Dataset, examples_per_class: int | None) -> RunConfig:
    """Fill in what the settings leave open: the recipe, the device, the precision.

    Raises:
        InputError: an unknown name, or a setting that the chosen loss, head or optimiser has no use for.
    """
    num_classes = len(data.class_names)
    loss = losses.get(settings.loss or "mse")
    values = losses.parameters(loss.name, settings, num_classes)
    head, optimizer = heads.get(settings.head or "linear"), optimizers.get(settings.optimizer or "sgd")
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
    momentum = _given(settings.momentum, recipe.momentum if optimizer.has_momentum else 0.0)
    if momentum and not optimizer.has_momentum:
        raise InputError(f"--momentum {momentum:g} has no use with --optimizer {optimizer.name}; leave it out")
    weight_decay = _given(settings.weight_decay, optimizer.weight_decay(recipe.weight_decay, momentum))
    milestones = recipe.milestones if optimizer.milestones is None else optimizer.milestones
    batch_size = recipe.batch_size
    if optimizer.full_batch:
        batch_size = min(len(data.train.labels), optimizers.LARGEST_FULL_BATCH)
    wrong = corruption(settings)
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
        loss_title=losses.title(loss.name, values),
        epochs=epochs,
        batch_size=_given(settings.batch_size, batch_size),
        learning_rate=_given(settings.learning_rate, _given(optimizer.learning_rate, recipe.learning_rate)),
        momentum=momentum,
        weight_decay=weight_decay,
        measured_weight_decay=loss.measured_weight_decay(optimizer.penalty(weight_decay, momentum), num_classes),
        milestones=_given(settings.milestones, milestones),
        seed=settings.seed or 0,
        precision=precision,
        device=device,
        devices=_given(settings.devices, 1),
        imbalance=wrong.imbalance,
        imbalance_ratio=wrong.imbalance_ratio if wrong.imbalance else None,
        label_noise=wrong.label_noise,
        head=head.name,
        temperature=_temperature(settings, head, 1.0 if loss.bounded else None, values["target"]),
        optimizer=optimizer.name,
        robustness_examples=_given(settings.robustness_examples, 0),
        test_examples_per_class=settings.test_examples_per_class,
        **values,  # type: ignore[arg-type]
    )


def corruption(settings: Settings) -> Corruption:
    """What is done to the training half.

    Raises:
        InputError: an unknown imbalance, a number no share or ratio can be, or a ratio without an imbalance.
    """
    if settings.imbalance_ratio is not None and settings.imbalance is None:
        raise InputError(f"--imbalance-ratio {settings.imbalance_ratio:g} needs --imbalance step or exponential")
    return Corruption(settings.imbalance, _given(settings.imbalance_ratio, DEFAULT_RATIO), settings.label_noise or 0.0)


def _temperature(settings: Settings, head: heads.Head, usual: float | None, target: float | None) -> float | None:
    if not head.has_temperature:
        if settings.temperature is not None:
            raise InputError(f"--temperature {settings.temperature:g} belongs to --head normalised; leave it out")
        return None
    return _given(settings.temperature, heads.default_temperature(_given(target, usual)))


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def check(settings: Settings) -> None:
    """Refuse numbers no training can use, each by name."""
    for name in ("epochs", "batch_size", "examples_per_class", "test_examples_per_class", "devices"):
        value = getattr(settings, name)
        if value is not None and not 1 <= value <= LARGEST:
            raise _wrong(name, f"at least 1 and at most {LARGEST:,}", value)
    for name in ("learning_rate", "width", "temperature"):
        value = getattr(settings, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise _wrong(name, "a positive number", value)
    for name in ("rescale", "target", "focal_gamma", "smoothing", "imbalance_ratio", "label_noise"):
        value = getattr(settings, name)
        if value is not None and not math.isfinite(value):
            raise _wrong(name, "a finite number", value)
    if settings.momentum is not None and not 0 <= settings.momentum < 1:
        raise _wrong("momentum", "at least 0 and below 1", settings.momentum)
    if settings.weight_decay is not None and not 0 <= settings.weight_decay < math.inf:
        raise _wrong("weight_decay", "at least 0", settings.weight_decay)
    if settings.milestones is not None:
        ordered = sorted(settings.milestones) == list(settings.milestones)
        if not ordered or not all(0 < share < 1 for share in settings.milestones):
            raise _wrong("milestones", "rising shares between 0 and 1", settings.milestones)
    if settings.robustness_examples is not None and not 0 <= settings.robustness_examples <= LARGEST:
        raise _wrong("robustness_examples", f"at least 0 and at most {LARGEST:,}", settings.robustness_examples)
    if settings.seed is not None and not 0 <= settings.seed < 2**63:
        raise _wrong("seed", "at least 0 and below 2**63", settings.seed)


def _wrong(name: str, expected: str, value: object) -> InputError:
    return InputError(f"--{name.replace('_', '-')} must be {expected}, got {shortened(value)}")
