"""compare and confidence_intervals: they hold the population's numbers as often as they say, and find differences."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

import neuralcollapse as nc
from neuralcollapse.measuring.bootstrap import Sample, Settings, error_and_bias

CLASSES, DIM = 3, 4
MEANS = 2.0 * torch.tensor([[1.0, 0.2, 0.0, 0.1], [-0.5, 0.9, 0.1, 0.0], [-0.4, -1.0, 0.2, 0.3]])
MIXING = torch.tensor([[1.0, 0.3, 0.0, 0.1], [0.0, 0.7, 0.2, 0.0], [0.1, 0.0, 0.9, 0.4], [0.0, 0.2, 0.0, 0.6]])


def drawn(generator: torch.Generator, each: int = 40, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Examples of one population, in a random order, and a classifier."""
    labels = (torch.arange(CLASSES * each) % CLASSES)[torch.randperm(CLASSES * each, generator=generator)]
    noise = torch.randn(len(labels), DIM, generator=generator) @ MIXING
    return MEANS[labels] + spread * noise, labels, MEANS - MEANS.mean(dim=0)


def test_two_samples_of_one_population_differ_in_about_five_of_a_hundred_cases() -> None:
    """A method of 92 % calls 15 of 40 cases different with a chance below 1e-6 for all three numbers together."""
    generator, found = torch.Generator().manual_seed(3), {"nc1": 0, "nc3": 0, "nc2.equiangularity_means": 0}
    for case in range(40):
        differences = nc.compare(drawn(generator), drawn(generator), resamples=25, seed=case).differences
        for name in found:
            found[name] += bool(differences[name].differs)
    assert max(found.values()) < 15, found
    assert sum(found.values()) > 0, found  # intervals without end would call nothing different


def test_intervals_hold_the_number_of_the_population() -> None:
    """NC1 in closed form: tr(Σ_W Σ_B⁺)/C; of 24 intervals of 90 % at most 12 hold it with a chance below 1e-6."""
    within = (MIXING.T @ MIXING).double().numpy()
    centred = (MEANS - MEANS.mean(dim=0)).double().numpy()
    want = float(np.trace(within @ np.linalg.pinv(centred.T @ centred / CLASSES, rcond=1e-6))) / CLASSES
    generator, hits = torch.Generator().manual_seed(5), 0
    for case in range(24):
        interval = nc.confidence_intervals(*drawn(generator), resamples=25, seed=case)["nc1"]
        hits += interval.low <= want <= interval.high
    assert hits > 12


def test_a_real_difference_is_found_with_its_sign() -> None:
    generator = torch.Generator().manual_seed(0)
    comparison = nc.compare(drawn(generator, 100), drawn(generator, 100, spread=1.3), resamples=30)
    nc1 = comparison.differences["nc1"]
    assert nc1.differs and nc1.difference == pytest.approx(nc1.a - nc1.b) and nc1.high < 0
    assert "nc1" in comparison.differing and "mse.ls" in comparison.differing
    assert comparison.cka is None and "each side by itself" in comparison.method


def test_the_standard_error_of_a_mean_is_the_textbook_one() -> None:
    """Of the accuracy, a share: √(q(1 − q)/n) within each class, which the bootstrap must find to its own 1/√(2B)."""
    features, labels, weight = drawn(torch.Generator().manual_seed(1), 200, spread=2.0)
    interval = nc.confidence_intervals(features, labels, weight, resamples=150)["accuracy"]
    right = ((features @ weight.T).argmax(dim=1) == labels).double()
    shares = [float(right[labels == c].mean()) for c in range(CLASSES)]
    want = math.sqrt(sum(q * (1 - q) for q in shares) / CLASSES / len(labels))
    assert interval.error == pytest.approx(want, rel=0.29)  # five of its own standard errors
    assert abs(interval.bias) < 5 * want / 12


def test_the_same_examples_are_drawn_on_both_sides() -> None:
    """Features and their copy with one unit rescaled share all noise: what differs by a hair is found."""
    features, labels, weight = drawn(torch.Generator().manual_seed(2))
    changed = features * torch.tensor([1.02, 1.0, 1.0, 1.0])
    paired = nc.compare((features, labels, weight), (changed, labels, weight), resamples=20)
    assert paired.cka == pytest.approx(nc.linear_cka(features, changed)) and "drawn in pairs" in paired.method
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(9))
    apart = nc.compare((features, labels, weight), (changed[order], labels[order], weight), resamples=20)
    widths = [each.differences["nc1"].high - each.differences["nc1"].low for each in (paired, apart)]
    assert widths[0] < 0.2 * widths[1]
    assert not apart.differences["nc1"].differs


