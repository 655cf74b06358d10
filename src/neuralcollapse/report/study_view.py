"""What the page shows of a history: of one run, or of several beside one another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from neuralcollapse.measuring.run_records import RunRecords
from neuralcollapse.report.explanations import EXPLANATIONS
from neuralcollapse.report.projections import BUDGET
from neuralcollapse.report.run_view import run_view
from neuralcollapse.training.recipes import family

_MOST_NUMBERS = 300_000  # of all runs: some three megabytes


def history_view(runs: Sequence[RunRecords], title: str = "", not_begun: Sequence[str] = ()) -> dict[str, Any]:
    """The content of a page.

    Args:
        runs: at least one.
        title: of the page; by default what the run is called, or how many runs there are.
        not_begun: names of runs that belong to the study and have no directory yet.

    Raises:
        InputError: a damaged file of a run directory.
    """
    views = [run_view(run, room=BUDGET // len(runs)) for run in runs]
    for view in views:
        _keep(view, _MOST_NUMBERS // len(runs))
    if len(views) == 1 and not not_begun:
        labels = views[0]["labels"]
        said = ", ".join(filter(None, (labels["dataset"], labels["network"], labels["loss"])))
        return {"kind": "run", "title": title or said or views[0]["name"], "runs": views, "not_run": []}
    not_run = [*not_begun, *_empty_cells(runs)]
    return {"kind": "study", "title": title or f"{len(views)} runs", "runs": views, "not_run": not_run}


def _empty_cells(runs: Sequence[RunRecords]) -> list[str]:
    """Data set, network and loss of the combinations that no run has, though each of the three occurs."""
    cells = [(run.dataset, family(run.network), run.loss) for run in runs]
    each = (dict.fromkeys(cell[place] for cell in cells) for place in range(3))
    return [", ".join(filter(None, cell)) for cell in itertools.product(*each) if cell not in cells]


def _keep(view: dict[str, Any], room: int) -> None:
    """Leave out numbers that do not fit: first those that no panel shows, then epochs, evenly."""
    values, epochs = view["values"], view["epochs"]
    if len(values) * len(epochs) > room:
        known = {"loss", "learning_rate"}.union(*(explanation.names for explanation in EXPLANATIONS.values()))
        values = {name: column for name, column in values.items() if name in known or name.startswith("snr.")}
    number = max(2, room // max(1, len(values)))
    if len(epochs) > number:
        places = sorted({round(step * (len(epochs) - 1) / (number - 1)) for step in range(number)})
        values = {name: [column[place] for place in places] for name, column in values.items()}
        view["thinned"] = [number, len(epochs)]
        view["epochs"] = [epochs[place] for place in places]
    view["values"] = values
