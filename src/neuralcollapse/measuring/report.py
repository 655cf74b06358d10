"""Report: everything one measurement says, with names, as a table and as JSON-ready numbers."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from neuralcollapse._checks import InputError, as_classifier, shown
from neuralcollapse._errors import suggest
from neuralcollapse._files import finite
from neuralcollapse._html import Html, curve, escaped, folded, listing, paragraph, table
from neuralcollapse._linalg import norm
from neuralcollapse.measuring.decision_counts import DecisionCounts
from neuralcollapse.measuring.interval import Interval
from neuralcollapse.measuring.per_class import ClassReport, ClassReports, check_class_names, class_reports, printable
from neuralcollapse.measuring.reading import Reading, Sentence, reading
from neuralcollapse.measuring.tidy import UNLABELLED, tidy_table
from neuralcollapse.metrics.mse import MSEDecomposition, decompose_mse
from neuralcollapse.metrics.nc1_to_nc4 import NC2, between_whitener, nc1, nc1_from_whitener, nc2, nc3
from neuralcollapse.metrics.rank import given_rounding, given_type
from neuralcollapse.metrics.registry import METRICS, compute_metrics
from neuralcollapse.metrics.signal_to_noise import SNRSpectrum, snr_singular_values
from neuralcollapse.metrics.undefined import one_warning
from neuralcollapse.moments.class_moments import ClassMoments, Weighting, require_moments
from neuralcollapse.plots import require_matplotlib

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


NO_CLASSIFIER = "no classifier: what needs one is not measured"
# How a report says what counts alike.
WEIGHTING_WORDS: dict[Weighting, str] = {
    "example": "each example counts alike",
    "class": "each class counts alike",
    "mixed": "mixed weighting: Σ_W over examples, Σ_B over classes",
    "mixed-example-mean": "mixed weighting: Σ_W over examples, Σ_B over classes about the examples' mean",
}
# Of rounding that is this share of NC1 a report tells.
_MUCH = 0.1
# The entries of a report's dictionary that hold words; text in any other entry is a number that is not finite.
_WORDS = ("layer", "weighting", "snr_space")


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """How collapsed a last layer is.

    What needs a classifier is None where there is none. Later metrics that were asked for are attributes too:
    ``report.nc5`` is ``report.extra["nc5"]``. Two reports are equal if all they say is, NaN being equal to NaN.

    Attributes:
        layer: which layer, as ``model.named_modules()`` has it, or "features given" where there was no network.
        notes: what must be known to read the numbers, one sentence each.
        nc1, nc2, nc3, nc4_mismatch: see :func:`neuralcollapse.nc1` and its neighbours; all tend to zero.
        mse: the decomposition of the MSE loss.
        snr: singular values of the signal-to-noise matrix; they grow without bound.
        accuracy: share of examples that the network classifies correctly; nearest_mean_accuracy: and the nearest class
            mean. Both, and NC4, are None where only moments were given.
        extra: the later metrics asked for, by name; ``nc.METRICS`` lists them.
        per_class: the numbers of each class with examples; print it, or read ``report.per_class["cat"].accuracy``.
        moments: of the features, to merge, to save, or to measure another split about.
        confidence: intervals of the numbers by name, where ``measure_features(confidence=…)`` was asked for them.

    Example:
        >>> import torch
        >>> import neuralcollapse as nc
        >>> features, labels = torch.tensor([[2.0], [0.0], [-2.0], [0.0]]), torch.tensor([0, 0, 1, 1])
        >>> report = nc.measure_features(features, labels, weight=[[1.0], [-1.0]])
        >>> round(report.nc1, 6), report.nc3, report.num_examples
        (0.5, 0.0, 4)
    """

    layer: str
    notes: tuple[str, ...]
    num_examples: int
    num_classes: int
    classes_present: int
    dim: int
    weighting: Weighting
    accuracy: float | None
    nearest_mean_accuracy: float | None
    nc1: float
    nc2: NC2
    nc3: float | None
    nc4_mismatch: float | None
    mse: MSEDecomposition
    snr: SNRSpectrum
    extra: dict[str, float]
    per_class: ClassReports
    moments: ClassMoments
    confidence: dict[str, Interval] | None = None

    def __getattr__(self, name: str) -> float:
        extra: dict[str, float] = self.__dict__.get("extra", {})
        if name in extra:
            return extra[name]
        if name.startswith("_"):
            raise AttributeError(name)
        if name in METRICS:
            ood = " and ood=" if "ood" in METRICS[name].needs else ""
            raise AttributeError(f"{name!r} was not measured: ask for it with metrics={name!r}{ood}")
        known = [*(each.name for each in fields(self)), "means", "global_mean", *METRICS]
        raise AttributeError(f"a Report has no {name!r}{suggest(name, known)}")

    def __eq__(self, other: object) -> bool:
        return _same(self, other) if isinstance(other, Report) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        numbers = f"nc1={formatted(self.nc1)}, nc3={formatted(self.nc3)}, nc4_mismatch={formatted(self.nc4_mismatch)}"
        return f"Report(layer={self.layer!r}, num_examples={self.num_examples}, {numbers})"

    def __getitem__(self, name: str) -> Any:
        """An entry of :meth:`to_dict` by its name, as tables and logs have it: ``report["nc2.equinorm_means"]``.

        Numbers are floats, also those that are not finite, ``snr`` is a list of them; None is what was not measured.

        Raises:
            InputError: no such name.
        """
        known = self.to_dict()
        if name in known:
            return self.numbers().get(name, known[name])
        if isinstance(name, str) and name in METRICS:
            raise InputError(f"{name!r} was not measured: ask for it with metrics={name!r}")
        raise InputError(f"a Report has no number {shown(name)}{suggest(str(name), known)}; report.numbers() has all")

    __iter__ = None  # what has names is not a sequence

    @property
    def means(self) -> Tensor:
        """(C, p) class means."""
        return self.moments.means

    @property
    def global_mean(self) -> Tensor:
        """(p,) μ_G."""
        return self.moments.global_mean

    def to_dict(self) -> dict[str, object]:
        """A flat dictionary that ``json.dumps`` takes; non-finite numbers become "inf", "-inf" or "nan"."""
        names = ("layer", "notes", "num_examples", "num_classes", "classes_present", "dim", "weighting")
        flat = {name: getattr(self, name) for name in (*names, "accuracy", "nearest_mean_accuracy", "nc1")}
        flat |= {f"nc2.{name}": value for name, value in asdict(self.nc2).items()}
        flat |= {"nc3": self.nc3, "nc4_mismatch": self.nc4_mismatch}
        flat |= {f"mse.{name}": getattr(self.mse, name) for name in ("total", "nc1", "nc23", "ls", "ls_perp")}
        flat |= {"mse.weight_ls_norm": norm(self.mse.weight_ls), "mse.weight_decay": self.mse.weight_decay}
        flat |= {"snr": self.snr.singular_values.tolist(), "snr_space": self.snr.space, **self.extra}
        if self.confidence is not None:
            flat["confidence"] = {name: asdict(interval) for name, interval in self.confidence.items()}
        return finite(flat)  # type: ignore[no-any-return]

    def numbers(self) -> dict[str, float]:
        """The entries of ``to_dict`` that are one number, which may not be finite, for loggers of scalars."""
        return {
            name: float(value)
            for name, value in self.to_dict().items()
            if isinstance(value, (int, float)) or (isinstance(value, str) and name not in _WORDS)
        }

    def to_frame(self) -> pd.DataFrame:
        """The numbers as a tidy table with the columns of :meth:`neuralcollapse.History.to_frame`, a row for each.

        Run and epoch are missing. The singular values `snr` have a row each: `snr.1`, `snr.2`, ….

        Raises:
            InputError: pandas is not installed.
        """
        return tidy_table([(UNLABELLED, self.to_dict())])

    def reading(self) -> Reading:
        """What the numbers say, in words; see :func:`neuralcollapse.measuring.reading.reading`."""
        said = reading(self.to_dict()).sentences
        worst = self.per_class.least_collapsed(1)
        if len(self.per_class) > 2 and worst[0].nc1 is not None:  # without NC1 by class the order is another
            said += (self._least_collapsed(worst[0]),)
        return Reading(said)

    def _least_collapsed(self, worst: ClassReport) -> Sentence:
        share = ""
        if worst.nc1_share is not None and 0.0 < self.nc1 < math.inf:
            of_examples = worst.examples / self.num_examples
            share = f", with {worst.nc1_share / self.nc1:.1%} of NC1 and {of_examples:.1%} of the examples"
        near = "" if worst.nearest is None else f"; the class nearest to it is {printable(worst.nearest)}"
        return Sentence("classes", "none", f"The least collapsed class is {printable(worst.name)}{share}{near}.")

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw NC1 to NC4 and L⊥_LS / L, each as a dot on one logarithmic axis; collapse is to the left.

        Args:
            ax: where; by default pyplot's current axes.

        Raises:
            InputError: matplotlib or pandas is not installed.
        """
        require_matplotlib()
        from neuralcollapse.plots.layers import numbers
        from neuralcollapse.plots.quantities import with_derived

        return numbers(with_derived(self.to_frame()), ax)

    def __str__(self) -> str:
        lines = [*textwrap.wrap(self._title(), 80), f"Layer: {self.layer}"]
        for rows in self._rows():
            lines.append("")
            for name, value, meaning in rows:
                lines += _row(f"  {name:<18}{value:>21}  ", meaning)
        if self.extra:
            lines.append("")
            for name, number in self.extra.items():
                lines += _row(f"  {name:<33}{number:>9.4g}   ", METRICS[name].meaning)
        lines.append("")
        for sentence in self.reading():
            lines += textwrap.wrap(str(sentence), 80, initial_indent="  ", subsequent_indent="    ")
        if self.confidence:
            level = next(iter(self.confidence.values())).level
            lines += ["", f"Intervals at {level:.0%}, by the bootstrap over examples:"]
            lines += [f"  {name:<32} {interval}" for name, interval in self.confidence.items()]
        if self.notes:
            lines.append("")
            for note in self.notes:
                lines += textwrap.wrap(note, 80, initial_indent="  Note: ", subsequent_indent="        ")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [row for group in self._rows() for row in group]
        rows += [(name, f"{value:.4g}", METRICS[name].meaning) for name, value in self.extra.items()]
        values = self.snr.singular_values.tolist()
        spectrum = curve(range(len(values)), values, "the signal-to-noise spectrum, on a logarithmic scale")
        numbers = [
            (name, value, Html(f"{escaped(meaning)} {spectrum if name == 'SNR' else ''}"))
            for name, value, meaning in rows
        ]
        parts = [
            paragraph(self._title()),
            listing([f"Layer: {self.layer}", *(f"Note: {note}" for note in self.notes)]),
            listing(self.reading()),
            table(("", "", ""), numbers),
            folded("Classes, the least collapsed first", Html(self.per_class._repr_html_())),
        ]
        return "".join(parts)

    def _title(self) -> str:
        return (
            f"Neural Collapse: {self.num_examples:,} examples, {self.classes_present} of {self.num_classes} classes, "
            f"{self.dim} features, {WEIGHTING_WORDS[self.weighting]}"
        )

    def _rows(self) -> list[list[tuple[str, str, str]]]:
        """Names, values and meanings of the numbers: NC1 to NC4, then the MSE loss."""
        loss = self.mse
        return [
            [
                ("accuracy", formatted(self.accuracy, ".4%"), "argmax of the logits"),
                ("NC1", formatted(self.nc1), "variability tr(Σ_W Σ_B⁺)/C"),
                ("NC2 equinorm", _pair(self.nc2, "equinorm"), "means | classifier"),
                ("NC2 equiangularity", _pair(self.nc2, "equiangularity"), "means | classifier, Std of cosines"),
                ("NC2 maximal angle", _pair(self.nc2, "maximal_angle"), "means | classifier, |cos + 1/(C−1)|"),
                ("NC3", formatted(self.nc3), "self-duality of classifier and means"),
                ("NC4 mismatch", formatted(self.nc4_mismatch, ".4%"), "network ≠ nearest class mean"),
                ("SNR", _range(self.snr.singular_values), "singular values of Σ_W^{-1/2} M̄"),
            ],
            [
                ("MSE loss", formatted(loss.total), f"weight decay λ = {loss.weight_decay:g}"),
                ("  L_NC1", formatted(loss.nc1), "variability within classes"),
                ("  L_NC2/3", formatted(loss.nc23), "class means against targets"),
                ("  L⊥_LS", formatted(loss.ls_perp), f"off the path{_of_loss(loss)}"),
            ],
        ]


