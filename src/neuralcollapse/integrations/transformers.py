"""A Transformers callback: every number of the report, logged at the end of each training epoch.

trainer = Trainer(model=model, args=arguments, train_dataset=dataset)
trainer.add_callback(NeuralCollapse(trainer, metrics="all"))
trainer.train()
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse.integrations._shards import shard_of
from neuralcollapse.measuring.monitor import Monitor, check_monitor

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError:
    raise InputError("this integration needs Transformers: pip install 'neuralcollapse[transformers]'") from None


class NeuralCollapse(TrainerCallback):
    """Measures the trainer's model on its training data and logs each number as ``nc/NAME``, through ``trainer.log``.

    That is where every reporter and ``trainer.state.log_history`` get them from. Classifiers of whole texts, of tokens
    and causal language models (``next_token=True``, where the vocabulary is the classes) are measured at the linear
    layer that gives their logits; decoders that classify whole texts (GPT-2, Llama) at the position they take.
    Over several processes each measures its part, and all log the report on the whole.

    Args:
        trainer: which this is then added to.
        loader: the data; by default the training data set in order, each example once.
        every: epochs between measurements.
        **options: of :class:`neuralcollapse.Monitor` and :func:`neuralcollapse.measure`: ``metrics``, ``next_token``,
            ``weight_decay``, ``layer``, ``path`` …

    Attributes:
        history: by measurement, the numbers and their ``epoch``, counted from 1.

    Raises:
        InputError: a period below 1, an unknown option or metric; when training, training data without a length and no
            loader.
    """

    def __init__(
        self, trainer: Trainer, loader: Iterable[Any] | None = None, *, every: int = 1, **options: Any
    ) -> None:
        check_monitor(every, options.get("path"), {name: options[name] for name in options if name != "path"})
        if not isinstance(trainer, Trainer):
            raise InputError(f"expected the Trainer to log through, got {type(trainer).__name__}")
        self._trainer, self._loader, self._every, self._options = trainer, loader, every, options
        self.history: list[dict[str, object]] = []

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure, and log."""
        epoch = round(state.epoch or 0)
        if epoch % self._every:
            return
        loader = self._loader
        if loader is None:
            size = args.per_device_eval_batch_size
            loader = shard_of(kwargs["train_dataloader"], size, args.process_index, args.world_size)
        # with all its wrappers: the network itself is without its weights where they are sharded
        model = self._trainer.model_wrapped
        monitor = Monitor(model, loader, **{"distributed": args.world_size > 1, **self._options})
        report = monitor(epoch)
        assert report is not None
        self.history += monitor.history
        self._trainer.log({f"nc/{name}": value for name, value in report.numbers().items()})
