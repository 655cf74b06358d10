"""The ways of measuring that the shared tester goes through; a module of its own, so that processes can import it."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import neuralcollapse as nc
from neuralcollapse.measuring.decision_counts import DecisionCounts
from neuralcollapse.measuring.trackers import name_of_tag

Batches = list[tuple[Tensor, Tensor]]


def core(batches: Batches, layer: nn.Linear, distributed: bool = False, **options: Any) -> dict:
    """Moments and a decisions by hand."""
    moments = nc.ClassMoments(layer.out_features)
    for features, labels in batches:
        moments.update(features, labels)
    if distributed:
        moments.all_reduce()
    decisions = DecisionCounts(moments, layer.weight, layer.bias)
    for features, labels in batches:
        decisions.add(features, labels)
    if distributed:
        decisions.all_reduce()
    return nc.make_report(moments, layer.weight, layer.bias, decisions=decisions, **options).to_dict()


class Widen(nn.Module):
    """Features as they come, in the classifier's type, through the classifier."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        return self.layer(features.to(self.layer.weight.dtype))


def model(batches: Batches, layer: nn.Linear, **options: Any) -> dict:
    """nc.measure."""
    return nc.measure(Widen(layer), batches, **options).to_dict()


def small_budget(batches: Batches, layer: nn.Linear, **options: Any) -> dict:
    """nc.measure in two passes."""
    return nc.measure(Widen(layer), batches, memory_budget=1, **options).to_dict()


def monitor(batches: Batches, layer: nn.Linear, **options: Any) -> dict:
    """nc.Monitor."""
    found = nc.Monitor(Widen(layer), batches, **options)
    found(1)
    return found.history[-1]


def torchmetrics(batches: Batches, layer: nn.Linear, distributed: bool = False, **options: Any) -> dict:
    """The torchmetrics metric, which finds the processes itself; computed twice, and reset before use."""
    from neuralcollapse.integrations.torchmetrics import NeuralCollapse

    metric = NeuralCollapse(layer, **options)
    for features, labels in batches[:1]:
        metric.update(features, labels)
    metric.reset()
    for features, labels in batches:
        metric.update(features, labels)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric NeuralCollapse was called before")
        first = metric.compute()
        second = metric.compute()
    assert first.keys() == second.keys()
    return first


def _whole(batches: Batches, distributed: bool) -> tuple[TensorDataset, Batches | None]:
    """The data of all processes, and this one's loader where the callback is not to make its own."""
    shards = [batches]
    if distributed:
        shards = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(shards, batches)
    features, labels = (torch.cat(part) for part in zip(*(batch for shard in shards for batch in shard), strict=True))
    return TensorDataset(features, labels), None if all(shards) else batches


def _said(loader: Batches | None) -> dict[str, bool]:
    """What a callback must be told of a loader of its own, which here has one process's part."""
    return {} if loader is None else {"distributed": True}


def lightning_callback(batches: Batches, layer: nn.Linear, distributed: bool = False, **options: Any) -> dict:
    """The Lightning callback, in an epoch that changes nothing."""
    import lightning

    from neuralcollapse.integrations.lightning import NeuralCollapse

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.widen = Widen(layer)

        def forward(self, features: Tensor) -> Tensor:
            return self.widen(features)

        def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            return cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    dataset, loader = _whole(batches, distributed)
    callback = NeuralCollapse(loader, **options, **_said(loader))
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=dist.get_world_size() if distributed else 1,
        strategy="ddp" if distributed else "auto",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tempfile.gettempdir(),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*The number of training batches")
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        trainer.fit(Module(), DataLoader(dataset, batch_size=32, shuffle=True))
    (found,) = callback.history
    for name, value in trainer.callback_metrics.items():
        wanted = float(found[name_of_tag(name)])  # type: ignore[arg-type]
        torch.testing.assert_close(float(value), wanted, rtol=1e-6, atol=1e-9, equal_nan=True)
    assert "nc/nc1" in trainer.callback_metrics
    return found


def trainer_callback(batches: Batches, layer: nn.Linear, distributed: bool = False, **options: Any) -> dict:
    """The Transformers callback, in an epoch that changes nothing."""
    import transformers

    from neuralcollapse.integrations.transformers import NeuralCollapse

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.widen = Widen(layer)

        def forward(self, features: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
            logits = self.widen(features)
            return {"logits": logits} if labels is None else {"loss": cross_entropy(logits, labels), "logits": logits}

    dataset, loader = _whole(batches, distributed)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            num_train_epochs=1,
            learning_rate=0.0,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        trainer = transformers.Trainer(
            Module(), arguments, train_dataset=[{"features": f, "labels": y} for f, y in dataset]
        )
        trainer.remove_callback(transformers.PrinterCallback)
        given = None if loader is None else [{"features": f, "labels": y} for f, y in loader]
        callback = NeuralCollapse(trainer, given, **options, **_said(loader))
        trainer.add_callback(callback)
        trainer.train()
    (found,) = callback.history
    logged = next(line for line in trainer.state.log_history if "nc/nc1" in line)
    assert logged["nc/nc1"] == found["nc1"]
    return found
