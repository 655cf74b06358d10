"""The networks: published sizes, torchvision's names, every image size they are used at.

Ours are the published networks for small images: a 3×3 convolution instead of the first one and its pooling, and in VGG
one linear layer instead of three. The expectations below are written for that form.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import neuralcollapse as nc
from neuralcollapse.measuring.classifier import find_classifier
from neuralcollapse.networks import registry as models

PUBLISHED = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "vgg11": 132_868_840,
    "vgg11_bn": 132_868_840,
    "vgg13": 133_053_736,
    "vgg16": 138_365_992,
    "vgg19": 143_678_248,
    "densenet121": 7_978_856,
    "densenet201": 20_013_928,
}
SMALL_WIDTH = {"densenet250": 0.1, "densenet201": 0.1, "resnet152": 0.05, "resnet101": 0.05}


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


STEM = 64 * 3 * (7**2 - 3**2)
VGG_HEAD = (7 * 7 * 512 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
SMALLER = {"resnet": STEM, "vgg": VGG_HEAD - (512 + 1) * 1000, "densenet": STEM + 2 * 64}
"""What the small form saves: of the DenseNet also the normalisation after the first convolution."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones_less_what_the_small_form_saves(name: str) -> None:
    with torch.device("meta"):
        ours = parameters(models.build(name, num_classes=1000))
    assert ours == PUBLISHED[name] - SMALLER[name.rstrip("0123456789_bn")]


@pytest.mark.parametrize(("name", "millions"), [("densenet40", 1.0), ("densenet100", 0.8), ("densenet250", 15.3)])
def test_small_densenets_have_the_published_size(name: str, millions: float) -> None:
    """Huang et al. (2017), Table 2: DenseNet (k=12, L=40), DenseNet-BC (k=12, L=100) and (k=24, L=250), C10."""
    with torch.device("meta"):
        assert round(parameters(models.build(name, num_classes=10)) / 1e6, 1) == millions


# torchvision's state_dict written out a second time, from the layer tables of the three papers: entry -> shape.
Shapes = dict[str, tuple[int, ...]]


def conv(name: str, outputs: int, inputs: int, size: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, size, size)}


def norm(name: str, channels: int) -> Shapes:
    vectors = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return vectors | {f"{name}.num_batches_tracked": ()}


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def resnet_entries(blocks: str, bottleneck: bool) -> Shapes:
    """He et al. (2016), Table 1."""
    shapes, inputs = conv("conv1", 64, 3, 3) | norm("bn1", 64), 64
    for stage, count in enumerate(blocks.split(), start=1):
        middle = {1: 64, 2: 128, 3: 256, 4: 512}[stage]
        outputs = 4 * middle if bottleneck else middle
        for block in range(int(count)):
            at = f"layer{stage}.{block}."
            chain = [(middle, 1), (middle, 3), (outputs, 1)] if bottleneck else [(middle, 3), (outputs, 3)]
            previous = inputs
            for number, (channels, size) in enumerate(chain, start=1):
                shapes |= conv(f"{at}conv{number}", channels, previous, size) | norm(f"{at}bn{number}", channels)
                previous = channels
            if block == 0 and inputs != outputs:
                shapes |= conv(f"{at}downsample.0", outputs, inputs, 1) | norm(f"{at}downsample.1", outputs)
            inputs = outputs
    return shapes | linear("fc", 1000, inputs)


def vgg_entries(column: str) -> Shapes:
    """Simonyan & Zisserman (2015), Table 1; "M" is a max-pool, and a convolution takes three places of `features`."""
    shapes: Shapes = {}
    position, inputs = 0, 3
    for word in column.split():
        if word != "M":
            at, outputs = f"features.{position}", int(word)
            shapes |= conv(at, outputs, inputs, 3) | {f"{at}.bias": (outputs,)}
            shapes |= norm(f"features.{position + 1}", outputs)
            inputs = outputs
        position += 1 if word == "M" else 3
    return shapes | linear("classifier", 1000, 512)


