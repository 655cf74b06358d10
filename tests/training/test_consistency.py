"""Runs against runs: what is measured beside the usual numbers changes nothing else.

The numbers themselves are proved in `test_measuring_options.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.small_runs import records, trained

from neuralcollapse.training import checkpoint
from neuralcollapse.training.run_directory import Run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {
        "running": trained(folder / "running"),
        "re-estimated": trained(folder / "again", batch_norm_statistics="re-estimated"),
        "both": trained(folder / "both", batch_norm_statistics="both", notebook_weight_decay=True),
    }


def test_measuring_more_changes_nothing_else(runs: dict[str, Run]) -> None:
    """The training and the usual numbers stay bit for bit the same."""
    for plain, both in zip(records(runs["running"]), records(runs["both"]), strict=True):
        assert {key: both[key] for key in plain} == plain
    weights = [checkpoint.read(run)["model"] for run in runs.values()]  # type: ignore[index]
    for other in weights[1:]:
        assert all(torch.equal(other[name], value) for name, value in weights[0].items())


def test_both_holds_the_numbers_of_either(runs: dict[str, Run]) -> None:
    for alone, both in zip(records(runs["re-estimated"]), records(runs["both"]), strict=True):
        found = {key.removeprefix("re_estimated."): value for key, value in both.items() if "re_estimated." in key}
        assert found.keys() >= {"nc1", "mse.ls_perp", "train_error", "test_accuracy", "loss", "snr"}
        assert {key: alone[key] for key in found} == found
        assert found["mse.ls_perp"] != both["mse.ls_perp"]


def test_the_ratio_on_the_path_stands_beside_each_loss_with_its_own_decay(runs: dict[str, Run]) -> None:
    """Never above the features' own L_NC2/3 / L_NC1, which weighs the small ω_j more, and smaller with less decay."""
    for record in records(runs["both"]):
        for prefix in ("", "re_estimated.", "notebook."):
            ratio = record[f"{prefix}mse.path_ratio"]
            own = record[f"{prefix}mse.nc23"] / record[f"{prefix}mse.nc1"]
            assert 0 < ratio <= own * (1 + 1e-9)
        assert record["notebook.mse.path_ratio"] < record["mse.path_ratio"]


def test_the_notebooks_decay_is_a_tenth_of_the_trained_one_for_ten_classes(runs: dict[str, Run]) -> None:
    for record in records(runs["both"]):
        assert record["notebook.mse.weight_decay"] == record["mse.weight_decay"] / 10
        for part in ("total", "ls"):
            assert 0 < record[f"notebook.mse.{part}"] < record[f"mse.{part}"]
        parts = [record[f"notebook.mse.{part}"] for part in ("nc1", "nc23", "ls_perp")]
        np.testing.assert_allclose(sum(parts), record["notebook.mse.total"], rtol=1e-9)
