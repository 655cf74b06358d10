"""The training losses by name, and the λ each one means when the last layer is measured.

The paper's loss is L = ½ Ave‖Wh + b - y‖² + (λ/2)‖[W, b]‖². The optimizer's `weight_decay` adds the penalty, so a loss
here is the first term alone, and `measured_weight_decay` says which λ of L that weight decay w stands for:

    mse               λ = w
    mse-torch         λ = C w / 2: its objective is (2/C) L
    rescaled-mse      λ = C w / 2, exactly so for k = M = 1, where it is mse-torch. With k = 1 it is (2M²/C) L of the
                      layer W/M, b/M under that λ; with any other k the true class weighs more and no λ makes it L
    ce, focal,        λ = w: they have no λ of their own in L, so the decomposition is evaluated at the weight decay
    label-smoothing   itself

L is always measured with one-hot targets y, whatever the loss fits the outputs to: with M ≠ 1, and with the losses of
the last line, L⊥_LS mostly shows how far the size of the outputs is from that of y. NC1–NC4 do not depend on that size.
The `loss` of the history is the training loss itself with its parameters, without any penalty, so values of different
losses are on different scales; label smoothing cannot go below the entropy of its targets.

Where the classifier has a decay of its own, that is w here, for W and b are all that λ stands at. Feature decay adds
`feature_penalty` to what is trained, on the scale of the loss: with mse-torch, λ_H of (C/2) times as much on that of L.
L does not hold it, and for given features need not: it does not depend on W and b, so that the classifier with the
least L, and every part of the decomposition, are what they are without it. The history has it as `feature_penalty`.

A new loss is a function and an entry of `LOSSES`; a parameter of its own is an entry of `PARAMETERS` and a field of
`TrainingConfig`. Functions import PyTorch when they are called, so that the command line can list the names without it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neuralcollapse._errors import InputError, Named

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Parameter:
    """A number that a loss takes beside logits and labels.

    Args:
        symbol: what it is called in the literature.
        default: its usual value for a number of classes.
    """

    symbol: str
    default: Callable[[int], float]


@dataclass(frozen=True)
class Loss:
    """One training loss.

    Args:
        title: what figures and tables call it.
        function: takes logits (n, c), labels (n,) and the parameters by name; returns the mean over the examples.
        measured_weight_decay: takes the optimizer's weight decay w and the number of classes; returns the λ of L, by
            default w.
        parameters: names of the settings that are its parameters.
        finite_target: whether the output of the true class is fitted to a finite number: 1, or the parameter `target`.
        decomposed: whether it is, up to a factor, the first term of L, so that the decomposition of L is its own.
    """

    title: str
    function: Callable[..., Tensor]
    measured_weight_decay: Callable[[float, int], float] = lambda decay, classes: decay
    parameters: tuple[str, ...] = ()
    finite_target: bool = False
    decomposed: bool = False


def half_squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """½ Ave ‖z - y‖²: summed over the outputs, averaged over the examples; y is one-hot."""
    return 0.5 * (logits - _one_hot(logits, labels)).square().sum(dim=1).mean()


def mean_squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """PyTorch's `MSELoss`: averaged over the outputs too, so 2/c times the paper's."""
    import torch.nn.functional as F

    return F.mse_loss(logits, _one_hot(logits, labels))


def rescaled_squared_error(logits: Tensor, labels: Tensor, *, rescale: float, target: float) -> Tensor:
    """Ave (1/C) [k (z_y - M)² + Σ_{j≠y} z_j²]; k is `rescale`, M is `target`, and k = M = 1 is `MSELoss`.

    Source: Hui & Belkin (2021), Evaluation of neural architectures trained with square loss vs cross-entropy.
    """
    truth = _one_hot(logits, labels)
    weight = 1 + (rescale - 1) * truth
    return (weight * (logits - target * truth).square()).mean()


def focal_loss(logits: Tensor, labels: Tensor, *, focal_gamma: float) -> Tensor:
    """Ave (1 - p_y)^γ (-log p_y), p the softmax of the logits; γ = 0 is cross-entropy.

    1 - p_y is summed from the other classes' probabilities, which still have all their digits where p_y rounds to 1.

    Source: Lin, Goyal, Girshick, He & Dollár (2017), Focal loss for dense object detection.
    """
    import torch
    import torch.nn.functional as F

    log_probability = F.log_softmax(logits, dim=1)
    others = log_probability.exp() * (1 - _one_hot(logits, labels))
    missing = others.sum(dim=1).clamp_min(torch.finfo(logits.dtype).tiny)  # 0^(γ-1) has no finite gradient
    surprise = F.nll_loss(log_probability, labels, reduction="none")
    return (missing**focal_gamma * surprise).mean()


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy, -log p_y, or with `smoothing` ε that of the targets (1 - ε) y + ε/C.

    Source: Szegedy, Vanhoucke, Ioffe, Shlens & Wojna (2016), Rethinking the Inception architecture, section 7.
    """
    import torch.nn.functional as F

    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def feature_penalty(features: Tensor, feature_decay: float) -> Tensor:
    """(λ_H/2) Ave ‖h‖², of features (n, p); weight decay on H in the model of unconstrained features.

    The average is over examples, as in the loss. Zhu et al.'s code sums over the batch, so λ_H is the batch size times
    its rate; their statements sum over all n examples, so λ_H is n times theirs.

    Source: Zhu et al. (2021), A geometric analysis of neural collapse with unconstrained features.
    """
    return feature_decay / 2 * features.square().sum(dim=1).mean()


