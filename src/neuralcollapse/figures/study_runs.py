"""The runs that figures and tables are about, and in what each departs from the paper's protocol.

A single run, a study, or a log of another program: each is a `Study`, whose numbers are a `History`.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from neuralcollapse._errors import InputError
from neuralcollapse.measuring.history import History
from neuralcollapse.measuring.run_readers import read_runs
from neuralcollapse.measuring.run_records import RunRecords
from neuralcollapse.plots.repetitions import REPETITIONS_DIFFER_IN
from neuralcollapse.training import losses, recipes
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.run_directory import Run, Status

NETWORK_TITLES = {"vgg": "VGG", "resnet": "ResNet", "densenet": "DenseNet"}
"""The rows, in the paper's order; other networks follow by name."""
_DATASET_ORDER = ("mnist", "fashion-mnist", "cifar10", "svhn", "stl10", "cifar100", "digits")
"""The columns: the paper's five in its order, then two more; others follow by name."""
PAPER_EXAMPLES = {**recipes.EXAMPLES_PER_CLASS, "fashion-mnist": 6000, "cifar10": 5000, "stl10": 500}
"""The number of training examples of each class in the paper."""
PAPER_EPOCHS = 350


@dataclass(frozen=True)
class StudyRun:
    """One run.

    Args:
        records: what was measured, under the name it has in the history.
        config: its configuration, or None where another program made it.
        status: of a run directory.
    """

    records: RunRecords
    config: RunConfig | None
    status: Status

    @property
    def network(self) -> str:
        """The network without its depth, as rows of figures are called."""
        family = recipes.family(self.records.network)
        return NETWORK_TITLES.get(family, family)

    @property
    def cell(self) -> tuple[str, str, str]:
        """Data set, network and loss."""
        return self.records.dataset, self.network, self.records.loss

    @property
    def model_title(self) -> str:
        """The network with its depth, as figures and tables write it."""
        model = self.records.network
        family = recipes.family(model)
        ours = family in NETWORK_TITLES and ":" not in model  # a network of another package keeps its name there
        return NETWORK_TITLES[family] + model.removeprefix(family) if ours else model

    @property
    def loss_title(self) -> str:
        """What figures and tables call the loss."""
        return self.config.loss_title if self.config else self.records.loss

    @property
    def reduced(self) -> tuple[str, ...]:
        """In what this run is smaller than the paper's, each in a few words."""
        if (config := self.config) is None:
            return ()
        per_class = config.num_examples // config.num_classes
        full = PAPER_EXAMPLES.get(config.dataset, 0)
        words = []
        if 0 < per_class < full or (not full and config.examples_per_class):
            words.append(f"{per_class:,} examples a class")
        if config.test_examples_per_class:
            words.append(f"{config.test_examples_per_class:,} test examples a class")
        words += config.image_description()
        if config.width != 1:
            words.append(f"width ×{config.width:g}")
        if config.epochs < PAPER_EPOCHS:
            words.append(f"{config.epochs} epochs")
        family = recipes.family(config.model)
        paper = recipes.network_for(config.dataset, family)
        depth = config.model.rpartition(":")[2].removesuffix("_bn")
        if config.dataset in PAPER_EXAMPLES and family in NETWORK_TITLES and depth != paper:
            words.append(f"{self.model_title} for {NETWORK_TITLES[family]}{paper.removeprefix(family)}")
        return tuple(words)

    @property
    def departures(self) -> tuple[str, ...]:
        """In what it departs from the paper: size, noise, imbalance, last layer, optimizer, rate or decay."""
        if (config := self.config) is None:
            return ()
        return (*self.reduced, *config.changes(), *recipes.departures(config))


@dataclass(frozen=True)
class Study:
    """Runs, in an order that does not depend on the names of their directories: data set, network, loss, seed."""

    runs: tuple[StudyRun, ...]

    @classmethod
    def read(cls, path: Path) -> Study:
        """Read a run, a study, or the log of another program, as `History.read` does.

        Raises:
            InputError: nothing is there, or a file is damaged; two runs of one network, data set and loss differ in
                more than their seed; or nothing was measured yet.
        """
        found = []
        for records in read_runs(path):
            run = Run.open(records.path) if records.path and "model" in records.settings else None
            found.append(StudyRun(records, run.config if run else None, run.status() if run else Status()))
        if not any(each.records.records for each in found):
            resume = f"; continue with: neuralcollapse run --resume {shlex.quote(str(path))}" if len(found) == 1 else ""
            raise InputError(f"{path} has no measured epoch yet{resume}")
        found.sort(key=_place)
        for first, second in itertools.pairwise(found):
            if first.cell == second.cell and first.config and second.config:
                _require_equal_but_for_the_seed(first, second, path)
        named = zip(found, History([each.records for each in found]).runs["run"], strict=True)
        return cls(tuple(replace(each, records=replace(each.records, run=name)) for each, name in named))

    def history(self, runs: Sequence[StudyRun] = ()) -> History:
        """What these runs measured, or all."""
        return History([each.records for each in runs or self.runs if each.records.records])

    @property
    def datasets(self) -> list[str]:
        """The data sets, in the order of columns."""
        return list(dict.fromkeys(each.records.dataset for each in self.runs))

    @property
    def networks(self) -> list[str]:
        """The networks, in the order of rows."""
        found = sorted(self.runs, key=lambda each: _rank(NETWORK_TITLES.values(), each.network))
        return list(dict.fromkeys(each.network for each in found))

    @property
    def losses(self) -> dict[str, str]:
        """The titles of the losses, by name."""
        found = sorted(self.runs, key=lambda each: _rank(losses.LOSSES, each.records.loss))
        return {each.records.loss: each.loss_title for each in found}

    def group(self, dataset: str, network: str, loss: str | None = None) -> list[StudyRun]:
        """The runs of a network on a data set, of one loss or of all."""
        return [each for each in self.runs if each.cell[:2] == (dataset, network) and loss in (None, each.cell[2])]


def _place(run: StudyRun) -> tuple[object, ...]:
    records, name = run.records, run.config.dataset if run.config else run.records.dataset
    order = _rank(_DATASET_ORDER, name), records.dataset, _rank(NETWORK_TITLES.values(), run.network)
    return (*order, _rank(losses.LOSSES, records.loss), records.seed or 0, str(records.path))


def _require_equal_but_for_the_seed(first: StudyRun, second: StudyRun, folder: Path) -> None:
    settings = sorted(field.name for field in fields(RunConfig) if field.name not in REPETITIONS_DIFFER_IN)
    differing = [name for name in settings if getattr(first.config, name) != getattr(second.config, name)]
    if differing or first.records.seed == second.records.seed:
        dataset, network, _ = first.cell
        why = f"but differ in {', '.join(differing)}" if differing else f"with the same seed, {first.records.seed}"
        raise InputError(
            f"{first.records.path} and {second.records.path} are both {network} on {dataset} with {first.loss_title}, "
            f"{why}; a study has one run for each network, data set, loss and seed, so move one of them out of {folder}"
        )


def _rank(order: Iterable[str], name: str) -> tuple[int, str]:
    """A place in an order; names that are not in it follow, sorted."""
    names: Sequence[str] = list(order)
    return (names.index(name) if name in names else len(names), name)
