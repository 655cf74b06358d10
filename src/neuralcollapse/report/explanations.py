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


@dataclass(frozen=True)
class Explanation:
    """What the page says of one number, or of several of one formula.

    Args:
        title: its name in headings.
        sentence: what it measures.
        formula: MathML.
        good: its value at full collapse; empty where collapse says nothing of it.
        names: of the numbers in a history that it explains.
    """

    title: str
    sentence: str
    formula: Markup
    good: str
    names: tuple[str, ...]


def _part(text: str) -> str:
    """Markup as it is; a word or letter as an identifier, digits as a number, any other sign as an operator."""
    kind = "mn" if text.isdigit() else "mi" if text[0].isalpha() else "mo"
    return text if text.startswith("<") else f"<{kind}>{text}</{kind}>"


def _tag(name: str, *parts: str) -> str:
    return f"<{name}>{''.join(map(_part, parts))}</{name}>"


def _row(*parts: str) -> str:
    return _tag("mrow", *parts)


def _frac(above: str, below: str) -> str:
    return _tag("mfrac", above, below)


def _sub(base: str, index: str) -> str:
    return _tag("msub", base, index)


def _sup(base: str, power: str) -> str:
    return _tag("msup", base, power)


def _both(base: str, index: str, power: str) -> str:
    return _tag("msubsup", base, index, power)


def _bar(letter: str) -> str:
    return _tag("mover", letter, "¯")


def _tilde(letter: str) -> str:
    return _tag("mover", letter, "~")


def _norm(*parts: str) -> str:
    return _row("‖", *parts, "‖")


def _math(*parts: str) -> Markup:
    return Markup(f'<math display="block">{"".join(map(_part, parts))}</math>')


_PAIR = _row("c", "≠", "d")
_SIMPLEX = _frac("1", _row("C", "−", "1"))
_V_NORM = _norm(_sub("v", "c"))
_V_COSINE = _row("cos", "(", _sub("v", "c"), ",", _sub("v", "d"), ")")
_SIGMA_W, _SIGMA_B = _sub("Σ", "W"), _sub("Σ", "B")
_MU, _MU_GLOBAL = _sub("μ", "c"), _sub("μ", "G")
_LOSS_PERP = _both("L", "LS", "⊥")
_LEFT = _row("(", _tilde("W"), "−", _sub(_tilde("W"), "LS"), ")")
_DECISION = _row(_sub("arg max", "c"), "(", _sub("w", "c"), "·", "h", "+", _sub("b", "c"), ")")
_NEAREST = _row(_sub("arg min", "c"), _norm("h", "−", _MU))
_SQUARED_ERROR = _row(_sub("Ave", _row("i", ",", "c")), _sup(_norm(_tilde("W"), _tilde("h"), "−", "y"), "2"))
_PENALTY = _row(_frac("λ", "2"), _both(_norm(_tilde("W")), "F", "2"))


def _of_vectors(name: str) -> tuple[str, str]:
    return f"nc2.{name}_means", f"nc2.{name}_classifier"


