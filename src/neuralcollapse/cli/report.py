"""`neuralcollapse report`: one HTML file in which a run, a study or a measurement is explored."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from rich.console import Console

_FEATURES = {"section": "Arguments"}


@dataclass(frozen=True)
class ReportCommand:
    """Write one HTML file in which a run, a study or a measurement is explored; it needs no network.

    PATH is a run directory; a study; the lines of a Monitor; what the Lightning or the Transformers callback logged; a
    file of features, as `measure` takes it; or the JSON that `measure --json` wrote.
    """

    path: tyro.conf.Positional[Path | None] = None  # checked below: tyro blames it for a misspelled option before it
    """What to show."""
    out: Path | None = None
    """The HTML file; by default report.html in the folder, or beside the file with its name."""
    watch: bool = False
    """Write it again while a run goes on; the page in the browser then loads itself again."""
    labels: Path | None = field(default=None, metadata=_FEATURES)
    """Of features: their labels (n,), if they are not in the same file."""
    weight: Path | None = field(default=None, metadata=_FEATURES)
    """Of features: the classifier's weight (C, p), if it is not in the same file."""
    bias: Path | None = field(default=None, metadata=_FEATURES)
    """Of features: the classifier's bias (C,), if it is not in the weight's file."""

    def __call__(self, console: Console) -> int:
        from neuralcollapse import report
        from neuralcollapse._errors import InputError
        from neuralcollapse.cli import tables
        from neuralcollapse.files.options import FileOptions

        if self.path is None:
            raise InputError("expected a run, a study or a file of measurements, such as `report runs/mine`, got none")
        out = report.default_place(self.path) if self.out is None else self.out
        files = FileOptions(labels=self.labels, weight=self.weight, bias=self.bias, metrics="all")
        if not self.watch:
            with tables.share_bar(console, "measuring") as advance:
                written = report.write_report(self.path, out, files, advance)
            tables.print_as_it_is(console, written)
            return 0
        pages = report.watch(self.path, out, files)
        try:
            for number, page in enumerate(pages):
                if number == 0:
                    told = f"{page}, written again while the run goes on"
                    tables.print_as_it_is(console, told)
        except KeyboardInterrupt:
            pages.close()
        return 0
