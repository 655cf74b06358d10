"""Why SGD stays off the central path: what holds L⊥_LS above zero while a network trains.

The paper observes that L⊥_LS is small and builds its theory on that; how small, it leaves open. What follows is ours.
For SGD with learning rate η, momentum β, batches of B examples and weight decay λ, two causes are computed here:

- *tracking*: the classifier goes towards the current least-squares classifier, in each direction of the features at a
  rate that is the features' second moment there. In slow directions it keeps its initial values, and it lags behind
  while the features, and the least-squares classifier with them, move on: :func:`tracking_excess`;
- *the noise* of the batches, which moves the outputs through every parameter of the network, not through the last layer
  alone, and is held at a level proportional to η/((1−β)B): :func:`noise_share`.

`tools/proximity.py` compares both with what trained networks show.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from neuralcollapse._checks import (
    Array,
    InputError,
    as_classifier,
    as_count,
    as_number,
    as_tensor,
    check_features,
    check_labels,
)
from neuralcollapse._files import shortened
from neuralcollapse.metrics.least_squares import least_squares_classifier
from neuralcollapse.moments.class_moments import ClassMoments, require_moments


def tracking_excess(
    path: Sequence[tuple[float, ClassMoments]],
    weight: Float[Tensor, "c p"] | Array,
    bias: Float[Tensor, " c"] | Array,
    *,
    weight_decay: float,
) -> list[float]:
    """L⊥_LS of a classifier trained by gradient flow on features that move as given.

        dW̃/dt = −(W̃ − W̃_LS) K_λ,   L⊥_LS = ½ tr D K_λ Dᵀ,   D = W̃ − W̃_LS,   K_λ = K + λI

    K (p+1, p+1) is the second moment of the features with a 1 appended. On features that stand still,
    ½ Σ_a k_a ‖D(0) v_a‖² e^{−2 k_a t} is left of the initial classifier, for K_λ = Σ_a k_a v_a v_aᵀ. Where they move,
    the classifier lags behind W̃_LS. From one time to the next, s later, W̃_LS is taken to move evenly and K_λ to be the
    mean of both, with which the equation is solved exactly,

        D(t+s) = D(t) e^{−K_λ s} − ΔW̃_LS (1 − e^{−K_λ s}) (K_λ s)⁻¹,

    of second order in the steps of the path. The steps of the classifier have no noise here; what noise the features
    of an SGD run have from their own training is in the path.

    Args:
        path: times t = η · steps/(1−β), summed over the rates where they change, and moments of the features then;
            rising, the first one that of the given classifier. Steps of a twentieth of t serve.
        weight: (C, p), bias: (C,), the classifier at the first time. A layer without a bias is not computed.
        weight_decay: λ of the paper's loss, positive.

    Returns:
        L⊥_LS at each of the times, in units of the loss.

    Raises:
        InputError: shapes that do not fit the moments, no times or times that do not rise, a λ that is not positive.

    Source: ours; docs/sgd-and-the-path.md, Two causes.

    >>> features, labels = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    >>> moments = ClassMoments(num_classes=3, dim=4)
    >>> moments.update(features, labels)
    >>> path = [(0.0, moments), (5.0, moments)]
    >>> start, end = tracking_excess(path, torch.ones(3, 4), torch.zeros(3), weight_decay=0.01)
    >>> 0 < end < 0.01 * start
    True
    """
    decay, times = as_number(weight_decay, "weight decay", above=True), [as_number(time, "time") for time, _ in path]
    if not path or any(later <= time for time, later in itertools.pairwise(times)):
        raise InputError(f"expected a path of rising times, got {shortened(times)}")
    for _, moments in path:
        require_moments(moments)
    sizes = [(moments.num_classes, moments.means.shape[1]) for _, moments in path]
    if other := next((size for size in sizes if size != sizes[0]), None):
        raise InputError(f"expected the same classes and features along the path, got (C, p) = {sizes[0]} and {other}")
    rows, own_bias = as_classifier(weight, bias, *sizes[0])
    if own_bias is None:
        raise InputError("expected a bias (C,), got none: a layer without bias has another least-squares classifier")
    second, optimum = _least_squares(path[0][1], decay)
    difference = torch.cat([rows.to(optimum), own_bias.to(optimum)[:, None]], dim=1) - optimum
    excess = [_excess(difference, second)]
    for (time, _), (later, moments) in itertools.pairwise(path):
        next_second, next_optimum = _least_squares(moments, decay)
        rates, directions = torch.linalg.eigh((second + next_second) / 2)
        exponents = rates.clamp(min=decay) * (later - time)
        lag = (next_optimum - optimum) @ directions * (-torch.expm1(-exponents) / exponents)
        difference = ((difference @ directions) * torch.exp(-exponents) - lag) @ directions.T
        second, optimum = next_second, next_optimum
        excess.append(_excess(difference, second))
    return excess


def _least_squares(moments: ClassMoments, decay: float) -> tuple[Tensor, Tensor]:
    """K + λI (p+1, p+1) and W̃_LS (C, p+1), in float64."""
    moments = moments.exactly_weighted()
    weight, bias = least_squares_classifier(moments, decay)
    roots = moments.weights.double().sqrt()[:, None]
    means = roots * torch.cat([moments.means.double(), torch.ones_like(roots)], dim=1)
    second = means.T @ means + decay * torch.eye(means.shape[1], dtype=means.dtype, device=means.device)
    second[:-1, :-1] += moments.within_covariance.double()
    return second, torch.cat([weight.double(), bias.double()[:, None]], dim=1)


def _excess(difference: Tensor, second: Tensor) -> float:
    return float(0.5 * (difference @ second * difference).sum())


def noise_share(
    outputs: Float[Tensor, "n c"],
    features: Float[Tensor, "n p"],
    labels: Integer[Tensor, " n"],
    parameters: Iterable[Tensor],
    *,
    learning_rate: float,
    batch_size: int,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    probes: int = 8,
    generator: torch.Generator | None = None,
) -> float:
    """The L⊥_LS at which the noise of SGD's batches holds a network, over its loss without decay, to first order in η.

        L⊥_LS/L_data = η/(2(1−β)B) · E_Z ‖∇_θ (1/n) Σ_i v_iᵀ f(x_i)‖²,   v_i = R^{½} Z (K + λI)^{−½} h̃_i

    L_data = ½ Ave ‖f(x) − y‖², the loss less λ‖W̃‖²/2; h̃ is the feature with a 1 appended and K its second moment; Z
    (C, p+1) has independent normal entries; R is the second moment of the residuals f(x_i) − y_i, divided by its trace.
    The expectation is the part of the neural tangent kernel that moves the outputs within the span of the features. The
    last layer alone gives tr K (K + λI)⁻¹ K in its place, which leaves out what the layers below add.

    Derived for the stationary state of SGD about a minimum, where the covariance S of the outputs on the training set
    obeys ΘS + SΘ = η/((1−β)B) ΘRΘ with the tangent kernel Θ (Mandt, Hoffman & Blei 2017, Stochastic gradient descent as
    approximate Bayesian inference, Section 3), for residuals of one second moment R and a Θ that acts alike on all
    outputs. The noise that batch normalisation adds and the terms of higher order in η are left out; both enlarge
    L⊥_LS.

    Args:
        outputs: (n, C) of the network on training examples, with the graph that leads to the parameters.
        features: (n, p) that entered the last layer in the same pass.
        labels: (n,).
        parameters: that SGD trains; only those count on which the outputs depend.
        learning_rate: η. batch_size: B. momentum: β of SGD. weight_decay: λ of the paper's loss.
        probes: draws of Z. The relative error of the mean of 8 is near 10 % for 10 classes.
        generator: of the draws.

    Returns:
        L⊥_LS/L_data, without a unit.

    Raises:
        InputError: shapes that do not fit, labels outside 0 … C−1, numbers that are not finite, outputs without a
            graph, no parameter that is trained, a momentum outside [0, 1), no probe.

    Source: ours; docs/sgd-and-the-path.md, Two causes.

    >>> _ = torch.manual_seed(0)
    >>> network, images = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU()), torch.randn(90, 5)
    >>> head, features = torch.nn.Linear(8, 3), network(images)
    >>> parameters = [*network.parameters(), *head.parameters()]
    >>> labels = torch.arange(90) % 3
    >>> share = noise_share(head(features), features, labels, parameters, learning_rate=0.01, batch_size=30)
    >>> 0 < share < 0.01
    True
    """
    h, targets, classes = as_tensor(features, "features").detach(), as_tensor(labels, "labels"), outputs.shape[-1]
    check_features(h)
    if outputs.ndim != 2 or len(outputs) != len(h) or targets.shape != (len(h),) or not len(h):
        raise InputError(
            f"expected outputs (n, C), features (n, p) and labels (n,), got {tuple(outputs.shape)}, "
            f"{tuple(h.shape)} and {tuple(targets.shape)}"
        )
    check_labels(targets, len(h), classes)
    if not bool(torch.isfinite(h).all() and torch.isfinite(outputs).all()):
        raise InputError("expected finite outputs and features, got NaN or infinity")
    if not outputs.requires_grad:
        raise InputError(
            "expected outputs with the graph of their parameters, got none: compute them without no_grad()"
        )
    trained = [each for each in parameters if each.requires_grad]
    if not trained:
        raise InputError("expected parameters that are trained, got none that requires a gradient")
    rate, decay = as_number(learning_rate, "learning rate"), as_number(weight_decay, "weight decay")
    beta = as_number(momentum, "momentum")
    if beta >= 1.0:
        raise InputError(f"expected a momentum below 1, got {beta:g}")
    number, batch = as_count(probes, "probes"), as_count(batch_size, "batch size")
    extended = torch.cat([h, h.new_ones(len(h), 1)], dim=1).double()
    sizes, directions = torch.linalg.eigh(extended.T @ extended / len(h))
    floor = max(decay, extended.shape[1] * torch.finfo(h.dtype).eps * float(sizes[-1]))  # dead units carry nothing
    whitened = (extended @ directions) / (sizes.clamp(min=0.0) + floor).sqrt()
    residuals = outputs.detach().double() - F.one_hot(targets.to(outputs.device, torch.int64), classes)
    values, vectors = torch.linalg.eigh(residuals.T @ residuals)
    if not float(values.sum()) > 0.0:  # no residual, no noise
        return 0.0
    root = vectors * (values.clamp(min=0.0) / values.sum()).sqrt()
    total = 0.0
    for _ in range(number):
        normal = torch.randn(whitened.shape[1], classes, generator=generator, dtype=whitened.dtype).to(whitened)
        probe = (whitened @ normal @ root.T).to(outputs)
        slopes = torch.autograd.grad((outputs * probe).sum() / len(h), trained, retain_graph=True, allow_unused=True)
        total += sum(float(slope.double().square().sum()) for slope in slopes if slope is not None)
    return rate / (2.0 * (1.0 - beta) * batch) * total / number