EXPLANATIONS: dict[str, Explanation] = {
    "nc1": Explanation(
        "NC1: variability within the classes",
        "How far features lie from the mean of their class, in units of how far the class means lie apart.",
        _math("NC1", "=", _frac(_row("tr", "(", _SIGMA_W, _sup(_SIGMA_B, "+"), ")"), "C")),
        "0",
        ("nc1",),
    ),
    "equinorm": Explanation(
        "NC2: equal norms",
        "How much the lengths of the vectors v (class means less the global mean, or rows of the classifier) differ "
        "from class to class.",
        _math(_frac(_row(_sub("Std", "c"), _V_NORM), _row(_sub("Avg", "c"), _V_NORM))),
        "0",
        _of_vectors("equinorm"),
    ),
    "equiangularity": Explanation(
        "NC2: equal angles",
        "How much the angles between the vectors v (class means less the global mean, or rows of the classifier) "
        "differ from pair to pair.",
        _math(_sub("Std", _PAIR), _V_COSINE),
        "0",
        _of_vectors("equiangularity"),
    ),
    "maximal_angle": Explanation(
        "NC2: maximal angles",
        "How far the angles are from the largest that C vectors can all have with one another, that of a simplex.",
        _math(_sub("Avg", _PAIR), "|", _V_COSINE, "+", _SIMPLEX, "|"),
        "0",
        _of_vectors("maximal_angle"),
    ),
    "nc3": Explanation(
        "NC3: self-duality",
        "How far the rows of the classifier are from the class means, each of the two scaled to norm 1.",
        _math(
            _both(
                _norm(_frac(_sup("W", "⊤"), _sub(_norm("W"), "F")), "−", _frac(_bar("M"), _sub(_norm(_bar("M")), "F"))),
                "F",
                "2",
            )
        ),
        "0",
        ("nc3",),
    ),
    "nc4": Explanation(
        "NC4: nearest class mean",
        "The share of examples for which the network decides otherwise than the nearest class mean.",
        _math("P", "[", _DECISION, "≠", _NEAREST, "]"),
        "0",
        ("nc4_mismatch",),
    ),
    "accuracy": Explanation(
        "Accuracy",
        "The share of examples classified correctly: by the network on the training and the test set, and by the "
        "nearest class mean on the training set.",
        _math("P", "[", _DECISION, "=", "y", "]"),
        "",
        ("train_accuracy", "accuracy", "test_accuracy", "nearest_mean_accuracy", "train_error"),
    ),
    "loss": Explanation(
        "The MSE loss and its parts",
        "The paper's squared-error loss, split exactly into the variability within classes, the class means' distance "
        "from their targets, and what the classifier adds by not being the least-squares one for its features.",
        _math(
            *("L", "=", _sub("L", "NC1"), "+", _sub("L", "NC2/3"), "+", _LOSS_PERP, "="),
            *(_frac("1", "2"), _SQUARED_ERROR, "+", _PENALTY),
        ),
        "",
        ("mse.total", "mse.nc1", "mse.nc23", "mse.ls", "mse.weight_ls_norm", "mse.weight_decay"),
    ),
    "share": Explanation(
        "Distance from the central path",
        "Which share of the MSE loss is there because the classifier is not the least-squares one; on the central "
        "path it is 0.",
        _math(
            *(_frac(_LOSS_PERP, "L"), ",", _LOSS_PERP, "=", _frac("1", "2"), "tr", "["),
            *(_LEFT, "(", "K", "+", "λ", "I", ")", _sup(_LEFT, "⊤"), "]"),
        ),
        "0 on the central path",
        ("mse.ls_perp",),
    ),
    "spectrum": Explanation(
        "Signal-to-noise spectrum",
        "The singular values of the class means measured in units of the spread within classes; collapse makes all "
        "C − 1 of them grow without bound and become equal.",
        _math(_sub("ω", "j"), "=", _sub("σ", "j"), "(", _sup(_SIGMA_W, _row("−", "1", "/", "2")), _bar("M"), ")"),
        "∞, all equal",
        ("snr",),
    ),
    "closed_form": Explanation(
        "The closed form over the spectrum",
        "On the central path each singular value moves by this equation from its first measured value; one clock, "
        "fitted to all of them, says which time t of the equation belongs to an epoch.",
        _math(
            *(_sub("c", "1"), "log", _sub("ω", "j"), "+", _sub("c", "2"), _both("ω", "j", "2"), "+"),
            *(_sub("c", "3"), _both("ω", "j", "4"), "=", _sub("a", "j"), "+", "t"),
        ),
        "",
        (),
    ),
    "matrix": Explanation(
        "Angles between class means",
        "The cosine of each pair of class means less that of a simplex: orange pairs point more alike than in "
        "a collapsed network, blue pairs less.",
        _math("cos", "(", _MU, "−", _MU_GLOBAL, ",", _sub("μ", "d"), "−", _MU_GLOBAL, ")", "+", _SIMPLEX),
        "0",
        (),
    ),
    "robustness": Explanation(
        "Robustness",
        "The mean relative size of a perturbation, found by DeepFool, that changes the decision on a test image. It is "
        "an upper bound: a smaller perturbation may exist.",
        _math("Ave", _frac(_norm("r", "(", "x", ")"), _norm("x"))),
        "",
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


def later_metrics(measured: set[str]) -> list[dict[str, str]]:
    """The later papers' metrics among those measured: name, what each measures, its value at full collapse, source."""
    return [
        {"name": name, "measures": metric.measures, "good": metric.good, "source": metric.source}
        for name, metric in METRICS.items()
        if name in measured
    ]


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
