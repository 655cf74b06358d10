"""What a later metric is: how it is computed, from what, and what it says."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, partial

from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import shown
from neuralcollapse._errors import InputError, suggest
from neuralcollapse.metrics.duality import duality_products, principal_angles
from neuralcollapse.metrics.energy import HypersphericalEnergy, Kernel, hyperspherical_energy
from neuralcollapse.metrics.geometry import unit_rows
from neuralcollapse.metrics.present_classes import distinct_means, rows_of_present
from neuralcollapse.metrics.undefined import warn_undefined
from neuralcollapse.moments.class_moments import ClassMoments, Weighting

NEEDS = {
    "weight": "a classifier",
    "ood": "out-of-distribution data (ood=)",
    "scatter": "moments of scatter='full'",
    "class_scatter": "a scatter of each class (weighting='class')",
    "examples": "the examples themselves (nc.measure_features)",
}
"""What a metric may need beside class means, as an error names it."""


@dataclass(frozen=True)
class Given:
    """What metrics are computed from.

    Attributes:
        moments: of the features; own: the same, about their own class means where ``moments`` are about others.
        weight: (C, p) of the classifier, or None; bias: (C,) of it, or None.
        ood_mean: (p,) mean of out-of-distribution features, or None.
        examples: the features (n, p) and labels (n,) themselves, or None.
    """

    moments: ClassMoments
    own: ClassMoments
    weight: Float[Tensor, "c p"] | None = None
    bias: Float[Tensor, " c"] | None = None
    ood_mean: Float[Tensor, " p"] | None = None
    examples: tuple[Tensor, Tensor] | None = None

    @cached_property
    def means(self) -> Tensor:
        """Centred means of the classes present, at unit scale."""
        return distinct_means(self.moments)

    @cached_property
    def rows(self) -> Tensor:
        """Classifier rows of the classes present, in float32 or float64."""
        return rows_of_present(self.moments, self.classifier)

    @property
    def present_classifier(self) -> Tensor:
        """Classifier rows of the classes present, of their own type and size."""
        return self.classifier[self.moments.present.to(self.classifier.device)]

    @property
    def classifier(self) -> Tensor:
        """The weight, which the metric has asked for."""
        assert self.weight is not None
        return self.weight

    @property
    def labelled_features(self) -> tuple[Tensor, Tensor]:
        """The features and their labels, which the metric has asked for."""
        assert self.examples is not None
        return self.examples

    @cached_property
    def unit_moments(self) -> ClassMoments:
        """Moments of the features scaled to unit length each, whatever their size, about their own class means."""
        features, labels = self.labelled_features
        moments = ClassMoments(self.moments.num_classes, weighting=self.moments.weighting, scatter="trace")
        unit = unit_rows(features)
        unit[~features.any(dim=1)] = 0.0  # a feature of zero has no direction and stays where it is
        moments.update(unit, labels)
        return moments

    @cached_property
    def products(self) -> Tensor:
        """⟨w_c, μ_c − μ_G⟩, of which the mean and the variance are metrics."""
        return duality_products(self.moments, self.classifier)

    @cached_property
    def angles(self) -> Tensor:
        """Principal angles between the classifier and the class means."""
        return principal_angles(self.moments, self.classifier)

    @cached_property
    def energies(self) -> dict[tuple[Kernel, str], HypersphericalEnergy]:
        """By kernel and side, made when first asked for: mean and variation come from one pass."""
        return {}

    def energy(self, kernel: Kernel, side: str) -> HypersphericalEnergy:
        """Of the ``means`` or the ``rows``."""
        if (kernel, side) not in self.energies:
            self.energies[kernel, side] = hyperspherical_energy(getattr(self, side), kernel)
        return self.energies[kernel, side]


@dataclass(frozen=True)
class Metric:
    """A later metric.

    Attributes:
        compute: the number, from what is given.
        measures: what it measures, in a few words.
        good: its value at full collapse, or empty where that depends on C and p.
        source: author and year of the paper; the function's docstring has the whole reference.
        needs: of "weight", "ood", "scatter" (the full within-class scatter), "class_scatter" (one for each class) and
            "examples" (features and labels, not moments alone), those without which it is not defined. ``"all"``
            leaves out what needs the examples.
        most_classes: above which ``"all"`` leaves it out, because its work grows faster than the square of C.
        classes: with examples of fewer it is undefined, nan with a warning.
        examples_each: of each class present that it needs; with fewer ``"all"`` leaves it out.
        own_means: whether it makes class means of the examples itself, so that a ``reference=`` has none for it.
        of_features: whether no class mean enters it, so that a ``reference=`` leaves it as it is.
        signed: whether it can be negative; its intervals are not cut off at 0.
    """

    compute: Callable[[Given], float]
    measures: str
    good: str
    source: str
    _: KW_ONLY
    needs: frozenset[str] = frozenset()
    most_classes: int | None = None
    classes: int = 2
    examples_each: int = 1
    own_means: bool = False
    of_features: bool = False
    signed: bool = False

    @property
    def meaning(self) -> str:
        """What it measures and what it tends to."""
        return f"{self.measures} → {self.good}" if self.good else self.measures


class MetricTable(dict[str, Metric]):
    """The later metrics by name; shown as a table, and with the nearest name where one is unknown.

    Example:
        >>> import neuralcollapse as nc
        >>> nc.METRICS["cdnv"].measures, nc.METRICS["cdnv"].source
        ('class-distance normalised variance', 'Galanti 2021')
    """

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


def of_means(function: Callable[..., object], measures: str, *about: str, most_classes: int | None = None) -> Metric:
    return Metric(lambda g: float(function(g.means)), f"{measures}, class means", *about, most_classes=most_classes)  # type: ignore[arg-type]


def of_rows(function: Callable[..., object], measures: str, *about: str, most_classes: int | None = None) -> Metric:
    words, needs = f"{measures}, classifier", frozenset({"weight"})
    return Metric(lambda g: float(function(g.rows)), words, *about, needs=needs, most_classes=most_classes)  # type: ignore[arg-type]


def of_both(name: str, function: Callable[..., object], *about: str, most: int | None = None) -> dict[str, Metric]:
    """Of the class means and of the classifier, whose names replace {} in ``name``."""
    return {
        name.format("means"): of_means(function, *about, most_classes=most),
        name.format("classifier"): of_rows(function, *about, most_classes=most),
    }


def of_moments(
    function: Callable[..., float], *about: str, classes: int = 2, needs: str = "scatter", examples_each: int = 1
) -> Metric:
    return Metric(
        lambda g: function(g.moments),
        *about,
        needs=frozenset(needs.split()),
        classes=classes,
        examples_each=examples_each,
    )


def of_features(function: Callable[..., float], *about: str, needs: str = "scatter") -> Metric:
    """Of the features as a whole or class by class, about their own mean or the origin, whatever the reference."""
    return Metric(lambda g: function(g.own), *about, needs=frozenset(needs.split()), classes=1, of_features=True)


def of_unbiased(function: Callable[..., float], *about: str, needs: str) -> Metric:
    """With each class's covariance divided by n_c − 1."""
    return of_moments(partial(function, correction=1), *about, needs=needs, examples_each=2)


