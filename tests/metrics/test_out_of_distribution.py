"""Scores of out-of-distribution data against scikit-learn and pytorch-ood, and against formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.preprocessing import StandardScaler

import neuralcollapse as nc

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
