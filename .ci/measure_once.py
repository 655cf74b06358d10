"""Measure a small network with the installed package alone, and leave its last layer in layer.npz."""

from pathlib import Path

import numpy as np
import torch

import neuralcollapse as nc

assert "site-packages" in str(Path(nc.__file__)), nc.__file__

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
loader = [(torch.randn(30, 8), torch.arange(30) % 3) for _ in range(2)]
report = nc.measure(model, loader)
print(report)
assert report.nc1 > 0

features, labels = nc.collect_features(model, loader)
weight, bias = (parameter.detach().numpy() for parameter in (model[2].weight, model[2].bias))
np.savez("layer.npz", features=features.numpy(), labels=labels.numpy(), weight=weight, bias=bias)
