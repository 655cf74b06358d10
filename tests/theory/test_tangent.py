"""The tangent projection against its definition, the rates of singular values against differences and autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuralcollapse import InputError
from neuralcollapse.theory.flow import flow_direction, renormalize
from neuralcollapse.theory.tangent import project_on_tangent, singular_value_rates

P, LABELS = 3, torch.tensor([0, 1, 2] * 4 + [0, 0])


def within(features: Tensor) -> Tensor:
    """Σ_W by its definition."""
    total = torch.zeros(P, P, dtype=torch.float64)
    for label in LABELS.unique():
        rows = features[label == LABELS]
        centred = rows - rows.mean(dim=0)
        total += centred.T @ centred
    return total / len(features)


def projector() -> tuple[Tensor, Tensor]:
    """(features, Π as a matrix on vectors of n p entries)."""
    x = torch.randn(len(LABELS), P, dtype=torch.float64)
    basis = torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *x.shape)
    return x, torch.stack([project_on_tangent(z, x, LABELS).flatten() for z in basis], dim=1)


def test_the_projection_is_linear_idempotent_and_self_adjoint() -> None:
    x, matrix = projector()
    torch.testing.assert_close(matrix @ matrix, matrix, rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    z = torch.randn_like(x)
    torch.testing.assert_close(project_on_tangent(z, x, LABELS).flatten(), matrix @ z.flatten(), rtol=0, atol=1e-12)


def test_the_normal_space_has_one_dimension_for_each_entry_of_the_covariance() -> None:
    """Equation of continually renormalized gradient flow: 1 − Π has rank p(p+1)/2."""
    _, matrix = projector()
    normal = torch.eye(len(matrix), dtype=torch.float64) - matrix
    assert int(torch.linalg.matrix_rank(normal, tol=1e-9)) == P * (P + 1) // 2


def test_the_tangent_space_is_where_the_covariance_stands_still() -> None:
    """Equation of continually renormalized gradient flow: Π against the null space of dΣ_W, by autograd."""
    x, matrix = projector()
    jacobian = torch.autograd.functional.jacobian(within, x).reshape(P * P, -1)
    torch.testing.assert_close(jacobian @ matrix, torch.zeros_like(jacobian), rtol=0, atol=1e-12)
    null = torch.linalg.svd(jacobian)[2][P * (P + 1) // 2 :]
    torch.testing.assert_close(null.T @ null, matrix, rtol=0, atol=1e-10)


def test_the_flow_is_the_projected_gradient() -> None:
    labels = torch.arange(60) % 4
    x = renormalize(torch.randn(60, 6, dtype=torch.float64), labels)
    gradient = flow_direction(x, labels, renormalization="none")
    torch.testing.assert_close(
        flow_direction(x, labels), project_on_tangent(gradient, x, labels), rtol=1e-10, atol=1e-14
    )


@pytest.mark.parametrize("renormalization", ["projected", "multiplicative", "none"])
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_the_flow_turns_with_the_features(renormalization: str, decay: float) -> None:
    """Equation of continually renormalized gradient flow: that of rotated features is the rotated one."""
    labels = torch.arange(60) % 4
    x = renormalize(torch.randn(60, 6, dtype=torch.float64), labels)
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    options = {"weight_decay": decay, "renormalization": renormalization}
    want = flow_direction(x, labels, **options) @ turn  # type: ignore[arg-type]
    torch.testing.assert_close(flow_direction(x @ turn, labels, **options), want, rtol=1e-9, atol=1e-13)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_rates_are_the_derivatives_of_the_singular_values(shape: tuple[int, int]) -> None:
    start, velocity = torch.randn(2, *shape, dtype=torch.float64)

    def values(t: Tensor) -> Tensor:
        return torch.linalg.svdvals(start + t * velocity)

    want = torch.autograd.functional.jacobian(values, torch.zeros((), dtype=torch.float64))
    got = singular_value_rates(start, velocity)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    step = torch.tensor(1e-6, dtype=torch.float64)
    torch.testing.assert_close(got, (values(step) - values(-step)) / 2e-6, rtol=1e-6, atol=1e-7)


def test_the_rates_of_the_flow_are_those_of_proposition_2() -> None:
    """dω/dt = (κ/N) ω/(Cκ + ω²)² for each ω, read from the class means' own velocity."""
    classes, each, decay = 4, 15, 0.2
    labels = torch.arange(classes * each) % classes
    x = renormalize(torch.randn(len(labels), 6, dtype=torch.float64), labels)
    velocity = flow_direction(x, labels, weight_decay=decay)
    means = torch.stack([x[labels == c].mean(dim=0) for c in range(classes)])
    moved = torch.stack([velocity[labels == c].mean(dim=0) for c in range(classes)])
    # in the basis of the means' span, so that the singular value that centring makes zero is left out
    frame = torch.linalg.qr(torch.eye(classes, dtype=torch.float64)[:, 1:] - 1 / classes)[0]
    centred, rate = (means - means.mean(dim=0)).T @ frame, (moved - moved.mean(dim=0)).T @ frame
    omega = torch.linalg.svdvals(centred)
    kappa = 1 + decay
    want = kappa / each * omega / (classes * kappa + omega**2) ** 2
    torch.testing.assert_close(singular_value_rates(centred, rate), want, rtol=1e-9, atol=1e-15)


def test_what_cannot_be_projected_or_derived_is_refused() -> None:
    x = torch.randn(len(LABELS), P, dtype=torch.float64)
    with pytest.raises(InputError, match="nonsingular within-class covariance"):
        project_on_tangent(x, torch.cat([x[:, :2], x[:, :1]], dim=1), LABELS)
    with pytest.raises(InputError, match="the features' shape"):
        project_on_tangent(x[:5], x, LABELS)
    with pytest.raises(InputError, match="distinct, positive singular values, got 1, 1"):
        singular_value_rates(torch.eye(2), torch.ones(2, 2))
    broken = x.clone()
    broken[0, 0] = float("nan")
    for direction, about, which in ((broken, x, "a direction"), (x, broken, "features")):
        with pytest.raises(InputError, match=f"^expected {which} of finite numbers, got NaN or infinity"):
            project_on_tangent(direction, about, LABELS)
    for matrix, velocity in ((broken, x), (x, broken), (x[:0], x[:0])):
        with pytest.raises(InputError, match="of finite numbers, got"):
            singular_value_rates(matrix, velocity)
    with pytest.raises(InputError, match="two matrices of one shape"):
        singular_value_rates(torch.eye(2), torch.ones(2, 3))
