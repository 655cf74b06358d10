"""Write a figure in both formats."""

from __future__ import annotations

import os
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neuralcollapse._checks import InputError


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write both formats, each whole or not at all, without the date, so that the same run gives the same bytes."""
    FigureCanvasAgg(figure)
    paths = []
    for ending, metadata in (("png", {}), ("svg", {"Date": None})):
        path = folder / f"{name}.{ending}"
        temporary = folder / f".{name}.{ending}.tmp"
        try:
            figure.savefig(temporary, format=ending, metadata=metadata)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise InputError(f"{path} cannot be written: {error.strerror}") from error
        paths.append(path)
    return paths
