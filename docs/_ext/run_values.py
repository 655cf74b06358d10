"""The directive `values`: what numbers were in the committed runs, read from their histories when the site is built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

RESULTS = Path(__file__).parents[2] / "results"
SHOWN = (
    "digits-resnet18",
    "mnist-resnet18",
    "cifar10-resnet18",
    "paper-regime/mnist-resnet18-mse",
    "paper-regime/mnist-resnet18-ce",
    "paper-regime/cifar10-resnet18-ce",
)


def lines_of(run: str) -> list[dict[str, Any]]:
    """The measured epochs of a run."""
    return [json.loads(line) for line in (RESULTS / run / "history.jsonl").read_text("utf-8").splitlines()]


def loss_of(run: str) -> str:
    """`MSE` or `cross-entropy`."""
    loss = json.loads((RESULTS / run / "config.json").read_text("utf-8"))["loss"]
    return {"mse": "MSE", "ce": "cross-entropy"}[loss]


def value_of(line: dict[str, Any], name: str) -> float:
    """One number of an epoch; `snr.max` and `snr.min` are those of the spectrum, `a/b` is a quotient."""
    if "/" in name:
        first, second = name.split("/")
        return value_of(line, first) / value_of(line, second)
    if name.startswith("snr."):
        return float(line["snr"][0 if name == "snr.max" else -1])
    return float(line[name])


def table_of(name: str, title: str) -> list[str]:
    """The number at the first, first zero-error and last epoch of some runs, and its range at the end of all."""
    rows = [f"| {title} | loss | first epoch | first without a training error | last epoch |", "|---|---|---|---|---|"]
    for run in SHOWN:
        lines = lines_of(run)
        zero = next(line for line in lines if line["train_error"] == 0)
        numbers = [f"{value_of(line, name):.3g} (epoch {line['epoch']})" for line in (lines[0], zero, lines[-1])]
        rows.append(f"| [{run}](../../results/{run}/config.json) | {loss_of(run)} | {' | '.join(numbers)} |")
    folders = sorted(path.parent.relative_to(RESULTS).as_posix() for path in RESULTS.rglob("history.jsonl"))
    for loss in ("MSE", "cross-entropy"):
        ends = [value_of(lines_of(run)[-1], name) for run in folders if loss_of(run) == loss]
        rows.append(f"| all {len(ends)} runs | {loss} | | | {min(ends):.3g} to {max(ends):.3g} |")
    return rows


class Values(SphinxDirective):
    """`{values} KEY` with the title of the column as its content."""

    required_arguments, has_content = 1, True

    def run(self) -> list[nodes.Node]:
        """The table."""
        from outside_links import in_repository

        text = table_of(self.arguments[0], " ".join(self.content))
        linked = [in_repository(line, Path(self.env.doc2path(self.env.docname)), self.config) for line in text]
        box = nodes.container()
        self.state.nested_parse(StringList(linked, source="run_values"), self.content_offset, box)
        return box.children


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("values", Values)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
