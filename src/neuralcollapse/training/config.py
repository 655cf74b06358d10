"""What a user can set, and the complete configuration of a run: two types, from the command line to `config.json`.

`TrainingConfig` holds the settings that were given and None for the others. `resolve.resolve` fills those in from the
recipe of the data set and makes a `RunConfig`, which is what `config.json` contains. Everything the program knows about
a setting stands at its field: its type and range, in `Option` its label, unit and part in the names of run directories
and whether it changes the cost of a training step, and under it the help text of the command line. PyTorch is not
imported here, so that the command line can show its help at once.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Le, Lt, MaxLen

from neuralcollapse._errors import InputError, suggest
from neuralcollapse._files import shortened, validated
from neuralcollapse.measuring.added_later import ADDED_LATER
from neuralcollapse.networks.heads import HEADS
from neuralcollapse.training.losses import LOSSES
from neuralcollapse.training.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    LossName = str
    HeadName = str
    OptimizerName = str
else:  # the choices of the command line
    LossName, HeadName = Literal[tuple(LOSSES)], Literal[tuple(HEADS)]
    OptimizerName = Literal[tuple(OPTIMIZERS)]

Group = Literal["subject", "training", "measuring", "machine"]

Count = Annotated[int, Ge(1), Le(10**9)]
Images = Annotated[int, Ge(0), Le(10**9)]
Seed = Annotated[int, Ge(0), Lt(2**63)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
BelowOne = Annotated[float, Ge(0), Lt(1)]
Precision = Literal["auto", "32", "64", "bf16"]
Statistics = Literal["running", "re-estimated", "both"]
Name = Annotated[str, MaxLen(300)]
Milestones = tuple[Annotated[float, Gt(0), Lt(1)], ...]


@dataclass(frozen=True)
class Option:
    """What the program knows about a setting beside its type and its help text, the text under the field.

    Args:
        label: what figures call it; by default the name of the field with spaces.
        unit: of its values, where there is one.
        short: its prefix in names of run directories ("" for the value alone); None leaves it out of names.
        group: "subject" for data set, network, loss and seed; "training" for the settings of the training; "measuring"
            for what is measured beside the training set; "machine" for the folder of the data and the devices.
        changes_cost: whether the time or the memory of a training step depends on it.
        section: the heading that the help lists it under; by default "Measuring" or "Where it runs" for those groups,
            else "Optimisation".
    """

    label: str = ""
    unit: str = ""
    short: str | None = None
    group: Group = "training"
    changes_cost: bool = False
    section: str = ""


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of a run; those left out follow the recipe of the data set."""

    # the order of the fields is that of the parts of a run directory's name
    __pydantic_config__: ClassVar[dict[str, Any]] = {"strict": True, "allow_inf_nan": False}

    dataset: Annotated[Name | None, Option(label="data set", group="subject", section="Data")] = None
    """digits (default), mnist, fashion-mnist, cifar10, cifar100, svhn, stl10, or folder / npz with --data-dir."""
    data_dir: Annotated[Path | None, Option(group="machine", section="Data")] = None
    """Folder of the data (default: the places that `neuralcollapse data` names)."""
    imbalance: Annotated[Literal["step", "exponential"] | None, Option(short="", section="Data")] = None
    """Make training classes unequal (default: as they come). step: half of them small; exponential: each smaller than
    the one before."""
    imbalance_ratio: Annotated[Annotated[float, Ge(1)] | None, Option(short="ratio", section="Data")] = None
    """Examples of the largest class over those of the smallest (default 100)."""
    label_noise: Annotated[Annotated[float, Ge(0), Le(1)] | None, Option(short="noise", section="Data")] = None
    """Share of training labels changed to another class; 1 draws all at random (default 0). NC is measured
    with the changed labels."""
    downsample: Annotated[
        Count | None, Option(unit="pixels a block side", short="down", changes_cost=True, section="Data")
    ] = None
    """Average blocks of this many pixels by as many: smaller images, a cheaper network (default 1: images as they
    come)."""
    model: Annotated[Name | None, Option(label="network", group="subject", changes_cost=True, section="Network")] = None
    """resnet18, vgg11, densenet40, mlp, torchvision:NAME, timm:NAME, … (default: resnet at the paper's depth for the
    data)."""
    head: Annotated[HeadName | None, Option(short="", changes_cost=True, section="Network")] = None
    """Last layer. linear: the network's own (default); no-bias; etf: a fixed simplex frame; nearest-etf: the one
    nearest to the class means; normalised: cosines."""
    temperature: Annotated[Positive | None, Option(short="t", section="Network")] = None
    """Temperature of the normalised head (default 0.1, or 1 / target with squared error)."""
    loss: Annotated[LossName | None, Option(group="subject")] = None
    """mse: the paper's (default); mse-torch: PyTorch's mean; ce: cross-entropy; rescaled-mse: for many classes; …"""
    rescale: Annotated[Positive | None, Option(label="rescaling k", short="k")] = None
    """k of rescaled-mse, the weight of the true class (default 1, from 1000 classes 15; Hui & Belkin, 2021)."""
    target: Annotated[Positive | None, Option(label="target M", short="m")] = None
    """M of rescaled-mse, the true class's target output (default 1, from 11 classes 15, from 1000 classes 30)."""
    focal_gamma: Annotated[NonNegative | None, Option(short="gamma")] = None
    """γ of focal (default 2; Lin et al., 2017)."""
    smoothing: Annotated[BelowOne | None, Option(short="eps")] = None
    """ε of label-smoothing (default 0.1; Szegedy et al., 2016)."""
    optimizer: Annotated[OptimizerName | None, Option(short="", changes_cost=True)] = None
    """sgd (default) and adam add the decay to the gradient, sgdw and adamw keep it apart; lbfgs: full batches."""
    width: Annotated[
        Positive | None, Option(unit="× the published network", short="w", changes_cost=True, section="Network")
    ] = None
    """Factor on the network's width (default 1, the published network; 0.125 for digits)."""
    examples_per_class: Annotated[Count | None, Option(short="n", section="Data")] = None
    """Train on this many examples of each class (default: as many as the paper)."""
    test_examples_per_class: Annotated[Count | None, Option(short="test", group="measuring", section="Data")] = None
    """Test on this many examples of each class (default: all)."""
    epochs: Annotated[Count | None, Option(unit="epochs", short="e")] = None
    """Passes over the training set (default 350; 600 for digits)."""
    batch_size: Annotated[Count | None, Option(unit="examples", short="b", changes_cost=True)] = None
    """Examples a step, over all devices together (default 128; for lbfgs all, up to 4096)."""
    learning_rate: Annotated[Positive | None, Option(short="lr")] = None
    """Learning rate before the milestones (default: the paper's for data, network and loss;
    0.00375 for digits with mse; 1e-3 for adam and adamw, 1 for lbfgs)."""
    momentum: Annotated[BelowOne | None, Option(short="mom")] = None
    """SGD's momentum, Adam's first β (default 0.9)."""
    weight_decay: Annotated[NonNegative | None, Option(short="wd")] = None
    """On all trained parameters (default 5e-4 on PyTorch's losses, C/2 times that for mse, 0.01 for digits with mse;
    for sgdw 1 / (1 - momentum) times that, for adamw 0.01)."""
    classifier_decay: Annotated[NonNegative | None, Option(short="cwd")] = None
    """Weight decay on the last layer's W and b instead (default: as elsewhere). It is the λ of the measured loss."""
    bias_norm_decay: Annotated[NonNegative | None, Option(label="bias and norm decay", short="bnwd")] = None
    """Weight decay on the biases and the normalisation of the other layers instead (default: as elsewhere)."""
    feature_decay: Annotated[NonNegative | None, Option(short="hwd")] = None
    """λ_H of (λ_H/2) Ave ‖h‖², added to the loss, h being the last layer's input (default 0; Zhu et al., 2021)."""
    milestones: Annotated[Milestones | None, Option(short="at")] = None
    """Shares of the epochs after which the learning rate is divided by ten (default 1/3 2/3; 0.75 0.9 for digits; none
    for lbfgs)."""
    seed: Annotated[Seed | None, Option(short="s", group="subject")] = None
    """Decides the initial weights, the choice and the order of the training examples (default 0)."""
    precision: Annotated[Precision | None, Option(short="p", group="machine", changes_cost=True)] = None
    """Arithmetic of training (default auto: bf16 where the processor multiplies it natively, else float32). Measuring
    is in float32, and in float64 with 64, which is for comparing runs: in shorter formats rounding soon decides which
    units are rectified."""
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, Option(group="machine", changes_cost=True)] = None
    """auto (default) takes a CUDA device where there is one."""
    devices: Annotated[Count | None, Option(short="d", group="machine", changes_cost=True)] = None
    """Number of devices, with one process each (default 1)."""
    robustness_examples: Annotated[Images | None, Option("", "images", "r", "measuring", changes_cost=True)] = None
    """Measure adversarial robustness too, by DeepFool on this many test images (default 0: not)."""
    batch_norm_statistics: Annotated[Statistics | None, Option(short="bn", group="measuring")] = None
    """What batch normalisation uses while the network is measured. running: its running averages, as the paper
    (default); re-estimated: averages over a pass of training batches with the weights as they are; both: the numbers of
    running averages, and beside them `re_estimated.nc1`, `re_estimated.mse.ls_perp` and so on; robustness, which takes
    long, with running averages alone."""
    notebook_weight_decay: Annotated[bool | None, Option(short="notebook", group="measuring")] = None
    """Measure the loss also with λ as in the authors' notebook, `notebook.mse.total` and so on (default: not). λ is
    then w/2, where training on PyTorch's MSELoss with weight decay w means λ = C w/2, and on cross-entropy λ = w."""

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], where: object) -> Self:
        """Read settings, as JSON or YAML holds them.

        Args:
            entry: values by name of the setting.
            where: names the source in errors; "" for options of the command line.

        Raises:
            InputError: an unknown setting, a missing one, or a value of another type or out of range.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for name in entry:
            if name not in known:
                unknown = f"{shortened(name)!r}{suggest(name, known)}"
                raise InputError(f"{where}: unknown setting {unknown}; expected some of {', '.join(known)}")
        return validated(cls, json.dumps(entry, default=str).encode(), str(where))

    def to_json(self) -> dict[str, Any]:
        """The settings that are given, as JSON holds them."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in self.given().items()}

    def check(self) -> None:
        """Raise InputError for a value of another type or out of range, named as an option of the command line."""
        TrainingConfig.from_json(self.to_json(), "")

    def given(self) -> dict[str, Any]:
        """The settings that are not left open, by name."""
        return {f.name: value for f in dataclasses.fields(self) if (value := getattr(self, f.name)) is not None}

    def filled(self, other: TrainingConfig) -> Self:
        """These settings; those left open are taken from the other ones."""
        return dataclasses.replace(self, **{**other.given(), **self.given()})

    def name_parts(self) -> list[str]:
        """The given settings as parts of a run directory's name, such as `w0.25` and `e20`."""
        parts = []
        for name, value in self.given().items():
            if (short := OPTIONS[name].short) is not None and value != "auto" and value is not False:
                items = value if isinstance(value, tuple) else (value,)
                texts = (f"{each:g}" if isinstance(each, float) else str(each) for each in items)
                parts.append(short if value is True else short + "+".join(texts))
        return parts


