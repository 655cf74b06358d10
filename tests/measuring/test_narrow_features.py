"""Features of 16 bits: a report tells where their rounding makes NC1, and not where it is of no account."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import neuralcollapse as nc
from neuralcollapse.measuring.report import make_report
from neuralcollapse.metrics.rank import given_rounding, given_type

# significant bits of each type, the hidden one among them
BITS = {torch.bfloat16: 8, torch.float16: 11}
both_types = pytest.mark.parametrize("dtype", BITS)


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """To so many significant bits, ties to even."""
    fractions, exponents = np.frexp(values)
    return np.ldexp(np.rint(np.ldexp(fractions, bits)), exponents - bits)


def plain_nc1(features: np.ndarray, labels: np.ndarray) -> float:
    """tr(Σ_W Σ_B⁺)/C in float64, of classes that are equally many."""
    means = np.array([features[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
    spread, centred = features - means[labels], means - means.mean(axis=0)
    inverse = np.linalg.pinv(centred.T @ centred / len(means), rcond=1e-12)
    return float(np.trace(spread.T @ spread / len(labels) @ inverse) / len(means))


def classes(spread: float, offset: float = 0.0, apart: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """4000 examples of 5 classes in 16 features."""
    rng = np.random.default_rng(seed)
    labels = np.arange(4000) % 5
    return offset + apart * rng.normal(size=(5, 16))[labels] + spread * rng.normal(size=(4000, 16)), labels


def told(report: nc.Report) -> str:
    return " ".join(note for note in report.notes if "rounding" in note)


@both_types
@pytest.mark.parametrize("weighting", ["example", "class"])
def test_the_rounding_told_of_is_what_it_adds(dtype: torch.dtype, weighting: str) -> None:
    """Features of 8 to 16 are 2^(4 − bits) apart; the spread is about one such step, so that rounding is as noise."""
    step = 2.0 ** (4 - BITS[dtype])
    features, labels = classes(0.8 * step, 12.0, 0.3)
    features = features.astype(np.float32).astype(float)  # through which PyTorch goes to 16 bits
    narrow = rounded(features, BITS[dtype])
    assert np.array_equal(narrow, torch.from_numpy(features).to(dtype).double().numpy())
    excess = plain_nc1(narrow, labels) - plain_nc1(features, labels)
    report = nc.measure_features(torch.from_numpy(features).to(dtype), labels, weighting=weighting)
    assert report.nc1 == pytest.approx(plain_nc1(narrow, labels), rel=1e-5)
    found = told(report)
    name = str(dtype).removeprefix("torch.")
    assert found.startswith(f"rounding the features to {name} makes or hides about ")
    assert found.endswith(" of NC1: compute them in float32")
    assert float(found.split(" about ")[1].split(" ")[0]) == pytest.approx(excess, rel=0.1)
    assert not told(nc.measure_features(torch.from_numpy(features).float(), labels, weighting=weighting))


@both_types
@pytest.mark.parametrize("spread", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["plain", "rectified", "normalised", "offset"])
def test_features_that_are_spread_raise_no_false_alarm(kind: str, spread: float, dtype: torch.dtype) -> None:
    features, labels = classes(spread, offset=2.0 if kind == "offset" else 0.0)
    if kind == "rectified":
        features = features.clip(min=0.0)
    if kind == "normalised":
        features = (features - features.mean(axis=1, keepdims=True)) / features.std(axis=1, keepdims=True)
    report = nc.measure_features(torch.from_numpy(features).to(dtype), labels)
    assert report.nc1 == pytest.approx(plain_nc1(features, labels), rel=0.03) and not told(report)


@both_types
def test_the_direction_that_layer_normalisation_takes_is_told_of(dtype: torch.dtype) -> None:
    """With more classes than features NC1 is of that direction too, in which there is nothing but rounding."""
    rng = np.random.default_rng(1)
    labels = np.arange(600) % 12
    raw = rng.normal(size=(12, 8))[labels] + 0.2 * rng.normal(size=(600, 8))
    features = nn.functional.layer_norm(torch.from_numpy(raw), (8,))
    wide, narrow = nc.measure_features(features.float(), labels), nc.measure_features(features.to(dtype), labels)
    assert not told(wide) and wide.nc1 < 1.0
    assert narrow.nc1 > 10 * wide.nc1 and told(narrow)


@both_types
def test_a_spread_that_rounding_hides_is_told_of(dtype: torch.dtype) -> None:
    """All examples of a class come out as one number; in float32 the same features are told from one another."""
    noise, labels = classes(1e-6, apart=0.0)
    means = rounded(np.random.default_rng(2).uniform(0.5, 2.0, (5, 16)), BITS[dtype])
    features = means[labels] + noise  # near a number of the type, far from where rounding turns
    narrow = nc.measure_features(torch.from_numpy(features).to(dtype), labels)
    assert narrow.nc1 == 0.0 and told(narrow)
    assert nc.measure_features(torch.from_numpy(features).float(), labels).nc1 > 0.0


def test_float32_is_told_of_where_it_is_too_coarse_and_equal_examples_are_not() -> None:
    features, labels = classes(2e-4, 5000.0)
    assert told(nc.measure_features(torch.from_numpy(features).float(), labels)).endswith("compute them in float64")
    assert not told(nc.measure_features(torch.from_numpy(features), labels))
    frame = nc.simplex_etf(5, 16)
    for dtype in (torch.float32, torch.float64):
        assert not nc.measure_features(frame.to(dtype)[torch.arange(20) % 5], torch.arange(20) % 5, frame).notes


def test_numbers_below_the_normal_ones_are_no_nearer_to_one_another() -> None:
    """float16 has steps of 2^-24 below 2^-14, whatever the size; bfloat16 goes on."""
    features, labels = classes(1e-8, 1e-5, 1e-5)
    moments = nc.ClassMoments(5)
    moments.update(torch.from_numpy(features).half(), labels)
    want = torch.full((16,), 2.0**-48 / 12, dtype=torch.float64)
    torch.testing.assert_close(given_rounding(moments) * 4.0**moments.exponent, want)
    assert told(nc.measure_features(torch.from_numpy(features).half(), labels))


def test_a_network_in_bfloat16_and_each_of_its_layers_is_told_of() -> None:
    features, labels = classes(1e-3, 4.0, 0.5)
    model = nn.Sequential(nn.Identity(), nn.Linear(16, 5)).bfloat16()
    loader = [(torch.from_numpy(features).bfloat16(), torch.from_numpy(labels))]
    assert told(nc.measure(model, loader))
    assert all(told(each.report) for each in nc.measure_layers(model, loader, ["0"]))
    assert told(nc.measure(model, loader, reference=nc.measure(model, loader)))


def test_moments_keep_the_type_they_were_given(tmp_path: Path) -> None:
    rows, labels = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 2
    made = [nc.ClassMoments(2, weighting="class") for _ in range(3)]
    for moments, dtype in zip(made, (torch.bfloat16, torch.float16, torch.float64), strict=True):
        moments.update(rows.to(dtype), labels)
        assert given_type(moments) == dtype
        moments.save(tmp_path / "moments.safetensors")
        again = nc.ClassMoments.load(tmp_path / "moments.safetensors")
        for each in (again, again.reweighted("example"), again.around(made[0]).at_unit_scale()):
            assert given_type(each) == dtype
        assert given_type(pickle.loads(pickle.dumps(moments))) == dtype
    made[2].merge(made[1])
    assert given_type(made[2]) == torch.float16
    made[2].merge(made[0])
    assert given_type(made[2]) == torch.bfloat16
    older = {name: value for name, value in made[2].state_dict().items() if name != "given_eps"}
    assert given_type(nc.ClassMoments.from_state_dict(older, weighting="class")) == torch.float32


def test_a_pickle_from_before_the_type_was_kept_is_of_the_type_summed_in() -> None:
    moments = nc.ClassMoments(2)
    moments.update(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).bfloat16(), torch.arange(20) % 2)
    older = moments.__getstate__()
    del older["given_eps"], older["about_reference"]
    again = nc.ClassMoments.__new__(nc.ClassMoments)
    again.__setstate__(older)
    assert given_type(again) == torch.float32 and torch.equal(again.means, moments.means)
    assert not make_report(again).notes


def test_a_reference_of_16_bits_is_not_told_of_as_the_features_of_32() -> None:
    """Its class means are averages, in which the rounding of single features is small."""
    features, labels = classes(1e-3, 1.0, 0.5)
    reference = nc.measure_features(torch.from_numpy(features).bfloat16(), labels)
    assert told(reference)
    assert not told(nc.measure_features(torch.from_numpy(features).float(), labels, reference=reference.moments))
