"""What the page shows of one run, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuralcollapse._errors import InputError
from neuralcollapse._files import read_json
from neuralcollapse.figures.study_runs import StudyRun
from neuralcollapse.measuring.measure import measure_features
from neuralcollapse.measuring.per_class import ClassReports
from neuralcollapse.measuring.run_records import RunRecords
from neuralcollapse.measuring.tidy import layer_of, setting_text
from neuralcollapse.report.class_table import class_table
from neuralcollapse.report.explanations import sentences
from neuralcollapse.report.numbers import columns, rounded
from neuralcollapse.report.projections import BUDGET, pack_run
from neuralcollapse.training.losses import LOSSES
from neuralcollapse.training.run_directory import Run

_MOST_ROWS = 3000  # of the tables of classes, over all epochs


def run_view(records: RunRecords, *, room: int = BUDGET) -> dict[str, Any]:
    """A run as the page takes it.

    Args:
        records: what was measured; where it was read from a run directory, the rest is read there.
        room: bytes for its class means and features.

    Raises:
        InputError: a damaged file of the run directory.
    """
    run = _directory_of(records)
    last = layer_of(records.last)
    by_layer: dict[str, list[dict[str, Any]]] = {}
    for record in records.records:
        by_layer.setdefault(layer_of(record), []).append(record)
    shown = by_layer.get(last, [])
    summary = records.summary()
    return {
        "name": records.run,
        "labels": {
            "dataset": records.dataset,
            "network": records.network,
            "loss": LOSSES[records.loss].title if records.loss in LOSSES else records.loss,
            "seed": "" if records.seed is None else str(records.seed),
        },
        "mse": not records.loss or "mse" in records.loss.lower(),
        "classes": shown[-1].get("num_classes") if shown else None,
        "events": {
            "first": summary["first_zero_error"],
            "stays": summary["stays_zero_error"],
            "divisions": list(summary["rate_divisions"]),
        },
        "reading": sentences(shown[-1], shown, records.loss) if shown else [("none", "Nothing has been measured yet.")],
        "epochs": [record["epoch"] for record in shown],
        "values": columns(shown),
        "layers": _layers(by_layer) if len(by_layer) > 1 else None,
        "theory": _closed_form(records, shown),
        "snapshots": None if run is None else pack_run(run, room),
        "per_class": _classes(run),
        "class_names": list(run.config.class_names) if run is not None else [],
        "settings": {name: setting_text(value) for name, value in records.settings.items() if value is not None},
        **_about_the_directory(records, run),
    }


def _directory_of(records: RunRecords) -> Run | None:
    """The run directory that records were read from, if they were."""
    if records.path is None or not (records.path / "config.json").is_file():
        return None
    try:
        return Run.open(records.path)
    except InputError:
        return None  # another program's config.json, beside a log that could be read


def _classes(run: Run | None) -> dict[str, Any] | None:
    """The classes at the snapshots: of all training examples or, in an older run, of those it has kept."""
    if run is None or not (epochs := list(run.snapshots())):
        return None
    if len(epochs) * run.config.num_classes > _MOST_ROWS:
        epochs = epochs[-1:]
    when = "" if len(epochs) > 1 else f"At epoch {epochs[0]}. "
    all_examples = {epoch: classes for epoch in epochs if (classes := run.per_class(epoch)) is not None}
    if all_examples:
        return class_table(all_examples, f"{when}Of all training examples; the least collapsed class first.")
    number = len(run.snapshot(epochs[-1])["labels"]) // run.config.num_classes
    note = (
        f"{when}Of the {number} examples of each class that this run has kept, without the classifier's bias; a run "
        "made now keeps the numbers of all examples. The least collapsed class first."
    )
    return class_table({epoch: _of_kept_examples(run, epoch) for epoch in epochs}, note)


def _of_kept_examples(run: Run, epoch: int) -> ClassReports:
    kept = run.snapshot(epoch)
    names = run.config.class_names if len(run.config.class_names) == len(kept["class_means"]) else None
    return measure_features(kept["features"], kept["labels"], kept["weight"], class_names=names).per_class


def _about_the_directory(records: RunRecords, run: Run | None) -> dict[str, Any]:
    if run is None:
        return {"status": "", "environment": {}, "command": "", "trained": None, "departures": []}
    status = run.status()
    path = run.path / "environment.json"
    environment = read_json(path) if path.is_file() else {}
    command = environment.pop("command", "")
    return {
        "status": status.status,
        "trained": [status.epoch, run.config.epochs],
        "departures": list(StudyRun(records, run.config, status).departures),
        "environment": {name: setting_text(value) for name, value in _flat(environment).items()},
        "command": command if isinstance(command, str) else "",
    }


def _layers(by_layer: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Each layer's numbers over the epochs that any layer was measured at."""
    epochs = sorted({record["epoch"] for records in by_layer.values() for record in records})
    values = {}
    for layer, records in by_layer.items():
        at = {record["epoch"]: record for record in records}
        values[layer] = columns([at.get(epoch, {}) for epoch in epochs])
    return {"epochs": epochs, "values": values}


def _closed_form(records: RunRecords, shown: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The closed form of the central path with one clock fitted to the run's spectrum, or why there is none."""
    from neuralcollapse.theory.clock import fit_clock

    if records.loss and "mse" not in records.loss.lower():
        return {"why": "The closed form is of squared error, and this run was trained with another loss."}
    spectra = [(record["epoch"], record["snr"]) for record in shown if isinstance(record.get("snr"), list)]
    finite = [(epoch, row) for epoch, row in spectra if row and np.isfinite(np.asarray(row, dtype=float)).all()]
    try:
        classes = shown[0]["num_classes"] if shown else 0
        epochs = np.array([epoch for epoch, _ in finite], dtype=float)
        omega = np.array([row for _, row in finite], dtype=float)
        samples_per_class = shown[0]["num_examples"] / classes if classes else 0
        fit = fit_clock(epochs, omega, num_classes=classes, samples_per_class=samples_per_class)
    except (InputError, KeyError, ValueError) as error:
        reason = str(error) if isinstance(error, InputError) else "its spectra do not fit together"
        return {"why": f"No closed form is drawn: {reason}."}
    return {
        "epochs": [int(epoch) if float(epoch).is_integer() else float(epoch) for epoch in fit.epochs],
        "predicted": [[rounded(float(value)) for value in column] for column in fit.predicted.T],
        "residual": [rounded(float(value)) for value in fit.residual],
        "unmoved": [rounded(float(value)) for value in fit.unmoved],
    }


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one, with dots between the names."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
