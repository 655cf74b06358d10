"""Write a figure in both formats."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neuralcollapse._files import replacing


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write both formats, each whole or not at all, without the date, so that the same run gives the same bytes."""
    FigureCanvasAgg(figure)
    paths = []
    for ending, metadata in (("png", {}), ("svg", {"Date": None})):
        path = folder / f"{name}.{ending}"
        with replacing(path) as temporary:
            figure.savefig(temporary, format=ending, metadata=metadata)
        paths.append(path)
    return paths
