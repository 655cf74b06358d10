"""What replaces a last layer: found by measuring, with logits that are exactly W h + b of what is measured."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuralcollapse import InputError
from neuralcollapse.measuring.classifier import find_classifier
from neuralcollapse.measuring.collect import collect_outputs
from neuralcollapse.networks import heads
from neuralcollapse.networks import registry as models

IMAGES = (1, 8)  # channels, side


def network(model: str, head: str, *, width: float = 0.125, temperature: float | None = None) -> nn.Module:
    torch.manual_seed(0)
    net = models.build(model, num_classes=10, in_channels=IMAGES[0], image_size=IMAGES[1], width=width)
    if temperature is None and heads.HEADS[head].has_temperature:
        temperature = heads.default_temperature(None)
    return heads.replace(net, head, temperature, torch.zeros(1, IMAGES[0], IMAGES[1], IMAGES[1])).eval()


def measured(net: nn.Module, images: Tensor) -> tuple[nn.Linear, Tensor, Tensor]:
    """The classifier that measuring finds, the features that enter it, and the network's outputs."""
    with torch.no_grad():
        layer = find_classifier(net, lambda: net(images))
    outputs = collect_outputs(net, [(images, torch.zeros(len(images), dtype=torch.int64))], layer)
    return layer, outputs.features, outputs.logits


@pytest.mark.parametrize("head", heads.HEADS)
@pytest.mark.parametrize("model", ["mlp", "resnet18", "vgg11", "densenet40"])
def test_logits_are_the_measured_layer_of_the_measured_features(model: str, head: str) -> None:
    net, images = network(model, head), torch.randn(6, IMAGES[0], IMAGES[1], IMAGES[1])
    layer, features, logits = measured(net, images)
    by_hand = features.double() @ layer.weight.detach().double().T
    if layer.bias is not None:
        by_hand = by_hand + layer.bias.detach().double()
    torch.testing.assert_close(logits.double(), by_hand, rtol=1e-5, atol=1e-6)
    assert (layer.bias is None) == (head in ("no-bias", "normalised"))


@pytest.mark.parametrize(("classes", "features"), [(10, 64), (10, 10), (10, 9), (2, 5), (2, 1)])
def test_the_fixed_frame_has_unit_rows_at_the_simplex_angle(classes: int, features: int) -> None:
    layer = heads.fixed_etf(nn.Linear(features, classes))
    assert isinstance(layer, nn.Linear) and not layer.weight.requires_grad and layer.bias.requires_grad
    gram = (layer.weight @ layer.weight.T).double()
    expected = torch.full((classes, classes), -1 / (classes - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(gram, expected, rtol=0, atol=1e-6)
    if features >= classes:  # Zhu et al.: √(C/(C-1)) (I - 11ᵀ/C) [I 0]
        written = math.sqrt(classes / (classes - 1)) * (torch.eye(classes) - 1 / classes)
        torch.testing.assert_close(layer.weight[:, :classes], written)
        assert not layer.weight[:, classes:].any()


def test_too_few_features_for_the_frame_are_named() -> None:
    with pytest.raises(InputError, match="at least 9 features for a simplex ETF of 10 classes, got 5; raise --width"):
        network("mlp", "etf", width=5 / 512)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_normalised_head_gives_cosines_over_the_temperature(temperature: float) -> None:
    net, images = network("mlp", "normalised", temperature=temperature), torch.randn(6, 1, 8, 8)
    layer, features, logits = measured(net, images)
    own = network("mlp", "linear")
    plain, raw, _ = measured(own, images)
    cosines = nn.functional.cosine_similarity(raw[:, None], plain.weight[None].detach(), dim=2)
    torch.testing.assert_close(logits, cosines / temperature, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(layer.weight.detach().norm(dim=1), torch.full((10,), 1 / temperature))


def test_the_default_temperature_reaches_the_targets() -> None:
    assert heads.default_temperature(1.0) == 1 and heads.default_temperature(15.0) == 1 / 15
    at_simplex = torch.full((1, 10), -1 / 9 / heads.default_temperature(None))
    at_simplex[0, 0] = 1 / heads.default_temperature(None)
    assert float(at_simplex.softmax(dim=1)[0, 0]) == pytest.approx(0.9999, abs=5e-5)


@pytest.mark.parametrize("head", heads.HEADS)
def test_a_head_survives_saving_and_building_without_memory(head: str) -> None:
    net, again = network("mlp", head), network("mlp", head)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.add_(1)
    again.load_state_dict(net.state_dict())
    images = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(net(images), again(images), rtol=0, atol=0)
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in network("resnet18", head).parameters())


def test_an_unknown_head_is_named() -> None:
    arguments: Any = ("cosine", None, torch.zeros(1, 1, 8, 8))
    with pytest.raises(
        InputError, match="unknown head 'cosine'; expected one of linear, no-bias, etf, nearest-etf, normalised"
    ):
        heads.replace(nn.Linear(3, 2), *arguments)
