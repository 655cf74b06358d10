"""`neuralcollapse measure`: the report of features and a classifier that are saved in files."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from neuralcollapse.files.options import FileOptions, JobOptions

if TYPE_CHECKING:
    from rich.console import Console

_ARGUMENTS = {"section": "Arguments"}


@dataclass(frozen=True)
class MeasureCommand:
    """Measure features and a classifier saved in files, and print the report.

    Features are (n, p) of 16, 32 or 64 bits, labels (n,) integers from 0. Files are mapped and read in blocks, so they
    may be larger than memory. An .npz is first compared with its checksums, for which each job reads it once, and a
    compressed .npz is read whole: numpy.savez writes it uncompressed.

    A measurement with --save writes what it has as it goes into FILE.unfinished; killed, the same command goes on.

    A large file is measured by N jobs at once, of this machine or of a Slurm array, whose merged report is that of one:
      measure FEATURES --weight W --save all.safetensors --jobs N [--slurm]

    Where jobs are started by other means, each reads the rows of its own I; the merged report has no NC4 and no
    accuracies:
      measure FEATURES --shard I/N --classes C --save part-I.safetensors
      measure --merge part-*.safetensors --save all.safetensors --weight W

    NC4 and the accuracies need the class means of all rows, so the jobs count them in a second round, which gives the
    full report:
      measure FEATURES --shard I/N --moments all.safetensors --weight W \\
          --save count-I.safetensors
      measure --merge count-*.safetensors --moments all.safetensors --weight W
    """

    features: tyro.conf.Positional[Path | None] = None
    """The features: .npz, .safetensors or .pt, which may hold labels, weight and bias too; .parquet, which may hold
    label or labels; or .npy, features alone. Left out with --merge."""
    measuring: tyro.conf.OmitArgPrefixes[FileOptions] = field(default_factory=FileOptions, metadata=_ARGUMENTS)
    running: tyro.conf.OmitArgPrefixes[JobOptions] = field(default_factory=JobOptions, metadata=_ARGUMENTS)

    def __call__(self, console: Console) -> int:
        from neuralcollapse.cli.tables import share_bar
        from neuralcollapse.files.jobs import measure_in_jobs
        from neuralcollapse.files.measure_files import measure_files

        self.running.check(self.measuring)
        with share_bar(console, "measuring") as advance:
            if self.running.jobs is None:
                measured = measure_files(self.features, self.measuring, advance)
            else:
                measured = measure_in_jobs(self.features, self.measuring, self.running, advance)
        print(measured.text, end="")
        if measured.note:  # not into the report, so that this can be piped
            print(measured.note, file=sys.stderr if measured.text else sys.stdout)
        return 0
