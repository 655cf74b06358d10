"""Every metric at every layer, against features gathered by hooks written here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.gloo import features_of_a_shard, layers_of_a_shard, on_processes
from helpers.networks import Network, batches_of, inputs_and_labels, loader
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse.measuring.layer_outputs import axis_of
from neuralcollapse.metrics.registry import METRICS
from neuralcollapse.networks.registry import build


class Blocks(nn.Module):
    """Token features (n, T, p), blocks that give tuples, a stage that runs twice and one that does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 6)
        self.first, self.second = Block(), Block()
        self.shared = nn.Tanh()
        self.idle = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.embed(inputs[:, None, :] * torch.tensor([[[1.0], [0.5], [-0.3]]]))
        tokens = self.shared(self.first(tokens)[0])
        tokens = self.shared(self.second(tokens)[0])
        return self.head(tokens.mean(dim=1))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(6, 6)

    def forward(self, tokens: Tensor) -> tuple[Tensor, str]:
        return torch.relu(self.mix(tokens)) + tokens, "attention"


def test_an_output_is_taken_before_the_next_layer_changes_it() -> None:
    """A rectifier that works in place follows each normalisation of VGG."""
    torch.manual_seed(0)
    model = build("vgg11", num_classes=4, in_channels=1, image_size=16, width=0.05).eval()
    (images, labels), *_ = image_batches()
    report = nc.measure_layers(model, [(images, labels)], layers=["features.1"])["features.1"]
    with torch.no_grad():
        normalised = model.get_submodule("features")[:2](images).mean(dim=(2, 3))
    means = torch.stack([normalised[labels == label].mean(dim=0) for label in range(4)])
    assert float(normalised.min()) < 0
    torch.testing.assert_close(report.report.means.float(), means, rtol=1e-5, atol=1e-6)


def image_batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(48) % 4
    images = torch.randn(48, 1, 16, 16, generator=generator) + 0.3 * labels[:, None, None, None]
    return batches_of(images, labels, 10)


def gathered(model: nn.Module, batches: list[tuple[Tensor, Tensor]], name: str, reduce: Callable) -> Tensor:
    """Output of a layer over all batches, by a hook of this test's own."""
    found: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_hook(lambda _m, _a, out: found.append(reduce(out)))
    model.eval()
    with torch.no_grad():
        for inputs, _ in batches:
            model(inputs)
    handle.remove()
    return torch.cat(found)


def assert_equal(got: nc.Report, want: nc.Report) -> None:
    mine, other = got.to_dict(), want.to_dict()
    assert mine.keys() == other.keys()
    for key, value in other.items():
        if key in ("layer", "notes"):
            continue
        if isinstance(value, (float, list)):
            got_values, values = np.array(mine[key], float), np.array(value, float)  # of "inf" too
            np.testing.assert_allclose(got_values, values, rtol=1e-10, atol=1e-13, err_msg=key)
        else:
            assert mine[key] == value, key


def expected(features: Tensor, labels: Tensor, classes: int, decay: float) -> nc.Report:
    moments = nc.ClassMoments(classes)
    moments.update(features, labels)
    weight, bias = nc.least_squares_classifier(moments, decay)
    return nc.measure_features(features, labels, weight, bias, weight_decay=decay, metrics="all")


SPATIAL = {"mean": lambda out: out.mean(dim=(2, 3)), "flatten": lambda out: out.flatten(1)}


@pytest.mark.parametrize("spatial", SPATIAL)
def test_layers_of_a_residual_network_equal_their_features_measured(spatial: str) -> None:
    torch.manual_seed(0)
    model = build("resnet18", in_channels=1, num_classes=4, width=1 / 16, image_size=16).double()
    batches = [(images.double(), labels) for images, labels in image_batches()]
    names = ["layer1", "layer3.0.conv2", "layer4"]
    found = nc.measure_layers(model, batches, names, spatial=spatial, weight_decay=1e-2, metrics="all")
    assert [each.name for each in found] == [*names, "fc"]
    assert [each.probe for each in found] == [True, True, True, False]
    labels = torch.cat([labels for _, labels in batches])
    for name in names:
        features = gathered(model, batches, name, SPATIAL[spatial])
        assert_equal(found[name].report, expected(features, labels, 4, 1e-2))
    assert_equal(found["fc"].report, nc.measure(model, batches, weight_decay=1e-2, metrics="all"))
    without = {"ood", "examples", "class_scatter"}
    assert {name for name, each in METRICS.items() if not each.needs & without} <= found["layer4"].report.extra.keys()


