"""What each number of the report means: one sentence, its formula in MathML, and its value at full collapse.

The formulas are those of `metrics/`; the sources stand in the docstrings there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from neuralcollapse.measuring.reading import Level, reading
from neuralcollapse.metrics.registry import METRICS
from neuralcollapse.report.mathml import mathml
from neuralcollapse.report.metric_formulas import formula_of


@dataclass(frozen=True)
class Explanation:
    """What the page says of one number, or of several of one formula.

    Args:
        title: its name in headings.
        sentence: what it measures.
        formula: MathML.
        names: of the numbers in a history that it explains.
        good: its value at full collapse; empty where collapse says nothing of it.
    """

    title: str
    sentence: str
    formula: Markup
    names: tuple[str, ...] = ()
    good: str = ""


def _of_vectors(name: str) -> tuple[str, str]:
    return f"nc2.{name}_means", f"nc2.{name}_classifier"


EXPLANATIONS: dict[str, Explanation] = {
    "nc1": Explanation(
        "NC1: variability within the classes",
        "How far features lie from the mean of their class, in units of how far the class means lie apart.",
        mathml(r"NC1 = \frac{tr(Σ_W Σ_B^+)}{C}"),
        ("nc1",),
        "0",
    ),
    "equinorm": Explanation(
        "NC2: equal norms",
        "How much the lengths of the vectors v (class means less the global mean, or rows of the classifier) differ "
        "from class to class.",
        mathml(r"\frac{Std_c ‖v_c‖}{Avg_c ‖v_c‖}"),
        _of_vectors("equinorm"),
        "0",
    ),
    "equiangularity": Explanation(
        "NC2: equal angles",
        "How much the angles between the vectors v (class means less the global mean, or rows of the classifier) "
        "differ from pair to pair.",
        mathml("Std_{c ≠ d} cos(v_c, v_d)"),
        _of_vectors("equiangularity"),
        "0",
    ),
    "maximal_angle": Explanation(
        "NC2: maximal angles",
        "How far the angles are from the largest that C vectors can all have with one another, that of a simplex.",
        mathml(r"Avg_{c ≠ d} |cos(v_c, v_d) + \frac{1}{C − 1}|"),
        _of_vectors("maximal_angle"),
        "0",
    ),
    "nc3": Explanation(
        "NC3: self-duality",
        "How far the rows of the classifier are from the class means, each of the two scaled to norm 1.",
        mathml(r"‖\frac{W^⊤}{‖W‖_F} − \frac{\bar{M}}{‖\bar{M}‖_F}‖_F^2"),
        ("nc3",),
        "0",
    ),
    "nc4": Explanation(
        "NC4: nearest class mean",
        "The share of examples for which the network decides otherwise than the nearest class mean.",
        mathml("P[arg max_c (w_c · h + b_c) ≠ arg min_c ‖h − μ_c‖]"),
        ("nc4_mismatch",),
        "0",
    ),
    "accuracy": Explanation(
        "Accuracy",
        "The share of examples classified correctly: by the network on the training and the test set, and by the "
        "nearest class mean on the training set.",
        mathml("P[arg max_c (w_c · h + b_c) = y]"),
        ("train_accuracy", "accuracy", "test_accuracy", "nearest_mean_accuracy", "train_error"),
    ),
    "loss": Explanation(
        "The MSE loss and its parts",
        "The paper's squared-error loss, split exactly into the variability within classes, the class means' distance "
        "from their targets, and what the classifier adds by not being the least-squares one for its features.",
        mathml(
            r"L = L_{NC1} + L_{NC2/3} + L_LS^⊥ = "
            r"\frac{1}{2} Ave_{i,c} ‖\tilde{W} \tilde{h} − y‖^2 + \frac{λ}{2} ‖\tilde{W}‖_F^2"
        ),
        ("mse.total", "mse.nc1", "mse.nc23", "mse.ls", "mse.weight_ls_norm", "mse.weight_decay"),
    ),
    "share": Explanation(
        "Distance from the central path",
        "Which share of the MSE loss is there because the classifier is not the least-squares one; on the central "
        "path it is 0.",
        mathml(
            r"\frac{L_LS^⊥}{L}, L_LS^⊥ = "
            r"\frac{1}{2} tr[(\tilde{W} − \tilde{W}_LS) (K + λ I) (\tilde{W} − \tilde{W}_LS)^⊤]"
        ),
        ("mse.ls_perp",),
        "0 on the central path",
    ),
    "path_ratio": Explanation(
        "L_NC2/3 beside L_NC1 on the central path",
        "What L_NC2/3 / L_NC1 is on the central path once all singular values are equal: it falls to 0 with collapse, "
        "so that L_NC2/3 falls fastest. ω² is their mean square, with the weight decay λ beside the spread.",
        mathml(r"\frac{C}{ω^2}, ω_j = σ_j((Σ_W + λ I)^{−1/2} \bar{M})"),
        ("mse.path_ratio",),
        "0",
    ),
    "spectrum": Explanation(
        "Signal-to-noise spectrum",
        "The singular values of the class means measured in units of the spread within classes; collapse makes all "
        "C − 1 of them grow without bound and become equal.",
        mathml(r"ω_j = σ_j(Σ_W^{−1/2} \bar{M})"),
        ("snr",),
        "∞, all equal",
    ),
    "closed_form": Explanation(
        "The closed form over the spectrum",
        "On the central path each singular value moves by this equation from its first measured value; one clock, "
        "fitted to all of them, says which time t of the equation belongs to an epoch.",
        mathml("c_1 log ω_j + c_2 ω_j^2 + c_3 ω_j^4 = a_j + t"),
    ),
    "matrix": Explanation(
        "Angles between class means",
        "The cosine of each pair of class means less that of a simplex: orange pairs point more alike than in "
        "a collapsed network, blue pairs less.",
        mathml(r"cos(μ_c − μ_G, μ_d − μ_G) + \frac{1}{C − 1}"),
        good="0",
    ),
    "robustness": Explanation(
        "Robustness",
        "The mean relative size of a perturbation, found by DeepFool, that changes the decision on a test image. It is "
        "an upper bound: a smaller perturbation may exist.",
        mathml(r"Ave \frac{‖r(x)‖}{‖x‖}"),
        ("robustness",),
    ),
}
"""By the panel that shows it, in the order of the page."""


def sentences(
    record: Mapping[str, Any], course: Sequence[Mapping[str, Any]] = (), loss: str = ""
) -> list[tuple[Level, str]]:
    """What a measurement says in words, and its notes; see :func:`neuralcollapse.measuring.reading.reading`."""
    said = [(sentence.level, sentence.text) for sentence in reading(record, course, loss=loss or None)]
    return said + [("none", str(note)) for note in record.get("notes") or ()]


def explained(measured: set[str]) -> dict[str, Explanation]:
    """The explanations of what was measured, and those that are of no number."""
    families = measured | {name.split(".")[0] for name in measured}
    return {key: each for key, each in EXPLANATIONS.items() if not each.names or families & set(each.names)}


def later_metrics(measured: set[str]) -> list[dict[str, str]]:
    """The later papers' metrics among those measured: name, a sentence, formula, value at full collapse, source."""
    found = []
    for name in filter(measured.__contains__, METRICS):
        sentence, formula = formula_of(name)
        about = {"good": METRICS[name].good, "source": METRICS[name].source}
        found.append({"name": name, "sentence": sentence, "formula": mathml(formula), **about})
    return found


_STARTS = {
    "Variability within classes": ("nc1", "cdnv", "variability_", "silhouette", "mse.nc1"),
    "Dimensions that features take": ("stable_rank", "effective_rank", "rankme", "class_", "numerical_rank"),
    "Geometry of means and classifier": ("nc2.", "equi", "etf_", "frame_", "welch_", "margin_", "gnc2_"),
    "Classifier against class means": (
        *("nc3", "duality_", "uniform_duality", "alignment_", "principal_angle_", "nc0", "bias_", "cosine_margin"),
    ),
    "Decisions": ("nc4", "accuracy", "nearest_mean", "train_", "test_"),
    "MSE loss": ("mse.",),
    "Out-of-distribution features": ("nc5",),
}

FAMILIES = (*_STARTS, "Other")
"""In the order of the table of a measurement."""


def family_of(name: str) -> str:
    """The heading under which a number stands in the table of a measurement."""
    matching = {start: family for family, starts in _STARTS.items() for start in starts if name.startswith(start)}
    return matching[max(matching, key=len)] if matching else "Other"
