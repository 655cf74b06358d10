"""Work over many classes goes in blocks and tiles; where they end must not show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.cases import data, named

import neuralcollapse as nc
from neuralcollapse.metrics import geometry
from neuralcollapse.metrics import nearest_mean as decisions
from neuralcollapse.moments import blocks


@pytest.mark.parametrize("name", ["many-classes", "more-classes-than-features", "balanced", "class-missing"])
def test_small_blocks_and_tiles_give_the_same_report(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = named(name)
    d = data(case)
    arguments = (d.features, d.labels, d.weight, d.bias)
    options = {"weight_decay": case.weight_decay, "metrics": "all", "ood": d.features[:3] + 1.0}
    want = nc.measure_features(*arguments, **options).to_dict()
    monkeypatch.setattr(blocks, "MEANS_BYTES", 8 * 3 * case.dim)
    monkeypatch.setattr(geometry, "_TILE", 3)
    monkeypatch.setattr(decisions, "_SCORES", 7)
    got = nc.measure_features(*arguments, **options).to_dict()
    of_moments = {name for name, metric in nc.METRICS.items() if not metric.needs & {"examples", "class_scatter"}}
    assert got.keys() == want.keys() > of_moments
    for key, value in want.items():
        if isinstance(value, (float, list)):
            np.testing.assert_allclose(got[key], value, rtol=1e-9, atol=1e-12, err_msg=key)
        else:
            assert got[key] == value, key


def test_moments_kept_as_traces_give_every_metric_that_needs_no_more() -> None:
    d = data(named("many-classes"))
    full, light = nc.ClassMoments(16), nc.ClassMoments(16, scatter="trace")
    for moments in (full, light):
        features_of, labels = np.array_split(d.features, 5), np.array_split(d.labels, 5)
        for features, of_them in zip(features_of, labels, strict=True):
            moments.update(torch.from_numpy(features), torch.from_numpy(of_them))
    weight = torch.from_numpy(d.weight)
    some = nc.compute_metrics(light, weight=weight)
    every = nc.compute_metrics(full, weight=weight)
    needing = every.keys() & {name for name, metric in nc.METRICS.items() if "scatter" in metric.needs}
    assert some.keys() == every.keys() - needing
    for name, value in some.items():
        np.testing.assert_allclose(value, every[name], rtol=1e-12, err_msg=name)
    for name in needing:
        with pytest.raises(nc.InputError, match=f"'{name}' needs moments of scatter='full'"):
            nc.compute_metrics(light, name)