def test_default_layers_are_the_stages_in_the_order_they_run() -> None:
    model = build("resnet18", in_channels=1, num_classes=4, width=1 / 16, image_size=16)
    names = [each.name for each in nc.measure_layers(model, image_batches(), weight_decay=1e-2)]
    assert names[-5:] == ["layer2", "layer3", "layer4", "avgpool", "fc"]
    assert names[0] == "conv1"
    assert [each.name for each in nc.measure_layers(Network(), loader())] == ["body", "neck", "head"]
    wrapped = nn.Sequential(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)))
    assert [each.name for each in nc.measure_layers(wrapped, loader())] == ["0.0", "0.1", "0.2"]


def test_tokens_and_tuples_are_averaged_and_stages_run_twice_left_out() -> None:
    torch.manual_seed(1)
    model = Blocks().double()
    inputs, labels = inputs_and_labels()
    batches = batches_of(inputs.double(), labels)
    found = nc.measure_layers(model, batches, metrics="all", weight_decay=0.1)
    assert [each.name for each in found] == ["embed", "first", "second", "head"]
    features = gathered(model, batches, "first", lambda out: out[0].mean(dim=1))
    assert_equal(found["first"].report, expected(features, labels, 3, 0.1))


def test_labels_for_each_position_make_each_position_an_example() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    inputs, labels = torch.randn(30, 7, 4, dtype=torch.float64), torch.randint(0, 3, (30, 7))
    found = nc.measure_layers(model, batches_of(inputs, labels), ["1"], metrics="all", weight_decay=0.1)
    features = gathered(model, batches_of(inputs, labels), "1", lambda out: out.flatten(0, 1))
    assert_equal(found["1"].report, expected(features, labels.flatten(), 3, 0.1))
    assert found["2"].report.num_examples == 210


def test_out_of_distribution_data_reach_every_layer() -> None:
    model = Network().double()
    inputs, labels = inputs_and_labels()
    batches, outside = batches_of(inputs.double(), labels), torch.randn(20, 5, dtype=torch.float64)
    found = nc.measure_layers(model, batches, ["body"], metrics=["nc5"], ood=list(outside.split(6)))
    moments = nc.ClassMoments(3)
    moments.update(gathered(model, batches, "body", lambda out: out), labels)
    mean = gathered(model, [(part, part) for part in outside.split(6)], "body", lambda out: out).mean(dim=0)
    cosines = torch.nn.functional.cosine_similarity(moments.means, mean[None], dim=1)
    assert found["body"].report.extra["nc5"] == pytest.approx(float(cosines.abs().mean()), rel=1e-12)


def test_one_forward_pass_a_batch_and_two_beyond_the_budget() -> None:
    model = Network()
    want = nc.measure_layers(model, loader(), ["body", "neck"])
    assert model.calls == 7
    got = nc.measure_layers(model, loader(), ["body", "neck"], memory_budget=600)
    assert model.calls == 21
    for each in want:
        assert_equal(got[each.name].report, each.report)
    with pytest.raises(nc.InputError, match="expected both passes over the loader to give the same examples"):
        nc.measure_layers(model, Changing(), ["body"], memory_budget=600)


class Changing:
    """Other examples each time."""

    def __iter__(self):
        return iter(batches_of(torch.randn(50, 5), inputs_and_labels()[1]))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["bodi"], "expected names of layers, got 'bodi' \\(did you mean 'body'"),
        ("body", r"expected a list of layers, got the text 'body': write \['body'\]"),
        ([], "expected at least one layer, got none"),
        (["idle"], "expected the layer 'idle' to run in the forward pass, it did not"),
        (["shared"], "expected the layer 'shared' to run once in each forward pass, it ran 2 times"),
    ],
)
def test_impossible_layers_are_named(layers: list[str], message: str) -> None:
    model = Network() if layers in (["bodi"], "body", []) else Blocks()
    with pytest.raises(nc.InputError, match=message):
        nc.measure_layers(model, loader(), layers)


