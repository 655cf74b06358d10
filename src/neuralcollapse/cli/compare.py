"""`neuralcollapse compare`: which numbers of two networks, layers or runs differ, and how certain that is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from neuralcollapse.files.options import STANDARD_OUTPUT, CompareOptions, check_written

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class CompareCommand:
    """Compare two networks number by number, with an interval of each difference.

    A and B are two of one kind:
      features   files with features, labels and perhaps weight and bias, as
                 `measure` takes them: intervals come from the bootstrap over
                 examples; where both files have the same labels in the same
                 order, the same examples are drawn on both sides, and the
                 linear CKA of the two is told
      reports    JSON of `measure --json`: intervals need that both were
                 measured with --confidence
      runs       a run, or a study of one network with several seeds, at the
                 last epoch: intervals come from the spread of the seeds; one
                 run on a side has none
    """

    a: tyro.conf.Positional[Path | None] = None  # checked below: tyro blames it for a misspelled option before it
    """The one side."""
    b: tyro.conf.Positional[Path | None] = None
    """The other."""
    comparing: tyro.conf.OmitArgPrefixes[CompareOptions] = field(
        default_factory=CompareOptions, metadata={"section": "Measuring"}
    )
    json: Path | None = None
    """Write what was found to this file as a JSON object instead of printing it; - prints that object."""

    def __call__(self, console: Console) -> int:
        from neuralcollapse._errors import InputError
        from neuralcollapse.cli.tables import share_bar
        from neuralcollapse.files.compare_paths import compare_paths
        from neuralcollapse.files.measure_files import printed

        if self.a is None or self.b is None:
            raise InputError("expected two files, reports or runs to compare, such as `compare before.npz after.npz`")
        if self.json is not None and self.json != STANDARD_OUTPUT:
            check_written(self.json, (self.a, self.b))
        with share_bar(console, "resampling") as advance:
            found = compare_paths(self.a, self.b, self.comparing, advance)
        print(printed(found, self.json), end="")
        return 0
