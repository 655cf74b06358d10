"""The bootstrap: what a report says of examples drawn again from those measured, which tells how certain it is.

A resample has as many examples of each class as there are, drawn with replacement within the class, so that no class
goes missing. Examples are passed in order, each as often as it was drawn: one pass makes the class moments of one
resample, a second one its decisions. So memory holds one p × p scatter and one block of rows, however many resamples
there are, and B of them cost 2 B passes and B reports.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuralcollapse._checks import (
    InputError,
    as_classifier,
    as_labels,
    as_tensor,
    check_features,
    check_labels,
    not_finite,
)
from neuralcollapse.measuring.decision_counts import DecisionCounts
from neuralcollapse.measuring.report import make_report
from neuralcollapse.measuring.tidy import is_constant
from neuralcollapse.metrics.registry import METRICS, chosen
from neuralcollapse.moments.class_moments import ClassMoments, Weighting

# Rows of a block of features in memory, whose repeated rows are a copy.
_BLOCK_ROWS = 8192
RESAMPLES = 200
"""How many resamples are made unless another number is asked for."""
_FEW = 10
"""Examples of a class below which intervals are said to be too narrow."""
_NONE, _NARROW = "No intervals of what depends on features", "Intervals are too narrow"
"""How the notes about few examples begin."""


@dataclass(frozen=True)
class Settings:
    """How reports of resamples are made: see :func:`neuralcollapse.measure_features` for all three."""

    weighting: Weighting = "example"
    weight_decay: float = 0.0
    metrics: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name in chosen(self.metrics):
            if "examples" in METRICS[name].needs and self.metrics != "all":
                raise InputError(f"expected metrics of class moments, {name!r} would see drawn examples twice")


@dataclass(frozen=True)
class Sample:
    """Examples of which a report is made, and made again of resamples.

    Attributes:
        labels: (n,) int64.
        blocks: gives the features of consecutive rows, from the first to the last, each time it is called.
        num_classes: C; weight: (C, p) of the classifier, or None; bias: (C,) of it, or None.
        name: what errors call it, such as its file.
    """

    labels: Tensor
    blocks: Callable[[], Iterable[Tensor]]
    num_classes: int
    weight: Tensor | None = None
    bias: Tensor | None = None
    name: str = ""

    @classmethod
    def of(cls, features: Any, labels: Any, weight: Any = None, bias: Any = None) -> Sample:
        """Of features (n, p) in memory.

        Raises:
            InputError: shapes or values that do not fit, named.
        """
        rows, truth = as_tensor(features, "features"), as_labels(labels)
        check_features(rows)
        classifier = None if weight is None else as_tensor(weight, "weight")
        if classifier is not None and classifier.ndim == 2:
            count = len(classifier)
        else:
            count = 1 + (int(truth.max()) if truth.numel() and not truth.is_floating_point() else 0)
        check_labels(truth, len(rows), count)
        offset = None
        if weight is not None:
            classifier, offset = as_classifier(weight, bias, count, rows.shape[1])
        return cls(truth.to(torch.int64).cpu(), lambda: torch.split(rows, _BLOCK_ROWS), count, classifier, offset)

    def numbers(self, settings: Settings, times: Tensor | None = None) -> dict[str, float]:
        """What a report says, by the names of its dictionary, of each example as often as ``times`` (n,) has it.

        Raises:
            InputError: features that are not finite, with the sample's name and the row.
        """
        moments, seen = ClassMoments(self.num_classes, weighting=settings.weighting), 0
        for features, labels in self._repeated(times):
            try:
                moments.update(features, labels)
            except InputError:
                if bool(features.isfinite().all()):
                    raise
                error = not_finite(features, seen)
                raise (InputError(f"{self.name}: {error}") if self.name else error) from None
            seen += len(features)
        decisions = DecisionCounts(moments, self.weight, self.bias)
        for features, labels in self._repeated(times):
            decisions.add(features, labels)
        report = make_report(
            moments,
            self.weight,
            self.bias,
            weight_decay=settings.weight_decay,
            metrics=settings.metrics,
            decisions=decisions,
        )
        return {name: value for name, value in report.numbers().items() if not is_constant(name)}

    def _repeated(self, times: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        start = 0
        for features in self.blocks():
            rows = slice(start, start + len(features))
            start = rows.stop
            if times is None:
                yield features, self.labels[rows]
            else:
                often = times[rows]
                repeated = features.repeat_interleave(often.to(features.device), dim=0)
                yield repeated, self.labels[rows].repeat_interleave(often)

    def draw(self, generator: torch.Generator) -> Tensor:
        """(n,) how often each example is drawn, as many of its class as there are."""
        order = torch.argsort(self.labels, stable=True)
        counts = torch.bincount(self.labels, minlength=self.num_classes)
        own = self.labels[order]
        first = (torch.cumsum(counts, 0) - counts)[own]
        place = (torch.rand(len(own), generator=generator, dtype=torch.float64) * counts[own]).long()
        return torch.bincount(order[first + place], minlength=len(own))


def resampled(
    samples: Sequence[Sample], settings: Settings, count: int, seed: int, progress: Callable[[float], object]
) -> Iterator[list[dict[str, float]]]:
    """The numbers of each sample, ``count`` times; samples of the same labels are resampled alike, as pairs."""
    generator = torch.Generator().manual_seed(seed)
    paired = all(torch.equal(sample.labels, samples[0].labels) for sample in samples)
    for done in range(count):
        times = samples[0].draw(generator)
        drawn = [times] + [times if paired else sample.draw(generator) for sample in samples[1:]]
        with warnings.catch_warnings():  # what is undefined in a resample leaves the number without an interval
            warnings.simplefilter("ignore", UserWarning)
            found = [sample.numbers(settings, each) for sample, each in zip(samples, drawn, strict=True)]
        progress((done + 1) / count)
        yield found


def depends_on_features(name: str) -> bool:
    """Whether a number of a report is of more than the classifier alone."""
    return "classifier" not in name and name != "nc0"


def fewest_examples(samples: Sequence[Sample]) -> int:
    """How many examples the smallest class has that any of the samples has examples of.

    Of one example, every resample has that one, so that nothing is seen of how far its class mean may be off.
    """
    counts = torch.cat([torch.bincount(sample.labels) for sample in samples])
    return int(counts[counts > 0].min())


def errors_and_biases(
    samples: Sequence[Sample], values: Mapping[str, float], draws: Mapping[str, Sequence[float]]
) -> dict[str, tuple[float, float]]:
    """By name :func:`error_and_bias`; nan where it depends on features and a class has one example.

    Args:
        samples: that were resampled; values: as measured, or their difference; draws: the same of each resample.
    """
    single = fewest_examples(samples) == 1
    return {
        name: (math.nan, math.nan) if single and depends_on_features(name) else error_and_bias(value, draws[name])
        for name, value in values.items()
    }


def few_examples(samples: Sequence[Sample]) -> list[str]:
    """A sentence on intervals that are missing, or too narrow, because a class has few examples; else nothing."""
    fewest = fewest_examples(samples)
    if fewest == 1:
        single = {int(label) for sample in samples for label in (torch.bincount(sample.labels) == 1).nonzero()}
        more = f" and {len(single) - 1} more have" if len(single) > 1 else " has"
        return [
            f"{_NONE}: class {min(single)}{more} one example, of which resampling "
            "tells nothing; leave classes of one example out, or measure more examples."
        ]
    if fewest < _FEW:
        return [
            f"{_NARROW} where classes have fewer than {_FEW} examples, and the smallest has {fewest}: "
            "measure more examples."
        ]
    return []


def about_few_examples(note: str) -> bool:
    """Whether a note of a report is one of :func:`few_examples`."""
    return note.startswith((_NONE, _NARROW))


def reach(level: float, error: float, bias: float) -> float:
    """How far an interval of this level reaches to either side of a number: z √(error² + bias²)."""
    quantile = float(torch.special.ndtri(torch.tensor(0.5 + level / 2, dtype=torch.float64)))
    return quantile * math.hypot(error, bias)


def error_and_bias(value: float, draws: Sequence[float]) -> tuple[float, float]:
    """Standard deviation of a number over resamples, and how far their mean is from it; nan where any is not finite.

    Class means of few examples make some numbers, such as NC2's, larger than the population's are. Resampling adds as
    much again, which is what the bias estimates.
    """
    if not math.isfinite(value) or not all(map(math.isfinite, draws)):
        return math.nan, math.nan
    kept = torch.tensor(draws, dtype=torch.float64)
    scale = float((kept - value).abs().max()) or 1.0
    errors = (kept - value) / scale  # whose squares are within a float's range
    return float(errors.std()) * scale, float(errors.mean()) * scale