def densenet_entries(blocks: str, ends: str) -> Shapes:
    """Huang et al. (2017), Table 1 with k = 32; `ends` are the channels after each block."""
    shapes, inputs = conv("features.conv0", 64, 3, 3), 64
    for block, (count, end) in enumerate(zip(blocks.split(), map(int, ends.split()), strict=True), start=1):
        for layer in range(int(count)):
            at, channels = f"features.denseblock{block}.denselayer{layer + 1}.", inputs + 32 * layer
            shapes |= norm(f"{at}norm1", channels) | conv(f"{at}conv1", 128, channels, 1)
            shapes |= norm(f"{at}norm2", 128) | conv(f"{at}conv2", 32, 128, 3)
        if block < 4:
            at = f"features.transition{block}."
            shapes |= norm(f"{at}norm", end) | conv(f"{at}conv", end // 2, end, 1)
        inputs = end if block == 4 else end // 2
    return shapes | norm("features.norm5", inputs) | linear("classifier", 1000, inputs)


TORCHVISION_ENTRIES = {
    "resnet18": resnet_entries("2 2 2 2", bottleneck=False),
    "resnet34": resnet_entries("3 4 6 3", bottleneck=False),
    "resnet50": resnet_entries("3 4 6 3", bottleneck=True),
    "resnet101": resnet_entries("3 4 23 3", bottleneck=True),
    "resnet152": resnet_entries("3 8 36 3", bottleneck=True),
    "vgg11_bn": vgg_entries("64 M 128 M 256 256 M 512 512 M 512 512 M"),
    "vgg13_bn": vgg_entries("64 64 M 128 128 M 256 256 M 512 512 M 512 512 M"),
    "vgg16_bn": vgg_entries("64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"),
    "vgg19_bn": vgg_entries("64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M"),
    "densenet121": densenet_entries("6 12 24 16", "256 512 1024 1024"),
    "densenet201": densenet_entries("6 12 48 32", "256 512 1792 1920"),
}


@pytest.mark.parametrize("name", TORCHVISION_ENTRIES)
def test_the_state_dict_has_torchvisions_names_and_shapes(name: str) -> None:
    with torch.device("meta"):
        state = models.build(name, num_classes=1000).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == TORCHVISION_ENTRIES[name]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11", "densenet121"])
def test_weights_move_to_torchvision_and_give_the_same_outputs(name: str) -> None:
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    theirs = torchvision.models.get_model(name + "_bn" * (name == "vgg11"), weights=None)
    if name.startswith("resnet"):
        theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    elif name.startswith("vgg"):
        theirs.avgpool, theirs.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 1000)
    else:
        theirs.features.conv0 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        for part in ("norm0", "relu0", "pool0"):
            delattr(theirs.features, part)
    theirs, ours = theirs.eval(), models.build(name, num_classes=1000).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def small(name: str, size: int | tuple[int, int], **options: int) -> nn.Module:
    return models.build(name, image_size=size, width=SMALL_WIDTH.get(name, 0.125), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("size", [8, 32])
def test_every_network_learns_and_is_measured_on_small_images(name: str, size: int) -> None:
    net = small(name, size, num_classes=3, in_channels=1)
    images, labels = torch.randn(6, 1, size, size), torch.arange(6) % 3
    net(images[:2]).square().sum().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), key
    last = next(module for module in reversed(list(net.modules())) if isinstance(module, nn.Linear))
    assert last.weight.grad is not None and bool(last.weight.grad.any())
    report = nc.measure(net, [(images[:3], labels[:3]), (images[3:], labels[3:])])
    assert (report.num_examples, report.dim) == (6, last.in_features)


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 12), (7, 7)])
def test_tiny_and_oblong_images_fit(name: str, size: tuple[int, int]) -> None:
    """Of images too small for all its poolings a network leaves out those that would leave no pixel."""
    net = small(name, size, num_classes=3, in_channels=1)
    outputs = net(torch.randn(4, 1, *size))
    assert outputs.shape == (4, 3) and bool(outputs.isfinite().all())
    outputs.square().sum().backward()


@pytest.mark.parametrize("name", models.names())
def test_the_last_linear_layer_gives_the_logits(name: str) -> None:
    """What `nc.measure` takes for the classifier must be the layer behind the outputs, the same at every call."""
    net = small(name, 8, num_classes=3).eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        last = find_classifier(net, lambda: net(images))
        seen: list[torch.Tensor] = []
        last.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        outputs = net(images)
        assert last.out_features == 3
        assert torch.equal(outputs, seen[0])
        assert torch.equal(outputs, net(images))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11", "densenet40", "densenet201", "mlp"])
