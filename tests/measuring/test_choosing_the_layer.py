"""Every row of docs/choosing-the-layer.md: which layer is measured, checked against the network run by hand."""

from __future__ import annotations

import collections
import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import Network, batches_of, inputs_and_labels, loader
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse.measuring.forward import FeatureReader
from neuralcollapse.measuring.options import MeasureOptions
from neuralcollapse.measuring.preparation import prepared

N, C, D, P = 90, 3, 6, 16
LABELS = torch.arange(N) % C


def points() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, D, generator=generator) + 2 * torch.eye(C, D)[LABELS]


def batches(inputs: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    return batches_of(points() if inputs is None else inputs, LABELS, 32)


def images() -> Tensor:
    return points()[:, :, None, None] * torch.linspace(0.5, 1.5, 16).reshape(4, 4)


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, P), nn.ReLU())


def same_numbers(
    report: nc.Report, features: Tensor, weight: Tensor | None, bias: Tensor | None = None, **options
) -> None:
    """Whether the report has the numbers of these features and that classifier, to float32's rounding."""
    bias = None if bias is None else bias.detach()
    weight = None if weight is None else weight.detach()
    want = nc.measure_features(features.detach(), LABELS, weight, bias, **options).to_dict()
    got = report.to_dict()
    assert got.keys() == want.keys()
    for name, value in want.items():
        if isinstance(value, (float, list)) and name != "notes":
            assert got[name] == pytest.approx(value, rel=2e-4, abs=1e-5), name
        elif name not in ("layer", "notes"):
            assert got[name] == value, name


def run(model: nn.Module, inputs: Tensor) -> Any:
    model.eval()
    with torch.no_grad():
        return model(inputs)


# --- heads that are found ---


class Cosine(nn.Module):
    """s · cos(w, h), as of NormFace, CosFace and ArcFace at test time."""

    def __init__(self, dim: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(classes, dim)), scale

    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))


@pytest.mark.parametrize(("scale", "dim"), [(16.0, 8), (30.0, 5), (1.0, 16)])
def test_a_cosine_head_is_measured_with_unit_features_and_rows(scale: float, dim: int) -> None:
    model = nn.Sequential(body(), nn.Linear(P, dim), Cosine(dim, C, scale))
    report = nc.measure(model, batches())
    features = F.normalize(run(model[:2], points()))
    same_numbers(report, features, scale * F.normalize(model[2].weight))
    assert report.layer == "2"
    assert f"cosine classifier: logits are {scale:g} cos(w, h)" in report.notes[0]
    assert "cosine classifier" in str(report) and report.to_dict()["notes"] == list(report.notes)


class InsideOut(nn.Module):
    """Normalised features into a plain layer with unit rows, the scale outside."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = body(), nn.Linear(P, C, bias=False)
        self.fc.weight.data = F.normalize(self.fc.weight.data)

    def forward(self, inputs: Tensor) -> Tensor:
        return 20.0 * self.fc(F.normalize(self.body(inputs)))


def test_a_scale_after_the_layer_belongs_to_the_classifier() -> None:
    model = InsideOut()
    report = nc.measure(model, batches())
    same_numbers(report, F.normalize(run(model.body, points())), 20 * model.fc.weight)
    assert "20 times W h + b" in report.notes[0]


class Adapted(nn.Module):
    """W h + b + B A h: an adapter around the classifier, as LoRA's."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.base, self.down = layer, nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.base(features) + 4.0 * self.up(self.down(features))


def test_an_adapter_on_the_classifier_is_part_of_it() -> None:
    model = nn.Sequential(body(), Adapted(nn.Linear(P, C)))
    report = nc.measure(model, batches())
    head = model[1]
    weight = head.base.weight + 4.0 * head.up.weight @ head.down.weight
    same_numbers(report, run(model[0], points()), weight, head.base.bias)
    assert report.layer == "1" and "effective weight" in report.notes[0]


class Transposed(nn.Module):
    """x W + b with W (p, C), as Transformers' Conv1D keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.offset = nn.Parameter(torch.randn(P, C)), nn.Parameter(torch.randn(C))

    def forward(self, features: Tensor) -> Tensor:
        return features @ self.matrix + self.offset


class Doubled(nn.Linear):
    """A subclass whose output is not that of its weight alone."""

    def forward(self, input: Tensor) -> Tensor:
        return 2.0 * super().forward(input)


OTHER_LINEAR: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], tuple[Tensor, Tensor]]]] = {
    "own-module": (Transposed, lambda head: (head.matrix.T, head.offset)),
    "subclass": (lambda: Doubled(P, C), lambda head: (2 * head.weight, 2 * head.bias)),
    "weight-norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(P, C)),
        lambda head: (head.weight, head.bias),
    ),
    "spectral-norm": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(P, C)),
        lambda head: (head.weight, head.bias),
    ),
    "lazy": (lambda: nn.LazyLinear(C), lambda head: (head.weight, head.bias)),
}


@pytest.mark.parametrize("name", OTHER_LINEAR)
def test_other_linear_layers_are_measured_by_what_they_do(name: str) -> None:
    make, of = OTHER_LINEAR[name]
    model = nn.Sequential(body(), make())
    model(points())
    report = nc.measure(model, batches())
    weight, bias = of(model.eval()[1])
    same_numbers(report, run(model[0], points()), weight, bias)
    assert report.layer == "1"


class SqueezeExcite(nn.Module):
    """Linear layers inside a block, and a 1 × 1 convolution as the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up, self.head = nn.Linear(D, 4), nn.Linear(4, D), nn.Conv2d(D, C, 1)

    def features(self, inputs: Tensor) -> Tensor:
        gates = torch.sigmoid(self.up(F.relu(self.down(inputs.mean((2, 3))))))
        return F.adaptive_avg_pool2d(inputs * gates[..., None, None], 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.features(inputs)).flatten(1)


