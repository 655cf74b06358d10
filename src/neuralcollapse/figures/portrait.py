"""The portrait (Fig. 1): features, class means and classifier in the plane or space of a few classes' simplex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from neuralcollapse.figures import style
from neuralcollapse.figures.runview import RunView
from neuralcollapse.metrics.geometry import simplex_etf

_COLORS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE)


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


def project(snapshot: dict[str, np.ndarray], classes: tuple[int, ...]) -> Projection:
    """Project on the space of the means of k classes, turned so that they lie nearest to the standard simplex.

    With centred means M (k × p) and the simplex S (k × k−1), the directions are the orthonormal columns V (p × k−1)
    that maximise tr(Vᵀ Mᵀ S): V = U Qᵀ for the singular value decomposition MᵀS = U Σ Qᵀ (orthogonal Procrustes;
    Schönemann, 1966). Then the means are scaled to mean norm 1, and so are the classifier's rows: where the two
    coincide, classifier and means are dual to one another.
    """
    chosen = list(classes)
    simplex = _vertices(len(chosen))
    means = snapshot["class_means"][chosen].astype(np.float64)
    origin = means.mean(axis=0)
    left, _, right = np.linalg.svd((means - origin).T @ simplex, full_matrices=False)
    directions = left @ right
    scale = _mean_norm((means - origin) @ directions)
    rows = snapshot["weight"][chosen].astype(np.float64)
    rows = (rows - rows.mean(axis=0)) @ directions
    features = tuple(
        (snapshot["features"][snapshot["labels"] == label].astype(np.float64) - origin) @ directions / scale
        for label in chosen
    )
    return Projection((means - origin) @ directions / scale, rows / _mean_norm(rows), features, simplex)


def portrait(axes: Axes, run: RunView, epoch: int, classes: tuple[int, ...]) -> None:
    """Draw one epoch; three classes in a plane, four in space."""
    draw_projection(axes, project(run.snapshot(epoch), classes))
    zero = ", zero training error" if epoch == run.zero_error_epoch else ""
    axes.set_title(f"epoch {epoch}{zero}", pad=2)


def draw_projection(axes: Axes, view: Projection, *, reach: float | None = None) -> None:
    """Draw features, means, classifier and simplex; `reach` fixes the half-width, which else follows the content."""
    spatial = view.means.shape[1] == 3
    origin = np.zeros(view.means.shape[1])
    for start in range(len(view.simplex)):
        for end in range(start):
            _segment(axes, view.simplex[start], view.simplex[end], color="#BBBBBB", linewidth=0.8, zorder=1)
    for index, color in enumerate(_COLORS[: len(view.means)]):
        _segment(axes, origin, view.simplex[index], color="#DDDDDD", linewidth=0.8, zorder=1)
        _points(axes, view.features[index], color=color, marker=".", s=14, alpha=0.45, linewidths=0, zorder=2)
        _segment(axes, origin, view.classifier[index], color=color, linewidth=1.6, zorder=3)
        _points(axes, view.classifier[index : index + 1], color=color, marker="D", s=34, edgecolors="white", zorder=4)
        _points(
            axes, view.means[index : index + 1], color=color, marker="o", s=70, edgecolors="black", alpha=0.8, zorder=5
        )
    _frame(axes, view, spatial, reach)


def classes_of(run: RunView, count: int) -> tuple[int, ...]:
    """The first `count` classes, as many as the snapshots allow."""
    snapshot = run.snapshot(max(run.snapshots))
    present = np.unique(snapshot["labels"])[:count]
    return tuple(int(label) for label in present[: snapshot["weight"].shape[1] + 1])


def legend_handles(run: RunView, classes: tuple[int, ...]) -> list[Any]:
    """What the symbols and colours mean."""
    from matplotlib.lines import Line2D

    grey: dict[str, Any] = {"color": style.GREY, "linestyle": ""}
    handles = [
        Line2D([], [], marker=".", markersize=6, label="features", **grey),
        Line2D([], [], marker="o", markersize=8, markeredgecolor="black", label="class mean", **grey),
        Line2D([], [], marker="D", markersize=5, label="classifier", color=style.GREY, linewidth=1.6),
        Line2D([], [], color="#BBBBBB", linewidth=0.8, label="simplex ETF"),
    ]
    for label, color in zip(classes, _COLORS, strict=False):
        name = run.class_names[label] if label < len(run.class_names) else str(label)
        name = f"class {name}" if name.isdigit() else name
        handles.append(Line2D([], [], marker="s", linestyle="", markersize=6, color=color, label=name))
    return handles


def _vertices(count: int) -> np.ndarray:
    """The standard simplex with unit vertices, the first one pointing up."""
    frame: np.ndarray = simplex_etf(count, count).numpy()
    basis = np.linalg.svd(frame)[2][: count - 1]
    vertices = frame @ basis.T
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    up = np.eye(count - 1)[-1]
    reflect = vertices[0] - up
    if np.linalg.norm(reflect) > 1e-9:  # Householder: the first vertex to the last axis
        vertices -= 2 * np.outer(vertices @ reflect, reflect) / (reflect @ reflect)
    return np.asarray(vertices)


def _mean_norm(rows: np.ndarray) -> float:
    return float(np.linalg.norm(rows, axis=1).mean()) or 1.0


def _segment(axes: Axes, start: np.ndarray, end: np.ndarray, **options: Any) -> None:
    ends = np.stack([start, end], axis=1)
    axes.plot(*(np.vstack([ends, np.zeros(2)]) if len(ends) == 1 else ends), **options)


def _points(axes: Axes, points: np.ndarray, **options: Any) -> None:
    if points.shape[1] == 1:
        points = np.column_stack([points, np.zeros(len(points))])
    elif points.shape[1] == 3:
        options["depthshade"] = False
    axes.scatter(*points.T, **options)


def _frame(axes: Any, view: Projection, spatial: bool, reach: float | None) -> None:
    everything = np.concatenate([view.means, view.classifier, view.simplex, *view.features])
    # Far outliers of the first epochs may leave the picture, rather than make the simplex tiny in it.
    if reach is None:
        reach = 1.05 * float(np.clip(np.quantile(np.abs(everything), 0.98), 1.05, 1.6))
    axes.set_xlim(-reach, reach)
    if view.means.shape[1] > 1:
        middle = 0.0 if spatial else 0.25 * (reach < 1.3)  # a triangle standing on its side is not centred on its mean
        axes.set_ylim(middle - reach, middle + reach)
    if spatial:
        axes.set_zlim(-reach, reach)
        axes.set_box_aspect((1, 1, 1), zoom=1.6)
        axes.view_init(elev=14, azim=-58)
    else:
        axes.set_aspect("equal")
    axes.axis("off")
