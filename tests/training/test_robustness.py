"""DeepFool against exact distances and against foolbox; the examples it is measured on; its column in a run."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.progress import Interrupt
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from neuralcollapse import InputError
from neuralcollapse import data as datasets
from neuralcollapse.data.dataset import ImageData
from neuralcollapse.networks import registry as models
from neuralcollapse.training import robustness
from neuralcollapse.training.config import TrainingConfig
from neuralcollapse.training.resolve import prepare
from neuralcollapse.training.robustness import deepfool, relative_perturbations, robustness_subset, summarize
from neuralcollapse.training.run_directory import Run
from neuralcollapse.training.trainer import train

TINY: dict[str, Any] = {
    "model": "mlp",
    "width": 0.0625,
    "examples_per_class": 20,
    "epochs": 6,
    "batch_size": 16,
    "precision": "32",
    "device": "cpu",
    "robustness_examples": 33,
}
PLAIN = (0.0,), (1.0,)  # no normalisation


class Affine(nn.Module):
    """Logits W x + b of flattened images."""

    def __init__(self, classes: int, pixels: int, seed: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, pixels, generator=generator).to(dtype))
        self.bias = nn.Parameter(torch.randn(classes, generator=generator).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


def exact_distances(weight: np.ndarray, bias: np.ndarray, images: np.ndarray) -> np.ndarray:
    """min_k |f_k − f_l| / ‖w_k − w_l‖ with l the class decided, one image at a time."""
    found = []
    for x in images.reshape(len(images), -1):
        logits = weight @ x + bias
        own = int(np.argmax(logits))
        found.append(
            min(
                (logits[own] - logits[k]) / np.linalg.norm(weight[own] - weight[k])
                for k in range(len(weight))
                if k != own
            )
        )
    return np.array(found)


def trained_mlp() -> tuple[nn.Module, datasets.Dataset]:
    """Three curved layers that know the digits: gradient descent on the cross-entropy of 500 of them; in eval mode."""
    data = datasets.load("digits", examples_per_class=50)
    net = models.build("mlp", num_classes=10, in_channels=1, image_size=8, width=0.125).double()
    images = (data.train.images.double() / 255 - data.mean[0]) / data.std[0]
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), data.train.labels).backward()
        optimizer.step()
    return net.eval(), data


@given(classes=st.integers(2, 10), seed=st.integers(0, 10_000))
def test_a_linear_network_gives_the_exact_distance(classes: int, seed: int) -> None:
    net = Affine(classes, 3 * 16, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    images = torch.rand(20, 3, 4, 4, generator=generator)
    mean, std = (0.1, 0.4, 0.7), (0.2, 0.5, 1.5)
    ratios = relative_perturbations(net, images, mean, std, batch_size=7)
    # W (x − m)/s + b as an affine map of the pixels themselves
    scale, shift = np.repeat(std, 16), np.repeat(mean, 16)
    weight = net.weight.detach().double().numpy() / scale
    bias = net.bias.detach().double().numpy() - weight @ shift
    pixels = images.double().numpy()
    norms = np.linalg.norm(pixels.reshape(20, -1), axis=1)
    np.testing.assert_allclose(ratios, exact_distances(weight, bias, pixels) / norms, rtol=1e-4)


def test_bytes_are_pixels_between_zero_and_one() -> None:
    net = Affine(4, 9, seed=0)
    stored = torch.randint(1, 256, (6, 1, 3, 3), dtype=torch.uint8)
    expected = relative_perturbations(net, stored.float() / 255, *PLAIN)
    np.testing.assert_array_equal(relative_perturbations(net, stored, *PLAIN), expected)


def test_scaled_logits_change_nothing_and_a_boundary_twice_as_far_is_twice_the_perturbation() -> None:
    net, images = Affine(5, 9, seed=3, dtype=torch.float64), torch.rand(8, 1, 3, 3, dtype=torch.float64)
    before = relative_perturbations(net, images, *PLAIN)
    scaled = nn.Sequential(net, nn.Linear(5, 5, bias=False).double())
    scaled[1].weight.data = 1e3 * torch.eye(5, dtype=torch.float64)
    np.testing.assert_allclose(relative_perturbations(scaled, images, *PLAIN), before, rtol=1e-9)

    plane = Affine(2, 9, seed=0, dtype=torch.float64)
    plane.weight.data = torch.stack([torch.zeros(9), torch.ones(9)]).double()
    grey = torch.full((1, 1, 3, 3), 0.2, dtype=torch.float64)  # f_1 − f_0 = 1.8 − t, at distance |1.8 − t| / 3
    for offset, distance in ((-3.0, 0.4), (-4.2, 0.8), (-1.5, 0.1)):
        plane.bias.data = torch.tensor([0.0, offset], dtype=torch.float64)
        ratio = relative_perturbations(plane, grey, *PLAIN)
        assert float(ratio) == pytest.approx(distance / 0.6, rel=1e-9)


def test_perturbed_images_are_decided_otherwise_and_noise_of_that_size_does_nothing() -> None:
    net, data = trained_mlp()
    images = robustness_subset(data.test, 60).images.double() / 255

    def decide(x: Tensor) -> Tensor:
        return net((x - data.mean[0]) / data.std[0]).argmax(dim=1)

    perturbation, fooled = deepfool(lambda x: net((x - data.mean[0]) / data.std[0]), images)
    own = decide(images)
    assert bool(fooled.all())
    assert bool((decide(images + 1.02 * perturbation) != own).all())
    noise = torch.randn_like(images)
    noise *= (perturbation.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1))[:, None, None, None]
    assert float((decide(images + noise) == own).double().mean()) > 0.9


def test_foolbox_finds_the_same_perturbations() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports from a namespace that SciPy deprecates
        import foolbox
    net, data = trained_mlp()
    subset = robustness_subset(data.test, 50)
    ratios = relative_perturbations(net, subset.images.double() / 255, data.mean, data.std, batch_size=20)

    class Bytes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return net((x / 255 - data.mean[0]) / data.std[0])

    images = subset.images.double()  # of 0 … 255, against which its 1e-4 on each step is small
    model = foolbox.PyTorchModel(Bytes().eval(), bounds=(-math.inf, math.inf), device="cpu")
    attack = foolbox.attacks.L2DeepFoolAttack(overshoot=robustness.OVERSHOOT)
    perturbed, _, found = attack(model, images, Bytes()(images).argmax(dim=1), epsilons=None)
    expected = (perturbed - images).flatten(1).norm(dim=1) / (1 + robustness.OVERSHOOT) / images.flatten(1).norm(dim=1)
    assert bool(found.all())
    np.testing.assert_allclose(ratios, expected.detach(), rtol=1e-4, atol=10 * 1e-4 / 1000)  # ten steps; ‖x‖ ≈ 1000


def test_a_network_that_does_not_answer_has_no_distance() -> None:
    class Gate(nn.Module):
        """Constant where the first pixel is dark, else x₁ against 0.5."""

        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(1)
            answer = (flat[:, 0] > 0.5) * (flat[:, 1] - 0.5) - (flat[:, 0] <= 0.5).float()
            return torch.stack([-answer, answer], dim=1)

    images = torch.tensor([[0.0, 0.3], [1.0, 0.3], [1.0, 0.9]]).reshape(3, 1, 1, 2)
    ratios = relative_perturbations(Gate(), images, *PLAIN)
    assert math.isnan(ratios[0])
    np.testing.assert_allclose(ratios[1:], [0.2 / math.hypot(1, 0.3), 0.4 / math.hypot(1, 0.9)], rtol=1e-6)
    summary = summarize(ratios)
    assert summary["robustness.failed"] == pytest.approx(1 / 3)
    assert summary["robustness"] == summary["robustness.median"] == pytest.approx(float(ratios[1:].mean()))
    nothing = summarize(ratios[:1])
    assert nothing["robustness.failed"] == 1
    assert math.isnan(nothing["robustness"]) and math.isnan(nothing["robustness.median"])


def test_the_network_is_left_as_it_was() -> None:
    net = models.build("resnet18", num_classes=3, in_channels=1, image_size=8, width=0.0625)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random_state = torch.get_rng_state()
    relative_perturbations(net, torch.rand(5, 1, 8, 8), *PLAIN)
    after = torch.get_rng_state()
    torch.set_rng_state(random_state)
    torch.rand(5, 1, 8, 8)  # the images above
    assert torch.equal(torch.get_rng_state(), after)
    assert net.training and all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())


def test_the_subset_is_the_first_of_each_class() -> None:
    labels = torch.tensor([2, 2, 0, 1, 2, 0, 0, 2, 0, 1])
    images = torch.arange(1, 11, dtype=torch.uint8).reshape(10, 1, 1, 1)
    for number, expected in {
        3: [0, 2, 3],
        4: [0, 2, 3, 5],  # one more of class 0
        6: [0, 1, 2, 3, 5, 9],
        8: [0, 1, 2, 3, 4, 5, 6, 9],  # class 1 has no third
        10: list(range(10)),
    }.items():
        chosen = robustness_subset(ImageData(images, labels), number)
        assert (chosen.images.flatten() - 1).tolist() == expected
        assert torch.equal(chosen.labels, labels[expected])
    images[0] = 0  # black: passed over
    assert (robustness_subset(ImageData(images, labels), 3).images.flatten() - 1).tolist() == [1, 2, 3]
    with pytest.raises(InputError, match="at most 9, the test images that are not black, got 10"):
        robustness_subset(ImageData(images, labels), 10)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 3, 4, 4), r"shape \(n, 1, height, width\)"),
        (torch.rand(4, 4), r"shape \(n, 1, height, width\)"),
        (torch.rand(0, 1, 4, 4), "n at least 1"),
        (torch.ones(2, 1, 4, 4, dtype=torch.int64), "uint8 or floating, got torch.int64"),
        (torch.full((2, 1, 4, 4), 255.0), "pixels in 0 … 1, before normalisation, got 255 to 255"),
        (torch.full((2, 1, 4, 4), math.nan), "pixels in 0 … 1"),
        (
            torch.eye(4).reshape(1, 1, 4, 4) * torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1),
            "no black image",
        ),
    ],
)
def test_wrong_images_are_named(images: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        relative_perturbations(Affine(3, 16, seed=0), images, *PLAIN)


def test_one_logit_is_refused() -> None:
    with pytest.raises(InputError, match=r"at least two classes, shape \(n, c\), got \(2, 1\)"):
        relative_perturbations(Affine(1, 16, seed=0), torch.rand(2, 1, 4, 4), *PLAIN)


@pytest.mark.parametrize(("number", "message"), [(-1, "at least 0, got -1"), (301, "at most 300")])
def test_a_run_cannot_ask_for_more_than_there_is(tmp_path: Path, number: int, message: str) -> None:
    with pytest.raises(InputError, match=f"--robustness-examples.*{message}"):
        prepare(TrainingConfig(**{**TINY, "robustness_examples": number}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def run_in(path: Path, **settings: Any) -> Run:
    run, data = prepare(TrainingConfig(**{**TINY, **settings}), out=path)
    assert train(run, data) == "finished"
    return run


def without_clock(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in run.history()]


def test_a_run_measures_it_and_is_otherwise_the_same(tmp_path: Path) -> None:
    run, plain = run_in(tmp_path / "run"), run_in(tmp_path / "plain", robustness_examples=None)
    assert (run.config.robustness_examples, plain.config.robustness_examples) == (33, 0)
    columns = {"robustness", "robustness.median", "robustness.failed"}
    for record, without in zip(without_clock(run), without_clock(plain), strict=True):
        assert {key: value for key, value in record.items() if key not in columns} == without
        assert columns <= record.keys()
    # the last line against foolish repetition: the checkpoint's network, one image at a time
    data = datasets.load("digits", examples_per_class=20)
    net = models.build("mlp", num_classes=10, in_channels=1, image_size=8, width=0.0625)
    net.load_state_dict(torch.load(run.path / "checkpoint.pt", weights_only=True)["model"])
    subset = robustness_subset(data.test, 33).images
    ratios = torch.cat([relative_perturbations(net, image[None], data.mean, data.std) for image in subset])
    assert run.history()[-1]["robustness"] == pytest.approx(float(ratios.mean()), rel=1e-4)
    assert run.history()[-1]["robustness.median"] == pytest.approx(float(np.median(ratios)), rel=1e-4)


def test_a_run_cut_short_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    whole = run_in(tmp_path / "whole")
    run, data = prepare(TrainingConfig(**TINY), out=tmp_path / "cut")
    assert train(run, data, progress=Interrupt(after=3)) == "interrupted"
    assert len(run.history()) == 3
    again, data = prepare(TrainingConfig(), resume=tmp_path / "cut")
    assert again.config.robustness_examples == 33
    assert train(again, data) == "finished"
    assert without_clock(again) == without_clock(whole)
