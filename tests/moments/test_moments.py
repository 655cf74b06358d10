"""ClassMoments against the slow reference, in any order, split, merge and number of processes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from helpers.cases import CASES, WEIGHTINGS, Case, data, named, over_cases, over_weightings
from helpers.gloo import reduce_shards, reduce_states_that_differ, state
from hypothesis import given
from hypothesis import strategies as st
from reference.moments import class_moments

import neuralcollapse as nc
from neuralcollapse._checks import InputError
from neuralcollapse.moments import blocks, statistics


def tensors(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    d = data(case)
    return torch.from_numpy(d.features), torch.from_numpy(d.labels)


def moments_of(case: Case, weighting: str, *batches: torch.Tensor) -> nc.ClassMoments:
    features, labels = tensors(case)
    moments = nc.ClassMoments(case.num_classes, weighting=weighting)
    for number, rows in enumerate(batches or (torch.arange(len(labels)),)):
        moments.update(features[rows], labels[rows])
        if number % 2:  # reading adds the rows that wait, so that some batches are merged alone and some together
            assert moments.num_examples >= len(rows)
    return moments


def assert_same(got: nc.ClassMoments, want: dict[str, torch.Tensor], tolerance: float = 1e-12) -> None:
    for name, value in state(got).items():
        scale = float(want[name].abs().max())
        difference = float((value - want[name]).abs().max())
        assert difference <= tolerance * scale, f"{name} differs by {difference:g} at a scale of {scale:g}"


@over_cases
@over_weightings
def test_moments_match_the_reference(case: Case, weighting: str) -> None:
    d = data(case)
    want = class_moments(d.features, d.labels, case.num_classes, weighting)
    got = moments_of(case, weighting)
    present = torch.from_numpy(want.present)
    assert got.counts.tolist() == list(case.counts)
    assert torch.equal(got.present.nonzero()[:, 0], present)
    np.testing.assert_allclose(got.weights, want.class_weights, rtol=1e-14)
    np.testing.assert_allclose(got.means[present], want.means[want.present], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(got.global_mean, want.global_mean, rtol=1e-12, atol=1e-13)
    # The mean's own rounding, 100 · 2e-16, is what a spread around an offset of 100 can be known to.
    np.testing.assert_allclose(got.within_covariance, want.within, rtol=1e-11, atol=1e-12 * np.abs(want.within).max())
    np.testing.assert_allclose(got.between_covariance, want.between, rtol=1e-11, atol=1e-12 * case.offset + 1e-13)


@pytest.mark.parametrize("case", [named("imbalanced-50-to-1"), named("class-missing"), named("large-offset")], ids=str)
@over_weightings
@given(seed=st.integers(0, 2**31), cuts=st.lists(st.integers(0, 140), max_size=12))
def test_any_order_and_any_split_agree(case: Case, weighting: str, seed: int, cuts: list[int]) -> None:
    whole = state(moments_of(case, weighting))
    order = torch.randperm(sum(case.counts), generator=torch.Generator().manual_seed(seed))
    batches = torch.tensor_split(order, sorted(cuts))  # empty batches among them
    assert_same(moments_of(case, weighting, *batches), whole)


@over_weightings
@pytest.mark.parametrize("classes", [5, 80])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@given(seed=st.integers(0, 2**31), sizes=st.lists(st.sampled_from([1, 10, 60, 64, 65, 200, 300, 600]), min_size=3))
def test_batches_that_wait_and_batches_that_do_not(
    weighting: str, classes: int, dtype: torch.dtype, seed: int, sizes: list[int]
) -> None:
    """Blocks of the least size, 256 rows: batches fill them, overflow them, pass them by, and are read in between."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (sum(sizes),), generator=generator)
    features = 3.0 + torch.randn(len(labels), 4, generator=generator).to(dtype)
    moments = nc.ClassMoments(classes, weighting=weighting)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", 0)
        for number, (rows, truth) in enumerate(zip(features.split(sizes), labels.split(sizes), strict=True)):
            moments.update(rows, truth)
            if (seed + number) % 5 == 0:
                assert moments.num_examples == sum(sizes[: number + 1])
        got = state(moments)
    want = class_moments(features.double().numpy(), labels.numpy(), classes, weighting)
    # Rows are exact in their type; what is rounded are their distances, of size 1, from a class mean, and products.
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    assert got["counts"].tolist() == want.counts.tolist()
    np.testing.assert_allclose(got["means"][want.present], want.means[want.present], rtol=tolerance)
    for name, matrix in (("within", want.within), ("between", want.between)):
        np.testing.assert_allclose(got[name], matrix, rtol=0, atol=tolerance, err_msg=name)


