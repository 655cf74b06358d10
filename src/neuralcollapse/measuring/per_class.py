"""ClassReports: how collapsed each class is, by name."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import InputError, shown
from neuralcollapse._errors import suggest
from neuralcollapse._html import paragraph, table
from neuralcollapse._linalg import scaled
from neuralcollapse.measuring.decision_counts import DecisionCounts
from neuralcollapse.measuring.tidy import import_pandas
from neuralcollapse.metrics.geometry import tiles, unit_rows
from neuralcollapse.metrics.present_classes import distinct_means, rows_of_present
from neuralcollapse.moments.class_moments import ClassMoments

if TYPE_CHECKING:
    import pandas as pd

_PRINTED = 20
# The columns of the printed table: a number's name, its heading, its width, its format.
_TABLE = (
    ("examples", "n", 7, "d"),
    ("accuracy", "correct", 8, ".2%"),
    ("nc1", "NC1", 9, ".3g"),
    ("nc1_share", "share", 7, ".1%"),
    ("nc4_mismatch", "NC4", 8, ".2%"),
    ("duality", "dual", 7, ".3f"),
    ("nearest_cosine", "cos", 7, ".3f"),
)


@dataclass(frozen=True)
class ClassReport:
    """How collapsed one class is. A number is None where it was not measured, nan where it is not defined.

    Attributes:
        label: c, the class's number; name: what it is called, its number where nobody said.
        examples: n_c.
        accuracy: share of its examples that the network gives to it; nearest_mean_accuracy: that the nearest class mean
            gives to it.
        nc4_mismatch: share of its examples on which the two disagree.
        mean_norm: ‖μ_c − μ_G‖, the length of its centred mean.
        variability: tr Σ_c = Ave_i ‖h_{i,c} − μ_c‖², of its own n_c examples; Σ_c π_c tr Σ_c = tr Σ_W, with
            π_c the weights of Σ_W: n_c/n, or 1/C by class.
        nc1: tr(Σ_c Σ_B⁺)/C with its own scatter Σ_c = Ave_i (h_{i,c} − μ_c)(h_{i,c} − μ_c)ᵀ: what NC1
            would be if every class had this scatter. The classes with the greatest are the least collapsed.
        nc1_share: π_c nc1, what it adds to NC1, with the same π_c; all classes' shares add up to the report's ``nc1``.
        nearest: name of the class c' ≠ c whose centred mean has the greatest cosine with its own.
        nearest_cosine: that cosine, −1/(C−1) for all classes at a simplex ETF.
        duality: cosine of w_c, its classifier row, and μ_c − μ_G; 1 at self-duality.

    Example:
        >>> import neuralcollapse as nc
        >>> features, labels = torch.tensor([[2.0], [0.0], [-2.0], [0.0]]), torch.tensor([0, 0, 1, 1])
        >>> one = nc.measure_features(features, labels).per_class[0]
        >>> one.examples, one.variability, round(one.nc1_share, 6)
        (2, 1.0, 0.25)
    """

    label: int
    name: str
    examples: int
    accuracy: float | None
    nearest_mean_accuracy: float | None
    nc4_mismatch: float | None
    mean_norm: float
    variability: float
    nc1: float | None
    nc1_share: float | None
    nearest: str | None
    nearest_cosine: float
    duality: float | None


class ClassReports:
    """A :class:`ClassReport` for each class with examples, in the order of labels; ``print`` shows the least collapsed.

    Indexed by name or label. Two are equal if all their numbers are, nan being equal to nan.

    Example:
        >>> import neuralcollapse as nc
        >>> features = torch.tensor([[2.0, 0.0], [1.0, 0.0], [-1.5, 0.1], [-1.5, -0.1]])
        >>> classes = nc.measure_features(features, [0, 0, 1, 1], class_names=["cat", "dog"]).per_class
        >>> print(classes["cat"].variability, classes.least_collapsed()[0].name)
        0.25 cat
    """

    def __init__(
        self, columns: Mapping[str, np.ndarray[Any, Any]], means: ClassMoments | Tensor, names: Sequence[str] | None
    ) -> None:
        self._columns, self._means, self._names = dict(columns), means, tuple(names or ())

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, np.ndarray[Any, Any]],
        means: Float[np.ndarray[Any, Any], "c p"],
        names: Sequence[str] | None = None,
    ) -> ClassReports:
        """What :meth:`to_arrays` gave.

        Args:
            arrays: by name; means: (C, p) centred, which say what class is nearest; names: of all classes, by label.

        Raises:
            InputError: arrays that do not fit one another, the means or the names.
        """
        unknown = sorted(arrays.keys() - {each.name for each in fields(ClassReport)})
        label = arrays.get("label")
        if unknown or label is None or not {"examples", "mean_norm", "variability"} <= arrays.keys():
            raise InputError(f"expected the numbers of a ClassReport, got {', '.join(unknown or arrays) or 'none'}")
        for name, array in arrays.items():
            kind = "iu" if name in ("label", "examples") else "f"
            if array.shape != label.shape or array.ndim != 1 or array.dtype.kind not in kind:
                raise InputError(f"expected a number {name} of each class, got {array.dtype} {array.shape}")
        if means.ndim != 2 or not ((label >= 0) & (label < len(means))).all() or len(set(label)) < len(label):
            raise InputError(f"expected different labels of 0 to {len(means) - 1}, and class means (C, p)")
        check_class_names(names, len(means))
        return cls(arrays, torch.from_numpy(means[label]), names)

    def to_arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """By name the numbers that were measured, (k,) each, in the order of labels; without the nearest classes."""
        return dict(self._columns)

    def _name(self, label: int) -> str:
        return self._names[label] if self._names else str(label)

    @cached_property
    def _nearest(self) -> dict[str, np.ndarray[Any, Any]]:
        """The columns ``nearest``, with None for no other class, and ``nearest_cosine``; made when first asked for."""
        means, labels = self._means, self._columns["label"]
        rows, cosines = nearest_means(distinct_means(means) if isinstance(means, ClassMoments) else means.double())
        names = [None if row < 0 else self._name(int(labels[row])) for row in rows.tolist()]
        return {"nearest": np.array(names, dtype=object), "nearest_cosine": cosines.cpu().numpy()}

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """One number of all classes with examples, in the order of their labels; names of ``nearest`` as text.

        Raises:
            InputError: no such number, or one that was not measured.
        """
        if name in ("nearest", "nearest_cosine"):
            return self._nearest[name].copy()
        if name == "name":
            return np.array([self._name(int(label)) for label in self._columns["label"]], dtype=object)
        if name not in self._columns:
            known = [each.name for each in fields(ClassReport)]
            missing = f"{name} was not measured" if name in known else f"a ClassReport has no {name!r}"
            raise InputError(f"{missing}{suggest(name, known) if name not in known else ''}")
        return self._columns[name]

    def __len__(self) -> int:
        return len(self._columns["label"])

    def __iter__(self) -> Iterator[ClassReport]:
        return (self._row(row) for row in range(len(self)))

    def __getitem__(self, which: str | int) -> ClassReport:
        labels = self._columns["label"]
        if isinstance(which, str):
            rows = [row for row, label in enumerate(labels) if self._name(int(label)) == which]
        else:
            rows = np.flatnonzero(labels == which).tolist()
        if len(rows) == 1:
            return self._row(rows[0])
        if rows:
            numbers = ", ".join(str(labels[row]) for row in rows)
            raise InputError(f"expected a name that one class has, {which!r} is that of {numbers}: give the number")
        hint = suggest(which, self.column("name")) if isinstance(which, str) else ""
        raise InputError(f"expected a class with examples, by name or number, got {which!r}{hint}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClassReports):
            return NotImplemented
        mine, others = self._columns, other._columns
        same = mine.keys() == others.keys() and self._names == other._names
        return same and all(np.array_equal(mine[name], others[name], equal_nan=True) for name in mine)

    __hash__ = None  # type: ignore[assignment]

    def least_collapsed(self, count: int | None = None) -> list[ClassReport]:
        """The classes in the order of their NC1, the greatest first; all of them or so many.

        Where NC1 was not measured by class, or is not finite, the order is that of tr Σ_c / ‖μ_c − μ_G‖².
        """
        return [self._row(int(row)) for row in self._order()[:count]]

    def to_frame(self) -> pd.DataFrame:
        """A pandas table with a row a class, in the order of labels, and the attributes of `ClassReport` as columns.

        What was not measured has no column.

        Raises:
            InputError: pandas is not installed.
        """
        derived = ("name", "nearest", "nearest_cosine")
        names = [each.name for each in fields(ClassReport) if each.name in (*derived, *self._columns)]
        return import_pandas().DataFrame({name: self.column(name) for name in names})

    def __repr__(self) -> str:
        return f"ClassReports({len(self)} classes)"

    def __str__(self) -> str:
        heads, rows = self._cells()
        lines = [_line(heads), *map(_line, rows)]
        if len(self) > len(rows):
            lines.append(f"… and {len(self) - len(rows):,} more classes; per_class.to_frame() has all")
        return "\n".join([*lines, "", *textwrap.wrap(_LEGEND, 80)])

    def _repr_html_(self) -> str:
        more = paragraph(f"… and {len(self) - _PRINTED:,} more classes") if len(self) > _PRINTED else ""
        return f"{table(*self._cells())}{more}{paragraph(_LEGEND)}"

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """The heads of the table and the cells of its rows, the least collapsed first."""
        total = float(self._columns["nc1_share"].sum()) if "nc1_share" in self._columns else math.nan
        rows = []
        for row in self.least_collapsed(_PRINTED):
            numbers = {name: getattr(row, name) for name, *_ in _TABLE}
            if row.nc1_share is not None:
                numbers["nc1_share"] = row.nc1_share / total if total else math.nan
            cells = ["–" if numbers[name] is None else format(numbers[name], spec) for name, _, _, spec in _TABLE]
            rows.append([printable(row.name), *cells, printable(row.nearest or "–")])
        return ["class", *(head for _, head, *_ in _TABLE), "nearest"], rows

    def _order(self) -> np.ndarray[Any, Any]:
        """Rows, the least collapsed first; those whose number is undefined before all others."""
        spread = self._columns.get("nc1")
        if spread is None or np.isnan(spread).all():
            spread = self._spread()
        return np.argsort(-np.where(np.isnan(spread), np.inf, spread), kind="stable")

    def _spread(self) -> np.ndarray[Any, Any]:
        """By row √tr Σ_c / ‖μ_c − μ_G‖; of moments at unit scale, where no square leaves the range of floats."""
        variances, norms = self._columns["variability"], self._columns["mean_norm"]
        if isinstance(self._means, ClassMoments):
            unit = self._means.at_unit_scale()
            variances, norms = (each[unit.present].cpu().numpy() for each in (unit.class_variances, _norms(unit)))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: np.ndarray[Any, Any] = np.sqrt(variances) / norms
        return ratio

    def _row(self, row: int) -> ClassReport:
        found: dict[str, Any] = dict.fromkeys(each.name for each in fields(ClassReport))
        found |= {name: column[row].item() for name, column in self._columns.items()}
        found |= {name: column[row] for name, column in self._nearest.items()}
        found |= {"name": self._name(found["label"]), "nearest_cosine": float(found["nearest_cosine"])}
        return ClassReport(**found)


_LEGEND = (
    "Least collapsed first. NC1: of the class's own examples; share: of the whole. dual: cosine of classifier row and "
    "centred class mean, 1 at self-duality. cos: of the centred means of class and nearest other class, −1/(C−1) at a "
    "simplex."
)


def class_reports(
    moments: ClassMoments,
    weight: Tensor | None,
    decisions: DecisionCounts | None,
    nc1: float,
    whitener: Tensor | None,
    names: Sequence[str] | None,
) -> ClassReports:
    """What moments, a classifier (C, p) and counts by class say of each class; see :class:`ClassReport`.

    The numbers of decisions need ``decisions``; so does NC1 by class, unless moments hold a scatter of each class, from
    which the ``whitener`` of Σ_B makes it. Where ``nc1`` is not finite, no class has a share of it: both are nan.
    """
    present = moments.present
    unit = moments.at_unit_scale()
    columns = {
        "label": present.nonzero()[:, 0],
        "examples": moments.counts[present],
        "mean_norm": scaled(_norms(unit), moments.exponent)[present],
        "variability": moments.class_variances[present],
    }
    if decisions is not None:
        state = {name: each.to(present.device)[present] for name, each in decisions.state_dict().items()}
        examples = state["examples"].double()
        columns["nearest_mean_accuracy"] = state["nearest_correct"] / examples
        if weight is not None:
            columns["accuracy"] = state["correct"] / examples
            columns["nc4_mismatch"] = state["mismatches"] / examples
        own = state["squares"] / examples / int(present.sum())
    elif moments.has_class_scatter:
        own = _own_nc1(unit, whitener)
    if decisions is not None or moments.has_class_scatter:
        columns["nc1"] = own if math.isfinite(nc1) else torch.full_like(own, torch.nan)
        columns["nc1_share"] = moments.within_weights[present] * columns["nc1"]
    if weight is not None:
        columns["duality"] = _cosines(rows_of_present(moments, weight), unit)
    return ClassReports({name: column.cpu().numpy() for name, column in columns.items()}, moments, names)


def _own_nc1(moments: ClassMoments, whitener: Tensor | None) -> Tensor:
    """(k,) tr(Σ_c Σ_B⁺)/C of each class with examples, of moments at unit scale; nan without a whitener."""
    classes = moments.present.nonzero()[:, 0].tolist()
    if whitener is None:
        return moments.means.new_full((len(classes),), torch.nan, dtype=torch.float64)
    own = [((whitener @ moments.class_covariance(label)) * whitener).sum().clamp(min=0.0) for label in classes]
    return torch.stack(own).double() / len(classes)


def _norms(moments: ClassMoments) -> Tensor:
    """(C,) ‖μ_c − μ_G‖ in float64."""
    return torch.cat([torch.linalg.vector_norm(rows, dim=1) for _, rows in moments.centred_blocks()]).double()


def check_class_names(names: Sequence[str] | None, classes: int | None = None, *, exactly: bool = False) -> None:
    """Raise unless ``names`` are None or texts, one for each of so many classes; or more, where not ``exactly``."""
    if names is None:
        return
    if isinstance(names, (str, bytes)) or not isinstance(names, Sequence):
        raise InputError(f"expected class_names= to be a list of names, got {shown(names)}")
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"expected class_names= to be texts, got {shown(name)} among them")
    if classes is not None and (len(names) < classes or (exactly and len(names) > classes)):
        raise InputError(f"expected class_names= with a name for each of {classes:,} classes, got {len(names):,}")


def names_on(loader: object) -> Sequence[str] | None:
    """The names in ``classes`` of a loader's data set, as those of torchvision have it; None where there are none."""
    dataset = getattr(loader, "loader", loader)  # of a PreparedLoader
    dataset = getattr(dataset, "dataset", dataset)
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):  # of a Subset
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    return tuple(names) if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names) else None


