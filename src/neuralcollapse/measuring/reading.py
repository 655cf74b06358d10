"""What measured numbers say, in words: how collapsed a layer is, and how it came to be so.

No paper says from what number on a network counts as collapsed. The bounds below are this package's own, chosen so that
each has a plain meaning, and every sentence gives the number itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from neuralcollapse._files import numbers
from neuralcollapse.measuring.events import first_zero_error, is_number, stays_zero_error

Level = Literal["good", "part", "bad", "none"]
MARKS: dict[Level, str] = {"good": "✓", "part": "~", "bad": "✗", "none": "·"}
"""What a sentence begins with: the property holds, in part, does not hold; nothing to be judged."""

BOUNDS = {
    "nc1": (1e-3, 0.1),  # in the directions between classes the spread within is 3 %, 32 % of that between
    "equinorm": (0.05, 0.2),  # lengths differ by so much of their average
    "angle": (0.05, 0.2),  # cosines are so far from −1/(C−1)
    "nc3": (0.02, 0.2),  # cosine of the two matrices is 0.99, 0.9
    "nc4": (0.0, 0.01),
    "error": (0.0, 0.01),
    "path": (0.05, 0.25),  # share of L⊥_LS in the loss
}
"""Of each property up to what number it holds, and up to what number in part."""


@dataclass(frozen=True)
class Sentence:
    """One sentence of a reading.

    Attributes:
        about: "error", "nc1", "nc2", "nc3", "nc4", "path", "classes" or "course".
        level: whether the property holds: "good", in "part", "bad"; "none" where there is nothing to be judged.
        text: the sentence.
    """

    about: str
    level: Level
    text: str

    def __str__(self) -> str:
        return f"{MARKS[self.level]} {self.text}"


@dataclass(frozen=True)
class Reading:
    """Sentences on what was measured; ``print`` shows them, one a line."""

    sentences: tuple[Sentence, ...]

    def __iter__(self) -> Iterator[Sentence]:
        return iter(self.sentences)

    def __len__(self) -> int:
        return len(self.sentences)

    def __str__(self) -> str:
        return "\n".join(map(str, self.sentences))


def reading(record: Mapping[str, Any], course: Sequence[Mapping[str, Any]] = (), *, loss: str | None = None) -> Reading:
    """What a record says, in words.

    Args:
        record: a dictionary as :meth:`neuralcollapse.Report.to_dict` gives it, or a line of a history. What it does not
            hold is not spoken of.
        course: all records of the training, in the order of epochs, for what happened on the way.
        loss: the loss that was trained with; where it is not the MSE loss ("mse"), the central path is not spoken of.

    Example:
        >>> print(reading({"nc1": 8e-6, "nc3": 0.5}))
        ✓ NC1 is 8e-06: collapsed. Examples spread 0.28 % as far as class means do.
        ✗ NC3 is 0.5: classifier and class means are not yet dual (cosine 0.750).
    """
    found = {name: numbers(value) for name, value in record.items()}
    known = {name: float(value) for name, value in found.items() if is_number(value)}
    said = [_error(known), _nc1(known), _nc2(known), _nc3(known), _nc4(known)]
    if loss is None or loss.lower() in ("mse", "mean squared error"):
        said.append(_path(known))
    said += _course(course)
    return Reading(tuple(sentence for sentence in said if sentence is not None))


def _error(known: Mapping[str, float]) -> Sentence | None:
    accuracy = known.get("train_accuracy", known.get("accuracy"))
    if accuracy is None or math.isnan(accuracy):
        return None
    level = _level(1.0 - accuracy, "error")
    if level == "good":
        return Sentence("error", level, "No example is classified wrongly, as in the terminal phase of training.")
    return Sentence("error", level, f"{_share(1.0 - accuracy)} of the examples are classified wrongly.")


def _nc1(known: Mapping[str, float]) -> Sentence | None:
    value = known.get("nc1")
    if value is None:
        return None
    if not math.isfinite(value):
        return Sentence("nc1", "bad", f"NC1 is {value:g}: not all class means are apart.")
    level = _level(value, "nc1")
    classes = known.get("classes_present", math.inf)
    # NC1 is the mean of C − 1 ratios of variances, times (C − 1)/C
    ratio = math.sqrt(value * (classes / (classes - 1.0) if 1.0 < classes < math.inf else 1.0))
    words = {"good": "collapsed", "part": "partly collapsed", "bad": "not collapsed", "none": ""}[level]
    spread = f"{_share(ratio)} as far as" if ratio <= 1.0 else f"{_plain(ratio)} times as far as"
    return Sentence("nc1", level, f"NC1 is {value:.2g}: {words}. Examples spread {spread} class means do.")


def _nc2(known: Mapping[str, float]) -> Sentence | None:
    lengths, angle = known.get("nc2.equinorm_means"), known.get("nc2.maximal_angle_means")
    if lengths is None or angle is None:
        return None
    dim, classes = known.get("dim", math.inf), known.get("classes_present", 0.0)
    measured = f"lengths of class means differ by {_share(lengths)}, their cosines are {angle:.2g} from −1/(C−1)"
    if dim < classes - 1:
        return Sentence("nc2", "none", f"NC2: {measured}; {dim:.0f} features hold no simplex of {classes:.0f} classes.")
    if math.isnan(lengths) or math.isnan(angle):
        return Sentence("nc2", "bad", "NC2 is not defined: a class mean has no direction.")
    level = max(_level(lengths, "equinorm"), _level(angle, "angle"), key=list(MARKS).index)
    random = math.sqrt(2.0 / (math.pi * dim)) if math.isfinite(dim) else math.inf
    if level == "good" and angle > 0.5 * random and classes > 2:
        # the average |cosine| of random directions; in many dimensions that alone is small
        return Sentence("nc2", "part", f"NC2: {measured}; random directions would be {random:.2g} from it.")
    words = {"good": "a simplex", "part": "near a simplex", "bad": "not a simplex", "none": ""}[level]
    return Sentence("nc2", level, f"NC2: {words}; {measured}.")


def _nc3(known: Mapping[str, float]) -> Sentence | None:
    value = known.get("nc3")
    if value is None:
        return None
    if not math.isfinite(value):
        return Sentence("nc3", "bad", f"NC3 is {value:g}: classifier or class means are zero.")
    level = _level(value, "nc3")
    words = {"good": "are dual", "part": "are nearly dual", "bad": "are not yet dual", "none": ""}[level]
    # ‖A − B‖² = 2 − 2⟨A, B⟩ of matrices of norm 1
    text = f"NC3 is {value:.2g}: classifier and class means {words} (cosine {1.0 - value / 2.0:.3f})."
    return Sentence("nc3", level, text)


def _nc4(known: Mapping[str, float]) -> Sentence | None:
    value = known.get("nc4_mismatch")
    if value is None or math.isnan(value):
        return None
    level = _level(value, "nc4")
    if level == "good":
        return Sentence("nc4", level, "NC4: the network decides as the nearest class mean does, on every example.")
    return Sentence("nc4", level, f"NC4: on {_share(value)} of the examples the nearest class mean decides otherwise.")


def _path(known: Mapping[str, float]) -> Sentence | None:
    total, away = known.get("mse.total"), known.get("mse.ls_perp")
    if total is None or away is None or not 0.0 < total < math.inf:
        return None
    level = _level(away / total, "path")
    words = {"good": "near", "part": "not far from", "bad": "away from", "none": ""}[level]
    return Sentence("path", level, f"L⊥_LS is {_share(away / total)} of the MSE loss: {words} the central path.")


def _course(records: Sequence[Mapping[str, Any]]) -> list[Sentence]:
    """How NC1 changed, and when the training error came to zero."""
    said = []
    values = [(record["epoch"], numbers(record.get("nc1"))) for record in records]
    finite = [(epoch, value) for epoch, value in values if is_number(value) and 0.0 < value < math.inf]
    if len(finite) > 1:
        (begin, first), (end, last) = finite[0], finite[-1]
        fold = max(first, last) / min(first, last)
        change = "stayed the same" if fold < 1.05 else f"{'fell' if last < first else 'rose'} {_plain(fold)}-fold"
        epochs = f"from {first:.2g} at epoch {begin:g} to {last:.2g} at epoch {end:g}"
        said.append(Sentence("course", "none", f"NC1 {change}, {epochs}."))
    first_zero, stays = first_zero_error(records), stays_zero_error(records)
    if first_zero is not None and first_zero == stays:
        said.append(Sentence("course", "good", f"From epoch {stays:g} on there is no training error."))
    elif first_zero is not None:
        after = "there are errors at the end again" if stays is None else f"stays zero from epoch {stays:g}"
        text = f"The training error is first zero at epoch {first_zero:g}, and {after}."
        said.append(Sentence("course", "part" if stays is None else "good", text))
    return said


def _level(value: float, name: str) -> Level:
    holds, in_part = BOUNDS[name]
    return "good" if value <= holds else "part" if value <= in_part else "bad"


def _share(value: float) -> str:
    """A share as per cent of two digits; never as 0 % or 100 % where it is neither."""
    percent = 100.0 * value
    if not 0.0 < percent < 100.0 or not math.isfinite(percent):
        return f"{percent:.3g} %"
    digits = max(0, 1 - math.floor(math.log10(min(percent, 100.0 - percent))))
    return f"{percent:.{min(digits, 12)}f}".rstrip("0").rstrip(".") + " %" if digits else f"{percent:.0f} %"


def _plain(value: float) -> str:
    """A number of two digits, written out."""
    return f"{float(f'{value:.2g}'):,.{0 if value >= 9.95 else 1}f}"
