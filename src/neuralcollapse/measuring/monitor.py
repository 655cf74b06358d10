"""Monitor: Neural Collapse over the epochs of a hand-written training loop."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from neuralcollapse._checks import InputError, as_count, as_path
from neuralcollapse._files import append_line
from neuralcollapse.measuring.measure import measure
from neuralcollapse.measuring.report import Report
from neuralcollapse.metrics.registry import chosen


class Monitor:
    """Measures a model when called, and keeps the numbers.

    Args:
        model, loader: as for :func:`neuralcollapse.measure`; training data, unaugmented.
        every: epochs between measurements; the model is measured at those that it divides.
        path: a file that gets one JSON line a measurement, at once, and whole or not at all; lines already there stay.
            Of several processes (``distributed=True``) the first writes.
        **options: of :func:`neuralcollapse.measure`.

    Raises:
        InputError: a period below 1, a folder that does not exist, an unknown option or metric.
            When measuring, a file that can't be written, which is an OSError too: it is as it was, and the measurement
            is in ``history`` all the same.

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

    def __init__(
        self, model: nn.Module, loader: Iterable[Any], *, every: int = 1, path: str | Path | None = None, **options: Any
    ) -> None:
        check_monitor(every, path, options)
        self._path = None if path is None else Path(path)
        self._model, self._loader, self._every, self._options = model, loader, int(every), options
        self.history: list[dict[str, object]] = []

    def __call__(self, epoch: int) -> Report | None:
        """Measure, where ``epoch`` is one to measure at.

        Returns:
            The report, or None between measurements.
        """
        epoch = as_count(epoch, "epoch", least=0)
        if epoch % self._every:
            return None
        report = measure(self._model, self._loader, **self._options)
        self.history.append({"epoch": epoch, **report.to_dict()})
        first = not self._options.get("distributed") or dist.get_rank() == 0
        if self._path is not None and first:
            append_line(self._path, self.history[-1])
        return report


def check_monitor(every: int, path: str | Path | None, options: Mapping[str, Any]) -> None:
    """Raise unless a :class:`Monitor` can be made of these, so that a mistake is told before the training."""
    as_count(every, "every", unit=" epoch")
    known = [name for name in inspect.signature(measure).parameters if name not in ("model", "loader")]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(known)}"
            raise InputError(f"expected options of nc.measure, got {name!r}; {meant}")
    chosen(options.get("metrics", "default"))
    if path is not None and as_path(path).is_dir():
        raise InputError(f"expected a file to write lines to, got the folder {path}")
    if path is not None and not as_path(path).parent.is_dir():
        raise InputError(f"expected an existing folder for {Path(path).name}, got {Path(path).parent}")
