"""Report: everything one measurement says, with names, as a table and as JSON-ready numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

from torch import Tensor

from ._linalg import norm
from .formulas.collapse import NC2
from .formulas.mse import MSEDecomposition
from .formulas.signal_to_noise import SNRSpectrum
from .metrics import METRICS
from .moments import ClassMoments, Weighting


@dataclass(frozen=True)
class Report:
    """How collapsed a last layer is.

    Attributes:
        nc1, nc2, nc3, nc4_mismatch: see :func:`neuralcollapse.nc1` and its neighbours; all tend to zero.
        mse: the decomposition of the MSE loss.
        snr: singular values of the signal-to-noise matrix; they grow without bound.
        accuracy: share of examples that the network classifies correctly; nearest_mean_accuracy: and the nearest class
            mean. Both, and NC4, are None where only moments were given.
        extra: the later metrics asked for, by name (see :mod:`neuralcollapse.metrics`).
        moments: of the features, to merge, to save, or to measure another split about.
    """

    num_examples: int
    num_classes: int
    classes_present: int
    dim: int
    weighting: Weighting
    accuracy: float | None
    nearest_mean_accuracy: float | None
    nc1: float
    nc2: NC2
    nc3: float
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
            "num_examples": self.num_examples,
            "num_classes": self.num_classes,
            "classes_present": self.classes_present,
            "dim": self.dim,
            "weighting": self.weighting,
            "accuracy": self.accuracy,
            "nearest_mean_accuracy": self.nearest_mean_accuracy,
            "nc1": _plain(self.nc1),
        }
        flat.update({f"nc2.{name}": _plain(value) for name, value in asdict(self.nc2).items()})
        flat["nc3"] = _plain(self.nc3)
        flat["nc4_mismatch"] = self.nc4_mismatch
        for name in ("total", "nc1", "nc23", "ls", "ls_perp"):
            flat[f"mse.{name}"] = _plain(getattr(self.mse, name))
        flat["mse.weight_ls_norm"] = _plain(norm(self.mse.weight_ls))
        flat["mse.weight_decay"] = self.mse.weight_decay
        flat["snr"] = [_plain(value) for value in self.snr.singular_values.tolist()]
        flat["snr_space"] = self.snr.space
        flat.update({name: _plain(value) for name, value in self.extra.items()})
        return flat

    def numbers(self) -> dict[str, float]:
        """What of ``to_dict`` is a number, non-finite ones too, for loggers of scalars."""
        flat = self.to_dict()
        names = [name for name, value in flat.items() if isinstance(value, (int, float)) or value in _NON_FINITE]
        return {name: float(flat[name]) for name in names}  # type: ignore[arg-type]

    def __str__(self) -> str:
        snr = self.snr.singular_values
        share = self.mse.ls_perp / self.mse.total if self.mse.total > 0 else 0.0
        lines = [
            f"Neural Collapse: {self.num_examples:,} examples, {self.classes_present} of {self.num_classes} classes, "
            f"{self.dim} features, each {self.weighting} counts alike",
            "",
            _row("accuracy", _share(self.accuracy), "argmax of the logits"),
            _row("NC1", f"{self.nc1:.4g}", "within-class variability, tr(Σ_W Σ_B⁺)/C"),
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
            _row("NC3", f"{self.nc3:.4g}", "self-duality of classifier and means"),
            _row("NC4 mismatch", _share(self.nc4_mismatch), "network ≠ nearest class mean"),
            _row("SNR", f"{float(snr[-1]):.4g} … {float(snr[0]):.4g}" if len(snr) else "none", "singular values"),
            "",
            _row("MSE loss", f"{self.mse.total:.4g}", f"weight decay λ = {self.mse.weight_decay:g}"),
            _row("  L_NC1", f"{self.mse.nc1:.4g}", "variability within classes"),
            _row("  L_NC2/3", f"{self.mse.nc23:.4g}", "class means against targets"),
            _row("  L⊥_LS", f"{self.mse.ls_perp:.4g}", f"distance from the central path, {share:.2%} of the loss"),
        ]
        if self.extra:
            lines.append("")
            lines += [f"  {name:<33}{value:>9.4g}   {METRICS[name].meaning}" for name, value in self.extra.items()]
        return "\n".join(lines)


_NON_FINITE = ("inf", "-inf", "nan")


def _row(name: str, value: str, meaning: str) -> str:
    return f"  {name:<20}{value:>22}   {meaning}"


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4%}"


def _pair(means: float, classifier: float) -> str:
    return f"{means:.4g} | {classifier:.4g}"


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