def test_a_convolution_on_pooled_features_is_found_behind_squeeze_and_excitation() -> None:
    model = SqueezeExcite()
    report = nc.measure(model, batches(images()))
    same_numbers(report, model.features(images()).flatten(1), model.head.weight.flatten(1), model.head.bias)
    assert report.layer == "head"


class AveragedMap(nn.Module):
    """A fully convolutional classifier: logits at each position, then their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(D, P, 3, padding=1), nn.Conv2d(P, C, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(inputs))).mean(dim=(2, 3))


def test_a_mean_of_logits_is_the_classifier_of_mean_features() -> None:
    model = AveragedMap()
    report = nc.measure(model, batches(images()))
    features = F.relu(run(model.conv, images())).mean(dim=(2, 3))
    same_numbers(report, features, model.head.weight.flatten(1), model.head.bias)
    assert "mean over positions" in report.notes[0]


def test_a_map_of_logits_has_an_example_at_each_position() -> None:
    model = nn.Sequential(nn.Conv2d(D, P, 3, padding=1), nn.ReLU(), nn.Conv2d(P, C, 1))
    labels = torch.randint(0, C, (N, 4, 4))
    labels[0, 0, :2] = -100
    report = nc.measure(model, batches_of(images(), labels, 32))
    features = run(model[:2], images()).movedim(1, -1).reshape(-1, P)
    kept = labels.flatten() >= 0
    want = nc.measure_features(
        features[kept], labels.flatten()[kept], model[2].weight.detach().flatten(1), model[2].bias.detach()
    )
    assert report.num_examples == 16 * N - 2 and report.nc1 == pytest.approx(want.nc1, rel=1e-5)
    assert report.accuracy == want.accuracy


@dataclasses.dataclass
class Answer:
    """A data class, of which the second entry is the logits."""

    embedding: Tensor
    logits: Tensor


Named = collections.namedtuple("Named", ["logits", "other"])


class Several(nn.Module):
    """Two heads of one body, returned in some form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.body, self.fc, self.proj = form, body(), nn.Linear(P, C), nn.Linear(P, 12)

    def forward(self, inputs: Tensor) -> Any:
        hidden = self.body(inputs)
        logits, other = self.fc(hidden), self.proj(hidden)
        forms = {
            "tuple": (logits, other),
            "second": (other, logits),
            "list": [logits, other],
            "features-first": (hidden, logits),
            "dictionary": {"embedding": other, "logits": logits},
            "nested": {"heads": {"embedding": other, "logits": logits}},
            "data-class": Answer(other, logits),
            "named-tuple": Named(logits, other),
            "unit-embedding": (logits, F.normalize(other)),
            "float64": logits.double(),
            "column": logits[:, :, None, None],
            "log-softmax": F.log_softmax(logits, dim=1),
            "softmax": F.softmax(logits, dim=1),
            "tempered": logits / 0.07,
        }
        return forms[self.form]


FORMS = {
    "tuple": "also returns the output of 'proj' (Linear, 16 → 12)",
    "second": "also returns the output of 'proj'",
    "list": "also returns the output of 'proj'",
    "features-first": None,
    "dictionary": None,
    "nested": None,
    "data-class": None,
    "named-tuple": None,
    "unit-embedding": None,
    "float64": None,
    "column": None,
    "log-softmax": "returns log_softmax of W h + b",
    "softmax": "returns softmax of W h + b",
}


@pytest.mark.parametrize("form", FORMS)
def test_the_logits_are_found_among_what_a_network_returns(form: str) -> None:
    model = Several(form)
    report = nc.measure(model, batches())
    same_numbers(report, run(model.body, points()), model.fc.weight, model.fc.bias)
    note = FORMS[form]
    assert report.layer == "fc"
    assert report.notes == () if note is None else note in report.notes[0]


def test_a_temperature_belongs_to_the_classifier() -> None:
    model = Several("tempered")
    report = nc.measure(model, batches())
    same_numbers(report, run(model.body, points()), model.fc.weight / 0.07, model.fc.bias / 0.07)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_networks_of_other_precision_are_found_too(dtype: torch.dtype) -> None:
    model = nn.Sequential(body(), nn.Linear(P, 40), nn.LayerNorm(40), nn.Linear(40, C)).to(dtype)
    report = nc.measure(model, batches(points().to(dtype)))
    assert report.layer == "3" and report.notes == ()


