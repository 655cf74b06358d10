"""History: what was measured over the epochs of one or several trainings, whoever measured it."""

from __future__ import annotations

import importlib
import itertools
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from neuralcollapse._checks import InputError, as_path, shown
from neuralcollapse._errors import install, suggest
from neuralcollapse._html import Html, curve, listing, paragraph, table
from neuralcollapse.measuring.reading import Reading, reading
from neuralcollapse.measuring.run_readers import read_runs
from neuralcollapse.measuring.run_records import RunRecords, check_seed, checked_records
from neuralcollapse.measuring.tidy import LABELS, column_of_numbers, import_pandas, layer_of, numbers_of, tidy_table
from neuralcollapse.plots import require_matplotlib

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_SHOWN = 30  # runs in the text and in a notebook
_WIDTH = 80  # of a terminal
_FINAL = {"nc1": "NC1", "nc2.equiangularity_means": "NC2", "nc3": "NC3", "nc4_mismatch": "NC4", "test_accuracy": "test"}
_CURVES = {"nc1": True, "nc3": True, "test_accuracy": False}  # drawn over the epochs, on a logarithmic scale or not
_ABOUT = ("run", "data set", "network", "loss", "seed", "epoch", "first zero error", "stays zero from")
_HEADS = (*_ABOUT, *_FINAL.values())
_LEGEND = (
    "NC1 to NC4 and the test accuracy are those of the last measured epoch (NC2: equiangularity of the class means). "
    "First zero error: the first measured epoch without a training error, after which there may be errors again; "
    "stays zero from: the measured epoch from which on there is none to the end."
)


