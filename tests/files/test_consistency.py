"""Measuring by shards gives what measuring the whole gives, in any order; the numbers are proved elsewhere."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.feature_tables import FORMATS, PARQUET, Save, jobs, layer, npy, same_report

from neuralcollapse import measure_features
from neuralcollapse.files.measure_files import measure_files
from neuralcollapse.files.options import FileOptions

pytest.importorskip("safetensors")


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralcollapse.files.features.BLOCK_BYTES", 9 * 6 * 8)


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize("weighting", ["example", "class"])
@pytest.mark.parametrize("save", [*FORMATS, *PARQUET], ids=lambda save: save.__name__)
def test_parts_are_the_whole_in_any_order(save: Save, weighting: Any, tmp_path: Path) -> None:
    if save in PARQUET:
        pytest.importorskip("pyarrow")
    path, options = save(tmp_path, layer())
    classifier = FileOptions(weight=options.weight or path, bias=options.bias, weight_decay=1e-3, metrics="all")
    expected = measure_features(**layer(), weight_decay=1e-3, weighting=weighting, metrics="all")
    parts = jobs(path, replace(options, weighting=weighting), tmp_path, "part", 3)
    merged = tmp_path / "all.safetensors"
    unknown = ("nc4_mismatch", "accuracy", "nearest_mean_accuracy")
    for order in itertools.permutations(parts):
        report = measure_files(None, replace(classifier, merge=order, save=merged)).report
        same_report(report, expected, without=unknown)
        assert report is not None and all(report.to_dict()[name] is None for name in unknown)
    counts = jobs(path, options, tmp_path, "count", 4, moments=merged)
    for order in itertools.permutations(counts, 4):
        same_report(measure_files(None, replace(classifier, merge=order, moments=merged)).report, expected)
    # without jobs too: features whole, class means from the parts
    again = replace(options, moments=merged, weight_decay=1e-3, metrics="all")
    same_report(measure_files(path, again).report, expected)


def test_merged_parts_merge_again(tmp_path: Path) -> None:
    path, options = npy(tmp_path, layer())
    parts = jobs(path, options, tmp_path, "part", 5)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    for chosen, saved in ((parts[:4:2], first), (parts[1::2], second)):
        with pytest.warns(UserWarning, match=r"rows .* of features.npy are in none of the shards"):
            measure_files(None, FileOptions(merge=tuple(chosen), save=saved))
    classifier = replace(options, labels=None)
    report = measure_files(None, replace(classifier, merge=(second, parts[4], first))).report
    same_report(report, measure_features(**layer()), without=("nc4_mismatch", "accuracy", "nearest_mean_accuracy"))
