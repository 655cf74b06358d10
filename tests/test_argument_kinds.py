"""Arrays and lists are read as the tensors they hold; anything else is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import neuralcollapse as nc
from neuralcollapse.metrics import duality, energy, frames, out_of_distribution
from neuralcollapse.theory import clock, flow
from neuralcollapse.theory import unconstrained_features as ufm

pytestmark = pytest.mark.wrong_input

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(24) % 3
FEATURES = torch.randn(24, 4, generator=GENERATOR, dtype=torch.float64) + 2.0 * torch.eye(4).double()[LABELS]
WEIGHT = torch.randn(3, 4, generator=GENERATOR, dtype=torch.float64)
BIAS = torch.randn(3, generator=GENERATOR, dtype=torch.float64)


def moments() -> nc.ClassMoments:
    made = nc.ClassMoments(3)
    made.update(FEATURES, LABELS)
    return made


Kind = Callable[[torch.Tensor], Any]
KINDS: dict[str, Kind] = {
    "array": lambda x: x.numpy(),
    "list": lambda x: x.tolist(),
    "big-endian": lambda x: x.numpy().astype(x.numpy().dtype.newbyteorder(">")),
    "backwards": lambda x: x.numpy()[::-1].copy()[::-1] if x.ndim else x.numpy(),
    "with gradient": lambda x: x.clone().requires_grad_() if x.is_floating_point() else x,
}
FUNCTIONS: dict[str, Callable[[Kind], Any]] = {
    "update": lambda k: (made := nc.ClassMoments(3), made.update(k(FEATURES), k(LABELS)), made.means)[2],
    "from_state_dict": lambda k: nc.ClassMoments.from_state_dict(
        {name: k(value) for name, value in moments().state_dict().items() if name != "scatter"}
        | {"scatter": moments().state_dict()["scatter"].numpy()}
    ).within_covariance,
    "nc2": lambda k: torch.tensor(list(vars(nc.nc2(moments(), k(WEIGHT))).values())),
    "nc3": lambda k: nc.nc3(moments(), k(WEIGHT)),
    "nc4": lambda k: nc.nc4_mismatch(k(FEATURES), k(LABELS), k(WEIGHT), k(BIAS)),
    "decompose_mse": lambda k: nc.decompose_mse(moments(), k(WEIGHT), k(BIAS)).total,
    "make_report": lambda k: nc.make_report(moments(), k(WEIGHT), k(BIAS), ood_mean=k(BIAS[[0, 1, 2, 0]])).nc3,
    "compute_metrics": lambda k: list(
        nc.compute_metrics(moments(), weight=k(WEIGHT), ood_mean=k(WEIGHT[0])).values()
    ),
    "nc0": lambda k: duality.nc0(k(WEIGHT)),
    "nc5": lambda k: out_of_distribution.nc5(moments(), k(WEIGHT[0])),
    "duality_error": lambda k: duality.duality_error(moments(), k(WEIGHT)),
    "equinorm": lambda k: nc.equinorm(k(WEIGHT)),
    "maximal_angle": lambda k: nc.maximal_angle(k(WEIGHT)),
    "etf_error": lambda k: frames.etf_error(k(WEIGHT)),
    "hyperspherical_energy": lambda k: energy.hyperspherical_energy(k(WEIGHT)).mean,
    "frame_error": lambda k: frames.frame_error(k(WEIGHT)),
    "renormalize": lambda k: flow.renormalize(k(FEATURES), k(LABELS)),
    "flow_direction": lambda k: flow.flow_direction(k(FEATURES), k(LABELS), renormalization="none"),
    "fit_clock": lambda k: clock.fit_clock(
        k(torch.tensor([1.0, 2.0, 4.0])), k(torch.tensor([[1.0, 0.5], [2.0, 1.5], [3.0, 2.9]])),
        num_classes=3, samples_per_class=10,
    ).times,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_and_lists_are_read_as_tensors(name: str, kind: str) -> None:
    got, want = (torch.as_tensor(FUNCTIONS[name](k)).detach() for k in (KINDS[kind], lambda x: x))
    assert torch.equal(got.nan_to_num(), want.nan_to_num())


@pytest.mark.parametrize(
    "value", [None, "0.1", [0.1], 1j, float("nan"), float("inf"), -1, 10**400, True, torch.ones(3), object()]
)
def test_what_is_not_a_number_is_refused(value: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: nc.decompose_mse(moments(), WEIGHT, weight_decay=value),
        lambda: nc.least_squares_classifier(moments(), value),
        lambda: nc.measure_features(FEATURES, LABELS, weight_decay=value),
        lambda: nc.CentralPath([1.0], num_classes=3, samples_per_class=value),
        lambda: ufm.UnconstrainedFeatures((2, 2), 2, value, 0.1),
        lambda: flow.descend(FEATURES, LABELS, learning_rate=value, steps=2, renormalization="none"),
    ]
    for call in calls:
        with pytest.raises(nc.InputError) as error:
            call()
        assert str(error.value).startswith("expected a") and ", got " in str(error.value)
        assert len(str(error.value)) < 160 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), np.float16(0.5), Fraction(1, 2), torch.tensor(0.5), np.array(0.5)]
)
def test_numbers_of_any_kind_are_the_same_number(value: Any) -> None:
    assert nc.decompose_mse(moments(), WEIGHT, weight_decay=value).total == pytest.approx(
        nc.decompose_mse(moments(), WEIGHT, weight_decay=0.5).total, rel=1e-15
    )


@pytest.mark.parametrize("value", ["3", 3.0, [3], 0, -1, True, 10**400, float("nan"), object(), torch.ones(3)])
def test_what_is_not_a_whole_number_is_refused(value: Any, tmp_path: Path) -> None:
    batches, model = [(FEATURES.float(), LABELS)], nn.Sequential(nn.Linear(4, 3))
    calls: list[Callable[[], Any]] = [
        lambda: nc.ClassMoments(value),
        lambda: nc.ClassMoments(3, value),
        lambda: nc.simplex_etf(value, 7),
        lambda: nc.simplex_etf(2, value),
        lambda: nc.CentralPath([1.0], num_classes=value, samples_per_class=1),
        lambda: nc.Monitor(model, batches, every=value),
        lambda: ufm.UnconstrainedFeatures((2, 2), value, 0.1, 0.1),
        lambda: flow.descend(FEATURES, LABELS, learning_rate=0.1, steps=value, renormalization="none"),
    ]
    for call in calls:
        with pytest.raises(nc.InputError, match=r"of at least|expected a") as error:
            call()
        assert ", got " in str(error.value) and len(str(error.value)) < 160


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_counts_of_any_kind_are_the_same_count(value: Any) -> None:
    assert nc.ClassMoments(value).num_classes == 3 and torch.equal(nc.simplex_etf(value, 4), nc.simplex_etf(3, 4))


@pytest.mark.parametrize("value", [None, "x", 3, torch.ones(3, 2), nc.ClassMoments, {}])
def test_what_is_not_moments_is_refused(value: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: nc.nc1(value),
        lambda: nc.nc2(value, WEIGHT),
        lambda: nc.snr_singular_values(value),
        lambda: nc.compute_metrics(value),
        lambda: nc.make_report(value),
        lambda: moments().merge(value),
        lambda: moments().around(value),
    ]
    for call in calls:  # a tensor with a weight beside it is read as features with labels
        with pytest.raises(nc.InputError, match=r"to be a ClassMoments, got |expected one label per example"):
            call()


def test_metrics_none_and_what_is_not_a_list_of_names() -> None:
    assert nc.compute_metrics(moments(), None) == {} == nc.compute_metrics(moments(), [])
    assert nc.measure_features(FEATURES, LABELS, metrics=None).extra == {}
    for wrong in (3, object(), b"cdnv", iter(["cdnv"]), [["cdnv"]], [None], torch.ones(2)):
        with pytest.raises(nc.InputError, match="metrics"):
            nc.compute_metrics(moments(), wrong)  # type: ignore[arg-type]


def test_unusable_devices_and_types_are_refused(tmp_path: Path) -> None:
    batches, model = [(FEATURES.float(), LABELS)], nn.Sequential(nn.Linear(4, 3))
    for device in ("nowhere", 3.5, "meta", "cuda:77", object()):
        with pytest.raises(nc.InputError, match="device"):
            nc.ClassMoments(3, device=device)  # type: ignore[arg-type]
        with pytest.raises(nc.InputError, match="device"):
            nc.measure(model, batches, device=device)  # type: ignore[arg-type]
    for dtype in ("float32", None, torch.int64, torch.complex64, np.float32):
        with pytest.raises(nc.InputError, match=r"torch\.float64"):
            nc.simplex_etf(3, 4, dtype=dtype)  # type: ignore[arg-type]
        with pytest.raises(nc.InputError, match=r"torch\.float64"):
            nc.ClassMoments(3, dtype=dtype)  # type: ignore[arg-type]


def test_unusable_paths_are_refused(tmp_path: Path) -> None:
    for path in (None, 3, b"x", "a\0b", tmp_path, tmp_path / ("x" * 300), tmp_path / "no" / "file"):
        with pytest.raises(nc.InputError):
            moments().save(path)  # type: ignore[arg-type]
        with pytest.raises(nc.InputError):
            nc.ClassMoments.load(path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_labels_far_beyond_any_class_are_named() -> None:
    labels = LABELS.clone()
    labels[0] = 2**62
    with pytest.raises(nc.InputError, match="not enough memory for moments of 4,611,686,018,427,387,905 classes"):
        nc.measure_features(FEATURES, labels)


def test_vectors_that_are_not_finite_and_other_corrections() -> None:
    for bad in (float("nan"), float("inf"), -float("inf")):
        vectors = WEIGHT.clone()
        vectors[1, 2] = bad
        for function in (nc.equinorm, nc.maximal_angle, frames.etf_distance, frames.frame_error):
            with pytest.raises(nc.InputError, match="finite vectors"):
                function(vectors)
    for correction in (2, -1, 1.0, None):
        with pytest.raises(nc.InputError, match="correction"):
            nc.equinorm(WEIGHT, correction=correction)  # type: ignore[arg-type]


@pytest.mark.parametrize("samples", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("decay", [0.0, 1e30])
def test_the_central_path_within_its_bounds_warns_of_nothing(samples: float, decay: float) -> None:
    path = nc.CentralPath([1e-150, 1e54], num_classes=3, samples_per_class=samples, weight_decay=decay)
    times = np.array([0.0, samples * 1e-300, samples, samples * 1e109])
    omega = path.singular_values(times)
    assert np.isfinite(omega).all() and (omega >= [1e-150, 1e54]).all()
    assert np.isfinite(path.time(omega)).all()
    for wrong in (samples * 1e111, -1.0, float("inf")):
        with pytest.raises(nc.InputError, match="times"):
            path.singular_values(wrong)


def test_flows_that_leave_the_range_of_numbers_are_refused() -> None:
    for rate in (1e80, 1e160, 1e300):
        with pytest.raises(nc.InputError, match="too large"):
            flow.descend(FEATURES, LABELS, learning_rate=rate, steps=3, renormalization="none")
    for bad in (1e80, float("inf"), float("nan")):
        features = FEATURES.clone()
        features[2, 1] = bad
        with pytest.raises(nc.InputError, match="expected finite features"):
            flow.renormalize(features, LABELS)
    doubled = torch.cat([FEATURES, FEATURES[:, :2]], dim=1)
    with pytest.raises(nc.InputError, match="singular"):
        flow.flow_direction(torch.cat([doubled, 0.0 * doubled], dim=1), LABELS, renormalization="none")