def test_other_wrong_input_is_named() -> None:
    with pytest.raises(nc.InputError, match="expected spatial 'mean' or 'flatten', got 'max'"):
        nc.measure_layers(Network(), loader(), spatial="max")  # type: ignore[arg-type]
    with pytest.raises(
        nc.InputError, match="expected the layer 'body' to fit memory_budget = 500 bytes, its 8 features"
    ):
        nc.measure_layers(Network(), loader(), ["body"], memory_budget=500)
    with pytest.raises(nc.InputError, match="expected a loader with at least one batch, got none"):
        nc.measure_layers(Network(), [])
    with pytest.raises(nc.InputError, match="expected one of the layers body, head, got 'neck'"):
        nc.measure_layers(Network(), loader(), ["body"])["neck"]

    class Odd(Network):
        def __init__(self) -> None:
            super().__init__()
            self.words = Words()

        def forward(self, inputs: Tensor) -> Tensor:
            self.words(inputs)
            return super().forward(inputs)

    class Words(nn.Module):
        def forward(self, inputs: Tensor) -> str:
            return "words"

    with pytest.raises(nc.InputError, match=r"expected the layer 'words' to give features .*, got str"):
        nc.measure_layers(Odd(), loader(), ["words"])


@pytest.mark.parametrize("fail_at", [1, 4, 9])
def test_hooks_modes_and_random_states_are_put_back_also_after_an_exception(fail_at: int) -> None:
    model = Network()
    model.body[3].eval()
    model.fail_at = fail_at
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="the forward pass failed"):
        nc.measure_layers(model, loader(), memory_budget=600)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_table_has_a_row_a_layer_and_the_dictionary_is_json_ready() -> None:
    found = nc.measure_layers(Network(), loader(), weight_decay=1e-2)
    rows = str(found).splitlines()
    assert [row.split()[0] for row in rows[1:4]] == ["body", "neck", "head"]
    assert len(found) == 3
    assert json.loads(json.dumps(found.to_dict()))["neck"]["probe"] is True


# --- the axis of the features ---


def report_of(features: Tensor, labels: Tensor) -> nc.ClassMoments:
    moments = nc.ClassMoments(int(labels.max()) + 1)
    moments.update(features, labels)
    return moments


class ChannelsLast(nn.Module):
    """A convolution and its output with channels last, as of Swin: (n, H, W, p)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, width, 3, padding=1), nn.LayerNorm(width), nn.Linear(width, 4)
        self.stage = Permuted(self.conv, self.norm)
        self.plain = Moved()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.plain(self.stage(images))
        return self.fc(maps.mean(dim=(1, 2)))


class Permuted(nn.Module):
    def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.conv(images).permute(0, 2, 3, 1))


class Moved(nn.Module):
    """Of which nothing tells the axis."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps * 1.5


def test_channels_last_are_read_where_the_sizes_prove_them_and_refused_where_not() -> None:
    labels = torch.arange(48) % 4
    batches = image_batches()
    model = ChannelsLast(6).eval()
    found = nc.measure_layers(model, batches, ["stage", "conv", "norm"], weight_decay=0.1)
    with torch.no_grad():
        maps = torch.cat([model.stage(images) for images, _ in batches])
        first = torch.cat([model.conv(images) for images, _ in batches])
    for name, features in (
        ("stage", maps.mean(dim=(1, 2))),
        ("norm", maps.mean(dim=(1, 2))),
        ("conv", first.mean(dim=(2, 3))),
    ):
        torch.testing.assert_close(found[name].report.means, report_of(features, labels).means, rtol=1e-4, atol=1e-5)
    assert found["conv"].report.notes == ("features are axis 1 of (n, 6, 16, 16), their mean over 256 positions",)
    assert found["stage"].report.notes == ("features are axis 3 of (n, 16, 16, 6), their mean over 256 positions",)
    with pytest.raises(nc.InputError, match=r"which axis of \(n, 16, 16, 6\), the output of the layer 'plain', holds"):
        nc.measure_layers(model, batches, ["plain"])
    # as many features as rows: the sizes prove nothing any more
    with pytest.raises(nc.InputError, match=r"which axis of \(n, 16, 16, 16\), the output of the layer 'stage'"):
        nc.measure_layers(ChannelsLast(16), batches, ["stage"])
    for axis in (-1, 3, {"plain": -1}):
        given = nc.measure_layers(model, batches, ["plain"], channel_axis=axis, weight_decay=0.1)["plain"]
        assert given.report.means.shape == (4, 6)
    default = nc.measure_layers(model, batches, weight_decay=0.1)
    assert "plain" in default.left_out and "plain is left out" in str(default)
    for axis in (0, 4, -5):
        with pytest.raises(nc.InputError, match="channel_axis to be an axis of"):
            nc.measure_layers(model, batches, ["plain"], channel_axis=axis)
    with pytest.raises(nc.InputError, match="expected channel_axis by layers that are measured, got 'norm'"):
        nc.measure_layers(model, batches, ["stage", "plain"], channel_axis={"plain": -1, "norm": -1})
    with pytest.raises(nc.InputError, match="expected names of layers, got 'plane' \\(did you mean 'plain'"):
        nc.measure_layers(model, batches, ["plain"], channel_axis={"plane": 1})


