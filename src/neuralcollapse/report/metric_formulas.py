r"""What each metric of a later paper says: one sentence and its formula, as `mathml` reads it.

v_c are the class means less the global mean, or the rows of the classifier; u = v/‖v‖. A name of both has `{}` in it.
The formulas are those of the functions in `metrics/`, where the sources stand.
"""

from __future__ import annotations

_NC1 = r"\frac{tr(Σ_W Σ_B^+)}{C}"
_RATIO = r"\frac{tr Σ_W}{tr Σ_B}"
_VCI = r"1 − \frac{tr(Σ_T^+ Σ_B)}{min(C − 1, rank Σ_T)}"
_UNBIASED = r", Σ_W = ∑_c π_c \frac{n_c}{n_c − 1} Σ_c"
_MIXED = "with the spread within classes averaged over examples and the class means over classes"
_BOTH = r", Σ_W = Ave_i Σ_{y_i}, Σ_B = Avg_c \bar{μ}_c \bar{μ}_c^⊤, μ_G = "
_OF_MIXED = f"{_MIXED}, these about their own mean"
_ABOUT = f"{_MIXED}, these about the mean of all examples"
_MEAN_OF_CLASSES, _MEAN_OF_EXAMPLES = f"{_BOTH}Avg_c μ_c", f"{_BOTH}Ave_i h_i"
_CDNV = r"Avg_{c ≠ d} \frac{σ_c^2 + σ_d^2}{2 ‖μ_c − μ_d‖^"
_SIMPLEX = r"\frac{1}{\sqrt{C − 1}} (I − \frac{1 1^⊤}{C})"
_ENTROPY = r"exp(−∑_i q_i log q_i), q_i = \frac{σ_i}{∑_j σ_j}"
_GRAM = rf"‖\frac{{A}}{{‖A‖_F}} − {_SIMPLEX}‖_F, A = "
_COSINES = "cos(v_c, v_d)"
_APART = "‖u_c − u_d‖"


def _energies() -> dict[str, tuple[str, str]]:
    kernels = {
        "log": ("−log of their distance", f"−log {_APART}"),
        "riesz": ("1 over their distance", rf"\frac{{1}}{{{_APART}}}"),
        "riesz_p_2": ("their distance to the power 2 − p, with the sign of p − 2", f"sign(p − 2) {_APART}^{{2 − p}}"),
        "distance": ("their distance", _APART),
    }
    found = {}
    for kernel, (words, formula) in kernels.items():
        mean = f"The average over pairs of directions of {words}; a simplex has the {{}} there is."
        found[f"gnc2_{kernel}_{{}}"] = (
            mean.format("largest" if kernel == "distance" else "least"),
            f"Avg_{{c ≠ d}} K_{{c,d}}, K_{{c,d}} = {formula}",
        )
        found[f"gnc2_{kernel}_variation_{{}}"] = (
            f"How much {words} differs from pair to pair of directions; 0 where all are equally far apart.",
            rf"\frac{{Std_{{c ≠ d}} K_{{c,d}}}}{{|Avg_{{c ≠ d}} K_{{c,d}}|}}, K_{{c,d}} = {formula}",
        )
    return found