@dataclass(frozen=True, kw_only=True)
class RunConfig(TrainingConfig):
    """Every setting that decides the numbers of a run, none left open, with what the data say: `config.json`.

    A setting with a default was added by a later version; an older `config.json` without it means the default, which
    stands in `measuring.added_later`, or None. Names of losses, heads and optimizers are any text: a run of a later
    version can be read, though not continued.
    """

    # field() takes the default of TrainingConfig away: these must be given
    dataset: Name = field()
    model: Name = field()
    loss: Name = field()
    width: Positive = field()
    epochs: Count = field()
    batch_size: Count = field()
    learning_rate: Positive = field()
    momentum: float = field()
    weight_decay: float = field()
    milestones: Milestones = field()
    seed: Seed = field()
    precision: Literal["32", "64", "bf16"] = field()
    device: Literal["cpu", "cuda"] = field()
    devices: Count = field()
    dataset_title: Name
    """What figures and tables call the data set."""
    num_examples: Count
    num_test_examples: Count
    num_classes: Annotated[Count, Option(changes_cost=True)]
    class_names: tuple[str, ...]
    loss_title: Name
    """What figures and tables call the loss."""
    measured_weight_decay: float
    """λ at which the paper's loss is decomposed; see `losses`."""
    label_noise: float = ADDED_LATER["label_noise"]
    downsample: Count = ADDED_LATER["downsample"]
    head: Name = ADDED_LATER["head"]
    optimizer: Name = ADDED_LATER["optimizer"]
    robustness_examples: Images = ADDED_LATER["robustness_examples"]
    batch_norm_statistics: Statistics = ADDED_LATER["batch_norm_statistics"]
    notebook_weight_decay: bool = ADDED_LATER["notebook_weight_decay"]
    data_sha256: Name | None = None
    """`data.fingerprint` of the data; an older run has None."""

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], where: object) -> Self:
        """Read the content of `config.json`; see `TrainingConfig.from_json`."""
        absent = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in entry]
        if entry.get("imbalance") and entry.get("imbalance_ratio") is None:
            absent.append("imbalance_ratio")
        if absent:
            raise InputError(f"{where} has no {absent[0]!r}, so it is not a complete configuration; restore the file")
        return super().from_json(entry, where)

    def to_json(self) -> dict[str, Any]:
        """All settings, as JSON holds them."""
        return {**dict.fromkeys(f.name for f in dataclasses.fields(self)), **super().to_json()}

    def data_description(self) -> list[str]:
        """How the training set was changed, such as `step imbalance 100:1` and `20 % label noise`."""
        changes = [f"{self.imbalance} imbalance {self.imbalance_ratio:g}:1"] if self.imbalance else []
        if self.label_noise:
            changes.append("random labels" if self.label_noise == 1 else f"{100 * self.label_noise:g} % label noise")
        return changes

    def image_description(self) -> list[str]:
        """The images where they were made smaller: `images of 1/2 the side`."""
        return [f"images of 1/{self.downsample} the side"] if self.downsample > 1 else []

    def head_description(self) -> list[str]:
        """The last layer where it is not the network's own, such as `fixed ETF head`."""
        if self.head == "linear":
            return []
        title = HEADS[self.head].title if self.head in HEADS else self.head
        return [f"{title} head" + ("" if self.temperature is None else f" (τ = {self.temperature:g})")]

    def optimizer_description(self) -> list[str]:
        """The optimizer where it is not SGD, with its own weight decay, such as `AdamW (decay 0.01)`."""
        if self.optimizer == "sgd":
            return []
        title = OPTIMIZERS[self.optimizer].title if self.optimizer in OPTIMIZERS else self.optimizer
        return [f"{title} (decay {self.weight_decay:g})"]

    def decay_description(self) -> list[str]:
        """The decays of their own, such as `classifier decay 0.01` and `feature decay 0.001`."""
        given = {name: getattr(self, name) for name in ("classifier_decay", "bias_norm_decay", "feature_decay")}
        return [f"{OPTIONS[name].label} {value:g}" for name, value in given.items() if value is not None]

    def changes(self) -> list[str]:
        """In what the data, the last layer, the optimizer and the decays are not the paper's, as captions say it."""
        own_parts = self.head_description() + self.optimizer_description() + self.decay_description()
        return self.data_description() + own_parts


