"""Arrays and tensors of every type that holds numbers, and the sentence for each that does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import neuralcollapse as nc
from neuralcollapse._checks import as_labels, as_tensor

RNG = np.random.default_rng(0)
FEATURES, LABELS, WEIGHT = RNG.normal(size=(60, 4)), np.arange(60) % 3, RNG.normal(size=(3, 4))


def measured(features: Any = FEATURES, labels: Any = LABELS, weight: Any = WEIGHT) -> float:
    return nc.measure_features(features, labels, weight).nc1


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


WHOLE = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i2", ">u2", ">i8", ">u8"]
LABEL_KINDS: dict[str, Any] = {
    **{kind: LABELS.astype(kind) for kind in WHOLE},
    **{str(kind): torch.tensor(LABELS).to(kind) for kind in (torch.uint16, torch.uint32, torch.uint64, torch.int8)},
    "list": LABELS.tolist(),
    "column": LABELS[:, None],
    "column of a tensor": torch.tensor(LABELS)[:, None].int(),
    "read-only": read_only(LABELS),
    "every other": np.repeat(LABELS, 2)[::2],
    "reversed twice": LABELS[::-1].copy()[::-1],
    "in a record": np.array([(0.0, int(k)) for k in LABELS], dtype=[("a", "f4"), ("k", "i1")])["k"],
    "nothing masked": np.ma.masked_greater(LABELS, 9),
    "scalars": [torch.tensor(k) for k in LABELS],
}


@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_labels_of_every_kind(kind: str) -> None:
    assert measured(labels=LABEL_KINDS[kind]) == measured()


FEATURE_KINDS: dict[str, tuple[Any, float]] = {
    ">f8": (FEATURES.astype(">f8"), 0.0),
    ">f4": (FEATURES.astype(">f4"), 1e-4),
    ">f2": (FEATURES.astype(">f2"), 1e-2),
    "extended": (FEATURES.astype(np.longdouble), 0.0),
    "reversed twice": (FEATURES[::-1, ::-1].copy()[::-1, ::-1], 0.0),
    "Fortran order": (np.asfortranarray(FEATURES), 0.0),
    "read-only": (read_only(FEATURES), 0.0),
    "list": (FEATURES.tolist(), 0.0),
    "requires_grad": (torch.tensor(FEATURES, requires_grad=True), 0.0),
    "parameter": (torch.nn.Parameter(torch.tensor(FEATURES)), 0.0),
    "bfloat16": (torch.tensor(FEATURES).bfloat16(), 5e-2),
    "rows of tensors": (list(torch.tensor(FEATURES)), 0.0),
}


@pytest.mark.parametrize("kind", FEATURE_KINDS)
def test_features_of_every_kind(kind: str) -> None:
    features, tolerance = FEATURE_KINDS[kind]
    assert measured(features) == pytest.approx(measured(), rel=max(tolerance, 1e-12))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_features_of_eight_bits_are_read_exactly(dtype: torch.dtype) -> None:
    features = torch.tensor(FEATURES).to(dtype)
    assert measured(features) == measured(features.float())


TENSOR = torch.tensor(FEATURES)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "masked features": ({"features": np.ma.masked_greater(FEATURES, 1)}, "expected features without masked entries"),
    "masked labels": ({"labels": np.ma.masked_equal(LABELS, 1)}, "expected labels without masked entries, got 20"),
    "sparse": ({"features": TENSOR.to_sparse()}, "got a sparse_coo one: give its .to_dense()"),
    "meta": ({"features": TENSOR.to("meta")}, "features with values, got a tensor on the meta device"),
    "meta labels": ({"labels": torch.tensor(LABELS, device="meta")}, "labels with values"),
    "meta weight": ({"weight": torch.tensor(WEIGHT, device="meta")}, "weight with values"),
    "complex": ({"features": TENSOR.to(torch.complex64)}, "expected real features, got torch.complex64"),
    "complex array": ({"features": FEATURES.astype(">c16")}, "expected real features, got >c16"),
    "complex weight": ({"weight": torch.tensor(WEIGHT).to(torch.complex64)}, "expected real weight"),
    "no columns": ({"features": FEATURES[:, :0], "weight": WEIGHT[:, :0]}, "at least one feature, got shape (60, 0)"),
    "None": ({"features": None}, "expected numeric features, got NoneType"),
    "None labels": ({"labels": None}, "expected numeric labels, got NoneType"),
    "whole weight": ({"weight": np.ones((3, 4), dtype=int)}, "floating-point classifier weight, got torch.int64"),
    "objects": ({"labels": np.array([1, None] * 30)}, "got an array of object"),
    "dates": ({"labels": np.zeros(60, "M8[s]")}, "got an array of datetime64[s]"),
    "ragged": ({"features": [[1.0], [1.0, 2.0]]}, "expected numeric features of one shape, got list"),
    "too large": ({"labels": np.full(60, 2**64 - 1, np.uint64)}, "labels below 2⁶³, got 18446744073709551615"),
    "past the classes": ({"labels": np.full(60, 60_000, np.uint16)}, "labels in 0..2, got 60000"),
    "2.7": ({"labels": LABELS + 0.7}, "0.7 is not a class"),
    "one-hot": ({"labels": np.eye(3)[LABELS]}, "give labels.argmax(1)"),
    "flags": ({"labels": (RNG.random((60, 3)) < 0.5).astype(int)}, "no class to collapse to"),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_such_numbers_is_named_in_one_line(name: str) -> None:
    change, said = REFUSED[name]
    with pytest.raises(nc.InputError) as error:
        measured(**change)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("features", "labels", "said"),
    [
        (TENSOR[:, :0], torch.tensor(LABELS), "at least one feature"),
        ("features", torch.tensor(LABELS), "expected numeric features, got str"),
        (TENSOR, None, "expected numeric labels, got NoneType"),
        (TENSOR.to("meta"), torch.tensor(LABELS), "meta device"),
        (TENSOR, torch.tensor(LABELS, device="meta"), "meta device"),
        (TENSOR.to_sparse(), torch.tensor(LABELS), "to_dense"),
        (TENSOR, torch.tensor(LABELS)[:, None], r"labels\.squeeze\(1\)"),
    ],
)
def test_moments_refuse_the_same(features: Any, labels: Any, said: str) -> None:
    moments = nc.ClassMoments(3)
    with pytest.raises(nc.InputError, match=said):
        moments.update(features, labels)
    assert moments.num_examples == 0


def test_reading_makes_no_copy_that_is_not_needed() -> None:
    assert as_tensor(FEATURES, "features").data_ptr() == FEATURES.ctypes.data
    assert as_labels(LABELS).data_ptr() == LABELS.ctypes.data
    assert as_tensor(TENSOR).data_ptr() == TENSOR.data_ptr()