class Sequence1d(nn.Module):
    """Convolutions over time, (n, p, l), then tokens (n, l, p): the same three axes, read either way."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(5, width, 3, padding=1), nn.BatchNorm1d(width), nn.ReLU(inplace=True))
        self.mix = nn.Sequential(nn.Linear(width, width), nn.GELU())
        self.norm, self.fc, self.length = Own(width), nn.Linear(width, 3), length

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.conv(inputs[:, :, None] * torch.linspace(0.5, 1.5, self.length))
        return self.fc(self.norm(self.mix(maps.transpose(1, 2))).mean(dim=1))


class MovedLast(nn.Module):
    """Channels last from here on."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1)


class Own(nn.Module):
    """A normalisation of the model's own, as Transformers' RMS norms are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.weight * tokens / tokens.square().mean(dim=-1, keepdim=True).sqrt()


@pytest.mark.parametrize(("width", "length"), [(6, 9), (8, 8), (4, 3)])
def test_three_axes_are_read_as_their_layer_has_them(width: int, length: int) -> None:
    model = Sequence1d(width, length).eval()
    inputs, labels = inputs_and_labels()
    names = ["conv.0", "conv.1", "conv.2", "conv", "mix.0", "mix.1", "mix"]
    names += ["norm"] if width != length else []
    found = nc.measure_layers(model, batches_of(inputs, labels), names, weight_decay=0.1)
    for name in names:
        axis = 2 if name.startswith("conv") else 1
        features = gathered(model, batches_of(inputs, labels), name, lambda out, axis=axis: out.mean(dim=axis))
        if name in ("conv.1", "conv.0"):
            # the rectifier works in place on what the normalisation gave
            continue
        torch.testing.assert_close(found[name].report.means, report_of(features, labels).means, rtol=1e-4, atol=1e-5)
        assert f"axis {3 - axis} of" in found[name].report.notes[0]
    if width == length:
        with pytest.raises(nc.InputError, match="the output of the layer 'norm', holds its features, nothing tells"):
            nc.measure_layers(model, batches_of(inputs, labels), ["norm"])


class Swish(nn.Module):
    """An activation of the model's own."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.sigmoid()


