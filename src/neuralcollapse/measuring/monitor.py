"""Monitor: Neural Collapse over the epochs of a hand-written training loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import torch.distributed as dist
from torch import nn

from neuralcollapse._checks import InputError, as_count, as_path
from neuralcollapse._files import append_line
from neuralcollapse.measuring.batches import require_loader
from neuralcollapse.measuring.measure import measure
from neuralcollapse.measuring.options import MeasureKeywords, MeasureOptions, with_options
from neuralcollapse.measuring.report import Report
from neuralcollapse.measuring.trackers import Tracking, tagged


class Measurements:
    """Measurements at every so many epochs, kept and written: what :class:`Monitor` and the callbacks share.

    Args:
        every: epochs between measurements; path: of a file that gets a JSON line a measurement, or None; log: trackers.
        options: of :func:`neuralcollapse.measure`.

    Attributes:
        options: checked; history: by measurement, the numbers of the report and their ``epoch``.
    """

    def __init__(self, every: int, path: str | Path | None, log: Any, options: MeasureKeywords) -> None:
        self._every = as_count(every, "every", unit=" epoch")
        self.options = MeasureOptions.of(options, "nc.measure", ("every", "path", "log"))
        self.distributed = options.get("distributed")  # None where nobody said
        self._tracking = Tracking.of(log)
        self._path = None if path is None else as_path(path)
        if self._path is not None and self._path.exists() and not self._path.is_file():
            kind = "folder" if self._path.is_dir() else "device or pipe"
            raise InputError(f"expected a file to write lines to, got the {kind} {path}")
        if self._path is not None and not self._path.parent.is_dir():
            raise InputError(f"expected an existing folder for {self._path.name}, got {self._path.parent}")
        self.history: list[dict[str, object]] = []

    def due(self, epoch: int) -> bool:
        """Whether to measure after this epoch."""
        return as_count(epoch, "epoch", least=0) % self._every == 0

    def options_for(self, processes: int) -> MeasureOptions:
        """The options in a trainer of so many processes: distributed where they are several, unless it was said."""
        return replace(self.options, distributed=processes > 1 if self.distributed is None else self.distributed)

    def add(
        self, epoch: int, model: nn.Module, loader: Iterable[Any], options: MeasureOptions, *, writes: bool = True
    ) -> Report:
        """Measure, keep the numbers and, unless another process does, write them."""
        report = measure(model, loader, **vars(options))
        self.history.append({"epoch": as_count(epoch, "epoch", least=0), **report.to_dict()})
        if writes and (not options.distributed or dist.get_rank() == 0):
            if self._path is not None:
                append_line(self._path, self.history[-1])
            if self._tracking is not None:
                self._tracking.report(report, epoch)
        return report

    def tagged(self) -> dict[str, float]:
        """By tag the numbers just measured, for a trainer's own loggers; constants the first time only."""
        return tagged(self.history[-1], constants=len(self.history) == 1)


class Monitor:
    """Measures a model when called, and keeps the numbers.

    Attributes:
        history: by measurement, the numbers of the report and their ``epoch``.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> batches = [(torch.eye(4), torch.tensor([0, 1, 0, 1]))]
        >>> monitor = Monitor(nn.Sequential(nn.Linear(4, 2)), batches, every=2)
        >>> [epoch for epoch in range(1, 5) if monitor(epoch)]
        [2, 4]
        >>> [line["epoch"] for line in monitor.history]
        [2, 4]
    """

    @with_options
    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        every: int = 1,
        path: str | Path | None = None,
        log: Any = None,
        **options: Unpack[MeasureKeywords],
    ) -> None:
        """Check the settings, so that a mistake is told before the training; nothing is measured yet.

        Args:
            model: as for :func:`neuralcollapse.measure`; loader: too; give it training data, unaugmented.
            every: epochs between measurements; the model is measured at the epochs that this number divides.
            path: a file that gets a JSON line a measurement, at once, and whole or not at all; lines already there
                stay. Of several processes (``distributed=True``) the first one writes.
            log: where else the numbers go: a TensorBoard ``SummaryWriter``, a run of wandb or trackio, ``mlflow``, a
                function ``f(numbers, epoch)``, a list of these, or a :class:`neuralcollapse.Tracking` of them, which
                can add pictures. NC1 to NC4 are ``nc/nc1`` and so on, the rest is in groups such as ``nc/means/…``.
            **options

        Raises:
            InputError: a period below 1, a folder that does not exist, an unknown or impossible option, no loader, one
                that gives its batches only once.
        """
        require_loader(loader)
        self._model, self._loader = model, loader
        self._measurements = Measurements(every, path, log, options)
        self.history = self._measurements.history

    def __call__(self, epoch: int) -> Report | None:
        """Measure if ``epoch`` is one to measure at, and give the report; None between measurements.

        Raises:
            InputError: what ``measure`` refuses; or a file that can't be written, which is an OSError too: the file is
                as it was, and the measurement is in ``history`` all the same.
        """
        if not self._measurements.due(epoch):
            return None
        return self._measurements.add(epoch, self._model, self._loader, self._measurements.options)
