"""Class means, classifier and features of a few classes, small enough for a page and exact for what it shows.

The page projects on planes and spaces that centred class means span. For that it needs the coordinates along an
orthonormal basis of the span of those means alone, at most as many as there are classes, whatever the dimension of
features.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuralcollapse.training.run_directory import Run

MOST_CLASSES = 40
"""Of a network with more classes the page has those of the pairs whose angle is farthest from a simplex."""
_SEARCHED = 4000  # classes among which these pairs are searched
_EXAMPLES = 30  # of a class
_FEWEST = 3
BUDGET = 1_500_000
"""Bytes of the snapshots of a page."""


def pack_run(run: Run, room: int = BUDGET) -> dict[str, Any] | None:
    """The snapshots of a run; None where there are none.

    Args:
        run: the run directory.
        room: bytes that its epochs may take together.

    Returns:
        `classes`, indices; `epochs`; `sets`, of each epoch as :func:`pack` makes it; `left_out`, epochs with a snapshot
        that did not fit.

    Raises:
        InputError: a damaged snapshot.
    """
    epochs = list(run.snapshots())
    if not epochs:
        return None
    last = run.snapshot(epochs[-1])
    classes = choose_classes(last["class_means"], _centre(last))
    rank = min(len(classes), last["class_means"].shape[1])
    least = len(classes) * rank * (8 + 2 * _FEWEST)
    number = min(max(2, room // least), len(epochs))  # evenly, the first and the last among them
    kept = [epochs[place] for place in np.unique(np.linspace(0, len(epochs) - 1, number).round().astype(int))]
    room = (room / len(kept) / (len(classes) * rank) - 8) / 2
    examples = int(min(max(room, _FEWEST), _EXAMPLES))
    sets = [pack(run.snapshot(epoch), classes, examples) for epoch in kept]
    return {"classes": classes, "epochs": kept, "sets": sets, "left_out": len(epochs) - len(kept)}


def pack(arrays: Mapping[str, np.ndarray], classes: Sequence[int], examples: int = _EXAMPLES) -> dict[str, Any]:
    """Coordinates of some classes along an orthonormal basis of the span of their centred means.

    Args:
        arrays: `class_means` (C, p); where they are there `global_mean` (p,), `weight` (C, p), `features` (n, p) and
            `labels` (n,).
        classes: k of the C classes.
        examples: at most so many features of each class.

    Returns:
        `dim`, the number r of directions; `means` and `weight` (k, r) in float32; `counts`, features of each class;
        `features`, in the order of classes, their deviations from the class mean in int16 units of `unit`. Arrays are
        the base64 of little-endian bytes.
    """
    centre = _centre(arrays)
    means = arrays["class_means"][list(classes)].astype(np.float64) - centre
    _, sizes, spanning = np.linalg.svd(means, full_matrices=False)
    rank = int((sizes > 1e-6 * sizes[0]).sum()) if sizes[0] > 0 else 1  # up to rounding: what is kept is float32
    directions = spanning[:rank].T
    packed: dict[str, Any] = {"dim": directions.shape[1], "means": _base64(means @ directions, "<f4")}
    if "weight" in arrays:
        packed["weight"] = _base64(arrays["weight"][list(classes)].astype(np.float64) @ directions, "<f4")
    if "features" in arrays:
        labels = arrays["labels"]
        chosen = [np.flatnonzero(labels == label)[:examples] for label in classes]
        own = [
            (arrays["features"][found].astype(np.float64) - centre - means[place]) @ directions
            for place, found in enumerate(chosen)
        ]
        deviations = np.concatenate(own)
        unit = float(np.abs(deviations).max(initial=0.0)) / 32767 or 1.0
        packed |= {
            "counts": [len(found) for found in chosen],
            "unit": float(f"{unit:.6g}"),
            "features": _base64(np.clip(np.rint(deviations / unit), -32767, 32767), "<i2"),
        }
    return packed


def choose_classes(means: np.ndarray, centre: np.ndarray) -> list[int]:
    """All classes, or the MOST_CLASSES of the pairs whose cosine is farthest from −1/(C−1), in the order of classes."""
    number = len(means)
    if number <= MOST_CLASSES:
        return list(range(number))
    searched = np.unique(np.linspace(0, number - 1, min(number, _SEARCHED)).astype(int))
    rows = means[searched].astype(np.float64) - centre
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)
    away = np.triu(np.abs(rows @ rows.T + 1 / (number - 1)), 1)
    chosen: dict[int, None] = {}
    for flat in np.argsort(away, axis=None)[::-1]:
        chosen |= dict.fromkeys(int(searched[place]) for place in divmod(int(flat), len(searched)))
        if len(chosen) >= MOST_CLASSES:
            break
    return sorted(list(chosen)[:MOST_CLASSES])


def _centre(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The global mean; of an older snapshot without one the mean of the class means, its value for balanced classes."""
    found: np.ndarray = arrays.get("global_mean", arrays["class_means"].mean(axis=0)).astype(np.float64)
    return found


def _base64(array: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype=kind).tobytes()).decode("ascii")