def test_large_and_coloured_images_fit(name: str) -> None:
    net = small(name, 96, num_classes=4)
    outputs = net(torch.randn(2, 3, 96, 96))
    assert outputs.shape == (2, 4)
    outputs.sum().backward()


@pytest.mark.parametrize(("name", "fan"), [("resnet18", "fan_out"), ("vgg11", "fan_out"), ("densenet201", "fan_in")])
def test_convolutions_start_as_torchvisions_do(name: str, fan: str) -> None:
    """Kaiming-normal: variance 2 / fan, where fan is entries of the kernel times the channels on that side."""
    net = models.build(name, num_classes=3, width=0.5)
    large = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 20_000]
    assert large
    for layer in large:
        channels = layer.out_channels if fan == "fan_out" else layer.in_channels
        assert layer.weight.var().item() == pytest.approx(2 / (channels * layer.weight[0, 0].numel()), rel=0.06)


@pytest.mark.parametrize("width", [0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "deviation", "zero_bias"),
    [("vgg11", 0.01, True), ("resnet18", None, False), ("densenet201", None, True)],
)
def test_classifiers_start_as_torchvisions_do(
    name: str, deviation: float | None, zero_bias: bool, width: float
) -> None:
    """VGG: N(0, 0.01²), zero bias; the others uniform within ±1/√p, PyTorch's default, DenseNet with zero bias."""
    net = models.build(name, num_classes=300, width=width)
    last = [layer for layer in net.modules() if isinstance(layer, nn.Linear)][-1]
    deviation = deviation or (3 * last.in_features) ** -0.5
    assert last.weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert abs(last.weight.mean().item()) < 5 * deviation / last.weight.numel() ** 0.5
    assert bool((last.bias == 0).all()) == zero_bias
    largest = last.weight.abs().max().item()  # of more than 70,000 entries
    if name == "vgg11":
        assert largest > 3.5 * deviation
    else:
        assert largest <= (1 + 1e-6) * last.in_features**-0.5


@pytest.mark.parametrize("width", [0.25, 0.5, 2.0])
def test_width_scales_the_features(width: float) -> None:
    with torch.device("meta"):
        assert models.build("resnet18", num_classes=2, width=width).get_submodule("fc").in_features == 512 * width


@pytest.mark.parametrize("name", models.names())
def test_the_narrowest_network_still_runs(name: str) -> None:
    net = models.build(name, num_classes=2, image_size=8, width=1e-6).eval()
    assert net(torch.randn(2, 3, 8, 8)).shape == (2, 2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "did you mean .*resnet18"),
        ("resnet18_bn", {}, "unknown network"),
        ("transformer", {}, "unknown network 'transformer'"),
        ("resnet18", {"width": 0.0}, "positive width"),
        ("resnet18", {"width": float("nan")}, "positive width"),
        ("resnet18", {"width": float("inf")}, "positive width"),
        ("resnet18", {"num_classes": 0}, "num_classes=0"),
        ("resnet18", {"in_channels": -1}, "in_channels=-1"),
        ("resnet018", {}, "unknown network 'resnet018'"),
        ("vgg11bn", {}, "did you mean 'vgg11_bn'"),
        ("", {}, "unknown network ''"),
        ("keras:resnet", {}, "unknown source"),
        ("timm:resnet18", {"width": 0.5}, "own width only"),
    ],
)
def test_wrong_requests_are_answered(name: str, options: dict, message: str) -> None:
    with pytest.raises(nc.InputError, match=message):
        models.build(name, **{"num_classes": 3, **options})


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_an_absent_package_is_named(package: str) -> None:
    try:
        __import__(package)
    except ImportError:
        with pytest.raises(nc.InputError, match=f"pip install {package}"):
            models.build(f"{package}:resnet18", num_classes=3)
    else:
        net = models.build(f"{package}:resnet18", num_classes=3, in_channels=1).eval()
        assert net(torch.randn(2, 1, 64, 64)).shape == (2, 3)
