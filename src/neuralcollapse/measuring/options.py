"""The options of measuring, listed, typed, documented and checked in one place.

``measure``, ``measure_layers``, ``Monitor`` and the callbacks of Lightning and Transformers take those of
:class:`MeasureOptions` by keyword, ``collect_features`` those of :class:`ReadOptions`.
"""

from __future__ import annotations

import difflib
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from neuralcollapse._checks import (
    InputError,
    as_count,
    as_device,
    as_number,
    as_switch,
    as_tensor,
    as_word,
    check_classifier,
    shown,
)
from neuralcollapse.measuring.batches import require_loader
from neuralcollapse.measuring.hooks import Side
from neuralcollapse.metrics.registry import METRICS, chosen
from neuralcollapse.moments.class_moments import ClassMoments, Weighting, require_moments

Array = np.ndarray[Any, Any]
Layer = str | nn.Module
Features = Layer | tuple[Layer, str]


class HasMoments(Protocol):
    """A :class:`Report`, or :class:`LayerReports`."""

    @property
    def moments(self) -> ClassMoments | Mapping[str, ClassMoments]:
        """Of the features, or by layer."""


Reference = ClassMoments | Mapping[str, ClassMoments] | HasMoments


class ReadKeywords(TypedDict, total=False):
    """The fields of :class:`ReadOptions` as keywords, for type checkers."""

    layer: Layer | None
    features: Features | None
    weight: Tensor | Array | None
    bias: Tensor | Array | None
    num_classes: int | None
    next_token: bool
    device: torch.device | str | None
    memory_budget: float