class History:
    """What was measured over epochs, as a table.

    Made by :meth:`read`, :meth:`from_records` or :meth:`from_monitor`; the sum of two holds the runs of both.

    Example:
        >>> import neuralcollapse as nc
        >>> lines = [{"epoch": epoch, "train_error": 1 - epoch / 4, "nc1": 4.0**-epoch} for epoch in range(1, 5)]
        >>> history = nc.History.from_records(lines, run="mine", dataset="digits", network="mlp", loss="mse", seed=0)
        >>> print(history)
        History of 1 run; measured epochs: 4; metrics: 2
        run   data set  network  loss  seed  epoch  first zero error  stays zero from
        mine  digits    mlp      mse   0     4      4                 4
        run   NC1
        mine  0.00391
        >>> history.to_frame().tail(2)
            run dataset network loss  seed  epoch layer       metric     value
        6  mine  digits     mlp  mse     0      4        train_error  0.000000
        7  mine  digits     mlp  mse     0      4                nc1  0.003906
    """

    def __init__(self, runs: Iterable[RunRecords], *, metrics: Sequence[str] | None = None) -> None:
        self._runs = _with_names(list(runs))
        self._metrics = None if metrics is None else tuple(metrics)

    @classmethod
    def read(cls, path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], **labels: Any) -> History:
        """Read what a program left at one or several paths; what each holds is told by its content.

        - a run directory of `neuralcollapse run`, or a study: a folder with `study.json`, or with runs directly in it;
        - the file of lines that :class:`neuralcollapse.Monitor` writes;
        - what our Lightning callback logs, by `CSVLogger` (`metrics.csv`) or `TensorBoardLogger`: a version's folder or
          `lightning_logs`. Lightning counts epochs from 0, a history from 1, as the callback does;
        - what our Transformers callback logs: `trainer_state.json`, a Trainer's folder with checkpoints, TensorBoard's
          events. TensorBoard keeps numbers in float32.

        A line or an event that a killed process left unfinished at the end of a file is left out. Where a log has
        several values of one metric in an epoch, the last counts.

        Args:
            path: a file or folder, or several.
            **labels: what the files do not say: `dataset`, `network`, `loss`, `seed`, and any other setting. They are
                given to every run read.

        Warns:
            UserWarning: something is left out: runs that `study.json` does not list, an unfinished row, epochs that
                a training that was taken up again has measured once more.

        Raises:
            InputError: nothing known is there, a file is damaged or cannot be opened, a run is there twice, or nothing
                has been measured yet.
        """
        paths = [path] if isinstance(path, str | os.PathLike) else path
        if not isinstance(paths, Iterable) or not (paths := list(paths)):
            raise InputError(f"expected a path or a list of paths, got {shown(paths)}")
        runs = [run for each in paths for run in read_runs(as_path(each))]
        if not any(run.records for run in runs):
            raise InputError(f"nothing has been measured yet in {', '.join(map(str, paths[:3]))}")
        return cls([_labelled(run, labels) for run in runs] if labels else runs)

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]], **labels: Any) -> History:
        """A history of one run from dictionaries, each with its `epoch` and numbers by name.

        Args:
            records: such as `history` of a Monitor or of a callback; where `layer` differs, each layer has its own.
            **labels: `run`, `dataset`, `network`, `loss`, `seed`, and any other setting.

        Raises:
            InputError: a record without a finite epoch, or no record.
        """
        checked = checked_records(records, "records")
        if not checked:
            raise InputError("expected at least one record, got none")
        return cls([_labelled(RunRecords("run", records=checked), labels)])

    @classmethod
    def from_monitor(cls, monitor: Any, **labels: Any) -> History:
        """The history of a :class:`neuralcollapse.Monitor`, or of a Lightning or Transformers callback.

        Args:
            monitor: it must have measured at least once.
            **labels: as for :meth:`from_records`.
        """
        if not isinstance(getattr(monitor, "history", None), list):
            raise InputError(f"expected a Monitor or a callback with a history, got {type(monitor).__name__}")
        return cls.from_records(monitor.history, **{"run": "monitor", **labels})

    @property
    def run_records(self) -> tuple[RunRecords, ...]:
        """The runs as they were read, for what needs no table."""
        return tuple(self._runs)

    @property
    def runs(self) -> pd.DataFrame:
        """A row for each run.

        The columns are `run`, `dataset`, `network`, `loss`, `seed`; `first_zero_error`, the first measured epoch
        without a training error, and `stays_zero_error`, the one from which it stays so to the end, both missing where
        there is none; `rate_divisions`, a tuple of the measured epochs before which the learning rate was divided;
        `last_epoch`; and the settings of `config.json`.
        """
        pandas = import_pandas()
        table = pandas.DataFrame([run.summary() for run in self._runs])
        for name in ("seed", "first_zero_error", "stays_zero_error", "last_epoch"):
            table[name] = column_of_numbers(table[name])
        return table

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write one HTML file in which the runs are explored; it needs no network.

        Args:
            path: the file.

        Returns:
            The path.

        Raises:
            InputError: the laboratory is not installed.

        Example:
            >>> import neuralcollapse as nc
            >>> nc.History.read("runs/mine").report("report.html")  # doctest: +SKIP
            PosixPath('report.html')
        """
        try:  # by name: the library never depends on the laboratory, which may not be installed
            laboratory = importlib.import_module("neuralcollapse.report")
        except ModuleNotFoundError as error:
            raise InputError(f"the report needs {error.name}: {install(extra='lab')}") from None
        return Path(laboratory.report_runs(self._runs, as_path(path)))

    @property
    def metrics(self) -> list[str]:
        """The names of what was measured, as the column `metric` has them."""
        names = (name for run in self._runs for record in run.records for name in self._numbers(record))
        return list(dict.fromkeys(names))

    def to_frame(self) -> pd.DataFrame:
        """The tidy table: a row for each value.

        Returns:
            Columns `run`, `dataset`, `network`, `loss` (texts), `seed`, `epoch` (whole where all are), `layer` (a text,
            empty where there is none), `metric` and `value` (float64, with inf and nan as measured). The singular
            values of the signal-to-noise matrix are the metrics `snr.1`, `snr.2`, …; what was not measured has no row.

        Raises:
            InputError: pandas is not installed.
        """
        rows = (
            (run.labels, {**self._numbers(record), "epoch": record["epoch"], "layer": layer_of(record)})
            for run in self._runs
            for record in run.records
        )
        return tidy_table(rows)

    def plot(
        self,
        metric: str | Sequence[str] = "nc1",
        *,
        hue: str | None = None,
        style: str | None = None,
        errorbar: Literal["sd", "se", "range"] | None = "sd",
        seeds: bool = True,
        events: bool = True,
        theory: Literal["projected", "multiplicative", "none"] | None = None,
        legend: bool = True,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw one or several metrics over the epochs.

        Runs that differ in their seed only become a mean with a band, and a thin line for each seed; n in a corner
        of the panel is how many they are. Marked are the first epoch without a training error, the one from which the
        error stays zero, and the divisions of the learning rate.

        Args:
            metric: a name or several, as :meth:`select` takes them, by default NC1, the first to look at; `test_error`,
                `mse.ls_perp_share` (L⊥_LS / L), `mse.nc_ratio` (L_NC2/3 / L_NC1, beside `mse.path_ratio`, the C/ω² that
                a run measures) and, of a Monitor, `train_error` are worked out of what was measured.
            hue: what gives the colour: `loss`, `network`, `dataset`, `seed`, `layer`, `metric` or a setting. By default
                the metric where there are several.
            style: what gives the dashes, likewise.
            errorbar: half the width of the band: the standard deviation or the standard error over the seeds, of the
                logarithm on a logarithmic axis; or "range", from the least to the greatest seed; or None.
            seeds: whether to draw each seed.
            events: whether to mark what happened.
            theory: for `snr` of one run, the flow whose closed form is laid over the spectrum (needs SciPy).
            legend: whether to draw a legend.
            ax: where; by default pyplot's current axes.

        Raises:
            InputError: matplotlib or pandas is not installed, or an unknown name.

        Example:
            >>> import neuralcollapse as nc
            >>> from matplotlib.figure import Figure
            >>> lines = [{"epoch": epoch, "nc1": 4.0**-epoch} for epoch in range(1, 5)]
            >>> runs = [nc.History.from_records(lines, run=f"seed {seed}", loss="mse", seed=seed) for seed in (0, 1)]
            >>> ax = (runs[0] + runs[1]).plot("nc1", hue="loss", ax=Figure().add_subplot())
            >>> ax.get_legend_handles_labels()[1]
            ['MSE']
        """
        require_matplotlib()
        from neuralcollapse.plots.curves import curves, mark_events
        from neuralcollapse.plots.quantities import with_derived

        table = with_derived(self.to_frame())
        known = list(table["metric"].unique())
        asked = [metric] if isinstance(metric, str) else list(metric)
        names = [name for each in asked for name in _family(each, known)]
        rows = table[table["metric"].isin(names)].sort_values(
            "metric", key=lambda each: each.map(names.index), kind="stable"
        )
        if theory is None:
            hue = "metric" if hue is None and len(names) > 1 else hue
            ax = curves(rows, self.runs, hue=hue, dash=style, errorbar=errorbar, seeds=seeds, events=events, ax=ax)
        elif asked != ["snr"]:
            raise InputError(f"the closed form is that of snr alone, got {shown(metric)} with theory={theory!r}")
        else:
            from neuralcollapse.plots.spectrum import closed_form, fit_history

            ax = closed_form(fit_history(table, theory), ax)
            if events:
                mark_events(ax, self.runs)
        if legend and ax.get_legend_handles_labels()[1]:
            ax.legend()
        return ax

    def plot_layers(self, metric: str, *, ax: Axes | None = None) -> Axes:
        """Draw a metric of one run as a map: epochs to the right, layers upwards, the value as colour.

        Raises:
            InputError: several runs, an unknown metric, or matplotlib or pandas is not installed.
        """
        require_matplotlib()
        from neuralcollapse.plots.layers import layers_and_epochs

        return layers_and_epochs(self.select(metric=metric).to_frame(), ax)

    def select(self, **wanted: Any) -> History:
        """The part with these labels.

        Args:
            **wanted: a value or a list of values for `run`, `dataset`, `network`, `loss`, `seed`, `layer`, `metric` or
                a setting; an array or a column of a table is a list of values. A metric's name also stands for those
                that begin with it and a dot: `nc2` for all of NC2. A data set or a loss may be given by its title or by
                its short name.

        Raises:
            InputError: a label or a value that is not there.

        Example:
            >>> import neuralcollapse as nc
            >>> lines = [{"epoch": 1, "nc1": 2.0}]
            >>> history = nc.History.from_records(lines, loss="ce") + nc.History.from_records(lines, loss="mse")
            >>> len(history), len(history.select(loss="ce"))
            (2, 1)
        """
        runs, metrics = self._runs, self._metrics
        for name, given in wanted.items():
            given = _plain(given)
            values = [_plain(each) for each in given] if isinstance(given, list | tuple | set | frozenset) else [given]
            if name == "metric":
                metrics = tuple(metric for value in values for metric in _family(value, self.metrics))
            elif name == "layer":
                _check_known("layer", values, [layer_of(record) for run in runs for record in run.records])
                runs = [
                    replace(run, records=tuple(record for record in run.records if layer_of(record) in values))
                    for run in runs
                ]
            else:
                known = [value for run in runs for value in _values_of(run, name)]
                if not known:
                    raise InputError(
                        f"unknown label {name!r}; expected one of {', '.join((*LABELS, 'layer', 'metric'))}"
                    )
                _check_known(name, values, known)
                runs = [run for run in runs if any(value in _values_of(run, name) for value in values)]
        if not runs:
            raise InputError(f"no run has all of {wanted}")
        return History(runs, metrics=metrics)

    def __add__(self, other: History) -> History:
        if not isinstance(other, History):
            return NotImplemented
        either = None if self._metrics is None or other._metrics is None else {*self._metrics, *other._metrics}
        return History([*self._runs, *other._runs], metrics=None if either is None else sorted(either))

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        columns = [column for column in zip(_HEADS, *self._rows(), strict=True) if set(column[1:]) != {"–"}]
        return "\n".join([self._title(), *_stacked(columns), *self._more()])

    def reading(self, run: str | None = None) -> Reading:
        """What the last measurement of a run says in words, and how it came to be so.

        Args:
            run: its name, where there are several.

        Raises:
            InputError: no such run, or no name where there are several.
        """
        names = [each.run for each in self._runs]
        if run is None and len(names) > 1:
            raise InputError(f"expected the name of one of {len(names)} runs, such as {names[0]!r}")
        if run is not None and run not in names:
            raise InputError(f"expected the name of a run, got {shown(run)}{suggest(run, names)}")
        chosen = self._runs[0 if run is None else names.index(run)]
        return reading(chosen.last, chosen.course, loss=chosen.loss or None)

    def _repr_html_(self) -> str:
        rows = [
            (*cells, *(_curve(run, name, log) for name, log in _CURVES.items()))
            for cells, run in zip(self._rows(), self._runs, strict=False)
        ]
        heads = (*_HEADS, *(f"{_FINAL[name]} over the epochs" for name in _CURVES))
        parts = [paragraph(self._title()), table(heads, rows), *map(paragraph, (*self._more(), _LEGEND))]
        if len(self) == 1:
            parts.insert(1, listing(self.reading()))
        return "".join(parts)

    def _title(self) -> str:
        epochs = [len({record["epoch"] for record in run.records}) for run in self._runs]
        counts = f"{min(epochs)}" if min(epochs) == max(epochs) else f"{min(epochs)} to {max(epochs)}"
        runs = "1 run" if len(self) == 1 else f"{len(self)} runs"
        return f"History of {runs}; measured epochs: {counts}; metrics: {len(self.metrics)}"

    def _more(self) -> list[str]:
        return [f"… and {len(self) - _SHOWN} more runs; history.runs has all"] if len(self) > _SHOWN else []

    def _rows(self) -> Iterator[tuple[str, ...]]:
        """The cells of a run: labels, events, and the numbers of its last record."""
        for run in self._runs[:_SHOWN]:
            summary, final = run.summary(), numbers_of(run.last)
            events = (summary[name] for name in ("last_epoch", "first_zero_error", "stays_zero_error"))
            texts = (*run.labels, *events)
            yield (
                *(
                    "–" if text is None or text == "" else f"{text:g}" if isinstance(text, float) else str(text)
                    for text in texts
                ),
                *(f"{final[name]:.3g}" if name in final else "–" for name in _FINAL),
            )

    def _numbers(self, record: Mapping[str, Any]) -> dict[str, float]:
        found = numbers_of(record)
        return found if self._metrics is None else {name: found[name] for name in self._metrics if name in found}