FORMULAS: dict[str, tuple[str, str]] = {
    "nc1_undivided": ("NC1 without the division by the number of classes.", "tr(Σ_W Σ_B^+)"),
    "nc1_unbiased": ("NC1 with the unbiased variance of each class.", _NC1 + _UNBIASED),
    "nc1_mixed": (f"NC1 {_OF_MIXED}.", _NC1 + _MEAN_OF_CLASSES),
    "nc1_mixed_example_mean": (f"NC1 {_ABOUT}.", _NC1 + _MEAN_OF_EXAMPLES),
    "variability_ratio": ("The variance within classes over that of the class means.", _RATIO),
    "variability_ratio_unbiased": ("The same ratio with the unbiased variance of each class.", _RATIO + _UNBIASED),
    "variability_ratio_mixed": (f"The same ratio {_OF_MIXED}.", _RATIO + _MEAN_OF_CLASSES),
    "variability_ratio_mixed_example_mean": (f"The same ratio {_ABOUT}.", _RATIO + _MEAN_OF_EXAMPLES),
    "variability_collapse_index": ("Which share of the variation lies within classes, whatever linear map.", _VCI),
    "variability_collapse_index_mixed": (f"The same index {_OF_MIXED}.", _VCI + _MEAN_OF_CLASSES),
    "variability_collapse_index_mixed_example_mean": (f"The same index {_ABOUT}.", _VCI + _MEAN_OF_EXAMPLES),
    "cdnv": (
        "The variances σ² = tr Σ_c of two classes over the squared distance of their means, averaged over pairs.",
        _CDNV + "2}",
    ),
    "cdnv_unbiased": (
        "The same with the divisor n_c − 1 in each class's variance.",
        _CDNV + r"2}, σ_c^2 = \frac{1}{n_c − 1} ∑_i ‖h_{i,c} − μ_c‖^2",
    ),
    "cdnv_fourth_power": ("The same over the fourth power of the distance, which depends on the unit.", _CDNV + "4}"),
    "silhouette": (
        "How much nearer an example is to its own class, at mean distance a, than to the nearest other, at b.",
        r"Ave_i \frac{b_i − a_i}{max(a_i, b_i)}",
    ),
    "stable_rank": ("How many directions the features vary in, from variances.", r"\frac{tr Σ_T}{‖Σ_T‖_2}"),
    "effective_rank": (
        "How many directions the features vary in, from the entropy of the singular values σ of the centred features.",
        _ENTROPY,
    ),
    "rankme": (
        "How many directions the features take, from the entropy of the singular values σ of the uncentred features.",
        _ENTROPY + " + 10^{−7}",
    ),
    "class_numerical_rank": (
        "How many directions the features H of a class take, on average over classes.",
        r"Avg_c (\frac{‖H_c‖_*}{‖H_c‖_F})^2",
    ),
    "class_effective_rank": (
        "How many directions the features of a class vary in, σ being those of its centred features.",
        f"Avg_c {_ENTROPY}",
    ),
    "equinorm_{}_biased": (
        "NC2, equal norms, with the divisor C in the standard deviation instead of C − 1.",
        r"\frac{1}{Avg_c ‖v_c‖} \sqrt{\frac{1}{C} ∑_c (‖v_c‖ − Avg_d ‖v_d‖)^2}",
    ),
    "equinorm_{}_log": (
        "How much the logarithms of the norms differ; it depends on their unit.",
        r"\frac{Std_c log ‖v_c‖}{Avg_c log ‖v_c‖}",
    ),
    "equiangularity_{}_biased": (
        "NC2, equal angles, with the divisor C(C − 1) in the standard deviation instead of C(C − 1) − 1.",
        rf"\sqrt{{\frac{{1}}{{C (C − 1)}} ∑_{{c ≠ d}} ({_COSINES} − Avg_{{a ≠ b}} cos(v_a, v_b))^2}}",
    ),
    "etf_error_{}": ("How far the inner products are from those of a simplex.", _GRAM + "V V^⊤"),
    "etf_error_classifier_centred": (
        "The same of the classifier's rows less their mean, which changes no decision.",
        _GRAM + r"(W − \bar{W}) (W − \bar{W})^⊤",
    ),
    "etf_distance_{}": (
        "How far the vectors are from the nearest simplex, over all its rotations U.",
        rf"min_U ‖\frac{{V}}{{‖V‖_F}} − {_SIMPLEX} U‖_F",
    ),
    "frame_error_{}": (
        "How far the directions U, one a row, are from filling their r = min(p, C − 1) dimensions evenly.",
        r"‖\frac{U^⊤ U}{‖U^⊤ U‖_F} − \frac{I_r}{\sqrt{r}}‖_F",
    ),
    "welch_excess_{}": (
        "How far the largest cosine is above the least that is possible where classes outnumber features.",
        rf"max_{{c ≠ d}} |{_COSINES}| − \sqrt{{\frac{{C − p}}{{p (C − 1)}}}}",
    ),
    "margin_{}": (
        "How far the direction of a class is from all mixtures of the others, for the class that is nearest to them.",
        "min_c dist(u_c, conv(u_d : d ≠ c))",
    ),
    **_energies(),
    "nc3_uncentred": (
        "NC3 with the class means themselves, measured from the origin.",
        r"‖\frac{W^⊤}{‖W‖_F} − \frac{M}{‖M‖_F}‖_F^2",
    ),
    "nc3_unsquared": ("NC3 without the square.", r"‖\frac{W^⊤}{‖W‖_F} − \frac{\bar{M}}{‖\bar{M}‖_F}‖_F"),
    "nc3_trace": (
        "How far the products of classifier and class means are from those of a simplex, both of trace 1.",
        r"‖\frac{A}{tr A} − \frac{1}{C − 1} (I − \frac{1 1^⊤}{C})‖_F, A = W \bar{M}",
    ),
    "duality_error": (
        "Self-duality and the simplex in one number, from the products of classifier and class means.",
        _GRAM + r"W \bar{M}",
    ),
    "duality_error_centred": ("The same, the mean row taken off the classifier.", _GRAM + r"(W − \bar{W}) \bar{M}"),
    "duality_error_uncentred": ("The same with class means measured from the origin.", _GRAM + "W M"),
    "uniform_duality": (
        "How much the cosine between classifier row and class mean differs from class to class.",
        r"\frac{Std_c cos(w_c, \bar{μ}_c)}{|Avg_c cos(w_c, \bar{μ}_c)|}",
    ),
    "duality_product_mean": ("The product of classifier row and class mean, on average.", r"Avg_c ⟨w_c, \bar{μ}_c⟩"),
    "duality_product_variance": ("The variance of that product over the classes.", r"Var_c ⟨w_c, \bar{μ}_c⟩"),
    "alignment_distance": (
        "The distance between the directions of classifier row and class mean.",
        r"Avg_c ‖\frac{w_c}{‖w_c‖} − \frac{\bar{μ}_c}{‖\bar{μ}_c‖}‖",
    ),
    "alignment_cosine": ("How far row and class mean are from parallel.", r"Avg_c (1 − cos(w_c, \bar{μ}_c))"),
    "alignment_cosine_unit": (
        "The same, each feature scaled to unit length first.",
        r"Avg_c (1 − cos(w_c, \bar{μ}_c)), h → \frac{h}{‖h‖}",
    ),
    "principal_angle_mean": (
        "The angles θ, in radians, between the space of the classifier's rows and that of the class means, on average.",
        r"Avg_k θ_k, cos θ_k = σ_k(Q_W^⊤ Q_M)",
    ),
    "principal_angle_largest": ("The largest of these angles.", r"max_k θ_k, cos θ_k = σ_k(Q_W^⊤ Q_M)"),
    "nc0": ("The norm of the sum of the classifier's rows.", "‖W^⊤ 1‖"),
    "bias_collapse": ("The norm of the logits at the global mean.", "‖W μ_G + b‖"),
    "cosine_margin": (
        "By how much the cosine with an example's own row is above the next; rows less their mean, features less μ_G.",
        r"Ave_i (cos(\tilde{w}_{y_i}, h_i − μ_G) − max_{c ≠ y_i} cos(\tilde{w}_c, h_i − μ_G))",
    ),
    "nc5": ("How far the mean of out-of-distribution data is from orthogonal.", "Avg_c |cos(μ_c, μ_OOD)|"),
    "nc5_centred": ("The same, both less the global mean.", "Avg_c |cos(μ_c − μ_G, μ_OOD − μ_G)|"),
}


def formula_of(name: str) -> tuple[str, str]:
    """The sentence and the formula of a metric.

    Raises:
        KeyError: it has none.
    """
    for side in ("means", "classifier"):
        both = name.replace(f"_{side}", "_{}")
        if name not in FORMULAS and both in FORMULAS:
            sentence, formula = FORMULAS[both]
            return f"{sentence} Of the {'class means' if side == 'means' else 'classifier'}.", formula
    return FORMULAS[name]
