"""What the page shows of one measurement: a `Report`, or the JSON that `neuralcollapse measure --json` wrote of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuralcollapse.measuring.report import Report
from neuralcollapse.measuring.tidy import numbers_of
from neuralcollapse.metrics.registry import METRICS
from neuralcollapse.report.class_table import class_table
from neuralcollapse.report.explanations import EXPLANATIONS, FAMILIES, family_of, sentences
from neuralcollapse.report.numbers import rounded
from neuralcollapse.report.projections import choose_classes, pack

_COUNTS = ("num_examples", "num_classes", "classes_present", "dim")


def view_of_report(report: Report, title: str = "") -> dict[str, Any]:
    """The content of a page about a report.

    Args:
        report: the measurement.
        title: of the page; by default the layer.
    """
    means, centre = report.means.double().cpu().numpy(), report.global_mean.double().cpu().numpy()
    arrays = {"class_means": means, "global_mean": centre}
    present = report.moments.present.cpu().numpy()
    classes = [label for label in choose_classes(means, centre) if present[label]]
    names = {row.label: row.name for row in report.per_class}
    content = view_of_printed(report.to_dict(), title)
    content["class_names"] = [names.get(label, "") for label in range(report.num_classes)]
    content["per_class"] = class_table({0: report.per_class}, "The least collapsed class first.")
    content["snapshots"] = {"classes": classes, "epochs": [0], "sets": [pack(arrays, classes)], "left_out": 0}
    return content


def view_of_printed(printed: Mapping[str, Any], title: str = "") -> dict[str, Any]:
    """The content of a page about what a report prints as JSON, which has no class means.

    Args:
        printed: as `Report.to_dict` makes it.
        title: of the page; by default the layer.
    """
    numbers = numbers_of(printed)
    layer = printed.get("layer")
    rows = [
        {"name": name, "value": rounded(value), "family": family_of(name), **_about(name)}
        for name, value in numbers.items()
        if name not in _COUNTS and not name.startswith("snr.")
    ]
    return {
        "kind": "features",
        "title": title or (f"Layer {layer}" if layer else "Features"),
        "layer": str(layer or ""),
        "counts": {name: int(numbers[name]) for name in _COUNTS if name in numbers},
        "weighting": str(printed.get("weighting", "")),
        "reading": sentences(printed),
        "spectrum": [rounded(value) for name, value in numbers.items() if name.startswith("snr.")],
        "table": sorted(rows, key=lambda row: FAMILIES.index(row["family"])),
        "numbers": list(numbers),
        "class_names": [],
        "per_class": None,
        "snapshots": None,
        "runs": [],
        "not_run": [],
    }


def _about(name: str) -> dict[str, str]:
    """What a number measures, its good value, where that is said, and which explanation of the page is its own."""
    if name in METRICS:
        metric = METRICS[name]
        return {"measures": metric.measures, "good": metric.good, "source": metric.source, "explain": name}
    for key, explanation in EXPLANATIONS.items():
        if name in explanation.names:
            return {"measures": explanation.title, "good": explanation.good, "source": "", "explain": key}
    return {"measures": "", "good": "", "source": "", "explain": ""}
