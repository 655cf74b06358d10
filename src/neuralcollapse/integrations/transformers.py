"""A Transformers callback: every number of the report, logged at the end of each training epoch.

trainer = Trainer(model=model, args=arguments, train_dataset=dataset)
trainer.add_callback(NeuralCollapse(trainer, metrics="all"))
trainer.train()
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Unpack

from neuralcollapse._checks import InputError
from neuralcollapse._errors import install
from neuralcollapse.integrations._shards import as_name, named, require_known_part, require_own_name, shard_of
from neuralcollapse.measuring.batches import require_loader
from neuralcollapse.measuring.monitor import Measurements
from neuralcollapse.measuring.options import MeasureKeywords, with_options

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError:
    raise InputError(f"this integration needs Transformers: {install('transformers', 'accelerate')}") from None


class NeuralCollapse(TrainerCallback):
    """Measures the trainer's model on its training data and logs the numbers through ``trainer.log``.

    Every reporter and ``trainer.state.log_history`` get the numbers from there: NC1 to NC4 as ``nc/nc1`` and so on, the
    rest in groups such as ``nc/means/…``, and what stays the same once. Classifiers of whole texts, of tokens
    and causal language models (``next_token=True``, where the vocabulary is the classes) are measured at the linear
    layer that gives their logits; decoders that classify whole texts (GPT-2, Llama) at the position they take.
    Over several processes each measures its part, and all log the report on the whole; beside a loader of your own say
    ``distributed=True`` where each process has a part, ``False`` where each has all.

    Attributes:
        history: by measurement, the numbers and their ``epoch``, counted from 1.
    """

    @with_options
    def __init__(
        self,
        trainer: Trainer,
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
            trainer: to which this callback is added afterwards.
            loader: the data; by default the training data set, each example once, in order, or shuffled in batches like
                those of training where batch normalisation is re-estimated.
            every: epochs between measurements.
            path: a file that gets one JSON line a measurement, see :class:`neuralcollapse.Monitor`.
            log: trackers beside the trainer's own, see :class:`neuralcollapse.Monitor`.
            name: put before what the trainer logs, as in ``test/nc/nc1``; of several of these callbacks each needs its
                own.
            **options

        Raises:
            InputError: a period below 1, an unknown or impossible option; when training, training data without a
                length and no loader.
        """
        if loader is not None:
            require_loader(loader)
        self._loader, self._measurements, self.name = loader, Measurements(every, path, log, options), as_name(name)
        if not isinstance(trainer, Trainer):
            raise InputError(f"expected the Trainer to log through, got {type(trainer).__name__}")
        self._trainer = trainer
        self.history = self._measurements.history

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at what several callbacks, or several processes, share."""
        require_known_part(self._loader, self._measurements.distributed, args.world_size)
        require_own_name(self, NeuralCollapse, self._trainer.callback_handler.callbacks)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure, and log."""
        epoch = math.ceil(round(state.epoch or 0, 6))  # the last one may be a part
        if not self._measurements.due(epoch):
            return
        loader, ranks = self._loader, (args.process_index, args.world_size)
        if loader is None:
            again = self._measurements.options.batch_norm == "re-estimate"
            size = args.per_device_train_batch_size if again else args.per_device_eval_batch_size
            loader = shard_of(kwargs["train_dataloader"], size, *ranks, shuffled=again)
        options = self._measurements.options_for(args.world_size)
        # with all its wrappers: the network itself has no weights where they are sharded
        first = args.process_index == 0
        self._measurements.add(epoch, self._trainer.model_wrapped, loader, options, writes=first)
        self._trainer.log(named(self._measurements.tagged(), self.name))
