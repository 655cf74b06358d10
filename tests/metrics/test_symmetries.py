"""What no metric may depend on: the names of classes, rotation, scale, translation; and that none is negative."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from helpers.cases import Case, data, named, over_cases, over_weightings
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import neuralcollapse as nc


def metrics(features: Tensor, labels: Tensor, weight: Tensor, weighting: str) -> dict[str, Tensor]:
    moments = nc.ClassMoments(len(weight), weighting=weighting)
    moments.update(features, labels)
    values = {"nc1": nc.nc1(moments), "nc3": nc.nc3(moments, weight), **asdict(nc.nc2(moments, weight))}
    values["nc4"] = nc.nc4_mismatch(features, labels, weight)
    out = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in values.items()}
    out["snr"] = nc.snr_singular_values(moments).singular_values
    return out


def assert_equal_metrics(got: dict[str, Tensor], want: dict[str, Tensor], but: tuple[str, ...] = ()) -> None:
    for name in want.keys() - set(but):
        torch.testing.assert_close(
            got[name], want[name], rtol=1e-7, atol=1e-10, msg=lambda text, name=name: name + text
        )


def tensors_of(name: str) -> tuple[Tensor, Tensor, Tensor]:
    d = data(named(name))
    return torch.from_numpy(d.features), torch.from_numpy(d.labels), torch.from_numpy(d.weight)


over_shapes = pytest.mark.parametrize(
    "name", ["imbalanced-50-to-1", "class-missing", "more-features-than-examples", "more-classes-than-features"]
)
seeds = st.integers(0, 2**31)


@over_shapes
@over_weightings
@given(seed=seeds)
def test_permuting_classes_changes_nothing(name: str, weighting: str, seed: int) -> None:
    features, labels, weight = tensors_of(name)
    order = torch.randperm(len(weight), generator=torch.Generator().manual_seed(seed))
    relabelled = torch.empty_like(weight)
    relabelled[order] = weight
    assert_equal_metrics(
        metrics(features, order[labels], relabelled, weighting), metrics(features, labels, weight, weighting)
    )


@over_shapes
@over_weightings
@given(seed=seeds)
def test_rotating_features_and_classifier_changes_nothing(name: str, weighting: str, seed: int) -> None:
    features, labels, weight = tensors_of(name)
    p = features.shape[1]
    noise = torch.randn(p, p, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    rotation = torch.linalg.qr(noise).Q
    assert_equal_metrics(
        metrics(features @ rotation, labels, weight @ rotation, weighting), metrics(features, labels, weight, weighting)
    )


@over_shapes
@over_weightings
@given(power=st.integers(-40, 40), weight_power=st.integers(-40, 40))
def test_scaling_features_or_classifier_changes_nothing(
    name: str, weighting: str, power: int, weight_power: int
) -> None:
    features, labels, weight = tensors_of(name)
    got = metrics(features * 2.0**power, labels, weight * 2.0**weight_power, weighting)
    assert_equal_metrics(got, metrics(features, labels, weight, weighting))


@over_shapes
@over_weightings
@given(seed=seeds)
def test_translating_features_changes_all_but_nc4_not_at_all(name: str, weighting: str, seed: int) -> None:
    features, labels, weight = tensors_of(name)
    shift = 10 * torch.randn(features.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    got = metrics(features + shift, labels, weight, weighting)
    assert_equal_metrics(got, metrics(features, labels, weight, weighting), but=("nc4",))


@given(seed=seeds)
def test_snr_is_invariant_under_every_nonsingular_map(seed: int) -> None:
    """Theorem 3: the singular values do not change under H → AH."""
    features, labels, _ = tensors_of("imbalanced-50-to-1")
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.randn(6, 6, dtype=torch.float64, generator=generator) for _ in range(2)]
    mixing = torch.linalg.qr(noise[0]).Q @ torch.diag(torch.logspace(-1, 1, 6).double()) @ torch.linalg.qr(noise[1]).Q
    one, other = nc.ClassMoments(4), nc.ClassMoments(4)
    one.update(features, labels)
    other.update(features @ mixing.T, labels)
    got, want = (nc.snr_singular_values(moments).singular_values for moments in (other, one))
    torch.testing.assert_close(got, want, rtol=1e-7, atol=0.0)


@over_cases
@over_weightings
def test_nothing_is_negative(case: Case, weighting: str) -> None:
    d = data(case)
    for name, value in metrics(*(torch.from_numpy(v) for v in (d.features, d.labels, d.weight)), weighting).items():
        assert bool((value >= 0).all()), name
