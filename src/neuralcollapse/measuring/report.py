"""Report: everything one measurement says, with names, as a table and as JSON-ready numbers."""

from __future__ import annotations

import math
import textwrap
from dataclasses import asdict, dataclass, field

from torch import Tensor

from neuralcollapse._files import finite
from neuralcollapse._linalg import norm
from neuralcollapse.metrics.collapse import NC2
from neuralcollapse.metrics.mse import MSEDecomposition
from neuralcollapse.metrics.registry import METRICS
from neuralcollapse.metrics.signal_to_noise import SNRSpectrum
from neuralcollapse.moments.class_moments import ClassMoments, Weighting


@dataclass(frozen=True)
class Report:
    """How collapsed a last layer is.

    What needs a classifier is None where there is none.

    Attributes:
        layer: which layer, as ``model.named_modules()`` has it, or "features given" where there was no network.
        notes: what must be known to read the numbers, one sentence each.
        nc1, nc2, nc3, nc4_mismatch: see :func:`neuralcollapse.nc1` and its neighbours; all tend to zero.
        mse: the decomposition of the MSE loss.
        snr: singular values of the signal-to-noise matrix; they grow without bound.
        accuracy: share of examples that the network classifies correctly; nearest_mean_accuracy: and the nearest class
            mean. Both, and NC4, are None where only moments were given.
        extra: the later metrics asked for, by name (see :mod:`neuralcollapse.metrics.registry`).
        moments: of the features, to merge, to save, or to measure another split about.
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
    moments: ClassMoments = field(repr=False)

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
        flat: dict[str, object] = {
            "layer": self.layer,
            "notes": list(self.notes),
            "num_examples": self.num_examples,
            "num_classes": self.num_classes,
            "classes_present": self.classes_present,
            "dim": self.dim,
            "weighting": self.weighting,
            "accuracy": finite(self.accuracy),
            "nearest_mean_accuracy": finite(self.nearest_mean_accuracy),
            "nc1": finite(self.nc1),
        }
        flat.update({f"nc2.{name}": finite(value) for name, value in asdict(self.nc2).items()})
        flat["nc3"] = finite(self.nc3)
        flat["nc4_mismatch"] = finite(self.nc4_mismatch)
        for name in ("total", "nc1", "nc23", "ls", "ls_perp"):
            flat[f"mse.{name}"] = finite(getattr(self.mse, name))
        flat["mse.weight_ls_norm"] = finite(norm(self.mse.weight_ls))
        flat["mse.weight_decay"] = self.mse.weight_decay
        flat["snr"] = [finite(value) for value in self.snr.singular_values.tolist()]
        flat["snr_space"] = self.snr.space
        flat.update({name: finite(value) for name, value in self.extra.items()})
        return flat

    def numbers(self) -> dict[str, float]:
        """What of ``to_dict`` is a number, non-finite ones too, for loggers of scalars."""
        found = {}
        for name, value in self.to_dict().items():
            written = isinstance(value, str) and name not in _WORDS
            if written or isinstance(value, (int, float)):
                found[name] = float(value)  # type: ignore[arg-type]
        return found

    def __str__(self) -> str:
        loss = self.mse
        lines = [
            f"Neural Collapse: {self.num_examples:,} examples, {self.classes_present} of {self.num_classes} classes, "
            f"{self.dim} features, each {self.weighting} counts alike",
            f"Layer: {self.layer}",
            "",
            _row("accuracy", _share(self.accuracy), "argmax of the logits"),
            _row("NC1", _number(self.nc1), "within-class variability, tr(Σ_W Σ_B⁺)/C"),
            _row("NC2 equinorm", _pair(self.nc2.equinorm_means, self.nc2.equinorm_classifier), "means | classifier"),
            _row(
                "NC2 equiangularity",
                _pair(self.nc2.equiangularity_means, self.nc2.equiangularity_classifier),
                "means | classifier, Std of cosines",
            ),
            _row(
                "NC2 maximal angle",
                _pair(self.nc2.maximal_angle_means, self.nc2.maximal_angle_classifier),
                "means | classifier, Avg |cos + 1/(C−1)|",
            ),
            _row("NC3", _number(self.nc3), "self-duality of classifier and means"),
            _row("NC4 mismatch", _share(self.nc4_mismatch), "network ≠ nearest class mean"),
            _row("SNR", _range(self.snr.singular_values), "singular values of Σ_W^{-1/2} M̄"),
            "",
            _row("MSE loss", _number(loss.total), f"weight decay λ = {loss.weight_decay:g}"),
            _row("  L_NC1", _number(loss.nc1), "variability within classes"),
            _row("  L_NC2/3", _number(loss.nc23), "class means against targets"),
            _row("  L⊥_LS", _number(loss.ls_perp), f"distance from the central path{_of_loss(loss)}"),
        ]
        if self.extra:
            lines.append("")
            lines += [f"  {name:<33}{value:>9.4g}   {METRICS[name].meaning}" for name, value in self.extra.items()]
        if self.notes:
            lines.append("")
            for note in self.notes:
                lines += textwrap.wrap(note, 118, initial_indent="  Note: ", subsequent_indent="        ")
        return "\n".join(lines)


# What a dictionary of a report holds in words; any other text in it is a number that is not finite.
_WORDS = ("layer", "weighting", "snr_space")
_MISSING = "not measured"
NO_CLASSIFIER = "no classifier: what needs one is not measured"


def _row(name: str, value: str, meaning: str) -> str:
    return f"  {name:<20}{value:>22}   {meaning}"


def _share(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.4%}"


def _number(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.4g}"


def _pair(means: float, classifier: float | None) -> str:
    return f"{means:.4g} | {'–' if classifier is None else f'{classifier:.4g}'}"


def _range(values: Tensor) -> str:
    """The least and the greatest of descending values, of which there may be none."""
    return "none" if not len(values) else f"{float(values[-1]):.4g} … {float(values[0]):.4g}"


def _of_loss(loss: MSEDecomposition) -> str:
    """The share that the distance from the central path has, where there is a finite loss."""
    if loss.total is None or loss.ls_perp is None or not 0.0 < loss.total < math.inf:
        return ""
    return f", {loss.ls_perp / loss.total:.2%} of the loss"
