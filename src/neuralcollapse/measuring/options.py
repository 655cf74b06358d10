"""The options of measuring: listed, typed, documented and checked in one place.

``measure``, ``measure_layers``, ``Monitor`` and the callbacks of Lightning and Transformers take them by keyword.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, TypedDict, TypeVar

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
from neuralcollapse._errors import suggest
from neuralcollapse.measuring.batches import require_loader
from neuralcollapse.measuring.confidence import check_level
from neuralcollapse.measuring.count_range import CountRange
from neuralcollapse.measuring.hooks import Side
from neuralcollapse.measuring.per_class import check_class_names
from neuralcollapse.metrics.metric import NEEDS
from neuralcollapse.metrics.registry import METRICS, chosen
from neuralcollapse.moments.class_moments import WEIGHTINGS, ClassMoments, Weighting, require_moments

Array = np.ndarray[Any, Any]
Layer = str | nn.Module
Features = Layer | tuple[Layer, str]
BatchNorm = Literal["running", "re-estimate"]


class HasMoments(Protocol):
    """A :class:`Report`, or :class:`LayerReports`."""

    @property
    def moments(self) -> ClassMoments | Mapping[str, ClassMoments]:
        """Of the features, or by layer."""


Reference = ClassMoments | Mapping[str, ClassMoments] | HasMoments


class MeasureKeywords(TypedDict, total=False):
    """The fields of :class:`MeasureOptions` as keywords, for type checkers."""

    layer: Layer | None
    features: Features | None
    weight: Tensor | Array | None
    bias: Tensor | Array | None
    num_classes: int | None
    metrics: str | Sequence[str] | None
    weight_decay: float
    weighting: Weighting
    ood: Iterable[Any] | None
    reference: Reference | None
    next_token: bool
    min_count: int | None
    max_count: int | None
    class_names: Sequence[str] | None
    batch_norm: BatchNorm
    device: torch.device | str | None
    memory_budget: float
    distributed: bool
    progress: Callable[[float], object] | None
    confidence: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasureOptions:
    """Which layer is measured, what of it, and how.

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
        metrics: later metrics to add, by name or ``"all"``; ``nc.METRICS`` lists them.
        weight_decay: λ of the paper's loss; SGD decay w on ``MSELoss`` is λ = C·w/2.
        weighting: see :class:`neuralcollapse.ClassMoments`.
        ood: loader of out-of-distribution data for NC5; its labels, if any, are ignored.
        reference: the report on the training data, or its moments; for several layers, what ``measure_layers`` gave, or
            moments by layer. The data, of another split, are then measured about the class means of the training data.
            The loss and the ranks of the features keep this split's own.
        next_token: the class of a position in a sequence is the label of the next one, as in causal language models.
            Positions labelled −100 are left out in any case.
        min_count: leave out classes with fewer examples, and their examples; the labels are counted in a pass of
            their own, for which the network does not run.
        max_count: leave out classes with more examples, and their examples.
        class_names: the names of the classes, by label, for ``report.per_class``; by default those of the loader's data
            set, if it has ``classes`` as torchvision's have.
        batch_norm: ``"running"``: batch normalisation by its running averages, as in eval mode and in the papers;
            ``"re-estimate"``: by averages over one more pass of the loader with the weights as they are, put back
            afterwards. Running averages lag behind the weights, which makes L⊥_LS larger than the classifier's own
            distance from the least-squares one. The loader then gives batches as in training, shuffled; a warning and
            a note of the report tell of batches with few classes. Layers in eval mode while the network trains are
            frozen, and keep their averages; of a network in eval mode as a whole none is known to be frozen, unless its
            class is.
        device: where inputs are sent; by default where the model's first parameter is.
        memory_budget: bytes of features to keep, 4 GiB by default.
        distributed: every process of ``torch.distributed`` calls this with its own shard of the data, and each gets
            the report on all of it, or the error of any; numbers of batches may differ. A sampler that repeats examples
            to even the shards out has them counted twice; of a ``DistributedSampler`` a note says how many.
        progress: is called with the share that is done, from 0 to 1, after each batch and resample, where the loader
            has a length.
        confidence: level of bootstrap intervals to add to the report, such as 0.95, at the cost of two hundred more
            reports on the features that ``memory_budget`` keeps; see :func:`neuralcollapse.confidence_intervals`. A
            note says where classes have too few examples for them.

    Raises:
        InputError: a value that is impossible, or does not go with another.

    Example:
        >>> MeasureOptions(metrics="cdnv", weighting="class").metrics
        'cdnv'
    """

    layer: Layer | None = None
    features: Features | None = None
    weight: Tensor | Array | None = None
    bias: Tensor | Array | None = None
    num_classes: int | None = None
    metrics: str | Sequence[str] | None = None
    weight_decay: float = 0.0
    weighting: Weighting = "example"
    ood: Iterable[Any] | None = None
    reference: Reference | None = None
    next_token: bool = False
    min_count: int | None = None
    max_count: int | None = None
    class_names: Sequence[str] | None = None
    batch_norm: BatchNorm = "running"
    device: torch.device | str | None = None
    memory_budget: float = 4 << 30
    distributed: bool = False
    progress: Callable[[float], object] | None = None
    confidence: float | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any], function: str, others: Sequence[str] = ()) -> MeasureOptions:
        """The options that were given to a function by keyword; ``others`` are further keywords that it takes.

        Raises:
            InputError: an unknown name, or a value that is impossible.
        """
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                hint = suggest(name, [*known, *others]) or f"; they are {', '.join(known)}"
                raise InputError(f"expected an option of {function}, got {name!r}{hint}")
        return cls(**given)

    def __post_init__(self) -> None:
        if self.layer is not None and self.features is not None:
            raise InputError(f"expected layer= or features=, got both, {shown(self.layer)} and {shown(self.features)}")
        for option, module in (("layer", self.layer), ("features", self.feature_module[0])):
            if module is not None and not isinstance(module, (str, nn.Module)):
                raise InputError(f"expected {option}= to be a module or its name, got {type(module).__name__}")
        if self.weight is not None and self.features is None:
            raise InputError("expected features= with weight=, the module whose output they are, got weight= alone")
        if self.bias is not None and self.weight is None:
            raise InputError("expected weight= with bias=, got bias= alone")
        if self.num_classes is not None:
            if self.features is None or self.weight is not None:
                raise InputError(
                    "expected num_classes= only where features= are measured without a classifier, "
                    f"got {shown(self.num_classes)}: leave it out, or name their module"
                )
            as_count(self.num_classes, "num_classes", least=2)
        self.classifier()
        self._check_metrics()
        as_word(self.weighting, "weighting", WEIGHTINGS)
        as_switch(self.next_token, "next_token")
        self.kept  # noqa: B018
        check_class_names(self.class_names)
        as_word(self.batch_norm, "batch_norm", ("running", "re-estimate"))
        as_switch(self.distributed, "distributed")
        if self.progress is not None and (not callable(self.progress) or isinstance(self.progress, nn.Module)):
            raise InputError(f"expected progress= to be a function of the share done, got {shown(self.progress)}")
        if self.ood is not None:
            require_loader(self.ood)
        reference = self._reference
        for moments in reference.values() if isinstance(reference, Mapping) else [reference]:
            if reference is not None:
                require_moments(moments, "reference")
        if self.device is not None:
            as_device(self.device)
        if self.confidence is not None:
            check_level(self.confidence)
            if self.reference is not None or self.ood is not None or self.distributed:
                raise InputError(
                    "expected confidence= without reference= and ood=, whose own uncertainty is not known, and without "
                    "distributed=: leave one of them out"
                )
        # a tensor or array of one number is accepted too; the class is frozen, hence this way of setting
        object.__setattr__(self, "weight_decay", as_number(self.weight_decay, "weight decay"))
        object.__setattr__(self, "memory_budget", as_number(self.memory_budget, "memory_budget"))

    def _check_metrics(self) -> None:
        names = chosen(self.metrics)
        if isinstance(self.metrics, str) and self.metrics == "all":  # those that can be measured
            return
        given = {
            "ood": self.ood is not None,
            "weight": self.features is None or self.weight is not None,
            "class_scatter": self.weighting == "class",
            "examples": False,
            "scatter": True,
        }
        for name in names:
            missing = [need for need in NEEDS if need in METRICS[name].needs and not given[need]]
            if missing:
                raise InputError(f"the metric {name!r} needs {NEEDS[missing[0]]}, got none")

    @property
    def kept(self) -> CountRange:
        """The numbers of examples of the classes that are measured."""
        return CountRange(self.min_count, self.max_count)

    @property
    def stages(self) -> int:
        """The equal parts of which progress tells: two passes, one that counts labels, one for all resamples."""
        return 2 + bool(self.kept) + (self.confidence is not None)

    @property
    def feature_module(self) -> tuple[Layer | None, Side]:
        """The module of ``features=``, and whether they are its input or its output."""
        if not isinstance(self.features, tuple):
            return self.features, "output"
        if len(self.features) != 2 or self.features[1] not in ("input", "output"):
            raise InputError(f"expected features= to be a module, or (module, 'input'), got {self.features!r}")
        return self.features[0], "input" if self.features[1] == "input" else "output"

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

    @property
    def _reference(self) -> Any:
        return getattr(self.reference, "moments", self.reference)

    def reference_of(self, layer: str) -> ClassMoments | None:
        """The moments that a layer is measured about; None for its own."""
        reference = self._reference
        if not isinstance(reference, Mapping):
            return reference  # type: ignore[no-any-return]
        if layer not in reference:
            raise InputError(f"expected a reference with the layer {layer!r}, got {', '.join(reference) or 'none'}")
        return reference[layer]  # type: ignore[no-any-return]


Function = TypeVar("Function", bound=Callable[..., Any])


def with_options(function: Function) -> Function:
    """Decorate a function that takes ``**options: Unpack[MeasureKeywords]``, so that ``help`` shows each option.

    ``**options`` in its docstring becomes the documentation of :class:`MeasureOptions`.
    """
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind != each.VAR_KEYWORD]
    options = inspect.signature(MeasureOptions).parameters.values()
    function.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
    listing = inspect.cleandoc(MeasureOptions.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    before, _, after = (function.__doc__ or "").partition("**options")
    indent = before[len(before.rstrip(" ")) :]
    function.__doc__ = before + textwrap.indent(textwrap.dedent(listing), indent).strip() + after
    return function
