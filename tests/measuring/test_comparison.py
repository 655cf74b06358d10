"""compare and confidence_intervals: they hold the population's numbers as often as they say, and find differences."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse.measuring.added_later import ADDED_LATER
from neuralcollapse.measuring.bootstrap import Sample, Settings, error_and_bias
from neuralcollapse.measuring.confidence import SHARES, binomial_interval, difference_of_shares

CLASSES, DIM = 3, 4
MEANS = 2.0 * torch.tensor([[1.0, 0.2, 0.0, 0.1], [-0.5, 0.9, 0.1, 0.0], [-0.4, -1.0, 0.2, 0.3]])
MIXING = torch.tensor([[1.0, 0.3, 0.0, 0.1], [0.0, 0.7, 0.2, 0.0], [0.1, 0.0, 0.9, 0.4], [0.0, 0.2, 0.0, 0.6]])


def drawn(generator: torch.Generator, each: int = 40, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Examples of one population, in a random order, and a classifier."""
    labels = (torch.arange(CLASSES * each) % CLASSES)[torch.randperm(CLASSES * each, generator=generator)]
    noise = torch.randn(len(labels), DIM, generator=generator) @ MIXING
    return MEANS[labels] + spread * noise, labels, MEANS - MEANS.mean(dim=0)


RESAMPLES = 16
"""Few, for speed: the rates expected below are those of so few."""


@pytest.fixture(scope="module")
def reports() -> list[nc.Report]:
    """Of 160 samples of one population, with intervals at 95 %."""
    generator = torch.Generator().manual_seed(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralcollapse.measuring.measure.RESAMPLES", RESAMPLES)
        return [nc.measure_features(*drawn(generator), confidence=0.95) for _ in range(160)]


def rate(freedom: int) -> float:
    """How often an interval of 95 % misses if its standard error has so many degrees of freedom: a little over 5 %."""
    return float(2 * stats.t.sf(1.959963984540054, freedom))


def bounds(cases: int, chance: float) -> tuple[int, int]:
    """Between which counts of so many cases all but one in a thousand lie."""
    low, high = stats.binom.interval(0.999, cases, chance)
    return int(low), int(high)


@pytest.mark.parametrize("name", ["nc1", "nc2.equinorm_means", "nc2.equiangularity_means", "nc2.maximal_angle_means"])
def test_two_samples_of_one_population_differ_in_about_five_of_a_hundred_cases(
    reports: list[nc.Report], name: str
) -> None:
    """80 pairs with no sample in common: 0 to 12 are expected, and a method of 75 % would have 20."""
    pairs = zip(reports[::2], reports[1::2], strict=True)
    count = sum(bool(nc.compare(a, b).differences[name].differs) for a, b in pairs)
    low, high = bounds(80, rate(2 * (RESAMPLES - 1)))
    assert low <= count <= high <= 13


def test_over_all_numbers_there_are_some_differences_and_not_many(reports: list[nc.Report]) -> None:
    """Intervals without end would call nothing different; the share of all is that of one to a factor of two."""
    pairs = [nc.compare(a, b).differences for a, b in zip(reports[::2], reports[1::2], strict=True)]
    found = [bool(each.differs) for pair in pairs for name, each in pair.items() if "classifier" not in name]
    assert 0.5 * 0.05 < np.mean(found) < 2 * 0.05


def test_intervals_hold_the_number_of_the_population(reports: list[nc.Report]) -> None:
    """NC1 in closed form, tr(Σ_W Σ_B⁺)/C: of 160 intervals 2 to 22 may miss it, and those of 75 % would miss 40."""
    within = (MIXING.T @ MIXING).double().numpy()
    centred = (MEANS - MEANS.mean(dim=0)).double().numpy()
    want = float(np.trace(within @ np.linalg.pinv(centred.T @ centred / CLASSES, rcond=1e-6))) / CLASSES
    intervals = [report.confidence["nc1"] for report in reports]  # type: ignore[index]
    low, high = bounds(160, rate(RESAMPLES - 1))
    assert low <= sum(not each.low <= want <= each.high for each in intervals) <= high <= 24


def test_a_real_difference_is_found_in_most_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of 1.6 times the size makes NC1 2.6 times as large: 97 of 100 pairs differ, always with the right sign."""
    monkeypatch.setattr("neuralcollapse.measuring.measure.RESAMPLES", RESAMPLES)
    generator = torch.Generator().manual_seed(4)
    a, b = (
        [nc.measure_features(*drawn(generator, spread=spread), confidence=0.95) for _ in range(6)]
        for spread in (1.0, 1.6)
    )
    pairs = [nc.compare(one, other).differences["nc1"] for one in a for other in b]
    assert sum(bool(each.differs) for each in pairs) >= 30
    assert all(each.high < 0 for each in pairs if each.differs)


def test_seeds_of_one_network_differ_in_about_five_of_a_hundred_cases() -> None:
    """Welch's interval, of 3 runs against 4: 200 pairs of studies of one distribution."""
    rng = np.random.default_rng(0)
    cases = [
        nc.compare(history(rng.normal(1, 0.1, 3).tolist()), history(rng.normal(1, 0.1, 4).tolist())) for _ in range(200)
    ]
    count = sum(bool(case.differences["nc1"].differs) for case in cases)
    low, high = bounds(200, 0.05)
    assert 1 <= low <= count <= high <= 23


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
    half = 1.959963984540054 * math.hypot(interval.error, other.error, interval.bias - other.bias)
    middle = interval.value - other.value
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half))
    assert found.differs
    bare = nc.compare(nc.measure_features(*sides[0]), reports[1])
    assert not bare.differing and bare.method.startswith("No intervals: one report has none.")
    assert bare.differences["nc1"].differs is None
    assert json.loads(json.dumps(bare.to_dict()))["differences"]["nc1"]["low"] == "nan"