def _cosines(rows: Tensor, moments: ClassMoments) -> Tensor:
    """(k,) cosine of each classifier row and its class's centred mean, nan where either is zero."""
    means = distinct_means(moments)
    step = max(1, (1 << 22) // means.shape[1])
    parts = zip(torch.split(rows, step), torch.split(means, step), strict=True)
    return torch.cat([(unit_rows(left.to(right.device)) * unit_rows(right)).sum(dim=1) for left, right in parts])


def nearest_means(means: Tensor) -> tuple[Tensor, Tensor]:
    """Of each row v_c of (k, p), the row c' ≠ c with the greatest cos(v_c, v_c'), and that cosine.

    A tile of pairs at a time, so that no k × k matrix is held. A row of zeros has no direction: its cosine is nan and
    its nearest row −1, and it is no other row's nearest.
    """
    count, zero = len(means), ~means.any(dim=1)
    best = means.new_full((count,), -torch.inf, dtype=torch.float64)
    where = torch.full((count,), -1, dtype=torch.int64, device=means.device)

    def take(mine: slice, others: slice, cosines: Tensor) -> None:
        greatest, which = cosines.max(dim=1)
        better = greatest > best[mine]
        best[mine] = torch.where(better, greatest, best[mine])
        where[mine] = torch.where(better, which + others.start, where[mine])

    for rows, columns in tiles(count):
        cosines = unit_rows(means[rows]) @ unit_rows(means[columns]).T
        cosines[zero[rows]], cosines[:, zero[columns]] = -torch.inf, -torch.inf
        if rows == columns:
            cosines.fill_diagonal_(-torch.inf)
        else:
            take(columns, rows, cosines.T)
        take(rows, columns, cosines)
    return where, torch.where(where < 0, torch.nan, best)


def printable(name: str) -> str:
    """A name in one line, without characters that a terminal would obey."""
    return "".join(each if each.isprintable() else "�" for each in " ".join(name.split()))


def _line(cells: Sequence[str]) -> str:
    """A row of the printed table, 80 columns wide."""
    name, *numbers, nearest = (cell if len(cell) <= 12 else f"{cell[:11]}…" for cell in cells)
    padded = "".join(f"{number:>{width}}" for number, (_, _, width, _) in zip(numbers, _TABLE, strict=True))
    return f"{name:<12}{padded}  {nearest}"
