"""Fig. 1 of the paper: features, class means and classifier in the plane or space of a few classes' simplex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from neuralcollapse.figures import style
from neuralcollapse.metrics.geometry import simplex_etf

_COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE)
_EDGE, _SPOKE = "#BBBBBB", "#DDDDDD"


@dataclass(frozen=True)
class Projection:
    """A few classes seen in the (k−1)-dimensional space that their means span.

    Args:
        means: (k, k−1) class means.
        classifier: (k, k−1) rows of the classifier, on the scale of their own mean norm.
        features: one (m_c, k−1) array per class.
        simplex: (k, k−1) the simplex ETF that collapse leads to.
    """

    means: np.ndarray
    classifier: np.ndarray
    features: tuple[np.ndarray, ...]
    simplex: np.ndarray


def project(snapshot: Mapping[str, np.ndarray], classes: Sequence[int]) -> Projection:
    """Project on the space of the means of k classes, turned so that they lie nearest to the standard simplex.

    With centred means M (k × p) and the simplex S (k × k−1), the directions are the orthonormal columns V (p × k−1)
    that maximise tr(Vᵀ Mᵀ S): V = U Qᵀ for the singular value decomposition MᵀS = U Σ Qᵀ (orthogonal Procrustes;
    Schönemann, 1966). Then the means are scaled to mean norm 1, and so are the classifier's rows: where the two
    coincide, classifier and means are dual to one another.

    Args:
        snapshot: `class_means` (C, p), `weight` (C, p), `features` (n, p) and `labels` (n,).
        classes: k of the C classes.
    """
    chosen = list(classes)
    frame = simplex_etf(len(chosen), len(chosen) - 1).numpy()
    simplex = frame[::-1] * np.append(np.ones(len(chosen) - 2), -1.0)  # the first vertex points up
    means = snapshot["class_means"][chosen].astype(np.float64)
    origin = means.mean(axis=0)
    left, _, right = np.linalg.svd((means - origin).T @ simplex, full_matrices=False)
    directions = left @ right
    means = (means - origin) @ directions
    scale = _mean_norm(means)
    rows = snapshot["weight"][chosen].astype(np.float64)
    rows = (rows - rows.mean(axis=0)) @ directions
    features = tuple(
        (snapshot["features"][snapshot["labels"] == label].astype(np.float64) - origin) @ directions / scale
        for label in chosen
    )
    return Projection(means / scale, rows / _mean_norm(rows), features, simplex)


def portrait(view: Projection, axes: Axes, *, reach: float | None = None) -> Axes:
    """Fig. 1: draw features, means, classifier and simplex; three classes in a plane, four in space.

    Args:
        view: the classes, from `project`.
        axes: where to draw; with the projection "3d" for four classes.
        reach: half the width of the picture; by default what the content needs.
    """
    dimensions = view.means.shape[1]
    spatial = dimensions == 3
    depth: dict[str, Any] = {"depthshade": False} if spatial else {}

    plane = np.eye(dimensions, max(dimensions, 2))  # two classes have a line only

    def points(at: np.ndarray, **options: Any) -> None:
        axes.scatter(*(at @ plane).T, **{**options, **depth})

    def segment(start: np.ndarray, end: np.ndarray, **options: Any) -> None:
        axes.plot(*(np.stack([start, end]) @ plane).T, **options)

    origin = np.zeros(dimensions)
    for start in range(len(view.simplex)):
        for end in range(start):
            segment(view.simplex[start], view.simplex[end], color=_EDGE, linewidth=0.8, zorder=1)
    for index, color in enumerate(_COLORS[: len(view.means)]):
        mean, row = view.means[index : index + 1], view.classifier[index : index + 1]
        segment(origin, view.simplex[index], color=_SPOKE, linewidth=0.8, zorder=1)
        points(view.features[index], color=color, marker=".", s=14, alpha=0.45, linewidths=0, zorder=2)
        segment(origin, row[0], color=color, linewidth=1.6, zorder=3)
        points(row, color=color, marker="D", s=34, edgecolors="white", zorder=4)
        points(mean, color=color, marker="o", s=70, edgecolors="black", alpha=0.8, zorder=5)
    if reach is None:  # far outliers of the first epochs may leave the picture, rather than make the simplex tiny in it
        everything = np.concatenate([view.means, view.classifier, view.simplex, *view.features])
        reach = 1.05 * float(np.clip(np.quantile(np.abs(everything), 0.98), 1.05, 1.6))
    axes.set_xlim(-reach, reach)
    if dimensions > 1:
        middle = 0.0 if spatial else 0.25 * (reach < 1.3)  # a triangle standing on its side is not centred on its mean
        axes.set_ylim(middle - reach, middle + reach)
    if spatial:
        space: Any = axes
        space.set_zlim(-reach, reach)
        space.set_box_aspect((1, 1, 1), zoom=1.6)
        space.view_init(elev=14, azim=47)
    else:
        axes.set_aspect("equal")
    axes.axis("off")
    return axes


def portrait_classes(snapshot: Mapping[str, np.ndarray], count: int) -> tuple[int, ...]:
    """The first `count` classes of which a snapshot has features, or as many as the dimension of features allows."""
    present = np.unique(snapshot["labels"])[:count]
    return tuple(int(label) for label in present[: snapshot["weight"].shape[1] + 1])


def portrait_legend(classes: Sequence[int], class_names: Sequence[str]) -> list[Line2D]:
    """What the symbols and colours of a portrait mean."""
    grey: dict[str, Any] = {"color": style.GREY, "linestyle": ""}
    handles = [
        Line2D([], [], marker=".", markersize=6, label="features", **grey),
        Line2D([], [], marker="o", markersize=8, markeredgecolor="black", label="class mean", **grey),
        Line2D([], [], marker="D", markersize=5, label="classifier", color=style.GREY, linewidth=1.6),
        Line2D([], [], color=_EDGE, linewidth=0.8, label="simplex ETF"),
    ]
    for label, color in zip(classes, _COLORS, strict=False):
        name = class_names[label] if label < len(class_names) else str(label)
        name = f"class {name}" if name.isdigit() else style.plain(name)
        handles.append(Line2D([], [], marker="s", linestyle="", markersize=6, color=color, label=name))
    return handles


def _mean_norm(rows: np.ndarray) -> float:
    return float(np.linalg.norm(rows, axis=1).mean()) or 1.0
