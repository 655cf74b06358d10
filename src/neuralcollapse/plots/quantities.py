"""What figures call each metric, its formula for the caption, and the scale it is drawn on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuralcollapse.metrics.registry import METRICS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Quantity:
    """One metric in figures.

    Attributes:
        label: of the axis.
        series: its own name, where several share an axis.
        meaning: for the caption, with the formula in LaTeX between dollars.
        log: whether the axis is logarithmic; means over seeds are then geometric.
        percent: a share, given in per cent; its means are arithmetic.
    """

    label: str
    series: str = ""
    meaning: str = ""
    log: bool = True
    percent: bool = False


def _of_nc2(label: str, meaning: str) -> dict[str, Quantity]:
    name = label.replace(" ", "_")
    pair = {"means": "class means", "classifier": "classifier"}
    return {f"nc2.{name}_{key}": Quantity(f"NC2 {label}", series, meaning) for key, series in pair.items()}


QUANTITIES: dict[str, Quantity] = {
    "nc1": Quantity("NC1", "", r"NC1, the variability within classes, is $\mathrm{tr}(\Sigma_W\Sigma_B^{\dagger})/C$."),
    **_of_nc2("equinorm", r"Equinorm: the standard deviation of the norms over their mean."),
    **_of_nc2("equiangularity", r"Equiangularity: the standard deviation of the cosines between two classes."),
    **_of_nc2("maximal angle", r"Maximal angle: the mean distance of the cosines between two classes from $-1/(C-1)$."),
    "nc3": Quantity("NC3", "", r"NC3, self-duality, is $\|W^{\top}/\|W\|_F - \bar{M}/\|\bar{M}\|_F\|_F^2$."),
    "nc4_mismatch": Quantity(
        "NC4", "", "NC4 is the share of examples that the network and the nearest class mean decide differently.",
        percent=True,
    ),
    "train_error": Quantity("training error", percent=True),
    "test_error": Quantity("test error", log=False, percent=True),
    "mse.total": Quantity("MSE loss", "total L", r"The MSE loss $L$ of the last layer is the sum of three parts:"),
    "mse.nc1": Quantity("MSE loss", "NC1 part", r"$L_{\mathrm{NC1}}$, the variability within classes;"),
    "mse.nc23": Quantity("MSE loss", "NC2/3 part", r"$L_{\mathrm{NC2/3}}$, the class means against their targets;"),
    "mse.ls_perp": Quantity(
        "MSE loss", "L⊥ part", r"$L^{\perp}_{\mathrm{LS}}$, the distance of the classifier from the least-squares one."
    ),
    "mse.ls_perp_share": Quantity(
        "L⊥ / L", "", r"$L^{\perp}/L$ is $L^{\perp}_{\mathrm{LS}}/L$, zero on the central path."
    ),
    "mse.nc_ratio": Quantity("L_NC2/3 / L_NC1", "measured"),
    "mse.path_ratio": Quantity(
        "L_NC2/3 / L_NC1", "C/ω²",
        r"$C/\omega^2$ is $L_{\mathrm{NC2/3}}/L_{\mathrm{NC1}}$ on the central path where all $\omega_j$, the "
        r"singular values of $(\Sigma_W+\lambda I)^{-1/2}\bar{M}$, are equal.",
    ),
    "robustness": Quantity(
        "robustness\n(upper bound)", "mean",
        r"Adversarial robustness is $\|r(x)\|/\|x\|$, $r(x)$ being the perturbation that DeepFool finds: an "
        "upper bound of the smallest one.",
    ),
    "robustness.median": Quantity("robustness\n(upper bound)", "median"),
    "loss": Quantity("training loss"),
    "learning_rate": Quantity("learning rate"),
    "snr": Quantity(
        "signal to noise", "",
        r"The signal-to-noise spectrum: the singular values $\omega_j$ of $\Sigma_W^{-1/2}\bar{M}$, largest first.",
    ),
}  # fmt: skip


def quantity(metric: str) -> Quantity:
    """How a metric is drawn; one that has no entry is called by its name."""
    if metric.startswith("snr."):
        return QUANTITIES["snr"]
    later = Quantity(metric.replace("_", " "), log=False)
    return QUANTITIES.get(metric, later) if metric not in METRICS else later


def with_derived(table: pd.DataFrame) -> pd.DataFrame:
    """A tidy table with `test_error`, `train_error`, `mse.ls_perp_share`, `mse.nc_ratio` where they follow from it."""
    import pandas as pd

    parts, known = [table], set(table["metric"])

    def rows(metric: str) -> pd.DataFrame:
        return table[table["metric"] == metric]

    for name, source in (("test_error", "test_accuracy"), ("train_error", "accuracy")):
        if name not in known and source in known:
            parts.append(rows(source).assign(metric=name, value=1 - rows(source)["value"]))
    keys = [name for name in table.columns if name not in ("metric", "value")]
    for name, part, whole in (
        ("mse.ls_perp_share", "mse.ls_perp", "mse.total"),
        ("mse.nc_ratio", "mse.nc23", "mse.nc1"),
    ):
        if {part, whole} <= known:
            both = rows(part).merge(rows(whole), on=keys, suffixes=("", "_whole"))
            both = both.assign(metric=name, value=both["value"] / both["value_whole"])
            parts.append(both[list(table.columns)])
    return pd.concat(parts, ignore_index=True)
