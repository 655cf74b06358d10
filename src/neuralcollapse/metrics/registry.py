"""The later metrics by name: one entry each, so that adding one adds it to every report and integration."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, partial

import numpy as np
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import Array, as_classifier, as_tensor, shown
from neuralcollapse._errors import InputError, suggest
from neuralcollapse.metrics import duality, frames, geometry, nc1_to_nc4, variability
from neuralcollapse.metrics.undefined import one_warning, warn_undefined
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
        return nc1_to_nc4.distinct_means(self.moments)

    @cached_property
    def rows(self) -> Tensor:
        """Classifier rows of the classes present, in float32 or float64."""
        return nc1_to_nc4.rows_of_present(self.moments, self.classifier)

    @property
    def classifier(self) -> Tensor:
        """The weight, which the metric has asked for."""
        assert self.weight is not None
        return self.weight

    @property
    def ood(self) -> Tensor:
        """The mean of out-of-distribution features, which the metric has asked for."""
        assert self.ood_mean is not None
        return self.ood_mean

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
    """A later metric.

    Attributes:
        compute: the number, from what is given.
        measures: what it measures, in a few words.
        good: its value at full collapse, or empty where that depends on C and p.
        source: author and year of the paper; the function's docstring has the whole reference.
        needs: of "weight", "ood" and "scatter" (the full within-class scatter), those without which it is not defined.
        most_classes: above which ``"all"`` leaves it out, because its work grows faster than the square of C.
        classes: with examples of fewer it is undefined, nan with a warning.
    """

    compute: Callable[[Given], float]
    measures: str
    good: str
    source: str
    _: KW_ONLY
    needs: frozenset[str] = frozenset()
    most_classes: int | None = None
    classes: int = 2

    @property
    def meaning(self) -> str:
        """What it measures and what it tends to."""
        return f"{self.measures} → {self.good}" if self.good else self.measures


class MetricTable(dict[str, Metric]):
    """The later metrics by name; shown as a table, and with the nearest name where one is unknown."""

    def __missing__(self, name: object) -> Metric:
        known = suggest(name, self) or f"; expected one of {', '.join(self)}"
        raise InputError(f"unknown metric {shown(name)}{known}")

    def __repr__(self) -> str:
        rows = [("name", "measures", "good", "source")]
        rows += [(name, metric.measures, metric.good or "–", metric.source) for name, metric in self.items()]
        # a combining mark, as in M̄, takes no place of its own
        marks = [[sum(map(bool, map(unicodedata.combining, cell))) for cell in row] for row in rows]
        widths = [max(len(row[i]) - mark[i] for row, mark in zip(rows, marks, strict=True)) for i in range(4)]
        padded = [[row[i].ljust(widths[i] + mark[i]) for i in range(4)] for row, mark in zip(rows, marks, strict=True)]
        return "\n".join("  ".join(cells).rstrip() for cells in padded)


_SCATTER, _WEIGHT, _OOD = frozenset({"scatter"}), frozenset({"weight"}), frozenset({"ood"})


def _of_means(function: Callable[..., object], measures: str, *about: str, most_classes: int | None = None) -> Metric:
    return Metric(lambda g: float(function(g.means)), f"{measures}, class means", *about, most_classes=most_classes)  # type: ignore[arg-type]


def _of_rows(function: Callable[..., object], measures: str, *about: str, most_classes: int | None = None) -> Metric:
    return Metric(
        lambda g: float(function(g.rows)),  # type: ignore[arg-type]
        f"{measures}, classifier",
        *about,
        needs=_WEIGHT,
        most_classes=most_classes,
    )


def _of_both(name: str, function: Callable[..., object], *about: str, most: int | None = None) -> dict[str, Metric]:
    """Of the class means and of the classifier, whose names replace {} in ``name``."""
    return {
        name.format("means"): _of_means(function, *about, most_classes=most),
        name.format("classifier"): _of_rows(function, *about, most_classes=most),
    }


def _of_moments(function: Callable[..., float], *about: str, classes: int = 2, scatter: bool = True) -> Metric:
    needs = _SCATTER if scatter else frozenset()
    return Metric(lambda g: function(g.moments), *about, needs=needs, classes=classes)


def _of_duality(function: Callable[..., float], *about: str) -> Metric:
    return Metric(lambda g: function(g.moments, g.classifier), *about, needs=_WEIGHT)


def _of_energy(name: str, kernel: str, part: str, measures: str, *about: str) -> dict[str, Metric]:
    def of(side: str, label: str, needs: frozenset[str]) -> Metric:
        words = f"{measures}, {kernel} kernel, {label}"
        return Metric(lambda g: float(getattr(g.energy(kernel, side), part)), words, *about, needs=needs)

    means, rows = of("means", "class means", frozenset()), of("rows", "classifier", _WEIGHT)
    return {name.format("means"): means, name.format("classifier"): rows}


_cdnv, _ratio, _vci = variability.cdnv, variability.variability_ratio, variability.variability_collapse_index
_equinorm, _equiangularity = (partial(f, correction=0) for f in (geometry.equinorm, geometry.equiangularity))

# name: how it is computed, what it measures, its value at full collapse, its source
METRICS = MetricTable(
    {
        "cdnv": _of_moments(_cdnv, "class-distance normalised variance", "0", "Galanti 2021", scatter=False),
        "variability_ratio": _of_moments(_ratio, "tr Σ_W / tr Σ_B", "0", "Tirer 2023", scatter=False),
        "variability_collapse_index": _of_moments(_vci, "1 − tr(Σ_T⁺Σ_B)/rank", "0", "Xu 2023"),
        "numerical_rank": _of_moments(variability.numerical_rank, "tr Σ_T/‖Σ_T‖", "C−1", "Rudelson 2007", classes=1),
        "effective_rank": _of_moments(variability.effective_rank, "entropy rank", "C−1", "Roy 2007", classes=1),
        **_of_both("etf_error_{}", frames.etf_error, "distance of the Gram matrix from an ETF's", "0", "Zhu 2021"),
        **_of_both("etf_distance_{}", frames.etf_distance, "distance from the nearest ETF", "0", "Schönemann 1966"),
        **_of_energy("gnc2_log_{}", "log", "mean", "hyperspherical energy", "", "Liu 2023"),
        **_of_energy("gnc2_log_variation_{}", "log", "variation", "Std/Avg of the energy", "0", "Wu 2024"),
        **_of_energy("gnc2_riesz_{}", "riesz", "mean", "hyperspherical energy", "", "Liu 2023"),
        **_of_energy("gnc2_riesz_variation_{}", "riesz", "variation", "Std/Avg of the energy", "0", "Wu 2024"),
        **_of_both("margin_{}", frames.one_vs_rest_margin, "one-vs-rest margin", "C/(C−1)", "Jiang 2024", most=128),
        **_of_both("frame_error_{}", frames.frame_error, "distance from a tight frame", "0", "Benedetto 2003"),
        **_of_both("welch_excess_{}", frames.welch_excess, "coherence above Welch's bound (C > p)", "", "Welch 1974"),
        "duality_error": _of_duality(duality.duality_error, "W M̄ᵀ against a simplex", "0", "Zhou 2022"),
        "uniform_duality": _of_duality(duality.uniform_duality, "UNC3, Std/Avg of cos(w, μ̄)", "0", "Wu 2024"),
        "alignment_distance": _of_duality(duality.alignment_distance, "GNC3, ‖unit w − unit μ̄‖", "0", "Jiang 2024"),
        "nc0": Metric(lambda g: duality.nc0(g.classifier), "‖Wᵀ1‖", "0", "Zhu 2021", needs=_WEIGHT, classes=1),
        "nc5": Metric(
            lambda g: duality.nc5(g.moments, g.ood),
            "|cos| of μ and the OOD mean",
            "0",
            "Ammar 2024",
            needs=_OOD,
            classes=1,
        ),
        "nc5_centred": Metric(
            lambda g: duality.nc5(g.moments, g.ood, centred=True),
            "NC5 less the global mean",
            "",
            "Ammar 2024",
            needs=_OOD,
        ),
        "nc1_undivided": _of_moments(partial(nc1_to_nc4.nc1, divide=False), "NC1 not divided by C", "0", "Papyan 2020"),
        **_of_both("equinorm_{}_biased", _equinorm, "NC2 equinorm, biased Std", "0", "Papyan 2020"),
        **_of_both("equiangularity_{}_biased", _equiangularity, "NC2 equiangularity, biased Std", "0", "Papyan 2020"),
        "nc3_uncentred": _of_duality(partial(nc1_to_nc4.nc3, centred=False), "NC3 of μ, not μ̄", "", "Papyan 2020"),
        "nc3_unsquared": _of_duality(partial(nc1_to_nc4.nc3, squared=False), "√NC3", "0", "Papyan 2020"),
        "nc3_trace": _of_duality(duality.nc3_trace, "W M̄ᵀ over its trace", "0", "Zhou 2022"),
    }
)


def chosen(metrics: str | Sequence[str] | None) -> list[str]:
    """The names of the metrics asked for: none for None (or ``"default"``), every one for ``"all"``.

    Raises:
        InputError: an unknown name, or something other than names; an iterator gives them only once and is refused.
    """
    if metrics is None or (isinstance(metrics, str) and metrics == "default"):
        return []
    if isinstance(metrics, str):
        names = list(METRICS) if metrics == "all" else [metrics]
    elif isinstance(metrics, Collection) and not isinstance(metrics, (Tensor, np.ndarray, bytes)):
        names = list(metrics)
    else:
        raise InputError(f"expected metrics None, 'all', a name or a list of names, got {shown(metrics)}")
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"expected names of metrics, got {shown(name)} among them")
        if name not in METRICS:
            known = suggest(name, ["all", *METRICS])
            raise InputError(f"unknown metric {name!r}{known}; expected 'all' or names among {', '.join(METRICS)}")
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
        metrics: names, or ``"all"``, which leaves out what the moments, the classifier or the number of classes do not
            allow. None gives none, as in a report.
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
    with one_warning():
        undefined = [name for name, metric in asked.items() if metric.classes > int(moments.present.sum())]
        for name in undefined:
            warn_undefined(name, "all examples are of one class")
        return {name: float("nan") if name in undefined else metric.compute(given) for name, metric in asked.items()}
