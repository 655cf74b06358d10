"""A Lightning callback: every number of the report, logged at the end of each training epoch.

trainer = Trainer(max_epochs=100, callbacks=[NeuralCollapse(metrics="all")])
trainer.fit(module, loader)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse.integrations._shards import shard_of
from neuralcollapse.metrics import chosen
from neuralcollapse.monitor import Monitor

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    raise InputError("this integration needs Lightning: pip install 'neuralcollapse[lightning]'") from None


class NeuralCollapse(Callback):
    """Measures the module on its training data and logs each number as ``nc/NAME``, for loggers and other callbacks.

    ``EarlyStopping(monitor="nc/nc1")`` works, for instance. The module's ``forward`` must give the logits; batches are
    (inputs, labels) or dictionaries with ``labels``. Over several processes each measures its part, and all log the
    report on the whole.

    Args:
        loader: the data; by default the training data set in order, each example once. Where it is augmented, pass one
            that is not.
        every: epochs between measurements.
        **options: of :class:`neuralcollapse.Monitor` and :func:`neuralcollapse.measure`: ``metrics``, ``weight_decay``,
            ``layer``, ``path`` …

    Attributes:
        history: by measurement, the numbers and their ``epoch``, counted from 1.

    Raises:
        InputError: a period below 1, an unknown metric; when fitting, training data without a length and no loader.
    """

    def __init__(self, loader: Iterable[Any] | None = None, *, every: int = 1, **options: Any) -> None:
        if every < 1:
            raise InputError(f"expected every of at least 1 epoch, got {every}")
        chosen(options.get("metrics", "default"))
        self._loader, self._every, self._options = loader, every, options
        self.history: list[dict[str, object]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, and log."""
        epoch = trainer.current_epoch + 1
        if epoch % self._every:
            return
        loader = self._loader
        if loader is None:
            loader = shard_of(trainer.train_dataloader, None, trainer.global_rank, trainer.world_size)
        monitor = Monitor(pl_module, loader, distributed=trainer.world_size > 1, **self._options)
        report = monitor(epoch)
        assert report is not None
        self.history += monitor.history
        pl_module.log_dict({f"nc/{name}": value for name, value in report.numbers().items()})