_SECTIONS = {"measuring": "Measuring", "machine": "Where it runs"}


def _read_options() -> dict[str, Option]:
    found: dict[str, Option] = {}
    for cls in (RunConfig, TrainingConfig):  # where both have a field, what is known of it stands in TrainingConfig
        for name, hint in typing.get_type_hints(cls, include_extras=True).items():
            if not name.startswith("_"):
                given = [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Option)]
                option = given[0] if given else Option()
                label = option.label or name.replace("_", " ")
                section = option.section or _SECTIONS.get(option.group, "Optimisation")
                found[name] = dataclasses.replace(option, label=label, section=section)
    return found


OPTIONS: dict[str, Option] = _read_options()
"""What is known about each setting, by the name of its field."""


def settings_in(group: Group) -> tuple[str, ...]:
    """The settings of one group."""
    return tuple(f.name for f in dataclasses.fields(TrainingConfig) if OPTIONS[f.name].group == group)


def numeric_settings() -> dict[str, type[int] | type[float]]:
    """The settings of the training that are a number, which a sweep can vary, and whether they are whole numbers."""
    hints = typing.get_type_hints(TrainingConfig)
    kinds = {name: set(typing.get_args(hints[name])) for name in settings_in("training")}
    return {name: kind for name, found in kinds.items() for kind in (int, float) if found == {kind, types.NoneType}}