def parameters(name: str, given: Mapping[str, Any], num_classes: int) -> dict[str, float]:
    """The parameters of a loss: what is given, or the default.

    Args:
        name: of the loss.
        given: settings by name, among them parameters.
        num_classes: C.

    Raises:
        InputError: a parameter of another loss is given.
    """
    own = LOSSES[name].parameters
    for key in PARAMETERS:
        if key in given and key not in own:
            owners = " or ".join(other for other, loss in LOSSES.items() if key in loss.parameters)
            option = f"--{key.replace('_', '-')} {given[key]:g}"
            raise InputError(f"{option} belongs to --loss {owners}, not to {name}; leave it out")
    return {key: given.get(key, PARAMETERS[key].default(num_classes)) for key in own}


def title(name: str, values: Mapping[str, float]) -> str:
    """The loss with its parameters, as figures call it: `focal (γ = 2)`."""
    loss = LOSSES[name]
    numbers = ", ".join(f"{PARAMETERS[key].symbol} = {values[key]:g}" for key in loss.parameters)
    return f"{loss.title} ({numbers})" if numbers else loss.title


def objective(config: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a configuration, `config.loss` with its parameters: logits and labels to a scalar."""
    loss = LOSSES[config.loss]
    return functools.partial(loss.function, **{key: getattr(config, key) for key in loss.parameters})


def notebook_weight_decay(name: str, measured: float, num_classes: int) -> float:
    """The λ that the notebook of the paper's authors takes: w/2, w being the optimizer's weight decay.

    With the squared error w is that beside `MSELoss`, as in the notebook: 2λ/C, whatever the loss is trained as. With
    the other losses, whose λ is w, it is λ/2.

    Args:
        name: of the loss.
        measured: λ, see `Loss.measured_weight_decay`.
        num_classes: C.
    """
    return measured / num_classes if LOSSES[name].finite_target else measured / 2


def _one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    import torch.nn.functional as F

    return F.one_hot(labels, logits.shape[1]).to(logits.dtype)


def _decay_of_averaged(decay: float, classes: int) -> float:
    """λ where the loss is averaged over the outputs too, as in `MSELoss`."""
    return classes * decay / 2


PARAMETERS: dict[str, Parameter] = {
    # Hui & Belkin: no rescaling for few classes, M = 15 from 42 classes on, k = 15 and M = 30 for a thousand
    "rescale": Parameter("k", lambda classes: 15.0 if classes >= 1000 else 1.0),
    "target": Parameter("M", lambda classes: 30.0 if classes >= 1000 else 15.0 if classes > 10 else 1.0),
    "focal_gamma": Parameter("γ", lambda _: 2.0),  # the best in the experiments of Lin et al.
    "smoothing": Parameter("ε", lambda _: 0.1),  # of Szegedy et al.
}

LOSSES = Named(
    "loss",
    {
        "mse": Loss("MSE", half_squared_error, finite_target=True, decomposed=True),
        "mse-torch": Loss(
            "MSE (PyTorch's mean)", mean_squared_error, _decay_of_averaged, finite_target=True, decomposed=True
        ),
        "ce": Loss("cross-entropy", cross_entropy),
        "rescaled-mse": Loss(
            "rescaled MSE",
            rescaled_squared_error,
            _decay_of_averaged,
            parameters=("rescale", "target"),
            finite_target=True,
        ),
        "focal": Loss("focal", focal_loss, parameters=("focal_gamma",)),
        "label-smoothing": Loss("label smoothing", cross_entropy, parameters=("smoothing",)),
    },
)
"""By the name that `--loss` takes."""