@one_warning()
def make_report(
    moments: ClassMoments,
    weight: Tensor | np.ndarray[Any, Any] | None = None,
    bias: Tensor | np.ndarray[Any, Any] | None = None,
    *,
    weight_decay: float = 0.0,
    metrics: str | Sequence[str] | None = None,
    ood_mean: Tensor | np.ndarray[Any, Any] | None = None,
    decisions: DecisionCounts | None = None,
    own: ClassMoments | None = None,
    examples: tuple[Tensor, Tensor] | None = None,
    layer: str = "features given",
    notes: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
) -> Report:
    """The report that moments and a classifier give.

    Args:
        moments: of the features; weight: (C, p), or None where there is no classifier; bias: (C,) or None.
        weight_decay: λ of the paper's loss.
        metrics: later metrics to add, by name or ``"all"``; ``nc.METRICS`` lists them.
        ood_mean: (p,) mean of out-of-distribution features.
        decisions: those on the examples; None where there are only moments, which leaves out NC4 and the accuracies,
            and NC1 by class unless the moments hold a scatter of each (``weighting="class"``).
        own: moments about the features' own class means, for the loss and the ranks of the features, where ``moments``
            are about others'.
        examples: the features and labels themselves, for the metrics that need them.
        layer: what the report calls the layer; notes: sentences that a reader of the numbers must know.
        class_names: C names, by label; without a classifier there may be more.

    Raises:
        InputError: a weight or bias that does not fit the moments, a negative λ, names of another number of classes.

    Example:
        >>> import torch
        >>> features, labels = torch.tensor([[2.0], [0.0], [-2.0], [0.0]]), torch.tensor([0, 0, 1, 1])
        >>> moments = ClassMoments(2)
        >>> moments.update(features, labels)
        >>> round(make_report(moments).nc1, 6)
        0.5
    """
    require_moments(moments)
    check_class_names(class_names, moments.num_classes, exactly=weight is not None)
    dim, own = moments.means.shape[1], moments if own is None else own
    require_moments(own, "own")
    if weight is not None:
        weight, bias = as_classifier(weight, bias, moments.num_classes, dim)
    elif bias is not None:
        raise InputError("expected weight with bias, got bias alone")
    # where there is no classifier another stands in for it, and the numbers that depend on it are left out
    two = nc2(moments, moments.means.new_ones(moments.num_classes, dim) if weight is None else weight)
    loss = decompose_mse(
        own, own.means.new_zeros(own.num_classes, dim) if weight is None else weight, bias, weight_decay=weight_decay
    )
    if weight is None:
        two = replace(two, equinorm_classifier=None, equiangularity_classifier=None, maximal_angle_classifier=None)
        loss = replace(loss, total=None, ls_perp=None)
    accuracy = nearest_mean_accuracy = mismatch = None
    if decisions is not None:
        seen, mismatches, correct, nearest_correct = decisions.counts
        nearest_mean_accuracy = nearest_correct / seen
        if weight is not None:
            accuracy, mismatch = correct / seen, mismatches / seen
    # the whitener of Σ_B is the decisions' own, which for many classes takes long to make
    whitener = between_whitener(moments) if decisions is None else decisions.whitener
    within = nc1(moments) if whitener is None else nc1_from_whitener(moments, whitener)
    return Report(
        layer=layer,
        notes=(*notes, *_rounding_notes(moments, within, whitener)),
        num_examples=moments.num_examples,
        num_classes=moments.num_classes,
        classes_present=int(moments.present.sum()),
        dim=dim,
        weighting=moments.weighting,
        accuracy=accuracy,
        nearest_mean_accuracy=nearest_mean_accuracy,
        nc1=within,
        nc2=two,
        nc3=None if weight is None else nc3(moments, weight),
        nc4_mismatch=mismatch,
        mse=loss,
        snr=snr_singular_values(moments),
        extra=compute_metrics(
            moments, metrics, weight=weight, bias=bias, ood_mean=ood_mean, examples=examples, own=own
        ),
        per_class=class_reports(moments, weight, decisions, within, whitener, class_names),
        moments=own,
    )


