"""Scores of out-of-distribution data against scikit-learn and pytorch-ood, and against formulas written out."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.preprocessing import StandardScaler

import neuralcollapse as nc
from neuralcollapse.metrics.out_of_distribution import nc5

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(90) % 3
FEATURES = 3 * torch.eye(3, 6)[LABELS] + torch.randn(90, 6, generator=GENERATOR) * torch.logspace(-1, 0, 6) + 5.0
OUTSIDE = 5.0 + 2 * torch.randn(40, 6, generator=GENERATOR)


def moments() -> nc.ClassMoments:
    made = nc.ClassMoments(3)
    made.update(FEATURES.double(), LABELS)
    return made


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_scikit_learns(ties: bool) -> None:
    inside, outside = torch.randn(57, generator=GENERATOR) + 0.8, torch.randn(31, generator=GENERATOR)
    if ties:
        inside, outside = inside.round(), outside.round()
    truth, scores = np.r_[np.ones(57), np.zeros(31)], torch.cat([inside, outside]).numpy()
    found = nc.detection(inside, outside)
    assert found.auroc == pytest.approx(roc_auc_score(truth, scores), rel=1e-12)
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    assert found.fpr95 == pytest.approx(false[np.argmax(true >= 0.95)])


def test_both_are_pytorch_oods() -> None:
    """There scores are outlier scores and the outliers are the positives: its FPR95 is that of the sides exchanged."""
    metrics = pytest.importorskip("pytorch_ood.metrics")
    inside, outside = torch.randn(600, generator=GENERATOR) + 1.0, torch.randn(400, generator=GENERATOR)
    theirs = metrics.OODMetrics()
    theirs.update(-torch.cat([inside, outside]), torch.cat([torch.ones(600), -torch.ones(400)]).long())
    found = theirs.compute()
    assert nc.detection(inside, outside).auroc == pytest.approx(found["AUROC"], rel=1e-9)
    assert nc.detection(-outside, -inside).fpr95 == pytest.approx(found["FPR95TPR"], abs=1 / 400)


def test_mahalanobis_is_pytorch_oods() -> None:
    """There the covariance is not divided by n and the square is halved; the order of the examples is the same."""
    detector = pytest.importorskip("pytorch_ood.detector").Mahalanobis(lambda features: features)
    detector.fit_features(FEATURES, LABELS)
    theirs = detector.predict_features(OUTSIDE).double()
    ours = -nc.nearest_mean_scores(moments(), OUTSIDE, mahalanobis=True)
    torch.testing.assert_close(theirs * 2 * len(FEATURES), ours, rtol=1e-3, atol=1e-4)


def test_neco_is_scikit_learns_projection() -> None:
    scaler = StandardScaler().fit(FEATURES.double().numpy())
    pca = PCA(2).fit(scaler.transform(FEATURES.double().numpy()))
    rows = scaler.transform(OUTSIDE.double().numpy())
    want = np.linalg.norm(rows @ pca.components_.T, axis=1) / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(nc.neco_scores(moments(), OUTSIDE), want, rtol=1e-9)


@pytest.mark.parametrize("power", [0, 600])
def test_nearest_means_are_found_by_hand(power: int) -> None:
    made = nc.ClassMoments(3)
    made.update(FEATURES.double() * 2.0**power, LABELS)
    rows = OUTSIDE.double().numpy()
    means = np.array([FEATURES[c == LABELS].double().numpy().mean(axis=0) for c in range(3)])
    centred = FEATURES.double().numpy() - means[LABELS]
    inverse = np.linalg.inv(centred.T @ centred / len(centred))
    squared = [min((h - m) @ (h - m) for m in means) for h in rows]
    whitened = [min((h - m) @ inverse @ (h - m) for m in means) for h in rows]
    if power == 0:  # the squares of the others are beyond float64
        np.testing.assert_allclose(-nc.nearest_mean_scores(made, rows), squared, rtol=1e-9)
    got = nc.nearest_mean_scores(made, rows * 2.0**power, mahalanobis=True)
    np.testing.assert_allclose(-got, whitened, rtol=1e-8)


def test_data_of_the_classes_score_higher() -> None:
    inside = 3 * torch.eye(3, 6)[LABELS] + torch.randn(90, 6, generator=GENERATOR) * torch.logspace(-1, 0, 6) + 5.0
    for scores in (nc.nearest_mean_scores, lambda m, h: nc.nearest_mean_scores(m, h, mahalanobis=True)):
        assert nc.detection(scores(moments(), inside), scores(moments(), OUTSIDE)).auroc > 0.9


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nc.detection([], [1.0]), "expected inside to be at least one score"),
        (lambda: nc.detection([1.0], [float("nan")]), "expected outside to be at least one score, none of them nan"),
        (lambda: nc.neco_scores(moments(), OUTSIDE[:, :4]), "expected features with p = 6 columns, got 4"),
        (lambda: nc.neco_scores(moments(), OUTSIDE, dimensions=7), "expected dimensions of at least 1 and at most 6"),
        (lambda: nc.nearest_mean_scores(FEATURES, OUTSIDE), "expected moments to be a ClassMoments"),
        (lambda: nc.detection([1.0], [0.0], passing=0.0), "expected a positive passing, got 0"),
        (lambda: nc.detection([1.0], [0.0], passing=1.1), "expected a passing of at most 1, got 1.1"),
    ],
)
def test_what_cannot_be_scored_is_refused(call: object, message: str) -> None:
    with pytest.raises(nc.InputError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["constant", "copy", "sum", "few"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mahalanobis_needs_a_nonsingular_covariance(dtype: torch.dtype, kind: str, seed: int) -> None:
    """Where columns depend on one another the least pivot of a factorisation is rounding of either sign."""
    rows = torch.randn(200, 4, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    last = {"constant": torch.full_like(rows[:, 0], 0.1), "copy": 3 * rows[:, 1], "sum": rows[:, 0] - rows[:, 2]}
    rows = torch.cat([rows, last.get(kind, rows[:, 3] ** 2)[:, None]], dim=1) * 10.0 ** (seed - 4)
    made = nc.ClassMoments(2)
    made.update(rows[: 6 if kind == "few" else 200], torch.arange(6 if kind == "few" else 200) % 2)
    with pytest.raises(nc.InputError, match="expected a nonsingular Σ_W for Mahalanobis distances, got 5 features"):
        nc.nearest_mean_scores(made, rows[:3], mahalanobis=True)


def test_mahalanobis_in_units_that_differ_by_far() -> None:
    """Small features are no dependent ones: distances do not depend on units."""
    units = torch.logspace(-9, 9, 6, dtype=torch.float64)
    made = nc.ClassMoments(3)
    made.update(FEATURES.double() * units, LABELS)
    got = nc.nearest_mean_scores(made, OUTSIDE.double() * units, mahalanobis=True)
    want = nc.nearest_mean_scores(moments(), OUTSIDE, mahalanobis=True)
    np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize("value", [0.1, 0.7, 1e4 / 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neco_leaves_out_a_constant_feature(dtype: torch.dtype, value: float) -> None:
    """Its variance may be rounding; to divide by that would make it the whole of every score."""
    made, plain = nc.ClassMoments(3), nc.ClassMoments(3)
    rows, constant = FEATURES.to(dtype).repeat(20, 1), torch.full((1800, 1), value, dtype=dtype)
    made.update(torch.cat([rows, constant], dim=1), LABELS.repeat(20))
    plain.update(rows, LABELS.repeat(20))
    outside = torch.cat([OUTSIDE.to(dtype), constant[:40] + 0.5], dim=1)
    want = nc.neco_scores(plain, OUTSIDE.to(dtype))
    np.testing.assert_allclose(nc.neco_scores(made, outside), want, rtol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_of_what_is_not_finite_are_refused(bad: float) -> None:
    rows = OUTSIDE.clone()
    rows[3, 2] = bad
    for scores in (nc.neco_scores, nc.nearest_mean_scores):
        with pytest.raises(nc.InputError, match="expected finite features, got NaN or infinity in row 3"):
            scores(moments(), rows)


WIDE = np.longdouble  # of fifteen bits of exponent on x86, whose squares of 1e300 are numbers
extended = pytest.mark.skipif(np.finfo(WIDE).maxexp <= 1024, reason="no type of a wider range than float64 here")


def in_extended_range(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """NECO and both squared distances of rows, from the formulas, in numbers whose squares do not overflow.

    Components and the inverse of Σ_W are those at scale 1, which scaled features share.
    """
    means = np.array([FEATURES[c == LABELS].double().numpy().mean(axis=0) for c in range(3)])
    plain = FEATURES.double().numpy()
    within, total = ((plain - m).T @ (plain - m) / len(plain) for m in (means[LABELS], plain.mean(axis=0)))
    deviation = np.sqrt(np.diag(total))
    components = np.linalg.eigh(total / np.outer(deviation, deviation))[1][:, -2:]
    standard = (rows - plain.mean(axis=0).astype(WIDE)) / deviation
    neco = np.sqrt(((standard @ components.astype(WIDE)) ** 2).sum(axis=1) / (standard**2).sum(axis=1))
    apart = rows[:, None] - means.astype(WIDE)
    mahalanobis = np.einsum("mcp,pq,mcq->mc", apart, np.linalg.inv(within).astype(WIDE), apart).min(axis=1)
    return neco, (apart**2).sum(axis=2).min(axis=1), mahalanobis


@extended
@pytest.mark.parametrize("power", [-200, -150, 0, 150, 200])
def test_scores_of_any_finite_example(power: int) -> None:
    """Examples up to the end of the range, of training data of any size; what no float holds is said."""
    made = nc.ClassMoments(3)
    made.update(FEATURES.double() * 10.0**power, LABELS)
    sizes = np.array([1e-300, 1e-200, 1e-100, 1.0, 1e100, 1e140, 1e200, 1e300])
    rows = np.vstack(
        [OUTSIDE[: len(sizes)].double().numpy() * sizes[:, None], OUTSIDE[:3].double().numpy() * 10.0**power]
    )
    neco, euclidean, mahalanobis = in_extended_range(rows.astype(WIDE) / WIDE(10) ** power)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = nc.neco_scores(made, rows)
        np.testing.assert_allclose(found, neco.astype(float), rtol=1e-9)
        assert bool(((found >= 0.0) & (found <= 1.0)).all())
    for squared, options in ((euclidean * WIDE(10) ** (2 * power), {}), (mahalanobis, {"mahalanobis": True})):
        large, small = squared > WIDE(np.finfo(float).max), squared < WIDE(5e-324)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scores = nc.nearest_mean_scores(made, rows, **options)
        said = "; ".join(str(each.message) for each in caught)
        for which, state, value in ((large, "infinite", -math.inf), (small, "zero", 0.0)):
            assert bool((scores[torch.from_numpy(which)] == value).all())
            if which.any():
                row = int(which.nonzero()[0][0])
                assert f"the score of row {row} is {state}: no float holds the squared distance" in said
            else:
                assert state not in said
        held = ~(large | small)
        np.testing.assert_allclose(-scores[torch.from_numpy(held)], squared[held].astype(float), rtol=1e-8)


@extended
def test_scores_of_extreme_examples_in_one_feature() -> None:
    """A constant feature tells nothing, however large an example is there; a state of float32 scores float64 too."""
    constant = torch.cat([FEATURES, torch.full((90, 1), 0.1)], dim=1).double()
    made, narrow = nc.ClassMoments(3), nc.ClassMoments(3, dtype=torch.float32)
    made.update(constant * 1e-200, LABELS)
    narrow.update(FEATURES, LABELS)
    rows = torch.cat([OUTSIDE[:4], OUTSIDE[:4, :1]], dim=1).double() * 1e-200
    rows[0, 6], rows[1, 0] = 1e200, 1e200
    plain = (rows[:, :6].numpy().astype(WIDE) / WIDE(1e-200)).astype(WIDE)
    np.testing.assert_allclose(nc.neco_scores(made, rows), in_extended_range(plain)[0].astype(float), rtol=1e-9)
    far = OUTSIDE[:4].double() * 1e200
    neco, _, _ = in_extended_range(far.numpy().astype(WIDE))
    np.testing.assert_allclose(nc.neco_scores(narrow, far), neco.astype(float), rtol=1e-4)


@extended
@pytest.mark.parametrize("power", [-200, 0, 200])
@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_nc5_of_any_finite_mean(power: int, size: float) -> None:
    made = nc.ClassMoments(3)
    made.update(FEATURES.double() * 10.0**power, LABELS)
    outside = OUTSIDE[0].double().numpy() * size
    means = np.array([FEATURES[c == LABELS].double().numpy().mean(axis=0) for c in range(3)]).astype(WIDE)
    for centred in (False, True):
        origin = means.mean(axis=0) if centred else 0.0 * means[0]
        one, others = outside.astype(WIDE) / WIDE(10) ** power - origin, means - origin
        cosines = others @ one / np.sqrt((one @ one) * (others**2).sum(axis=1))
        assert nc5(made, outside, centred=centred) == pytest.approx(float(np.abs(cosines).mean()), rel=1e-8)


@pytest.mark.parametrize("weighting", ["mixed", "mixed-example-mean"])
def test_scores_of_mixed_moments_are_those_by_example(weighting: str) -> None:
    kept = torch.arange(90) >= 40 * (LABELS == 0)
    scores = []
    for each in (weighting, "example", "class"):
        made = nc.ClassMoments(3, weighting=each)
        made.update(FEATURES[kept].double(), LABELS[kept])
        scores.append(
            torch.stack([nc.neco_scores(made, OUTSIDE), nc.nearest_mean_scores(made, OUTSIDE, mahalanobis=True)])
        )
    torch.testing.assert_close(scores[0], scores[1])
    assert not torch.isclose(scores[0], scores[2]).any()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 19, 20, 60, 99, 100, 101, 999, 1000, 10_007, 100_000])
def test_the_threshold_passes_the_share_that_the_decimal_number_says(count: int) -> None:
    """0.55 · 100 is 55.00000000000001 in floats; the scores are 1 … n, so that one of the others counts the passed."""
    inside = torch.arange(1.0, count + 1.0, dtype=torch.float64)
    for text in [f"0.{part:02d}" for part in range(1, 100)] + ["0.001", "0.999", "0.9995", "0.333", "1.0"]:
        passed = math.ceil(Fraction(text) * count)
        others = torch.tensor([count - passed + 1.0, count - passed + 0.5], dtype=torch.float64)
        assert nc.detection(inside, others, passing=float(text)).fpr95 == 0.5, text
