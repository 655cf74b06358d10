"""The runs of a study: networks × data sets for each loss, and in what each run departs from the paper's protocol."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from neuralcollapse._errors import InputError
from neuralcollapse.figures.history import read_history
from neuralcollapse.study.study_file import runs_of_study
from neuralcollapse.training import losses, recipes
from neuralcollapse.training.config import RunConfig
from neuralcollapse.training.run_directory import Run

NETWORKS = {"vgg": "VGG", "resnet": "ResNet", "densenet": "DenseNet"}
"""The rows, in the paper's order; other networks follow by name."""
DATASETS = ("mnist", "fashion-mnist", "cifar10", "svhn", "stl10", "cifar100", "digits")
"""The columns: the paper's five in its order, then two more; others follow by name."""
PAPER_EXAMPLES = {**recipes.EXAMPLES_PER_CLASS, "fashion-mnist": 6000, "cifar10": 5000, "stl10": 500}
"""The number of training examples of each class in the paper."""
PAPER_EPOCHS = 350
_MAY_DIFFER = ("seed", "data_dir", "data_sha256", "device", "devices", "precision")
"""Runs that differ only in these share a panel; the data differ because a seed draws other examples, too."""

Panel = tuple[tuple[str, str], str, str]
"""Data set (name and title: CIFAR10 and CIFAR10 (JPEG) are two), network without its depth, and loss."""


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Args:
        path: the run directory.
        config: its configuration.
        history: its measured epochs; empty before the first.
        status: "finished", "running", "interrupted", "diverged", or "" before the first epoch ended.
        epoch: the last epoch trained or measured.
    """

    path: Path
    config: RunConfig
    history: pd.DataFrame
    status: str
    epoch: int

    @property
    def panel(self) -> Panel:
        """The panel of the figures that shows it."""
        config = self.config
        return (config.dataset, config.dataset_title), recipes.family(config.model), config.loss

    @property
    def model_title(self) -> str:
        """The network with its depth, as figures and tables write it."""
        _, network, _ = self.panel
        ours = network in NETWORKS and ":" not in self.config.model  # a network of another package keeps its name there
        return NETWORKS[network] + self.config.model.removeprefix(network) if ours else self.config.model

    @property
    def other_depth(self) -> str:
        """Which network the paper takes on this data set, if it is another one of the same family."""
        (dataset, _), network, _ = self.panel
        paper = recipes.network(dataset, network)
        model = self.config.model.rpartition(":")[2].removesuffix("_bn")
        if dataset not in PAPER_EXAMPLES or network not in NETWORKS or model == paper:
            return ""
        return f"the paper's is {NETWORKS[network]}{paper.removeprefix(network)}"

    @property
    def reduced(self) -> tuple[str, ...]:
        """In what, beside its depth, this run is smaller than the paper's, each in a few words."""
        config = self.config
        per_class = config.num_examples // config.num_classes
        full = PAPER_EXAMPLES.get(config.dataset, 0)
        words = []
        if 0 < per_class < full or (not full and config.examples_per_class):
            words.append(f"{per_class:,} a class")
        if config.test_examples_per_class:
            words.append(f"test {config.test_examples_per_class:,} a class")
        if config.width != 1:
            words.append(f"width ×{config.width:g}")
        if config.epochs < PAPER_EPOCHS:
            words.append(f"{config.epochs} epochs")
        return tuple(words)

    @property
    def options(self) -> tuple[str, ...]:
        """What else it does that the paper does not: noise, imbalance, another last layer, optimizer, rate or decay."""
        config = self.config
        changes = (*config.data_description(), *config.head_description(), *config.optimizer_description())
        return (*changes, *recipes.departures(config))

    @property
    def departures(self) -> tuple[str, ...]:
        """Every departure from the paper's protocol, in words."""
        return (*self.reduced, *self.options, *filter(None, [self.other_depth]))

    @property
    def unfinished(self) -> str:
        """Why this run has not reached its end, in words; empty when it has."""
        if self.status == "finished" or (not self.status and self.epoch >= self.config.epochs):
            return ""
        if self.status == "diverged":
            return f"diverged after epoch {self.epoch}"
        # a directory does not tell whether its process still runs: it may be a copy, or the process was killed
        return f"unfinished: epoch {self.epoch} of {self.config.epochs}"


