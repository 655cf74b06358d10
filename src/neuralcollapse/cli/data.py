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
        from neuralcollapse.cli import tables

        found = data.available(self.data_dir)
        console.print(tables.data_table(found))
        for item in found:  # below the table, whose columns leave a path no room
            told = item.problem or f"in {item.path}"
            tables.print_as_it_is(console, f"{item.name}: {told}")
        if any(item.problem == "not found" for item in found):
            console.print(
                "\nLooked in --data-dir alone, or in NEURALCOLLAPSE_DATA, ./data, ~/data and /usr/share/datasets; "
                "`neuralcollapse run --dataset NAME` tells where to get a data set.",
                highlight=False,
            )
        return 0
