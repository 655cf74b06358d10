"""What one job of an array saves for the others: the moments or NC4 counts of a shard, and which rows these were."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from neuralcollapse._errors import InputError
from neuralcollapse._files import to_json, validated
from neuralcollapse.measuring.count_range import ALL_CLASSES, CountRange
from neuralcollapse.measuring.decision_counts import COUNTS
from neuralcollapse.moments.class_moments import ClassMoments
from neuralcollapse.moments.storage import read_state, write_state

_EDGE = 64 << 10


@dataclass(frozen=True, order=True)
class RowRange:
    """Rows start … stop − 1 of a file with `total` rows.

    Args:
        file: identifies the file by what is in it, so that it is the same after the file is moved.
        name: of the file, for messages.
    """

    file: str
    start: int
    stop: int
    total: int
    name: str

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= self.total:
            raise InputError(f"expected rows of a file, got {self} of {self.total}")

    def __str__(self) -> str:
        return f"rows {self.start} to {self.stop - 1}"

    @classmethod
    def of_file(cls, path: Path, start: int, stop: int, total: int) -> RowRange:
        """Rows of the file at `path`, identified by its size, its first and its last 64 KiB."""
        size = path.stat().st_size
        found = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            found.update(file.read(_EDGE))
            file.seek(max(0, size - _EDGE))
            found.update(file.read(_EDGE))
        return cls(found.hexdigest()[:32], start, stop, total, path.name)


@dataclass(frozen=True)
class Counts:
    """The state of a `DecisionCounts`, and the `digest` of the class means and the classifier that decided."""

    state: dict[str, Tensor]
    against: str


@dataclass(frozen=True)
class Saved:
    """What a file holds that `write_moments`, `write_counts` or `ClassMoments.save` wrote.

    Args:
        content: the moments or the counts; rows: that they are of; none where the file does not say.
        kept: the numbers of examples of the classes that were measured.
        about: the file's metadata.
    """

    content: ClassMoments | Counts
    rows: tuple[RowRange, ...]
    kept: CountRange
    about: dict[str, str]


def write_moments(
    path: Path,
    moments: ClassMoments,
    rows: Iterable[RowRange],
    kept: CountRange = ALL_CLASSES,
    about: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write moments as `ClassMoments.save` does, with the rows that they are of."""
    said = {"weighting": moments.weighting, "rows": to_json([asdict(each) for each in rows])}
    if kept:
        said["kept"] = to_json(asdict(kept))
    write_state(path, moments.state_dict(), {**said, **about})


def write_counts(
    path: Path, counts: Counts, rows: Iterable[RowRange], about: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write the counts of some rows."""
    said = {"rows": to_json([asdict(each) for each in rows]), "against": counts.against}
    write_state(path, counts.state, {**said, **about})


def read_shard(path: Path) -> Saved:
    """Read a file that `write_moments`, `write_counts` or `ClassMoments.save` wrote.

    Raises:
        InputError: no such file, or one that holds neither.
    """
    state, about = read_state(path)
    try:
        rows = validated(tuple[RowRange, ...], about.get("rows", "[]").encode(), "rows")
        kept = validated(CountRange, about.get("kept", "{}").encode(), "kept")
        if {"examples", "mismatches"} <= state.keys():
            _check_counts(state)
            return Saved(Counts(state, about.get("against", "")), rows, kept, about)
        weighting = about.get("weighting", "example")
        moments = ClassMoments.from_state_dict(state, weighting=weighting)  # type: ignore[arg-type]
        return Saved(moments, rows, kept, about)
    except InputError as error:
        raise InputError(f"{path} holds neither moments nor counts: {error}") from None


def require_once(paths: Iterable[Path]) -> None:
    """Raise where a file is given twice, even under two names."""
    seen: dict[tuple[int, int], Path] = {}
    for path in paths:
        if not path.is_file():
            raise InputError(f"expected a file of saved moments or counts, got {path}, which is not a file")
        identity = (path.stat().st_dev, path.stat().st_ino)
        if identity in seen:
            same = "" if seen[identity] == path else f", which is {seen[identity]}"
            raise InputError(f"expected each shard once, got {path} twice{same}")
        seen[identity] = path


def join_rows(shards: Iterable[tuple[Path, tuple[RowRange, ...]]]) -> tuple[RowRange, ...]:
    """The rows of all shards, with neighbouring ranges joined.

    Raises:
        InputError: two of them hold the same row.
    """
    ranges = sorted((each, path) for path, rows in shards for each in rows)
    joined: list[RowRange] = []
    for (each, path), before in zip(ranges, [None, *ranges], strict=False):
        if before is None or before[0].file != each.file or before[0].stop < each.start:
            joined.append(each)
        elif before[0].stop == each.start:
            joined[-1] = replace(joined[-1], stop=each.stop)
        else:
            twice = replace(each, stop=min(each.stop, before[0].stop))
            raise InputError(f"expected each row once, got {twice} of {each.name} in both {before[1]} and {path}")
    return tuple(joined)


def missing_rows(joined: Iterable[RowRange]) -> list[str]:
    """The rows that joined ranges leave out of their files, each as "rows 3 to 5 of x.npy"."""
    found = []
    for _, group in itertools.groupby(sorted(joined), key=lambda each: each.file):
        own = list(group)
        ends = [0, *(each.stop for each in own)]
        starts = [*(each.start for each in own), own[0].total]
        gaps = [replace(own[0], start=end, stop=start) for end, start in zip(ends, starts, strict=True) if end < start]
        found += [f"{gap} of {own[0].name}" for gap in gaps]
    return found


def digest(moments: ClassMoments, weight: Tensor, bias: Tensor | None) -> str:
    """A text that identifies what counts are made against: class means and a classifier."""
    found = hashlib.sha256()
    for tensor in (moments.counts, moments.means, weight, bias):
        if tensor is not None:
            # in one type, so that a classifier gives the same when it is saved in a wider one
            found.update(str(tuple(tensor.shape)).encode() + tensor.double().contiguous().numpy().tobytes())
    return found.hexdigest()[:32]


def _check_counts(state: dict[str, Tensor]) -> None:
    """Raise if no examples could have given this state of a `DecisionCounts`."""
    names = (*COUNTS, "squares")
    if state.keys() != set(names):
        raise InputError(f"expected {', '.join(names)}, got {', '.join(sorted(state))}")
    shape = state["examples"].shape
    for name in names:
        value, kind = state[name], torch.float64 if name == "squares" else torch.int64
        if value.shape != shape or value.ndim != 1 or value.dtype != kind:
            raise InputError(f"expected {name} of each class, as {kind}, got {value.dtype} of {tuple(value.shape)}")
        if bool((value < 0).any()) or not bool(value.isfinite().all()):
            raise InputError(f"expected {name} of at least 0, got {float(value.min())}")
        if kind == torch.int64 and bool((value > state["examples"]).any()):
            raise InputError(f"expected at most as many {name} as examples in each class")
