"""A folder of run directories as the figures and tables of a study see it: networks × data sets, for each loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse.figures.runview import RunView
from neuralcollapse.study.study_file import runs_of_study
from neuralcollapse.training import losses, protocol, reading
from neuralcollapse.training.config import LATER_FIELDS
from neuralcollapse.training.run_directory import Run
from neuralcollapse.training.wording import data_words, head_words, optimizer_words, protocol_words

NETWORKS = {"vgg": "VGG", "resnet": "ResNet", "densenet": "DenseNet"}
"""The rows, in the paper's order; other networks follow by name."""
DATASETS = ("mnist", "fashion-mnist", "cifar10", "svhn", "stl10", "cifar100", "digits")
"""The columns: the paper's five in its order, then the demo's; others follow by name."""
PAPER_EXAMPLES = {**protocol.EXAMPLES_PER_CLASS, "fashion-mnist": 6000, "cifar10": 5000, "stl10": 500}
"""Training examples of each class in the paper (MATHEMATICS, section 8)."""
PAPER_EPOCHS = 350
_NOT_THE_CELL = ("seed", "data_dir", "data_sha256", "device", "devices", "precision")
"""Runs may differ in these and share a panel: a seed draws other examples, too."""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Args:
        path: the run directory.
        config: the content of its `config.json`, with what later versions added.
        status: "finished", "running", "interrupted", "diverged", or "" before the first epoch ended.
        epoch: the last epoch trained or analysed.
        run: the history, or None when no epoch was analysed yet.
        seeds: the seeds of all runs of this cell, of which this is one.
    """

    path: Path
    config: dict[str, Any]
    status: str
    epoch: int
    run: RunView | None
    seeds: tuple[int, ...] = (0,)

    @property
    def network(self) -> str:
        """The row: the network without its depth."""
        return protocol.family(self.config["model"])

    @property
    def dataset(self) -> tuple[str, str]:
        """The column: registry name and title, for CIFAR10 and CIFAR10 (JPEG) are two data sets."""
        return self.config["dataset"], self.config.get("dataset_title", self.config["dataset"])

    @property
    def loss(self) -> str:
        """The registry name of the training loss."""
        return str(self.config["loss"])

    @property
    def seed(self) -> int:
        """The seed of this run."""
        return int(self.config.get("seed", 0))

    @property
    def epochs(self) -> int:
        """The epochs it is to be trained for."""
        return int(self.config["epochs"])

    @property
    def examples_per_class(self) -> int:
        """Training examples of a class, rounded down where classes differ; 0 where the run does not say."""
        return int(self.config.get("num_examples", 0)) // int(self.config.get("num_classes", 1))

    @property
    def model_title(self) -> str:
        """The network with its depth, as figures and tables write it."""
        model = str(self.config["model"])  # another package's network keeps the name it has there
        ours = self.network in NETWORKS and ":" not in model
        return NETWORKS[self.network] + model.removeprefix(self.network) if ours else model

    @property
    def other_depth(self) -> str:
        """Which network the paper takes on this data set, when it is another one of the same family."""
        name, _ = self.dataset
        paper = protocol.network(name, self.network)
        model = str(self.config["model"]).rpartition(":")[2].removesuffix("_bn")
        if name not in PAPER_EXAMPLES or self.network not in NETWORKS or model == paper:
            return ""
        return f"the paper's is {NETWORKS[self.network]}{paper.removeprefix(self.network)}"

    @property
    def reduced(self) -> tuple[str, ...]:
        """In what this run is less than the paper's cell beside its depth, each in a few words."""
        full = PAPER_EXAMPLES.get(self.dataset[0], 0)
        said = []
        if 0 < self.examples_per_class < full or (not full and self.config.get("examples_per_class")):
            said.append(f"{self.examples_per_class:,} a class")
        if self.config.get("test_examples_per_class"):
            said.append(f"test {self.config['test_examples_per_class']:,} a class")
        if self.config.get("width", 1) != 1:
            said.append(f"width ×{self.config['width']:g}")
        if self.epochs < PAPER_EPOCHS:
            said.append(f"{self.epochs} epochs")
        return tuple(said)

    @property
    def options(self) -> tuple[str, ...]:
        """What else it does that the paper does not: noise, imbalance, another last layer, optimiser, rate or decay."""
        words = (data_words, head_words, optimizer_words, protocol_words)
        return tuple(said for each in words for said in each(self.config))

    @property
    def departures(self) -> tuple[str, ...]:
        """All that keeps this run from being the paper's cell, in words."""
        return (*self.reduced, *self.options, *((self.other_depth,) if self.other_depth else ()))

    @property
    def unfinished(self) -> str:
        """What came between this run and its end; empty when it reached it."""
        if self.status == "finished" or (not self.status and self.epoch >= self.epochs):
            return ""
        if self.status == "diverged":
            return f"diverged after epoch {self.epoch}"
        # whether a process still runs, a directory cannot tell: it may be a copy, or the process killed
        return f"unfinished: epoch {self.epoch} of {self.epochs}"


