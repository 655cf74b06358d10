"""What Lightning, torchmetrics and Transformers do besides the plain case: hooks, precisions, batching, pooling."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, TensorDataset

import neuralcollapse as nc
from neuralcollapse.integrations._shards import shard_of

LABELS = torch.arange(90) % 3
INPUTS = torch.randn(90, 6, generator=torch.Generator().manual_seed(2)) + 2 * torch.eye(3, 6)[LABELS]


def body() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def fit(module: Any, loader: Any, callback: Any, more: list[Any] | None = None, **options: Any) -> Any:
    import lightning

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*The number of training batches")
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            callbacks=[callback, *(more or [])],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tempfile.gettempdir(),
            **options,
        ).fit(module, loader)
    return callback.history[-1]


def lightning_module(**methods: Any) -> Any:
    """A module that learns nothing, with the hooks given."""
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = body()

        def forward(self, inputs: Tensor) -> Tensor:
            return self.net(inputs)

        def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            return cross_entropy(self(batch[0]).float(), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    return type("Hooked", (Module,), methods)()


def before(self: Any, batch: Any, _index: int) -> Any:
    return batch["image"], batch["class"]


def transfer(self: Any, batch: Any, device: torch.device, _index: int) -> Any:
    return batch[0].to(device) / 100, batch[1].to(device)


def after(self: Any, batch: Any, _index: int) -> Any:
    return batch[0].float() / 100, batch[1]


@pytest.mark.parametrize(
    ("hooks", "data"),
    [
        ({"on_before_batch_transfer": before}, [{"image": x, "class": y} for x, y in zip(INPUTS, LABELS, strict=True)]),
        ({"transfer_batch_to_device": transfer}, TensorDataset(INPUTS * 100, LABELS)),
        ({"on_after_batch_transfer": after}, TensorDataset(INPUTS * 100, LABELS)),
    ],
    ids=["before", "transfer", "after"],
)
def test_lightning_prepares_batches_by_the_modules_own_hooks(hooks: dict[str, Any], data: Any) -> None:
    module = lightning_module(**hooks)
    from neuralcollapse.integrations.lightning import NeuralCollapse

    given = None if isinstance(data, TensorDataset) else DataLoader(data, 16)
    found = fit(module, DataLoader(data, 16), NeuralCollapse(given))
    want = nc.measure(body(), [(INPUTS, LABELS)])
    assert found["nc1"] == pytest.approx(want.nc1, rel=1e-4)
    assert found["accuracy"] == want.accuracy


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "bf16-mixed", "32-true"])
def test_lightning_measures_in_every_precision(precision: str) -> None:
    module = lightning_module()
    from neuralcollapse.integrations.lightning import NeuralCollapse

    data = DataLoader(TensorDataset(INPUTS, LABELS), 16)
    found = fit(module, data, NeuralCollapse(ood=data, metrics="nc5"), precision=precision)
    want = nc.measure(body(), [(INPUTS, LABELS)])
    assert found["nc1"] == pytest.approx(want.nc1, rel=0.05 if "16" in precision else 1e-4)
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("kind", ["lightning", "transformers"])
def test_batches_of_re_estimated_statistics_are_like_those_of_training(kind: str, tmp_path: Path) -> None:
    """Of data in class order, as folders of images are; nothing tells of few classes in a batch."""
    torch.manual_seed(0)
    net, order = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)), LABELS.argsort()
    data, options = TensorDataset(INPUTS[order], LABELS[order]), {"batch_norm": "re-estimate"}
    if kind == "lightning":
        module = lightning_module()
        module.net = net
        from neuralcollapse.integrations.lightning import NeuralCollapse

        found = fit(module, DataLoader(data, 15, shuffle=True), NeuralCollapse(**options))
    else:
        transformers = pytest.importorskip("transformers", reason="transformers is not installed")
        from neuralcollapse.integrations.transformers import NeuralCollapse

        class Classifier(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = net

            def forward(self, inputs: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
                logits = self.net(inputs)
                return (
                    {"logits": logits} if labels is None else {"loss": cross_entropy(logits, labels), "logits": logits}
                )

        arguments = transformers.TrainingArguments(
            str(tmp_path), num_train_epochs=1, per_device_train_batch_size=15, per_device_eval_batch_size=90,
            learning_rate=0.0, use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        rows = [{"inputs": x, "labels": y} for x, y in data]
        trainer = transformers.Trainer(Classifier(), arguments, train_dataset=rows)
        callback = NeuralCollapse(trainer, **options)
        trainer.add_callback(callback)
        trainer.train()
        found = callback.history[-1]
    mix = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    want = nc.measure(
        net, list(zip(*(each[order][mix].split(15) for each in (INPUTS, LABELS)), strict=True)), **options
    )
    assert found["nc1"] == pytest.approx(want.nc1, rel=1e-4)
    assert len(found["notes"]) == 1


def test_two_callbacks_log_under_their_names() -> None:
    """Lightning would log the mean of both under one."""
    module = lightning_module()
    import lightning

    from neuralcollapse.integrations.lightning import NeuralCollapse

    parts = [[(INPUTS[part], LABELS[part])] for part in (slice(0, 60), slice(60, 90))]
    callbacks = [NeuralCollapse(parts[0]), NeuralCollapse(parts[1], name="test")]
    numbers: dict[str, Any] = {}

    class Keep(lightning.Callback):
        def on_fit_end(self, trainer: Any, _module: Any) -> None:
            numbers.update(trainer.callback_metrics)

    loader = DataLoader(TensorDataset(INPUTS, LABELS), 16)
    fit(module, loader, callbacks[0], more=[callbacks[1], Keep()])
    assert float(numbers["nc/nc1"]) == pytest.approx(callbacks[0].history[0]["nc1"])
    assert float(numbers["test/nc/nc1"]) == pytest.approx(callbacks[1].history[0]["nc1"])
    with pytest.raises(nc.InputError, match="a name of its own, two have ''"):
        fit(lightning_module(), loader, NeuralCollapse(), more=[NeuralCollapse(parts[1])])

    class Derived(NeuralCollapse):
        """It logs under the same names."""

    with pytest.raises(nc.InputError, match="a name of its own, two have ''"):
        fit(lightning_module(), loader, NeuralCollapse(), more=[Derived(parts[1])])
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[Derived()])
    NeuralCollapse().setup(trainer, module, "test")  # nothing is measured, and nothing refused
    with pytest.raises(nc.InputError, match="name= to be a text, got 3"):
        NeuralCollapse(name=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("length", "every", "epochs"),
    [({"num_train_epochs": 2.5}, 1, [1, 2, 3]), ({"max_steps": 2}, 1, [1]), ({"max_steps": 2}, 5, [])],
)
def test_transformers_counts_an_epoch_that_was_begun(
    length: dict[str, Any], every: int, epochs: list[int], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from neuralcollapse.integrations.transformers import NeuralCollapse

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = body()

        def forward(self, inputs: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
            logits = self.net(inputs)
            return {"loss": cross_entropy(logits, LABELS[:1].repeat(len(inputs))), "logits": logits}

    arguments = transformers.TrainingArguments(
        str(tmp_path), per_device_train_batch_size=15, learning_rate=0.0, use_cpu=True, report_to=[], disable_tqdm=True,
        save_strategy="no", **length,
    )  # fmt: skip
    rows = [{"inputs": x, "labels": y} for x, y in zip(INPUTS, LABELS, strict=True)]
    trainer = transformers.Trainer(Classifier(), arguments, train_dataset=rows)
    callback = NeuralCollapse(trainer, every=every)
    trainer.add_callback(callback)
    trainer.train()
    assert [line["epoch"] for line in callback.history] == epochs
    trainer.add_callback(NeuralCollapse(trainer, every=every))
    with pytest.raises(nc.InputError, match="a name of its own"):
        trainer.train()


class Bulk(Dataset):
    """Examples by their number, or by a list of numbers."""

    def __len__(self) -> int:
        return 90

    def __getitem__(self, which: Any) -> Any:
        return INPUTS[which], LABELS[which]


class Batched(Dataset):
    """Whole batches by their number."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, which: int) -> Any:
        return INPUTS[which * 10 : which * 10 + 10], LABELS[which * 10 : which * 10 + 10]


