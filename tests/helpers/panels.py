"""What stands where in a panel."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes


def beneath_counts(ax: Axes) -> list[Any]:
    """Curves, bands and other texts that the number of seeds is written over, in a figure that has been laid out."""
    numbers = [text.get_window_extent() for text in ax.texts if text.get_gid() == "n"]
    lines = [(line, line.get_path(), False) for line in ax.lines if line.get_gid() == "curve"]
    bands = [(band, path, True) for band in ax.collections for path in band.get_paths()]
    drawn = [(each, each.get_transform().transform_path(path), filled) for each, path, filled in lines + bands]
    texts = [(text, text.get_window_extent()) for text in ax.texts if text.get_gid() != "n"]
    return [each for number in numbers for each, path, filled in drawn if path.intersects_bbox(number, filled)] + [
        text for number in numbers for text, box in texts if box.overlaps(number)
    ]
