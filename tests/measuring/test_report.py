"""A report prints, and goes into JSON, whatever is in it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import pytest
import torch
from helpers.networks import Network, loader

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
    assert max(len(line) for line in text.splitlines()) <= 120
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


def test_a_layer_called_nan_is_no_number(report) -> None:
    for name in ("nan", "inf", "-inf"):
        assert "layer" not in dataclasses.replace(report, layer=name).numbers()


def test_the_share_of_the_loss_is_said_where_there_is_one(report) -> None:
    assert f"{report.mse.ls_perp / report.mse.total:.2%} of the loss" in str(report)
    for total in (0.0, math.inf, math.nan, None):
        assert "of the loss" not in str(dataclasses.replace(report, mse=dataclasses.replace(report.mse, total=total)))
