"""A report prints, and goes into JSON, whatever is in it."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
import pickle

import pytest
import torch
from helpers.networks import Network, inputs_and_labels, loader

import neuralcollapse as nc
from neuralcollapse.metrics.signal_to_noise import SNRSpectrum

ODD = (math.nan, math.inf, -math.inf, 0.0, None)
SPECTRA = ([], [math.inf], [math.inf, 2.0], [math.nan, math.nan], [0.0])


@pytest.fixture
def report() -> nc.Report:
    return nc.measure(Network(), loader(), metrics="all", weight_decay=0.01)


@pytest.mark.parametrize(("value", "spectrum"), list(itertools.product(ODD, SPECTRA)))
def test_every_degenerate_report_prints_and_goes_into_json(value: float | None, spectrum: list[float], report) -> None:
    some = 1.0 if value is None else value  # numbers that are never missing
    odd = dataclasses.replace(
        report,
        accuracy=value,
        nearest_mean_accuracy=value,
        nc1=some,
        nc2=nc.NC2(some, value, some, value, some, value),
        nc3=value,
        nc4_mismatch=value,
        mse=dataclasses.replace(report.mse, total=value, nc1=some, nc23=some, ls=some, ls_perp=value),
        snr=SNRSpectrum(torch.tensor(spectrum), "full"),
        extra={name: some for name in report.extra},
        notes=("a note " * 40, "another"),
    )
    text = str(odd)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert ("not measured" in text) == (value is None)
    assert "Note: another" in text and "Layer: head" in text
    written = json.loads(json.dumps(odd.to_dict(), allow_nan=False))
    assert written["snr"] == [str(each) if not math.isfinite(each) else each for each in spectrum]
    assert written["notes"] == list(odd.notes)
    numbers = odd.numbers()
    assert ("nc3" in numbers) == (value is not None)
    assert not {"layer", "notes", "weighting", "snr_space", "snr"} & numbers.keys()
    for name, each in numbers.items():
        assert isinstance(each, float), name


def test_a_long_meaning_goes_on_below_itself_and_loses_nothing(report) -> None:
    lines = str(report).splitlines()
    (first,) = (place for place, line in enumerate(lines) if line.startswith("  nc1_mixed_example_mean "))
    assert lines[first].startswith("  nc1_mixed_example_mean ") and lines[first + 1].startswith(" " * 47)
    words = " ".join(lines).split()
    for name in report.extra:
        meaning = nc.METRICS[name].meaning.split()
        start = words.index(name) + 2
        assert words[start : start + len(meaning)] == meaning
    assert not any(line.strip().startswith("→") for line in lines)


def test_a_layer_called_nan_is_no_number(report) -> None:
    for name in ("nan", "inf", "-inf"):
        assert "layer" not in dataclasses.replace(report, layer=name).numbers()


def test_the_share_of_the_loss_is_said_where_there_is_one(report) -> None:
    assert f"{report.mse.ls_perp / report.mse.total:.2%} of the loss" in str(report)
    for total in (0.0, math.inf, math.nan, None):
        assert "of the loss" not in str(dataclasses.replace(report, mse=dataclasses.replace(report.mse, total=total)))


# --- comparing, attributes, repr ---


def test_equal_measurements_give_equal_reports() -> None:
    model = Network()
    options = {"metrics": "all", "weight_decay": 0.01}
    first, second = (nc.measure(model, loader(), **options) for _ in range(2))
    assert first == second
    assert first != nc.measure(model, loader(), **{**options, "weight_decay": 0.02})
    assert first != dataclasses.replace(first, layer="other") and first != 3 and first is not None
    other = dataclasses.replace(first, snr=SNRSpectrum(first.snr.singular_values + 1e-9, first.snr.space))
    assert first != other
    for copied in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert copied == first and copied.cdnv == first.cdnv
    nan = dataclasses.replace(first, nc1=math.nan, extra={"cdnv": math.nan})
    assert nan == dataclasses.replace(nan, nc1=math.nan) and nan != first
    with pytest.raises(TypeError, match="unhashable"):
        hash(first)


def test_reports_by_layer_compare_too() -> None:
    model = Network()
    first, second = (nc.measure_layers(model, loader(), weight_decay=0.1) for _ in range(2))
    assert first == second and first["head"] == second["head"] and first["body"] != first["neck"]
    assert first != nc.measure_layers(model, loader(), ["body"], weight_decay=0.1) and first != 3
    assert repr(first) == "LayerReports(body, neck, head)"
    assert list(first.moments) == ["body", "neck", "head"]


def test_metrics_asked_for_are_attributes(report) -> None:
    for name, value in report.extra.items():
        assert getattr(report, name) == pytest.approx(value, abs=0, rel=0, nan_ok=True), name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nc5", r"'nc5' was not measured: ask for it with metrics='nc5' and ood="),
        ("cdnv", r"'cdnv' was not measured: ask for it with metrics='cdnv'$"),
        ("nc4", r"a Report has no 'nc4' \(did you mean 'nc"),
        ("acuracy", r"a Report has no 'acuracy' \(did you mean 'accuracy'"),
        ("cdvn", r"a Report has no 'cdvn' \(did you mean 'cdnv'"),
        ("wholly_else", r"a Report has no 'wholly_else'$"),
        ("_private", "_private"),
    ],
)
def test_what_a_report_has_not_is_said_with_the_way_to_it(name: str, message: str) -> None:
    plain = nc.measure(Network(), loader())
    with pytest.raises(AttributeError, match=message):
        getattr(plain, name)
    assert not hasattr(plain, name)


def test_every_number_is_an_item_by_its_name(report) -> None:
    for name, value in report.numbers().items():
        assert report[name] == pytest.approx(value, abs=0, rel=0, nan_ok=True), name
    assert report["snr"] == report.to_dict()["snr"] and report["layer"] == report.layer
    plain = nc.measure(Network(), loader())
    for name, message in (
        ("cdnv", r"'cdnv' was not measured: ask for it with metrics='cdnv'$"),
        ("nc2.equinorm", r"a Report has no number 'nc2.equinorm' .did you mean 'nc2.equinorm_means'"),
        (0, r"a Report has no number 0"),
    ):
        with pytest.raises(nc.InputError, match=message):
            plain[name]
    with pytest.raises(TypeError):
        list(plain)


def test_a_report_is_short_in_a_list(report) -> None:
    assert repr(report).startswith("Report(layer='head', num_examples=50, nc1=") and len(repr(report)) < 120
    assert "tensor" not in repr(nc.measure_layers(Network(), loader())["head"])
    bare = nc.measure_features(*inputs_and_labels())
    assert "nc3=not measured" in repr(bare)
