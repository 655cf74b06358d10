"""Monitor: Neural Collapse over the epochs of a hand-written training loop."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from ._checks import InputError
from .measure import measure
from .metrics import chosen
from .report import Report


class Monitor:
    """Measures a model when called, and keeps the numbers.

    Args:
        model, loader: as for :func:`neuralcollapse.measure`; training data, unaugmented.
        every: epochs between measurements; the model is measured at those that it divides.
        path: a file that gets one JSON line a measurement, flushed at once; lines already there stay. Of several
            processes (``distributed=True``) the first writes.
        **options: of :func:`neuralcollapse.measure`.

    Raises:
        InputError: a period below 1, a folder that does not exist, an unknown metric.

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
        if every < 1:
            raise InputError(f"expected every of at least 1 epoch, got {every}")
        chosen(options.get("metrics", "default"))
        self._path = None if path is None else Path(path)
        if self._path is not None and not self._path.parent.is_dir():
            raise InputError(f"expected an existing folder for {self._path.name}, got {self._path.parent}")
        self._model, self._loader, self._every, self._options = model, loader, every, options
        self.history: list[dict[str, object]] = []

    def __call__(self, epoch: int) -> Report | None:
        """Measure, where ``epoch`` is one to measure at.

        Returns:
            The report, or None between measurements.
        """
        if epoch % self._every:
            return None
        report = measure(self._model, self._loader, **self._options)
        self.history.append({"epoch": epoch, **report.to_dict()})
        first = not self._options.get("distributed") or dist.get_rank() == 0
        if self._path is not None and first:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.history[-1]) + "\n")
        return report
