"""The numbers of each class: against a slow reference, however the examples come, and as text and table."""

from __future__ import annotations

import dataclasses
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.cases import Case, data, named, over_cases, over_weightings
from helpers.gloo import on_processes, per_class_of_a_shard
from helpers.networks import Network, inputs_and_labels, loader
from reference.moments import class_moments
from reference.per_class import class_numbers
from torch.utils.data import DataLoader, Subset, TensorDataset

import neuralcollapse as nc
from neuralcollapse.measuring.per_class import ClassReport, nearest_means

NAMES = ["cat", "dog", "car"]


def numbers(report: nc.Report) -> dict[int, dict[str, object]]:
    return {each.label: dataclasses.asdict(each) for each in report.per_class}


@over_cases
@over_weightings
def test_every_number_is_the_references(case: Case, weighting: str) -> None:
    d = data(case)
    m = class_moments(d.features, d.labels, case.num_classes, weighting)
    want = class_numbers(m, d.features, d.labels, d.weight, d.bias)
    report = nc.measure_features(d.features, d.labels, d.weight, d.bias, weighting=weighting)
    got = numbers(report)
    assert got.keys() == want.keys(), "a row for each class with examples"
    for label, row in want.items():
        for name, value in row.items():
            # a pseudo-inverse from eigenvectors squares the condition of the class means
            close = pytest.approx(value, rel=1e-7, abs=1e-9) if isinstance(value, float) else value
            assert got[label][name] == close, (label, name)
    assert sum(row["nc1_share"] for row in got.values()) == pytest.approx(report.nc1, rel=1e-9)
    weights = report.moments.weights
    assert sum(float(weights[c]) * row["variability"] for c, row in got.items()) == pytest.approx(
        report.moments.within_variance, rel=1e-9
    )
    shares = [row["examples"] / len(d.labels) for row in got.values()]
    assert sum(s * r["accuracy"] for s, r in zip(shares, got.values(), strict=True)) == pytest.approx(report.accuracy)
    mismatches = sum(s * r["nc4_mismatch"] for s, r in zip(shares, got.values(), strict=True))
    assert mismatches == pytest.approx(report.nc4_mismatch)


@pytest.mark.parametrize("exponent", [0, 70, -70])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_narrow_and_extreme_features_give_the_same_numbers(dtype: torch.dtype, exponent: int) -> None:
    """Collapsed a thousand times closer than the classes are apart; the scale of features changes no ratio."""
    if dtype == torch.float16 and exponent:
        pytest.skip("outside its range")
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(300) % 5
    means = torch.randn(5, 12, generator=generator) + 3.0
    features = (means[labels] + 4e-3 * torch.randn(300, 12, generator=generator)).to(dtype)
    m = class_moments(features.double().numpy(), labels.numpy(), 5, "example")
    weight, bias = means.double() - means.mean(dim=0), torch.zeros(5, dtype=torch.float64)
    want = class_numbers(m, features.double().numpy(), labels.numpy(), weight.numpy(), bias.numpy())
    scale = 2.0**exponent
    got = numbers(nc.measure_features(features * scale, labels, weight, bias))
    for label, row in want.items():
        row["mean_norm"] *= scale
        row["variability"] *= scale**2
        for name in ("nc1", "nc1_share", "mean_norm", "variability", "nearest_cosine", "duality"):
            assert got[label][name] == pytest.approx(row[name], rel=2e-5), (label, name)


@over_cases
def test_moments_by_class_alone_have_nc1_of_each_class(case: Case) -> None:
    """They hold a scatter of each; accuracies need the examples."""
    d = data(case)
    want = class_numbers(
        class_moments(d.features, d.labels, case.num_classes, "class"), d.features, d.labels, d.weight, d.bias
    )
    moments = nc.ClassMoments(case.num_classes, weighting="class")
    moments.update(d.features * 2.0**600, d.labels)
    report = nc.make_report(moments, d.weight, d.bias)
    got = numbers(report)
    for label, row in want.items():
        for name in ("nc1", "nc1_share"):
            assert got[label][name] == pytest.approx(row[name], rel=1e-7, abs=1e-9), (label, name)
        assert got[label]["accuracy"] is got[label]["nearest_mean_accuracy"] is got[label]["nc4_mismatch"] is None
    assert sum(row["nc1_share"] for row in got.values()) == pytest.approx(report.nc1, rel=1e-9)


