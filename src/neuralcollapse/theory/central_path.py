"""The central path and its exact dynamics: Theorem 3, Definitions 1 and 2, Proposition 2, Corollaries 1 and 2.

On the central path the classifier is the least-squares one for its features. Once features are renormalized so that
Σ_W = I, they are described by the signal-to-noise matrix SNR = M̄ alone, with singular values ω_1 … ω_{C−1}. Gradient
flow keeps its singular vectors, and each ω obeys a separable equation, whose solution is

    c₁ log ω + c₂ ω² + c₃ ω⁴ = a + t.

κ = 1 + λ throughout; the paper's case is λ = 0. λ > 0, with the bias kept at 1/C and not penalised, and the flow
"multiplicative" are extensions of the paper.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from neuralcollapse._checks import Array, InputError, as_count, as_number, as_tensor, as_word
from neuralcollapse._html import curve, paragraph, table
from neuralcollapse.metrics.geometry import equiangularity, equinorm, maximal_angle, simplex_etf
from neuralcollapse.theory.corollaries import loss_parts, on_path, self_duality
from neuralcollapse.theory.monotone import invert, travelled

FlowKind = Literal["projected", "multiplicative"]
FLOWS: tuple[FlowKind, ...] = ("projected", "multiplicative")
T = TypeVar("T", float, Array, Tensor)

# The terms of the closed form grow like N C² (1 + λ) and ω⁴; within these bounds none of them overflows.
_MOST, _MOST_CLASSES = 1e30, 10**9
_LEAST_VALUE, _LARGEST_VALUE = 1e-150, 1e60
_LONGEST = 1e110  # the longest time in units of N: no ω below 1e60 gets above it


_LEGEND = (
    "ω_j: singular values of the signal-to-noise matrix; those above 0 grow, and their ratio falls to 1. NC1: Σ_j "
    "1/ω_j². loss: ½ Σ_j κ/(Cκ + ω_j²), κ = 1 + λ. t: time of the gradient flow; in the last row the least ω above 0 "
    "has grown a thousandfold, or no time is longer."
)


class Constants(NamedTuple):
    """c₁, c₂, c₃ of Proposition 2; c₃ = 0 for the multiplicative flow."""

    c1: float
    c2: float
    c3: float


@dataclass(frozen=True)
class PathMetrics:
    """NC1–NC3 and the loss along the path, one value per time.

    Args:
        nc1: Σ_j 1/ω_j².
        equinorm_means, equinorm_classifier: NC2 as measured in networks.
        equiangularity_means, equiangularity_classifier: the same.
        maximal_angle_means, maximal_angle_classifier: the same.
        nc3: self-duality.
        loss: L = L_NC1 + L_NC2/3; the distance L⊥_LS from the path is zero on it.
        loss_nc1: ½ Σ_j κ ω_j²/(Cκ + ω_j²)².
        loss_nc23: ½ Σ_j C κ²/(Cκ + ω_j²)².
    """

    nc1: Array
    equinorm_means: Array
    equinorm_classifier: Array
    equiangularity_means: Array
    equiangularity_classifier: Array
    maximal_angle_means: Array
    maximal_angle_classifier: Array
    nc3: Array
    loss: Array
    loss_nc1: Array
    loss_nc23: Array


def flow_constants(
    num_classes: int, samples_per_class: float, weight_decay: float = 0.0, flow: FlowKind = "projected"
) -> Constants:
    """c₁ = N C² κ, c₂ = N C, c₃ = N/(4κ) for the paper's flow; N C² κ, N C/2 and 0 for the multiplicative one.

    Args:
        num_classes, samples_per_class, weight_decay: C, N and λ, numbers, which `CentralPath` checks, or symbols.
        flow: see `CentralPath`.

    Raises:
        InputError: an unknown flow.

    Source: Han, Papyan & Donoho (2022), Proposition 2.
    """
    as_word(flow, "the flow", FLOWS)
    kappa = 1.0 + weight_decay
    first = samples_per_class * num_classes**2 * kappa
    if flow == "projected":
        return Constants(first, samples_per_class * num_classes, samples_per_class / (4.0 * kappa))
    return Constants(first, samples_per_class * num_classes / 2.0, 0.0)


def central_path_loss(omega: Tensor | Array | list[float], num_classes: int, weight_decay: float = 0.0) -> Tensor:
    """L = ½ Σ_j κ/(Cκ + ω_j²) over the last axis, on the zero-global-mean central path.

    Args:
        omega: (…, C−1) singular values, or some of them; num_classes: C; weight_decay: λ of the paper's loss.

    Returns:
        (…) in double precision, with the gradient of a tensor's ω_j.

    Raises:
        InputError: a singular value that is negative or not finite, C < 2, more than C − 1 singular values, λ < 0.

    Source: Han, Papyan & Donoho (2022), Theorem 3; Han, Papyan & Donoho (2022), Definition 1.

    Example:
        >>> round(float(central_path_loss([1.0, 2.0], 3)), 6)  # ½ (1/4 + 1/7)
        0.196429
    """
    checked, classes, kappa = on_path(omega, num_classes, weight_decay)
    values = omega.double() if isinstance(omega, Tensor) else torch.from_numpy(checked)
    # both sides of each share divided by κ, of which no size overflows
    loss: Tensor = 0.5 * (1.0 / (classes + (values / kappa**0.5) ** 2)).sum(dim=-1)
    return loss


class CentralPath:
    """The singular values of the signal-to-noise matrix under continually renormalized gradient flow, in closed form.

    Args:
        omega0: the ω_j at time 0, at least 0, (J,); J = C − 1 for all of them, or one scalar.
        num_classes: C ≥ 2.
        samples_per_class: N > 0, in which time is measured.
        weight_decay: λ ≥ 0 of the paper's loss.
        flow: "projected", the paper's: the gradient projected on the tangent space of {Σ_W = I};
            "multiplicative", not the paper's: features whitened again after every infinitesimal step, so that
            dω/dt = ω/(C N (Cκ + ω²)).

    Times and singular values may be numbers, arrays or tensors; the same kind comes back, in double precision. Tensors
    carry gradients, of any order, through the implicit function theorem.

    A singular value that is 0 stays 0: class means that begin in fewer than C − 1 dimensions never leave them. The
    others go on as without it, and their ratios tend to 1, so that Corollary 2 holds in part: the classifier becomes
    dual to the class means (NC3), but these tend to a projection of the simplex, not to the simplex (NC2), NC1 is
    infinite in the direction without signal, and class means that the projection maps together are told apart by
    neither decision (NC4). The paper assumes M̄ of rank C − 1; this case is ours.

    Raises:
        InputError: ω < 0 or not finite, C < 2, N ≤ 0, λ < 0, an unknown flow, more than C − 1 singular values.

    Example:
        >>> path = CentralPath([0.5, 1.0], num_classes=3, samples_per_class=10)
        >>> bool((path.singular_values(100.0) > [0.5, 1.0]).all())
        True

    The equation is Proposition 2 of Han, Papyan & Donoho (2022); its constants are those of `flow_constants`.
    """

    def __init__(
        self,
        omega0: float | list[float] | Array | Tensor,
        *,
        num_classes: int,
        samples_per_class: float,
        weight_decay: float = 0.0,
        flow: FlowKind = "projected",
    ) -> None:
        num_classes = as_count(num_classes, "num_classes", least=2, most=_MOST_CLASSES)
        samples_per_class = as_number(samples_per_class, "number of samples per class", above=True, most=_MOST)
        weight_decay = as_number(weight_decay, "weight decay", most=_MOST)
        if samples_per_class < 1.0 / _MOST:
            raise InputError(f"expected at least {1.0 / _MOST:g} samples per class, got {samples_per_class:g}")
        as_word(flow, "the flow", FLOWS)
        values = _numbers(omega0, "singular values")
        # a copy: what the caller writes later into his own is not checked
        self.omega0 = omega0.clone() if isinstance(omega0, Tensor) else values.copy()
        if values.ndim > 1 or not 1 <= values.size <= num_classes - 1:
            raise InputError(
                f"expected 1 to C − 1 = {num_classes - 1} singular values in one row, got shape {values.shape}"
            )
        _check_range("singular values", values[values != 0])
        self.num_classes, self.samples_per_class = num_classes, samples_per_class
        self.weight_decay, self.flow = weight_decay, flow

    def __repr__(self) -> str:
        omega = np.atleast_1d(_numbers(self.omega0, "singular values"))
        return (
            f"CentralPath({len(omega)} singular values from {omega.min():.4g} to {omega.max():.4g}, "
            f"num_classes={self.num_classes}, samples_per_class={self.samples_per_class:g}, "
            f"weight_decay={self.weight_decay:g}, flow={self.flow!r})"
        )

    def __str__(self) -> str:
        heads, rows = self._table()
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = ["   ".join(map(str.rjust, row, widths)) for row in (heads, *rows)]
        return "\n".join(
            [*textwrap.wrap(repr(self), 80, subsequent_indent="    "), "", *lines, "", *textwrap.wrap(_LEGEND, 80)]
        )

    def _repr_html_(self) -> str:
        heads, rows = self._table()
        times = np.concatenate([[0.0], np.geomspace(*self._span(), 60)])
        omega = np.atleast_2d(_numbers(self.singular_values(times), "singular values")).reshape(len(times), -1)
        ends = (("smallest ω_j", omega.min(axis=1)), ("greatest ω_j", omega.max(axis=1)), ("loss", self.loss(times)))
        curves = [curve(np.log(times[1:]).tolist(), values[1:].tolist(), f"{name} over log t") for name, values in ends]
        pictures = table([f"{name} over log t" for name, _ in ends], [curves])
        return "".join([paragraph(repr(self)), table(heads, rows), pictures, paragraph(_LEGEND)])

    def _span(self) -> tuple[float, float]:
        """From when to when the smallest ω_j > 0 grows by a tenth, and a thousandfold; all of it where none is."""
        omega = np.atleast_1d(_numbers(self.omega0, "singular values"))
        if not omega.any():
            return self.samples_per_class, 1e6 * self.samples_per_class
        least, longest = omega[omega > 0].min(), 0.9 * _LONGEST * self.samples_per_class
        grown = np.minimum([1.1 * least, 1000.0 * least], _LARGEST_VALUE)
        end = min(float(travelled(least, grown[1], *self.constants)) or longest, longest)
        begin = float(travelled(least, grown[0], *self.constants))
        return begin if 0 < begin < end else end / 1e6, end

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """The singular values and what they make of NC1 and the loss, at times spread evenly over the logarithm."""
        times = np.concatenate([[0.0], np.geomspace(*self._span(), 7)])
        omega = np.atleast_2d(_numbers(self.singular_values(times), "singular values")).reshape(len(times), -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            least, greatest, nc1 = omega.min(axis=1), omega.max(axis=1), (1.0 / omega**2).sum(axis=1)
            columns = (times, least, greatest, greatest / least, nc1, self.loss(times))
        rows = [[f"{value:.3g}" for value in row] for row in zip(*columns, strict=True)]
        return ["t", "least ω", "greatest ω", "ratio", "NC1", "loss"], rows

    @property
    def constants(self) -> Constants:
        """c₁, c₂, c₃."""
        return flow_constants(self.num_classes, self.samples_per_class, self.weight_decay, self.flow)

    def singular_values(self, t: T) -> T:
        """ω_j(t): for times of shape (…) and J starting values, shape (…, J); (…) for a scalar start.

        To within 4 units of rounding, times the problem's own conditioning |∂ log ω/∂ log t| where that is above 1.

        Raises:
            InputError: a negative time, or one that is not finite.
        """
        times = self._times(t)
        if isinstance(t, Tensor) or isinstance(self.omega0, Tensor):
            start = torch.as_tensor(self.omega0, dtype=torch.float64)
            clock = torch.as_tensor(t if isinstance(t, Tensor) else times, dtype=torch.float64, device=start.device)
            clock = clock[..., None] if start.ndim else clock
            return _Solve.apply(*torch.broadcast_tensors(start, clock), self.constants)  # type: ignore[no-any-return, no-untyped-call]
        starts, clocks = np.broadcast_arrays(self.omega0, times[..., None] if self.omega0.ndim else times)
        return _solve(starts, clocks, self.constants)[()]  # type: ignore[return-value, no-any-return]

    def time(self, omega: T) -> T:
        """The time at which each ω_j is reached from its start: f(ω) − f(ω_0), negative before it.

        Raises:
            InputError: ω ≤ 0 or not finite, or a path that begins at 0 and stays there.
        """
        if bool((_numbers(self.omega0, "singular values") == 0).any()):
            raise InputError("expected positive singular values for a time, got one that begins and stays at 0")
        values = _numbers(omega, "singular values")
        _check_range("singular values", values)
        count = self.omega0.shape[0] if self.omega0.ndim else 1
        if count > 1 and values.ndim and values.shape[-1] not in (1, count):
            raise InputError(f"expected {count} singular values in each row, got shape {values.shape}")
        if isinstance(omega, Tensor) or isinstance(self.omega0, Tensor):
            end = torch.as_tensor(omega if isinstance(omega, Tensor) else values, dtype=torch.float64)
            start = torch.as_tensor(self.omega0, dtype=torch.float64, device=end.device)
            c1, c2, c3 = self.constants
            squares = (end - start) * (end + start)
            return c1 * torch.log1p((end - start) / start) + squares * (c2 + c3 * (end**2 + start**2))  # type: ignore[return-value]
        return travelled(self.omega0, values, *self.constants)[()]  # type: ignore[return-value, no-any-return]

    def _times(self, t: Any) -> Array:
        times = _numbers(t, "times")
        wrong = times[~(np.isfinite(times) & (times >= 0))]
        if wrong.size:
            raise InputError(f"expected finite times of at least 0, got {wrong.flat[0]}")
        longest = _LONGEST * self.samples_per_class
        if times.size and float(times.max()) > longest:
            raise InputError(f"expected times of at most {longest:g}, got {times.max():g}: no path is followed longer")
        return times

    def loss(self, t: T) -> T:
        """L = ½ Σ_j κ/(Cκ + ω_j(t)²), at each time."""
        omega = self.singular_values(t)
        each = torch.as_tensor(omega)
        each = each[..., None] if self.omega0.ndim == 0 else each  # one singular value has no axis of its own
        loss = central_path_loss(each, self.num_classes, self.weight_decay)
        return loss if isinstance(omega, Tensor) else loss.numpy()[()]  # type: ignore[return-value, no-any-return]

    def asymptote(self, t: T) -> T:
        """(t/c₃)^{1/4}, which every ω_j > 0 tends to (Corollary 1); (t/c₂)^{1/2} for the multiplicative flow."""
        _, c2, c3 = self.constants
        checked = self._times(t)[()]
        times: Any = t.double() if isinstance(t, Tensor) else checked
        return (times / c3) ** 0.25 if self.flow == "projected" else (times / c2) ** 0.5  # type: ignore[no-any-return]

    def condition(self, t: T) -> T:
        """max_j ω_j / min_j ω_j, which falls to 1; infinite where an ω_j is 0, NaN where all are.

        Source: Han, Papyan & Donoho (2022), Corollary 1.
        """
        omega: Any = self.singular_values(t)
        omega = omega[..., None] if self.omega0.ndim == 0 else omega  # one singular value has no axis of its own
        if isinstance(omega, Tensor):
            return omega.amax(-1) / omega.amin(-1)  # type: ignore[return-value]
        with np.errstate(divide="ignore", invalid="ignore"):
            return omega.max(-1) / omega.min(-1)  # type: ignore[no-any-return]

    def metrics(self, t: float | Array, right_vectors: Array | None = None) -> PathMetrics:
        """NC1–NC3 and the parts of the loss along the path (Corollary 2), for all C − 1 singular values.

        With Σ_W = I, M̄ = U Ω Vᵀ and W = V diag(ω/(Cκ + ω²)) Uᵀ, everything follows from ω and V.

        Args:
            t: times (…).
            right_vectors: V (C, C−1), orthonormal columns that sum to zero; by default the Helmert basis.

        Raises:
            InputError: fewer than C − 1 singular values, or a V that is not as above.

        Source: Han, Papyan & Donoho (2022), Corollary 2.
        """
        classes = self.num_classes
        omega = np.atleast_1d(_numbers(self.singular_values(self._times(t)), "singular values"))
        if omega.shape[-1] != classes - 1 or self.omega0.ndim == 0:
            raise InputError(f"expected C − 1 = {classes - 1} singular values for the metrics, got {omega.shape[-1]}")
        if right_vectors is None:
            right_vectors = simplex_etf(classes, classes - 1).numpy() * np.sqrt((classes - 1) / classes)
        basis = _numbers(right_vectors, "right vectors")
        if basis.shape != (classes, classes - 1) or not (
            np.allclose(basis.T @ basis, np.eye(classes - 1), atol=1e-10)
            and np.allclose(basis.sum(axis=0), 0, atol=1e-10)
        ):
            raise InputError(f"expected right vectors ({classes}, {classes - 1}), orthonormal and summing to zero")
        of_classifier = omega / (classes * (1.0 + self.weight_decay) + omega**2)
        rows = torch.from_numpy(np.stack([omega, of_classifier], axis=-2))
        shape = omega.shape[:-1]
        flat = (rows[..., None, :] * torch.from_numpy(basis)).reshape(-1, 2, classes, classes - 1)

        def along(measure: Callable[[Tensor], Tensor], which: int) -> Array:
            return np.array([float(measure(vectors[which])) for vectors in flat]).reshape(shape)

        loss = loss_parts(omega, classes, self.weight_decay)
        with np.errstate(divide="ignore"):
            nc1 = (1.0 / omega**2).sum(axis=-1)
        return PathMetrics(
            nc1=nc1,
            equinorm_means=along(equinorm, 0),
            equinorm_classifier=along(equinorm, 1),
            equiangularity_means=along(equiangularity, 0),
            equiangularity_classifier=along(equiangularity, 1),
            maximal_angle_means=along(maximal_angle, 0),
            maximal_angle_classifier=along(maximal_angle, 1),
            nc3=self_duality(omega, classes, self.weight_decay),
            loss=loss.nc1 + loss.nc23,
            loss_nc1=loss.nc1,
            loss_nc23=loss.nc23,
        )


def _solve(start: Array, t: Array, constants: Constants) -> Array:
    """ω(ω_0, t), 0 where ω_0 is."""
    moving = start > 0
    omega: Array = np.where(moving, invert(np.where(moving, start, 1.0), t, *constants), 0.0)
    return omega


class _Solve(torch.autograd.Function):
    """ω(ω_0, t), with ∂ω/∂t = 1/f'(ω) and ∂ω/∂ω_0 = f'(ω_0)/f'(ω); at ω_0 = 0 these are 0 and exp(t/c₁)."""

    @staticmethod
    def forward(ctx, start, t, constants):  # type: ignore[no-untyped-def]
        omega = torch.from_numpy(_solve(_numbers(start, "singular values"), _numbers(t, "times"), constants))
        omega = omega.to(start.device)
        ctx.save_for_backward(start, t, omega)
        ctx.constants = constants
        return omega

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        start, t, omega = ctx.saved_tensors
        c1, c2, c3 = ctx.constants
        moving = start > 0
        begun, reached = (torch.where(moving, w, 1.0) for w in (start, omega))
        rates = [c1 / w + 2 * c2 * w + 4 * c3 * w**3 for w in (begun, reached)]
        growth = (torch.where(moving, 0.0, t) / c1).clamp(max=700.0)  # exp of more is infinite, and 0 · ∞ NaN
        of_start = torch.where(moving, rates[0] / rates[1], torch.exp(growth))
        return gradient * of_start, torch.where(moving, gradient / rates[1], 0.0), None


def _numbers(value: Any, name: str) -> Array:
    numbers: Array = as_tensor(value, name).cpu().double().resolve_neg().numpy()
    return numbers


def _check_range(name: str, values: Array) -> None:
    wrong = values[~(np.isfinite(values) & (values > 0))]
    if wrong.size:
        raise InputError(f"expected positive, finite {name}, got {wrong.flat[0]}")
    wrong = values[(values < _LEAST_VALUE) | (values > _LARGEST_VALUE)]
    if wrong.size:
        raise InputError(f"expected {name} between {_LEAST_VALUE:g} and {_LARGEST_VALUE:g}, got {wrong.flat[0]:g}")