@pytest.mark.parametrize(
    ("last", "size", "axis"),
    [
        (Swish(), 5, 1),
        (nn.Upsample(scale_factor=2), 5, 1),
        (MovedLast(), 5, -1),
        (Swish(), 8, None),
        (MovedLast(), 8, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_a_sequence_with_a_last_module_nobody_knows_is_read_where_its_size_proves_it(
    last: nn.Module, size: int, axis: int | None
) -> None:
    """Eight channels; eight pixels a side leave open whether the last module moved them."""
    stem = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), last)
    assert axis_of(stem, stem(torch.randn(2, 3, size, size))) == axis


def test_length_before_the_batch_is_turned_round() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.fc = nn.LSTM(5, 6), nn.Linear(6, 3)
            self.attention = nn.TransformerEncoderLayer(6, 2, 8)

        def forward(self, inputs: Tensor) -> Tensor:
            tokens = inputs[None] * torch.tensor([1.0, 0.5, 0.2, -1.0])[:, None, None]
            return self.fc(self.attention(self.rnn(tokens)[0])[-1])

    model = Recurrent().eval()
    inputs, labels = inputs_and_labels()
    batches = batches_of(inputs[:48], labels[:48], 12)
    found = nc.measure_layers(model, batches, weight_decay=0.1)
    assert [each.name for each in found] == ["rnn", "attention", "fc"]
    for name, reduce in (("rnn", lambda out: out[0].mean(dim=0)), ("attention", lambda out: out.mean(dim=0))):
        features = gathered(model, batches, name, reduce)
        torch.testing.assert_close(
            found[name].report.means, report_of(features, labels[:48]).means, rtol=1e-4, atol=1e-5
        )
    with pytest.raises(nc.InputError, match="counts the examples, the network has a layer with batch_first=False"):
        nc.measure_layers(model, batches_of(inputs[:48], labels[:48], 4), ["rnn"])


def test_labels_of_positions_do_not_make_channels_of_them() -> None:
    """Maps with channels first and labels for each pixel."""
    model = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1)).eval()
    images, labels = torch.randn(20, 1, 5, 4), torch.randint(0, 3, (20, 5, 4))
    labels[0, 0, 0] = -100
    found = nc.measure_layers(model, batches_of(images, labels), ["0", "1"], weight_decay=0.1)
    with torch.no_grad():
        features = model[0](images).movedim(1, -1).reshape(-1, 6)
    kept = labels.flatten() >= 0
    torch.testing.assert_close(
        found["0"].report.means, report_of(features[kept], labels.flatten()[kept]).means, rtol=1e-4, atol=1e-5
    )
    assert found["0"].report.num_examples == found["2"].report.num_examples == 399


# --- the options of measure ---


def test_the_last_layer_takes_the_options_of_measure() -> None:
    model = Network()
    inputs, labels = inputs_and_labels()
    batches = batches_of(inputs, labels)
    for options in (
        {"layer": "neck"},
        {"features": ("head", "input"), "weight": model.head.weight, "bias": model.head.bias},
        {"features": "body"},
        {"features": "body", "num_classes": 4, "weighting": "class"},
    ):
        found = nc.measure_layers(model, batches, ["body.0"], weight_decay=0.1, **options)
        last = list(found)[-1]
        assert not last.probe and last.name == last.report.layer
        assert_equal(last.report, nc.measure(model, batches, weight_decay=0.1, **options))
        assert str(found) and json.dumps(found.to_dict())


def test_layers_are_measured_about_a_reference() -> None:
    model = Network()
    inputs, labels = inputs_and_labels()
    train, test = batches_of(inputs[:30], labels[:30]), batches_of(inputs[30:], labels[30:])
    reference = nc.measure_layers(model, train, weight_decay=0.1)
    found = nc.measure_layers(model, test, weight_decay=0.1, reference=reference)
    moments = {each.name: each.report.moments for each in reference}
    again = nc.measure_layers(model, test, weight_decay=0.1, reference=moments)
    want = nc.measure(model, test, weight_decay=0.1, reference=moments["head"])
    assert_equal(found["head"].report, want)
    for each in again:
        assert_equal(found[each.name].report, each.report)
    features = gathered(model, test, "body", lambda out: out).double()
    means = gathered(model, train, "body", lambda out: out).double()
    means = torch.stack([means[labels[:30] == label].mean(dim=0) for label in range(3)])
    spread = float((features - means[labels[30:]]).square().sum(dim=1).mean())
    around = found["body"].report.moments.around(moments["body"])
    assert around.within_variance == pytest.approx(spread, rel=1e-5)
    nearest = torch.cdist(features, means).argmin(dim=1)
    assert found["body"].report.nearest_mean_accuracy == pytest.approx(float((nearest == labels[30:]).double().mean()))
    with pytest.raises(nc.InputError, match="expected a reference with the layer 'neck', got body"):
        nc.measure_layers(model, test, reference={"body": moments["body"]})


