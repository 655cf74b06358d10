"""The six sets of features on which the numbers of published code are proved."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from reference.conventions import FeatureSet

SETS = ("balanced", "unbalanced", "more classes than features", "collapsed float32", "missing class", "digits")


@cache
def feature_set(name: str) -> FeatureSet:
    """One of the six; float32 features come as their values in float64."""
    if name == "digits":
        return _digits()
    rng = np.random.default_rng(SETS.index(name))
    counts = {
        "balanced": (15,) * 5,
        "unbalanced": (60, 25, 9, 4, 2),
        "more classes than features": (6, 9, 4, 7, 5, 8, 3, 6, 4),
        "collapsed float32": (20, 14, 18, 11),
        "missing class": (12, 0, 8, 15, 6),
    }[name]
    dim, spread = (4, 0.4) if name == "more classes than features" else (9, 1e-3 if "collapsed" in name else 0.4)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    features = 1.0 + rng.normal(size=(len(counts), dim))[labels] + spread * rng.normal(size=(len(labels), dim))
    if "float32" in name:
        features = features.astype(np.float32).astype(np.float64)
    return FeatureSet(features, labels, 0.5 * rng.normal(size=(len(counts), dim)), 0.2 * rng.normal(size=len(counts)))


def _digits() -> FeatureSet:
    """What a small perceptron, trained for a few steps from a fixed seed, makes of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images / 16.0)[:300], torch.tensor(labels)[:300]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = torch.nn.Sequential(torch.nn.Linear(64, 24), torch.nn.Tanh()).double()
        head = torch.nn.Linear(24, 10).double()
        optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.5, momentum=0.9)
        for _ in range(60):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(body(inputs)), targets).backward()
            optimizer.step()
    arrays = (body(inputs), targets, head.weight, head.bias)
    return FeatureSet(*(array.detach().numpy() for array in arrays))
