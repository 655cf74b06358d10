"""The runs of a study: networks × data sets for each loss, and in what each run departs from the paper's recipes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from neuralcollapse._checks import InputError
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


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Args:
        run: the run directory.
        history: its analysed epochs; empty before the first.
        status: "finished", "running", "interrupted", "diverged", or "" before the first epoch ended.
        epoch: the last epoch trained or analysed.
        seeds: the seeds of all runs of the same network, data set and loss, in ascending order.
    """

    run: Run
    history: pd.DataFrame
    status: str
    epoch: int
    seeds: tuple[int, ...] = ()

    @property
    def config(self) -> RunConfig:
        """The configuration of the run."""
        return self.run.config

    @property
    def network(self) -> str:
        """The row: the network without its depth."""
        return recipes.family(self.config.model)

    @property
    def dataset(self) -> tuple[str, str]:
        """The column: name and title, because CIFAR10 and CIFAR10 (JPEG) are two data sets."""
        return self.config.dataset, self.config.dataset_title

    @property
    def loss(self) -> str:
        """The training loss."""
        return self.config.loss

    @property
    def model_title(self) -> str:
        """The network with its depth, as figures and tables write it."""
        model = self.config.model
        ours = self.network in NETWORKS and ":" not in model  # a network of another package keeps its name there
        return NETWORKS[self.network] + model.removeprefix(self.network) if ours else model

    @property
    def other_depth(self) -> str:
        """Which network the paper takes on this data set, if it is another one of the same family."""
        paper = recipes.network(self.config.dataset, self.network)
        model = self.config.model.rpartition(":")[2].removesuffix("_bn")
        if self.config.dataset not in PAPER_EXAMPLES or self.network not in NETWORKS or model == paper:
            return ""
        return f"the paper's is {NETWORKS[self.network]}{paper.removeprefix(self.network)}"

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
        return (*self.reduced, *self.options, *((self.other_depth,) if self.other_depth else ()))

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
        runs: every run.
        networks: the rows: those that occur and, with one of the paper's three, the other two, whether run or not.
        datasets: the columns that occur, name and title.
        losses: the training losses that occur.
    """

    runs: tuple[StudyRun, ...]
    networks: tuple[str, ...]
    datasets: tuple[tuple[str, str], ...]
    losses: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Study:
        """Read the runs of a study: those that `study.json` lists or, without that file, those directly in the folder.

        Raises:
            InputError: no run is there, or nothing says which of them belong together (see `study.study_file`); a file
                is damaged; or two runs of one network, data set and loss differ in more than their seed.
        """
        groups: dict[tuple[str, tuple[str, str], str], list[StudyRun]] = {}
        for path in runs_of_study(folder):
            found = _read_run(path)
            groups.setdefault((found.network, found.dataset, found.loss), []).append(found)
        runs: list[StudyRun] = []
        for group in groups.values():
            group.sort(key=lambda each: (each.config.seed, str(each.run.path)))
            _require_equal_but_for_the_seed(group, folder)
            seeds = tuple(each.config.seed for each in group)
            runs += [dataclasses.replace(each, seeds=seeds) for each in group]
        networks = {each.network for each in runs}
        networks |= NETWORKS.keys() if networks & NETWORKS.keys() else set()
        study = cls(
            tuple(runs),
            tuple(sorted(networks, key=lambda name: _rank(NETWORKS, name))),
            tuple(sorted({each.dataset for each in runs}, key=lambda pair: (_rank(DATASETS, pair[0]), pair[1]))),
            tuple(sorted({each.loss for each in runs}, key=lambda name: _rank(losses.LOSSES, name))),
        )
        ordered = [each for *_, group in study.cells() for each in group]
        return dataclasses.replace(study, runs=tuple(ordered))

    def cells(self) -> Iterator[tuple[tuple[str, str], str, str, list[StudyRun]]]:
        """Every data set, network and loss with its runs, the lowest seed first; without any where it was not run."""
        for dataset in self.datasets:
            for network in self.networks:
                for loss in self.losses:
                    wanted = (dataset, network, loss)
                    yield *wanted, [each for each in self.runs if (each.dataset, each.network, each.loss) == wanted]

    def find(self, network: str, dataset: tuple[str, str], loss: str) -> StudyRun | None:
        """The run of the lowest seed, or None where there is none."""
        wanted = (network, dataset, loss)
        return next((each for each in self.runs if (each.network, each.dataset, each.loss) == wanted), None)

    def of_loss(self, loss: str) -> list[StudyRun]:
        """The runs that the figures of one loss show: the lowest seed of each network and data set."""
        found = (self.find(network, dataset, loss) for dataset in self.datasets for network in self.networks)
        return [each for each in found if each is not None]


def loss_title(name: str) -> str:
    """What figures and tables call a loss."""
    return losses.LOSSES[name].title if name in losses.LOSSES else name


def network_title(name: str) -> str:
    """What figures and tables call a network of any depth."""
    return NETWORKS.get(name, name)


def _read_run(path: Path) -> StudyRun:
    run = Run.open(path)
    history, status = read_history(run), run.status()
    last = 0 if history.empty else int(history.index[-1])
    return StudyRun(run, history, status.status, max(status.epoch, last))


def _require_equal_but_for_the_seed(group: Sequence[StudyRun], folder: Path) -> None:
    for first, other in itertools.pairwise(group):
        fields = sorted(field.name for field in dataclasses.fields(RunConfig) if field.name not in _MAY_DIFFER)
        differing = [name for name in fields if getattr(first.config, name) != getattr(other.config, name)]
        if differing or first.config.seed == other.config.seed:
            name = f"{network_title(first.network)} on {first.dataset[1]} with {loss_title(first.loss)}"
            why = f"but differ in {', '.join(differing)}" if differing else f"with the same seed, {first.config.seed}"
            raise InputError(
                f"{first.run.path} and {other.run.path} are both {name}, {why}; a study has one run for each network, "
                f"data set, loss and seed, so move one of them out of {folder}"
            )


def _rank(order: Iterable[str], name: str) -> tuple[int, str]:
    """A place in an order; names that are not in it follow, sorted."""
    names = list(order)
    return (names.index(name) if name in names else len(names), name)