def _stacked(columns: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, in parts that fit a terminal; each part begins with the first column."""
    names, *others = columns
    lines = []
    if max(map(len, names)) > _WIDTH - 20:  # numbers stand for them
        lines = [f"{number}: {name}" for number, name in enumerate(names[1:], 1)]
        names = [names[0], *map(str, range(1, len(names)))]
    first, *left = ([text.ljust(max(map(len, column))) for text in column] for column in (names, *others))
    while left:
        part = [first]
        while left and (len(part) == 1 or sum(len(column[0]) + 2 for column in (*part, left[0])) - 2 <= _WIDTH):
            part.append(left.pop(0))
        lines += ["  ".join(row).rstrip() for row in zip(*part, strict=True)]
    return lines


def _family(name: Any, known: Sequence[str]) -> list[str]:
    """The metric of a name, or those that begin with it and a dot."""
    found = [name] if name in known else [each for each in known if each.startswith(f"{name}.")]
    if not found:
        from neuralcollapse.plots.quantities import QUANTITIES

        if name in QUANTITIES:
            raise InputError(f"these runs did not measure {name}; history.metrics lists what they did")
        raise InputError(f"unknown metric {shown(name)}{suggest(name, known)}; history.metrics lists those measured")
    return found


def _labelled(run: RunRecords, labels: Mapping[str, Any]) -> RunRecords:
    """A run with labels in place of its own; those that are no label of a run are settings."""
    for name in set(labels) & {"run", "dataset", "network", "loss"}:
        if not isinstance(labels[name], str):
            raise InputError(f"expected a text as {name}, got {shown(labels[name])}")
    seed = labels.get("seed", run.seed)
    if seed is not None:
        check_seed(seed, "labels")
    settings = {**run.settings, **{name: value for name, value in labels.items() if name not in LABELS}}
    return replace(run, settings=settings, **{name: labels[name] for name in LABELS if name in labels})


def _with_names(runs: list[RunRecords]) -> list[RunRecords]:
    """Runs of different names: those of one name get the folder they are in, or all of their path, or a number."""
    places = Counter(run.path.resolve() for run in runs if run.path is not None)
    if twice := [path for path, count in places.items() if count > 1]:
        raise InputError(f"{twice[0]} is given twice, so its run would count twice")
    names = [run.run for run in runs]
    for parts in (2, 0):  # the last two, all
        counts = Counter(names)
        names = [
            str(Path(*run.path.resolve().parts[-parts:])) if run.path is not None and counts[name] > 1 else name
            for name, run in zip(names, runs, strict=True)
        ]
    for place, name in enumerate(names):
        free = (f"{name} {number}" for number in itertools.count(2) if f"{name} {number}" not in names)
        names[place] = next(free) if name in names[:place] else name
    return [replace(run, run=name) for run, name in zip(runs, names, strict=True)]


def _values_of(run: RunRecords, name: str) -> list[Any]:
    """What a run may be selected by: its label or setting, and the other spelling of a data set or loss."""
    found = [getattr(run, name)] if name in LABELS else []
    found += [run.settings[key] for key in (name, f"{name}_title") if key in run.settings]
    return [tuple(value) if isinstance(value, list) else value for value in found]


def _plain(value: Any) -> Any:
    """An array, a tensor or a column of a table as a list, which compares as one; pandas' missing value as None."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return None if type(value).__name__ == "NAType" else value  # pandas may not be installed


def _check_known(name: str, values: Sequence[Any], known: Sequence[Any]) -> None:
    for value in values:
        if value not in known:
            listed = ", ".join(list(dict.fromkeys(map(repr, known)))[:20])
            raise InputError(
                f"unknown {name} {shown(value)}{suggest(value, map(str, known))}; expected one of {listed}"
            )


def _curve(run: RunRecords, name: str, log: bool) -> Html:
    """A number over the epochs as a small drawing."""
    points = [(record["epoch"], numbers_of(record).get(name, math.nan)) for record in run.course]
    return curve([epoch for epoch, _ in points], [value for _, value in points], f"{_FINAL[name]} over epochs", log=log)
