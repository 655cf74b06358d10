"""Classes by their number of examples, and the progress of a measurement."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.gloo import features_of_a_shard, on_processes
from helpers.networks import Network, inputs_and_labels
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse.measuring.count_range import CountRange

COUNTS = (1, 3, 7, 12, 30)


def uneven(dim: int = 6) -> tuple[Tensor, Tensor, nn.Linear]:
    """Features of five classes of so many examples, in any order, and a classifier."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    means = torch.randn(len(COUNTS), dim, dtype=torch.float64, generator=generator)
    noise = torch.randn(len(labels), dim, dtype=torch.float64, generator=generator)
    torch.manual_seed(4)
    return means[labels] + 0.3 * noise, labels, nn.Linear(dim, len(COUNTS)).double()


def same(found: nc.Report, expected: nc.Report) -> None:
    for name, value in expected.numbers().items():
        assert found.numbers()[name] == pytest.approx(value, rel=1e-10, abs=1e-13, nan_ok=True), name


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"min_count": 3}, [1, 2, 3, 4]),
        ({"max_count": 12}, [0, 1, 2, 3]),
        ({"min_count": 3, "max_count": 12}, [1, 2, 3]),
    ],
    ids=str,
)
@pytest.mark.parametrize("budget", [4 << 30, 1], ids=["kept", "two passes"])
def test_left_out_classes_are_as_if_they_were_not_there(options: dict[str, Any], kept: list[int], budget: int) -> None:
    features, labels, head = uneven()
    which = torch.tensor([int(label) in kept for label in labels])
    expected = nc.measure_features(features[which], labels[which], head.weight, head.bias)
    given = nc.measure_features(features, labels, head.weight, head.bias, **options)
    batches = list(zip(features.split(7), labels.split(7), strict=True))
    measured = nc.measure(nn.Sequential(head), batches, memory_budget=budget, **options)
    for report in (given, measured):
        same(report, expected)
        assert report.classes_present == len(kept) and report.num_examples == int(which.sum())
        assert any("are left out" in note for note in report.notes)
    # a network that decides for a class which is left out disagrees with every nearest class mean
    with torch.no_grad():
        head.bias[4 if "max_count" in options else 0] += 1e6
    assert nc.measure(nn.Sequential(head), batches, **options).nc4_mismatch == 1.0


def test_sequences_count_the_tokens_that_are_foretold() -> None:
    """By hand: labels of −100 do not count, nor the first of each sequence."""
    torch.manual_seed(0)
    tokens = torch.randint(6, (9, 8))
    labels = tokens.clone()
    labels[2, 3:6] = -100
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 6)).double()
    foretold = labels[:, 1:][labels[:, 1:] >= 0]
    counts = torch.bincount(foretold, minlength=6)
    least = int(counts.sort().values[2])
    left_out = {int(label) for label in range(6) if counts[label] < least}
    without = labels.clone()
    for label in left_out:
        without[:, 1:][labels[:, 1:] == label] = -100
    expected = nc.measure(model, [(tokens, without)], next_token=True)
    found = nc.measure(model, [(tokens[:4], labels[:4]), (tokens[4:], labels[4:])], next_token=True, min_count=least)
    same(found, expected)


def test_layers_without_a_classifier_too() -> None:
    features, labels, head = uneven()
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), head).double()
    which = torch.tensor([3 <= COUNTS[int(label)] <= 12 for label in labels])
    options = {"layers": ["0", "1"]}
    found = nc.measure_layers(net, [(features, labels)], min_count=3, max_count=12, **options)
    expected = nc.measure_layers(net, [(features[which], labels[which])], **options)
    for each in expected:
        same(found[each.name].report, each.report)
    found = nc.measure(net, [(features, labels)], features="1", max_count=12)
    assert found.num_examples == 23 and found.nc4_mismatch is None


@pytest.mark.parametrize("sizes", [(30, 20), (0, 50)])
def test_two_processes_count_together(sizes: tuple[int, int], tmp_path: Path) -> None:
    inputs, labels = inputs_and_labels()
    least = int(torch.bincount(labels).sort().values[1])
    on_processes(2, tmp_path, features_of_a_shard, str(tmp_path), sizes, least)
    torch.manual_seed(0)
    model, which = Network().double(), torch.bincount(labels)[labels] >= least
    expected = nc.measure(model, [(inputs[which].double(), labels[which])], features="body", weight_decay=0.1)
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["num_examples"] == int(which.sum()) < len(labels)
        for name, value in expected.numbers().items():
            assert found[name] == pytest.approx(value, rel=1e-10, abs=1e-13, nan_ok=True), name


def test_bounds_keep_what_they_say() -> None:
    for least, greatest in ((None, None), (3, None), (None, 7), (3, 7), (3, 3)):
        kept = CountRange(least, greatest).keeps(torch.tensor([0, *COUNTS]))
        wanted = [count > 0 and (least or 0) <= count <= (greatest or 99) for count in (0, *COUNTS)]
        assert kept.tolist() == wanted