class Named(Dataset):
    """Examples with names."""

    def __len__(self) -> int:
        return 90

    def __getitem__(self, which: int) -> Any:
        return {"image": INPUTS[which], "class": LABELS[which]}


def together(examples: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([each["image"] for each in examples]), torch.stack([each["class"] for each in examples])


class Halves:
    """A batch sampler of one's own, which does not say how large its batches are."""

    def __iter__(self) -> Iterator[list[int]]:
        yield list(range(45))
        yield list(range(45, 90))

    def __len__(self) -> int:
        return 2


LOADERS = {
    "lists of places": lambda: DataLoader(Bulk(), None, sampler=BatchSampler(RandomSampler(range(90)), 16, True)),
    "own batches": lambda: DataLoader(Batched(), batch_size=None, shuffle=True),
    "own collate": lambda: DataLoader(Named(), 16, shuffle=True, collate_fn=together),
    "own batch sampler": lambda: DataLoader(Bulk(), batch_sampler=Halves()),
    "left out": lambda: DataLoader(Bulk(), 16, shuffle=True, drop_last=True),
    "workers": lambda: DataLoader(Bulk(), 16, num_workers=1, persistent_workers=True),
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_shards_of_every_batching_hold_each_example_once(name: str, processes: int) -> None:
    if name == "workers" and processes > 1:
        return
    loader = LOADERS[name]()
    shards = [list(shard_of(loader, None, rank, processes)) for rank in range(processes)]
    seen = torch.cat([inputs for shard in shards for inputs, _ in shard])
    assert sorted(seen[:, 0].tolist()) == sorted(INPUTS[:, 0].tolist())
    assert max(len(labels) for shard in shards for _, labels in shard) > 1


@pytest.mark.parametrize("name", ["lists of places", "own batches", "own collate", "workers"])
def test_lightning_measures_loaders_of_every_batching(name: str) -> None:
    module = lightning_module()
    from neuralcollapse.integrations.lightning import NeuralCollapse

    found = fit(module, LOADERS[name](), NeuralCollapse())
    want = nc.measure(body(), [(INPUTS, LABELS)])
    assert (found["num_examples"], found["nc1"]) == (90, pytest.approx(want.nc1, rel=1e-4))


def test_a_misspelled_option_of_a_callback_is_named_at_once() -> None:
    pytest.importorskip("lightning", reason="lightning is not installed")
    from neuralcollapse.integrations.lightning import NeuralCollapse

    with pytest.raises(nc.InputError, match="did you mean 'weight_decay'"):
        NeuralCollapse(weight_decy=0.1)
    with pytest.raises(nc.InputError, match="weight decay of at least 0, got -1"):
        NeuralCollapse(weight_decay=-1)
    with pytest.raises(nc.InputError, match="did you mean 'every'"):
        NeuralCollapse(evry=2)


# torchmetrics


def metric(**options: Any) -> Any:
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    from neuralcollapse.integrations.torchmetrics import NeuralCollapse

    torch.manual_seed(0)
    return NeuralCollapse(nn.Linear(6, 3), **options)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(0, 90, 3), slice(1, 4, 3), slice(0, 2)])
