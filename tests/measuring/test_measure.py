"""measure(): the numbers of a model and its data, the model left as it was, wrong input named."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cases import data, named, over_weightings
from helpers.networks import Network, batches_of, inputs_and_labels, loader
from reference import collapse, mse
from reference.moments import class_moments
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse._checks import InputError

KEYS = {
    *(
        "num_examples",
        "num_classes",
        "classes_present",
        "dim",
        "weighting",
        "accuracy",
        "nearest_mean_accuracy",
        "nc1",
        "nc3",
        "nc4_mismatch",
    ),
    *(
        f"nc2.{name}_{side}"
        for name in ("equinorm", "equiangularity", "maximal_angle")
        for side in ("means", "classifier")
    ),
    *(f"mse.{name}" for name in ("total", "nc1", "nc23", "ls", "ls_perp", "weight_ls_norm", "weight_decay")),
    *("snr", "snr_space", "layer", "notes"),
}


def assert_same_report(got: nc.Report, want: nc.Report, tolerance: float = 1e-6) -> None:
    ours, theirs = got.to_dict(), want.to_dict()
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if key in ("layer", "notes"):  # which say how it was measured, not what
            continue
        expected = value if isinstance(value, str) else pytest.approx(value, rel=tolerance, abs=tolerance)
        assert ours[key] == expected, key


# --- the numbers ---


@over_weightings
def test_every_number_matches_its_reference(weighting: str) -> None:
    d = data(named("imbalanced-50-to-1"))
    m = class_moments(d.features, d.labels, 4, weighting)
    report = nc.measure_features(d.features, d.labels, d.weight, d.bias, weight_decay=0.01, weighting=weighting)
    numbers = report.to_dict()
    terms = mse.decompose(m, d.features, d.labels, d.weight, d.bias, 0.01)
    means, present = collapse.centred_means(m), m.present
    want: dict[str, Any] = {
        "num_examples": len(d.labels),
        "num_classes": 4,
        "classes_present": 4,
        "dim": 6,
        "weighting": weighting,
        "nc1": collapse.nc1(m),
        "nc2.equinorm_means": collapse.equinorm(means),
        "nc2.equinorm_classifier": collapse.equinorm(d.weight[present]),
        "nc2.equiangularity_means": collapse.equiangularity(means),
        "nc2.equiangularity_classifier": collapse.equiangularity(d.weight[present]),
        "nc2.maximal_angle_means": collapse.maximal_angle(means),
        "nc2.maximal_angle_classifier": collapse.maximal_angle(d.weight[present]),
        "nc3": collapse.nc3(m, d.weight),
        "mse.weight_ls_norm": np.linalg.norm(terms.weight_ls),
        "mse.weight_decay": 0.01,
        "snr": collapse.snr_singular_values(m).tolist(),
        "snr_space": "full",
    } | {f"mse.{name}": getattr(terms, name) for name in ("total", "nc1", "nc23", "ls", "ls_perp")}
    for key, value in want.items():
        assert numbers[key] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-7)), key
    np.testing.assert_allclose(report.means, m.means, rtol=1e-12)
    np.testing.assert_allclose(report.global_mean, m.global_mean, rtol=1e-12)


@over_weightings
def test_accuracy_and_nc4_are_shares_of_examples(weighting: str) -> None:
    d = data(named("imbalanced-50-to-1"))
    m = class_moments(d.features, d.labels, 4, weighting)
    report = nc.measure_features(d.features, d.labels, d.weight, d.bias, weighting=weighting)
    right = [int(np.argmax(d.weight @ h + d.bias)) == y for h, y in zip(d.features, d.labels, strict=True)]
    assert report.accuracy == pytest.approx(sum(right) / len(right), abs=1e-12)
    want = collapse.nc4_mismatch(m, d.features, d.weight, d.bias, d.labels)
    assert report.nc4_mismatch == pytest.approx(want, abs=1e-12)
    features, labels, weight, bias = (torch.from_numpy(v) for v in (d.features, d.labels, d.weight, d.bias))
    assert report.nc4_mismatch == pytest.approx(float(nc.nc4_mismatch(features, labels, weight, bias)), abs=1e-12)


@pytest.mark.parametrize("layer", [None, "head"])
@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_measuring_a_model_equals_measuring_its_features(layer: str | None, batch_size: int) -> None:
    model = Network().train()
    inputs, labels = inputs_and_labels()
    want = nc.measure_features(
        model.features(inputs), labels, model.head.weight.detach(), model.head.bias.detach(), weight_decay=0.01
    )
    got = nc.measure(model, loader(batch_size), layer=layer, weight_decay=0.01)
    assert got.num_examples == 50, "a partial last batch counts"
    assert_same_report(got, want, 1e-4)


def test_a_named_inner_layer_is_measured() -> None:
    model = Network(3)
    report = nc.measure(model, loader(), layer="neck")
    assert (report.num_classes, report.dim, report.classes_present) == (6, 8, 3)


def test_classifier_without_bias_and_missing_classes() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 10, bias=False))
    report = nc.measure(model, loader())
    assert (report.num_classes, report.classes_present) == (10, 3)
    assert len(report.to_dict()["snr"]) == 2


def test_tensors_arrays_and_widths_give_one_report() -> None:
    d = data(named("balanced"))
    want = nc.measure_features(d.features, d.labels, d.weight, d.bias)
    tensors = [torch.from_numpy(v) for v in (d.features, d.labels, d.weight, d.bias)]
    assert_same_report(nc.measure_features(*tensors), want, 1e-12)
    narrow = [v.float() if v.is_floating_point() else v.to(torch.int32) for v in tensors]
    assert_same_report(nc.measure_features(*narrow), want, 1e-4)
    frozen = [v.copy() for v in (d.features, d.labels, d.weight, d.bias)]
    for array in frozen:
        array.flags.writeable = False  # a memory-mapped file gives such arrays
    assert_same_report(nc.measure_features(*frozen), want, 1e-12)


# --- one pass, two passes ---


class Counting:
    """A loader that counts how often it is gone through; ``batches(k)`` gives those of pass k."""

    def __init__(self, batches: Any) -> None:
        self.batches, self.passes = batches, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        yield from self.batches(self.passes)


def test_two_passes_equal_one() -> None:
    model = Network()
    batches = Counting(lambda _: batches_of(*inputs_and_labels()))
    one = nc.measure(model, batches, layer="head")
    assert batches.passes == 1
    for budget in (0, 1, 600):
        batches.passes = 0
        assert_same_report(nc.measure(model, batches, layer="head", memory_budget=budget), one, 1e-12)
        assert batches.passes == 2


def test_two_passes_in_another_order_are_the_same_examples() -> None:
    model = Network()
    one = nc.measure(model, loader())
    assert_same_report(nc.measure(model, loader(shuffle=True), memory_budget=1), one, 1e-4)


def other_examples(kind: str, seen: int) -> list[tuple[Tensor, Tensor]]:
    inputs, labels = inputs_and_labels()
    if seen > 1:
        if kind == "fewer":
            inputs, labels = inputs[:-3], labels[:-3]
        elif kind == "none":
            inputs, labels = inputs[:0], labels[:0]
        elif kind == "augmented":
            inputs = inputs + 0.5
        elif kind == "relabelled":
            labels = labels.clone()
            labels[0] = (labels[0] + 1) % 3
        elif kind == "replaced":
            inputs = torch.cat([inputs[:-2], inputs[:2] + 1.0])
    return batches_of(inputs, labels)


@pytest.mark.parametrize("kind", ["fewer", "none", "augmented", "relabelled", "replaced"])
def test_passes_that_differ_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match="same examples"):
        nc.measure(Network(), Counting(lambda seen: other_examples(kind, seen)), layer="head", memory_budget=1)


def test_a_generator_loses_no_batch() -> None:
    """Finding the classifier takes a forward pass; its batch must be measured all the same, or the loader refused."""
    model = Network()
    want = nc.measure(model, batches_of(*inputs_and_labels()))
    try:
        got = nc.measure(model, iter(batches_of(*inputs_and_labels())))
    except InputError:
        return
    assert_same_report(got, want)


def test_a_generator_is_refused_where_a_second_pass_is_needed() -> None:
    with pytest.raises(InputError):
        nc.measure(Network(), iter(batches_of(*inputs_and_labels())), layer="head", memory_budget=1)


# --- the model is left as it was ---


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def everything(model: nn.Module) -> tuple[Any, ...]:
    return (
        [module.training for module in model.modules()],
        hooks(model),
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.is_grad_enabled(),
        {name: value.tolist() for name, value in model.state_dict().items()},
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad is None for parameter in model.parameters()],
    )


def half_frozen() -> Network:
    model = Network().train()
    model.body[1].eval()
    model.head.register_forward_hook(lambda *_: None)
    model.neck.weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("budget", [1 << 30, 1])
def test_modes_hooks_and_random_states_are_put_back(budget: int) -> None:
    model = half_frozen()
    before = everything(model)
    nc.measure(model, loader(shuffle=True), memory_budget=budget)
    assert everything(model) == before


@pytest.mark.parametrize("fail_at", [1, 3, 9])
@pytest.mark.parametrize("layer", [None, "head"])
def test_all_is_put_back_after_an_exception(fail_at: int, layer: str | None) -> None:
    model = half_frozen()
    model.fail_at = fail_at
    before = everything(model)
    with pytest.raises(RuntimeError, match="the forward pass failed"):
        nc.measure(model, loader(shuffle=True), layer=layer, memory_budget=1)
    assert everything(model) == before


def test_all_is_put_back_after_wrong_input() -> None:
    model = half_frozen()
    inputs, labels = inputs_and_labels()
    labels[20] = 9
    before = everything(model)
    with pytest.raises(InputError):
        nc.measure(model, batches_of(inputs, labels))
    assert everything(model) == before


def test_a_shared_random_stream_goes_on_undisturbed() -> None:
    torch.manual_seed(3)
    nc.measure(Network(), loader(shuffle=True))
    torch.manual_seed(3)
    model = Network()
    undisturbed = torch.rand(3)
    torch.manual_seed(3)
    model = Network()
    nc.measure(model, loader(shuffle=True))
    assert torch.equal(torch.rand(3), undisturbed)


def test_ambient_autocast_leaves_the_measuring_wide() -> None:
    d = data(named("balanced"))
    arguments = [torch.from_numpy(v) for v in (d.features, d.labels, d.weight, d.bias)]
    arguments[0] = arguments[0].float()
    want = nc.measure_features(*arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = nc.measure_features(*arguments)
    assert_same_report(got, want, 1e-6)


# --- the report ---


def test_dictionary_is_flat_and_json_ready() -> None:
    numbers = nc.measure(Network(), loader()).to_dict()
    assert set(numbers) == KEYS
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["snr"] == sorted(numbers["snr"], reverse=True)


@pytest.mark.filterwarnings("ignore:NC1 is infinite")
@pytest.mark.filterwarnings("ignore:the angles of NC2:UserWarning", "ignore:NC3 is undefined:UserWarning")
def test_non_finite_numbers_become_words() -> None:
    labels = torch.arange(3).repeat(4)
    features = torch.eye(3, dtype=torch.float64)[labels]
    exact = nc.measure_features(features, labels, torch.eye(3))
    assert exact.to_dict()["snr"] == ["inf", "inf"]
    features[labels == 2] = features[1].clone()
    degenerate = nc.measure_features(features, labels, torch.zeros(3, 3))
    assert degenerate.nc1 == math.inf and degenerate.to_dict()["nc1"] == "inf"
    for report in (exact, degenerate):
        json.dumps(report.to_dict(), allow_nan=False)
        assert str(report)


def test_report_prints_as_a_readable_table() -> None:
    report = nc.measure(Network(), loader(), weight_decay=0.01)
    text = str(report)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 120 and len(lines) < 40
    for word in ("NC1", "NC2", "NC3", "NC4", "SNR", "50", f"{report.nc3:.4g}", f"{report.mse.ls_perp:.4g}"):
        assert word in text, word
    assert "tensor(" not in text


# --- other ways to call a model ---


class ByKeyword(Network):
    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(input=torch.tanh(self.neck(self.body(inputs))))


def test_a_classifier_called_by_keyword_is_measured_or_refused() -> None:
    model = ByKeyword()
    inputs, labels = inputs_and_labels()
    try:
        report = nc.measure(model, loader())
    except InputError:
        return
    weight, bias = model.head.weight.detach(), model.head.bias.detach()
    assert_same_report(report, nc.measure_features(model.features(inputs), labels, weight, bias), 1e-4)


def test_batches_as_dictionaries() -> None:
    model = Network()
    batches = [{"inputs": x, "labels": y} for x, y in batches_of(*inputs_and_labels())]
    assert_same_report(nc.measure(model, batches), nc.measure(model, loader()))


# --- without a classifier ---


@over_weightings
def test_features_without_a_classifier_have_every_number_that_needs_none(weighting: str) -> None:
    d = data(named("imbalanced-50-to-1"))
    options: dict[str, Any] = {"weighting": weighting, "weight_decay": 0.01, "metrics": "all"}
    full = nc.measure_features(d.features, d.labels, d.weight, d.bias, **options).to_dict()
    for classes in (None, 4):
        report = nc.measure_features(d.features, d.labels, num_classes=classes, **options)
        found = report.to_dict()
        missing = {name for name, value in found.items() if value is None}
        assert missing == {
            *("accuracy", "nc3", "nc4_mismatch", "mse.total", "mse.ls_perp"),
            *(f"nc2.{name}_classifier" for name in ("equinorm", "equiangularity", "maximal_angle")),
        }
        for name, value in found.items():
            if value is not None and name != "notes":
                assert value == (value if isinstance(value, str) else pytest.approx(full[name], rel=1e-12)), name
        assert report.notes == ("no classifier: what needs one is not measured",)
        assert "classifier" not in " ".join(report.extra)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": np.zeros(4)}, "expected weight with bias, got bias alone"),
        ({"num_classes": 3}, r"expected labels in 0\.\.2, got 3"),
        ({"num_classes": 1}, "expected num_classes of at least 2, got 1"),
        ({"num_classes": 4.0}, "expected num_classes of at least 2, got 4.0"),
        ({"weight": np.ones((4, 6)), "num_classes": 5}, "expected num_classes = 4, the rows of the weight, got 5"),
        ({"metrics": "nc0"}, "the metric 'nc0' needs a classifier, got none"),
    ],
)
def test_what_does_not_fit_features_without_a_classifier_is_named(options: dict[str, Any], message: str) -> None:
    d = data(named("imbalanced-50-to-1"))
    with pytest.raises(InputError, match=message):
        nc.measure_features(d.features, d.labels, **options)