def test_next_token_and_labels_left_out_reach_every_layer() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 7)).double()
    ids, labels = torch.randn(30, 6, 5, dtype=torch.float64), torch.randint(0, 7, (30, 6))
    labels[2, 3:] = labels[5, :2] = -100
    found = nc.measure_layers(model, batches_of(ids, labels), ["1", "2"], next_token=True, weight_decay=0.1)
    after = labels[:, 1:].flatten()
    kept = after >= 0
    for name in ("1", "2"):
        features = gathered(model, batches_of(ids, labels), name, lambda out: out)[:, :-1].reshape(-1, 6)
        assert_equal(found[name].report, expected_probe(features[kept], after[kept], 7, 0.1))
    assert found["3"].report.num_examples == int(kept.sum())


def expected_probe(features: Tensor, labels: Tensor, classes: int, decay: float) -> nc.Report:
    moments = nc.ClassMoments(classes)
    moments.update(features, labels)
    weight, bias = nc.least_squares_classifier(moments, decay)
    return nc.measure_features(features, labels, weight, bias, weight_decay=decay)


@pytest.mark.parametrize("sizes", [(30, 20), (50, 0), (0, 50)])
def test_layers_on_two_processes_equal_one(sizes: tuple[int, int], tmp_path: Path) -> None:
    on_processes(2, tmp_path, layers_of_a_shard, str(tmp_path), sizes)
    inputs, labels = inputs_and_labels()
    torch.manual_seed(0)
    want = nc.measure_layers(Network().double(), batches_of(inputs.double(), labels), weight_decay=0.1)
    for rank in (0, 1):
        got = json.loads((tmp_path / f"{rank}.json").read_text())
        assert list(got) == [each.name for each in want]
        for each in want:
            for name, value in each.report.numbers().items():
                assert got[each.name][name] == pytest.approx(value, rel=1e-9, abs=1e-12), (each.name, name)


@pytest.mark.parametrize("sizes", [(30, 20), (0, 50)])
def test_features_without_a_classifier_on_two_processes_equal_one(sizes: tuple[int, int], tmp_path: Path) -> None:
    on_processes(2, tmp_path, features_of_a_shard, str(tmp_path), sizes)
    inputs, labels = inputs_and_labels()
    order = labels.argsort()
    torch.manual_seed(0)
    batches = batches_of(inputs[order].double(), labels[order])
    want = nc.measure(Network().double(), batches, features="body", weight_decay=0.1)
    for rank in (0, 1):
        got = json.loads((tmp_path / f"{rank}.json").read_text())
        assert got["num_classes"] == 3 and got["layer"] == "output of body"
        for name, value in want.numbers().items():
            assert got[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name


class Turning(nn.Module):
    """Turns tokens for a convolution over their positions, and back."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(before, after, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2)).relu().transpose(1, 2)


def test_a_convolution_whose_tokens_are_turned_back_is_not_guessed_at() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.turning, self.fc = Turning(8, 10), nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.turning(x).mean(1))

    labels = torch.arange(30) % 3
    with pytest.raises(nc.InputError, match="the output of the layer 'turning', holds its features, nothing tells"):
        nc.measure_layers(Net(), [(torch.randn(30, 10, 8), labels)], ["turning"])
    inputs = torch.randn(30, 7, 8)  # of another length nothing else can be meant
    model = Net()
    found = nc.measure_layers(model, [(inputs, labels)], ["turning"])["turning"].report
    with torch.no_grad():
        want = nc.measure_features(model.turning(inputs).mean(1), labels)
    assert found.nc1 == pytest.approx(want.nc1, rel=1e-4)


def test_what_enters_a_layer_of_length_first_has_length_first() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.rnn, self.fc = nn.Linear(4, 6), nn.GRU(6, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.rnn(self.embed(x.transpose(0, 1)))[0][-1])

    model, labels = Net(), torch.arange(36) % 3
    inputs = torch.randn(36, 7, 4)
    data = [(inputs[start : start + 12], labels[start : start + 12]) for start in (0, 12, 24)]
    found = nc.measure_layers(model, data, ["embed"])["embed"].report
    with torch.no_grad():
        want = nc.measure_features(model.embed(inputs).mean(1), labels)
    assert found.nc1 == pytest.approx(want.nc1, rel=1e-4)
    square = [(x[:7], y[:7]) for x, y in data]
    with pytest.raises(nc.InputError, match="counts the examples, the network has a layer with batch_first=False"):
        nc.measure_layers(model, square, ["embed"])
