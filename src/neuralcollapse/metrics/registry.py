"""The later metrics by name: one line each, so that adding one adds it to every report and integration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import Array, InputError, as_classifier, as_tensor, shown
from neuralcollapse.metrics import collapse, duality, frames, geometry, variability
from neuralcollapse.moments.class_moments import ClassMoments, require_moments


@dataclass(frozen=True)
class Given:
    """What metrics are computed from.

    Attributes:
        moments: of the features.
        weight: (C, p) of the classifier, or None.
        ood_mean: (p,) mean of out-of-distribution features, or None.
    """

    moments: ClassMoments
    weight: Float[Tensor, "c p"] | None = None
    ood_mean: Float[Tensor, " p"] | None = None

    @cached_property
    def means(self) -> Tensor:
        """Centred means of the classes present, at unit scale."""
        return collapse.distinct_means(self.moments)

    @cached_property
    def rows(self) -> Tensor:
        """Classifier rows of the classes present, in float32 or float64."""
        return collapse.rows_of_present(self.moments, self.classifier)

    @property
    def classifier(self) -> Tensor:
        """The weight, which the metric has asked for."""
        assert self.weight is not None
        return self.weight

    @cached_property
    def energies(self) -> dict[tuple[str, str], frames.HypersphericalEnergy]:
        """By kernel and side, made when first asked for: mean and variation come from one pass."""
        return {}

    def energy(self, kernel: str, side: str) -> frames.HypersphericalEnergy:
        """Of the ``means`` or the ``rows``."""
        if (kernel, side) not in self.energies:
            made = frames.hyperspherical_energy(getattr(self, side), kernel)  # type: ignore[arg-type]
            self.energies[kernel, side] = made
        return self.energies[kernel, side]


@dataclass(frozen=True)
class Metric:
    """A number by name.

    Attributes:
        compute: from what is given.
        meaning: a few words and what it tends to.
        needs: of "weight", "ood" and "scatter" (the full within-class scatter), those without which it is not defined.
        most_classes: above which ``"all"`` leaves it out, because its work grows faster than the square of C.
        classes: with examples of fewer it is undefined, nan with a warning.
    """

    compute: Callable[[Given], float]
    meaning: str
    needs: frozenset[str] = frozenset()
    most_classes: int | None = None
    classes: int = 2


def _of_means(function: Callable[[Tensor], object], meaning: str, most_classes: int | None = None) -> Metric:
    return Metric(lambda g: float(function(g.means)), f"{meaning}, class means", most_classes=most_classes)  # type: ignore[arg-type]


def _of_rows(function: Callable[[Tensor], object], meaning: str, most_classes: int | None = None) -> Metric:
    needs = frozenset({"weight"})
    return Metric(lambda g: float(function(g.rows)), f"{meaning}, classifier", needs, most_classes)  # type: ignore[arg-type]


def _energy(kernel: str, side: str, part: str, meaning: str) -> Metric:
    needs = frozenset({"weight"} if side == "rows" else set())
    return Metric(lambda g: float(getattr(g.energy(kernel, side), part)), meaning, needs)


_SCATTER, _WEIGHT = frozenset({"scatter"}), frozenset({"weight"})

METRICS: dict[str, Metric] = {
    "cdnv": Metric(lambda g: variability.cdnv(g.moments), "class-distance normalised variance → 0"),
    "variability_ratio": Metric(lambda g: variability.variability_ratio(g.moments), "tr Σ_W / tr Σ_B → 0"),
    "variability_collapse_index": Metric(
        lambda g: variability.variability_collapse_index(g.moments), "1 − tr(Σ_T⁺Σ_B)/rank → 0", _SCATTER
    ),
    "numerical_rank": Metric(
        lambda g: variability.numerical_rank(g.moments), "tr Σ_T/‖Σ_T‖ → C−1", _SCATTER, classes=1
    ),
    "effective_rank": Metric(
        lambda g: variability.effective_rank(g.moments), "entropy rank of features → C−1", _SCATTER, classes=1
    ),
    "etf_error_means": _of_means(frames.etf_error, "distance of the Gram matrix from an ETF's → 0"),
    "etf_error_classifier": _of_rows(frames.etf_error, "distance of the Gram matrix from an ETF's → 0"),
    "etf_distance_means": _of_means(frames.etf_distance, "distance from the nearest ETF → 0"),
    "etf_distance_classifier": _of_rows(frames.etf_distance, "distance from the nearest ETF → 0"),
    **{
        f"gnc2_{kernel}{suffix}_{name}": _energy(kernel, side, part, f"{words}, {kernel} kernel, {label}")
        for kernel in ("log", "riesz")
        for suffix, part, words in (
            ("", "mean", "hyperspherical energy"),
            ("_variation", "variation", "its Std/Avg → 0"),
        )
        for name, side, label in (("means", "means", "class means"), ("classifier", "rows", "classifier"))
    },
    "margin_means": _of_means(frames.one_vs_rest_margin, "one-vs-rest margin → C/(C−1)", 128),
    "margin_classifier": _of_rows(frames.one_vs_rest_margin, "one-vs-rest margin → C/(C−1)", 128),
    "frame_error_means": _of_means(frames.frame_error, "distance from a tight frame → 0"),
    "frame_error_classifier": _of_rows(frames.frame_error, "distance from a tight frame → 0"),
    "welch_excess_means": _of_means(frames.welch_excess, "coherence above Welch's bound (C > p)"),
    "welch_excess_classifier": _of_rows(frames.welch_excess, "coherence above Welch's bound (C > p)"),
    "duality_error": Metric(
        lambda g: duality.duality_error(g.moments, g.classifier), "W M̄ᵀ against a simplex → 0", _WEIGHT
    ),
    "uniform_duality": Metric(
        lambda g: duality.uniform_duality(g.moments, g.classifier), "UNC3, Std/Avg of cos(w, μ̄) → 0", _WEIGHT
    ),
    "alignment_distance": Metric(
        lambda g: duality.alignment_distance(g.moments, g.classifier), "GNC3, distance of unit w and μ̄ → 0", _WEIGHT
    ),
    "nc0": Metric(lambda g: duality.nc0(g.classifier), "‖Wᵀ1‖ → 0", _WEIGHT, classes=1),
    "nc5": Metric(
        lambda g: duality.nc5(g.moments, _ood(g)), "|cos| of μ and the OOD mean → 0", frozenset({"ood"}), classes=1
    ),
    "nc5_centred": Metric(
        lambda g: duality.nc5(g.moments, _ood(g), centred=True), "the same, less the global mean", frozenset({"ood"})
    ),
    "nc1_undivided": Metric(lambda g: collapse.nc1(g.moments, divide=False), "NC1 not divided by C → 0", _SCATTER),
    "equinorm_means_biased": _of_means(lambda v: geometry.equinorm(v, correction=0), "NC2 equinorm, biased Std → 0"),
    "equinorm_classifier_biased": _of_rows(
        lambda v: geometry.equinorm(v, correction=0), "NC2 equinorm, biased Std → 0"
    ),
    "equiangularity_means_biased": _of_means(
        lambda v: geometry.equiangularity(v, correction=0), "NC2 equiangularity, biased Std → 0"
    ),
    "equiangularity_classifier_biased": _of_rows(
        lambda v: geometry.equiangularity(v, correction=0), "NC2 equiangularity, biased Std → 0"
    ),
    "nc3_uncentred": Metric(
        lambda g: collapse.nc3(g.moments, g.classifier, centred=False), "NC3 of uncentred class means", _WEIGHT
    ),
    "nc3_unsquared": Metric(
        lambda g: collapse.nc3(g.moments, g.classifier, squared=False), "NC3's norm, not its square → 0", _WEIGHT
    ),
    "nc3_trace": Metric(lambda g: duality.nc3_trace(g.moments, g.classifier), "W M̄ᵀ over its trace → 0", _WEIGHT),
}


def chosen(metrics: str | Sequence[str] | None) -> list[str]:
    """The names that None and ``"default"`` (none), ``"all"``, one name or several mean.

    Raises:
        InputError: a name that is none of them, or what is no collection of names; an iterator, which gives its names
            once, is none either.
    """
    if metrics is None:
        return []
    if isinstance(metrics, str):
        if metrics in ("default", "all"):
            return list(METRICS) if metrics == "all" else []
        names = [metrics]
    elif isinstance(metrics, Collection) and not isinstance(metrics, (Tensor, np.ndarray, bytes)):
        names = list(metrics)
    else:
        raise InputError(f"expected metrics 'default', 'all', a name or a list of names, got {shown(metrics)}")
    for name in names:
        if not isinstance(name, str) or name not in METRICS:
            raise InputError(f"expected 'default', 'all' or metrics among {', '.join(METRICS)}, got {shown(name)}")
    return names


def compute_metrics(
    moments: ClassMoments,
    metrics: str | Sequence[str] | None = "all",
    *,
    weight: Float[Tensor, "c p"] | Array | None = None,
    ood_mean: Float[Tensor, " p"] | Array | None = None,
) -> dict[str, float]:
    """Later metrics from class moments alone, which may be of ``scatter="trace"`` for those that need no more.

    Args:
        moments: of the features.
        metrics: names, none for None, or ``"all"``: those that what is given, and the number of classes, allow.
        weight: (C, p) of the classifier; ood_mean: (p,) mean of out-of-distribution features.

    Returns:
        By name, in the order of the registry or of the names.

    Raises:
        InputError: an unknown name, or one whose needs are not given.

    Example:
        >>> import torch
        >>> moments = ClassMoments(2, scatter="trace")
        >>> moments.update(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
        >>> compute_metrics(moments, "variability_ratio")
        {'variability_ratio': 0.0}
    """
    names = chosen(metrics)
    require_moments(moments)
    rows = mean = None
    if weight is not None:
        rows, _ = as_classifier(weight, None, moments.num_classes, moments.means.shape[1])
    if ood_mean is not None:
        mean = as_tensor(ood_mean, "ood_mean")
    given = Given(moments, rows, mean)
    here = {"weight"} if weight is not None else set()
    here |= {"ood"} if ood_mean is not None else set()
    here |= {"scatter"} if moments.scatter == "full" else set()
    means = {"weight": "a classifier", "ood": "out-of-distribution data (ood=)", "scatter": "moments of scatter='full'"}
    asked: dict[str, Metric] = {}
    everything = isinstance(metrics, str) and metrics == "all"
    for name in names:
        metric = METRICS[name]
        missing = sorted(metric.needs - here)
        if everything:
            many = metric.most_classes is not None and moments.num_classes > metric.most_classes
            if missing or many:
                continue
        if missing:
            raise InputError(f"the metric {name!r} needs {means[missing[0]]}, got none")
        asked[name] = metric
    undefined = {name for name, metric in asked.items() if metric.classes > int(moments.present.sum())}
    if undefined:
        few = ", ".join(sorted(undefined)[:3]) + (", …" if len(undefined) > 3 else "")
        collapse.has_two_classes(moments, few)
    return {name: float("nan") if name in undefined else metric.compute(given) for name, metric in asked.items()}


def _ood(given: Given) -> Tensor:
    assert given.ood_mean is not None
    return given.ood_mean