@pytest.mark.wrong_input
def test_impossible_bounds_are_refused() -> None:
    features, labels, head = uneven()
    for options, message in (
        ({"min_count": 0}, "min_count"),
        ({"max_count": 2.5}, "max_count"),
        ({"min_count": 5, "max_count": 4}, "min_count of at most max_count, got 5 and 4"),
        ({"min_count": 31}, "a class with at least 31 examples, classes here have 1 to 30"),
        ({"min_count": 4, "max_count": 6}, "at least 4 and at most 6 examples"),
    ):
        with pytest.raises(nc.InputError, match=message):
            nc.measure_features(features, labels, head.weight, head.bias, **options)
        with pytest.raises(nc.InputError, match=message):
            nc.measure(nn.Sequential(head), [(features, labels)], **options)


@pytest.mark.wrong_input
def test_a_loader_that_gives_other_examples_is_noticed() -> None:
    features, labels, head = uneven()

    class Growing:
        passes = 0

        def __iter__(self) -> Any:
            self.passes += 1
            yield features[: 20 * self.passes], labels[: 20 * self.passes]

    with pytest.raises(nc.InputError, match="all passes over the loader to give the same examples"):
        nc.measure(nn.Sequential(head), Growing(), min_count=2)


@pytest.mark.parametrize("budget", [4 << 30, 1], ids=["kept", "two passes"])
def test_progress_goes_from_the_first_batch_to_the_end(budget: int) -> None:
    features, labels, head = uneven()
    batches = list(zip(features.split(7), labels.split(7), strict=True))
    told: list[float] = []
    nc.measure(nn.Sequential(head), batches, memory_budget=budget, progress=told.append)
    first, second = told[: len(batches)], told[len(batches) :]
    np.testing.assert_allclose(first, np.arange(1, len(batches) + 1) / (2 * len(batches)))
    # features that are kept wait in larger blocks
    assert second == sorted(second) and second[-1] == 1.0 and len(second) in ((1,) if budget > 1 else (len(batches),))
    told.clear()

    class Unsized:
        def __iter__(self) -> Any:
            return iter(batches)

    nc.measure(nn.Sequential(head), Unsized(), memory_budget=1, progress=told.append)
    assert told == []
    for wrong in (True, head):
        with pytest.raises(nc.InputError, match="progress= to be a function"):
            nc.measure(nn.Sequential(head), batches, progress=wrong)  # type: ignore[arg-type]


def test_progress_has_a_part_for_counting_and_one_for_resamples() -> None:
    features, labels, head = uneven()
    batches = list(zip(features.split(7), labels.split(7), strict=True))
    told: list[float] = []
    nc.measure(nn.Sequential(head), batches, min_count=2, progress=told.append)
    assert told == sorted(told) and told[-1] == 1.0
    np.testing.assert_allclose(told[: 2 * len(batches)], np.arange(1, 2 * len(batches) + 1) / (3 * len(batches)))
    told.clear()
    nc.measure(nn.Sequential(head), batches, confidence=0.9, progress=told.append)
    assert told == sorted(told) and told[-1] == 1.0
    assert sum(share > 2 / 3 + 1e-9 for share in told) == 200  # one for each resample


@pytest.mark.wrong_input
def test_a_row_that_is_not_finite_has_the_number_it_was_given_with() -> None:
    features, labels, head = uneven()
    few = int(torch.bincount(labels).argmin())
    order = torch.cat([(labels == few).nonzero()[:, 0], (labels != few).nonzero()[:, 0]])
    features, labels = features[order].clone(), labels[order]
    row = int(torch.bincount(labels)[few]) + 3
    features[0], features[row] = float("nan"), float("inf")  # the first is left out
    least = int(torch.bincount(labels)[few]) + 1
    with pytest.raises(nc.InputError, match=f"in row {row}$"):
        nc.measure_features(features, labels, head.weight, head.bias, min_count=least)


def test_the_accuracy_of_the_network_on_other_classes_raises_no_doubt() -> None:
    """Logits that are not W h + b, of a layer that is right on the frequent class alone, which is left out."""
    labels = torch.tensor([0] * 60 + [1] * 5 + [2] * 5)
    features = torch.nn.functional.one_hot(labels, 3).float() + 0.01 * torch.randn(70, 3)
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]]))
        network[0].bias.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nc.measure(network, [(features, labels)], layer="0", max_count=50)


@pytest.mark.wrong_input
def test_labels_beyond_all_classes_are_refused_before_they_are_counted() -> None:
    features, labels, head = uneven()
    labels = labels.clone()
    labels[3] = 2**33
    with pytest.raises(nc.InputError, match="expected labels in 0"):
        nc.measure(nn.Sequential(head), [(features, labels)], min_count=1)
