"""compare: which numbers of two networks, layers or runs differ, by how much, and how certain that is."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from neuralcollapse._checks import InputError, as_count, as_number, shown
from neuralcollapse._errors import install
from neuralcollapse._files import finite
from neuralcollapse.measuring.added_later import ADDED_LATER
from neuralcollapse.measuring.bootstrap import (
    RESAMPLES,
    Sample,
    Settings,
    about_few_examples,
    errors_and_biases,
    few_examples,
    reach,
    resampled,
)
from neuralcollapse.measuring.confidence import SHARES, check_bootstrap, difference_of_shares
from neuralcollapse.measuring.history import History
from neuralcollapse.measuring.report import Report, is_printed
from neuralcollapse.measuring.tidy import is_constant, numbers_of, plain_name, setting_text
from neuralcollapse.metrics.cka import linear_cka
from neuralcollapse.moments.class_moments import Weighting
from neuralcollapse.plots.repetitions import REPETITIONS_DIFFER_IN

Progress = Callable[[float], object]
_SAME_RUNS = ("dataset", "network", "loss")
# Settings that say what data set, network and loss say; and what a line of a history says of the training alone.
_SAID_TWICE = ("model", "dataset_title", "loss_title")
_NOT_OF_THE_NETWORK = ("seconds", "learning_rate")
# What a report or a line of a history says of how and on what it was measured.
_MEASURED_ON = ("weighting", "mse.weight_decay", "num_examples", "num_classes", "classes_present")
# Examples of a report beyond which an exact interval would take more than a machine's memory.
_MOST_EXAMPLES = 10**12
# Characters of a setting in a printed comparison: two of them and a name fit 80 columns.
_WIDEST = 24


@dataclass(frozen=True)
class Difference:
    """One number of both sides.

    Attributes:
        a, b: the number of either side; of several runs their mean.
        difference: a − b.
        low, high: of the interval of the difference; nan where there is none.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float

    @property
    def differs(self) -> bool | None:
        """Whether the interval leaves zero out; None where there is no interval."""
        if math.isnan(self.low) or math.isnan(self.high):
            return None
        return not self.low <= 0.0 <= self.high


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found; ``print`` shows a table.

    Attributes:
        differences: by the number's name.
        level: of the intervals.
        method: how the intervals were made, or why there are none.
        cka: of the features of both sides, where they are of the same examples.
        settings: in which the two sides differ, by name: those of A and of B. Of runs, how they were trained; of runs
            and reports, how and on how much they were measured.
        notes: what is to be known of the runs beside their numbers, a sentence each: which of them have not ended,
            that the sides are compared at different epochs, and what not every run has measured.

    Example:
        >>> labels = torch.arange(40) % 2
        >>> features = torch.eye(3)[labels] + torch.linspace(-1, 1, 120).view(40, 3)
        >>> round(compare((features, labels), (2 * features, labels), resamples=2).cka, 6)
        1.0
    """

    differences: dict[str, Difference]
    level: float
    method: str
    cka: float | None = None
    settings: dict[str, tuple[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def differing(self) -> list[str]:
        """The names of the numbers that differ at this level."""
        return [name for name, each in self.differences.items() if each.differs]

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that ``json.dumps`` takes; non-finite numbers become "inf", "-inf" or "nan"."""
        rows = {name: {**asdict(each), "differs": each.differs} for name, each in self.differences.items()}
        found = {"level": self.level, "method": self.method, "cka": self.cka, "differences": rows}
        found |= {"settings": {name: list(pair) for name, pair in self.settings.items()}, "notes": list(self.notes)}
        return finite(found)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        lines = [f"{'':<30}{'A':>9}{'B':>9}{'A − B':>9} {self.level:.0%} interval"]
        for name, each in self.differences.items():
            interval = "–" if each.differs is None else f"[{each.low:.2g}, {each.high:.2g}]"
            mark = " *" if each.differs else ""
            lines.append(f"{name:<30}{each.a:>9.3g}{each.b:>9.3g}{each.difference:>9.2g} {interval}{mark}")
        tested = [each.differs for each in self.differences.values() if each.differs is not None]
        lines.append("")
        if tested:
            chance = (1 - self.level) * len(tested)
            lines.append(f"* {sum(tested)} of {len(tested)} numbers differ; by chance alone {chance:.2g} would.")
        for sentence in (self.method, *self.notes):
            lines += textwrap.wrap(sentence, 80)
        if self.settings:
            lines.append("Settings that differ:")
            for name, pair in self.settings.items():
                one, other = (text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…" for text in pair)
                lines.append(f"  {name.replace('_', ' '):<28}{one:>{_WIDEST}}{other:>{_WIDEST}}".rstrip())
        if self.cka is not None:
            lines.append(f"Linear CKA of the features, if both are of the same examples: {self.cka:.4f}.")
        return "\n".join(lines)


def compare(
    a: Any,
    b: Any,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    weighting: Weighting = "example",
    weight_decay: float = 0.0,
    metrics: str | Sequence[str] | None = None,
    progress: Progress = lambda share: None,
) -> Comparison:
    """Compare two networks, layers, reports or sets of runs, number by number.

    - Features: ``(features, labels)``, with the classifier's weight and bias behind them where there is one, as
      :func:`neuralcollapse.collect_features` gives them for any layer. Intervals come from the bootstrap over examples,
      see :func:`neuralcollapse.confidence_intervals`. Where the labels of both sides agree in their
      order, examples are drawn in pairs, so that what two networks share on the same data does not blur the difference;
      for other data it does no harm. With fewer than ten examples in a class intervals are too narrow, and where a
      class has one example, what depends on features has none; ``method`` says so.
    - :class:`neuralcollapse.Report`, or the dictionary of one: intervals need that both were measured with
      ``confidence=``; the two are then taken to be of different examples.
    - :class:`neuralcollapse.History`: the last epoch of its runs. Of at least two seeds on each side, Welch's interval
      of the difference of means; from one run nothing can be said.

    Where none of the examples is mistaken, none is in any resample either. So the interval of the difference of two
    shares of examples (accuracy, nearest_mean_accuracy, nc4_mismatch) is never narrower than that of two binomials,
    whose exact intervals are squared and added; it ends at −1 and 1. Where examples are drawn in pairs, the binomials
    are those of which it holds on one side alone: as many as the difference shows, for no others are counted.

    Args:
        a, b: two of one kind.
        level: of the intervals, each for its own number.
        resamples, seed: of the bootstrap.
        weighting, weight_decay, metrics: of the reports on features.
        progress: is called with the share that is done.

    Raises:
        InputError: sides of two kinds, or of none of these; runs of different networks on one side.

    Source: Efron & Tibshirani (1993), An introduction to the bootstrap, Chapter 16; Clopper & Pearson (1934), The use
    of confidence or fiducial limits illustrated in the case of the binomial; Newcombe (1998), Interval estimation for
    the difference between independent proportions: comparison of eleven methods, Method 10; Welch (1947), The
    generalization of Student's problem when several different population variances are involved.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(200) % 2
        >>> noise = torch.randn(200, 4, generator=generator)
        >>> wide, narrow = ((3 * torch.eye(4)[labels] + size * noise, labels) for size in (1.0, 0.5))
        >>> compare(wide, narrow, resamples=50).differences["nc1"].differs
        True
    """
    level, resamples, seed = check_bootstrap(level, resamples, seed)
    sides = [_side(each, name) for each, name in ((a, "A"), (b, "B"))]
    if isinstance(sides[0], Sample) and isinstance(sides[1], Sample):
        settings = Settings(weighting, weight_decay, metrics)
        return _of_samples(sides[0], sides[1], settings, level, resamples, seed, progress)
    if isinstance(sides[0], Mapping) and isinstance(sides[1], Mapping):
        return _of_reports(sides[0], sides[1], level)
    if isinstance(sides[0], History) and isinstance(sides[1], History):
        return _of_histories(sides[0], sides[1], level)
    raise InputError(f"expected two of one kind, got {_kind(sides[0])} and {_kind(sides[1])}")


def _side(given: Any, name: str) -> Sample | Mapping[str, Any] | History:
    if isinstance(given, (Sample, History)) or is_printed(given):
        return given
    if isinstance(given, Report):
        return given.to_dict()
    if isinstance(given, (tuple, list)) and 2 <= len(given) <= 4:
        try:
            return replace(Sample.of(*given), name=name)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
    raise InputError(f"expected (features, labels), a Report or a History to compare, got {shown(given)}")


def _kind(side: object) -> str:
    return {Sample: "features", History: "runs"}.get(type(side), "a report")


def _of_samples(
    a: Sample, b: Sample, settings: Settings, level: float, resamples: int, seed: int, progress: Progress
) -> Comparison:
    values = a.numbers(settings), b.numbers(settings)
    names = [name for name in values[0] if name in values[1]]
    draws: dict[str, list[float]] = {name: [] for name in names}
    for drawn_a, drawn_b in resampled([a, b], settings, resamples, seed, progress):
        for name in names:
            draws[name].append(drawn_a[name] - drawn_b[name])
    same, sizes = torch.equal(a.labels, b.labels), [len(a.labels), len(b.labels)]
    differences = {name: values[0][name] - values[1][name] for name in names}
    found, alike = {}, []
    for name, (error, bias) in errors_and_biases([a, b], differences, draws).items():
        difference, width = differences[name], reach(level, error, bias)
        bounds = difference - width, difference + width
        if name in SHARES and math.isfinite(width):
            one, other = (round(side[name] * size) for side, size in zip(values, sizes, strict=True))
            if same:  # examples of which it holds on one side alone: as many as the difference shows
                one, other = max(one - other, 0), max(other - one, 0)
            exact = difference_of_shares((one, sizes[0]), (other, sizes[1]), level)
            bounds = _widened(bounds, exact)
            alike += [name] if width == 0.0 else []
        found[name] = Difference(values[0][name], values[1][name], difference, *bounds)
    how = "drawn in pairs, for the labels of both sides agree" if same else "each side by itself"
    made = f"Bootstrap over examples, {resamples} resamples within classes, {how}."
    method = " ".join([made, *_all_alike(alike), *few_examples([a, b])])
    cka = linear_cka(*(torch.cat(list(side.blocks())) for side in (a, b))) if same else None
    return Comparison(found, level, method, cka)


def _of_reports(a: Mapping[str, Any], b: Mapping[str, Any], level: float) -> Comparison:
    values = [{name: value for name, value in numbers_of(side).items() if _compared(name)} for side in (a, b)]
    intervals = [_errors_of(side) for side in (a, b)]
    found, alike = {}, []
    for name in (name for name in values[0] if name in values[1]):
        one, other = values[0][name], values[1][name]
        low = high = math.nan
        if all(name in each for each in intervals):
            (first, bias), (second, other_bias) = (each[name] for each in intervals)
            width = reach(level, math.hypot(first, second), bias - other_bias)
            low, high = one - other - width, one - other + width
            if name in SHARES and math.isfinite(width):
                exact = difference_of_shares(_successes(a, name, one), _successes(b, name, other), level)
                low, high = _widened((low, high), exact)
                alike += [name] if width == 0.0 else []
        found[name] = Difference(one, other, one - other, low, high)
    settings = _differing([[_measured_on(a)], [_measured_on(b)]])
    if all(intervals):
        method = "From the standard errors of both reports, taken to be of different examples."
        notes = [note for side in (a, b) for note in _notes_of(side) if about_few_examples(note)]
        method = " ".join([method, *_all_alike(alike), *dict.fromkeys(notes)])
    else:
        without = "either report" if not any(intervals) else "one report"
        again = "Measure with confidence= (--confidence), or compare the features themselves"
        method = f"No intervals: {without} has none. {again}."
    return Comparison(found, level, method, settings=settings)


def _errors_of(report: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Standard error and bias of each number of a report that has intervals."""
    intervals = report.get("confidence") or {}
    found = {}
    for name, entry in intervals.items() if isinstance(intervals, Mapping) else ():
        parts = numbers_of(entry) if isinstance(entry, Mapping) else {}
        if not {"error", "bias"} <= parts.keys():
            raise InputError(f"expected error and bias in the interval of {shown(name)}, got {shown(entry)}")
        found[str(name)] = parts["error"], parts["bias"]
    return found


def _successes(report: Mapping[str, Any], name: str, share: float) -> tuple[int, int]:
    """Of how many examples what a share tells is true, and of how many in all."""
    count = as_count(report.get("num_examples"), "num_examples", most=_MOST_EXAMPLES)
    return round(as_number(share, f"value of {name}", most=1.0) * count), count


def _widened(interval: tuple[float, float], exact: tuple[float, float]) -> tuple[float, float]:
    """The interval of a difference of shares, made to hold the exact one and to end at −1 and 1."""
    return max(min(interval[0], exact[0]), -1.0), min(max(interval[1], exact[1]), 1.0)


def _all_alike(names: Sequence[str]) -> list[str]:
    """A sentence on the shares of which resamples tell nothing; or nothing."""
    said = f"Interval of {', '.join(names)}: from the binomial's exact ones, for all resamples agree."
    return [said] if names else []


def _notes_of(report: Mapping[str, Any]) -> list[str]:
    notes = report.get("notes")
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, (list, tuple)) else []


def _compared(name: str) -> bool:
    return not is_constant(name) and not plain_name(name).startswith("snr.")


def _of_network(name: str) -> bool:
    return _compared(name) and plain_name(name) not in _NOT_OF_THE_NETWORK


def _of_histories(a: History, b: History, level: float) -> Comparison:
    sides = [_last_numbers(history, name) for history, name in ((a, "A"), (b, "B"))]
    names = [name for name in sides[0][0] if all(name in run for side in sides for run in side)]
    if not names:
        got = " and ".join(", ".join(list(side[0])[:4]) or "none" for side in sides)
        raise InputError(f"expected numbers that all runs of both sides have at their last epoch, got {got}")
    several, found = min(map(len, sides)) >= 2, {}
    for name in names:
        columns = [torch.tensor([run[name] for run in side], dtype=torch.float64) for side in sides]
        means = [float(column.mean()) for column in columns]
        low, high = _welch(columns[0], columns[1], level) if several else (math.nan, math.nan)
        found[name] = Difference(means[0], means[1], means[0] - means[1], low, high)
    counts = f"{len(sides[0])} and {len(sides[1])} runs"
    if several:
        method = f"Welch's interval of the means of {counts}, each at its last epoch."
    else:
        method = f"No intervals: of {counts} there is no spread. Train several seeds, or compare features of one epoch."
    notes = *_not_at_their_end(a, b), *_other_epochs(a, b), *_left_out(sides, names)
    return Comparison(found, level, method, settings=_differing_settings(a, b), notes=notes)


def _not_at_their_end(a: History, b: History) -> list[str]:
    """A sentence on the runs that have not reached their end, in the words of the captions of figures; or nothing."""
    which: dict[str, list[str]] = {}
    for side, runs in (("A", a.run_records), ("B", b.run_records)):
        for run in runs:
            if run.unfinished:
                which.setdefault(run.unfinished, []).append(side if len(runs) == 1 else f"{side} seed {run.seed}")
    said = "; ".join(f"{why} ({', '.join(named)})" for why, named in which.items())
    return [f"Not at their end: {said}."] if said else []


def _other_epochs(a: History, b: History) -> list[str]:
    """A sentence on the last measured epochs of both sides, where they are not all the same; or nothing."""
    sides = [sorted({run.last["epoch"] for run in each.run_records if run.records}) for each in (a, b)]
    if sides[0] == sides[1] and len(sides[0]) == 1:
        return []
    said = [f"{' and '.join(map(str, epochs))} ({side})" for epochs, side in zip(sides, "AB", strict=True)]
    return [f"Compared at different epochs: {', '.join(said)}."]


def _left_out(sides: Sequence[Sequence[Mapping[str, float]]], names: Sequence[str]) -> list[str]:
    """A sentence on what some of the runs have not measured; or nothing."""
    lacking = list(dict.fromkeys(name for side in sides for run in side for name in run if name not in names))
    more = f" and {len(lacking) - 4} more" if len(lacking) > 4 else ""
    return [f"Not measured in every run, and left out: {', '.join(lacking[:4])}{more}."] if lacking else []


def _differing_settings(a: History, b: History) -> dict[str, tuple[str, str]]:
    """What both sides say differently: data set, network, loss, and settings that make runs no repetitions."""
    sides = [
        [
            {**_measured_on(run.last), **run.settings, **{name: getattr(run, name) for name in _SAME_RUNS}}
            for run in runs
        ]
        for runs in (a.run_records, b.run_records)
    ]
    left_out = [*REPETITIONS_DIFFER_IN, *_SAID_TWICE]
    if all("measured_weight_decay" in run for side in sides for run in side):
        left_out.append("mse.weight_decay")  # of which the setting says the same
    found = _differing(sides, complete=all("model" in run for side in sides for run in side))
    return {name: pair for name, pair in found.items() if name not in left_out}


def _differing(sides: Sequence[Sequence[Mapping[str, Any]]], complete: bool = False) -> dict[str, tuple[str, str]]:
    """The settings in which two sides differ, each of one run or several, as texts.

    Args:
        complete: whether they are of run directories, where a setting that is not there has its default; of others,
            nobody knows, and settings that are on one side only are left out.
    """
    found = {}
    for name in dict.fromkeys(name for side in sides for run in side for name in run):
        by_default = complete and name not in _MEASURED_ON
        if not by_default and not all(any(name in run for run in side) for side in sides):
            continue
        have = [[run for run in side if by_default or name in run] for side in sides]
        meant = [{setting_text(run.get(name, ADDED_LATER.get(name))) for run in side} for side in have]
        if meant[0] != meant[1]:
            said = [sorted({setting_text(run.get(name, ADDED_LATER.get(name))) for run in side}) for side in have]
            found[name] = " or ".join(said[0]), " or ".join(said[1])
    return found


def _measured_on(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in _MEASURED_ON if record.get(name) is not None}


def _last_numbers(history: History, side: str) -> list[dict[str, float]]:
    runs = history.run_records
    for label in _SAME_RUNS:
        values = sorted({str(getattr(run, label)) for run in runs})
        if len(values) > 1:
            raise InputError(
                f"expected runs that differ in their seed alone, {side} has {label} {' and '.join(values)}"
            )
    last = [numbers_of(run.last) for run in runs if run.records]
    if not last:
        raise InputError(f"expected runs with a measured epoch, {side} has none: choose a layer that its runs have")
    chosen = set(history.metrics)  # those of History.select
    return [{name: v for name, v in run.items() if name in chosen and _of_network(name)} for run in last]


def _welch(a: torch.Tensor, b: torch.Tensor, level: float) -> tuple[float, float]:
    """The interval of the difference of the means of two samples of unequal variance."""
    try:
        from scipy.special import stdtrit
    except ImportError:
        raise InputError(f"intervals from several runs need SciPy: {install('scipy')}") from None
    # squares of numbers near the ends of a float's range would leave it
    scale = max(float(side.abs().max()) for side in (a, b)) or 1.0
    a, b = a / scale, b / scale
    parts = [float(side.var()) / len(side) for side in (a, b)]
    difference, total = float(a.mean() - b.mean()), sum(parts)
    if not math.isfinite(total) or not math.isfinite(difference):
        return math.nan, math.nan
    if total == 0.0:
        return difference * scale, difference * scale
    shares = [part / total for part in parts]
    freedom = 1 / sum(share**2 / (len(side) - 1) for share, side in zip(shares, (a, b), strict=True))
    reach = float(stdtrit(freedom, 0.5 + level / 2)) * math.sqrt(total)
    return (difference - reach) * scale, (difference + reach) * scale