def test_a_copy_and_a_pickle_hold_the_rows_that_wait() -> None:
    moments = nc.ClassMoments(2)
    moments.update(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1]))
    stored = pickle.dumps(moments)
    assert len(stored) < 10_000  # not the buffer
    for copied in (pickle.loads(stored), copy.deepcopy(moments)):
        copied.update(torch.tensor([[7.0]]), torch.tensor([1]))
        assert copied.means.tolist() == [[2.0], [6.0]]
    assert moments.means.tolist() == [[2.0], [5.0]]


@over_weightings
def test_a_copy_and_a_pickle_hold_the_products_that_wait(weighting: str) -> None:
    """Float32 products are summed apart before they reach the state; a copy made meanwhile goes on alike."""
    features = torch.randn(60, 130, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    moments = nc.ClassMoments(3, weighting=weighting)
    for start in range(0, 40, 5):
        moments.update(features[start : start + 5], labels[start : start + 5])
        assert moments.num_examples == start + 5  # settles the rows, not the products
    for copied in (pickle.loads(pickle.dumps(moments)), copy.deepcopy(moments), moments):
        copied.update(features[40:], labels[40:])
        want = class_moments(features.double().numpy(), labels.numpy(), 3, weighting)
        np.testing.assert_allclose(copied.within_covariance, want.within, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dim", [1, 2, 64])
@over_weightings
def test_many_rows_of_few_features(weighting: str, dim: int) -> None:
    """A float32 sum of 200,000 products, made one by one, would be off by 1e-4."""
    generator = torch.Generator().manual_seed(0)
    features = 3.0 + torch.randn(200_000, dim, generator=generator)
    labels = torch.randint(10, (len(features),), generator=generator)
    moments = nc.ClassMoments(10, weighting=weighting)
    moments.update(features, labels)
    want = class_moments(features.double().numpy(), labels.numpy(), 10, weighting)
    np.testing.assert_allclose(moments.within_covariance, want.within, rtol=0, atol=1e-6)


@over_weightings
def test_moments_made_in_inference_mode_go_on_outside_it(weighting: str) -> None:
    features = torch.randn(40, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) // 2 % 4
    moments, other = (nc.ClassMoments(4, weighting=weighting) for _ in range(2))
    with torch.inference_mode():
        moments.update(features[::2], labels[::2])
        other.update(features[1::2].clone(), labels[1::2])
        other.merge(nc.ClassMoments.from_state_dict(moments.state_dict(), weighting=weighting))
        assert nc.nc1(moments) > 0
    moments.update(features[1::2], labels[1::2])
    other.merge(moments)
    np.testing.assert_allclose(other.within_covariance, moments.within_covariance, rtol=1e-12)


@over_weightings
@given(seed=st.integers(0, 2**31), owners=st.lists(st.integers(0, 3), min_size=31, max_size=31))
def test_merge_is_associative_and_commutative(weighting: str, seed: int, owners: list[int]) -> None:
    case = named("large-offset")
    whole = state(moments_of(case, weighting))
    owner = torch.tensor([*owners, 0, 1])

    def part(k: int) -> nc.ClassMoments:
        return moments_of(case, weighting, (owner == k).nonzero()[:, 0])

    left = nc.ClassMoments(case.num_classes, weighting=weighting)
    for k in range(4):
        left.merge(part(k))
    pairs = [part(3), part(1)]
    pairs[0].merge(part(0))
    pairs[1].merge(part(2))
    pairs[1].merge(pairs[0])
    assert_same(left, whole)
    assert_same(pairs[1], whole)


@pytest.mark.parametrize(
    ("weighting", "sizes", "knows_dim"),
    [("example", (33,), True), ("class", (1, 32), True), ("example", (20, 0, 13), False), ("class", (5, 28, 0), False)],
)
def test_all_reduce_over_processes_with_uneven_shards(
    tmp_path: Path, weighting: str, sizes: tuple[int, ...], knows_dim: bool
) -> None:
    case = named("large-offset")
    features, labels = tensors(case)
    torch.save({"features": features, "labels": labels, "num_classes": case.num_classes}, tmp_path / "data.pt")
    shards = [rows.tolist() for rows in torch.arange(len(labels)).split(list(sizes))]
    mp.spawn(reduce_shards, args=(str(tmp_path), shards, weighting, knows_dim), nprocs=len(sizes))

    whole = moments_of(case, weighting)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(len(sizes))]
    for held in ranks:
        assert_same(whole, held)
        assert all(torch.equal(held[name], ranks[0][name]) for name in held), "processes hold different results"


@pytest.mark.parametrize("difference", ["num_classes", "weighting", "dim"])
def test_all_reduce_refuses_states_that_differ_on_every_process(tmp_path: Path, difference: str) -> None:
    """All refuse, so none is left waiting for another."""
    mp.spawn(reduce_states_that_differ, args=(str(tmp_path), difference), nprocs=2)
    for rank in range(2):
        assert f"the same {difference} on all processes" in (tmp_path / f"rank{rank}.txt").read_text()


def test_all_reduce_outside_a_process_group_says_so() -> None:
    with pytest.raises(InputError, match="process group"):
        moments_of(named("balanced"), "example").all_reduce()


@over_weightings
@given(scale=st.integers(-60, 60), shift=st.integers(-8, 8))
def test_covariances_follow_scale_and_ignore_translation(weighting: str, scale: int, shift: int) -> None:
    case = named("imbalanced-50-to-1")
    features, labels = tensors(case)
    plain = moments_of(case, weighting)
    moved = nc.ClassMoments(case.num_classes, weighting=weighting)
    moved.update((features + float(shift)) * 2.0**scale, labels)
    for got, want in (
        (moved.within_covariance, plain.within_covariance),
        (moved.between_covariance, plain.between_covariance),
    ):
        torch.testing.assert_close(got * 2.0 ** (-2 * scale), want, rtol=1e-11, atol=1e-12)


@over_weightings
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_narrow_inputs_are_accumulated_wide(weighting: str, dtype: torch.dtype) -> None:
    case = named("balanced")
    features, labels = tensors(case)
    narrow = features.to(dtype)
    got = nc.ClassMoments(case.num_classes, weighting=weighting)
    got.update(narrow, labels)
    want = class_moments(narrow.double().numpy(), labels.numpy(), case.num_classes, weighting)
    assert got.means.dtype == torch.float64
    # From the features as they were given: only the float32 products may differ.
    np.testing.assert_allclose(got.means, want.means, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got.within_covariance, want.within, rtol=1e-5, atol=1e-6)


def test_float32_state_on_request() -> None:
    case = named("balanced")
    features, labels = tensors(case)
    moments = nc.ClassMoments(case.num_classes, dtype=torch.float32)
    moments.update(features, labels)
    assert moments.within_covariance.dtype == torch.float32
    want = class_moments(data(case).features, data(case).labels, case.num_classes, "example")
    np.testing.assert_allclose(moments.within_covariance, want.within, rtol=1e-4, atol=1e-5)


@over_weightings
def test_identical_examples_have_no_negative_variance(weighting: str) -> None:
    """Three copies of 0.1 do not average to 0.1 in float32; the scatter must not go below zero for it."""
    features = torch.tensor([[0.1, 0.7, 1e3]] * 3 + [[0.3, -0.9, 2e3]] * 7)
    moments = nc.ClassMoments(2, weighting=weighting)
    moments.update(features, torch.tensor([0] * 3 + [1] * 7))
    assert float(moments.within_covariance.diagonal().min()) >= 0.0


@over_weightings
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ambient_autocast_does_not_narrow_the_products(weighting: str, dtype: torch.dtype) -> None:
    """Measuring is never done in bf16, also where the caller's training loop runs under autocast."""
    case = named("balanced")
    features, labels = tensors(case)
    inside, outside = (nc.ClassMoments(case.num_classes, weighting=weighting) for _ in range(2))
    outside.update(features.to(dtype), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside.update(features.to(dtype), labels)
    assert_same(inside, state(outside))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_of_any_integer_type(dtype: torch.dtype) -> None:
    case = named("balanced")
    features, labels = tensors(case)
    moments = nc.ClassMoments(case.num_classes)
    moments.update(features, labels.to(dtype))
    assert_same(moments, state(moments_of(case, "example")))


@over_weightings
@pytest.mark.parametrize("order", ["mixed", "by class", "outliers where the first mean is sampled"])
def test_one_large_float32_batch_keeps_the_precision_of_its_spread(weighting: str, order: str) -> None:
    """The products are centred at a mean of a sixteenth of the rows; no order of the rows may make that show."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 10, 6000) if order != "by class" else np.repeat(np.arange(10), 600)
    noise = 1e-3 * rng.normal(size=(6000, 150))
    if order.startswith("outliers"):
        noise[::16] += 1e-2
    features = (5.0 + rng.normal(size=(10, 150))[labels] + noise).astype(np.float32)
    moments = nc.ClassMoments(10, weighting=weighting)
    moments.update(torch.from_numpy(features), torch.from_numpy(labels))
    want = class_moments(features.astype(np.float64), labels, 10, weighting)
    error = np.linalg.norm(moments.within_covariance.numpy() - want.within) / np.linalg.norm(want.within)
    assert error < 1e-5
    np.testing.assert_allclose(moments.means.numpy(), want.means, rtol=1e-7)


@over_weightings
def test_narrow_float32_products_around_it_are_put_aside_and_put_back(
    weighting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 on a CPU that has it would leave three digits, as TF32 on a GPU."""
    seen = []
    for name in ("_add_gram", "_add_by_class"):
        product = getattr(statistics, name)

        def recording(*arguments, product=product):
            seen.append(torch.backends.mkldnn.matmul.fp32_precision)
            product(*arguments)

        monkeypatch.setattr(statistics, name, recording)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert moments_of(named("balanced"), weighting).num_examples  # which adds the rows that waited
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen and set(seen) == {"ieee"}


def test_many_examples_in_one_call_equal_many_calls() -> None:
    """More rows than one cache-sized block holds."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(9000, 300, generator=generator) + 5.0
    labels = torch.randint(0, 100, (9000,), generator=generator)
    together, apart = nc.ClassMoments(100), nc.ClassMoments(100)
    together.update(features.double(), labels)
    for rows in torch.arange(9000).split(1111):
        apart.update(features[rows].double(), labels[rows])
    assert_same(together, state(apart))


@pytest.mark.parametrize(
    "sizes", [(1e-22, 5e-4, 2e-25), (1e-25, 1e-7, 1e-27), (1e-30, 1e-12, 0.0), (1e25, 1e-25, 1e36)]
)
@pytest.mark.parametrize("first", [torch.float32, torch.float64])
def test_batches_of_very_different_size_in_any_order(sizes: tuple[float, ...], first: torch.dtype) -> None:
    """Small features after larger ones are far from the class means: the scale that fits is that of the means."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(12) % 3
    batches = [size * torch.randn(12, 4, generator=generator, dtype=torch.float64) for size in sizes]
    moments = nc.ClassMoments(3)
    for number, batch in enumerate(batches):
        moments.update(batch.to(torch.float64 if number else first), labels)
        assert moments.num_examples == 12 * (number + 1)  # which adds the rows that waited
    unit = 1.0 / max(sizes)
    whole, of_class = unit * torch.cat(batches), labels.repeat(3)
    for label in range(3):
        mean = whole[of_class == label].mean(dim=0)
        torch.testing.assert_close(unit * moments.means[label], mean, rtol=1e-6, atol=1e-9)
        variance = (whole[of_class == label] - mean).square().sum(dim=1).mean()
        torch.testing.assert_close(moments.class_variances[label] * unit * unit, variance, rtol=1e-6, atol=0.0)


def by_class(features: torch.Tensor, labels: torch.Tensor, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Class means and pooled scatter, one class after the other in float64."""
    rows, of = features.double().numpy(), labels.numpy()
    means, scatter = np.zeros((classes, rows.shape[1])), np.zeros((rows.shape[1], rows.shape[1]))
    for label in np.unique(of):
        own = rows[of == label]
        means[label] = own.mean(axis=0)
        scatter += (own - means[label]).T @ (own - means[label])
    return means, scatter


@pytest.mark.parametrize("size", [1.0, 2.0**40, 2.0**-40])
@pytest.mark.parametrize("batches", [1, 3])
def test_many_classes_of_few_rows_in_calls_of_several_blocks(size: float, batches: int) -> None:
    """Each call has more rows than are centred together, and hardly more than classes."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 6000, (15_000,), generator=generator)
    centres = torch.randn(6000, 5, generator=generator)
    features = size * (centres[labels] + 0.01 * torch.randn(15_000, 5, generator=generator))
    moments = nc.ClassMoments(6000)
    for rows in torch.arange(15_000).chunk(batches):
        moments.update(features[rows], labels[rows])
    means, scatter = by_class(features, labels, 6000)
    np.testing.assert_allclose(moments.means.numpy(), means, rtol=0, atol=1e-8 * size)
    np.testing.assert_allclose(
        moments.within_covariance.numpy(),
        scatter / 15_000,
        rtol=0,
        atol=1e-6 * float(scatter.diagonal().max()) / 15_000,
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_row_among_many_classes_changes_nothing(bad: float) -> None:
    features, labels = torch.randn(15_000, 5), torch.arange(15_000) % 6000
    moments = nc.ClassMoments(6000)
    moments.update(features[:7000], labels[:7000])
    before = {key: value.clone() for key, value in state(moments).items()}
    features[14_990, 3] = bad
    with pytest.raises(InputError, match="row 14990"):
        moments.update(features, labels)
    assert all(torch.equal(value, before[key]) for key, value in state(moments).items())


@pytest.mark.parametrize("size", [1.0, 2.0**50])
def test_features_transposed_in_memory(size: float) -> None:
    """Columns one after the other, as the transpose of (p, n) features has them."""
    features, labels = size * torch.randn(700, 6), torch.arange(700) % 3
    moments = nc.ClassMoments(3)
    moments.update(features.T.contiguous().T, labels)
    means, scatter = by_class(features, labels, 3)
    np.testing.assert_allclose(moments.means.numpy(), means, rtol=0, atol=1e-6 * size)
    np.testing.assert_allclose(moments.within_covariance.numpy(), scatter / 700, rtol=0, atol=1e-6 * size * size)


BAD_INPUT = {
    "label-too-large": (torch.zeros(3, 2), torch.tensor([0, 1, 4]), "4"),
    "label-negative": (torch.zeros(3, 2), torch.tensor([0, -1, 1]), "-1"),
    "float-labels": (torch.zeros(3, 2), torch.tensor([0.0, 1.0, 2.0]), "float32"),
    "bool-labels": (torch.zeros(2, 2), torch.tensor([True, False]), "bool"),
    "too-few-labels": (torch.zeros(3, 2), torch.tensor([0, 1]), "3"),
    "labels-of-two-axes": (torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.int64), "(3, 1)"),
    "integer-features": (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), "int64"),
    "flat-features": (torch.zeros(3), torch.zeros(3, dtype=torch.int64), "(3,)"),
    "nan": (torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]), torch.tensor([0, 1]), "row 1"),
    "infinity": (torch.tensor([[float("inf"), 1.0], [0.0, 0.0]]), torch.tensor([0, 1]), "row 0"),
    "wrong-width": (torch.zeros(2, 3), torch.tensor([0, 1]), "3"),
}