def shares(right: int, of: int) -> dict[str, object]:
    """A report of so many examples, of which so many are classified correctly, with the interval of the bootstrap."""
    share = right / of
    error = math.sqrt(share * (1 - share) / of)
    return {"nc1": 1.0, "accuracy": share, "num_examples": of, "confidence": {"accuracy": {"error": error, "bias": 0}}}


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_the_difference_of_two_shares_is_newcombes(
    a: tuple[int, int], b: tuple[int, int], low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table II of Newcombe (1998), Method 10, whose intervals of one share are Wilson's."""

    def wilson(successes: int, trials: int, level: float) -> tuple[float, float]:
        interval = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
        return interval.low, interval.high

    monkeypatch.setattr("neuralcollapse.measuring.confidence.binomial_interval", wilson)
    assert difference_of_shares(a, b, 0.95) == pytest.approx((low, high), abs=5.1e-5)


def test_intervals_of_differences_of_shares_hold_the_difference_as_often_as_they_say() -> None:
    """By enumeration of all outcomes of 12 examples a side, and of 25 populations of the two shares.

    The bootstrap alone, which is certain where none or all are right, holds it in 38 of 100 samples of the worst.
    """
    size, chances = 12, (0.02, 0.1, 0.5, 0.9, 0.98)
    found = [
        [nc.compare(shares(x, size), shares(y, size)).differences["accuracy"] for y in range(size + 1)]
        for x in range(size + 1)
    ]
    low, high = (np.array([[getattr(each, name) for each in row] for row in found]) for name in ("low", "high"))
    counts = np.arange(size + 1)
    held = [
        float(
            (
                np.outer(stats.binom.pmf(counts, size, p), stats.binom.pmf(counts, size, q))
                * ((low <= p - q) & (p - q <= high))
            ).sum()
        )
        for p in chances
        for q in chances
    ]
    assert min(held) > 0.93 and np.mean(held) > 0.95
    assert low.min() == -1.0 and high.max() == 1.0


@pytest.mark.parametrize("paired", [True, False])
def test_no_difference_of_shares_is_certain_because_no_example_was_mistaken(paired: bool) -> None:
    """Of 100 examples of which none was mistaken on either side: at 95 %, 1 − 0.025^(1/100) = 0.0362 either way."""
    labels = torch.arange(100) % 2
    features = 10 * torch.eye(2)[labels] + torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    weight = torch.eye(2)
    order = torch.arange(100) if paired else torch.arange(99, -1, -1)
    found = nc.compare((features, labels, weight), (2 * features[order], labels[order], weight), resamples=4)
    reach = 1 - 0.025**0.01
    for name in SHARES:
        each = found.differences[name]
        assert (each.difference, each.differs) == (0.0, False)
        assert (each.low, each.high) == pytest.approx((-reach, reach))
    told = "Interval of accuracy, nearest_mean_accuracy, nc4_mismatch: from the binomial's exact ones"
    assert told in found.method and ("in pairs" in found.method) == paired
    assert max(map(len, str(found).splitlines())) <= 80


def test_examples_drawn_in_pairs_keep_their_sharp_interval() -> None:
    """Two networks that are both wrong about the same third of the examples, and of which one errs on two more."""
    labels = torch.arange(300) % 2
    right = torch.arange(300) >= 100
    sides = []
    for wrong in (0, 2):
        correct = right & (torch.arange(300) < 300 - wrong)
        shown = torch.where(correct, labels, 1 - labels)
        sides.append((torch.eye(2)[shown], labels, torch.eye(2)))
    accuracy = nc.compare(*sides, resamples=50).differences["accuracy"]
    exact = stats.binomtest(2, 300).proportion_ci(0.95), stats.binomtest(0, 300).proportion_ci(0.95)
    assert accuracy.difference == pytest.approx(2 / 300) and not accuracy.differs
    assert accuracy.low == pytest.approx(2 / 300 - math.hypot(2 / 300 - exact[0].low, exact[1].high))
    assert accuracy.high == pytest.approx(exact[0].high)


def test_a_share_that_cannot_be_one_of_a_report_is_refused() -> None:
    for change, message in (
        ({"num_examples": None}, "expected num_examples of at least 1, got None"),
        ({"num_examples": 10**30}, "expected num_examples of at least 1 and at most 1000000000000, got"),
        ({"accuracy": 1.5}, "expected a value of accuracy of at most 1, got 1.5"),
        ({"accuracy": -0.5}, "expected a finite value of accuracy of at least 0, got -0.5"),
    ):
        with pytest.raises(nc.InputError, match=message):
            nc.compare(shares(9, 10) | change, shares(9, 10))


def test_intervals_of_a_network_are_those_of_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("measure", "engine"):
        monkeypatch.setattr(f"neuralcollapse.measuring.{module}.RESAMPLES", 4)
    features, labels, weight = drawn(torch.Generator().manual_seed(7), 10)
    model = nn.Sequential(nn.Identity(), nn.Linear(DIM, CLASSES, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(weight)
    loader = [(features[:13], labels[:13]), (features[13:], labels[13:])]
    report = nc.measure(model, loader, confidence=0.9)
    want = nc.measure_features(features, labels, weight, confidence=0.9).confidence
    assert report.confidence is not None and want is not None and "Intervals at 90%" in str(report)
    for name, interval in want.items():
        got = report.confidence[name]
        assert (got.low, got.high, got.bias) == pytest.approx((interval.low, interval.high, interval.bias), nan_ok=True)
    assert nc.measure(model, loader).confidence is None
    monitor = nc.Monitor(model, loader, confidence=0.9)
    monitor(0)
    assert nc.History.from_records(monitor.history).metrics
    for wrong, message in (
        ({"memory_budget": 10}, "expected features that fit memory_budget = 10 bytes, for confidence="),
        ({"confidence": 0.0}, "expected a level between 0 and 1, such as 0.95, got 0"),
        ({"reference": report}, "expected confidence= without reference= and ood="),
    ):
        with pytest.raises(nc.InputError, match=message):
            nc.measure(model, loader, **{"confidence": 0.9, **wrong})
    taken: list[int] = []

    class Counted:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for number in range(40):
                taken.append(number)
                yield features.repeat(200, 1), labels.repeat(200)

    with pytest.raises(nc.InputError, match="for confidence= measures them again"):
        nc.measure(model, Counted(), confidence=0.9, memory_budget=10)
    assert len(taken) < 10  # refused where the features no longer fit, not after all batches
    with pytest.raises(nc.InputError, match=r"expected confidence= with nc.measure, for the classifier's own layer"):
        nc.measure_layers(model, loader, confidence=0.9)


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
    a, b = [1.0, 1.2, 0.9, 1.1], [2.0, 2.3, 2.2]
    found = nc.compare(history(a), history(b)).differences["nc1"]
    want = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((want.low, want.high))
    assert found.differs and (found.a, found.b) == pytest.approx((np.mean(a), np.mean(b)))
    one = nc.compare(history([1.0]), history(b))
    assert one.differences["nc1"].differs is None and one.method.startswith("No intervals: of 1 and 3 runs")


def test_settings_that_differ_are_told_with_runs() -> None:
    def runs(**settings: object) -> nc.History:
        lines = [{"epoch": 1, "nc1": 1.0, "seconds": 3.0, "learning_rate": 0.1, "re_estimated.learning_rate": 0.1}]
        lines[0] |= {"re_estimated.snr": [3.0, 2.0], "snr": [3.0, 2.0]}
        lines[0] |= dict.fromkeys(("mse.weight_decay", "re_estimated.mse.weight_decay", "notebook.mse.weight_decay"), 1)
        return nc.History.from_records(lines, **{"epochs": 10, "momentum": 0.9, **settings})

    a = runs(weight_decay=5e-4, milestones=[0.5, 0.75], data_sha256="a", model="vgg11", network="VGG11")
    b = runs(weight_decay=0.01, milestones=[0.5], data_sha256="b", model="mlp", network="MLP")
    found = nc.compare(a, b)
    wanted = {"weight_decay": ("0.0005", "0.01"), "milestones": ("0.5, 0.75", "0.5"), "network": ("VGG11", "MLP")}
    assert found.settings == wanted
    assert list(found.differences) == ["nc1"]
    assert found.to_dict()["settings"]["weight_decay"] == ["0.0005", "0.01"]
    assert "Settings that differ:\n  weight decay" in str(found) and max(map(len, str(found).splitlines())) <= 80
    measured = nc.compare(a, runs(weighting="class", num_examples=50))
    assert "weighting" not in measured.settings, "nobody knows what A was measured with"
    # the order of runs does not count, and a setting that one side never had is unknown there
    two = runs(momentum=0.9) + runs(momentum=0.8, head="linear")
    assert nc.compare(two, runs(momentum=0.9)).settings == {"momentum": ("0.8 or 0.9", "0.9")}
    assert nc.compare(two, runs(momentum=0.8) + runs(momentum=0.9)).settings == {}


def run_directory(folder: Path, **settings: object) -> nc.History:
    """As `neuralcollapse run` leaves it, without the settings that later versions added."""
    folder.mkdir(exist_ok=True)
    config = {"dataset": "digits", "model": "mlp", "loss": "mse", "seed": 0, "measured_weight_decay": 0.1, **settings}
    (folder / "config.json").write_text(json.dumps(config))
    line = {"epoch": 1, "nc1": 1.0, "mse.weight_decay": config["measured_weight_decay"]}
    (folder / "history.jsonl").write_text(json.dumps(line) + "\n")
    return nc.History.read(folder)


def test_a_setting_that_only_one_run_directory_has_is_told_where_it_is_not_the_default(tmp_path: Path) -> None:
    old = run_directory(tmp_path / "old")
    later = {"optimizer": "sgd", "head": "linear", "label_noise": 0.0, "feature_decay": None, "data_sha256": "a"}
    assert nc.compare(old, run_directory(tmp_path / "new", **later)).settings == {}
    changed = {**later, "optimizer": "adamw", "label_noise": 0.1, "feature_decay": 0.01, "measured_weight_decay": 0.2}
    found = nc.compare(run_directory(tmp_path / "other", **changed), old).settings
    wanted = {"optimizer": ("adamw", "sgd"), "label_noise": ("0.1", "0"), "feature_decay": ("0.01", "–")}
    assert found == {**wanted, "measured_weight_decay": ("0.2", "0.1")}


def test_the_defaults_of_older_run_directories_are_those_of_the_configuration() -> None:
    config = pytest.importorskip("neuralcollapse.training.config", reason="the laboratory is not installed")
    fields = {each.name: each.default for each in dataclasses.fields(config.RunConfig)}
    later = {name: default for name, default in fields.items() if default is not dataclasses.MISSING}
    assert {name: default for name, default in later.items() if default is not None} == ADDED_LATER


def ended(folder: Path, status: str, trained: int, measured: int = 0, seed: int = 0) -> Path:
    """A run directory of ten epochs with that content of `status.json`, empty for none."""
    run_directory(folder, epochs=10, seed=seed)
    if status:
        (folder / "status.json").write_text(json.dumps({"status": status, "epoch": trained}))
    if measured:
        (folder / "history.jsonl").write_text(json.dumps({"epoch": measured, "nc1": 1.0}) + "\n")
    return folder


@pytest.mark.parametrize(
    ("status", "trained", "told"),
    [
        ("running", 4, "unfinished: epoch 4 of 10"),
        ("interrupted", 3, "unfinished: epoch 3 of 10"),
        ("failed", 0, "unfinished: epoch 1 of 10"),  # one is measured
        ("diverged", 5, "diverged after epoch 5"),
        ("", 0, "unfinished: epoch 1 of 10"),
        ("failed", 10, "unfinished after its last epoch"),
    ],
)
def test_a_run_that_has_not_ended_is_told_beside_the_numbers(
    status: str, trained: int, told: str, tmp_path: Path
) -> None:
    whole = nc.History.read(ended(tmp_path / "whole", "finished", 10))
    other = nc.History.read(ended(tmp_path / "other", status, trained))
    sentence = f"Not at their end: {told} (B)."
    found = nc.compare(whole, other)
    assert found.notes == (sentence,) and sentence in str(found).splitlines()
    assert found.to_dict()["notes"] == [sentence]
    assert nc.compare(other, other.select(metric="nc1")).notes == (f"Not at their end: {told} (A, B).",)
    assert nc.compare(whole, whole).notes == ()


def test_which_seeds_have_not_ended_is_told(tmp_path: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for seed, status in enumerate(("finished", "diverged", "running")):
        ended(study / str(seed), status, 2, seed=seed)
    found = nc.compare(nc.History.read(study), nc.History.read(ended(tmp_path / "one", "running", 2)))
    told = "Not at their end: diverged after epoch 2 (A seed 1); unfinished: epoch 2 of 10 (A seed 2, B)."
    assert found.notes == (told,) and max(map(len, str(found).splitlines())) <= 80


def test_what_one_side_alone_measured_is_told() -> None:
    line = {"epoch": 2, "nc1": 1.0, "nc3": 0.5}
    a, b = (nc.History.from_records([each]) for each in ({**line, "mse.path_ratio": 0.1}, line))
    for found in (nc.compare(a, b), nc.compare(b, a)):
        assert list(found.differences) == ["nc1", "nc3"]
        assert found.notes == ("Not measured in every run, and left out: mse.path_ratio.",)
    many = nc.History.from_records([{**line, **{f"number_{each}": 1.0 for each in range(6)}}])
    told = "Not measured in every run, and left out: number_0, number_1, number_2, number_3 and 2 more."
    assert nc.compare(many, b).notes == (told,)


def test_other_epochs_are_told_beside_the_numbers(tmp_path: Path) -> None:
    sides = [ended(tmp_path / name, "finished", 10, epoch) for name, epoch in (("a", 10), ("b", 8))]
    a, b = map(nc.History.read, sides)
    assert nc.compare(a, b).notes == ("Compared at different epochs: 10 (A), 8 (B).",)
    log = nc.History.from_records([{"epoch": 2.5, "nc1": 1.0}])
    assert nc.compare(log, log).notes == ()
    assert nc.compare(history([1.0, 2.0]), log).notes == ("Compared at different epochs: 2 (A), 2.5 (B).",)
    both = nc.History.from_records([{"epoch": 3, "nc1": 1.0}]) + nc.History.from_records([{"epoch": 4, "nc1": 1.0}])
    assert nc.compare(both, both).notes == ("Compared at different epochs: 3 and 4 (A), 3 and 4 (B).",)


@pytest.mark.wrong_input
@pytest.mark.parametrize("content", ["{", "[]", '{"status": 3}', '{"epoch": null}'])
def test_a_damaged_status_is_refused_with_a_way_out(content: str, tmp_path: Path) -> None:
    folder = ended(tmp_path / "run", "", 0)
    (folder / "status.json").write_text(content)
    with pytest.raises(nc.InputError, match=r"status\.json.*; delete the file to continue without it$"):
        nc.History.read(folder)


def test_how_and_on_what_reports_were_measured_is_told_where_it_differs() -> None:
    features, labels, weight = drawn(torch.Generator().manual_seed(0))
    whole = nc.measure_features(features, labels, weight)
    assert nc.compare(whole, nc.measure_features(1.1 * features, labels, weight)).settings == {}
    other = nc.measure_features(features[:30], labels[:30], weight, weighting="class", weight_decay=5e-4)
    found = nc.compare(whole, other)
    wanted = {"weighting": ("example", "class"), "mse.weight_decay": ("0", "0.0005"), "num_examples": ("120", "30")}
    assert found.settings == wanted and "Settings that differ:\n  weighting" in str(found)
    assert nc.compare(whole, {"nc1": 1.0, "num_classes": 9}).settings == {"num_classes": ("3", "9")}
    lines = [
        nc.History.from_records([{"epoch": 1, **each.to_dict()}], weight_decay=decay)
        for each, decay in ((whole, 1), (other, 1))
    ]
    assert nc.compare(*lines).settings == wanted, "and of the lines of a Monitor"


def test_only_the_selected_metrics_of_runs_are_compared() -> None:
    a, b = (nc.History.from_records([{"epoch": 1, "nc1": v, "nc3": v, "nc2.x": v}]) for v in (1.0, 2.0))
    assert list(nc.compare(a.select(metric="nc1"), b).differences) == ["nc1"]
    assert list(nc.compare(a, b.select(metric=["nc2", "nc3"])).differences) == ["nc3", "nc2.x"]
    with pytest.raises(nc.InputError, match=r"numbers that all runs of both sides have .*, got nc1 and nc3$"):
        nc.compare(a.select(metric="nc1"), b.select(metric="nc3"))


def test_a_run_without_a_record_is_no_side() -> None:
    runs = [nc.History.from_records([{"epoch": 1, "nc1": 1.0, "layer": each}], run=each) for each in "ab"]
    empty = (runs[0] + runs[1]).select(layer="a").select(run="b")
    with pytest.raises(nc.InputError, match=r"expected runs with a measured epoch, B has none"):
        nc.compare(runs[0], empty)


@pytest.mark.parametrize("scale", [1e-300, 1e-170, 1e-90, 1e90, 1e300])
def test_intervals_of_numbers_of_any_size(scale: float) -> None:
    """Welch's and the bootstrap's are those of the numbers divided by their size."""
    a, b = [1.0, 2.0], [3.0, 5.0]
    found = nc.compare(history([scale * v for v in a]), history([scale * v for v in b])).differences["nc1"]
    want = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low / scale, found.high / scale) == pytest.approx((want.low, want.high))
    error, bias = error_and_bias(scale, [scale * v for v in (1.0, 2.0, 3.0, 4.0)])
    assert (error / scale, bias / scale) == pytest.approx((math.sqrt(5 / 3), 1.5))


def test_an_older_history_has_the_stable_rank_under_its_old_name() -> None:
    records = nc.History.from_records([{"epoch": 1, "numerical_rank": 3.0}])
    assert records.metrics == ["stable_rank"]


def test_the_table_fits_a_terminal() -> None:
    generator = torch.Generator().manual_seed(0)
    text = str(nc.compare(drawn(generator), drawn(generator, spread=2.0), resamples=5))
    assert max(map(len, text.splitlines())) <= 80 and "95% interval" in text


@pytest.mark.parametrize("counts", [(1, 1, 1), (20, 20, 1)])
def test_a_class_of_one_example_leaves_intervals_to_the_classifier_alone(
    counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What depends on features is told by measuring others with the same classifier: it changes."""
    monkeypatch.setattr("neuralcollapse.measuring.measure.RESAMPLES", 3)
    generator = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    features, others = torch.randn(2, len(labels), DIM, generator=generator)
    weight = torch.randn(3, DIM, generator=generator)
    names = [name for name, metric in nc.METRICS.items() if not metric.needs & {"examples", "ood"}]
    names = [name for name in names if nc.METRICS[name].examples_each <= min(counts)]
    chosen = {"metrics": [name for name in names if "class_scatter" not in nc.METRICS[name].needs]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # numbers that are undefined for so few examples
        one, two = (nc.measure_features(each, labels, weight, **chosen).numbers() for each in (features, others))
        found = nc.compare((features, labels, weight), (others, labels, 1.1 * weight), resamples=3, **chosen)
        report = nc.measure_features(features, labels, weight, confidence=0.95, **chosen)
    assert report.confidence is not None
    alone = {name for name, each in report.confidence.items() if not math.isnan(each.low)}
    changed = {name for name in one if one[name] != two[name]}
    assert len(alone) > 10 and not alone & changed
    assert {name for name, each in found.differences.items() if each.differs is not None} <= alone
    assert found.differences["nc0"].differs and found.differences["nc1"].differs is None
    which = "class 0 and 2 more have" if counts[0] == 1 else "class 2 has"
    message = f"No intervals of what depends on features: {which} one example"
    assert message in found.method and message in report.notes[-1] and "Note: No intervals" in str(report)
    with pytest.warns(UserWarning, match=message):
        nc.confidence_intervals(features, labels, weight, resamples=2)


def test_few_examples_a_class_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralcollapse.measuring.measure.RESAMPLES", 2)
    few, enough = (drawn(torch.Generator().manual_seed(0), each) for each in (9, 10))
    message = "fewer than 10 examples, and the smallest has 9"
    assert message in nc.compare(few, enough, resamples=2).method
    assert message in nc.measure_features(*few, confidence=0.9).notes[-1]
    with pytest.warns(UserWarning, match=message):
        nc.confidence_intervals(*few, resamples=2)
    assert "fewer than" not in nc.compare(enough, enough, resamples=2).method
    reports = [nc.measure_features(*each, confidence=0.9) for each in (few, enough)]
    assert message in nc.compare(*reports).method and message in nc.compare(reports[1], reports[0].to_dict()).method
    assert "fewer than" not in nc.compare(reports[1], reports[1]).method
    assert not any("fewer than" in note for note in nc.measure_features(*enough, confidence=0.9).notes)
    nc.confidence_intervals(*enough, resamples=2)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: nc.compare(d, nc.measure_features(*d)), "expected two of one kind, got features and a report"),
        (lambda d: nc.compare("a", d), "expected .features, labels., a Report or a History to compare, got 'a'"),
        (lambda d: nc.compare(d, d, level=1.0), "expected a level between 0 and 1, such as 0.95, got 1"),
        (lambda d: nc.compare(d, d, resamples=1), "expected resamples of at least 2, got 1"),
        (lambda d: nc.compare(d, d, metrics="silhouette"), "'silhouette' would see drawn examples twice"),
        (lambda d: nc.compare((d[0], d[1][:3]), d), "^A: expected one label per example"),
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


@pytest.mark.parametrize("row", [7, 9000])  # in the first block of rows, and in a later one
def test_the_side_and_the_row_of_a_nan_are_named(row: int) -> None:
    features, labels = torch.zeros(10_000, 3), torch.arange(10_000) % 2
    damaged = features.clone()
    damaged[row, 1] = torch.nan
    with pytest.raises(nc.InputError, match=f"^B: expected finite features, got NaN or infinity in row {row}$"):
        nc.compare((features + labels[:, None], labels), (damaged, labels), resamples=2)


def test_progress_goes_from_nothing_to_all() -> None:
    seen: list[float] = []
    data = drawn(torch.Generator().manual_seed(0), 10)
    nc.compare(data, data, resamples=4, progress=seen.append)
    assert seen == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("trials", [1, 2, 7, 100, 3000, 1_000_000])
def test_the_exact_interval_of_a_share_is_scipys(trials: int, level: float) -> None:
    for successes in {0, 1, trials // 7, trials // 2, trials - 1, trials}:
        want = stats.binomtest(successes, trials).proportion_ci(level, method="exact")
        assert binomial_interval(successes, trials, level) == pytest.approx((want.low, want.high), rel=1e-7, abs=1e-13)


def two_classes(mistakes: int = 0, each: int = 50) -> tuple[Tensor, Tensor, Tensor]:
    """On a line, the first ``mistakes`` of each class on the other's side, and a classifier by its sign."""
    labels = torch.arange(2 * each) % 2
    features = (1.0 - 2.0 * labels) * (1.0 + 0.01 * torch.arange(2 * each))
    features[: 2 * mistakes] *= -0.1
    return features[:, None], labels, torch.tensor([[1.0], [-1.0]])


@pytest.mark.parametrize("wrong", [False, True])
def test_a_share_without_a_mistake_or_without_a_success_has_a_width(
    wrong: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All resamples agree then: the bound is where 0 of 100 still has a chance of 2.5 %."""
    monkeypatch.setattr("neuralcollapse.measuring.measure.RESAMPLES", 5)
    features, labels, weight = two_classes()
    bound = 1 - 0.025 ** (1 / 100)
    assert bound == pytest.approx(0.0362, abs=5e-5)
    weight = -weight if wrong else weight
    report = nc.measure_features(features, labels, weight, confidence=0.95)
    assert report.confidence is not None and (report.accuracy, report.nc4_mismatch) == (
        (0.0, 1.0) if wrong else (1.0, 0.0)
    )
    for name in SHARES:
        interval = report.confidence[name]
        want = (0.0, bound) if interval.value == 0.0 else (1.0 - bound, 1.0)
        assert (interval.low, interval.high) == pytest.approx(want, rel=1e-12)
        assert interval.error == interval.bias == 0.0
    note = (
        "Interval of accuracy, nearest_mean_accuracy, nc4_mismatch: the binomial's exact one, for all resamples agree."
    )
    assert report.notes == (note,)
    assert nc.confidence_intervals(features, labels, weight, resamples=5)["accuracy"] == report.confidence["accuracy"]


def test_a_share_of_which_each_class_is_sure_has_a_width() -> None:
    """One class wholly right, the other wholly wrong: resamples within classes agree on one half."""
    features, labels, _ = two_classes()
    weight, bias = torch.tensor([[1.0], [-1.0]]), torch.tensor([100.0, 0.0])  # all are given to class 0
    interval = nc.confidence_intervals(features, labels, weight, bias, resamples=5)["accuracy"]
    want = stats.binomtest(50, 100).proportion_ci(0.95, method="exact")
    assert (interval.value, interval.error) == (0.5, 0.0)
    assert (interval.low, interval.high) == pytest.approx((want.low, want.high), rel=1e-9)


@pytest.mark.parametrize("mistakes", [1, 2, 10, 49])
def test_intervals_of_shares_end_at_one_and_fewer_mistakes_make_none_wider(mistakes: int) -> None:
    features, labels, weight = two_classes(mistakes)
    found = nc.confidence_intervals(features, labels, weight, resamples=40)
    for name in SHARES:
        interval, exact = found[name], binomial_interval(round(100 * found[name].value), 100, 0.95)
        assert 0.0 <= interval.low <= exact[0] <= interval.value <= exact[1] <= interval.high <= 1.0
    accuracy = found["accuracy"]
    reach = 1.959963984540054 * math.hypot(accuracy.error, accuracy.bias)
    want = stats.binomtest(100 - 2 * mistakes, 100).proportion_ci(0.95, method="exact")
    assert accuracy.error > 0.0 and accuracy.low == pytest.approx(max(min(1 - 0.02 * mistakes - reach, want.low), 0.0))


@pytest.mark.parametrize(
    "name", ["duality_product_mean", "gnc2_log_classifier", "equinorm_means_log", "nc1", "mse.nc1"]
)
def test_only_what_cannot_be_negative_is_cut_at_zero(name: str) -> None:
    """Whatever the resamples are: products of a mean near zero are positive in all of few."""
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, 3, generator=generator), torch.arange(60) % 2
    weight = torch.eye(2, 3) * 0.1
    metrics = [name] if name in nc.METRICS else None
    options = {"metrics": metrics, "resamples": 3, "level": 1 - 1e-12}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        interval = nc.confidence_intervals(features, labels, weight, **options)[name]
    width = float(stats.norm.isf(0.5e-12)) * math.hypot(interval.error, interval.bias)
    signed = name in nc.METRICS and nc.METRICS[name].signed
    assert interval.low == pytest.approx(
        interval.value - width if signed else max(interval.value - width, 0.0), rel=1e-4
    )
    assert interval.high == pytest.approx(interval.value + width, rel=1e-4)
    if not signed or name == "duality_product_mean":
        assert interval.value - width < 0.0 < interval.value


def test_differences_are_not_cut() -> None:
    """Neither at zero nor at one: both sides may be the greater."""
    generator = torch.Generator().manual_seed(5)
    comparison = nc.compare(drawn(generator, 12), drawn(generator, 12), resamples=30)
    accuracy, mean = (comparison.differences[name] for name in ("accuracy", "nc1"))
    for each in (accuracy, mean):
        assert each.low < 0.0 < each.high
        assert each.difference - each.low == pytest.approx(each.high - each.difference)