def test_a_draw_keeps_the_counts_and_repeats_whole_examples() -> None:
    features, labels, weight = drawn(torch.Generator().manual_seed(4))
    sample = Sample.of(features, labels, weight)
    times = sample.draw(torch.Generator().manual_seed(0))
    for label in range(CLASSES):
        assert int(times[labels == label].sum()) == int((labels == label).sum())
    index = torch.arange(len(labels)).repeat_interleave(times)
    want = nc.measure_features(features[index], labels[index], weight).numbers()
    got = sample.numbers(Settings(), times)
    assert {name: got[name] for name in got} == pytest.approx({name: want[name] for name in got}, rel=1e-12)


def test_error_and_bias() -> None:
    error, bias = error_and_bias(1.0, [1.0, 2.0, 3.0, 4.0])
    assert (error, bias) == pytest.approx((math.sqrt(5 / 3), 1.5))
    assert all(map(math.isnan, error_and_bias(1.0, [1.0, math.inf])))


def test_reports_are_compared_by_their_own_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralcollapse.measuring.measure.RESAMPLES", 20)
    generator = torch.Generator().manual_seed(6)
    sides = [drawn(generator, 60), drawn(generator, 60, spread=1.5)]
    reports = [nc.measure_features(*side, confidence=0.9) for side in sides]
    assert "Intervals at 90%" in str(reports[0]) and reports[0].confidence is not None
    interval, other = (report.confidence["nc1"] for report in reports)
    comparison = nc.compare(json.loads(json.dumps(reports[0].to_dict())), reports[1])
    found = comparison.differences["nc1"]
    half = 1.959963984540054 * math.hypot(interval.error, other.error)
    middle = interval.value - interval.bias - (other.value - other.bias)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half))
    assert found.differs
    bare = nc.compare(nc.measure_features(*sides[0]), reports[1])
    assert not bare.differing and bare.method.startswith("No intervals: one report has none.")
    assert bare.differences["nc1"].differs is None
    assert json.loads(json.dumps(bare.to_dict()))["differences"]["nc1"]["low"] == "nan"


def history(values: list[float], network: str = "mlp") -> nc.History:
    runs = [
        nc.History.from_records([{"epoch": 1, "nc1": 9.0}, {"epoch": 2, "nc1": v}], run=f"{s}", network=network, seed=s)
        for s, v in enumerate(values)
    ]
    total = runs[0]
    for run in runs[1:]:
        total = total + run
    return total


def test_runs_are_compared_by_the_spread_of_their_seeds() -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b = [1.0, 1.2, 0.9, 1.1], [2.0, 2.3, 2.2]
    found = nc.compare(history(a), history(b)).differences["nc1"]
    want = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((want.low, want.high))
    assert found.differs and (found.a, found.b) == pytest.approx((np.mean(a), np.mean(b)))
    one = nc.compare(history([1.0]), history(b))
    assert one.differences["nc1"].differs is None and one.method.startswith("No intervals: of 1 and 3 runs")


def test_an_older_history_has_the_stable_rank_under_its_old_name() -> None:
    records = nc.History.from_records([{"epoch": 1, "numerical_rank": 3.0}])
    assert records.metrics == ["stable_rank"]


def test_the_table_fits_a_terminal() -> None:
    generator = torch.Generator().manual_seed(0)
    text = str(nc.compare(drawn(generator), drawn(generator, spread=2.0), resamples=5))
    assert max(map(len, text.splitlines())) <= 80 and "95% interval" in text


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: nc.compare(d, nc.measure_features(*d)), "expected two of one kind, got features and a report"),
        (lambda d: nc.compare("a", d), "expected .features, labels., a Report or a History to compare, got 'a'"),
        (lambda d: nc.compare(d, d, level=1.0), "expected a level between 0 and 1, such as 0.95, got 1"),
        (lambda d: nc.compare(d, d, resamples=1), "expected resamples of at least 2, got 1"),
        (lambda d: nc.compare(d, d, metrics="silhouette"), "'silhouette' would see drawn examples twice"),
        (lambda d: nc.confidence_intervals(d[0], d[1][:3]), "expected one label per example"),
        (lambda d: nc.compare(history([1.0]) + history([1.0], "vgg"), history([2.0])), "differ in their seed alone"),
        (lambda d: nc.compare({"nc1": 1.0, "confidence": {"nc1": 3}}, {"nc1": 1.0}), "expected error and bias in"),
        (lambda d: nc.measure_features(*d, confidence=0.9, ood=d[0]), "expected confidence= without reference= and"),
    ],
)
def test_what_cannot_be_compared_is_refused(call: object, message: str) -> None:
    data = drawn(torch.Generator().manual_seed(0))
    with pytest.raises(nc.InputError, match=message):
        call(data)  # type: ignore[operator]


def test_progress_goes_from_nothing_to_all() -> None:
    seen: list[float] = []
    data = drawn(torch.Generator().manual_seed(0), 10)
    nc.compare(data, data, resamples=4, progress=seen.append)
    assert seen == [0.25, 0.5, 0.75, 1.0]
