"""measure_layers: Neural Collapse at every layer of a network, from one forward pass a batch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from torch import nn

from neuralcollapse._checks import InputError, shown
from neuralcollapse._errors import suggest
from neuralcollapse._html import curve, folded, listing, paragraph, table
from neuralcollapse.measuring.batch_norm import prepared_with_statistics
from neuralcollapse.measuring.engine import run_passes
from neuralcollapse.measuring.forward import FeatureReader
from neuralcollapse.measuring.layer_outputs import LayerOutputs, Spatial
from neuralcollapse.measuring.options import MeasureKeywords, MeasureOptions, with_options
from neuralcollapse.measuring.report import Report, formatted
from neuralcollapse.measuring.tidy import UNLABELLED, tidy_table
from neuralcollapse.moments.class_moments import ClassMoments
from neuralcollapse.plots import require_matplotlib

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_HEADS = ("layer", "p", "NC1", "NC2 angle", "NC3", "NC4", "nearest", "L_LS")
_LEGEND = (
    "NC2 angle: maximal angle of the class means. NC3, NC4: with the layer's least-squares classifier, at the last "
    "with the network's. nearest: accuracy of the nearest class mean. L_LS: least MSE loss there."
)


@dataclass(frozen=True)
class LayerReport:
    """The report on one layer.

    Attributes:
        name: as ``model.named_modules()`` has it.
        report: its ``nearest_mean_accuracy`` is the number of the literature on depth, its ``notes`` say what became of
            positions.
        probe: whether the classifier in the report is the layer's least-squares one (Proposition 1), as at every layer
            but the last, where it is the network's.

    Example:
        >>> import torch
        >>> import neuralcollapse as nc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
        >>> reports = nc.measure_layers(model, [(torch.eye(4), torch.tensor([0, 1, 0, 1]))])
        >>> [(each.name, each.probe) for each in reports]
        [('0', True), ('1', True), ('2', False)]
    """

    name: str
    report: Report
    probe: bool


class LayerReports:
    """Reports by layer, in the order the forward pass reaches them; ``print`` shows a table.

    Two are equal if their layers and reports are.

    Attributes:
        left_out: by name, default layers that ran and why they are not measured.

    Example:
        >>> import torch
        >>> import neuralcollapse as nc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
        >>> reports = nc.measure_layers(model, [(torch.eye(4), torch.tensor([0, 1, 0, 1]))])
        >>> reports['1'].report.dim, len(reports)
        (3, 3)
    """

    def __init__(self, reports: Iterable[LayerReport], left_out: Mapping[str, str] | None = None) -> None:
        self._reports = {each.name: each for each in reports}
        self.left_out = dict(left_out or {})

    def __getitem__(self, name: str) -> LayerReport:
        if name not in self._reports:
            known = ", ".join(self._reports)
            raise InputError(f"expected one of the layers {known}, got {shown(name)}{suggest(name, self._reports)}")
        return self._reports[name]

    def __iter__(self) -> Iterator[LayerReport]:
        return iter(self._reports.values())

    def __len__(self) -> int:
        return len(self._reports)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LayerReports):
            return NotImplemented
        return self.left_out == other.left_out and list(self._reports.values()) == list(other._reports.values())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"LayerReports({', '.join(self._reports)})"

    @property
    def moments(self) -> dict[str, ClassMoments]:
        """By layer, the moments of the features: ``reference=`` of another split's measurement takes them."""
        return {each.name: each.report.moments for each in self}

    def to_dict(self) -> dict[str, dict[str, object]]:
        """By layer a flat dictionary that ``json.dumps`` takes, see :meth:`Report.to_dict`."""
        return {each.name: {"probe": each.probe, **each.report.to_dict()} for each in self}

    def to_frame(self) -> pd.DataFrame:
        """The numbers of all layers as a tidy table, see :meth:`Report.to_frame`; `layer` is the layer's name."""
        return tidy_table((UNLABELLED, {**each.report.to_dict(), "layer": each.name}) for each in self)

    def plot(self, metric: str | Sequence[str] = "nc1", *, ax: Axes | None = None) -> Axes:
        """Draw one or several metrics from the first layer to the last.

        Args:
            metric: names, as the column `metric` of :meth:`to_frame` has them.
            ax: where; by default pyplot's current axes.

        Raises:
            InputError: an unknown metric, or matplotlib or pandas is not installed.
        """
        require_matplotlib()
        from neuralcollapse.plots.layers import over_layers
        from neuralcollapse.plots.quantities import with_derived

        table = with_derived(self.to_frame())
        names, known = [metric] if isinstance(metric, str) else list(metric), list(table["metric"].unique())
        for name in names:
            if name not in known:
                raise InputError(f"unknown metric {shown(name)}{suggest(name, known)}; to_frame() has those measured")
        return over_layers(table[table["metric"].isin(names)], ax)

    def __str__(self) -> str:
        width = max(len("layer"), *(len(name) for name in self._reports))
        lines = [
            f"{name:<{width}}" + "".join(f"{number:>10}" for number in numbers)
            for name, *numbers in (_HEADS, *self._cells())
        ]
        lines.append("")
        for sentence in (_LEGEND, *self._sentences()):
            lines += textwrap.wrap(sentence, 80, subsequent_indent="    ")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        reports = [each.report for each in self]
        depth = range(len(reports))
        curves = [
            (name, curve(depth, [getattr(report, key) for report in reports], f"{name} from layer to layer", log=log))
            for name, key, log in (("NC1", "nc1", True), ("nearest mean", "nearest_mean_accuracy", False))
            if all(getattr(report, key) is not None for report in reports)
        ]
        last = reports[-1]
        return "".join(
            (
                table(_HEADS, self._cells()),
                table([f"{name} from layer to layer" for name, _ in curves], [[each for _, each in curves]]),
                paragraph(_LEGEND),
                listing(self._sentences()),
                folded(f"In words, of the last layer, {last.layer}", listing(last.reading())),
            )
        )

    def _cells(self) -> Iterator[tuple[str, ...]]:
        for each in self:
            report = each.report
            yield (
                each.name,
                f"{report.dim:,}",
                formatted(report.nc1, ".3g", "–"),
                formatted(report.nc2.maximal_angle_means, ".3g", "–"),
                formatted(report.nc3, ".3g", "–"),
                formatted(report.nc4_mismatch, ".2%", "–"),
                formatted(report.nearest_mean_accuracy, ".2%", "–"),
                formatted(report.mse.ls, ".3g", "–"),
            )

    def _sentences(self) -> list[str]:
        """The notes, each with its layers, and why layers are left out."""
        notes: dict[str, list[str]] = {}
        for each in self:
            for note in each.report.notes:
                notes.setdefault(note, []).append(each.name)
        sentences = []
        for note, names in notes.items():
            listed = ", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]} ({len(names)} layers)"
            sentences.append(f"{listed}: {note}")
        return [*sentences, *(f"{name} is left out: {reason}" for name, reason in self.left_out.items())]


