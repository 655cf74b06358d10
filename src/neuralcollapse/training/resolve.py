"""From the settings a user gives to a run that can begin: every setting filled in, data loaded, directory opened."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from neuralcollapse import data as datasets
from neuralcollapse._errors import InputError
from neuralcollapse._files import shortened
from neuralcollapse.data import Corruption, Dataset
from neuralcollapse.data.archive import without_ending
from neuralcollapse.measuring.batch_norm import batch_norm_layers
from neuralcollapse.networks.heads import HEADS, default_temperature
from neuralcollapse.networks.sync_norm import synchronised
from neuralcollapse.training import hardware, losses, recipes
from neuralcollapse.training.builders import build_network
from neuralcollapse.training.config import RunConfig, TrainingConfig
from neuralcollapse.training.losses import LOSSES
from neuralcollapse.training.optimizers import LARGEST_FULL_BATCH, OPTIMIZERS
from neuralcollapse.training.robustness import robustness_subset
from neuralcollapse.training.run_directory import Run


def prepare(config: TrainingConfig, *, out: Path | None = None, resume: Path | None = None) -> tuple[Run, Dataset]:
    """Load the data and open the run directory, a new one or one to be continued.

    Args:
        config: the settings the user gave.
        out: the run directory; by default a folder under `runs/` named after the settings.
        resume: an existing run directory, whose settings are taken over.

    Returns:
        What `trainer.train` takes.

    Raises:
        InputError: unusable settings, missing data, `resume` without a run, or a directory with other settings.

    Warns:
        UserWarning: each class has one training example, of which there is no variability.
    """
    given = config
    if resume is not None:
        if out is not None and out.resolve() != resume.resolve():
            raise InputError(f"--resume {resume} continues in that folder; leave out --out {out}")
        out, given = resume, resumed(Run.open(resume), config)
    resolved, data = load_and_resolve(given)
    with torch.device("meta"):
        hardware.check_memory(build_network(resolved, data), resolved.device, resolved.precision == "64")
    if resolved.num_examples == resolved.num_classes:
        said = "each class has one training example, so nothing varies within classes and NC1 is 0 from the start"
        warnings.warn(f"{said}; take more --examples-per-class", UserWarning, stacklevel=2)
    resolved = dataclasses.replace(resolved, data_sha256=datasets.fingerprint(data))
    if out is None:  # named after data set, network and loss, and the settings given beside them
        name = base_name(resolved.dataset, resolved.data_dir, resolved.model, resolved.loss)
        out = Path("runs") / "-".join([name, *given.name_parts()])
    run = Run.create(out, resolved, ignoring=("data_dir", "data_sha256", "dataset_title"))
    _require_same_data(run, resolved)
    return run, data


def load_and_resolve(config: TrainingConfig, load: Callable[..., Dataset] = datasets.load) -> tuple[RunConfig, Dataset]:
    """Load the data of a run and fill in its settings; nothing is written.

    Args:
        config: the settings the user gave.
        load: reads the data, as `data.load`; one with a cache serves many runs on the same data.

    Raises:
        InputError: unusable settings, missing data, a network that cannot be built, or more processes than examples in
            a batch.
    """
    config.check()
    name = config.dataset or "digits"
    data = load(
        name,
        data_dir=config.data_dir,
        examples_per_class=config.examples_per_class or recipes.EXAMPLES_PER_CLASS.get(name),
        seed=config.seed or 0,
        corruption=corruption(config),
        test_examples_per_class=config.test_examples_per_class,
        downsample=config.downsample or 1,
    )
    resolved = resolve(config, data)
    if min(resolved.batch_size, resolved.num_examples) < 2:
        raise InputError(
            f"expected batches of at least 2 examples, because a batch of one is left out of training, got "
            f"--batch-size {resolved.batch_size} of {resolved.num_examples}; take more"
        )
    try:
        with torch.device("meta"):
            net = build_network(resolved, data)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:  # sizes that no tensor can have
        network = f"{resolved.model} of width {resolved.width:g}"
        raise InputError(f"{network} cannot be built ({shortened(error)}); take another --width") from error
    if (statistics := resolved.batch_norm_statistics) != "running":
        asked = f"--batch-norm-statistics {statistics}"
        if not batch_norm_layers(net):
            raise InputError(f"{asked} needs batch normalisation, which {resolved.model} does not have; leave it out")
        if resolved.devices > 1:
            raise InputError(f"{asked} works with one device, got --devices {resolved.devices}; leave one of them out")
    if resolved.devices > 1:
        # each process needs an example of every batch, also of the last one; a last batch of one example is skipped
        rest = resolved.num_examples % resolved.batch_size
        smallest = rest if rest > 1 else min(resolved.batch_size, resolved.num_examples)
        if smallest < resolved.devices:
            raise InputError(
                f"with --batch-size {resolved.batch_size} a batch of {smallest} examples is left for "
                f"{resolved.devices} processes; take another batch size or at most --devices {smallest}"
            )
        synchronised(net, resolved.device)  # refuses a normalisation that it cannot share between processes
    return resolved, data


def resolve(config: TrainingConfig, data: Dataset) -> RunConfig:
    """Fill in what the settings leave open: by the recipe of the data set, the optimizer, the head and this machine.

    Args:
        config: the settings the user gave.
        data: the data set, as it was loaded for them.

    Raises:
        InputError: an unknown name, or a setting that the chosen loss, head or optimizer does not use.
    """
    given = config.given()
    num_classes = len(data.class_names)
    names = {
        "dataset": data.name,
        "model": recipes.network_for(data.name, config.model or "resnet"),
        "loss": config.loss or "mse",
        "head": config.head or "linear",
        "optimizer": config.optimizer or "sgd",
    }
    loss, head, optimizer = LOSSES[names["loss"]], HEADS[names["head"]], OPTIMIZERS[names["optimizer"]]
    device = hardware.choose_device(config.device or "auto")
    settings: dict[str, Any] = {
        **recipes.paper_recipe(data.name, names["model"], names["loss"], num_classes).given(),
        "examples_per_class": recipes.EXAMPLES_PER_CLASS.get(data.name),
        "seed": 0,
        "devices": 1,
    }
    if config.imbalance:
        settings["imbalance_ratio"] = corruption(config).imbalance_ratio
    if optimizer.learning_rate is not None:
        settings["learning_rate"] = optimizer.learning_rate
    if optimizer.milestones is not None:
        settings["milestones"] = optimizer.milestones
    if optimizer.full_batch:
        settings["batch_size"] = min(len(data.train.labels), LARGEST_FULL_BATCH)
    if not optimizer.has_momentum:
        if config.momentum:
            raise _no_use("momentum", config.momentum, f"--optimizer {names['optimizer']}")
        settings["momentum"] = 0.0
    momentum = given.get("momentum", settings["momentum"])
    settings["weight_decay"] = optimizer.weight_decay(settings["weight_decay"], momentum)
    settings |= losses.parameters(names["loss"], given, num_classes)
    if head.has_temperature:
        target = settings["target"] if "target" in loss.parameters else 1.0 if loss.finite_target else None
        settings["temperature"] = default_temperature(target)
    elif config.temperature is not None:
        owners = " or ".join(name for name, other in HEADS.items() if other.has_temperature)
        raise InputError(f"--temperature {config.temperature:g} belongs to --head {owners}; leave it out")
    _check_decays(config, names["head"], names["optimizer"])
    settings |= {**given, **names, "device": device}
    if settings.get("precision", "auto") == "auto":
        settings["precision"] = "bf16" if hardware.native_bf16(device) else "32"
    if config.data_dir:
        settings["data_dir"] = config.data_dir.expanduser().resolve()
    if list(settings["milestones"]) != sorted(settings["milestones"]):
        raise InputError(f"--milestones must be rising shares between 0 and 1, got {shortened(settings['milestones'])}")
    if config.robustness_examples:
        robustness_subset(data.test, config.robustness_examples)  # refuses too many before anything is written
    return RunConfig(
        **settings,
        dataset_title=data.title,
        num_examples=len(data.train.labels),
        num_test_examples=len(data.test.labels),
        num_classes=num_classes,
        class_names=tuple(data.class_names),
        loss_title=losses.title(names["loss"], settings),
        measured_weight_decay=loss.measured_weight_decay(
            optimizer.penalty(settings.get("classifier_decay", settings["weight_decay"]), settings["momentum"]),
            num_classes,
        ),
    )


def _check_decays(config: TrainingConfig, head: str, optimizer: str) -> None:
    """Refuse a decay that the head gives no meaning, and a head that changes under an optimizer which forbids it."""
    if config.classifier_decay is not None and not HEADS[head].decayed:
        raise _no_use("classifier-decay", config.classifier_decay, f"--head {head}, whose W it does not change")
    if config.feature_decay and HEADS[head].unit_features:
        raise _no_use("feature-decay", config.feature_decay, f"--head {head}, whose features all have length 1")
    if HEADS[head].follow is not None and OPTIMIZERS[optimizer].full_batch:
        raise InputError(
            f"--head {head} changes W after every step, by which --optimizer {optimizer} would mistake the curvature; "
            "take another optimizer"
        )


def _no_use(option: str, value: float, choice: str) -> InputError:
    return InputError(f"--{option} {value:g} has no use with {choice}; leave it out")


def corruption(config: TrainingConfig) -> Corruption:
    """The changes to the training half that the settings ask for.

    Raises:
        InputError: a ratio without an imbalance.
    """
    if config.imbalance_ratio is not None and config.imbalance is None:
        raise InputError(f"--imbalance-ratio {config.imbalance_ratio:g} needs --imbalance step or exponential")
    given = {name: value for name, value in config.given().items() if name in Corruption.__dataclass_fields__}
    return Corruption(**given)


def resumed(run: Run, asked: TrainingConfig) -> TrainingConfig:
    """The settings of an existing run; those repeated beside --resume must agree, except for --data-dir.

    Raises:
        InputError: a setting differs, or `config.json` holds one that this version does not know.
    """
    stored = {field.name: getattr(run.config, field.name) for field in dataclasses.fields(TrainingConfig)}
    for name, wanted in asked.given().items():
        if name == "data_dir":
            stored[name] = wanted
        elif wanted not in ("auto", stored[name]):
            raise InputError(
                f"expected {name} {stored[name]}, with which {run.path} was begun, got {wanted}; "
                "leave that option out, or start another run with --out"
            )
    if stored["dataset"] == "digits" and asked.data_dir is None:
        stored["data_dir"] = None  # older versions took a folder that they did not read
    return TrainingConfig.from_json(TrainingConfig(**stored).to_json(), run.path / "config.json")


def base_name(dataset: str, data_dir: Path | None, model: str, loss: str) -> str:
    """Data set, network and loss, as the name of a folder."""
    if dataset in ("folder", "npz") and data_dir:
        own = Path(os.path.abspath(data_dir.expanduser()))  # "." has no name
        dataset = (own.stem if dataset == "npz" else without_ending(own.name)) or dataset
    return "-".join([dataset, model.replace(":", "-").replace("/", "-"), loss])


def _require_same_data(run: Run, config: RunConfig) -> None:
    """Refuse other data than the run began with; warn where a run of an older version does not say which these were."""
    began = run.config.data_sha256
    if began is None:
        warnings.warn(
            f"{run.path / 'config.json'} is of an older version and has no fingerprint of the data: "
            "whether the data are still the same is not checked",
            UserWarning,
            stacklevel=3,
        )
    elif began != config.data_sha256:
        raise InputError(
            f"{run.path} was begun with other data than those found in {config.data_dir or 'the usual place'} "
            f"(SHA-256 {began[:16]}…, now {str(config.data_sha256)[:16]}…); "
            "name the folder of the same data by --data-dir, or start another run with another --out"
        )
