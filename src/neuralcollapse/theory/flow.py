"""Gradient flow of features on the central path, renormalized or not, integrated and in discrete steps.

With X the features, E their deviations from the class means, W the least-squares classifier of X and G = ∇_X L(W, X):

    projected        dX/dt = −(G − S E)         the paper's: the part of −G tangent to {Σ_W = I}
    multiplicative   dX/dt = −G + S (X − μ_G)   X whitened again after every infinitesimal step, about μ_G
    none             dX/dt = −G                 no renormalization

S is the same symmetric matrix in both, the solution of Σ_W S + S Σ_W = (G Eᵀ + E Gᵀ)/n: S E is the part of G that
changes Σ_W, and whitening undoes that change by S (X − μ_G). Classes are balanced, the bias is 1/C − W μ_G and not
penalised; the global mean stands still.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from neuralcollapse._checks import InputError, as_count, as_number, as_tensor, as_word, check_features, check_labels
from neuralcollapse._errors import install
from neuralcollapse.theory.tangent import normal_matrix

Renormalization = Literal["projected", "multiplicative", "none"]
Progress = Callable[[float], object]

_SINGULAR = 1e-10
_SINGULAR_TOTAL = (
    "expected features that vary in every direction, got a singular total covariance: give weight_decay above 0, or "
    "project the directions out in which nothing varies"
)
_LARGEST, _LARGEST_CLASSES = 1e75, 1 << 20
_RENORMALIZATIONS = ("projected", "multiplicative", "none")


@dataclass(frozen=True)
class Flow:
    """Features along a flow.

    Args:
        times: (t,), or the number of the step times the learning rate.
        features: (t, n, p).
        singular_values: (t, C−1) of Σ_W^{-1/2} M̄, descending.
        loss: (t,) L(W_LS(X), X), the penalty of W included.
        drift: (t,) largest entry of |Σ_W − I|, which the renormalized flows keep at rounding.
    """

    times: Float[Tensor, " t"]
    features: Float[Tensor, "t n p"]
    singular_values: Float[Tensor, "t k"]
    loss: Float[Tensor, " t"]
    drift: Float[Tensor, " t"]


class _Balanced:
    """Class means and what follows from them, for balanced labels."""

    def __init__(self, labels: Tensor, weight_decay: float) -> None:
        counts = torch.bincount(labels)
        if len(counts) < 2 or not bool((counts == counts[0]).all()):
            raise InputError(f"expected at least two classes with as many examples each, got {counts.tolist()}")
        self.classes, self.labels, self.weight_decay = len(counts), labels, weight_decay
        self.one_hot = torch.nn.functional.one_hot(labels).double()
        self.average = self.one_hot.T / counts[0]

    def split(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Global mean (p,), centred class means (C, p), deviations (n, p)."""
        means = self.average @ features
        centre = means.mean(dim=0)
        return centre, means - centre, features - means[self.labels]

    def classifier(self, means: Tensor, deviations: Tensor) -> Tensor:
        """W = (1/C) M̄ᵀ (Σ_W + Σ_B + λI)⁻¹, (C, p)."""
        within, between = deviations.T @ deviations / len(deviations), means.T @ means / self.classes
        system = (
            within + between + self.weight_decay * torch.eye(means.shape[1], dtype=means.dtype, device=means.device)
        )
        solution, info = torch.linalg.solve_ex(system, means.T / self.classes)
        if int(info):
            raise InputError(_SINGULAR_TOTAL)
        weight: Tensor = solution.T
        return weight

    def require_regular(self, features: Tensor) -> None:
        """Raise where Σ_T + λI is singular up to rounding, for which alone a solver does not look."""
        centred = features - self.split(features)[0]
        values = torch.linalg.eigvalsh(centred.T @ centred / len(features)) + self.weight_decay
        if not float(values[0]) > _SINGULAR * float(values[-1]):
            raise InputError(_SINGULAR_TOTAL)

    def residual(self, weight: Tensor, centred: Tensor) -> Tensor:
        """W h + b − y for features less their global mean."""
        return centred @ weight.T + 1.0 / self.classes - self.one_hot

    def loss(self, features: Tensor) -> Tensor:
        """L(W_LS(X), X) = ½ Ave ‖W h + b − y‖² + (λ/2)‖W‖²."""
        centre, means, deviations = self.split(features)
        weight = self.classifier(means, deviations)
        fit: Tensor = 0.5 * self.residual(weight, features - centre).square().sum(dim=1).mean()
        return fit + 0.5 * self.weight_decay * weight.square().sum()


