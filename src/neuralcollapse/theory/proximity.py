"""Why SGD stays off the central path: what holds L⊥_LS above zero while a network trains.

The paper observes that L⊥_LS is small and builds its theory on that; how small, it leaves open. What follows is ours.
For SGD with learning rate η, momentum β, batches of B examples and weight decay λ, two causes are computed here:

- *the remnant* of the initial classifier, which fades by e^{−2kt} in the directions of the features whose second moment
  is k, so that directions in which features are nearly zero keep it longest: :func:`remnant`;
- *the noise* of the batches, which moves the outputs through every parameter of the network, not through the last layer
  alone, and is held at a level proportional to η/((1−β)B): :func:`noise_share`.

`tools/proximity.py` compares both with what trained networks show.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from neuralcollapse._checks import Array, InputError, as_classifier, as_count, as_number, as_tensor, check_features
from neuralcollapse.metrics.least_squares import least_squares_classifier
from neuralcollapse.moments.class_moments import ClassMoments, require_moments


def remnant(
    moments: ClassMoments,
    weight: Float[Tensor, "c p"] | Array,
    bias: Float[Tensor, " c"] | Array | None,
    time: float,
    *,
    weight_decay: float,
) -> float:
    """L⊥_LS that gradient flow leaves of a classifier after a time, on features that stand still.

        L⊥_LS(t) = ½ Σ_a k_a ‖(W̃(0) − W̃_LS) v_a‖² e^{−2 k_a t},   K + λI = Σ_a k_a v_a v_aᵀ

    K (p+1, p+1) is the second moment of the features with a 1 appended. Exact for the flow
    dW̃/dt = −(W̃ − W̃_LS)(K + λI). The features of a network move, and the classifier with them; on the networks of
    `results/proximity` half to all of this value is found.

    Args:
        moments: of the features.
        weight: (C, p), bias: (C,), the classifier at time 0; a bias of None begins at zero.
        time: t = η · steps/(1−β), summed over the rates where they change.
        weight_decay: λ of the paper's loss, positive.

    Returns:
        L⊥_LS, in units of the loss.

    Raises:
        InputError: shapes that do not fit the moments, a negative time, a λ that is not positive.

    >>> features, labels = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    >>> moments = ClassMoments(num_classes=3, dim=4)
    >>> moments.update(features, labels)
    >>> start = remnant(moments, torch.ones(3, 4), None, 0.0, weight_decay=0.01)
    >>> remnant(moments, torch.ones(3, 4), None, 5.0, weight_decay=0.01) < 0.01 * start
    True
    """
    require_moments(moments)
    rows, own_bias = as_classifier(weight, bias, moments.num_classes, moments.means.shape[1])
    elapsed, decay = as_number(time, "time"), as_number(weight_decay, "weight decay", above=True)
    best, best_bias = least_squares_classifier(moments, decay)
    roots = moments.weights.double().sqrt()[:, None]
    means = roots * torch.cat([moments.means.double(), torch.ones_like(roots)], dim=1)
    extended = means.T @ means
    extended[:-1, :-1] += moments.within_covariance.double()
    sizes, directions = torch.linalg.eigh(extended)
    sizes = sizes.clamp(min=0.0) + decay
    offset = -best_bias.double() if own_bias is None else own_bias.double() - best_bias.double()
    apart = torch.cat([rows.double() - best.double(), offset[:, None]], dim=1) @ directions
    return float(0.5 * (sizes * apart.square().sum(dim=0) * torch.exp(-2.0 * sizes * elapsed)).sum())


def noise_share(
    outputs: Float[Tensor, "n c"],
    features: Float[Tensor, "n p"],
    labels: Integer[Tensor, " n"],
    parameters: Sequence[Tensor],
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
        InputError: shapes that do not fit, outputs without a graph, a momentum outside [0, 1), no probe.

    >>> _ = torch.manual_seed(0)
    >>> network, images = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU()), torch.randn(90, 5)
    >>> head, features = torch.nn.Linear(8, 3), network(images)
    >>> parameters = [*network.parameters(), *head.parameters()]
    >>> labels = torch.arange(90) % 3
    >>> share = noise_share(head(features), features, labels, parameters, learning_rate=0.01, batch_size=30)
    >>> 0 < share < 0.01
    True
    """
    h, classes = as_tensor(features, "features").detach(), outputs.shape[-1]
    check_features(h)
    if outputs.ndim != 2 or len(outputs) != len(h) or labels.shape != (len(h),):
        raise InputError(
            f"expected outputs (n, C), features (n, p) and labels (n,), got {tuple(outputs.shape)}, "
            f"{tuple(h.shape)} and {tuple(labels.shape)}"
        )
    if not outputs.requires_grad:
        raise InputError(
            "expected outputs with the graph of their parameters, got none: compute them without no_grad()"
        )
    rate, decay = as_number(learning_rate, "learning rate"), as_number(weight_decay, "weight decay")
    beta = as_number(momentum, "momentum")
    if beta >= 1.0:
        raise InputError(f"expected a momentum below 1, got {beta:g}")
    number, batch = as_count(probes, "probes"), as_count(batch_size, "batch size")
    extended = torch.cat([h, h.new_ones(len(h), 1)], dim=1).double()
    sizes, directions = torch.linalg.eigh(extended.T @ extended / len(h))
    floor = max(decay, extended.shape[1] * torch.finfo(h.dtype).eps * float(sizes[-1]))  # dead units carry nothing
    whitened = (extended @ directions) / (sizes.clamp(min=0.0) + floor).sqrt()
    residuals = outputs.detach().double() - F.one_hot(labels.long(), classes)
    values, vectors = torch.linalg.eigh(residuals.T @ residuals)
    root = vectors * (values.clamp(min=0.0) / values.sum()).sqrt()
    total = 0.0
    for _ in range(number):
        normal = torch.randn(whitened.shape[1], classes, generator=generator, dtype=whitened.dtype).to(whitened)
        probe = (whitened @ normal @ root.T).to(outputs)
        slopes = torch.autograd.grad((outputs * probe).sum() / len(h), parameters, retain_graph=True, allow_unused=True)
        total += sum(float(slope.double().square().sum()) for slope in slopes if slope is not None)
    return rate / (2.0 * (1.0 - beta) * batch) * total / number
