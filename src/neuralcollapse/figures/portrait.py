"""Fig. 1 of the paper: features, class means and classifier in the plane or space of a few classes' simplex."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from neuralcollapse.metrics.geometry import simplex_etf
from neuralcollapse.plots import style

_EDGE, _SPOKE = "#BBBBBB", "#DDDDDD"
_VIEW = (14.0, 47.0)  # elevation and azimuth in degrees


@dataclass(frozen=True)
class Projection:
    """A few classes seen in the (k−1)-dimensional space that their means span.

    Args:
        means: (k, k−1) class means.
        classifier: (k, k−1) rows of the classifier, on the scale of their own mean norm.
        features: one (m_c, k−1) array per class.
        simplex: (k, k−1) the simplex ETF that collapse leads to.
        names: of the classes.
    """

    means: np.ndarray
    classifier: np.ndarray
    features: tuple[np.ndarray, ...]
    simplex: np.ndarray
    names: tuple[str, ...]

    def frame(self, limit: float = 3.0) -> tuple[np.ndarray, float]:
        """Middle and half width of a frame that holds everything, but for features beyond `limit` mean norms."""
        fixed = np.concatenate([self.means, self.classifier, self.simplex])
        loose = np.concatenate(self.features)
        inside = np.concatenate([fixed, loose[np.abs(loose).max(axis=1) <= limit]])
        low, high = inside.min(axis=0), inside.max(axis=0)
        return (low + high) / 2, 0.56 * float((high - low).max())


def project(snapshot: Mapping[str, np.ndarray], classes: Sequence[int], names: Sequence[str] = ()) -> Projection:
    """Project on the space of the means of k classes, turned so that they lie nearest to the standard simplex.

    With centred means M (k × p) and the simplex S (k × k−1), the directions are the orthonormal columns V (p × k−1)
    that maximise tr(Vᵀ Mᵀ S): V = U Qᵀ for the singular value decomposition MᵀS = U Σ Qᵀ (orthogonal Procrustes;
    Schönemann, 1966). Then the means are scaled to mean norm 1, and so are the classifier's rows: where the two
    coincide, classifier and means are dual to one another.

    Args:
        snapshot: `class_means` (C, p), `weight` (C, p), `features` (n, p) and `labels` (n,).
        classes: k of the C classes.
        names: of all classes; a class without one, or with a number for a name, becomes `class 3`.
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
    known = [str(names[label]) if label < len(names) else str(label) for label in chosen]
    named = tuple(f"class {name}" if name.isdigit() else name for name in known)
    return Projection(means / scale, rows / _mean_norm(rows), features, simplex, named)


def portrait(
    view: Projection, axes: Axes, *, frame: tuple[np.ndarray, float] | None = None, zoom: bool = False
) -> Axes:
    """Fig. 1: draw features, means, classifier and simplex; three classes in a plane, four in space.

    Args:
        view: the classes, from `project`.
        axes: where to draw; with the projection "3d" for four classes.
        frame: its middle and half its width; by default what the content needs. Features outside are counted.
        zoom: whether an inset shows the first class enlarged.
    """
    space: Any = axes  # of four classes it is an Axes3D
    dimensions = view.means.shape[1]
    spatial = dimensions == 3
    middle, half = view.frame() if frame is None else frame
    up, across = np.radians(_VIEW)
    eye = np.array([np.cos(up) * np.cos(across), np.cos(up) * np.sin(across), np.sin(up)])
    towards = eye if spatial else np.zeros(dimensions)
    plane = np.eye(dimensions, max(dimensions, 2))  # two classes have a line only

    def points(at: np.ndarray, size: float, **options: Any) -> None:
        depth = 1 + 0.5 * np.clip(at @ towards / half, -1, 1)  # what is nearer is larger
        space.scatter(
            *(at @ plane).T,
            s=size * style.scaled(1) ** 2 * depth,
            **options,
            **({"depthshade": False} if spatial else {}),
        )

    def segment(start: np.ndarray, end: np.ndarray, **options: Any) -> None:
        space.plot(*(np.stack([start, end]) @ plane).T, **options)

    if spatial:
        from mpl_toolkits.mplot3d.art3d import Poly3DCollection

        faces = [view.simplex[list(corners)] for corners in itertools.combinations(range(len(view.simplex)), 3)]
        space.add_collection3d(Poly3DCollection(faces, shade=True, facecolors=["#C8C8C8"] * len(faces), alpha=0.16))
    origin = np.zeros(dimensions)
    for start, end in itertools.combinations(range(len(view.simplex)), 2):
        dashes = ":" if spatial and (view.simplex[[start, end]] @ towards).max() < 0.2 else "-"  # behind the middle
        segment(
            view.simplex[start], view.simplex[end], color=_EDGE, linewidth=style.scaled(0.8), linestyle=dashes, zorder=1
        )
    for index in np.argsort(view.means @ towards, kind="stable"):  # the nearest last
        color, mean, row = style.CLASS_COLORS[index], view.means[[index]], view.classifier[[index]]
        segment(origin, view.simplex[index], color=_SPOKE, linewidth=style.scaled(0.8), zorder=1)
        features = view.features[index]
        points(features[_inside(features, middle, half)], 7, color=color, marker=".", alpha=0.6, linewidths=0, zorder=2)
        segment(origin, row[0], color=color, linewidth=style.scaled(1.2), zorder=3)
        points(row, 14, color=color, marker="D", edgecolors="white", linewidths=style.scaled(0.5), zorder=5)
        disc: dict[str, Any] = {
            "facecolors": color,
            "edgecolors": "black",
            "linewidths": style.scaled(0.7),
            "alpha": 0.75,
        }
        ring: dict[str, Any] = {"facecolors": "none", "edgecolors": color, "linewidths": style.scaled(1.0)}
        points(mean, 34, marker="o", zorder=4, **(ring if spatial else disc))
    limits = [(float(at) - half, float(at) + half) for at in middle @ plane]
    axes.set(xlim=limits[0], ylim=limits[1])
    if spatial:
        space.set_zlim(*limits[2])
        space.set_box_aspect((1, 1, 1), zoom=1.3)
        space.view_init(elev=_VIEW[0], azim=_VIEW[1])
    else:
        axes.set_aspect("equal")
    everything = np.concatenate(view.features)
    if outside := int((~_inside(everything, middle, half)).sum()):
        where: dict[str, Any] = {"transform": axes.transAxes, "va": "top", "ha": "left", "clip_on": False}
        text = f"{outside} of {len(everything)} features outside"
        (space.text2D if spatial else axes.text)(0.0, 0.0, text, gid="outside", fontsize="small", **where)
    axes.axis("off")
    if zoom and dimensions == 2:
        _enlarge(view, axes)
    return axes


