"""`neuralcollapse data`: list the data sets found on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class DataCommand:
    """List the data sets found on this machine, with their counts per class."""

    data_dir: Path | None = field(default=None, metadata={"section": "Data"})
    """The folder to look in, and nowhere else."""

    def __call__(self, console: Console) -> int:
        from neuralcollapse import data
        from neuralcollapse.cli.tables import data_table

        console.print(data_table(data.available(self.data_dir)))
        return 0
