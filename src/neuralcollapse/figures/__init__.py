"""From a run directory to figures."""

from __future__ import annotations

from pathlib import Path


def make_all(run_dir: Path, out: Path | None = None) -> list[Path]:
    """Draw nothing yet."""
    return []