def _rounding_notes(moments: ClassMoments, within: float, whitener: Tensor | None) -> Iterator[str]:
    """A sentence where the rounding of the type that features came in is a large part of NC1."""
    kind = given_type(moments)
    # features that are equal are often meant to be, where they are not of 16 bits
    if whitener is None or kind == torch.float64 or (kind == torch.float32 and not within):
        return
    rounding = float((whitener.square() @ given_rounding(moments)).sum()) / int(moments.present.sum())
    if rounding < _MUCH * within:
        return
    name, wider = str(kind).removeprefix("torch."), "float64" if kind == torch.float32 else "float32"
    yield f"rounding the features to {name} makes or hides about {rounding:.2g} of NC1: compute them in {wider}"


def is_printed(content: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether something is a dictionary as :meth:`Report.to_dict` makes it, or a part of one, and no history's line."""
    return isinstance(content, Mapping) and "nc1" in content and "epoch" not in content


def _same(a: Any, b: Any) -> bool:
    """Whether two values of a report are equal, NaN being equal to NaN."""
    if isinstance(a, ClassMoments):
        return a.weighting == b.weighting and _same(a.state_dict(), b.state_dict())
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        a, b = a.cpu(), b.cpu()
        return bool(a.shape == b.shape and ((a == b) | (a.isnan() & b.isnan())).all())
    if is_dataclass(a):
        return all(_same(getattr(a, each.name), getattr(b, each.name)) for each in fields(a))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(value, b[name]) for name, value in a.items())
    return bool(a == b or (a != a and b != b))


