"""Networks of Transformers, PEFT, torchvision and timm: measured at their classifier, every block found."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import neuralcollapse as nc

N, C, LENGTH, WIDTH = 24, 3, 7, 16
LABELS = torch.arange(N) % C
Batch = dict[str, Tensor]


def texts(padded: bool = True) -> list[Batch]:
    """Token numbers, half of the texts shorter and padded on the right."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, 60, (N, LENGTH), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        mask[::2, 5:] = 0
    ids[mask == 0] = 1
    return [
        {"input_ids": ids[i : i + 8], "attention_mask": mask[i : i + 8], "labels": LABELS[i : i + 8]}
        for i in range(0, N, 8)
    ]


SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 64,
    "num_labels": C,
    "pad_token_id": 1,
}
OF_GPT2 = {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "vocab_size": 64, "num_labels": C, "pad_token_id": 1}
OF_GPT2 |= {"bos_token_id": 0, "eos_token_id": 0}
OF_DISTILBERT = {"dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": 64, "num_labels": C}

Hidden = Callable[[Any, Batch], Tensor]


def last_token(hidden: Tensor, batch: Batch) -> Tensor:
    return hidden[torch.arange(len(hidden)), batch["attention_mask"].sum(dim=1) - 1]


def inputs(batch: Batch) -> Batch:
    return {key: value for key, value in batch.items() if key != "labels"}


# by name: configuration, sizes, the classifier's name, its features by the library's own parts, and the blocks
TEXT: dict[str, tuple[dict[str, Any], str, Hidden, list[str]]] = {
    "Bert": (
        SIZES,
        "classifier",
        lambda m, b: m.bert(**inputs(b)).pooler_output,
        ["bert.encoder.layer.0", "bert.encoder.layer.1"],
    ),
    "Roberta": (
        SIZES,
        "classifier.out_proj",
        lambda m, b: torch.tanh(m.classifier.dense(m.roberta(**inputs(b))[0][:, 0])),
        ["roberta.encoder.layer.0", "roberta.encoder.layer.1"],
    ),
    "DistilBert": (
        OF_DISTILBERT,
        "classifier",
        lambda m, b: torch.relu(m.pre_classifier(m.distilbert(**inputs(b))[0][:, 0])),
        ["distilbert.transformer.layer.0", "distilbert.transformer.layer.1"],
    ),
    "GPT2": (
        OF_GPT2,
        "score",
        lambda m, b: last_token(m.transformer(**inputs(b))[0], b),
        ["transformer.h.0", "transformer.h.1"],
    ),
    "Llama": (
        SIZES | {"num_key_value_heads": 2},
        "score",
        lambda m, b: last_token(m.model(**inputs(b))[0], b),
        ["model.layers.0", "model.layers.1"],
    ),
}


def text_model(name: str, task: str = "SequenceClassification") -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(**TEXT[name][0])
    return getattr(transformers, f"{name}For{task}")(config)


