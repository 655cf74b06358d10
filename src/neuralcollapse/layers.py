"""measure_layers: Neural Collapse at every layer of a network, from one forward pass a batch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ._checks import InputError, check_features, check_labels
from ._networks import observed
from .capture import Captured, capture_classifier, evaluation
from .formulas.least_squares import least_squares_classifier
from .measure import make_report
from .metrics import chosen
from .moments import ClassMoments, Weighting
from .passes import Batches, Fingerprint, NoData, Tally
from .report import Report

Spatial = Literal["mean", "flatten"]


@dataclass(frozen=True)
class LayerReport:
    """The report on one layer.

    Attributes:
        name: as ``model.named_modules()`` has it.
        report: with ``nearest_mean_accuracy``, the depth literature's own number.
        probe: whether the classifier in the report is the layer's least-squares one (Proposition 1), as at every layer
            but the last, where it is the network's.
    """

    name: str
    report: Report
    probe: bool


class LayerReports:
    """Reports by layer, in the order the forward pass reaches them; ``print`` shows a table."""

    def __init__(self, reports: Iterable[LayerReport]) -> None:
        self._reports = {each.name: each for each in reports}

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
            assert report.nc4_mismatch is not None and report.nearest_mean_accuracy is not None
            numbers = (
                f"{report.dim:,}",
                f"{report.nc1:.4g}",
                f"{report.nc2.maximal_angle_means:.4g}",
                f"{report.nc3:.4g}",
                f"{report.nc4_mismatch:.2%}",
                f"{report.nearest_mean_accuracy:.2%}",
                f"{report.mse.ls:.4g}",
            )
            lines.append(f"{each.name:<{width}}" + "".join(f"{number:>13}" for number in numbers))
        lines += [
            "",
            "NC2 angle: maximal angle of the class means. NC3, NC4: with the layer's least-squares classifier, at the",
            "last with the network's. Nearest mean: accuracy of the nearest class mean. L_LS: least MSE loss there.",
        ]
        return "\n".join(lines)


def measure_layers(
    model: nn.Module,
    loader: Iterable[Any],
    layers: Sequence[str] | None = None,
    *,
    spatial: Spatial = "mean",
    metrics: str | Sequence[str] = "default",
    weight_decay: float = 0.0,
    weighting: Weighting = "example",
    device: torch.device | str | None = None,
    memory_budget: int = 4 << 30,
    ood: Iterable[Any] | None = None,
) -> LayerReports:
    """Measure the outputs of several layers, and what enters the classifier, by one forward pass a batch.

    At a layer before the last the classifier is the least-squares one of its own features, so that every metric is
    defined there. Features of all layers together are kept up to ``memory_budget``, for NC4; beyond it the loader is
    gone through a second time.

    Args:
        model: its logits come from an ``nn.Linear``; left as it was.
        loader: as for :func:`neuralcollapse.measure`.
        layers: names of modules, as ``model.named_modules()`` gives them. By default the model's stages: its children,
            those of an only child instead of it, which run once and before the classifier.
        spatial: what becomes of an output with more than one position, (n, p, H, W) or (n, T, p): ``"mean"`` over the
            positions, as in the literature on depth, or ``"flatten"``. Where labels are one a position, as in
            next-token prediction, each position is an example instead.
        metrics, weight_decay, weighting, device, ood: as for :func:`neuralcollapse.measure`.
        memory_budget: bytes of features to keep, and the most a layer's p × p scatter may take.

    Returns:
        By layer, in the order of execution; the classifier's own name stands for what enters it.

    Raises:
        InputError: a layer that does not exist, does not run, runs twice or gives no tensor; or as ``measure``.
    """
    chosen(metrics)
    if spatial not in ("mean", "flatten"):
        raise InputError(f"expected spatial 'mean' or 'flatten', got {spatial!r}")
    with observed(model, loader, ood) as model, evaluation(model):
        target = next((p.device for p in model.parameters()), torch.device("cpu"))
        if device is not None:
            target = torch.device(device)
        outputs = _Outputs(model, layers, spatial)
        kept: list[tuple[dict[str, Tensor], Tensor]] | None = []
        size = 0
        moments: dict[str, ClassMoments] = {}
        seen: dict[str, Fingerprint] = {}
        for features, labels in outputs.batches(Batches(model, loader, target)):
            for name, values in features.items():
                if name not in moments:
                    _require_room(name, values.shape[1], outputs.classes, weighting, memory_budget)
                    moments[name] = ClassMoments(outputs.classes, weighting=weighting)
                    seen[name] = Fingerprint(outputs.classes)
                moments[name].update(values, labels)
                seen[name].add(values, labels)
                size += values.numel() * values.element_size()
            if kept is not None and size <= memory_budget:
                kept.append((features, labels))
            else:
                kept = None
        if not moments:
            raise NoData
        classifiers = {name: outputs.classifier_of(name, moments[name], weight_decay) for name in moments}
        tallies = {name: Tally(moments[name], *classifiers[name]) for name in moments}
        again = {name: Fingerprint(outputs.classes) for name in moments}
        second = kept if kept is not None else outputs.batches(Batches(model, loader, target))
        for features, labels in second:
            for name, values in features.items():
                tallies[name].add(values, labels)
                if kept is None:
                    again[name].add(values, labels)
        if kept is None:
            for name, fingerprint in seen.items():
                fingerprint.require_same(again[name])
        outside = {} if ood is None else _ood_means(outputs, Batches(model, ood, target, labelled=False))
    reports = []
    for name in moments:
        report = make_report(
            moments[name],
            *classifiers[name],
            weight_decay=weight_decay,
            metrics=metrics,
            ood_mean=outside.get(name),
            tally=tallies[name],
        )
        reports.append(LayerReport(name, report, probe=name != outputs.last))
    return LayerReports(reports)


@dataclass
class _Recorded:
    """What the hooks saw in one forward pass, in order."""

    outputs: list[tuple[str, Any]] = field(default_factory=list)


class _Outputs:
    """Outputs of named layers and the classifier's input, as (n, p) features, for each batch."""

    def __init__(self, model: nn.Module, layers: Sequence[str] | None, spatial: Spatial) -> None:
        self._model, self._spatial = model, spatial
        self._modules = dict(model.named_modules())
        self._chosen = layers is not None
        self._names = _stages(model) if layers is None else _known(self._modules, layers)
        self._layer: nn.Linear | None = None
        self.last = ""

    @property
    def classes(self) -> int:
        """C, once a batch has run."""
        assert self._layer is not None
        return self._layer.out_features

    def classifier_of(self, name: str, moments: ClassMoments, weight_decay: float) -> tuple[Tensor, Tensor | None]:
        """(weight, bias): the network's at the last layer, the least-squares ones before."""
        if name != self.last:
            return least_squares_classifier(moments, weight_decay)
        assert self._layer is not None
        return self._layer.weight.detach(), None if self._layer.bias is None else self._layer.bias.detach()

    def batches(self, batches: Batches) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """(features by layer, labels) of each batch."""
        with (
            _recording(self._modules, self._names) as recorded,
            capture_classifier(self._model, self._layer) as captured,
        ):
            for labels, _output in batches:
                outputs, entered = self._settled(recorded, captured)
                recorded.outputs.clear()
                labels = labels if batches.labelled else torch.zeros(entered.shape[:-1], dtype=torch.int64)
                features = {name: self._features(name, output, labels) for name, output in outputs.items()}
                features[self.last] = entered.flatten(0, -2) if entered.ndim > 2 else entered
                labels = labels.flatten().to(entered.device)
                for values in features.values():
                    check_features(values)
                if batches.labelled:
                    check_labels(labels, len(features[self.last]), self.classes)
                yield features, labels

    def _settled(self, recorded: _Recorded, captured: Captured) -> tuple[dict[str, Any], Tensor]:
        """Outputs by name; after the first batch the default layers are those that ran once before the classifier."""
        entered = captured.take()
        names = [name for name, _ in recorded.outputs]
        if self._layer is None:
            self._layer = captured.layer
            self.last = next((n for n, m in self._modules.items() if m is self._layer), "classifier")
            if not self._chosen:
                holds = {n for n in self._names if self._layer in self._modules[n].modules()}
                self._names = [n for n in dict.fromkeys(names) if names.count(n) == 1 and n not in holds]
            elif missing := [n for n in self._names if n not in names]:
                raise InputError(f"expected the layer {missing[0]!r} to run in the forward pass, it did not")
            else:
                self._names = [n for n in dict.fromkeys(names) if n != self.last]
        for name in self._names:
            if names.count(name) != 1:
                times = names.count(name)
                raise InputError(f"expected the layer {name!r} to run once in each forward pass, it ran {times} times")
        return {name: output for name, output in recorded.outputs if name in self._names}, entered

    def _features(self, name: str, output: Any, labels: Tensor) -> Tensor:
        values = _first_tensor(output)
        if values is None or values.ndim < 2 or not values.is_floating_point():
            got = f"shape {tuple(values.shape)}" if values is not None else type(output).__name__
            raise InputError(f"expected the layer {name!r} to give features (n, p, …), got {got}")
        values = values.detach()
        if labels.ndim > 1 and values.shape[: labels.ndim] == labels.shape:
            return values.flatten(0, labels.ndim - 1).flatten(1)
        if values.ndim == 2:
            return values
        if self._spatial == "flatten":
            return values.flatten(1)
        wide = values.float() if values.dtype != torch.float64 else values
        # (n, T, p) of a sequence has its features last, (n, p, H, W) of an image first
        return wide.mean(dim=1) if values.ndim == 3 else wide.flatten(2).mean(dim=2)


