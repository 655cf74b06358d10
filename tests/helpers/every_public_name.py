"""A user's script that uses every public name; test_public_types.py runs it and checks it with `mypy --strict`."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

import neuralcollapse as nc


def collapsed_network() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A small network, and batches of inputs and labels."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    inputs = 3 * torch.eye(4)[labels] + torch.randn(60, 4)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), [(inputs, labels)]


model, loader = collapsed_network()

# measuring
report: nc.Report = nc.measure(model, loader, metrics=["cdnv"])
classes: nc.ClassReports = report.per_class
one: nc.ClassReport = classes[0]
layers: nc.LayerReports = nc.measure_layers(model, loader)
layer: nc.LayerReport = layers["1"]
features, labels = nc.collect_features(model, loader)
weight = model[2].weight.detach() if isinstance(model, nn.Sequential) and isinstance(model[2], nn.Linear) else None
assert weight is not None
again = nc.measure_features(features, labels, weight)
options = nc.MeasureOptions(metrics="all", weighting="class")
tracking = nc.Tracking(lambda numbers, epoch: None)
monitor = nc.Monitor(model, loader, every=2, log=tracking, weighting=options.weighting)
reports = [monitor(epoch) for epoch in range(3)]
history: nc.History = nc.History.from_monitor(monitor)
numbers: dict[str, float] = report.numbers()
share: float | None = report.mse.ls_perp

# what measuring returns
two: nc.NC2 = report.nc2
parts: nc.MSEDecomposition = report.mse
spectrum: nc.SNRSpectrum = report.snr

# comparing
intervals: dict[str, nc.Interval] = nc.confidence_intervals(features, labels, resamples=5)
comparison: nc.Comparison = nc.compare((features, labels), (features, labels), resamples=5)
similarity: float = nc.linear_cka(features, features)

# moments
moments = nc.ClassMoments(num_classes=3, dim=5)
moments.update(features, labels)
with tempfile.TemporaryDirectory() as folder:
    moments.save(Path(folder) / "moments.safetensors")
    moments.merge(nc.ClassMoments.load(Path(folder) / "moments.safetensors"))
from_moments: nc.Report = nc.make_report(moments, weight)

# metrics
variability: float = nc.nc1(moments)
angles: float = nc.nc2(moments, weight).maximal_angle_means
duality: float = nc.nc3(moments, weight)
mismatch: float = nc.nc4_mismatch(features, labels, weight)
frame: Tensor = nc.simplex_etf(3, 5)
spread: list[Tensor] = [nc.equinorm(frame), nc.equiangularity(frame), nc.maximal_angle(frame)]
total: float | None = nc.decompose_mse(moments, weight).total
best, offset = nc.least_squares_classifier(moments, 0.1)
values: Tensor = nc.snr_singular_values(moments).singular_values
later: dict[str, float] = nc.compute_metrics(moments, "cdnv")
source: str = nc.METRICS["cdnv"].source

# regression, and data of no class
regression: nc.RegressionCollapse = nc.measure_regression(features, features[:, :2], torch.eye(2, 5))
inside, outside = nc.neco_scores(moments, features), nc.nearest_mean_scores(moments, features + 1)
found: nc.Detection = nc.detection(inside, outside)

# theory
path = nc.CentralPath([0.5, 1.0], num_classes=3, samples_per_class=20)
later_on = path.singular_values(10.0)

try:
    nc.simplex_etf(10, 5)
except nc.InputError as error:
    message: str = str(error)