class Autocast(nn.Module):
    """bfloat16 products inside, float32 outside: no type tells of it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = body(), nn.Linear(P, C)

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.fc(self.body(inputs))
        return logits.float()


def test_autocast_inside_the_network_is_no_other_layer() -> None:
    model = Autocast()
    assert nc.measure(model, batches()).notes == ()
    given = nc.measure(model, batches(), features="body", weight=model.fc.weight, bias=model.fc.bias)
    assert given.notes == ()


# --- heads that are refused, and the ways out ---


class Functional(nn.Module):
    """The classifier is a product in the network's own code."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.w, self.b = body(), nn.Parameter(torch.randn(C, P)), nn.Parameter(torch.randn(C))

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(self.body(inputs), self.w, self.b)


class Averaged(nn.Module):
    """Two heads of two features, averaged, as of a distilled DeiT."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.two = body(), nn.Linear(P, C), nn.Linear(P, C)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.body(inputs)
        return (self.one(hidden) + self.two(hidden.square())) / 2


class Embedding(nn.Module):
    """An embedding is returned beside the logits, which no layer gives."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first, self.body, self.embed, self.w = first, body(), nn.Linear(P, 8), nn.Parameter(torch.randn(C, 8))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        embedding = self.embed(self.body(inputs))
        logits = F.linear(F.normalize(embedding), F.normalize(self.w))
        return (embedding, logits) if self.first else (logits, embedding)


