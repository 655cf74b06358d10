"""Measure, predict and reproduce Neural Collapse.

Quick start:

    import neuralcollapse as nc

    report = nc.measure(model, loader)  # finds the last layer, measures its features, leaves the model as it was
    print(report)  # NC1 to NC4, the parts of the MSE loss, the signal-to-noise spectrum
    report.nc1, report.nc3, report.mse.ls_perp  # numbers by name; report.to_dict() is ready for JSON

Measure a model or features:
    measure                   the last layer of a model, on the data of a loader: a Report
    measure_layers            several layers of a model, by one forward pass a batch: LayerReports
    measure_features          features, labels and a classifier that are in memory: a Report
    collect_features          the features and labels of a data set: two tensors
    make_report               class moments and a classifier: a Report
    Monitor                   measures a model whenever it is called, and keeps the history
    Tracking                  writes reports to TensorBoard, wandb, MLflow, trackio or a function
    MeasureOptions            the options of measure, measure_layers and Monitor, in one object

Whether a difference is one:
    compare                   two networks, layers, reports or sets of runs, number by number: a Comparison
    Comparison                which numbers differ, by how much, with intervals; print shows a table
    confidence_intervals      bootstrap intervals of what a report of features says: Intervals by name
    Interval                  a number and where that of the population lies
    linear_cka                how alike two layers represent the same examples

What was measured over epochs, whoever measured it:
    History                   reads runs, studies, a Monitor's lines, logs of Lightning and Transformers; a table

What measuring returns:
    Report                    all numbers of one layer; print it, or read report.nc1
    LayerReport               the numbers of one layer of measure_layers
    LayerReports              the reports of measure_layers by layer; print shows a table
    ClassReport               the numbers of one class of report.per_class
    ClassReports              the numbers of each class, by name; print shows the least collapsed first
    NC2                       the numbers of nc2 by name
    MSEDecomposition          the parts of the MSE loss by name
    SNRSpectrum               the singular values of snr_singular_values, and whether they are finite

Moments:
    ClassMoments              counts, means and scatter of each class: update, merge, all_reduce, save, load

Metrics of the paper, each a function of moments or tensors:
    nc1                       variability within the classes against that between them
    nc2                       distance of class means and classifier from a simplex
    nc3                       distance between classifier and class means, each scaled to norm 1
    nc4_mismatch              share of examples that are not given to the nearest class mean
    equinorm                  spread of the lengths of vectors
    equiangularity            spread of the angles between vectors
    maximal_angle             distance of the angles from those of a simplex
    simplex_etf               the simplex equiangular tight frame itself
    decompose_mse             the MSE loss as L_NC1 + L_NC2/3 + L⊥_LS
    least_squares_classifier  the classifier that minimises the MSE loss for given features
    snr_singular_values       singular values of the signal-to-noise matrix

Metrics of later papers:
    METRICS                   all of them by name
    compute_metrics           some of them, from class moments

Regression and out-of-distribution data:
    measure_regression        NRC1 to NRC3 of a last layer with vector targets: a RegressionCollapse
    RegressionCollapse        the numbers of measure_regression by name
    neco_scores               NECO of each example: its share in the subspace of the classes
    nearest_mean_scores       distance of each example from the nearest class mean, negative
    detection                 AUROC and FPR95 of scores: a Detection
    Detection                 the numbers of detection by name

Theory:
    CentralPath               the dynamics on the central path in closed form

Errors:
    InputError                wrong input, said in one sentence
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; at run time a name is imported when it is first used
    from neuralcollapse._errors import InputError as InputError
    from neuralcollapse.measuring.collect import collect_features as collect_features
    from neuralcollapse.measuring.comparison import Comparison as Comparison
    from neuralcollapse.measuring.comparison import compare as compare
    from neuralcollapse.measuring.confidence import confidence_intervals as confidence_intervals
    from neuralcollapse.measuring.history import History as History
    from neuralcollapse.measuring.interval import Interval as Interval
    from neuralcollapse.measuring.layers import LayerReport as LayerReport
    from neuralcollapse.measuring.layers import LayerReports as LayerReports
    from neuralcollapse.measuring.layers import measure_layers as measure_layers
    from neuralcollapse.measuring.measure import measure as measure
    from neuralcollapse.measuring.measure import measure_features as measure_features
    from neuralcollapse.measuring.monitor import Monitor as Monitor
    from neuralcollapse.measuring.options import MeasureOptions as MeasureOptions
    from neuralcollapse.measuring.per_class import ClassReport as ClassReport
    from neuralcollapse.measuring.per_class import ClassReports as ClassReports
    from neuralcollapse.measuring.report import Report as Report
    from neuralcollapse.measuring.report import make_report as make_report
    from neuralcollapse.measuring.trackers import Tracking as Tracking
    from neuralcollapse.metrics.cka import linear_cka as linear_cka
    from neuralcollapse.metrics.geometry import equiangularity as equiangularity
    from neuralcollapse.metrics.geometry import equinorm as equinorm
    from neuralcollapse.metrics.geometry import maximal_angle as maximal_angle
    from neuralcollapse.metrics.geometry import simplex_etf as simplex_etf
    from neuralcollapse.metrics.least_squares import least_squares_classifier as least_squares_classifier
    from neuralcollapse.metrics.mse import MSEDecomposition as MSEDecomposition
    from neuralcollapse.metrics.mse import decompose_mse as decompose_mse
    from neuralcollapse.metrics.nc1_to_nc4 import NC2 as NC2
    from neuralcollapse.metrics.nc1_to_nc4 import nc1 as nc1
    from neuralcollapse.metrics.nc1_to_nc4 import nc2 as nc2
    from neuralcollapse.metrics.nc1_to_nc4 import nc3 as nc3
    from neuralcollapse.metrics.nc1_to_nc4 import nc4_mismatch as nc4_mismatch
    from neuralcollapse.metrics.out_of_distribution import Detection as Detection
    from neuralcollapse.metrics.out_of_distribution import detection as detection
    from neuralcollapse.metrics.out_of_distribution import nearest_mean_scores as nearest_mean_scores
    from neuralcollapse.metrics.out_of_distribution import neco_scores as neco_scores
    from neuralcollapse.metrics.registry import METRICS as METRICS
    from neuralcollapse.metrics.registry import compute_metrics as compute_metrics
    from neuralcollapse.metrics.regression import RegressionCollapse as RegressionCollapse
    from neuralcollapse.metrics.regression import measure_regression as measure_regression
    from neuralcollapse.metrics.signal_to_noise import SNRSpectrum as SNRSpectrum
    from neuralcollapse.metrics.signal_to_noise import snr_singular_values as snr_singular_values
    from neuralcollapse.moments.class_moments import ClassMoments as ClassMoments
    from neuralcollapse.theory.central_path import CentralPath as CentralPath

__version__ = "0.1.0"

_NAMES = (
    ("measuring.measure", "measure"),
    ("measuring.layers", "measure_layers"),
    ("measuring.measure", "measure_features"),
    ("measuring.collect", "collect_features"),
    ("measuring.report", "make_report"),
    ("measuring.monitor", "Monitor"),
    ("measuring.trackers", "Tracking"),
    ("measuring.options", "MeasureOptions"),
    ("measuring.comparison", "compare Comparison"),
    ("measuring.confidence", "confidence_intervals"),
    ("measuring.interval", "Interval"),
    ("metrics.cka", "linear_cka"),
    ("measuring.history", "History"),
    ("measuring.report", "Report"),
    ("measuring.layers", "LayerReport LayerReports"),
    ("measuring.per_class", "ClassReport ClassReports"),
    ("metrics.nc1_to_nc4", "NC2"),
    ("metrics.mse", "MSEDecomposition"),
    ("metrics.signal_to_noise", "SNRSpectrum"),
    ("moments.class_moments", "ClassMoments"),
    ("metrics.nc1_to_nc4", "nc1 nc2 nc3 nc4_mismatch"),
    ("metrics.geometry", "equinorm equiangularity maximal_angle simplex_etf"),
    ("metrics.mse", "decompose_mse"),
    ("metrics.least_squares", "least_squares_classifier"),
    ("metrics.signal_to_noise", "snr_singular_values"),
    ("metrics.registry", "METRICS compute_metrics"),
    ("metrics.regression", "measure_regression RegressionCollapse"),
    ("metrics.out_of_distribution", "neco_scores nearest_mean_scores detection Detection"),
    ("theory.central_path", "CentralPath"),
    ("_errors", "InputError"),
)
"""Modules and their public names, in the order of the docstring; a name may be that of its module, as `measure` is."""
_HOME = {name: module for module, names in _NAMES for name in names.split()}
_PACKAGES = ("moments", "metrics", "theory", "measuring")
"""Packages that `import neuralcollapse` makes available as attributes, as in `nc.theory`."""

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import neuralcollapse` need not wait for PyTorch."""
    if name in _PACKAGES:
        return importlib.import_module(f"neuralcollapse.{name}")
    if name not in _HOME:
        from neuralcollapse._errors import suggest

        raise AttributeError(f"module 'neuralcollapse' has no attribute {name!r}{suggest(name, (*_HOME, *_PACKAGES))}")
    value = getattr(importlib.import_module(f"neuralcollapse.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_HOME, *_PACKAGES, *(name for name in globals() if name.startswith("__"))})
