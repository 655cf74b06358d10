"""What a metric is given: class moments, or the features and labels that they are made from."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from torch import Tensor

from neuralcollapse._checks import Array, as_labels, as_tensor
from neuralcollapse._errors import InputError
from neuralcollapse.moments.class_moments import ClassMoments, require_moments

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class MomentsMetric(Protocol[P, R_co]):
    """A metric of class moments that takes features (n, p) and labels (n,) in their place."""

    @overload
    def __call__(self, moments: ClassMoments, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(
        self, features: Tensor | Array, labels: Tensor | Array, /, *args: P.args, **kwargs: P.kwargs
    ) -> R_co: ...


def takes_features(metric: Callable[Concatenate[ClassMoments, P], R_co]) -> MomentsMetric[P, R_co]:
    """Let a metric be called as ``metric(features, labels, …)`` as well as ``metric(moments, …)``.

    The moments of features are those of ``ClassMoments(C)`` with its defaults: C is the number of rows of the weight
    where the metric takes one, else one more than the largest label. What is neither moments nor features with labels
    is an InputError here, so that no metric need check it.
    """

    has_weight = "weight" in inspect.signature(metric).parameters

    @functools.wraps(metric)
    def either(*args: Any, **kwargs: Any) -> R_co:
        if not args and "moments" in kwargs:
            require_moments(kwargs["moments"])
        if not args or isinstance(args[0], ClassMoments):
            return metric(*args, **kwargs)
        arrays = isinstance(args[0], (list, tuple)) or hasattr(args[0], "__array__")
        if not arrays or isinstance(args[0], type) or len(args) < 2 or args[1] is None:
            require_moments(args[0])
        features, labels, *rest = args
        weight = None if not has_weight else rest[0] if rest else kwargs.get("weight")
        return metric(_moments_of(features, labels, weight), *rest, **kwargs)

    return either


def _moments_of(features: Any, labels: Any, weight: Any) -> ClassMoments:
    rows, classes = as_tensor(features, "features"), as_labels(labels)
    if weight is not None:
        shape = as_tensor(weight, "weight").shape
        if len(shape) != 2:
            raise InputError(f"expected a classifier weight of shape (C, p), got {tuple(shape)}")
        count = shape[0]
    else:
        whole = classes.numel() > 0 and not classes.is_floating_point()
        count = max(0, int(classes.max())) + 1 if whole else 1  # where labels are wrong, update() says so
    moments = ClassMoments(count)
    moments.update(rows, classes)
    return moments