@pytest.mark.wrong_input
@pytest.mark.parametrize("name", BAD_INPUT)
@over_weightings
def test_wrong_input_is_named_and_changes_nothing(name: str, weighting: str) -> None:
    features, labels, names = BAD_INPUT[name]
    moments = nc.ClassMoments(3, 2, weighting=weighting)
    moments.update(torch.tensor([[1.0, 2.0], [3.0, 5.0]]), torch.tensor([0, 2]))
    before = {key: value.clone() for key, value in state(moments).items()}
    with pytest.raises(InputError) as error:
        moments.update(features, labels)
    assert names in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in state(moments).items())


def test_a_bad_row_in_a_later_block_changes_nothing() -> None:
    features = torch.ones(9000, 300)
    features[8990, 3] = float("nan")
    moments = nc.ClassMoments(2)
    with pytest.raises(InputError, match="row 8990"):
        moments.update(features, torch.zeros(9000, dtype=torch.int64))
    assert moments.num_examples == 0


@pytest.mark.wrong_input
def test_wrong_settings_are_named() -> None:
    for arguments, names in (
        ({"num_classes": 0}, "0"),
        ({"num_classes": 2, "dim": 0}, "0"),
        ({"num_classes": 2, "weighting": "examples"}, "examples"),
        ({"num_classes": 2, "dtype": torch.int64}, "int64"),
    ):
        with pytest.raises(InputError, match=names):
            nc.ClassMoments(**arguments)
    with pytest.raises(InputError, match="at least one example"):
        _ = nc.ClassMoments(3, 4).means


