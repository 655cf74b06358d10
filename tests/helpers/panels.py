"""What stands where in a panel."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox


def beneath_counts(ax: Axes) -> list[Any]:
    """Curves, bands and other texts that the number of seeds is written over, in a figure that has been laid out."""
    # the white patch around a number hides what it covers too, and a line is wider than its path
    numbers = [
        text.get_bbox_patch().get_window_extent().padded(0.5)  # type: ignore[union-attr]
        for text in ax.texts
        if text.get_gid() == "n"
    ]
    points = [(line, _along(line.get_transform().transform(line.get_xydata()))) for line in ax.lines if _is_curve(line)]
    outlines = [
        (band, band.get_transform().transform_path(path)) for band in ax.collections for path in band.get_paths()
    ]
    texts = [(text, text.get_window_extent()) for text in ax.texts if text.get_gid() != "n"]
    return [
        artist
        for number in numbers
        for artist, covers in (
            *((line, bool(_inside(number, along).any())) for line, along in points),
            # a band covers the box where it holds one of its points, or runs through it with an edge
            *((band, bool(outline.contains_points(_mesh(number)).any())) for band, outline in outlines),
            *((band, bool(_inside(number, _along(outline.vertices)).any())) for band, outline in outlines),
            *((text, bool(box.overlaps(number))) for text, box in texts),
        )
        if covers
    ]


def _is_curve(line: Any) -> bool:
    return bool(line.get_gid() == "curve")


def _along(corners: Any) -> Any:
    """Points of a polygon, a thousand on each side."""
    steps = np.linspace(0, 1, 1000)[:, None]
    sides = [first + (second - first) * steps for first, second in itertools.pairwise(np.asarray(corners))]
    return np.concatenate(sides) if sides else np.asarray(corners)


def _mesh(box: Bbox) -> Any:
    return np.stack(np.meshgrid(np.linspace(box.x0, box.x1, 12), np.linspace(box.y0, box.y1, 12)), -1).reshape(-1, 2)


def _inside(box: Bbox, points: Any) -> Any:
    x, y = np.asarray(points).T
    return (box.x0 < x) & (x < box.x1) & (box.y0 < y) & (y < box.y1)