def of_mixed(name: str, function: Callable[..., float], measures: str, *about: str, needs: str) -> dict[str, Metric]:
    """Under the mixed weightings, Σ_W over examples and Σ_B over classes about either mean."""

    def under(weighting: Weighting, words: str) -> Metric:
        return of_moments(lambda m: function(m.reweighted(weighting)), f"{measures}, {words}", *about, needs=needs)

    return {
        f"{name}_mixed": under("mixed", "mixed weighting"),
        f"{name}_mixed_example_mean": under("mixed-example-mean", "mixed, about the examples' mean"),
    }


def of_duality(function: Callable[..., float], *about: str) -> Metric:
    return Metric(lambda g: function(g.moments, g.classifier), *about, needs=frozenset({"weight"}))


def of_energy(name: str, kernel: Kernel, part: str, measures: str, *about: str) -> dict[str, Metric]:
    def of(side: str, label: str, needs: frozenset[str]) -> Metric:
        def compute(given: Given) -> float:
            energy = given.energy(kernel, side)
            if part == "variation" and energy.mean == 0.0 and math.isnan(energy.variation):
                warn_undefined("Std/Avg of the energy", "the energy's mean is zero")
            return float(getattr(energy, part))

        # −log ‖u − u'‖ is negative beyond a distance of 1, and sign(p − 2) ‖·‖^-(p − 2) for p = 1
        signed = part == "mean" and kernel in ("log", "riesz_p_2")
        return Metric(compute, f"{measures}, {kernel} kernel, {label}", *about, needs=needs, signed=signed)

    means, rows = of("means", "class means", frozenset()), of("rows", "classifier", frozenset({"weight"}))
    return {name.format("means"): means, name.format("classifier"): rows}


def of_examples(
    compute: Callable[[Given], float],
    *about: str,
    needs: str = "examples",
    own_means: bool = False,
    signed: bool = False,
) -> Metric:
    return Metric(compute, *about, needs=frozenset(needs.split()), own_means=own_means, signed=signed)


def of_classifier(compute: Callable[[Given], float], *about: str, classes: int = 2, signed: bool = False) -> Metric:
    """Of what is given, a classifier among it."""
    return Metric(compute, *about, needs=frozenset({"weight"}), classes=classes, signed=signed)


def of_ood(function: Callable[..., float], *about: str, classes: int = 2) -> Metric:
    """Of the moments and the mean of out-of-distribution features."""
    return Metric(lambda g: function(g.moments, g.ood_mean), *about, needs=frozenset({"ood"}), classes=classes)