def test_merging_what_differs_is_refused() -> None:
    one = moments_of(named("balanced"), "example")
    for other in (
        nc.ClassMoments(5, 7),
        nc.ClassMoments(4, 7, weighting="class"),
        nc.ClassMoments(4, 3),
    ):
        with pytest.raises(InputError, match="expected"):
            one.merge(other)


def test_the_cases_cover_what_they_say() -> None:
    assert {w for w in WEIGHTINGS} == {"example", "class"}
    assert max(max(c.counts) / min(n for n in c.counts if n) for c in CASES) == 50
    assert any(0 in c.counts for c in CASES) and any(1 in c.counts for c in CASES)
    assert any(c.dim > sum(c.counts) for c in CASES) and any(c.num_classes > c.dim for c in CASES)


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s["scatter"].neg_(),
        lambda s: s["variances"].neg_(),
        lambda s: s["variances"].mul_(2.0),
        lambda s: s["counts"].fill_(2**62),
        lambda s: s["counts"][0].zero_(),
    ],
)
@pytest.mark.parametrize("weighting", ["example", "class"])
def test_a_state_that_no_data_give_is_refused(damage: Any, weighting: Any) -> None:
    moments = nc.ClassMoments(3, weighting=weighting)
    moments.update(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3)
    state = {name: tensor.clone() for name, tensor in moments.state_dict().items()}
    nc.ClassMoments.from_state_dict(state, weighting=weighting)
    damage(state)
    with pytest.raises(InputError, match=r"no data give|variances of at least 0|fewer than"):
        nc.ClassMoments.from_state_dict(state, weighting=weighting)


@pytest.mark.parametrize("weighting", ["example", "class"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1000, 200_000])
@pytest.mark.parametrize("collapsed", [1, 2])
def test_what_is_saved_after_collapse_loads(
    collapsed: int, count: int, dtype: torch.dtype, weighting: Any, tmp_path: Path
) -> None:
    """Of a class whose examples agree both variance and scatter are rounding, of either sign."""
    features = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % 2
    for label, mean in enumerate(torch.tensor([[0.1, 0.3], [0.7, 1e3]])[:collapsed]):
        features[labels == label] = mean
    moments = nc.ClassMoments(2, weighting=weighting, dtype=dtype)
    moments.update(features, labels)
    moments.save(tmp_path / "m.safetensors")
    again = nc.ClassMoments.load(tmp_path / "m.safetensors")
    rows = features.numpy().astype(np.float64)
    for label in range(2):
        want = rows[labels.numpy() == label]
        near = (0.05 if dtype == torch.float32 else 1e-6) * float(np.square(want).mean())
        assert float(again.class_variances[label]) == pytest.approx(want.var(axis=0).sum(), abs=near)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in moments.state_dict().items())
