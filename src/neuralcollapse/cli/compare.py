"""`neuralcollapse compare`: which numbers of two networks, layers or runs differ, and how certain that is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from neuralcollapse.files.compare_paths import CompareOptions

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class CompareCommand:
    """Compare two networks number by number, with an interval of each difference.

    A and B are two of one kind:
      features   .npz, .safetensors or .parquet with features, labels and perhaps weight and bias: intervals come from
                 the bootstrap over examples; where both files have the same labels in the same order, the same examples
                 are drawn on both sides, and the linear CKA of the two is told
      reports    JSON of `measure --json`: intervals need that both were measured with --confidence
      runs       a run, or a study of one network with several seeds, at the last epoch: intervals come from the spread
                 of the seeds; one run on a side has none
    """

    a: tyro.conf.Positional[Path]
    """The one side."""
    b: tyro.conf.Positional[Path]
    """The other."""
    comparing: tyro.conf.OmitArgPrefixes[CompareOptions] = field(default_factory=CompareOptions)
    json: Path | None = None
    """Write what was found to this file as a JSON object instead of printing it; - prints that object."""

    def __call__(self, console: Console) -> int:
        from neuralcollapse._files import to_json, write_json
        from neuralcollapse.cli.tables import share_bar
        from neuralcollapse.files.compare_paths import compare_paths

        with share_bar(console, "resampling") as advance:
            found = compare_paths(self.a, self.b, self.comparing, advance)
        if self.json is None:
            print(found)
        elif self.json == Path("-"):
            print(to_json(found.to_dict(), indent=2))
        else:
            write_json(self.json, found.to_dict())
        return 0
