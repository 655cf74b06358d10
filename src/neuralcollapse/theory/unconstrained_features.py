"""The unconstrained-features (layer-peeled) model: features and classifier both free, both with weight decay.

    f(W, H, b) = (1/n) Σ_i ℓ(W h_i + b, y_i) + (λ_W/2) ‖W‖_F² + (λ_H/2) ‖H‖_F²,   ℓ = ½‖·‖² or cross-entropy

Mixon, Parshall & Pi (2022) and Fang, He, Long & Su (2021) introduced it; Zhu et al. (2021) and Tirer & Bruna (2022)
found its minima. The bias is not penalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import InputError, as_count, as_number, as_switch, as_word, shown


@dataclass(frozen=True)
class Minimum:
    """A state of the model, such as the end of a minimisation.

    Args:
        weight: (C, p); features: (n, p); bias: (C,), zero where the model has none; labels: (n,).
        loss: f there.
        gradient: the largest entry of |∇f| there.
        steps: evaluations of f.
    """

    weight: Float[Tensor, "c p"]
    features: Float[Tensor, "n p"]
    bias: Float[Tensor, " c"]
    labels: Tensor
    loss: float
    gradient: float
    steps: int


@dataclass(frozen=True)
class UnconstrainedFeatures:
    """The model for given class sizes.

    Args:
        counts: examples of each class, balanced or not.
        dim: p, dimension of the features; C − 1 suffice with a bias, C without.
        weight_decay: λ_W > 0.
        feature_decay: λ_H > 0.
        loss: "mse", half the squared distance to the one-hot target, or "ce", cross-entropy.
        bias: whether there is one.

    Raises:
        InputError: fewer than two classes, an empty class, or a weight decay that is not positive.

    Example:
        >>> model = UnconstrainedFeatures((5, 5, 5), dim=4, weight_decay=0.05, feature_decay=0.05)
        >>> abs(model.minimise().loss - model.minimum_loss()) < 1e-8
        True
    """

    counts: tuple[int, ...]
    dim: int
    weight_decay: float
    feature_decay: float
    loss: Literal["mse", "ce"] = "mse"
    bias: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.counts, (np.ndarray, Tensor)) and self.counts.ndim == 1:
            object.__setattr__(self, "counts", tuple(self.counts.tolist()))
        if not isinstance(self.counts, Sequence) or isinstance(self.counts, (str, bytes)) or len(self.counts) < 2:
            raise InputError(f"expected counts of at least two classes, got {shown(self.counts)}")
        # kept as plain Python numbers; a frozen dataclass sets its fields this way
        object.__setattr__(self, "counts", tuple(as_count(count, "counts") for count in self.counts))
        object.__setattr__(self, "dim", as_count(self.dim, "dim"))
        for name in ("weight_decay", "feature_decay"):
            object.__setattr__(self, name, as_number(getattr(self, name), name, above=True))
        as_word(self.loss, "the loss", ("mse", "ce"))
        object.__setattr__(self, "bias", as_switch(self.bias, "bias"))

    @property
    def labels(self) -> Tensor:
        """(n,), class by class."""
        return torch.arange(len(self.counts)).repeat_interleave(torch.tensor(self.counts))

    def objective(self, weight: Tensor, features: Tensor, bias: Tensor) -> Tensor:
        """f at W (C, p), H (n, p) and b (C,)."""
        logits, labels = features @ weight.T + bias, self.labels
        if self.loss == "ce":
            fit = torch.nn.functional.cross_entropy(logits, labels)
        else:
            targets = torch.nn.functional.one_hot(labels, len(self.counts)).to(logits.dtype)
            fit = 0.5 * (logits - targets).square().sum() / len(labels)
        decay = self.weight_decay * weight.square().sum() + self.feature_decay * features.square().sum()
        return fit + 0.5 * decay

    def target_singular_values(self) -> Float[Tensor, " c"]:
        """Singular values of the targets Y (C × n), less their mean over the examples where the model has a bias.

        √n_c without a bias; for balanced classes with one, √N for C − 1 of them and 0.
        """
        counts = torch.tensor(self.counts, dtype=torch.float64)
        gram = torch.diag(counts)
        if self.bias:
            gram = gram - torch.outer(counts, counts) / counts.sum()
        values: Tensor = torch.linalg.eigvalsh(gram)
        return values.clamp(min=0.0).sqrt().flip(0)

    def critical_decay(self) -> float:
        """The √(λ_W λ_H) from which W = 0, H = 0 is the minimum: the largest singular value of ∂f/∂(W Hᵀ) there.

        That gradient is (P − Y)/n, P the best output that does not depend on the features: 0 for the squared error
        without a bias, 1/C for cross-entropy without one, the shares of the classes with one.
        """
        n, classes = sum(self.counts), len(self.counts)
        if self.loss == "mse" or self.bias:
            return float(self.target_singular_values()[0]) / n
        counts = torch.tensor(self.counts, dtype=torch.float64)
        gram = torch.diag(counts) - (counts[:, None] + counts) / classes + n / classes**2
        return float(torch.linalg.eigvalsh(gram)[-1].sqrt()) / n

    def minimum_loss(self) -> float:
        """The global minimum of the squared error, in closed form.

        With Z = W Hᵀ, (λ_W‖W‖² + λ_H‖H‖²)/2 ≥ √(λ_W λ_H) ‖Z‖_* with equality attained, so the minimum is that of
        ½‖Z − Y‖²/n + √(λ_W λ_H) ‖Z‖_*. The best Z has the singular values max(0, σ − n √(λ_W λ_H)) for the p largest
        singular values σ of Y.

        Raises:
            InputError: for cross-entropy, which has none.
        """
        if self.loss != "mse":
            raise InputError("expected the loss 'mse' for a minimum in closed form, got 'ce'")
        n = sum(self.counts)
        price = (self.weight_decay * self.feature_decay) ** 0.5
        values = self.target_singular_values()
        kept = (values - n * price).clamp(min=0.0)
        kept[self.dim :] = 0.0
        return float(((values - kept).square() / (2 * n) + price * kept).sum())

    def descend(
        self, *, learning_rate: float, steps: int, every: int = 1, seed: int = 0, scale: float = 0.1
    ) -> list[Minimum]:
        """Plain gradient descent on (W, H, b), without renormalization, to compare with the flows of ``theory.flow``.

        Args:
            learning_rate: the step.
            steps: how many.
            every: keep the state at the start and after every so many steps.
            seed, scale: of the random start.

        Returns:
            The states kept, the start first; their `steps` say when.

        Raises:
            InputError: a step that is not positive, or so large that f is no longer finite.
        """
        learning_rate, scale = as_number(learning_rate, "step", above=True), as_number(scale, "scale")
        seed = as_count(seed, "seed", least=0)
        steps, every = as_count(steps, "steps"), as_count(every, "every")
        classes, n = len(self.counts), sum(self.counts)
        generator = torch.Generator().manual_seed(seed)
        shapes = ((classes, self.dim), (n, self.dim))
        free = [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        bias, kept = torch.zeros(classes, dtype=torch.float64), []
        for number in range(steps + 1):
            variables = [x.requires_grad_() for x in (*free, bias)]
            value = self.objective(*variables)
            gradients = torch.autograd.grad(value, variables)
            if not bool(torch.isfinite(value)):
                raise InputError(f"the step {learning_rate} is too large: f is not finite after {number} steps")
            weight, features, bias = (x.detach() for x in variables)
            if number % every == 0 or number == steps:
                used = gradients if self.bias else gradients[:2]
                largest = max(float(gradient.abs().max()) for gradient in used)
                kept.append(Minimum(weight, features, bias, self.labels, float(value.detach()), largest, number))
            free = [weight - learning_rate * gradients[0], features - learning_rate * gradients[1]]
            bias = bias - learning_rate * gradients[2] if self.bias else bias
        return kept

    def minimise(self, seed: int = 0, *, scale: float = 1.0, max_steps: int = 20_000) -> Minimum:
        """Minimise by SciPy's L-BFGS from a random start, in double precision.

        Args:
            seed: of the start.
            scale: its standard deviation.
            max_steps: evaluations of f at most.
        """
        from scipy.optimize import minimize

        seed, scale = as_count(seed, "seed", least=0), as_number(scale, "scale")
        max_steps = as_count(max_steps, "max_steps")

        classes, n = len(self.counts), sum(self.counts)
        sizes = (classes * self.dim, n * self.dim, classes if self.bias else 0)

        def unpack(flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            weight, features, bias = torch.split(flat, list(sizes))  # type: ignore[no-untyped-call]
            bias = bias if self.bias else flat.new_zeros(classes)
            return weight.view(classes, self.dim), features.view(n, self.dim), bias

        def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
            x = torch.from_numpy(flat.copy()).requires_grad_()
            value = self.objective(*unpack(x))
            (gradient,) = torch.autograd.grad(value, x)
            return float(value.detach()), gradient.numpy()

        start = scale * np.random.default_rng(seed).normal(size=sum(sizes))
        options = {"maxiter": max_steps, "maxfun": max_steps, "ftol": 0.0, "gtol": 1e-11, "maxcor": 30}
        found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
        weight, features, bias = unpack(torch.from_numpy(found.x))
        return Minimum(
            weight, features, bias, self.labels, float(found.fun), float(np.abs(found.jac).max()), int(found.nfev)
        )
