"""From what the user asked for to a run that can begin: data loaded, network possible, run directory there."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from neuralcollapse import data as datasets
from neuralcollapse._checks import InputError
from neuralcollapse._files import shortened
from neuralcollapse.data import Dataset
from neuralcollapse.networks.sync_norm import synchronised
from neuralcollapse.training import hardware, protocol, reading, recipes
from neuralcollapse.training.assembly import build_network
from neuralcollapse.training.config import LATER_FIELDS, RunConfig, Settings, check, configure, corruption
from neuralcollapse.training.run_directory import Run


@dataclass(frozen=True)
class Job:
    """A run directory, its configuration, and the data it needs."""

    run: Run
    config: RunConfig
    data: Dataset


def prepare(settings: Settings, *, out: Path | None = None, resume: Path | None = None) -> Job:
    """Load the data and open the run directory, new or to be continued.

    Args:
        settings: what the user asked for.
        out: the run directory; by default a folder under `runs/` named after data set, network and loss.
        resume: an existing run directory, whose settings are taken over.

    Raises:
        InputError: unusable settings, missing data, `resume` without a run, or a directory with other settings.
    """
    if resume is not None:
        if out is not None and out.resolve() != resume.resolve():
            raise InputError(f"--resume {resume} continues in that folder; leave out --out {out}")
        out = resume
        settings = _settings_of(Run.open(resume), settings)
    config, data = assemble(settings)
    with torch.device("meta"):
        hardware.check_memory(build_network(config, data), config.device, config.precision == "64")
    config = dataclasses.replace(config, data_sha256=datasets.fingerprint(data))
    path = out or Path("runs") / _run_name(settings, config)
    run = Run.create(path, dataclasses.asdict(config), ignoring=("data_dir", "data_sha256"), earlier=LATER_FIELDS)
    _check_data(run, config)
    return Job(run, config, data)


def _check_data(run: Run, config: RunConfig) -> None:
    """The run goes on with the data it began with, or, where an older version made it, with a word."""
    began = run.config.get("data_sha256")
    if began is None:
        warnings.warn(
            f"{run.path / 'config.json'} is of an older version and has no fingerprint of the data: "
            "whether they are still the same is not checked",
            UserWarning,
            stacklevel=3,
        )
    elif began != config.data_sha256:
        raise InputError(
            f"{run.path} was begun with other data than those found now in {config.data_dir or 'the usual place'} "
            f"(SHA-256 {shortened(began)[:18]}…, now {str(config.data_sha256)[:16]}…); "
            "name the folder of the same data by --data-dir, or start another run with another --out"
        )


def assemble(settings: Settings, load: Callable[..., Dataset] = datasets.load) -> tuple[RunConfig, Dataset]:
    """The complete configuration and the data; nothing is written.

    Args:
        settings: what the user asked for.
        load: reads the data; one that remembers serves many runs on the same data.

    Raises:
        InputError: unusable settings, missing data, a network that cannot be built, or more processes than examples in
            a batch.
    """
    check(settings)
    name = settings.dataset or "digits"
    per_class = settings.examples_per_class or protocol.EXAMPLES_PER_CLASS.get(name)
    data = load(
        name,
        data_dir=settings.data_dir,
        examples_per_class=per_class,
        seed=settings.seed or 0,
        corruption=corruption(settings),
        test_examples_per_class=settings.test_examples_per_class,
    )
    config = configure(settings, data, per_class)
    if config.devices > 1:
        _check_shards(config)
    try:
        with torch.device("meta"):
            net = build_network(config, data)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:  # sizes that no tensor can have
        raise InputError(
            f"{config.model} of width {config.width:g} cannot be built ({shortened(error)}); take another --width"
        ) from error
    if config.devices > 1:
        synchronised(net, config.device)  # refuses what it cannot share
    return config, data


def base_name(dataset: str, data_dir: Path | str | None, model: str, loss: str) -> str:
    """Data set, network and loss, as a folder's name."""
    if dataset in ("folder", "npz") and data_dir:
        dataset = Path(data_dir).stem
    return "-".join([dataset, model.replace(":", "-").replace("/", "-"), loss])


def _check_shards(config: RunConfig) -> None:
    """Refuse what would leave a process without an example; a rest of a single example is passed over anyway."""
    rest = config.num_examples % config.batch_size
    smallest = rest if rest > 1 else min(config.batch_size, config.num_examples)
    if smallest < config.devices:
        raise InputError(
            f"with --batch-size {config.batch_size} a batch of {smallest} examples is left for {config.devices} "
            f"processes; take another batch size or at most --devices {smallest}"
        )


def _settings_of(run: Run, asked: Settings) -> Settings:
    """The settings of an existing run; what the user repeats beside --resume must agree, --data-dir may move."""
    where = run.path / "config.json"
    config = {**LATER_FIELDS, **reading.configuration(run)}
    stored: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        if field.name not in config:
            raise InputError(f"{where} has no {field.name!r}, so the run cannot be continued")
        value, wanted = config[field.name], getattr(asked, field.name)
        given = tuple(value) if isinstance(value, list) else value
        if field.name == "data_dir":
            value = value if wanted is None else str(wanted)
        elif wanted not in (None, "auto", given):
            raise InputError(
                f"{run.path} was made with {field.name} {value}, now {wanted} is asked for; "
                "leave that option out, or start another run with --out"
            )
        stored[field.name] = value
    return recipes.from_json(stored, str(where))


def _run_name(settings: Settings, config: RunConfig) -> str:
    """Data set, network and loss, then every setting that was given beside them."""
    parts = [base_name(config.dataset, config.data_dir, config.model, config.loss)]
    short = {
        "imbalance": "",
        "imbalance_ratio": "ratio",
        "label_noise": "noise",
        "head": "",
        "temperature": "t",
        "rescale": "k",
        "target": "m",
        "focal_gamma": "gamma",
        "smoothing": "eps",
        "optimizer": "",
        "width": "w",
        "examples_per_class": "n",
        "test_examples_per_class": "test",
        "epochs": "e",
        "batch_size": "b",
        "learning_rate": "lr",
        "momentum": "mom",
        "weight_decay": "wd",
        "milestones": "at",
        "seed": "s",
        "precision": "p",
        "devices": "d",
        "robustness_examples": "r",
    }
    for name, prefix in short.items():
        if (value := getattr(settings, name)) not in (None, "auto"):
            values = value if isinstance(value, tuple) else (value,)
            parts.append(prefix + "+".join(f"{each:g}" if isinstance(each, float) else str(each) for each in values))
    return "-".join(parts)
