"""`neuralcollapse figures`: draw the figures of a run, of a study, or of another program's log."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from neuralcollapse.plots.options import Drawing

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class FiguresCommand:
    """Draw the figures of a run again, of a whole study with Table 1, or of another program's log.

    A study is a folder with a study.json that lists its runs, as grid and sweep write it; or, without that file, a
    folder whose subfolders are runs. Each of its figures shows networks × data sets, with means and bands over seeds.
    A log is a Monitor's file, or what the Lightning and Transformers callbacks left. Beside each figure stands its
    caption, in .tex for \\input and in .txt.
    """

    path: tyro.conf.Positional[Path | None] = None  # checked below: tyro blames it for a misspelled option before it
    """A run directory, the folder of a study, or a log."""
    out: Path | None = None
    """Where the files go; by default into figures/ in that folder."""
    drawing: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)
    animate: bool = False
    """Also draw the portrait of a run over its epochs, as GIF and MP4 (extra: video)."""

    def __call__(self, console: Console) -> int:
        from neuralcollapse import figures
        from neuralcollapse._errors import InputError
        from neuralcollapse.cli import tables
        from neuralcollapse.files.options import check_folder

        if self.path is None:
            raise InputError("expected a run directory or the folder of a study, such as `figures runs/grid`, got none")
        if self.out is not None:
            check_folder(self.out)
        for path in figures.draw(self.path, self.out, drawing=self.drawing, animate=self.animate):
            tables.print_as_it_is(console, path)
        return 0
