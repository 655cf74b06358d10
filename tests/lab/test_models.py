"""The networks: published sizes, torchvision's names, every image size they are used at."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import neuralcollapse as nc
from neuralcollapse.lab import models

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


@pytest.mark.parametrize("name", PUBLISHED)
def test_imagenet_forms_have_the_published_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        assert parameters(models.build(name, num_classes=1000, stem="imagenet")) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "millions"), [("densenet40", 1.0), ("densenet100", 0.8), ("densenet250", 15.3)])
def test_small_densenets_have_the_published_size(name: str, millions: float) -> None:
    """Huang et al. (2017), Table 2: DenseNet (k=12, L=40), DenseNet-BC (k=12, L=100) and (k=24, L=250), C10."""
    with torch.device("meta"):
        assert round(parameters(models.build(name, num_classes=10)) / 1e6, 1) == millions


# Names and shapes as torchvision 0.2x's state_dict lists them.
TORCHVISION_SHAPES = {
    "resnet18": {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer2.0.conv1.weight": (128, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.weight": (128,),
        "layer4.1.bn2.bias": (512,),
        "fc.weight": (1000, 512),
    },
    "resnet50": {
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.2.conv3.weight": (256, 64, 1, 1),
        "layer3.5.bn3.weight": (1024,),
        "layer4.0.conv2.weight": (512, 512, 3, 3),
        "fc.weight": (1000, 2048),
    },
    "vgg11": {
        "features.0.weight": (64, 3, 3, 3),
        "features.1.running_mean": (64,),
        "features.4.weight": (128, 64, 3, 3),
        "features.25.weight": (512, 512, 3, 3),
        "classifier.0.weight": (4096, 25088),
        "classifier.6.bias": (1000,),
    },
    "densenet121": {
        "features.conv0.weight": (64, 3, 7, 7),
        "features.norm0.weight": (64,),
        "features.denseblock1.denselayer1.norm1.weight": (64,),
        "features.denseblock1.denselayer1.conv1.weight": (128, 64, 1, 1),
        "features.denseblock4.denselayer16.conv2.weight": (32, 128, 3, 3),
        "features.transition3.conv.weight": (512, 1024, 1, 1),
        "features.norm5.bias": (1024,),
        "classifier.weight": (1000, 1024),
    },
}
# Entries of the whole state_dict, counted from the published layer tables.
# resnet18: 20 convolutions with batch-norms (6 entries) + fc; resnet50: 53; vgg11: 8 convolutions with bias and
# batch-norms (7) + 3 linear layers; densenet121: 120 convolutions, 121 batch-norms (5) and the classifier.
TORCHVISION_ENTRIES = {"resnet18": 20 * 6 + 2, "resnet50": 53 * 6 + 2, "vgg11": 8 * 7 + 6, "densenet121": 120 + 605 + 2}


@pytest.mark.parametrize("name", TORCHVISION_SHAPES)
def test_parameters_carry_torchvisions_names(name: str) -> None:
    with torch.device("meta"):
        state = models.build(name, num_classes=1000, stem="imagenet").state_dict()
    found = {key: tuple(state[key].shape) for key in TORCHVISION_SHAPES[name]}
    assert found == TORCHVISION_SHAPES[name]
    assert len(state) == TORCHVISION_ENTRIES[name]


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg11", "densenet121"])
def test_weights_move_to_torchvision_and_give_the_same_outputs(name: str) -> None:
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    theirs = torchvision.models.get_model(name + "_bn" * (name == "vgg11"), weights=None).eval()
    ours = models.build(name, num_classes=1000, stem="imagenet").eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize("size", [8, 32])
def test_every_network_learns_and_is_measured_on_small_images(name: str, size: int) -> None:
    net = models.build(name, num_classes=3, in_channels=1, image_size=size, width=SMALL_WIDTH.get(name, 0.125))
    images, labels = torch.randn(6, 1, size, size), torch.arange(6) % 3
    net(images).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert sum(float(parameter.grad.abs().sum()) for parameter in net.parameters()) > 0  # type: ignore[union-attr]
    report = nc.measure(net, [(images[:3], labels[:3]), (images[3:], labels[3:])])
    last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    assert (report.num_examples, report.dim) == (6, last.in_features)


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "densenet40"])
def test_large_and_coloured_images_fit(name: str) -> None:
    net = models.build(name, num_classes=4, width=0.125).eval()
    with torch.no_grad():
        assert net(torch.randn(2, 3, 96, 96)).shape == (2, 4)


@pytest.mark.parametrize("width", [0.25, 0.5, 2.0])
def test_width_scales_the_features(width: float) -> None:
    with torch.device("meta"):
        assert models.build("resnet18", num_classes=2, width=width).get_submodule("fc").in_features == 512 * width


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet81", {}, "did you mean resnet18"),
        ("resnet18_bn", {}, "unknown network"),
        ("transformer", {}, "unknown network 'transformer'"),
        ("resnet18", {"width": 0.0}, "positive width"),
        ("densenet40", {"stem": "imagenet"}, "no imagenet stem"),
        ("keras:resnet", {}, "unknown source"),
        ("timm:resnet18", {"width": 0.5}, "own width only"),
    ],
)
def test_wrong_requests_are_answered(name: str, options: dict, message: str) -> None:
    with pytest.raises(nc.InputError, match=message):
        models.build(name, num_classes=3, **options)


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