class Capped(nn.Module):
    """Logits through a tanh, as of Gemma 2."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = body(), nn.Linear(P, C)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.fc(self.body(inputs)) / 2.0) * 2.0


class Overwritten(nn.Module):
    """The layer's output is changed in place by a function of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = body(), nn.Linear(P, C)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.fc(self.body(inputs)).tanh_()


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "functional": (Functional, "'body.0' (Linear, 6 → 16)"),
    "two-averaged": (Averaged, "'one' (Linear, 16 → 3), 'two' (Linear, 16 → 3)"),
    "embedding-first": (lambda: Embedding(True), "'embed' (Linear, 16 → 8)"),
    "embedding-second": (lambda: Embedding(False), "'embed' (Linear, 16 → 8)"),
    "soft-cap": (Capped, "'fc' (Linear, 16 → 3)"),
    "in-place": (Overwritten, "'fc' (Linear, 16 → 3)"),
    "no-layer": (lambda: nn.Sequential(nn.ReLU()), "no nn.Linear ran"),
    "mlp-head": (lambda: nn.Sequential(body(), nn.Linear(P, C), nn.ReLU()), "'1' (Linear, 16 → 3)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_head_that_is_no_layer_is_refused_with_the_candidates_and_the_ways_out(name: str) -> None:
    make, candidates = REFUSED[name]
    with pytest.raises(nc.InputError) as error:
        nc.measure(make(), batches())
    text = str(error.value)
    assert candidates in text and "\n" not in text
    for way in ("layer=", "features=", "weight=", "docs/choosing-the-layer.md"):
        assert way in text


def test_features_and_weight_given_are_measured() -> None:
    model = Functional()
    want = run(model.body, points()), model.w, model.b
    for place in ("body", model.body, ("body", "output"), ("body.1", "output")):
        report = nc.measure(model, batches(), features=place, weight=model.w, bias=model.b)
        same_numbers(report, *want)
        assert report.notes == () and report.layer.startswith("output of body")
    report = nc.measure(model, batches(), features=("body.1", "input"), weight=model.w.detach().numpy(), bias=model.b)
    same_numbers(report, run(model.body[0], points()).clamp(min=-100), model.w, model.b)
    assert report.layer == "input of body.1"
    assert report.notes == ("W h + b of the weight given is not what the network returns",)


class Tied(nn.Module):
    """A language model whose classifier is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm = nn.Embedding(11, 8), nn.LayerNorm(8)

    def forward(self, ids: Tensor) -> Tensor:
        return self.norm(self.embedding(ids)) @ self.embedding.weight.T


def test_tied_embeddings_are_given_as_the_weight() -> None:
    model = Tied()
    ids = torch.randint(0, 11, (40, 6))
    with pytest.raises(nc.InputError, match=r"no nn\.Linear ran"):
        nc.measure(model, batches_of(ids, ids), next_token=True)
    report = nc.measure(model, batches_of(ids, ids), features="norm", weight=model.embedding.weight, next_token=True)
    hidden = run(nn.Sequential(model.embedding, model.norm), ids)[:, :-1].reshape(-1, 8)
    want = nc.measure_features(hidden, ids[:, 1:].flatten(), model.embedding.weight.detach())
    assert report.num_examples == 200 and report.nc1 == pytest.approx(want.nc1, rel=1e-5)
    assert report.accuracy == want.accuracy and report.notes == ()


def test_a_network_may_give_the_features_itself() -> None:
    encoder = body()
    for place in ("", encoder):
        report = nc.measure(encoder, batches(), features=place)
        same_numbers(report, run(encoder, points()), None)
        assert report.layer == "output of the network itself"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_scale_is_not_rounded_to_the_networks_half_precision(dtype: torch.dtype) -> None:
    model = InsideOut().to(dtype)
    report = nc.measure(model, batches(points().to(dtype)))
    norms = (20.0 * model.fc.weight.detach().double()).norm(dim=1)
    assert report.nc2.equinorm_classifier == pytest.approx(float(norms.std() / norms.mean()), rel=1e-3)
    assert "20 times W h + b" in report.notes[0]


@pytest.mark.parametrize("first", [True, False])
def test_cosine_logits_of_a_weight_given_are_measured_so(first: bool) -> None:
    model = Embedding(first)
    report = nc.measure(model, batches(), features="embed", weight=model.w)
    features = F.normalize(run(nn.Sequential(model.body, model.embed), points()))
    same_numbers(report, features, F.normalize(model.w))
    assert "cosine classifier: logits are 1 cos(w, h)" in report.notes[0]


@pytest.mark.parametrize("metrics", ["default", "all"])
@pytest.mark.parametrize("num_classes", [None, 5])
def test_without_a_classifier_the_rest_is_measured(num_classes: int | None, metrics: str) -> None:
    model = Functional().double()
    # the largest label comes last, so that room for it is made on the way
    order = LABELS.argsort()
    split = batches_of(points()[order].double(), LABELS[order], 32)
    report = nc.measure(model, split, features="body", num_classes=num_classes, metrics=metrics, weight_decay=0.01)
    full = nc.measure(model, split, features="body", weight=model.w, bias=model.b, weight_decay=0.01, metrics=metrics)
    for name in ("accuracy", "nc3", "nc4_mismatch"):
        assert getattr(report, name) is None
    assert report.mse.total is None and report.mse.ls_perp is None and report.nc2.equinorm_classifier is None
    assert report.num_classes == (num_classes or C)
    numbers = report.numbers()
    for name, value in full.numbers().items():
        if name in numbers and name not in ("num_classes", "mse.weight_ls_norm"):
            assert numbers[name] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), name
    assert {"nc1", "mse.ls", "mse.nc1", "nearest_mean_accuracy"} <= numbers.keys()
    assert metrics == "default" or {"cdnv", "effective_rank", "etf_error_means"} <= numbers.keys()
    assert "not measured" in str(report) and "no classifier" in report.notes[0]
    assert json.loads(json.dumps(report.to_dict()))["nc3"] is None
    features = run(model.body, points().double())
    same_numbers(nc.measure(model, split, features="body"), features, None)
    two = nc.measure(model, split, features="body", num_classes=num_classes, memory_budget=1, metrics=metrics)
    assert two.nearest_mean_accuracy == report.nearest_mean_accuracy


@pytest.mark.parametrize("weighting", ["example", "class"])
def test_room_for_more_classes_keeps_what_was_seen(weighting: Any) -> None:
    order = LABELS.argsort()
    split = batches_of(points()[order], LABELS[order], 20)
    report = nc.measure(body(), split, features="1", weighting=weighting)
    assert report.num_classes == 3 and report.moments.counts.tolist() == [30, 30, 30]


@pytest.mark.filterwarnings("ignore:W h . b of 'one' classifies")
def test_a_layer_may_be_named_whatever_the_network_returns() -> None:
    model = Averaged()
    for layer in ("one", model.one):
        report = nc.measure(model, batches(), layer=layer)
        same_numbers(report, run(model.body, points()), model.one.weight, model.one.bias)
        assert report.layer == "one" and report.notes[0] == "the output of 'one' is not what the network returns"


LAYERS: dict[str, tuple[Callable[[], nn.Module], str, Tensor]] = {
    "convolution": (SqueezeExcite, "head", images()),
    "cosine": (lambda: nn.Sequential(body(), Cosine(P, C, 7.0)), "1", points()),
    "adapter": (lambda: nn.Sequential(body(), Adapted(nn.Linear(P, C))), "1", points()),
    "holder": (lambda: nn.Sequential(body(), nn.Sequential(nn.Dropout(), nn.Linear(P, C))), "1", points()),
    "subclass": (lambda: nn.Sequential(body(), Doubled(P, C)), "1", points()),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_named_layer_of_any_kind_gives_what_is_found(name: str) -> None:
    make, layer, inputs = LAYERS[name]
    model = make()
    named = nc.measure(model, batches(inputs), layer=layer)
    found = nc.measure(model, batches(inputs))
    assert named.layer == layer
    for key, value in found.numbers().items():
        assert named.numbers()[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "body"}, r"whose output is W h \+ b of its input h, 'body' \(Sequential, 6 → 16\) is not one"),
        ({"layer": "nowhere"}, "to name a module, got 'nowhere'; the last nn.Linear ones are: body.0, fc, proj"),
        ({"layer": nn.Linear(2, 2)}, "a module of the network, got a Linear that is not"),
        ({"layer": 3}, "a module or its name, got int"),
        ({"layer": "fc", "features": "body"}, "expected layer= or features=, got both"),
        ({"weight": torch.zeros(3, 16)}, "expected features= with weight="),
        ({"features": "body", "bias": torch.zeros(3)}, "expected weight= with bias="),
        ({"features": "body", "weight": torch.zeros(3, 5)}, "to have the 5 features of weight="),
        (
            {"features": "body", "weight": torch.zeros(3)},
            r"floating classifier weight of shape \(C, p\), got \(3,\) of torch.float32",
        ),
        ({"features": "body", "weight": torch.ones(3, 16).long()}, r"got \(3, 16\) of torch.int64"),
        ({"features": ("body", "sideways")}, r"to be a module, or \(module, 'input'\)"),
        ({"features": "body", "weight": torch.ones(3, 16), "num_classes": 3}, "without a classifier"),
        ({"num_classes": 3}, "only where features= are measured"),
        ({"features": "body", "num_classes": 1}, "at least 2, got 1"),
        ({"features": "body", "num_classes": 2}, r"expected labels in 0\.\.1, got 2"),
        ({"features": "elsewhere"}, "features= to name a module, got 'elsewhere'"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(nc.InputError, match=message):
        nc.measure(Several("tuple"), batches(), **options)


def test_unpooled_features_are_refused() -> None:
    model = AveragedMap()
    with pytest.raises(nc.InputError, match=r"a row for each label, got shape \(32, 16, 4, 4\)"):
        nc.measure(model, batches(images()), features="conv")


def test_a_classifier_of_one_logit_is_refused_with_the_way_out() -> None:
    model = nn.Sequential(body(), nn.Linear(P, 1))
    split = batches_of(points(), LABELS % 2, 32)
    with pytest.raises(nc.InputError, match=r"'1' gives one logit: give features=\('1', 'input'\)"):
        nc.measure(model, split)
    weight = torch.cat([-model[1].weight.detach(), model[1].weight.detach()]) / 2
    report = nc.measure(model, split, features=("1", "input"), weight=weight)
    assert report.num_classes == 2


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated", "ignore:.*torch.jit")
def test_a_scripted_network_is_refused_and_a_scripted_part_is_not() -> None:
    model = nn.Sequential(body(), nn.Linear(P, C))
    scripted = torch.jit.script(body())
    for measure in (nc.measure, nc.measure_layers):
        with pytest.raises(nc.InputError, match="got a scripted one, Sequential"):
            measure(torch.jit.script(model), batches())
    mixed = nn.Sequential(scripted, model[1])
    report = nc.measure(mixed, batches())
    same_numbers(report, run(scripted, points()), model[1].weight, model[1].bias)
    with pytest.raises(nc.InputError, match="got a scripted one"):
        nc.measure(mixed, batches(), features="0")


@pytest.mark.parametrize("inference", [False, True])
def test_measuring_within_inference_mode_is_the_same(inference: bool) -> None:
    model = nn.Sequential(body(), nn.Linear(P, 12), nn.ReLU(inplace=True), nn.Linear(12, C))
    with torch.inference_mode(inference):
        report = nc.measure(model, batches())
    same_numbers(report, run(model[:3], points()), model[3].weight, model[3].bias)


@pytest.mark.parametrize(
    "labels", [LABELS.double() * torch.nan, LABELS.bool(), LABELS - 5, F.one_hot(LABELS, C), LABELS + 0j, LABELS[:5]]
)
def test_labels_that_are_none_are_refused_by_a_sentence_of_labels(labels: Tensor) -> None:
    model = nn.Sequential(body(), nn.Linear(P, C))
    for options in ({}, {"layer": "1"}, {"features": "0"}):
        with pytest.raises(nc.InputError, match="label"):
            nc.measure(model, [(points(), labels)], **options)


@pytest.mark.filterwarnings("ignore:the angles of NC2", "ignore:NC3 is undefined")
@pytest.mark.parametrize("make", [Averaged, lambda: nn.Sequential(body(), Adapted(nn.Linear(P, C)))])
def test_logits_of_zero_prove_one_layer_only(make: Callable[[], nn.Module]) -> None:
    model = make()
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.out_features == C:
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with pytest.raises(
        nc.InputError, match="returns, all zeros as from a classifier initialised with zeros, found several: "
    ):
        nc.measure(model, batches())
    single = nn.Sequential(body(), nn.Linear(P, C))
    nn.init.zeros_(single[1].weight)
    nn.init.zeros_(single[1].bias)
    assert nc.measure(single, batches()).layer == "1"


# --- layers whose outputs are alike, and several heads ---


class Copied(nn.Module):
    """A classifier and another of nearly its weights, which runs after it."""

    def __init__(self, apart: float, through: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.head, self.ema, self.through = body(), nn.Linear(P, C), nn.Linear(P, C), through
        self.ema.weight.data = self.head.weight.data * (1 + apart * torch.randn(C, P))
        self.ema.bias.data = self.head.bias.data.clone()

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.body(inputs)
        logits = self.head(hidden)
        self.ema(hidden)
        return self.through(logits)


@pytest.mark.parametrize("through", [lambda logits: logits, lambda logits: F.log_softmax(logits, dim=1)])
@pytest.mark.parametrize(("dtype", "apart"), [(torch.bfloat16, 0.01), (torch.float32, 1e-6)])
def test_the_layer_whose_very_output_is_returned_comes_before_a_near_copy(
    dtype: torch.dtype, apart: float, through: Callable[[Tensor], Tensor]
) -> None:
    model = Copied(apart, through).to(dtype)
    assert nc.measure(model, batches(points().to(dtype))).layer == "head"


def test_several_layers_that_come_near_what_is_returned_are_refused() -> None:
    model = Copied(1e-6, lambda logits: logits * (1 + 2e-7))
    with pytest.raises(nc.InputError, match=r"found several: 'ema' \(Linear, 16 → 3\), 'head' \(.*layer="):
        nc.measure(model, batches())
    assert nc.measure(model, batches(), layer="head").layer == "head"
    model.ema.load_state_dict(model.head.state_dict())
    assert nc.measure(model, batches()).layer in ("head", "ema"), "of the same weights either will do"


class Unrelated(nn.Module):
    """The logits are a product in the network's own code; a layer of other weights and the same bias runs too."""

    def __init__(self, classes: int, size: float, bias: float, through: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.other, self.through = body(), nn.Linear(P, classes), through
        self.w = nn.Parameter(size * torch.randn(classes, P))
        self.other.weight.data = size * torch.randn(classes, P)
        self.other.bias.data = bias * torch.randn(classes)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.body(inputs)
        self.other(hidden)
        return self.through(F.linear(hidden, self.w, self.other.bias))


UNRELATED: dict[str, tuple[int, float, float, torch.dtype, Callable[[Tensor], Tensor]]] = {
    "softmax": (100, 0.1, 0.0, torch.bfloat16, lambda logits: F.softmax(logits, dim=1)),
    "softmax-float32": (1000, 1e-3, 0.0, torch.float32, lambda logits: F.softmax(logits, dim=1)),
    "log-softmax": (1000, 1e-2, 0.0, torch.bfloat16, lambda logits: F.log_softmax(logits, dim=1)),
    "sigmoid": (C, 1e-2, 0.0, torch.bfloat16, torch.sigmoid),
    "bias": (C, 0.01, 30.0, torch.bfloat16, lambda logits: logits),
    "bias-float32": (C, 0.01, 3e4, torch.float32, lambda logits: logits),
    "bias-scaled": (C, 0.01, 30.0, torch.bfloat16, lambda logits: logits / 0.07),
}


@pytest.mark.parametrize("name", UNRELATED)
def test_what_a_bias_or_near_uniform_probabilities_share_is_no_proof(name: str) -> None:
    classes, size, bias, dtype, through = UNRELATED[name]
    torch.manual_seed(0)
    model = Unrelated(classes, size, bias, through).to(dtype)
    with pytest.raises(nc.InputError, match=r"returns as 'output', found none; the last linear layers to run were"):
        nc.measure(model, batches(points().to(dtype)))


class TwoHeads(nn.Module):
    """Two plain layers of one body, of these widths, and what is returned of them."""

    def __init__(self, first: int, second: int, form: Callable[..., Any] = lambda hidden, one, two: (one, two)) -> None:
        super().__init__()
        self.body, self.one, self.two, self.form = body(), nn.Linear(P, first), nn.Linear(P, second), form

    def forward(self, inputs: Tensor) -> Any:
        hidden = self.body(inputs)
        return self.form(hidden, self.one(hidden), self.two(hidden))


@pytest.mark.parametrize(("first", "second"), [(32, 4), (4, 8), (C, C), (4, 4)])
def test_heads_that_the_labels_do_not_tell_apart_are_refused(first: int, second: int) -> None:
    model = TwoHeads(first, second)
    listed = rf"found several: 'one' \(Linear, 16 → {first}\), 'two' \(Linear, 16 → {second}\); name the .*layer="
    with pytest.raises(nc.InputError, match=listed):
        nc.measure(model, batches())
    assert nc.measure(model, batches(), layer="two").layer == "two"
    model.form = lambda hidden, one, two: {"other": one, "logits": two}
    assert nc.measure(model, batches()).layer == "two"


def test_labels_beyond_those_that_told_the_head_stop_the_measuring() -> None:
    order = LABELS.argsort()
    split = batches_of(points()[order], LABELS[order], 50)  # the first batch has the classes 0 and 1
    with pytest.raises(nc.InputError, match=r"labels in 0\.\.1, as of the first batch, by which .* got 2: name the"):
        nc.measure(TwoHeads(2, C), split)
    with pytest.raises(nc.InputError, match="found several: 'one'"):
        nc.measure(TwoHeads(12, C), split)


@pytest.mark.parametrize(
    "form",
    [
        lambda hidden, one, two: (two, hidden),
        lambda hidden, one, two: (hidden, two),
        lambda hidden, one, two: (two, F.softmax(two, dim=1)),
    ],
)
def test_logits_beside_their_features_or_probabilities_need_no_labels(form: Callable[..., Any]) -> None:
    model = TwoHeads(12, 8, form)
    report = nc.measure(model, batches())
    assert report.layer == "two" and report.num_classes == 8


def test_an_embedding_that_a_layer_gives_is_no_head_of_its_own() -> None:
    class Embeds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.fc = nn.Linear(D, 12), nn.Linear(12, 8)

        def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
            embedding = self.embed(inputs)
            return embedding, self.fc(embedding)

    assert nc.measure(Embeds(), batches()).layer == "fc"


# --- said beside the number ---


def test_a_classifier_of_far_more_classes_than_labels_is_said() -> None:
    for classes in (12, 100, 1000):
        model = nn.Sequential(body(), nn.Linear(P, classes))
        with pytest.warns(UserWarning, match=f"{classes:,} classes, the labels reach only 2"):
            report = nc.measure(model, batches())
        assert "the labels reach only 2" in report.notes[-1]
    assert nc.measure(nn.Sequential(body(), nn.Linear(P, 8)), batches()).notes == ()


def test_a_layer_at_chance_under_a_network_that_is_not_is_said() -> None:
    inputs = torch.eye(C, D)[LABELS] + 0.01 * points()

    class Sees(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.aux = nn.Linear(D, C)
            self.aux.weight.data = torch.roll(torch.eye(C, D), 1, dims=0)

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.tanh(inputs[:, :C] + 0.0 * self.aux(inputs)[:, :1])

    with pytest.warns(UserWarning, match=r"which is chance; what the network returns 100\.00%"):
        report = nc.measure(Sees(), batches_of(inputs, LABELS, 32), layer="aux")
    assert report.accuracy == 0.0 and "is it the right layer?" in report.notes[-1]


# --- what is copied, and what is not kept ---


class FirstToken(nn.Module):
    """The classifier reads one position of a long sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.fc = nn.Linear(4, 4), nn.Linear(4, C)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc(self.mix(tokens)[:, 0])


@pytest.mark.parametrize("layer", [None, "fc"])
def test_features_that_are_a_view_do_not_keep_the_sequence(layer: str | None) -> None:
    loader = batches_of(torch.randn(N, 500, 4), LABELS, 30)
    with prepared(FirstToken()) as model:
        read = list(FeatureReader(model, MeasureOptions(layer=layer)).batches(loader))
    assert [batch.features["fc"].untyped_storage().nbytes() for batch in read] == [30 * 4 * 4] * 3


class Overwrites(nn.Module):
    """The features are zeroed after the classifier has read them."""

    def __init__(self, ndim: int) -> None:
        super().__init__()
        self.ndim, self.body, self.fc = ndim, nn.Linear(D, P), nn.Linear(P, C)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.body(inputs)
        logits = self.fc(hidden)
        hidden.zero_()
        return logits


@pytest.mark.parametrize("budget", [1 << 30, 1])
@pytest.mark.parametrize("options", [{}, {"layer": "fc"}, {"features": "body"}, {"features": ("fc", "input")}])
def test_features_that_the_network_overwrites_are_those_that_entered(options: dict[str, Any], budget: int) -> None:
    model = Overwrites(2)
    weights = {"weight": model.fc.weight, "bias": model.fc.bias} if "features" in options else {}
    report = nc.measure(model, batches(), memory_budget=budget, **options, **weights)
    same_numbers(report, run(model.body, points()), model.fc.weight, model.fc.bias)


def test_a_layer_that_runs_more_than_once_is_read_where_its_output_is_returned() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fc = body(), nn.Linear(P, C)

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = self.body(inputs)
            logits = self.fc(hidden)
            self.fc(hidden.square())
            return logits

    model = Twice()
    for layer in (None, "fc"):
        report = nc.measure(model, batches(), layer=layer)
        same_numbers(report, run(model.body, points()), model.fc.weight, model.fc.bias)


@pytest.mark.parametrize("options", [{}, {"layer": "1"}, {"features": "0"}])
def test_empty_batches_are_passed_over(options: dict[str, Any]) -> None:
    model = nn.Sequential(body(), nn.Linear(P, C))
    empty = (torch.zeros(0, D), torch.zeros(0).long())
    report = nc.measure(model, [empty, empty, *batches(), empty], **options)
    weights = () if "features" in options else (model[1].weight, model[1].bias)
    same_numbers(report, run(model[0], points()), *(weights or (None,)))
    with pytest.raises(nc.InputError, match="expected a loader with at least one example, got only empty batches"):
        nc.measure(model, [empty, empty], **options)


def test_a_network_that_changes_its_way_is_refused() -> None:
    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.one, self.two, self.calls = body(), nn.Linear(P, C), nn.Linear(P, C), 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            hidden = self.body(inputs)
            one, two = self.one(hidden), self.two(hidden)
            return one if self.calls < 3 else two

    for layer in (None, "one"):
        with pytest.raises(nc.InputError, match="as it did for the first, for another it did not"):
            nc.measure(Changing(), batches(), layer=layer)


def test_labels_that_are_left_out_are_left_out_without_positions_too() -> None:
    labels = LABELS.clone()
    labels[3], labels[40:44] = -100, -100
    model = nn.Sequential(body(), nn.Linear(P, C))
    report = nc.measure(model, batches_of(points(), labels, 32))
    kept = labels >= 0
    want = nc.measure_features(
        run(model[0], points())[kept], labels[kept], model[1].weight.detach(), model[1].bias.detach()
    )
    assert report.num_examples == 85 and report.nc1 == pytest.approx(want.nc1, rel=1e-5)


# --- threads ---


@pytest.mark.parametrize("wrapped", [False, True])
def test_threads_that_measure_one_model_wait_for_one_another(wrapped: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, C))
    other = nn.Sequential(model) if wrapped else model
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(24) % C
    data = [[(scale * torch.randn(24, 8, generator=generator), labels) for _ in range(12)] for scale in (1.0, 3.0)]
    alone = [nc.measure(model, part).nc1 for part in data]
    for _ in range(6):
        model.train()
        found: dict[int, float] = {}

        def work(index: int, found: dict[int, float] = found) -> None:
            found[index] = nc.measure((model, other)[index], data[index]).nc1

        threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[0], found[1]] == alone
        assert all(module.training for module in model.modules())


def test_measuring_within_measuring_does_not_wait_for_itself() -> None:
    model = nn.Sequential(body(), nn.Linear(P, C))

    class Nested:
        def __iter__(self) -> Any:
            nc.measure(model, batches())
            return iter(batches())

    assert nc.measure(model, Nested()).num_examples == N


# --- the name ---


def test_the_layer_is_named_in_print_json_and_history(tmp_path: Path) -> None:
    model = Network()
    report = nc.measure(model, loader())
    assert report.layer == "head" and "Layer: head" in str(report) and report.to_dict()["layer"] == "head"
    monitor = nc.Monitor(model, loader(), path=tmp_path / "nc.jsonl")
    monitor(1)
    assert json.loads((tmp_path / "nc.jsonl").read_text())["layer"] == "head"
    assert "layer" not in report.numbers()
    inputs, labels = inputs_and_labels()
    given = nc.measure_features(model.features(inputs), labels, model.head.weight.detach(), layer="head of Network")
    assert given.layer == "head of Network"
    assert nc.measure_features(inputs, labels).layer == "features given"
    assert nc.measure(nn.Linear(5, 3), loader()).layer == "the network itself"


def test_prefixes_of_wrappers_are_left_out() -> None:
    model = Network()
    parallel = nn.DataParallel(model)
    assert nc.measure(parallel, loader()).layer == "head"
    assert nc.measure(parallel, loader(), layer="head").layer == "head"

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = Network()

        def forward(self, inputs: Tensor) -> Tensor:
            return self.module(inputs)

    assert nc.measure(Holder(), loader()).layer == "module.head", "a part that is called so is no wrapper"


def test_the_docs_table_has_a_test_for_each_row() -> None:
    text = (Path(__file__).parents[2] / "docs" / "choosing-the-layer.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "test_" in line]
    assert len(rows) >= 15
    here = {path.name: path.read_text(encoding="utf-8") for path in Path(__file__).parents[1].rglob("test_*.py")}
    for row in rows:
        name = row.split("`")[-2]
        assert any(f"def {name}(" in source for source in here.values()), name


class TwoOutputs(nn.Module):
    """Features of two dimensions, for pictures, beside the logits of five classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.narrow, self.head = nn.Linear(D, P), nn.Linear(P, 2), nn.Linear(2, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.narrow(self.body(x).relu())
        return features, self.head(features)


def test_features_as_wide_as_the_classes_seen_are_no_logits() -> None:
    two = [(x, y % 2) for x, y in batches()]
    for data in (two, two[:1] + batches()):
        report = nc.measure(TwoOutputs(), data)
        assert (report.layer, report.dim, report.num_classes) == ("head", 2, 5)


def test_a_weight_that_is_off_by_little_is_told_of() -> None:
    """A classifier trained by the squared error has biases of 1/C, which are soon forgotten."""
    classes = 100
    frame = torch.linalg.qr(torch.randn(classes, classes))[0]
    labels = torch.arange(300) % classes
    inputs, head = frame[labels] + 0.01 * torch.randn(300, classes), nn.Linear(classes, classes)
    with torch.no_grad():
        head.weight.copy_(frame - frame.mean(0))
        head.bias.fill_(1 / classes)
    model, data = nn.Sequential(nn.Identity(), head), [(inputs, labels)]
    told = nc.measure(model, data, features="0", weight=head.weight)
    assert any("to within 1.6 % only" in note for note in told.notes)
    whole = nc.measure(model, data, features="0", weight=head.weight, bias=head.bias)
    assert not whole.notes and told.mse.ls_perp > 2 * whole.mse.ls_perp
    assert not nc.measure(model.bfloat16(), [(inputs.bfloat16(), labels)], features="0", weight=head.weight).notes