@contextmanager
def _recording(modules: Mapping[str, nn.Module], names: Sequence[str]) -> Iterator[_Recorded]:
    recorded = _Recorded()

    def hook_of(name: str) -> Any:
        def hook(_module: nn.Module, _arguments: Any, output: Any) -> None:
            first = _first_tensor(output)
            # a copy: the next layer may rectify the output in place
            recorded.outputs.append((name, output if first is None else first.detach().clone()))

        return hook

    with ExitStack() as stack:
        for name in names:
            stack.callback(modules[name].register_forward_hook(hook_of(name)).remove)
        yield recorded


def _stages(model: nn.Module) -> list[str]:
    """Names of the children; of an only child's, and so on, while there is but one."""
    prefix, module = "", model
    while len(children := list(module.named_children())) == 1:
        prefix, module = f"{prefix}{children[0][0]}.", children[0][1]
    if not children:
        return []
    return [prefix + name for name, _ in children]


def _known(modules: Mapping[str, nn.Module], names: Sequence[str]) -> list[str]:
    if isinstance(names, str):
        raise InputError(f"expected a list of layers, got the text {names!r}: write [{names!r}]")
    for name in names:
        if name not in modules or not name:
            near = difflib.get_close_matches(name, modules, 3) or list(modules)[-3:]
            raise InputError(f"expected names of layers, got {name!r}; did you mean {', '.join(near)}?")
    if not names:
        raise InputError("expected at least one layer, got none")
    return list(dict.fromkeys(names))


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Mapping):
        output = tuple(output.values())
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def _require_room(name: str, dim: int, classes: int, weighting: Weighting, budget: int) -> None:
    need = 8 * dim * dim * (classes if weighting == "class" else 1)
    if need > budget:
        raise InputError(
            f"expected the layer {name!r} to fit memory_budget = {budget:,} bytes, its {dim:,} features need {need:,}: "
            "use spatial='mean', or raise it"
        )


def _ood_means(outputs: _Outputs, batches: Batches) -> dict[str, Tensor]:
    means: dict[str, ClassMoments] = {}
    for features, labels in outputs.batches(batches):
        for name, values in features.items():
            means.setdefault(name, ClassMoments(1, scatter="trace")).update(values, labels)
    if not means:
        raise InputError("expected out-of-distribution data with at least one batch, got none")
    return {name: moments.means[0] for name, moments in means.items()}
