"""What one job of an array leaves for the others: moments or NC4 counts of some rows, and which rows those were."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from neuralcollapse._checks import InputError
from neuralcollapse.moments.class_moments import ClassMoments
from neuralcollapse.moments.storage import read_state, write_state

# of `Tally`
_COUNTS = ("examples", "mismatches", "correct", "nearest_correct")
_EDGE = 64 << 10


@dataclass(frozen=True, order=True)
class Span:
    """Rows start … stop − 1 of a file with ``total`` rows.

    Args:
        file: tells files apart by what is in them, so that one keeps it when it is moved; name: for messages.
    """

    file: str
    start: int
    stop: int
    total: int
    name: str

    @classmethod
    def of(cls, path: Path, start: int, stop: int, total: int) -> Span:
        """Of rows in the file at ``path``, told apart by its size, its first and its last 64 KiB."""
        size = path.stat().st_size
        found = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            found.update(file.read(_EDGE))
            file.seek(max(0, size - _EDGE))
            found.update(file.read(_EDGE))
        return cls(found.hexdigest()[:32], start, stop, total, path.name)


@dataclass(frozen=True)
class Counts:
    """What a `Tally` counted, and the `digest` of what it was counted against."""

    examples: int
    mismatches: int
    correct: int
    nearest_correct: int
    against: str


@dataclass(frozen=True)
class Part:
    """A saved file, and the rows that its moments or counts are of: none where it does not say."""

    path: Path
    content: ClassMoments | Counts
    spans: tuple[Span, ...]


def write_moments(path: Path, moments: ClassMoments, spans: Iterable[Span]) -> None:
    """Write moments as ``ClassMoments.save`` does, with the rows they are of beside them."""
    write_state(path, moments.state_dict(), {"weighting": moments.weighting, "rows": _to_json(spans)})


def write_counts(path: Path, counts: Counts, span: Span) -> None:
    """Write the counts of some rows."""
    state = {name: torch.tensor(getattr(counts, name)) for name in _COUNTS}
    write_state(path, state, {"rows": _to_json([span]), "against": counts.against})


def read_part(path: Path) -> Part:
    """Read what one of the above wrote, or ``ClassMoments.save``.

    Raises:
        InputError: no such file, or one that holds neither.
    """
    state, about = read_state(path)
    try:
        spans = _from_json(about.get("rows", "[]"))
        if state.keys() == set(_COUNTS):
            counts = {name: _count(state[name]) for name in _COUNTS}
            if max(counts.values()) > counts["examples"]:
                raise InputError(f"expected at most {counts['examples']} examples, got {max(counts.values())}")
            return Part(path, Counts(**counts, against=about.get("against", "")), spans)
        weighting = about.get("weighting", "example")
        moments = ClassMoments.from_state_dict(state, weighting=weighting)  # type: ignore[arg-type]
    except InputError as error:
        raise InputError(f"{path} holds neither moments nor counts: {error}") from None
    return Part(path, moments, spans)


def require_once(paths: Iterable[Path]) -> None:
    """Raise where a file is given twice, be it by another name."""
    seen: dict[tuple[int, int], Path] = {}
    for path in paths:
        if not path.is_file():
            raise InputError(f"expected a file of saved moments or counts, {path} is none")
        identity = (path.stat().st_dev, path.stat().st_ino)
        if identity in seen:
            same = "" if seen[identity] == path else f", which is {seen[identity]}"
            raise InputError(f"expected each saved part once, got {path} twice{same}")
        seen[identity] = path


def join(parts: Iterable[tuple[Path, tuple[Span, ...]]]) -> tuple[Span, ...]:
    """The rows of all parts, neighbours joined.

    Raises:
        InputError: a row is in two of them.
    """
    spans = sorted((span, path) for path, spans in parts for span in spans)
    joined: list[Span] = []
    for (span, path), before in zip(spans, [None, *spans], strict=False):
        if before is None or before[0].file != span.file or before[0].stop < span.start:
            joined.append(span)
        elif before[0].stop == span.start:
            joined[-1] = Span(span.file, joined[-1].start, span.stop, span.total, span.name)
        else:
            rows = f"{span.start} to {min(span.stop, before[0].stop) - 1}"
            raise InputError(f"expected each row once, {before[1]} and {path} both hold rows {rows} of {span.name}")
    return tuple(joined)


def missing(spans: Iterable[Span]) -> list[str]:
    """The rows that joined spans leave out of the files they are of, as "rows 3 to 5 of x.npy"."""
    found = []
    for _, group in itertools.groupby(sorted(spans), key=lambda span: span.file):
        own = list(group)
        ends = [0, *(span.stop for span in own)]
        starts = [*(span.start for span in own), own[0].total]
        gaps = [(end, start) for end, start in zip(ends, starts, strict=True) if end < start]
        found += [f"rows {end} to {start - 1} of {own[0].name}" for end, start in gaps]
    return found


def digest(moments: ClassMoments, weight: Tensor, bias: Tensor | None) -> str:
    """Tells apart what counts are made against: class means and a classifier."""
    found = hashlib.sha256()
    for tensor in (moments.counts, moments.means, weight, bias):
        if tensor is not None:
            # of one type, so that a classifier converted to a wider one is still itself
            found.update(str(tuple(tensor.shape)).encode() + tensor.double().contiguous().numpy().tobytes())
    return found.hexdigest()[:32]


def _count(value: Tensor) -> int:
    if value.shape != () or value.dtype != torch.int64 or int(value) < 0:
        raise InputError(f"expected counts of at least 0, got {value.dtype} of shape {tuple(value.shape)}")
    return int(value)


def _to_json(spans: Iterable[Span]) -> str:
    return json.dumps([asdict(span) for span in spans])


def _from_json(text: str) -> tuple[Span, ...]:
    try:
        spans = tuple(Span(**item) for item in json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise InputError(f"expected a list of rows, got {text[:60]!r}") from None
    for span in spans:
        numbers = (span.start, span.stop, span.total)
        texts = isinstance(span.file, str) and isinstance(span.name, str)
        if not (texts and all(type(number) is int for number in numbers) and 0 <= span.start < span.stop <= span.total):
            raise InputError(f"expected a list of rows, got {text[:60]!r}")
    return spans