def test_moments_by_class_about_a_reference_have_nc1_of_each_class() -> None:
    d = data(named("balanced"))
    moments = [nc.ClassMoments(4, weighting="class") for _ in range(2)]
    moments[0].update(d.features, d.labels)
    chosen = np.random.default_rng(3).permutation(len(d.labels))[:30]
    features, labels = d.features[chosen] + 0.1, d.labels[chosen]
    moments[1].update(features, labels)
    report = nc.make_report(moments[1].around(moments[0]))
    m = class_moments(d.features, d.labels, 4, "class")
    inverse = np.linalg.pinv(m.between, rcond=1e-10)
    for row in report.per_class:
        spread = features[labels == row.label] - m.means[row.label]
        assert row.nc1 == pytest.approx(np.einsum("np,pq,nq->", spread, inverse, spread) / len(spread) / 4)
        assert row.nc1_share == pytest.approx(row.nc1 / 4)


def test_moments_by_class_whose_means_coincide_have_no_nc1() -> None:
    moments = nc.ClassMoments(2, weighting="class")
    moments.update(torch.tensor([[1.0], [-1.0], [2.0], [-2.0]]), torch.tensor([0, 0, 1, 1]))
    with pytest.warns(UserWarning, match="NC1 is infinite: the means of classes 0 and 1 coincide"):
        report = nc.make_report(moments)
    assert all(math.isnan(row.nc1) and math.isnan(row.nc1_share) for row in report.per_class)


def test_test_features_are_measured_about_the_training_means() -> None:
    d = data(named("balanced"))
    training = nc.measure_features(d.features, d.labels, d.weight, d.bias)
    rng = np.random.default_rng(3)
    chosen = rng.permutation(len(d.labels))[:30]
    features, labels = d.features[chosen] + 0.1 * rng.normal(size=(30, 7)), d.labels[chosen]
    report = nc.measure_features(features, labels, d.weight, d.bias, reference=training.moments)
    m = class_moments(d.features, d.labels, 4, "example")
    counts = np.bincount(labels, minlength=4)
    mean = (counts / 30) @ m.means
    between = sum(n / 30 * np.outer(mu - mean, mu - mean) for n, mu in zip(counts, m.means, strict=True))
    inverse = np.linalg.pinv(between, rcond=1e-10)
    for row in report.per_class:
        spread = features[labels == row.label] - m.means[row.label]
        assert row.nc1 == pytest.approx(np.einsum("np,pq,nq->", spread, inverse, spread) / len(spread) / 4)
        assert row.variability == pytest.approx((spread**2).sum(axis=1).mean())
    assert sum(row.nc1_share for row in report.per_class) == pytest.approx(report.nc1)


def test_two_passes_and_processes_count_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Network().double()
    inputs, labels = inputs_and_labels()
    batches = [(inputs.double(), labels)]
    want = nc.measure(model, batches)
    assert numbers(nc.measure(model, batches, memory_budget=1)) == numbers(want)
    on_processes(2, tmp_path, per_class_of_a_shard, str(tmp_path))
    tables = [pickle.loads((tmp_path / f"{rank}.pkl").read_bytes()) for rank in (0, 1)]
    assert tables[0] == tables[1]
    for mine, row in zip(tables[0], want.per_class, strict=True):
        for name, value in dataclasses.asdict(row).items():
            got = getattr(mine, name)
            assert got == (pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value), name


def test_nearest_means_over_several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralcollapse.metrics.geometry._TILE", 7)
    rows = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    rows[11] = 0.0
    where, cosines = nearest_means(rows)
    for c in range(30):
        best = {k: float(torch.cosine_similarity(rows[c], rows[k], dim=0)) for k in range(30) if k not in (c, 11)}
        if c == 11:
            assert where[c] == -1 and math.isnan(cosines[c])
        else:
            assert where[c] == max(best, key=best.get) and cosines[c] == pytest.approx(max(best.values()))