@dataclass(frozen=True)
class Study:
    """The runs of a folder, in an order that does not depend on the names of their directories.

    Args:
        datasets: the columns that occur, name and title.
        networks: the rows: those that occur and, with one of the paper's three, the other two, whether run or not.
        losses: the training losses that occur.
        panels: the runs of every data set, network and loss, in the order of their seeds; empty where there is none.
    """

    datasets: tuple[tuple[str, str], ...]
    networks: tuple[str, ...]
    losses: tuple[str, ...]
    panels: dict[Panel, tuple[StudyRun, ...]]

    @classmethod
    def read(cls, folder: Path) -> Study:
        """Read the runs of a study: those that `study.json` lists or, without that file, those directly in the folder.

        Raises:
            InputError: no run is there, or nothing says which of them belong together (see `study.study_file`); a file
                is damaged; or two runs of one network, data set and loss differ in more than their seed.
        """
        runs = [_read_run(path) for path in runs_of_study(folder)]
        networks = {network for _, network, _ in (each.panel for each in runs)}
        networks |= NETWORKS.keys() if networks & NETWORKS.keys() else set()
        rows = sorted(networks, key=lambda name: _rank(NETWORKS, name))
        columns = sorted({each.panel[0] for each in runs}, key=lambda names: (_rank(DATASETS, names[0]), names[1]))
        trained = sorted({each.config.loss for each in runs}, key=lambda name: _rank(losses.LOSSES, name))
        panels = {}
        for panel in itertools.product(columns, rows, trained):
            group = [each for each in runs if each.panel == panel]
            panels[panel] = tuple(sorted(group, key=lambda each: (each.config.seed, str(each.path))))
            for first, second in itertools.pairwise(panels[panel]):
                _require_equal_but_for_the_seed(first, second, folder)
        return cls(tuple(columns), tuple(rows), tuple(trained), panels)

    @property
    def runs(self) -> list[StudyRun]:
        """Every run."""
        return [each for group in self.panels.values() for each in group]

    def shown(self, loss: str) -> list[StudyRun]:
        """The runs of one loss that figures and tables show: the lowest seed of each data set and network."""
        return [group[0] for (_, _, trained), group in self.panels.items() if group and trained == loss]


def loss_title(name: str) -> str:
    """What figures and tables call a loss."""
    return losses.LOSSES[name].title if name in losses.LOSSES else name


def network_title(name: str) -> str:
    """What figures and tables call a network of any depth."""
    return NETWORKS.get(name, name)


def _read_run(path: Path) -> StudyRun:
    run = Run.open(path)
    history, status = read_history(run), run.status()
    return StudyRun(path, run.config, history, status.status, max(status.epoch, *history.index, 0))


def _require_equal_but_for_the_seed(first: StudyRun, second: StudyRun, folder: Path) -> None:
    fields = sorted(field.name for field in dataclasses.fields(RunConfig) if field.name not in _MAY_DIFFER)
    differing = [name for name in fields if getattr(first.config, name) != getattr(second.config, name)]
    if differing or first.config.seed == second.config.seed:
        (_, dataset), network, loss = first.panel
        why = f"but differ in {', '.join(differing)}" if differing else f"with the same seed, {first.config.seed}"
        raise InputError(
            f"{first.path} and {second.path} are both {network_title(network)} on {dataset} with {loss_title(loss)}, "
            f"{why}; a study has one run for each network, data set, loss and seed, so move one of them out of {folder}"
        )


def _rank(order: Iterable[str], name: str) -> tuple[int, str]:
    """A place in an order; names that are not in it follow, sorted."""
    names: Sequence[str] = list(order)
    return (names.index(name) if name in names else len(names), name)
