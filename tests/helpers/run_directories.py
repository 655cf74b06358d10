"""Run directories with a known history, for the tests of figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from helpers.studies import config

from neuralcollapse import simplex_etf
from neuralcollapse._files import append_line
from neuralcollapse.training.run_directory import Run

CLASSES, DIM = 5, 8
NC2_NAMES = ("equinorm", "equiangularity", "maximal_angle")
CONFIG = config(
    "digits",
    "mlp",
    dataset_title="digits $1",
    width=0.5,
    measured_weight_decay=0.01,
    class_names=[f"kind {label}" for label in range(CLASSES)],
)


def record(epoch: int, **changes: Any) -> dict[str, Any]:
    """A line of a history whose curves are powers of the epoch, each with its own factor."""
    nc2 = (f"nc2.{name}_{which}" for name in NC2_NAMES for which in ("means", "classifier"))
    keys = ["mse.total", "mse.nc1", "mse.nc23", "mse.ls_perp", "nc1", "nc3", *nc2]
    curve = {key: (2 + place) / epoch for place, key in enumerate(keys)}
    shares = {"train_error": max(0.0, 0.3 - 0.03 * epoch), "nc4_mismatch": 0.1 / epoch, "test_accuracy": 0.9}
    snr = [float(epoch * rank) for rank in (4, 3, 2, 1)]
    return {"epoch": epoch, "num_examples": 200, "num_classes": CLASSES, **curve, **shares, "snr": snr, **changes}


def snapshot(spread: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Class means at a rotated simplex, a classifier dual to them, features around them."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    means = (simplex_etf(CLASSES, DIM).numpy() @ rotation * 3 + rng.normal(size=DIM)).astype(np.float32)
    labels = np.repeat(np.arange(CLASSES), 6)
    features = means[labels] + spread * rng.normal(size=(30, DIM)).astype(np.float32)
    weight = 0.1 * (means - means.mean(axis=0))
    return {
        "class_means": means,
        "global_mean": means.mean(axis=0),
        "weight": weight,
        "bias": np.zeros(CLASSES, np.float32),
        "features": features.astype(np.float32),
        "labels": labels,
    }


def make_run(path: Path, records: list[dict[str, Any]], snapshots: bool = True) -> Run:
    run = Run.create(path, CONFIG)
    for line in records:
        append_line(run.history_path, line)
        if snapshots:
            run.save_snapshot(line["epoch"], **snapshot(1 / line["epoch"]))
    return run