def test_what_is_not_defined_is_nan_and_what_was_not_measured_none() -> None:
    features = torch.tensor([[1.0, 0.0], [3.0, 0.0], [1.0, 1.0], [3.0, -1.0], [2.0, 1.0], [2.0, -1.0]])
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    with pytest.warns(UserWarning, match="means of classes 0 and 1 coincide"):
        report = nc.measure_features(features, labels)
    rows = list(report.per_class)
    assert all(math.isnan(row.nc1) and math.isnan(row.nc1_share) for row in rows), "NC1 is infinite"
    assert all(math.isnan(row.nearest_cosine) and row.nearest is None for row in rows), "no mean has a direction"
    assert all(row.accuracy is None and row.duality is None and row.nc4_mismatch is None for row in rows)
    assert [row.nearest_mean_accuracy for row in rows] == [1.0, 0.0, 0.0], "the first of equals wins"
    assert "–" in str(report.per_class) and "nan" in str(report.per_class)
    merged = nc.make_report(nc.measure_features(*inputs_and_labels()).moments)
    assert all(row.nc1 is None and row.nearest_mean_accuracy is None for row in merged.per_class)
    ratios = [row.variability / row.mean_norm**2 for row in merged.per_class.least_collapsed()]
    assert ratios == sorted(ratios, reverse=True)


# --- names, text, table ---


def test_names_come_from_the_option_or_the_data_set() -> None:
    model = Network()

    class Pictures(TensorDataset):
        classes = NAMES

    plain, pictures = loader(), Pictures(*inputs_and_labels())
    assert [row.name for row in nc.measure(model, plain).per_class] == ["0", "1", "2"]
    assert [row.name for row in nc.measure(model, plain, class_names=tuple("xyz")).per_class] == ["x", "y", "z"]
    for dataset in (pictures, Subset(Subset(pictures, range(40)), range(30))):
        found = nc.measure(model, DataLoader(dataset, batch_size=8)).per_class
        assert [row.name for row in found] == NAMES
        assert found["dog"] == found[1] and found["dog"].nearest in ("cat", "car")
    layers = nc.measure_layers(model, DataLoader(pictures, batch_size=8))
    assert [row.name for row in layers["body"].report.per_class] == NAMES
    Pictures.classes = ["other", "number"]
    assert nc.measure(model, DataLoader(pictures, batch_size=8)).per_class[0].name == "0"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("abc", "a list of names, got the text 'abc'|a list of names, got 'abc'"),
        ([1, 2, 3], "texts, got 1 among them"),
        (["a", "b"], "a name for each of 3 classes, got 2"),
        (["a"] * 4, "a name for each of 3 classes, got 4"),
    ],
)
@pytest.mark.wrong_input
def test_wrong_names_are_refused(names: object, message: str) -> None:
    with pytest.raises(nc.InputError, match=message):
        nc.measure(Network(), loader(), class_names=names)
    inputs, labels = inputs_and_labels()
    with pytest.raises(nc.InputError, match=message):
        nc.measure_features(inputs, labels, torch.randn(3, 5), class_names=names)


def test_the_table_is_indexed_by_name_and_by_number() -> None:
    inputs, labels = inputs_and_labels()
    classes = nc.measure_features(
        inputs, labels, torch.randn(3, 5), class_names=["crane", "maillot", "crane"]
    ).per_class
    assert classes["maillot"].label == 1 and classes[2].name == "crane" and len(classes) == 3
    with pytest.raises(nc.InputError, match="'crane' is that of 0, 2: give the number"):
        classes["crane"]
    with pytest.raises(nc.InputError, match=r"got 'mailot' .did you mean 'maillot'"):
        classes["mailot"]
    with pytest.raises(nc.InputError, match="by name or number, got 3"):
        classes[3]
    with pytest.raises(nc.InputError, match=r"a ClassReport has no 'acuracy' .did you mean 'accuracy'"):
        classes.column("acuracy")
    with pytest.raises(nc.InputError, match="accuracy was not measured"):
        nc.measure_features(inputs, labels).per_class.column("accuracy")


def test_the_frame_has_all_numbers() -> None:
    frame = nc.measure(Network(), loader(), class_names=NAMES).per_class.to_frame()
    assert list(frame.columns) == [each.name for each in dataclasses.fields(ClassReport)] and len(frame) == 3
    assert frame.name.tolist() == NAMES and frame.examples.sum() == 50


def test_the_text_is_sorted_fits_80_columns_and_runs_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(600) % 30
    spread = torch.linspace(0.1, 1.0, 30)[labels, None]
    features = torch.randn(30, 40, generator=generator)[labels] + spread * torch.randn(600, 40, generator=generator)
    names = ["\x1b[31mred\nline", "a name of very many letters", *(f"class {c}" for c in range(2, 30))]
    report = nc.measure_features(features, labels, torch.randn(30, 40, generator=generator), class_names=names)
    text = str(report.per_class)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80 and "\x1b" not in text
    assert lines[1].startswith("class 29 ") and "… and 10 more classes" in text
    own = [row.nc1 for row in report.per_class.least_collapsed()]
    assert own == sorted(own, reverse=True) and len(report.per_class.least_collapsed(3)) == 3
    shares = [float(line.split("%")[1].split()[-1]) for line in lines[1:21]]
    assert shares[0] == pytest.approx(100 * report.per_class["class 29"].nc1_share / report.nc1, abs=0.06)