def flow_direction(
    features: Float[Tensor, "n p"],
    labels: Integer[Tensor, " n"],
    *,
    weight_decay: float = 0.0,
    renormalization: Renormalization = "projected",
) -> Float[Tensor, "n p"]:
    """dX/dt at X, for features with Σ_W = I (any Σ_W with "none").

    Args:
        features: (n, p); labels: (n,), balanced.
        weight_decay: λ of the paper's loss, on W alone.
        renormalization: see the module.

    Raises:
        InputError: unbalanced classes, a negative λ, an unknown renormalization; a singular Σ_T with λ = 0, or a
            singular Σ_W unless the renormalization is "none".
    """
    as_word(renormalization, "the renormalization", _RENORMALIZATIONS)
    problem, x = _problem(features, labels, weight_decay)
    problem.require_regular(x)
    return _direction(problem, x, renormalization)


def balanced_parts(
    features: Float[Tensor, "n p"], labels: Integer[Tensor, " n"]
) -> tuple[Float[Tensor, "c p"], Float[Tensor, "n p"]]:
    """Class means less their mean, and deviations from the class means, in double precision.

    Raises:
        InputError: unbalanced classes, or features and labels that do not fit.
    """
    problem, x = _problem(features, labels, 0.0)
    _, means, deviations = problem.split(x)
    return means, deviations


def _direction(problem: _Balanced, features: Tensor, renormalization: Renormalization) -> Tensor:
    centre, means, deviations = problem.split(features)
    weight = problem.classifier(means, deviations)
    # the gradient of L at fixed W is that of L(W_LS(X), X), because W_LS is a minimum
    gradient = problem.residual(weight, features - centre) @ weight / len(features)
    if renormalization == "none":
        return -gradient
    normal = normal_matrix(gradient, deviations)
    if renormalization == "projected":
        tangent: Tensor = deviations @ normal - gradient
        return tangent
    whitened: Tensor = (features - centre) @ normal - gradient
    return whitened


def renormalize(features: Float[Tensor, "n p"], labels: Integer[Tensor, " n"]) -> Float[Tensor, "n p"]:
    """Σ_W^{-1/2} (h − μ_G) + μ_G, whose within-class covariance is the identity.

    Raises:
        InputError: unbalanced classes, or a singular Σ_W.
    """
    problem, x = _problem(features, labels, 0.0)
    return _whiten(problem, x, whole=True)


def _whiten(problem: _Balanced, features: Tensor, *, whole: bool) -> Tensor:
    """Whiten, `whole` features or their deviations alone, which leaves the class means in place."""
    centre, means, deviations = problem.split(features)
    values, vectors = torch.linalg.eigh(deviations.T @ deviations / len(features))
    if not float(values[0]) > _SINGULAR * float(values[-1]):
        smallest, largest = max(0.0, float(values[0])), float(values[-1])
        raise InputError(
            f"expected a nonsingular within-class covariance, got eigenvalues from {smallest:.3g} to {largest:.3g}; "
            "give more examples than features, or project dead features out"
        )
    root = (vectors * values.rsqrt()) @ vectors.T
    if whole:
        features = (features - centre) @ root + centre
        return features
    white: Tensor = deviations @ root + (means + centre)[problem.labels]
    return white


def integrate(
    features: Float[Tensor, "n p"],
    labels: Integer[Tensor, " n"],
    times: Float[Tensor, " t"],
    *,
    weight_decay: float = 0.0,
    renormalization: Renormalization = "projected",
    rtol: float = 1e-10,
    atol: float = 1e-12,
    progress: Progress | None = None,
) -> Flow:
    """Integrate the flow by torchdiffeq's adaptive Dormand–Prince method, in double precision.

    Args:
        features: (n, p) at time `times[0]`; `renormalize` them first unless `renormalization` is "none".
        labels: (n,), balanced.
        times: (t,), rising.
        weight_decay: λ of the paper's loss, on W alone.
        renormalization: see the module.
        rtol, atol: of the integration; the defaults keep the ω_j to about 1e-9.
        progress: called with the time reached, now and then.

    Raises:
        InputError: shapes that do not fit, Σ_W that is not the identity where it must be, times that do not rise,
            or torchdiffeq not installed.
    """
    try:
        from torchdiffeq import odeint
    except ImportError:
        raise InputError(f"integrating a flow needs torchdiffeq: {install('torchdiffeq')}") from None
    rtol, atol = as_number(rtol, "rtol", above=True), as_number(atol, "atol", above=True)
    problem, start = _prepare(features, labels, weight_decay, renormalization)
    clock = as_tensor(times, "times").to(start.device, torch.float64)
    rising = clock.ndim == 1 and len(clock) > 1 and bool((clock.diff() > 0).all())
    if not rising or not bool(torch.isfinite(clock).all()):
        raise InputError("expected at least two rising, finite times")

    def rate(t: Tensor, x: Tensor) -> Tensor:
        if progress is not None:
            progress(float(t))
        _require_moderate(x, f"the flow cannot be integrated: at time {float(t):g} features are too large")
        return _direction(problem, x, renormalization)

    with torch.no_grad():
        try:
            path: Tensor = odeint(rate, start, clock, rtol=rtol, atol=atol, method="dopri5")
        except AssertionError as error:  # torchdiffeq's error where its step becomes too small
            end = float(clock[-1])
            raise InputError(f"the flow cannot be integrated to {end:g} at rtol={rtol:g}: {error}") from error
        return _describe(problem, clock, path)


