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


def test_mahalanobis_needs_a_nonsingular_covariance() -> None:
    made = nc.ClassMoments(2)
    made.update(torch.cat([torch.randn(8, 2), torch.ones(8, 1)], dim=1), torch.arange(8) % 2)
    with pytest.raises(nc.InputError, match="expected a nonsingular Σ_W"):
        nc.nearest_mean_scores(made, torch.randn(2, 3), mahalanobis=True)