def test_arrays_go_there_and_back_and_others_are_refused() -> None:
    report = nc.measure(Network(), loader(), class_names=NAMES)
    arrays, means = report.per_class.to_arrays(), report.moments.centred_means.numpy()
    back = nc.ClassReports.from_arrays(arrays, means, NAMES)
    assert back == report.per_class and list(back) == list(report.per_class)
    for change in (
        {"label": np.array([0, 1, 1])},
        {"label": np.array([0, 1, 3])},
        {"nc1": arrays["nc1"][:2]},
        {"accuracy": arrays["accuracy"].astype("U9")},
        {"other": arrays["nc1"]},
    ):
        with pytest.raises(nc.InputError, match="expected"):
            nc.ClassReports.from_arrays({**arrays, **change}, means)
    with pytest.raises(nc.InputError, match="got none"):
        nc.ClassReports.from_arrays({}, means)


def test_equality() -> None:
    model = Network()
    first, second = (nc.measure(model, loader(), class_names=NAMES).per_class for _ in range(2))
    assert first == second and first == pickle.loads(pickle.dumps(first)) and first != 3
    assert first != nc.measure(model, loader()).per_class
    with pytest.raises(TypeError, match="unhashable"):
        hash(first)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-100, 1e100, 1e160, 1e300])
def test_the_order_of_classes_is_that_at_any_other_scale(scale: float) -> None:
    """Of moments alone, which have no NC1 by class; warnings are errors here."""
    features, labels = torch.randn(60, 4, dtype=torch.float64), torch.arange(60) % 5
    spread = 0.01 * torch.tensor([2.0, 5.0, 1.0, 4.0, 3.0]).double()[labels][:, None]
    features = torch.randn(5, 4, dtype=torch.float64)[labels] + spread * features
    found = []
    for factor in (1.0, scale):
        moments = nc.ClassMoments(5)
        moments.update(factor * features, labels)
        report = nc.make_report(moments, torch.randn(5, 4, dtype=torch.float64))
        found.append([each.name for each in report.per_class.least_collapsed()])
        assert "The least collapsed class is" not in str(report)  # which is told by NC1
    assert found[0] == found[1] != sorted(found[0])


@pytest.mark.parametrize("weighting", ["example", "class", "mixed", "mixed-example-mean"])
def test_shares_add_up_under_every_weighting(weighting: str) -> None:
    """NC1 from NumPy's covariances: Σ_W of mixed weightings is by example, Σ_B by class."""
    rng, counts = np.random.default_rng(0), np.array([30, 8, 3])
    labels = np.repeat(np.arange(3), counts)
    features = 2 * rng.normal(size=(3, 5))[labels] + rng.normal(size=(41, 5)) * np.array([1.0, 3.0, 0.5])[labels, None]
    means = np.array([features[labels == c].mean(axis=0) for c in range(3)])
    residuals = [features[labels == c] - means[c] for c in range(3)]
    between = np.full(3, 1 / 3) if weighting != "example" else counts / 41
    within = np.full(3, 1 / 3) if weighting == "class" else counts / 41
    centred = means - (within if weighting == "mixed-example-mean" else between) @ means
    values, vectors = np.linalg.eigh((centred * between[:, None]).T @ centred)
    inverse = vectors[:, -2:] / values[-2:] @ vectors[:, -2:].T  # of C − 1 directions, about whatever mean
    shares = [pi * np.trace(r.T @ r @ inverse) / len(r) / 3 for pi, r in zip(within, residuals, strict=True)]
    report = nc.measure_features(features, labels, rng.normal(size=(3, 5)), weighting=weighting)
    assert report.per_class.column("nc1_share") == pytest.approx(shares, rel=1e-8)
    assert report.per_class.column("nc1_share").sum() == pytest.approx(report.nc1, rel=1e-10)
    spread = within @ report.per_class.column("variability")
    assert spread == pytest.approx(report.moments.within_variance, rel=1e-10)
