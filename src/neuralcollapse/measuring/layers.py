"""measure_layers: Neural Collapse at every layer of a network, from one forward pass a batch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralcollapse._checks import InputError, as_word, shown
from neuralcollapse.measuring.measure import reports_of
from neuralcollapse.measuring.preparation import innermost, observed
from neuralcollapse.measuring.reading import Choice, Features, Layer, Reader
from neuralcollapse.measuring.report import Report
from neuralcollapse.measuring.stages import Spatial, Stages
from neuralcollapse.moments.class_moments import ClassMoments, Weighting


@dataclass(frozen=True)
class LayerReport:
    """The report on one layer.

    Attributes:
        name: as ``model.named_modules()`` has it.
        report: with ``nearest_mean_accuracy``, the depth literature's own number; its ``notes`` say what became of
            positions.
        probe: whether the classifier in the report is the layer's least-squares one (Proposition 1), as at every layer
            but the last, where it is the network's.
    """

    name: str
    report: Report
    probe: bool


class LayerReports:
    """Reports by layer, in the order the forward pass reaches them; ``print`` shows a table.

    Attributes:
        left_out: by name, default layers that ran and why they are not measured.
    """

    def __init__(self, reports: Iterable[LayerReport], left_out: Mapping[str, str] | None = None) -> None:
        self._reports = {each.name: each for each in reports}
        self.left_out = dict(left_out or {})

    def __getitem__(self, name: str) -> LayerReport:
        if name not in self._reports:
            raise InputError(f"expected one of the layers {', '.join(self._reports)}, got {name!r}")
        return self._reports[name]

    def __iter__(self) -> Iterator[LayerReport]:
        return iter(self._reports.values())

    def __len__(self) -> int:
        return len(self._reports)

    def to_dict(self) -> dict[str, dict[str, object]]:
        """By layer a flat dictionary that ``json.dumps`` takes, see :meth:`Report.to_dict`."""
        return {each.name: {"probe": each.probe, **each.report.to_dict()} for each in self}

    def __str__(self) -> str:
        width = max(len("layer"), *(len(name) for name in self._reports))
        heads = ("p", "NC1", "NC2 angle", "NC3", "NC4", "nearest mean", "L_LS")
        lines = [f"{'layer':<{width}}" + "".join(f"{head:>13}" for head in heads)]
        for each in self:
            report = each.report
            numbers = (
                f"{report.dim:,}",
                _number(report.nc1),
                _number(report.nc2.maximal_angle_means),
                _number(report.nc3),
                _share(report.nc4_mismatch),
                _share(report.nearest_mean_accuracy),
                _number(report.mse.ls),
            )
            lines.append(f"{each.name:<{width}}" + "".join(f"{number:>13}" for number in numbers))
        lines += [
            "",
            "NC2 angle: maximal angle of the class means. NC3, NC4: with the layer's least-squares classifier, at the",
            "last with the network's. Nearest mean: accuracy of the nearest class mean. L_LS: least MSE loss there.",
        ]
        notes: dict[str, list[str]] = {}
        for each in self:
            for note in each.report.notes:
                notes.setdefault(note, []).append(each.name)
        said = [f"{_several(names)}: {note}" for note, names in notes.items()]
        said += [f"{name} is left out: {reason}" for name, reason in self.left_out.items()]
        for text in said:
            lines += textwrap.wrap(text, 118, initial_indent="  ", subsequent_indent="      ")
        return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _several(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]} ({len(names)} layers)"


def measure_layers(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Sequence[str] | None = None,
    *,
    layer: Layer | None = None,
    features: Features | None = None,
    weight: Tensor | np.ndarray[Any, Any] | None = None,
    bias: Tensor | np.ndarray[Any, Any] | None = None,
    num_classes: int | None = None,
    spatial: Spatial = "mean",
    channel_axis: int | Mapping[str, int] | None = None,
    metrics: str | Sequence[str] | None = "default",
    weight_decay: float = 0.0,
    weighting: Weighting = "example",
    device: torch.device | str | None = None,
    memory_budget: int = 4 << 30,
    ood: Iterable[Any] | None = None,
    reference: LayerReports | Mapping[str, ClassMoments] | None = None,
    next_token: bool = False,
    distributed: bool = False,
) -> LayerReports:
    """Measure the outputs of several layers, and what enters the classifier, by one forward pass a batch.

    At a layer before the last the classifier is the least-squares one of its own features, so that every metric is
    defined there. Features of all layers together are kept up to ``memory_budget``, for NC4; beyond it the loader is
    gone through a second time.

    Args:
        model: left as it was.
        loader: as for :func:`neuralcollapse.measure`.
        layers: names of modules, as ``model.named_modules()`` gives them. By default the model's stages, which run
            once: its children, those of an only child instead of it, and where they hold a list of blocks, each of
            these (``bert.encoder.layer.0`` …, ``model.layers.0`` …). Those that give no features are left out, and
            said.
        layer, features, weight, bias, num_classes: the classifier, as for :func:`neuralcollapse.measure`.
        spatial: what becomes of an output with more than one position, such as (n, p, H, W) or (n, T, p): ``"mean"``
            over the positions, as in the literature on depth, without those that an ``attention_mask`` of the batch
            leaves out, or ``"flatten"``. Where labels are one a position, as in next-token prediction, each position
            is an example instead.
        channel_axis: the axis of the features in outputs with positions, of all layers or by name. By default told by
            the layer: 1 for convolutions, batch normalisation and pooling, −1 for linear layers, attention and layer
            normalisation; an error asks for it where neither is certain.
        metrics, weight_decay, weighting, device, ood, next_token, distributed: as for :func:`neuralcollapse.measure`.
        memory_budget: bytes of features to keep, and the most a layer's p × p scatter may take.
        reference: what this function gave for the training data, or moments by layer: see
            :func:`neuralcollapse.measure`.

    Returns:
        By layer, in the order of execution; the classifier's own name stands for what enters it.

    Raises:
        InputError: a layer that does not exist, does not run, runs twice or gives no tensor; an axis of features that
            is not certain; or as ``measure``.
    """

    if reference is not None and not isinstance(reference, (LayerReports, Mapping)):
        raise InputError(f"expected reference= of measure_layers, or moments by layer, got {shown(reference)}")

    as_word(weighting, "weighting", ("example", "class"))

    def of_reference(name: str) -> ClassMoments:
        assert reference is not None
        if name not in (
            known := [each.name for each in reference] if isinstance(reference, LayerReports) else reference
        ):
            raise InputError(f"expected a reference with the layer {name!r}, got {', '.join(known) or 'none'}")
        return reference[name].report.moments if isinstance(reference, LayerReports) else reference[name]

    def check_room(name: str, dim: int, classes: int) -> None:
        need = 8 * dim * dim * (classes if weighting == "class" else 1)
        if need > memory_budget:
            raise InputError(
                f"expected the layer {name!r} to fit memory_budget = {memory_budget:,} bytes, its {dim:,} features "
                f"need {need:,}: use spatial='mean', or raise it"
            )

    with observed(model, loader, ood) as inside:
        stages = Stages(inside, layers, spatial, channel_axis)
        choice = Choice(innermost(layer), innermost(features), weight, bias, num_classes)
        reader = Reader(inside, choice, next_token, stages)
        reports = reports_of(
            inside,
            loader,
            reader,
            weight_decay=weight_decay,
            weighting=weighting,
            device=device,
            memory_budget=memory_budget,
            metrics=metrics,
            ood=ood,
            reference=None if reference is None else of_reference,
            distributed=distributed,
            check_room=check_room,
        )
    assert reader.head is not None
    last = reader.head.name
    return LayerReports((LayerReport(name, each, name != last) for name, each in reports.items()), stages.left_out)
