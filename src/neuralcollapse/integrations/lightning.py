"""A Lightning callback: every number of the report, logged at the end of each training epoch.

trainer = Trainer(max_epochs=100, callbacks=[NeuralCollapse(metrics="all")])
trainer.fit(module, loader)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse.integrations._shards import shard_of
from neuralcollapse.measuring.batches import Prepared
from neuralcollapse.measuring.monitor import Monitor, check_monitor

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    raise InputError("this integration needs Lightning: pip install 'neuralcollapse[lightning]'") from None


class NeuralCollapse(Callback):
    """Measures the module on its training data and logs each number as ``nc/NAME``, for loggers and other callbacks.

    ``EarlyStopping(monitor="nc/nc1")`` works, for instance. The module's ``forward`` must give the logits; batches are
    those of :func:`neuralcollapse.measure`, after the module's own hooks have prepared and moved them as for training
    (``on_after_batch_transfer`` and its neighbours), in the trainer's precision. What such a hook augments while
    ``self.training`` holds is not augmented. Over several processes each measures its part, and all log the report on
    the whole.

    Args:
        loader: the data; by default the training data set in order, each example once. Where it is augmented, pass one
            that is not.
        every: epochs between measurements.
        **options: of :class:`neuralcollapse.Monitor` and :func:`neuralcollapse.measure`: ``metrics``, ``weight_decay``,
            ``layer``, ``path`` …

    Attributes:
        history: by measurement, the numbers and their ``epoch``, counted from 1.

    Raises:
        InputError: a period below 1, an unknown option or metric; when fitting, training data without a length and no
            loader.
    """

    def __init__(self, loader: Iterable[Any] | None = None, *, every: int = 1, **options: Any) -> None:
        check_monitor(every, options.get("path"), {name: options[name] for name in options if name != "path"})
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
        precision = trainer.precision_plugin

        def transfer(batch: Any) -> Any:
            batch = pl_module._on_before_batch_transfer(precision.convert_input(batch))
            return trainer.strategy.batch_to_device(batch)

        options = {"distributed": trainer.world_size > 1, **self._options}
        if options.get("ood") is not None:
            options["ood"] = Prepared(options["ood"], transfer, precision.forward_context)
        # the strategy's model has all the wrappers: the module itself is without its weights where they are sharded
        model = trainer.strategy.model or pl_module
        monitor = Monitor(model, Prepared(loader, transfer, precision.forward_context), **options)
        report = monitor(epoch)
        assert report is not None
        self.history += monitor.history
        pl_module.log_dict({f"nc/{name}": value for name, value in report.numbers().items()})
