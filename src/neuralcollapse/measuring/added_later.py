"""What a run directory was trained with that does not say so, because the setting was added by a later version."""

from __future__ import annotations

from typing import Any

ADDED_LATER: dict[str, Any] = {
    "label_noise": 0.0,
    "downsample": 1,
    "head": "linear",
    "optimizer": "sgd",
    "robustness_examples": 0,
    "batch_norm_statistics": "running",
    "notebook_weight_decay": False,
}
"""By name of the setting; any other that is not there means None."""
