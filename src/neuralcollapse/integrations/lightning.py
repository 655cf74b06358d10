"""A Lightning callback: every number of the report, logged at the end of each training epoch.

trainer = Trainer(max_epochs=100, callbacks=[NeuralCollapse(metrics="all")])
trainer.fit(module, loader)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from neuralcollapse._checks import InputError
from neuralcollapse._errors import install
from neuralcollapse.integrations._shards import as_name, named, require_known_part, require_own_name, shard_of
from neuralcollapse.measuring.batches import PreparedLoader, require_loader
from neuralcollapse.measuring.monitor import Measurements
from neuralcollapse.measuring.options import MeasureKeywords, with_options

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    raise InputError(f"this integration needs Lightning: {install('lightning')}") from None


class NeuralCollapse(Callback):
    """Measures the module on its training data and logs the numbers, for loggers and other callbacks.

    NC1 to NC4 are ``nc/nc1`` and so on, the rest is in groups such as ``nc/means/…``, and what stays the same is logged
    once. ``EarlyStopping(monitor="nc/nc1")`` works, for instance. The module's ``forward`` must give the logits;
    batches are those of :func:`neuralcollapse.measure`, after the module's own hooks have prepared and moved them as
    for training (``on_after_batch_transfer`` and its neighbours), in the trainer's precision. A hook that augments only
    while ``self.training`` holds does not augment them.

    Over several processes each measures its part, and all log the report on the whole; beside a loader of your own say
    ``distributed=True`` where each process has a part, ``False`` where each has all.

    Attributes:
        history: by measurement, the numbers and their ``epoch``, counted from 1.
    """

    @with_options
    def __init__(
        self,
        loader: Iterable[Any] | None = None,
        *,
        every: int = 1,
        path: str | Path | None = None,
        log: Any = None,
        name: str = "",
        **options: Unpack[MeasureKeywords],
    ) -> None:
        """Check the settings.

        Args:
            loader: the data; by default the training data set, each example once, in order, or shuffled in batches like
                those of training where batch normalisation is re-estimated. Where it is augmented, pass one without.
            every: epochs between measurements.
            path: a file that gets one JSON line a measurement, see :class:`neuralcollapse.Monitor`.
            log: trackers beside the trainer's own, see :class:`neuralcollapse.Monitor`.
            name: put before what the trainer logs, as in ``test/nc/nc1``; of several of these callbacks each needs its
                own.
            **options

        Raises:
            InputError: a period below 1, an unknown or impossible option; when fitting, training data without a length
                and no loader.
        """
        if loader is not None:
            require_loader(loader)
        self._loader, self._measurements, self.name = loader, Measurements(every, path, log, options), as_name(name)
        self.history = self._measurements.history

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at what several callbacks, or several processes, share, before training."""
        if stage != "fit":  # nothing is measured then
            return
        require_known_part(self._loader, self._measurements.distributed, trainer.world_size)
        require_own_name(self, NeuralCollapse, trainer.callbacks)  # type: ignore[attr-defined]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, and log."""
        epoch = trainer.current_epoch + 1
        if not self._measurements.due(epoch):
            return
        loader = self._loader
        ranks = trainer.global_rank, trainer.world_size
        if loader is None:
            again = self._measurements.options.batch_norm == "re-estimate"
            loader = shard_of(trainer.train_dataloader, None, *ranks, shuffled=again)
        precision = trainer.precision_plugin

        def prepared(loader: Iterable[Any]) -> PreparedLoader:
            def transfer(batch: Any) -> Any:
                batch = pl_module._on_before_batch_transfer(precision.convert_input(batch))
                return trainer.strategy.batch_to_device(batch)

            return PreparedLoader(loader, transfer, precision.forward_context)

        options = self._measurements.options_for(trainer.world_size)
        options = replace(options, ood=None if options.ood is None else prepared(options.ood))
        # the strategy's model has all the wrappers: the module itself has no weights where they are sharded
        model = trainer.strategy.model or pl_module
        self._measurements.add(epoch, model, prepared(loader), options, writes=trainer.is_global_zero)
        pl_module.log_dict(named(self._measurements.tagged(), self.name))