def formatted(value: float | None, spec: str = ".4g", missing: str = "not measured") -> str:
    """A number, or the word for one that is missing."""
    return missing if value is None else format(value, spec)


def _row(name_and_value: str, meaning: str) -> list[str]:
    """A number with its meaning, which goes on below itself where the line would be longer than 80 columns."""
    together = meaning.replace(" → ", "\u00a0→\u00a0")  # what it tends to never stands alone
    lines = textwrap.wrap(together, 80, initial_indent=name_and_value, subsequent_indent=" " * 47)
    return [line.replace("\u00a0", " ") for line in lines] or [name_and_value]


def _pair(numbers: NC2, name: str) -> str:
    means, classifier = getattr(numbers, f"{name}_means"), getattr(numbers, f"{name}_classifier")
    return f"{means:.4g} | {formatted(classifier, missing='–')}"


def _range(values: Tensor) -> str:
    """The least and the greatest of descending values, of which there may be none."""
    return "none" if not len(values) else f"{float(values[-1]):.4g} … {float(values[0]):.4g}"


def _of_loss(loss: MSEDecomposition) -> str:
    """The share that the distance from the central path has, where there is a finite loss."""
    if loss.total is None or loss.ls_perp is None or not 0.0 < loss.total < math.inf:
        return ""
    return f", {loss.ls_perp / loss.total:.2%} of the loss"