def descend(
    features: Float[Tensor, "n p"],
    labels: Integer[Tensor, " n"],
    *,
    learning_rate: float,
    steps: int,
    every: int = 1,
    weight_decay: float = 0.0,
    renormalization: Renormalization = "projected",
) -> Flow:
    """The flow in discrete steps: a gradient step, then the projection or the whitening; first order in the step.

    "projected" takes the tangent step and whitens the deviations, class means in place; "multiplicative" takes the
    plain step and whitens X − μ_G.

    Args:
        features, labels, weight_decay, renormalization: as for `integrate`.
        learning_rate: the step η in time.
        steps: how many.
        every: keep the features after this many steps, and at the start.

    Raises:
        InputError: as `integrate`, or a step that is not positive.
    """
    learning_rate = as_number(learning_rate, "step", above=True)
    steps, every = as_count(steps, "steps"), as_count(every, "every")
    problem, x = _prepare(features, labels, weight_decay, renormalization)
    kept, times = [x], [0.0]
    with torch.no_grad():
        for number in range(1, steps + 1):
            along: Renormalization = "none" if renormalization == "multiplicative" else renormalization
            x = x + learning_rate * _direction(problem, x, along)
            _require_moderate(x, f"the step {learning_rate:g} is too large: after {number} steps")
            if renormalization != "none":
                x = _whiten(problem, x, whole=renormalization == "multiplicative")
            if number % every == 0 or number == steps:
                kept.append(x)
                times.append(number * learning_rate)
        return _describe(problem, torch.tensor(times, dtype=torch.float64, device=x.device), torch.stack(kept))


def _prepare(
    features: Tensor, labels: Tensor, weight_decay: float, renormalization: Renormalization
) -> tuple[_Balanced, Tensor]:
    as_word(renormalization, "the renormalization", _RENORMALIZATIONS)
    problem, x = _problem(features, labels, weight_decay)
    drift = float(_drift(problem, x))
    if renormalization != "none" and drift > 1e-6:
        raise InputError(
            f"expected features with within-class covariance I, it is off by {drift:.2g}: renormalize them first"
        )
    problem.require_regular(x)
    return problem, x


def _require_moderate(features: Tensor, message: str) -> None:
    largest = float(features.abs().max()) if features.numel() else 0.0
    if not largest < _LARGEST:
        raise InputError(f"{message}, got one of size {largest:g}, whose products overflow")


def _problem(features: Any, labels: Any, weight_decay: float) -> tuple[_Balanced, Tensor]:
    """The labels' classes, and the features in float64, once both are known to fit."""
    weight_decay = as_number(weight_decay, "weight decay")
    x, of_class = as_tensor(features, "features"), as_tensor(labels, "labels")
    check_features(x)
    check_labels(of_class, len(x), _LARGEST_CLASSES)
    _require_moderate(x, "expected finite features")
    problem = _Balanced(of_class.to(x.device, torch.int64), weight_decay)
    if x.shape[1] < problem.classes - 1:
        raise InputError(f"expected at least C − 1 = {problem.classes - 1} dimensions, got p = {x.shape[1]}")
    return problem, x.double()


def _drift(problem: _Balanced, features: Tensor) -> Tensor:
    _, _, deviations = problem.split(features)
    within = deviations.T @ deviations / len(features)
    return (within - torch.eye(len(within), dtype=within.dtype, device=within.device)).abs().max()


def _describe(problem: _Balanced, times: Tensor, path: Tensor) -> Flow:
    spectra = []
    for x in path:
        _, means, deviations = problem.split(x)
        factor, info = torch.linalg.cholesky_ex(deviations.T @ deviations / len(x))
        if int(info):
            raise InputError(
                "expected a nonsingular within-class covariance along the whole flow, got a singular one: take a "
                "smaller step, or give more examples than features"
            )
        whitened = torch.linalg.solve_triangular(factor, means.T, upper=False)
        spectra.append(torch.linalg.svdvals(whitened)[: problem.classes - 1])
    losses = torch.stack([problem.loss(x) for x in path])
    drifts = torch.stack([_drift(problem, x) for x in path])
    return Flow(times, path, torch.stack(spectra), losses, drifts)
