"""Measure, reproduce and predict Neural Collapse.

import neuralcollapse as nc

report = nc.measure(model, loader)      # finds the classifier, streams the data once
print(report)                           # NC1–NC4, the MSE decomposition, the signal-to-noise spectrum
report.nc1, report.mse.ls_perp          # numbers by name;  report.to_dict() is JSON-ready
"""

from neuralcollapse._checks import InputError
from neuralcollapse.measuring.collect import collect_features
from neuralcollapse.measuring.layers import LayerReport, LayerReports, measure_layers
from neuralcollapse.measuring.measure import measure, measure_features
from neuralcollapse.measuring.monitor import Monitor
from neuralcollapse.measuring.options import MeasureOptions
from neuralcollapse.measuring.report import Report, make_report
from neuralcollapse.metrics.collapse import NC2, nc1, nc2, nc3, nc4_mismatch
from neuralcollapse.metrics.geometry import equiangularity, equinorm, maximal_angle, simplex_etf
from neuralcollapse.metrics.least_squares import least_squares_classifier
from neuralcollapse.metrics.mse import MSEDecomposition, decompose_mse
from neuralcollapse.metrics.registry import METRICS, compute_metrics
from neuralcollapse.metrics.signal_to_noise import SNRSpectrum, snr_singular_values
from neuralcollapse.moments.class_moments import ClassMoments
from neuralcollapse.theory.central_path import CentralPath

__version__ = "0.1.0"

__all__ = [
    "METRICS",
    "NC2",
    "CentralPath",
    "ClassMoments",
    "InputError",
    "LayerReport",
    "LayerReports",
    "MSEDecomposition",
    "MeasureOptions",
    "Monitor",
    "Report",
    "SNRSpectrum",
    "collect_features",
    "compute_metrics",
    "decompose_mse",
    "equiangularity",
    "equinorm",
    "least_squares_classifier",
    "make_report",
    "maximal_angle",
    "measure",
    "measure_features",
    "measure_layers",
    "nc1",
    "nc2",
    "nc3",
    "nc4_mismatch",
    "simplex_etf",
    "snr_singular_values",
]