@dataclass(frozen=True)
class Study:
    """All runs of a folder, in one order whatever the folders are called.

    Args:
        runs: every run.
        networks: the rows: those that occur, and with one of the paper's three the others, whether run or not.
        datasets: the columns that occur.
        losses: the training losses that occur.
    """

    runs: tuple[Cell, ...]
    networks: tuple[str, ...]
    datasets: tuple[tuple[str, str], ...]
    losses: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Study:
        """Read the runs of a study: those `study.json` lists, or, without it, those directly in the folder.

        Raises:
            InputError: no run is there, or nothing says which of them belong together (see `study.study_file`); a file
                is damaged, or two runs would share a panel and differ in more than their seed.
        """
        found = [_read(path) for path in runs_of_study(folder)]
        groups: dict[tuple[str, tuple[str, str], str], list[Cell]] = {}
        for cell in found:
            groups.setdefault((cell.network, cell.dataset, cell.loss), []).append(cell)
        runs: list[Cell] = []
        for group in groups.values():
            group.sort(key=lambda cell: (cell.seed, str(cell.path)))
            _same_but_for_the_seed(group, folder)
            seeds = tuple(cell.seed for cell in group)
            runs += [Cell(cell.path, cell.config, cell.status, cell.epoch, cell.run, seeds) for cell in group]
        return cls(
            tuple(sorted(runs, key=lambda cell: (_place(cell), cell.seed))),
            _rows({cell.network for cell in runs}),
            tuple(sorted({cell.dataset for cell in runs}, key=lambda pair: (_rank(DATASETS, pair[0]), pair[1]))),
            tuple(sorted({cell.loss for cell in runs}, key=lambda name: _rank(tuple(losses.LOSSES), name))),
        )

    def cell(self, network: str, dataset: tuple[str, str], loss: str) -> Cell | None:
        """The run of the lowest seed, or None where there is none."""
        wanted = (network, dataset, loss)
        return next((cell for cell in self.runs if (cell.network, cell.dataset, cell.loss) == wanted), None)

    def of_loss(self, loss: str) -> Iterable[Cell]:
        """The runs drawn for one loss: the lowest seed of each cell."""
        for dataset in self.datasets:
            for network in self.networks:
                if cell := self.cell(network, dataset, loss):
                    yield cell


def loss_title(name: str) -> str:
    """What figures and tables call a loss."""
    return losses.LOSSES[name].title if name in losses.LOSSES else name


def network_title(name: str) -> str:
    """What figures and tables call a network of any depth."""
    return NETWORKS.get(name, name)


def _read(path: Path) -> Cell:
    run = Run.open(path)
    config = reading.configuration(run, "dataset", "model", "loss", "epochs")
    status = run.status()
    view = RunView.read(path) if run.history() else None
    epoch = max(status.get("epoch", 0), view.epochs[-1] if view else 0)
    return Cell(path, {**LATER_FIELDS, **config}, status.get("status", ""), epoch, view)


def _same_but_for_the_seed(group: list[Cell], folder: Path) -> None:
    first = group[0]
    for other in group[1:]:
        keys = first.config.keys() | other.config.keys()
        fields = sorted(key for key in keys if first.config.get(key) != other.config.get(key))
        differing = [key for key in fields if key not in _NOT_THE_CELL]
        if differing or first.seed == other.seed:
            name = f"{network_title(first.network)} on {first.dataset[1]} with {loss_title(first.loss)}"
            why = f"but differ in {', '.join(differing)}" if differing else f"with the same seed, {first.seed}"
            raise InputError(
                f"{first.path} and {other.path} are both {name}, {why}; a study has one run for each and seed, "
                f"so move one of them out of {folder}"
            )
        first = other


def _rows(occurring: set[str]) -> tuple[str, ...]:
    """The networks that occur; one of the paper's brings its other two, so that what was not run is seen."""
    rows = occurring | NETWORKS.keys() if occurring & NETWORKS.keys() else occurring
    return tuple(sorted(rows, key=lambda name: _rank(tuple(NETWORKS), name)))


def _rank(order: tuple[str, ...], name: str) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def _place(cell: Cell) -> tuple[Any, ...]:
    return (
        _rank(DATASETS, cell.dataset[0]),
        cell.dataset[1],
        _rank(tuple(NETWORKS), cell.network),
        _rank(tuple(losses.LOSSES), cell.loss),
    )
