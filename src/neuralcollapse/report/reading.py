"""What the numbers of a run say, in words, with the thresholds beside them.

The papers say what each number tends to, and give no value at which collapse is reached. The thresholds here are ours,
and the page prints them next to the words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Verdict = Literal["good", "middle", "bad", "none"]


@dataclass(frozen=True)
class Threshold:
    """How a number that tends to 0 is put into words.

    Args:
        title: what the number is called.
        good, middle: at most this is good, and at most that is in between.
        words: for good, in between, and above.
        meaning: why the thresholds are where they are.
    """

    title: str
    good: float
    middle: float
    words: tuple[str, str, str]
    meaning: str

    def judge(self, value: float) -> tuple[Verdict, str]:
        """The verdict on a value and its words."""
        place = 0 if value <= self.good else 1 if value <= self.middle else 2
        verdicts: tuple[Verdict, ...] = ("good", "middle", "bad")
        return verdicts[place], self.words[place]


THRESHOLDS = {
    "nc1": Threshold(
        "NC1", 1e-3, 1e-1, ("collapsed", "collapsing", "not collapsed"),
        "a feature is then about 3 %, or 30 %, of the class means' spread away from its own class mean",
    ),
    "nc2": Threshold(
        "NC2", 0.05, 0.2, ("close to a simplex", "roughly a simplex", "not a simplex"),
        "norms and cosines of the class means then differ by 5 %, or 20 %, from those of a simplex",
    ),
    "nc3": Threshold(
        "NC3", 0.01, 0.1, ("classifier and class means agree", "classifier and class means nearly agree",
                           "classifier and class means differ"),
        "the two then are 6°, or 18°, apart",
    ),
    "nc4_mismatch": Threshold(
        "NC4", 0.0, 0.01, ("the network decides as the nearest class mean does",
                           "the network nearly always decides as the nearest class mean does",
                           "the network often decides otherwise than the nearest class mean"),
        "no example, or one in a hundred",
    ),
    "ls_perp": Threshold(
        "L⊥", 0.05, 0.5, ("near the central path", "away from the central path", "far from the central path"),
        "5 %, or half, of the MSE loss",
    ),
}  # fmt: skip


def read_numbers(record: Mapping[str, Any], loss: str = "") -> list[tuple[Verdict, str]]:
    """What one measurement says, sentence by sentence.

    Args:
        record: numbers by name, as `Report.to_dict` names them.
        loss: the training loss, where it is known; the share of L⊥ is read only for squared error.
    """
    said: list[tuple[Verdict, str]] = []
    values = {name: record.get(name) for name in ("nc1", "nc3", "nc4_mismatch")}
    two = [record.get(f"nc2.{name}_means") for name in ("equinorm", "equiangularity", "maximal_angle")]
    values["nc2"] = max((value for value in two if _known(value)), default=None)
    total, apart = record.get("mse.total"), record.get("mse.ls_perp")
    if _known(total) and _known(apart) and 0 < total < math.inf and (not loss or "mse" in loss.lower()):
        values["ls_perp"] = apart / total
    for name, threshold in THRESHOLDS.items():
        value = values.get(name)
        if not _known(value):
            continue
        verdict, words = threshold.judge(value)
        number = f"{value:.1%}" if name in ("nc4_mismatch", "ls_perp") else _in_powers_of_ten(value)
        subject = f"{threshold.title} {number}{' of the MSE loss' if name == 'ls_perp' else ''}"
        said.append((verdict, f"{subject}: {words}."))
    return said


def read_course(
    records: Sequence[Mapping[str, Any]], first: float | None, stays: float | None
) -> list[tuple[Verdict, str]]:
    """What the training error and the time after it say.

    Args:
        records: of the measured epochs, in their order.
        first: the first measured epoch without a training error; stays: the one from which there is none to the end.
    """
    errors = [(record["epoch"], _error(record)) for record in records]
    known = [(epoch, error) for epoch, error in errors if error is not None]
    if not known:
        return [("none", "The training error was not recorded.")]
    if first is None:
        return [("bad", f"The training error has not reached zero: {known[-1][1]:.2%} at epoch {known[-1][0]:g}.")]
    said: list[tuple[Verdict, str]] = []
    if stays == first:
        said.append(("good", f"No training error since epoch {first:g}."))
    else:
        worst, when = max((error, epoch) for epoch, error in known if epoch > first)
        rose = f"after the first zero, at epoch {first:g}, it rose again, to {worst:.2%} at epoch {when:g}"
        said.append(
            ("bad", f"The last measured epoch has training errors: {rose}.")
            if stays is None
            else ("middle", f"No training error since epoch {stays:g}; {rose}.")
        )
    if stays is not None and stays < known[-1][0]:
        start = next(record for record in records if record["epoch"] == stays)
        said += _since(start, records[-1])
    return said


def _since(start: Mapping[str, Any], end: Mapping[str, Any]) -> list[tuple[Verdict, str]]:
    """What has changed since the training error has stayed zero."""
    parts = []
    before, after = start.get("nc1"), end.get("nc1")
    if _known(before) and _known(after) and 0 < after < math.inf and before < math.inf:
        ratio = before / after
        parts.append(f"NC1 has {'fallen' if ratio >= 1 else 'risen'} {max(ratio, 1 / ratio):,.3g}-fold")
    before, after = start.get("test_accuracy"), end.get("test_accuracy")
    if _known(before) and _known(after):
        points = 100 * (after - before)
        parts.append(f"the test accuracy has changed by {points:+.2f} points, to {after:.2%}")
    return [("none", f"Since then {' and '.join(parts)}.")] if parts else []


def _in_powers_of_ten(value: float) -> str:
    """Two digits, as a person writes them: 0.025, 7.5·10⁻⁶."""
    digits, _, power = f"{value:.2g}".partition("e")
    return digits + (f"·10{str(int(power)).translate(_RAISED)}" if power else "")


def _error(record: Mapping[str, Any]) -> float | None:
    error, accuracy = record.get("train_error"), record.get("accuracy")
    return error if _known(error) else 1 - accuracy if _known(accuracy) else None


def _known(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