def portrait_classes(snapshot: Mapping[str, np.ndarray], count: int) -> tuple[int, ...]:
    """The first `count` classes of which a snapshot has features, or as many as the dimension of features allows."""
    present = np.unique(snapshot["labels"])[:count]
    return tuple(int(label) for label in present[: snapshot["weight"].shape[1] + 1])


def portrait_legend(view: Projection) -> list[Line2D]:
    """What the symbols and colours of a portrait mean; means are rings in space, discs in the plane."""
    grey: dict[str, Any] = {"color": style.GREY, "linestyle": ""}
    mean: dict[str, Any] = {"marker": "o", "markersize": style.scaled(5), "markeredgecolor": "black"}
    if view.means.shape[1] == 3:
        mean |= {"markerfacecolor": "none", "markeredgecolor": style.GREY, "markeredgewidth": style.scaled(1)}
    return [
        Line2D([], [], marker=".", markersize=style.scaled(4), label="features", **grey),
        Line2D([], [], label="class mean", **mean, **grey),
        Line2D(
            [],
            [],
            marker="D",
            markersize=style.scaled(3.5),
            label="classifier",
            color=style.GREY,
            linewidth=style.scaled(1.2),
        ),
        Line2D([], [], color=_EDGE, linewidth=style.scaled(0.8), label="simplex"),
        *(
            Line2D([], [], marker="s", linestyle="", markersize=style.scaled(5), color=color, label=style.plain(name))
            for name, color in zip(view.names, style.CLASS_COLORS, strict=False)
        ),
    ]


def _enlarge(view: Projection, axes: Axes) -> None:
    """An inset with the first class about its mean, and by how much it is enlarged."""
    around = np.concatenate([view.features[0], view.classifier[:1], view.simplex[:1]]) - view.means[0]
    half = 1.15 * float(np.abs(around).max())
    if not 0 < half < 0.2:
        return
    inset = axes.inset_axes((0.62, 0.62, 0.38, 0.38))
    color = style.CLASS_COLORS[0]

    def mark(at: np.ndarray, shape: str, size: float, edge: float, **look: Any) -> None:
        inset.plot(*at, shape, markersize=style.scaled(size), markeredgewidth=style.scaled(edge), **look)

    mark(view.features[0].T, ".", 2.5, 0, color=color, alpha=0.7)
    mark(view.classifier[0], "D", 3.5, 0.5, color=color, markeredgecolor="white")
    mark(view.means[0], "o", 5, 0.6, color=color, markeredgecolor="black", alpha=0.75)
    mark(view.simplex[0], "+", 5, 0.8, color=style.GREY)
    inset.set(xlim=view.means[0, 0] + np.array([-half, half]), ylim=view.means[0, 1] + np.array([-half, half]))
    inset.set(xticks=[], yticks=[], aspect="equal")
    inset.spines[:].set(visible=True, color=_EDGE)
    times = np.diff(axes.get_xlim())[0] * 0.38 / (2 * half)
    inset.set_title(f"{style.plain(view.names[0])}, × {float(f'{times:.2g}'):g}", fontsize="small", pad=2)


def _inside(points: np.ndarray, middle: np.ndarray, half: float) -> np.ndarray:
    return np.asarray((np.abs(points - middle) <= half).all(axis=1))


def _mean_norm(rows: np.ndarray) -> float:
    return float(np.linalg.norm(rows, axis=1).mean()) or 1.0
