"""The nearest simplex ETF against a search, closed forms and SciPy; the head that follows it, step by step."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import neuralcollapse as nc
from neuralcollapse.metrics.frames import etf_distance, nearest_etf
from neuralcollapse.networks import heads


def distance(vectors: Tensor, frame: Tensor) -> float:
    return float((vectors / vectors.norm() - frame / frame.norm()).norm())


def simplex_gram(count: int) -> Tensor:
    return torch.full((count, count), -1 / (count - 1), dtype=torch.float64).fill_diagonal_(1)


@pytest.mark.parametrize(("count", "dim"), [(2, 1), (3, 2), (4, 3), (4, 9), (10, 9), (10, 12), (7, 40)])
def test_it_is_a_simplex_at_the_distance_of_the_singular_values(count: int, dim: int) -> None:
    """`etf_distance` has the least distance from singular values alone, with no frame made."""
    vectors = torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(count + dim))
    frame = nearest_etf(vectors)
    torch.testing.assert_close(frame @ frame.T, simplex_gram(count), rtol=0, atol=1e-12)
    assert distance(vectors, frame) == pytest.approx(etf_distance(vectors), rel=1e-12)


def test_no_angle_of_the_plane_is_nearer() -> None:
    """Three vectors in the plane: all rotations and reflections of a triangle, to a ten-thousandth of a turn."""
    vectors = torch.tensor([[2.0, 0.3], [-0.4, 1.1], [0.5, -0.9]], dtype=torch.float64)
    angles = np.arange(0, 2 * math.pi, 2 * math.pi / 10_000)
    best = math.inf
    for angle, side in itertools.product(angles, (1, -1)):
        corners = angle + side * np.array([0, 1, 2]) * 2 * math.pi / 3
        frame = torch.tensor(np.stack([np.cos(corners), np.sin(corners)], axis=1))
        best = min(best, distance(vectors, frame))
    found = distance(vectors, nearest_etf(vectors))
    assert found <= best and found == pytest.approx(best, abs=1e-6)


def test_no_orthogonal_frame_drawn_or_descended_to_is_nearer() -> None:
    """Riemannian descent over the Stiefel manifold, as the source solves it, from five starts ends at this frame."""
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(5, 8, dtype=torch.float64, generator=generator)
    simplex, want = nc.simplex_etf(5, 5), nearest_etf(vectors)
    for _ in range(5):
        frame = torch.linalg.qr(torch.randn(8, 5, dtype=torch.float64, generator=generator)).Q.T
        for _ in range(400):
            slope = -(simplex.T @ vectors / vectors.norm())
            tangent = slope - frame @ slope.T @ frame
            frame = (
                torch.linalg.qr((frame - 0.3 * tangent).T).Q.T
                * torch.linalg.qr((frame - 0.3 * tangent).T).R.diag().sign()[:, None]
            )
        assert distance(vectors, want) <= distance(vectors, simplex @ frame) + 1e-12
        torch.testing.assert_close(simplex @ frame, want, rtol=0, atol=1e-5)


def test_it_is_scipys_procrustes_rotation() -> None:
    scipy = pytest.importorskip("scipy.linalg")
    vectors = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    simplex = nc.simplex_etf(6, 5).numpy()
    rotation, _ = scipy.orthogonal_procrustes(simplex, vectors.numpy())
    np.testing.assert_allclose(nearest_etf(vectors), simplex @ rotation, atol=1e-12)


@pytest.mark.parametrize("power", [0, 300, -300])
def test_a_turned_scaled_and_shifted_simplex_is_found_again(power: int) -> None:
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))).Q
    frame = nc.simplex_etf(4, 6) @ turn
    torch.testing.assert_close(nearest_etf((3 * frame + 0.5) * 2.0**power), frame, rtol=0, atol=1e-12)


@pytest.mark.wrong_input
@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.ones(5, 3), "expected at least 4 features for a simplex ETF of 5 rows, got 3"),
        (torch.tensor([[1.0, float("nan")], [0.0, 1.0]]), "expected finite vectors"),
        (torch.ones(3), "expected at least 2 vectors"),
    ],
)
def test_what_has_no_nearest_simplex_is_refused(vectors: Tensor, message: str) -> None:
    with pytest.raises(nc.InputError, match=message):
        nearest_etf(vectors)


def head(classes: int = 4, features: int = 6) -> nn.Linear:
    layer = heads.nearest_etf(nn.Linear(features, classes))
    assert isinstance(layer, nn.Linear)
    return layer


def test_the_head_waits_for_every_class_and_then_follows_the_running_means() -> None:
    """Means, averages and the nearest frame written out: M̃ + δ W/√C, δ = 1e-3."""
    layer, generator = head().double(), torch.Generator().manual_seed(0)
    first, labels = torch.randn(9, 6, generator=generator).double(), torch.tensor([0, 0, 1, 1, 1, 3, 3, 0, 1])
    begun = layer.weight.detach().clone()
    heads.follow_class_means(layer, first, labels)
    assert torch.equal(layer.weight, begun)  # class 2 was not seen
    second = torch.randn(5, 6, generator=generator).double()
    heads.follow_class_means(layer, second, torch.tensor([2, 2, 0, 2, 0]))
    means = torch.stack([first[labels == c].mean(dim=0) if c != 2 else second[[0, 1, 3]].mean(dim=0) for c in range(4)])
    means[0] = 0.9 * means[0] + 0.1 * second[[2, 4]].mean(dim=0)
    torch.testing.assert_close(layer.class_means, means, rtol=1e-12, atol=1e-12)
    centred = means - means.mean(dim=0)
    want = nearest_etf(centred / centred.norm() + 1e-3 * begun / 2)
    torch.testing.assert_close(layer.weight.detach(), want, rtol=0, atol=1e-12)
    assert not layer.weight.requires_grad and layer.bias.requires_grad


def test_where_the_means_do_not_decide_the_frame_stays_near() -> None:
    """Means on a line: of all nearest frames, the one nearest to the frame before."""
    layer = head(3, 4).double()
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))).Q
    with torch.no_grad():
        layer.weight.copy_(layer.weight @ turn)
    begun = layer.weight.detach().clone()
    line = torch.outer(begun[0] - begun[1], torch.ones(1, dtype=torch.float64)).T * torch.tensor([[1.0], [-1.0], [0.0]])
    heads.follow_class_means(layer, line.double(), torch.arange(3))
    torch.testing.assert_close(layer.weight.detach(), begun, rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_features_without_means_leave_the_frame(value: float) -> None:
    layer = head()
    begun = layer.weight.detach().clone()
    heads.follow_class_means(layer, torch.full((4, 6), value), torch.arange(4))
    assert torch.equal(layer.weight, begun)