@pytest.mark.parametrize("name", TEXT)
def test_text_classifiers_of_transformers_are_measured_at_their_classifier(name: str) -> None:
    model = text_model(name).train()
    _, place, hidden, _ = TEXT[name]
    report = nc.measure(model, texts())
    model.eval()
    with torch.no_grad():
        features = torch.cat([hidden(model, batch) for batch in texts()])
        logits = torch.cat([model(**inputs(batch)).logits for batch in texts()])
    layer = model.get_submodule(place)
    bias = None if layer.bias is None else layer.bias.detach()
    want = nc.measure_features(features, LABELS, layer.weight.detach(), bias)
    for key, value in want.numbers().items():
        assert report.numbers()[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key
    assert report.accuracy == pytest.approx(float((logits.argmax(dim=1) == LABELS).double().mean()))
    assert report.layer == place
    one = name in ("GPT2", "Llama")
    assert one == any("one position of each example" in note for note in report.notes)


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("padded", [True, False])
def test_each_block_of_a_transformer_is_a_layer(name: str, padded: bool) -> None:
    model = text_model(name)
    found = nc.measure_layers(model, texts(padded), weight_decay=0.1)
    names = [each.name for each in found]
    blocks = TEXT[name][3]
    assert [each for each in names if each in blocks] == blocks and names[-1] == TEXT[name][1]
    model.eval()
    for block in blocks:
        outputs: list[Tensor] = []
        handle = model.get_submodule(block).register_forward_hook(
            lambda _m, _a, out, outputs=outputs: outputs.append(out[0] if isinstance(out, tuple) else out)
        )
        with torch.no_grad():
            for batch in texts(padded):
                model(**inputs(batch))
        handle.remove()
        pooled = []
        for output, batch in zip(outputs, texts(padded), strict=True):
            for row, mask in zip(output, batch["attention_mask"], strict=True):
                pooled.append(row[mask.bool()].mean(dim=0))
        moments = nc.ClassMoments(C)
        moments.update(torch.stack(pooled), LABELS)
        torch.testing.assert_close(found[block].report.means, moments.means, rtol=1e-5, atol=1e-6)
        (note,) = found[block].report.notes
        assert (
            "their mean over 7 positions where attention_mask is not 0" in note
            and note in found[block].report.to_dict()["notes"]
        )


@pytest.mark.parametrize("name", ["GPT2", "Llama"])
def test_language_models_of_transformers_are_measured_at_each_position(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(**{**TEXT[name][0], "num_labels": 2})
    suffix = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    model = getattr(transformers, name + suffix)(config)
    data = []
    for batch in texts():
        labels = batch["input_ids"].clone()
        labels[batch["attention_mask"] == 0] = -100
        data.append({**batch, "labels": labels})
    report = nc.measure(model, data, next_token=True)
    layers = nc.measure_layers(model, data, next_token=True, weight_decay=0.1)
    model.eval()
    features, labels = [], []
    with torch.no_grad():
        for batch in data:
            body = model.transformer if name == "GPT2" else model.model
            hidden = body(**inputs(batch))[0]
            for row in range(len(hidden)):
                for position in range(LENGTH - 1):
                    if batch["labels"][row, position + 1] >= 0:
                        features.append(hidden[row, position])
                        labels.append(int(batch["labels"][row, position + 1]))
    want = nc.measure_features(torch.stack(features), torch.tensor(labels), model.lm_head.weight.detach())
    assert report.layer == "lm_head" and report.num_examples == len(labels) == layers["lm_head"].report.num_examples
    assert report.nc1 == pytest.approx(want.nc1, rel=1e-3) and report.accuracy == want.accuracy
    assert layers["lm_head"].report.nc1 == pytest.approx(want.nc1, rel=1e-3)
    blocks = TEXT[name][3]
    assert [each.name for each in layers if each.name in blocks] == blocks


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("kind", ["lora", "dora", "modules-to-save", "inside"])
def test_adapters_of_peft_are_part_of_the_classifier(kind: str, trained: bool) -> None:
    peft = pytest.importorskip("peft")
    options: dict[str, Any] = {
        "lora": {"target_modules": ["query", "classifier"]},
        "dora": {"target_modules": ["query", "classifier"], "use_dora": True},
        "modules-to-save": {"target_modules": ["query"], "modules_to_save": ["classifier"]},
        "inside": {"target_modules": ["query", "value"]},
    }[kind]
    model = peft.get_peft_model(text_model("Bert"), peft.LoraConfig(r=2, lora_dropout=0.1, **options))
    if trained:
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.data.add_(0.3 * torch.randn_like(parameter))
    report = nc.measure(model, texts())
    model.eval()
    with torch.no_grad():
        features = torch.cat([model.base_model.model.bert(**inputs(batch)).pooler_output for batch in texts()])
        logits = torch.cat([model(**inputs(batch)).logits for batch in texts()])
    # the library's own merge of the adapter into the weight
    merged = model.merge_and_unload() if kind != "modules-to-save" else model.base_model.model
    layer = merged.classifier
    layer = getattr(layer, "modules_to_save", {"default": layer})["default"]
    want = nc.measure_features(features, LABELS, layer.weight.detach(), layer.bias.detach())
    for key, value in want.numbers().items():
        assert report.numbers()[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key
    assert report.accuracy == pytest.approx(float((logits.argmax(dim=1) == LABELS).double().mean()))
    assert "classifier" in report.layer
    read_off = trained and kind in ("lora", "dora")
    assert any("effective weight" in note for note in report.notes) == read_off


def images() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randn(12, 3, 64, 64, generator=generator) + LABELS[:12, None, None, None]
    return list(zip(pixels.split(6), LABELS[:12].split(6), strict=True))


# by library and network: options, the classifier's name or what the refusal names
VISION: dict[tuple[str, str], tuple[dict[str, Any], str]] = {
    ("torchvision", "resnet18"): ({}, "fc"),
    ("torchvision", "vgg11"): ({}, "classifier.6"),
    ("torchvision", "mobilenet_v3_small"): ({}, "classifier.3"),
    ("torchvision", "efficientnet_b0"): ({}, "classifier.1"),
    ("torchvision", "convnext_tiny"): ({}, "classifier.2"),
    ("torchvision", "swin_t"): ({}, "head"),
    ("torchvision", "vit_b_16"): ({"image_size": 64}, "heads.head"),
    ("torchvision", "googlenet"): ({"init_weights": False}, "fc"),
    ("torchvision", "squeezenet1_1"): ({}, "refused"),
    ("timm", "resnet18"): ({}, "fc"),
    ("timm", "vit_tiny_patch16_224"): ({"img_size": 64}, "head"),
    ("timm", "convnext_atto"): ({}, "head.fc"),
    ("timm", "mobilenetv3_small_050"): ({}, "classifier"),
    ("timm", "efficientnet_b0"): ({}, "classifier"),
    ("timm", "swin_tiny_patch4_window7_224"): ({"img_size": 64, "window_size": 2}, "head.fc"),
    ("timm", "mixer_s32_224"): ({"img_size": 64}, "head"),
    ("timm", "dpn48b"): ({}, "classifier"),
    ("timm", "deit_tiny_distilled_patch16_224"): ({"img_size": 64}, "refused"),
}


@pytest.mark.filterwarnings("ignore:NC1 is infinite")  # of networks that were never trained, features barely differ
@pytest.mark.parametrize(("library", "name"), VISION)
def test_networks_of_torchvision_and_timm_are_measured_at_their_classifier(library: str, name: str) -> None:
    """torchvision imports beside few builds of PyTorch; where it does not, these are skipped."""
    models = pytest.importorskip(library, exc_type=ImportError)
    options, place = VISION[library, name]
    if library == "torchvision":
        model = getattr(importlib.import_module("torchvision.models"), name)(num_classes=C, **options)
    else:
        model = models.create_model(name, num_classes=C, **options)
    for parameter in model.parameters():
        if not bool(parameter.any()):  # some libraries start the classifier at zero
            nn.init.normal_(parameter, std=0.1)
    if place == "refused":
        with pytest.raises(nc.InputError, match="expected a layer whose output is what"):
            nc.measure(model, images())
        return
    report = nc.measure(model, images())
    assert report.layer == place and report.num_classes == C
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(pixels) for pixels, _ in images()])
    assert report.accuracy == pytest.approx(float((logits.argmax(dim=1) == LABELS[:12]).double().mean()))
    layers = nc.measure_layers(model, images(), weight_decay=0.1)
    blocks = {"vit_b_16": 12, "vit_tiny_patch16_224": 12, "swin_tiny_patch4_window7_224": 12}.get(name, 2)
    assert len(layers) > blocks and list(layers)[-1].name == place