class MeasureKeywords(ReadKeywords, total=False):
    """The fields of :class:`MeasureOptions` as keywords, for type checkers."""

    metrics: str | Sequence[str] | None
    weight_decay: float
    weighting: Weighting
    ood: Iterable[Any] | None
    reference: Reference | None
    distributed: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadOptions:
    """Which features are read from a network, and how.

    Attributes:
        layer: the classifier or its name, instead of finding it: any module whose input is the features and whose
            output is W h + b, or a cosine classifier. Its output need not be what the network returns; the report then
            says so.
        features: the module whose output is the features, or its name, where no layer is the classifier;
            ``(module, "input")`` where the features are what enters it.
        weight: (C, p) of the classifier of those ``features``, such as tied embeddings. Without it there is no
            classifier, and what needs one is None in the report.
        bias: (C,) beside ``weight``.
        num_classes: C where there is no classifier; by default one more than the largest label.
        next_token: the class of a position in a sequence is the label of the next one, as in causal language models.
            Positions labelled −100 are left out in any case.
        device: where inputs are sent; by default where the model's first parameter is.
        memory_budget: bytes of features to keep, 4 GiB by default.
    """

    layer: Layer | None = None
    features: Features | None = None
    weight: Tensor | Array | None = None
    bias: Tensor | Array | None = None
    num_classes: int | None = None
    next_token: bool = False
    device: torch.device | str | None = None
    memory_budget: float = 4 << 30

    def __post_init__(self) -> None:
        if self.layer is not None and self.features is not None:
            raise InputError(f"expected layer= or features=, got both, {shown(self.layer)} and {shown(self.features)}")
        for name in ("layer", "features"):
            module = self.feature_module[0] if name == "features" else self.layer
            if module is not None and not isinstance(module, (str, nn.Module)):
                raise InputError(f"expected {name}= to be a module or its name, got {type(module).__name__}")
        if self.weight is not None and self.features is None:
            raise InputError("expected features= with weight=, the module whose output they are, got weight= alone")
        if self.bias is not None and self.weight is None:
            raise InputError("expected weight= with bias=, got bias= alone")
        if self.num_classes is not None and (self.features is None or self.weight is not None):
            raise InputError("expected num_classes= only where features= are measured without a classifier")
        if self.num_classes is not None:
            as_count(self.num_classes, "num_classes", least=2)
        self.classifier  # noqa: B018 # which checks weight and bias
        as_switch(self.next_token, "next_token")
        if self.device is not None:
            as_device(self.device)
        # frozen: here a tensor or array of one number, which is accepted too, becomes that number
        object.__setattr__(self, "memory_budget", as_number(self.memory_budget, "memory_budget"))

    @property
    def feature_module(self) -> tuple[Layer | None, Side]:
        """The module of ``features=``, and whether they are its input or its output."""
        if not isinstance(self.features, tuple):
            return self.features, "output"
        if len(self.features) != 2 or self.features[1] not in ("input", "output"):
            raise InputError(f"expected features= to be a module, or (module, 'input'), got {self.features!r}")
        return self.features[0], "input" if self.features[1] == "input" else "output"

    @property
    def classifier(self) -> tuple[Tensor, Tensor | None] | None:
        """``weight`` and ``bias`` as they are now: the network may go on training them."""
        if self.weight is None:
            return None
        weight = as_tensor(self.weight, "weight").detach()
        bias = None if self.bias is None else as_tensor(self.bias, "bias").detach()
        if weight.ndim != 2 or not weight.is_floating_point():
            got = f"{tuple(weight.shape)} of {weight.dtype}"
            raise InputError(f"expected a floating classifier weight of shape (C, p), got {got}")
        check_classifier(weight, bias, *weight.shape)
        return weight, bias


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasureOptions(ReadOptions):
    """What is measured of the features, beside the options that say which they are.

    Attributes:
        metrics: later metrics to add, by name or ``"all"``; ``nc.METRICS`` lists them.
        weight_decay: λ of the paper's loss; SGD decay w on ``MSELoss`` is λ = C·w/2.
        weighting: see :class:`neuralcollapse.ClassMoments`.
        ood: loader of out-of-distribution data for NC5; its labels, if any, are ignored.
        reference: the report on the training data, or its moments; where several layers are measured, what
            ``measure_layers`` gave, or moments by layer. The data, of another split, are then measured about the class
            means of the training data. The loss keeps this split's own.
        distributed: every process of ``torch.distributed`` calls this with its own shard of the data, and each gets
            the report on all of it, or the error of any; numbers of batches may differ. A sampler that repeats examples
            to even the shards out has them counted twice.
    """

    metrics: str | Sequence[str] | None = None
    weight_decay: float = 0.0
    weighting: Weighting = "example"
    ood: Iterable[Any] | None = None
    reference: Reference | None = None
    distributed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weight_decay", as_number(self.weight_decay, "weight decay"))
        as_word(self.weighting, "weighting", ("example", "class"))
        as_switch(self.distributed, "distributed")
        names = [] if isinstance(self.metrics, str) and self.metrics == "all" else chosen(self.metrics)
        given = {"ood": self.ood is not None, "weight": self.features is None or self.weight is not None}
        for name, what in (("weight", "a classifier"), ("ood", "out-of-distribution data (ood=)")):
            needy = [metric for metric in names if name in METRICS[metric].needs]
            if needy and not given[name]:
                raise InputError(f"the metric {needy[0]!r} needs {what}, got none")
        if self.ood is not None:
            require_loader(self.ood)
        if isinstance(self._reference, Mapping):
            for layer, moments in self._reference.items():
                require_moments(moments, f"reference[{layer!r}]")
        elif self._reference is not None:
            require_moments(self._reference, "reference")

    @property
    def _reference(self) -> object:
        """The moments in a report, or those in reports by layer."""
        return getattr(self.reference, "moments", self.reference)

    def reference_of(self, layer: str) -> ClassMoments | None:
        """The moments that a layer is measured about; None for its own.

        Raises:
            InputError: references by layer, and none of this one.
        """
        reference: Any = self._reference
        if not isinstance(reference, Mapping):
            return reference  # type: ignore[no-any-return]
        if layer not in reference:
            raise InputError(f"expected a reference with the layer {layer!r}, got {', '.join(reference) or 'none'}")
        return reference[layer]  # type: ignore[no-any-return]


Options = TypeVar("Options", bound=ReadOptions)


def parse(kind: type[Options], given: Mapping[str, object], function: str) -> Options:
    """The options given by keyword.

    Args:
        function: whose options they are, for the error.

    Raises:
        InputError: an unknown name, or a value that is impossible.
    """
    known = [field.name for field in fields(kind)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(known)}"
            raise InputError(f"expected options of {function}, got {name!r}; {hint}")
    return kind(**given)  # type: ignore[arg-type]


Function = TypeVar("Function", bound=Callable[..., Any])


def with_options_of(kind: type[ReadOptions]) -> Callable[[Function], Function]:
    """Decorate a function that takes ``**options`` so that ``help`` shows each option, its default and its meaning.

    The line ``**options`` in the function's docstring becomes the options' own documentation.
    """

    def decorate(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind != each.VAR_KEYWORD]
        listed = [
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
            for field in fields(kind)
        ]
        function.__signature__ = signature.replace(parameters=[*own, *listed])  # type: ignore[attr-defined]
        documents = [inspect.cleandoc(each.__doc__ or "") for each in (ReadOptions, kind)][kind is ReadOptions :]
        listing = "".join(textwrap.dedent(each.partition("Attributes:\n")[2]).rstrip() + "\n" for each in documents)
        before, _, after = (function.__doc__ or "").partition("**options")
        indent = " " * (len(before) - len(before.rstrip(" ")))
        function.__doc__ = before + textwrap.indent(listing, indent).strip() + after
        return function

    return decorate
