"""The later metrics by name: one entry each, so that adding one adds it to every report and integration."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float
from torch import Tensor

from neuralcollapse._checks import Array, as_classifier, as_labels, as_tensor, shown
from neuralcollapse._errors import InputError, suggest
from neuralcollapse.metrics import duality, feature_rank, frames, geometry, margins, variability
from neuralcollapse.metrics.metric import (
    NEEDS,
    Given,
    Metric,
    MetricTable,
    of_both,
    of_classifier,
    of_duality,
    of_energy,
    of_examples,
    of_features,
    of_mixed,
    of_moments,
    of_ood,
    of_rows,
    of_unbiased,
)
from neuralcollapse.metrics.nc1_to_nc4 import nc1, nc3
from neuralcollapse.metrics.out_of_distribution import nc5
from neuralcollapse.metrics.silhouette import silhouette
from neuralcollapse.metrics.undefined import one_warning, warn_undefined
from neuralcollapse.moments.class_moments import ClassMoments, require_moments

_cdnv, _ratio, _vci = variability.cdnv, variability.variability_ratio, variability.variability_collapse_index
_equinorm, _equiangularity = (partial(f, correction=0) for f in (geometry.equinorm, geometry.equiangularity))

# name: how it is computed, what it measures, its value at full collapse, its source
METRICS = MetricTable(
    {
        # variability within classes: NC1 and its kin
        "nc1_undivided": of_moments(partial(nc1, divide=False), "NC1 not divided by C", "0", "Papyan 2020"),
        "nc1_unbiased": of_unbiased(nc1, "NC1, divisor n_c − 1", "0", "Papyan 2020", needs="class_scatter"),
        **of_mixed("nc1", nc1, "NC1", "0", "Papyan 2020", needs="scatter"),
        "variability_ratio": of_moments(_ratio, "tr Σ_W / tr Σ_B", "0", "Tirer 2023", needs=""),
        "variability_ratio_unbiased": of_unbiased(_ratio, "tr Σ_W / tr Σ_B, n_c − 1", "0", "Tirer 2023", needs=""),
        **of_mixed("variability_ratio", _ratio, "tr Σ_W / tr Σ_B", "0", "Tirer 2023", needs=""),
        "variability_collapse_index": of_moments(_vci, "1 − tr(Σ_T⁺Σ_B)/rank", "0", "Xu 2023"),
        **of_mixed("variability_collapse_index", _vci, "1 − tr(Σ_T⁺Σ_B)/rank", "0", "Xu 2023", needs="scatter"),
        "cdnv": of_moments(_cdnv, "class-distance normalised variance", "0", "Galanti 2021", needs=""),
        "cdnv_unbiased": of_unbiased(_cdnv, "CDNV, divisor n_c − 1", "0", "Galanti 2021", needs=""),
        "cdnv_fourth_power": of_moments(partial(_cdnv, power=4), "CDNV over ‖·‖⁴", "0", "Wu 2024", needs=""),
        "silhouette": of_examples(
            lambda g: silhouette(*g.labelled_features), "silhouette of the classes", "1", "Rousseeuw 1987", signed=True
        ),
        # dimensions that features take
        "stable_rank": of_features(feature_rank.stable_rank, "tr Σ_T/‖Σ_T‖", "C−1", "Rudelson 2007"),
        "effective_rank": of_features(feature_rank.effective_rank, "entropy rank", "C−1", "Roy 2007"),
        "rankme": of_features(feature_rank.rankme, "entropy rank, uncentred", "", "Garrido 2023"),
        "class_numerical_rank": of_features(
            feature_rank.numerical_rank, "(‖H_c‖_*/‖H_c‖_F)²", "1", "Zhou 2022", needs="class_scatter"
        ),
        "class_effective_rank": of_moments(
            feature_rank.class_effective_rank,
            "entropy rank of a class",
            "",
            "Roy 2007",
            classes=1,
            needs="class_scatter",
            examples_each=2,
        ),
        # arrangement of class means and of classifier rows: NC2 and its kin
        **of_both("equinorm_{}_biased", _equinorm, "NC2 equinorm, biased Std", "0", "Papyan 2020"),
        "equinorm_means_log": Metric(
            lambda g: float(geometry.log_equinorm(g.means, exponent=g.moments.exponent)),
            "Std/Avg of log norms, class means",
            "",
            "Wu 2024",
            signed=True,
        ),
        "equinorm_classifier_log": of_classifier(
            lambda g: float(geometry.log_equinorm(g.present_classifier)),
            "Std/Avg of log norms, classifier",
            "",
            "Wu 2024",
            signed=True,
        ),
        **of_both("equiangularity_{}_biased", _equiangularity, "NC2 equiangularity, biased Std", "0", "Papyan 2020"),
        **of_both("etf_error_{}", frames.etf_error, "distance of the Gram matrix from an ETF's", "0", "Zhu 2021"),
        "etf_error_classifier_centred": of_rows(
            lambda rows: frames.etf_error(duality.centred_rows(rows)), "ETF error less the mean row", "0", "Zhou 2022"
        ),
        **of_both("etf_distance_{}", frames.etf_distance, "distance from the nearest ETF", "0", "Schönemann 1966"),
        **of_both("frame_error_{}", frames.frame_error, "distance from a tight frame", "0", "Benedetto 2003"),
        **of_both("welch_excess_{}", frames.welch_excess, "coherence above Welch's bound (C > p)", "", "Welch 1974"),
        **of_both("margin_{}", margins.one_vs_rest_margin, "one-vs-rest margin", "C/(C−1)", "Jiang 2024", most=128),
        **of_energy("gnc2_log_{}", "log", "mean", "hyperspherical energy", "", "Liu 2023"),
        **of_energy("gnc2_log_variation_{}", "log", "variation", "Std/Avg of the energy", "0", "Wu 2024"),
        **of_energy("gnc2_riesz_{}", "riesz", "mean", "hyperspherical energy", "", "Liu 2023"),
        **of_energy("gnc2_riesz_variation_{}", "riesz", "variation", "Std/Avg of the energy", "0", "Wu 2024"),
        **of_energy("gnc2_riesz_p_2_{}", "riesz_p_2", "mean", "hyperspherical energy", "", "Liu 2023"),
        **of_energy("gnc2_riesz_p_2_variation_{}", "riesz_p_2", "variation", "Std/Avg of the energy", "0", "Wu 2024"),
        **of_energy("gnc2_distance_{}", "distance", "mean", "distance of directions", "", "Wu 2024"),
        **of_energy("gnc2_distance_variation_{}", "distance", "variation", "Std/Avg of distances", "0", "Wu 2024"),
        # classifier against class means: NC3 and its kin
        "nc3_uncentred": of_duality(partial(nc3, centred=False), "NC3 of μ, not μ̄", "", "Papyan 2020"),
        "nc3_unsquared": of_duality(partial(nc3, squared=False), "√NC3", "0", "Papyan 2020"),
        "nc3_trace": of_duality(duality.nc3_trace, "W M̄ᵀ over its trace", "0", "Zhou 2022"),
        "duality_error": of_duality(duality.duality_error, "W M̄ᵀ against a simplex", "0", "Zhou 2022"),
        "duality_error_centred": of_duality(
            partial(duality.duality_error, centre_rows=True), "W M̄ᵀ, W less its mean row", "0", "Zhou 2022"
        ),
        "duality_error_uncentred": of_duality(
            partial(duality.duality_error, centred=False), "W Mᵀ against a simplex", "", "Zhu 2021"
        ),
        "uniform_duality": of_duality(duality.uniform_duality, "UNC3, Std/Avg of cos(w, μ̄)", "0", "Wu 2024"),
        "duality_product_mean": of_classifier(
            lambda g: float(g.products.mean()), "Avg ⟨w, μ̄⟩", "", "Wu 2024", signed=True
        ),
        "duality_product_variance": of_classifier(lambda g: float(g.products.var()), "Var ⟨w, μ̄⟩", "", "Wu 2024"),
        "alignment_distance": of_duality(duality.alignment_distance, "GNC3, ‖unit w − unit μ̄‖", "0", "Jiang 2024"),
        "alignment_cosine": of_duality(duality.alignment_cosine, "GNC3, 1 − cos(w, μ̄)", "0", "Jiang 2024"),
        "alignment_cosine_unit": of_examples(
            lambda g: duality.alignment_cosine(g.unit_moments, g.classifier),
            "GNC3, 1 − cos of unit features",
            "0",
            "Jiang 2024",
            needs="examples weight",
            own_means=True,
        ),
        "principal_angle_mean": of_classifier(
            lambda g: float(g.angles.mean()), "Avg angle, spans of W and M̄", "0", "Rangamani 2023"
        ),
        "principal_angle_largest": of_classifier(
            lambda g: float(g.angles.max()), "largest angle, spans of W and M̄", "0", "Björck 1973"
        ),
        "nc0": of_classifier(lambda g: duality.nc0(g.classifier), "‖Wᵀ1‖", "0", "Zhu 2021", classes=1),
        "bias_collapse": of_classifier(
            lambda g: duality.bias_collapse(g.moments, g.classifier, g.bias), "‖Wμ_G + b‖", "0", "Zhu 2021", classes=1
        ),
        "cosine_margin": of_examples(
            lambda g: float(
                margins.cosine_margins(*g.labelled_features, g.classifier, centre=g.moments.global_mean).mean()
            ),
            "cos(w_y, h − μ_G) above the next",
            "C/(C−1)",
            "Zhou 2022",
            needs="examples weight",
            signed=True,
        ),
        # out-of-distribution data: NC5
        "nc5": of_ood(nc5, "|cos| of μ and the OOD mean", "0", "Ammar 2024", classes=1),
        "nc5_centred": of_ood(partial(nc5, centred=True), "NC5 less the global mean", "", "Ammar 2024"),
    }
)


def chosen(metrics: str | Sequence[str] | None) -> list[str]:
    """The names of the metrics asked for: none for None (or ``"default"``), every one for ``"all"``.

    Raises:
        InputError: an unknown name, or something other than names; an iterator gives them only once and is refused.
    """
    if metrics is None or (isinstance(metrics, str) and metrics == "default"):
        return []
    if isinstance(metrics, str):
        names = list(METRICS) if metrics == "all" else [metrics]
    elif isinstance(metrics, Collection) and not isinstance(metrics, (Tensor, np.ndarray, bytes)):
        names = list(metrics)
    else:
        raise InputError(f"expected metrics None, 'all', a name or a list of names, got {shown(metrics)}")
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"expected names of metrics, got {shown(name)} among them")
        if name not in METRICS:
            known = suggest(name, ["all", *METRICS])
            raise InputError(f"unknown metric {name!r}{known}; expected 'all' or names that nc.METRICS lists")
    return names


def compute_metrics(
    moments: ClassMoments,
    metrics: str | Sequence[str] | None = "all",
    *,
    weight: Float[Tensor, "c p"] | Array | None = None,
    bias: Float[Tensor, " c"] | Array | None = None,
    ood_mean: Float[Tensor, " p"] | Array | None = None,
    examples: tuple[Tensor | Array, Tensor | Array] | None = None,
    own: ClassMoments | None = None,
) -> dict[str, float]:
    """Later metrics from class moments alone, which may be of ``scatter="trace"`` for those that need no more.

    Args:
        moments: of the features.
        metrics: names, or ``"all"``, which leaves out what the moments, the classifier or the number of classes do not
            allow, and what needs the examples. None gives none, as in a report.
        weight: (C, p) of the classifier; bias: (C,) of it, None for a layer without.
        ood_mean: (p,) mean of out-of-distribution features.
        examples: the features (n, p) and labels (n,) that the moments are of, for metrics that need them.
        own: moments about the features' own class means, for the ranks of the features, where ``moments`` are about
            those of a reference.

    Returns:
        By name, in the order of the registry or of the names.

    Raises:
        InputError: an unknown name, or one whose needs are not given; one that makes class means of the examples
            itself, where the moments are about those of a reference; a rank of the features there without ``own``.

    Example:
        >>> import torch
        >>> moments = ClassMoments(2, scatter="trace")
        >>> moments.update(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
        >>> compute_metrics(moments, "variability_ratio")
        {'variability_ratio': 0.0}
    """
    names = chosen(metrics)
    require_moments(moments)
    rows = offset = None
    if weight is not None:
        rows, offset = as_classifier(weight, bias, moments.num_classes, moments.means.shape[1])
    mean = None if ood_mean is None else as_tensor(ood_mean, "ood_mean")
    pair = None if examples is None else (as_tensor(examples[0], "features"), as_labels(examples[1]))
    if own is not None:
        require_moments(own, "own")
    given = Given(moments, moments if own is None else own, rows, offset, mean, pair)
    present = {
        "weight": weight is not None,
        "ood": ood_mean is not None,
        "scatter": moments.scatter == "full",
        "class_scatter": moments.has_class_scatter,
        "examples": examples is not None,
    }
    asked: dict[str, Metric] = {}
    fewest = int(moments.counts[moments.present].min())
    everything = isinstance(metrics, str) and metrics == "all"
    for name in names:
        metric = METRICS[name]
        missing = sorted(need for need in metric.needs if not present[need])
        if everything:
            many = metric.most_classes is not None and moments.num_classes > metric.most_classes
            many = many or fewest < metric.examples_each
            if missing or many or "examples" in metric.needs or (metric.of_features and given.own.about_reference):
                continue
        if missing:
            raise InputError(f"the metric {name!r} needs {NEEDS[missing[0]]}, got none")
        if metric.own_means and moments.about_reference:
            raise InputError(
                f"the metric {name!r} makes class means of features of unit length, which no reference= holds: measure "
                "it without reference="
            )
        asked[name] = metric
    with one_warning():
        undefined = [name for name, metric in asked.items() if metric.classes > int(moments.present.sum())]
        for name in undefined:
            warn_undefined(name, "all examples are of one class")
        return {name: float("nan") if name in undefined else metric.compute(given) for name, metric in asked.items()}