@with_options
def measure_layers(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Sequence[str] | None = None,
    *,
    spatial: Spatial = "mean",
    channel_axis: int | Mapping[str, int] | None = None,
    **options: Unpack[MeasureKeywords],
) -> LayerReports:
    """Measure the outputs of several layers, and what enters the classifier, by one forward pass a batch.

    At a layer before the last the classifier is the least-squares one of its own features, so that every metric is
    defined there. ``layer``, ``features``, ``weight`` and ``bias`` say which the last one is.

    Args:
        model: left as it was.
        loader: as for :func:`neuralcollapse.measure`.
        layers: names of modules, as ``model.named_modules()`` gives them. By default the model's stages, which run
            once: its children, those of an only child instead of it, and where they hold a list of blocks, each of
            these (``bert.encoder.layer.0`` …, ``model.layers.0`` …). Stages that give no features are left out, and
            listed with the reason.
        spatial: what becomes of an output with more than one position, such as (n, p, H, W) or (n, T, p): ``"mean"``
            over the positions, as in the literature on depth, without those that an ``attention_mask`` of the batch
            leaves out, or ``"flatten"``. Where each position has a label, as in next-token prediction, each position
            is an example instead.
        channel_axis: the axis of the features in outputs with positions, of all layers or by name. By default the layer
            tells it: 1 for convolutions, batch normalisation and pooling, −1 for linear layers, attention and layer
            normalisation; an error asks for it where neither is certain.
        **options

        ``memory_budget`` is for the features of all layers together, and bounds the p × p scatter of each.

    Returns:
        By layer, in the order of execution; the classifier's own name stands for what enters it.

    Raises:
        InputError: a layer that does not exist, does not run, runs twice or gives no tensor; an axis of features that
            is not certain; or as ``measure``.

    Example:
        >>> import torch
        >>> import neuralcollapse as nc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
        >>> reports = nc.measure_layers(model, [(torch.eye(4), torch.tensor([0, 1, 0, 1]))])
        >>> [each.name for each in reports]
        ['0', '1', '2']
    """
    checked = MeasureOptions.of(options, "nc.measure_layers", ("layers", "spatial", "channel_axis"))
    if checked.confidence is not None:  # least-squares classifiers of the layers would not be those of a resample
        raise InputError(
            "expected confidence= with nc.measure, for the classifier's own layer, not with measure_layers"
        )
    if isinstance(checked.reference, (ClassMoments, Report)):
        got = shown(checked.reference)
        raise InputError(f"expected reference= of measure_layers, or moments by layer, got {got}")

    with prepared_with_statistics(model, loader, checked) as ready:
        outputs = LayerOutputs(ready.model, layers, spatial, channel_axis)
        reader = FeatureReader(ready.model, ready.options, outputs)
        reports = run_passes(reader, loader, ready.options, ready.notes, ready.seen)
    last = next(reversed(reports))
    return LayerReports((LayerReport(name, each, name != last) for name, each in reports.items()), outputs.left_out)