@pytest.mark.parametrize("options", [{}, {"metrics": "all"}, {"keep_features": False}])
def test_a_batch_that_cannot_be_measured_alone_is_counted(rows: slice, options: dict[str, Any]) -> None:
    called, updated = metric(**options), metric(**options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for part in (slice(0, 40), rows, slice(40, 90)):
            found = called(INPUTS[part], LABELS[part])
            updated.update(INPUTS[part], LABELS[part])
        assert found.keys() == updated.compute().keys()
    one_class = len(LABELS[rows].unique()) == 1
    assert one_class == any("a batch alone gives no numbers" in str(each.message) for each in said)
    want, got = updated.compute(), called.compute()
    assert all(torch.equal(got[name], value) or bool(value.isnan()) for name, value in want.items())
    assert got["num_examples"] == 90 + len(LABELS[rows])


def test_a_batch_alone_has_the_same_names() -> None:
    for options in ({}, {"metrics": "all"}, {"keep_features": False}, {"weighting": "class"}):
        one = metric(**options)
        with pytest.warns(UserWarning, match="a batch alone gives no numbers, NaN instead: its examples are of"):
            found = one(INPUTS[:1], LABELS[:1])
        assert all(bool(value.isnan()) for value in found.values())
        one.update(INPUTS, LABELS)
        assert list(one.compute()) == list(found)


@pytest.mark.parametrize("options", [{}, {"weighting": "class"}, {"keep_features": False}])
@pytest.mark.parametrize("as_state", [False, True])
def test_merging_is_as_seeing_both(options: dict[str, Any], as_state: bool) -> None:
    one, other, both = metric(**options), metric(**options), metric(**options)
    one.update(INPUTS[:50], LABELS[:50])
    other.update(INPUTS[50:], LABELS[50:])
    one.merge_state(other.metric_state if as_state else other)
    both.update(INPUTS, LABELS)
    got, want = one.compute(), both.compute()
    for name, value in want.items():
        assert float(got[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-7), name
    assert other.counts.sum() == 40


def test_what_cannot_be_merged_is_named() -> None:
    one = metric()
    with pytest.raises(nc.InputError, match="weighting='example', keep_features=True to merge, got weighting='class'"):
        one.merge_state(metric(weighting="class"))
    with pytest.raises(nc.InputError, match=r"got none of .*means"):
        one.merge_state({"counts": one.counts})
    import torchmetrics

    with pytest.raises(nc.InputError, match="expected a NeuralCollapse metric to merge, got SumMetric"):
        one.merge_state(torchmetrics.SumMetric())


NARROWED = {
    "to(bfloat16)": lambda m: m.to(torch.bfloat16),
    "to(float16)": lambda m: m.to(torch.float16),
    "half": lambda m: m.half(),
    "float": lambda m: m.float(),
    "set_dtype": lambda m: m.set_dtype(torch.float16),
    "within a module": lambda m: nn.ModuleDict({"m": m}).to(torch.bfloat16)["m"],
}


@pytest.mark.parametrize("how", NARROWED)
def test_conversions_of_type_do_not_narrow_what_was_summed(how: str) -> None:
    one, want = metric(), metric()
    one.update(INPUTS[:50], LABELS[:50])
    one = NARROWED[how](one)
    one.update(INPUTS[50:], LABELS[50:])
    want.update(INPUTS[:50], LABELS[:50])
    want.update(INPUTS[50:], LABELS[50:])
    for name, value in want.compute().items():
        assert torch.equal(one.compute()[name], value), name
    one.reset()
    assert one.means.dtype == torch.float64


def test_it_draws_itself() -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    matplotlib.use("Agg")
    one = metric()
    steps = [one(INPUTS[part], LABELS[part]) for part in (slice(0, 40), slice(40, 90))]
    for value in (None, steps[0], steps):
        figure, _axes = one.plot(value)
        figure.canvas.draw()
        matplotlib.pyplot.close(figure)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_classifiers_of_other_precisions(dtype: torch.dtype) -> None:
    from neuralcollapse.integrations.torchmetrics import NeuralCollapse

    layer = nn.Linear(6, 3).to(dtype)
    one = NeuralCollapse(layer)
    one.update(INPUTS.to(dtype), LABELS)
    want = nc.measure_features(INPUTS.to(dtype), LABELS, layer.weight.detach(), layer.bias.detach())
    assert float(one.compute()["nc1"]) == pytest.approx(want.nc1, rel=1e-6)
    assert float(one.compute()["nc3"]) == pytest.approx(want.nc3, rel=1e-6)


def test_rounding_of_bfloat16_features_is_warned_of() -> None:
    from neuralcollapse.integrations.torchmetrics import NeuralCollapse

    features = 30.0 + torch.eye(3, 6)[LABELS] + 0.01 * INPUTS
    ones = [NeuralCollapse(nn.Linear(6, 3)) for _ in range(2)]
    for one, dtype in zip(ones, (torch.bfloat16, torch.float32), strict=True):
        for part in (slice(0, 40), slice(40, 90)):
            one.update(features[part].to(dtype), LABELS[part])
    with pytest.warns(UserWarning, match="rounding the features to bfloat16 makes or hides about .* of NC1"):
        ones[0].compute()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ones[1].compute()
    ones[1].merge_state(ones[0])
    with pytest.warns(UserWarning, match="rounding the features to bfloat16"):
        ones[1].compute()


# Transformers


def decoder(kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(1)
    small = {"vocab_size": 30, "num_labels": 3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if kind == "gpt2":
        sizes = {"n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
        return transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**small, **sizes))
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind == "llama":
        return transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**small, **sizes))
    return transformers.BertForSequenceClassification(transformers.BertConfig(**small, **sizes))


def texts(padded: str) -> tuple[Tensor, Tensor, Tensor]:
    """(token numbers, their number, labels), padded on one side."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 30, (24, 7), generator=generator)
    lengths = torch.randint(2, 8, (24,), generator=generator)
    places = torch.arange(7)
    kept = places < lengths[:, None] if padded == "right" else places >= 7 - lengths[:, None]
    return ids * kept, kept.long(), torch.arange(24) % 3


@pytest.mark.parametrize("padded", ["right", "left"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_decoder_is_measured_at_the_position_it_takes(kind: str, padded: str, dtype: torch.dtype) -> None:
    model = decoder(kind).to(dtype).eval()
    ids, mask, labels = texts(padded)
    parts = (slice(0, 16), slice(16, 24))
    rows = [
        {"input_ids": ids[part], "attention_mask": mask[part], "label": labels[part], "text": ["a"]} for part in parts
    ]
    found = nc.measure(model, rows, ood=[{"input_ids": ids, "attention_mask": mask}], metrics="nc5")
    with torch.no_grad():
        base = model.transformer if kind == "gpt2" else model.model
        hidden = base(input_ids=ids, attention_mask=mask).last_hidden_state
        last = (mask * torch.arange(7)).argmax(dim=1)
        features = hidden[torch.arange(24), last]
        want = nc.measure_features(features, labels, model.score.weight.detach())
        accuracy = (model(input_ids=ids, attention_mask=mask).logits.argmax(dim=1) == labels).float().mean()
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    assert found.num_examples == 24
    assert found.nc1 == pytest.approx(want.nc1, rel=tolerance)
    assert found.accuracy == pytest.approx(float(accuracy), abs=1e-6 if dtype == torch.float32 else 0.1)


class Averaging(nn.Module):
    """Averages the logits of all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(inputs).mean(dim=1)


class Middle(Averaging):
    """Takes the logits of one position that depends on the inputs."""

    def forward(self, inputs: Tensor) -> Tensor:
        which = inputs[:, :, 0].argmax(dim=1)
        return self.head(inputs)[torch.arange(len(inputs)), which]


def test_a_position_is_found_whatever_it_depends_on_and_an_average_too() -> None:
    inputs, labels = torch.randn(30, 5, 6), torch.arange(30) % 3
    features = inputs[torch.arange(30), inputs[:, :, 0].argmax(dim=1)]
    model = Middle()
    want = nc.measure_features(features, labels, model.head.weight.detach(), model.head.bias.detach())
    assert nc.measure(model, [(inputs, labels)]).nc1 == pytest.approx(want.nc1, rel=1e-5)
    averaging = Averaging()
    want = nc.measure_features(inputs.mean(dim=1), labels, averaging.head.weight.detach(), averaging.head.bias.detach())
    assert nc.measure(averaging, [(inputs, labels)]).nc1 == pytest.approx(want.nc1, rel=1e-5)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("unused_removed", [True, False])
def test_transformers_callback_with_extra_columns(kind: str, unused_removed: bool) -> None:
    model = decoder(kind)
    import transformers

    from neuralcollapse.integrations.transformers import NeuralCollapse

    ids, mask, labels = texts("right")
    rows = [
        {"input_ids": i, "attention_mask": m, "label": int(y), "number": 3.0}
        for i, m, y in zip(ids, mask, labels, strict=True)
    ]
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
            remove_unused_columns=unused_removed,
        )
        trainer = transformers.Trainer(model, arguments, train_dataset=rows)
        trainer.remove_callback(transformers.PrinterCallback)
        callback = NeuralCollapse(trainer)
        trainer.add_callback(callback)
        trainer.train()
    want = nc.measure(model, [{"input_ids": ids, "attention_mask": mask, "labels": labels}])
    assert callback.history[-1]["num_examples"] == 24
    assert callback.history[-1]["nc1"] == pytest.approx(want.nc1, rel=1e-4)
