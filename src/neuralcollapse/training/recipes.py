"""Recipes: settings that fill in what a user leaves open, the paper's own and those in files.

The paper's protocol (its appendix on the experiments) is SGD with momentum 0.9, weight decay 5e-4, batches of 128, 350
epochs, the learning rate divided by ten at 1/3 and 2/3, no augmentation. The tuned rates are those of PyTorch's
`MSELoss`. The paper's own loss is C/2 times that, so that 2/C of the rate and C/2 of the weight decay give the same
steps. `digits`, the demo, has a shorter recipe of its own.

A recipe in a file is a JSON or YAML object of settings, named as the options of `run` with `_` for `-`, or a list of
them. One that gives a data set, model, loss or seed is for such runs only. "about" is a remark for readers. `sweep`
writes such a file; `run --recipe` and `grid --recipe` read it.

    {"about": "chosen by …", "dataset": "mnist", "model": "vgg11", "loss": "mse", "learning_rate": 0.0051}
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuralcollapse._errors import InputError
from neuralcollapse._files import read_any_json, read_text, shortened, write_json
from neuralcollapse.training.config import RunConfig, TrainingConfig, settings_in
from neuralcollapse.training.losses import LOSSES

MEASURED_EPOCHS = (
    *range(1, 15), 16, 17, 19, 20, 22, 24, 27, 29, 32, 35, 38, 42, 45, 50, 54, 59, 65, 71, 77, 85, 92, 101, 110, 121,
    132, 144, 158, 172, 188, 206, 225, 245, 268, 293, 320, 350,
)  # fmt: skip
_RATIO = 1.092
"""Of neighbours at the end of the list: 293/268, 320/293, 350/320."""

EXAMPLES_PER_CLASS = {"mnist": 5000, "svhn": 4600}
"""Balanced by subsampling; the other data sets are balanced as they come."""

_WEIGHT_DECAY = 5e-4
_CROSS_ENTROPY_RATE = 0.0679

# depth and tuned MSELoss rate of each cell
_CELLS = {
    "mnist": {"vgg": (11, 0.025519618), "resnet": (18, 0.018420157), "densenet": (40, 0.025519618)},
    "fashion-mnist": {"vgg": (11, 0.018420157), "resnet": (18, 0.094015077), "densenet": (250, 0.009596916)},
    "svhn": {"vgg": (13, 0.018420157), "resnet": (34, 0.009596916), "densenet": (40, 0.013295740)},
    "cifar10": {"vgg": (11, 0.025519618), "resnet": (50, 0.009596916), "densenet": (100, 0.048981924)},
    "stl10": {"vgg": (11, 0.018420157), "resnet": (18, 0.067860440), "densenet": (201, 0.001880302)},
}
PAPER_DATASETS, PAPER_FAMILIES = tuple(_CELLS), tuple(_CELLS["mnist"])
"""The study: five data sets by three networks."""


def paper_recipe(dataset: str, model: str, loss: str, num_classes: int = 10) -> TrainingConfig:
    """The paper's settings for a data set, a network and a loss, trained by SGD.

    Args:
        dataset: registry name; one the paper does not use takes MNIST's rates.
        model: a network; of a family the paper does not use, it takes ResNet's rate.
        loss: a name of `losses.LOSSES`.
        num_classes: C of the conversion between the two squared-error losses.

    Raises:
        InputError: the loss is unknown.
    """
    if dataset == "digits":
        # A demo of a minute in the paper's regime: its rate per example, η/B = 2.9e-5 as on MNIST with ResNet18, and a
        # narrow network. λ is four times the paper's, to bring the terminal phase within 600 epochs of twelve steps.
        rate, decay = _for_loss(loss, rate=0.01875, weight_decay=2e-3, num_classes=num_classes)  # mse: 0.00375 and 1e-2
        epochs, milestones, width = 600, (0.75, 0.9), 0.125
    else:
        cells = _CELLS.get(dataset, _CELLS["mnist"])
        _, tuned = cells.get(family(model), cells["resnet"])
        rate, decay = _for_loss(loss, rate=tuned, weight_decay=_WEIGHT_DECAY, num_classes=num_classes)
        epochs, milestones, width = 350, (1 / 3, 2 / 3), 1.0
    return TrainingConfig(
        epochs=epochs,
        batch_size=128,
        learning_rate=rate,
        momentum=0.9,
        weight_decay=decay,
        milestones=milestones,
        width=1.0 if ":" in model else width,  # another package's network comes in its own width
    )


def network_for(dataset: str, model: str) -> str:
    """The network meant by `model`: a family alone ("resnet") becomes the depth the paper uses on that data set."""
    cells = _CELLS.get(dataset, _CELLS["mnist"])
    return f"{model}{cells[model][0]}" if model in cells else model


def family(model: str) -> str:
    """The name without its depth: `resnet` for `resnet18` and for `torchvision:resnet18`."""
    return re.split(r"[\d_]", model.rpartition(":")[2], maxsplit=1)[0]


def measured_epochs(epochs: int, milestones: tuple[int, ...] = ()) -> tuple[int, ...]:
    """The epochs after which the network is measured.

    These are the paper's list, which goes on after 350 in steps of the same ratio, and the last epoch; also those just
    before and just after the rate is divided, which show what belongs to the noise of the steps.

    Args:
        epochs: of the whole run.
        milestones: the last epoch at each rate; see `milestone_epochs`.
    """
    if epochs < 1:
        raise InputError(f"epochs must be at least 1, got {epochs}")
    listed = {*MEASURED_EPOCHS, *milestones, *(milestone + 1 for milestone in milestones)}
    last = MEASURED_EPOCHS[-1]
    while last < epochs:
        last = round(last * _RATIO)
        listed.add(last)
    return (*sorted(epoch for epoch in listed if 0 < epoch < epochs), epochs)


def milestone_epochs(shares: tuple[float, ...], epochs: int) -> tuple[int, ...]:
    """The last epoch at each rate: 1/3 and 2/3 of 350 are after 116 and 233. The first epoch is at the full rate."""
    return tuple(max(1, int(share * epochs + 1e-9)) for share in shares)


def learning_rate(initial: float, milestones: tuple[int, ...], epoch: int) -> float:
    """The rate during `epoch`, counted from 1: a tenth for every milestone passed."""
    return initial * 0.1 ** sum(epoch > milestone for milestone in milestones)


def learning_rates(loss: str, num_classes: int) -> tuple[float, ...]:
    """The rates among which the paper's were chosen: 25 from 1e-4 to 0.25, evenly spaced in their logarithm.

    Given, like the tuned ones, for PyTorch's `MSELoss`; for the paper's loss they are 2/C times as large.
    """
    import numpy as np

    rates = [float(rate) for rate in np.geomspace(1e-4, 0.25, 25)]
    return tuple(2 * rate / num_classes if loss == "mse" else rate for rate in rates)


def departures(config: RunConfig) -> list[str]:
    """The settings that differ from the paper's, such as `rate 0.01`, `decay 0.005`, `batch 64`, `milestones 0.6 0.85`.

    The paper tuned a rate for each of its cells, so that the rate is compared in those only; the rest of its protocol
    is the same everywhere. The weight decay of another optimizer than SGD is in `RunConfig.optimizer_description`.
    """
    if config.loss not in LOSSES:  # of a later version
        return []
    tuned = config.dataset in PAPER_DATASETS and family(config.model) in PAPER_FAMILIES
    paper = paper_recipe(config.dataset if tuned else PAPER_DATASETS[0], config.model, config.loss, config.num_classes)
    compared = {
        **({"learning_rate": f"rate {config.learning_rate:.3g}"} if tuned else {}),
        **({"weight_decay": f"decay {config.weight_decay:.3g}"} if config.optimizer == "sgd" else {}),
        "momentum": f"momentum {config.momentum:g}",
        "batch_size": f"batch {config.batch_size}",
    }
    differing = [
        text
        for name, text in compared.items()
        if not math.isclose(getattr(config, name), getattr(paper, name), rel_tol=1e-6)  # a converted rate is rounded
    ]
    # 0.333 of the paper's 350 epochs is the same epoch as 1/3
    if milestone_epochs(config.milestones, 350) != milestone_epochs(paper.milestones or (), 350):
        shares = [f"{share:.3g}" for share in config.milestones]
        differing.append(" ".join(["milestones", *shares]) if shares else "no milestones")
    return differing


def read_settings(path: Path) -> TrainingConfig:
    """The settings of one run from a JSON or YAML file, as `as_yaml` writes them.

    Raises:
        InputError: there is no such file, or it holds several sets of settings, an unknown setting or a wrong value.
    """
    found = read(path, "file of settings")
    if len(found) != 1:
        raise InputError(f"{path} holds {len(found)} sets of settings; expected one, or give the file as --recipe")
    return found[0]


def as_yaml(given: TrainingConfig, resolved: RunConfig) -> str:
    """The settings of a run as YAML: those given, then as comments those that were filled in.

    The data set, network and loss stand among the given ones, so that the file says what it is of. `read_settings` of
    the text gives a configuration that resolves to the same run, with the same name.
    """
    said = {name: getattr(resolved, name) for name in ("dataset", "model", "loss")} | given.to_json()
    filled = {f.name: getattr(resolved, f.name) for f in dataclasses.fields(TrainingConfig) if f.name not in said}
    lines = ["# neuralcollapse run --config FILE", *_yaml_lines(said), "", "# Left open, and filled in for this run:"]
    return "\n".join([*lines, *(f"# {line}" for line in _yaml_lines(filled))]) + "\n"


def read(path: Path, kind: str = "recipe") -> list[TrainingConfig]:
    """The recipes of a JSON or YAML file (.yaml, .yml).

    Args:
        path: the file.
        kind: what errors call it.

    Raises:
        InputError: there is no such file, or it holds an unknown setting or a value of another type.
    """
    try:
        content = _read_yaml(path) if path.suffix in (".yaml", ".yml") else read_any_json(path)
    except OSError as error:
        raise InputError(f"cannot read the {kind} {path}: {error.strerror}") from error
    except InputError as error:
        if path.suffix in (".yaml", ".yml", ".json"):
            raise
        raise InputError(f"{path} is no YAML or JSON file; expected one ending in .yaml, .yml or .json") from error
    entries = content if isinstance(content, list) else [content]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{path} is not a {kind}: expected an object of settings, or a list of such objects")
    for entry in entries:
        entry.pop("about", None)
    return [TrainingConfig.from_json(entry, path) for entry in entries]


def fits(recipe: TrainingConfig, config: TrainingConfig) -> bool:
    """Whether a recipe is for a run: their data sets, networks, losses and seeds agree where both give them."""
    dataset = config.dataset or recipe.dataset or "digits"
    for name in settings_in("subject"):
        own, asked = getattr(recipe, name), getattr(config, name)
        if name == "model":
            own, asked = (value and network_for(dataset, value) for value in (own, asked))
        if own is not None and asked is not None and own != asked:
            return False
    return True


def fill(config: TrainingConfig, path: Path) -> TrainingConfig:
    """The settings of one run, completed by the recipes of a file that are for it.

    Where data set, network and loss are all given, every recipe that fits is used, as for a cell of a grid; otherwise
    exactly one may fit, and it says what is left open.

    Raises:
        InputError: none fits, two disagree, or several fit where the data set, network or loss is left open.
    """
    fitting = [recipe for recipe in read(path) if fits(recipe, config)]
    asked = ", ".join(f"{name} {value}" for name, value in config.given().items() if name in settings_in("subject"))
    if not fitting:
        raise InputError(f"{path} holds no recipe for {asked or 'any run'}")
    left_open = [name for name in ("dataset", "model", "loss") if getattr(config, name) is None]
    if len(fitting) > 1 and left_open:
        options = " and ".join(f"--{name}" for name in left_open)
        raise InputError(f"{path} holds {len(fitting)} recipes for {asked or 'a run'}; give {options} too")
    return combine(fitting, config)


def combine(recipes: Sequence[TrainingConfig], config: TrainingConfig) -> TrainingConfig:
    """The settings of a run, completed by every recipe that is for it.

    Raises:
        InputError: two of them disagree.
    """
    result = config
    for recipe in recipes:
        if not fits(recipe, config):
            continue
        for name, value in recipe.given().items():
            if getattr(config, name) is None and getattr(result, name) not in (None, value):
                raise InputError(
                    f"two recipes give {name} of {config.dataset}, {config.model}, {config.loss}: "
                    f"{getattr(result, name)} and {value}; leave one out"
                )
        result = result.filled(recipe)
    return result


def write(path: Path, config: TrainingConfig, about: str) -> None:
    """Write a recipe: what decides the training, without the seed and what belongs to one machine."""
    left_out = (*settings_in("machine"), "seed")
    write_json(path, {"about": about, **{key: value for key, value in config.to_json().items() if key not in left_out}})


def _yaml_lines(settings: dict[str, Any]) -> list[str]:
    """A line each; a value as JSON is YAML too."""
    given = {name: value for name, value in settings.items() if value is not None}
    return [f"{name}: {json.dumps(value, ensure_ascii=False, default=str)}" for name, value in given.items()]


def _read_yaml(path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """PyYAML's safe loader, which in addition reads 1e-3 as the number that it is in YAML 1.2."""

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))
    try:
        return yaml.load(read_text(path), Loader)
    except InputError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InputError(f"{path} is not a YAML file: {where}{shortened(error.problem or error.context)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a YAML file: {shortened(' '.join(str(error).split()))}") from error


def _for_loss(loss: str, *, rate: float, weight_decay: float, num_classes: int) -> tuple[float, float]:
    """From rate and decay of `MSELoss` to those of `loss`: L = (C/2) MSELoss, so η → 2η/C and w → λ = C w / 2.

    The rescaled squared error takes those of `MSELoss`, focal loss and label smoothing those of cross-entropy: their
    authors too changed nothing but the loss.
    """
    if loss == "mse":
        return 2 * rate / num_classes, LOSSES["mse-torch"].measured_weight_decay(weight_decay, num_classes)
    return (rate, weight_decay) if LOSSES[loss].finite_target else (_CROSS_ENTROPY_RATE, _WEIGHT_DECAY)
