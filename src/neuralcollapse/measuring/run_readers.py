"""Reads training runs from the files that programs leave: ours, Lightning's, Transformers' and TensorBoard's.

What a path holds is told by its content:

    config.json, history.jsonl    a run directory of `neuralcollapse run`, with its status.json
    study.json                    a study, which lists its runs; or a folder with runs directly in it
    lines of JSON                 the file of a Monitor
    metrics.csv                   Lightning's CSVLogger; or any table with a column `epoch`
    trainer_state.json            Transformers' Trainer, in its folder or in a checkpoint there
    events.out.tfevents.*         TensorBoard

Our callbacks log numbers as `nc/NAME`, which are read as NAME. What else was logged keeps its name, or becomes
`logged/NAME` where that is the name of one of ours.
"""

from __future__ import annotations

import contextlib
import csv
import re
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from neuralcollapse._checks import InputError
from neuralcollapse._errors import install
from neuralcollapse._files import numbers, read_json, read_lines, shortened
from neuralcollapse.measuring.run_records import RunRecords, check_seed, checked_epoch, checked_records
from neuralcollapse.measuring.trackers import PREFIX, name_of_tag

_FILES = ("config.json", "history.jsonl", "status.json", "environment.json")
"""What stands for the whole run directory that it lies in."""


def read_runs(path: Path) -> list[RunRecords]:
    """The runs at a path.

    Warns:
        UserWarning: runs that `study.json` does not list, or the end of a file cut off; both are left out.

    Raises:
        InputError: nothing is there, nothing known, or a file is damaged.
    """
    try:
        path = as_folder(path)
        if path.is_dir():
            return _read_folder(path)
        if not path.is_file():
            raise InputError(f"cannot read {path}: it is {'not a regular file' if path.exists() else 'not there'}")
        return [_read_file(path)]
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {error.strerror or error}") from error


def as_folder(path: Path) -> Path:
    """The run directory or the study that a path is a file of, any other path as it is.

    Raises:
        InputError: the configuration of the run is damaged.
    """
    if path.name == "study.json":
        return path.parent if path.is_file() else path
    return path.parent if path.name in _FILES and is_run_directory(path.parent) else path


def _read_folder(folder: Path) -> list[RunRecords]:
    if reader := _reader_of(folder):
        return reader(folder)
    inside = runs_in_folder(folder, lambda each: _reader_of(each) is not None)
    if not inside:
        raise InputError(
            f"{folder} holds no run: neither config.json with history.jsonl, study.json, metrics.csv, "
            "trainer_state.json nor TensorBoard's events, and no folder in it does; give the file of a Monitor itself"
        )
    return [run for each in inside for run in _read_folder(each)]


def runs_in_folder(folder: Path, is_run: Callable[[Path], bool]) -> list[Path]:
    """The runs directly in a folder or, where there are none, in the only folder of runs in it.

    Args:
        folder: without a `study.json`.
        is_run: whether a folder is a run.

    Raises:
        InputError: runs on two levels, or in several folders, leave open which of them belong together.
    """
    inside = [each for each in _folders(folder) if is_run(each)]
    below = []
    for each in _folders(folder):
        with contextlib.suppress(PermissionError):
            if each not in inside and any(map(is_run, _folders(each))):
                below.append(each)
    if len(below) == 1 and not inside:  # such as lightning_logs
        return runs_in_folder(below[0], is_run)
    if below:
        found = [f"{len(inside)} runs ({_names(inside)})"] if inside else []
        found.append(f"{'folders' if len(below) > 1 else 'a folder'} of runs ({_names(below)})")
        raise InputError(
            f"{folder} holds {' and '.join(found)}, so it is unclear which of them belong together; name the folders "
            f'to read, such as {below[0]}, or list the runs in {folder / "study.json"}: {{"runs": ["NAME", …]}}'
        )
    return inside


def _names(folders: Sequence[Path], most: int = 8) -> str:
    more = f", … {len(folders) - most} more" if len(folders) > most else ""
    return ", ".join(each.name for each in folders[:most]) + more


def _folders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


def _reader_of(folder: Path) -> Callable[[Path], list[RunRecords]] | None:
    """What reads a folder; None where there is nothing known directly in it."""
    if is_run_directory(folder):
        return lambda path: [_read_run_directory(path)]
    if (folder / "study.json").is_file():
        return lambda path: [_read_run_directory(run) for run in runs_in_study(path / "study.json")]
    if (folder / "metrics.csv").is_file():
        return lambda path: [_read_csv(path / "metrics.csv")]
    if states := _trainer_states(folder):
        return lambda path: [_read_trainer_state(states[-1], path)]
    if events := sorted(folder.glob("*tfevents*")):
        return lambda path: [_read_events(events, path)]
    return None


def _read_file(path: Path) -> RunRecords:
    if "tfevents" in path.name:
        return _read_events([path], path)
    with path.open("rb") as file:
        start = file.read(4096).lstrip()
    if start.startswith(b"{"):
        try:
            whole = read_json(path)
        except InputError:
            if path.suffix == ".json":
                raise
            whole = {}  # several objects, one a line
        if "log_history" in whole:
            return _read_trainer_state(path, path.parent)
        if path.suffix != ".json" or not whole or "epoch" in whole:
            return _foreign_run(path, checked_records(read_lines(path), path))
        if "nc1" in whole:
            raise InputError(
                f"{path} is one measurement's report, which has no epochs: see it by `neuralcollapse report {path}`"
            )
    if {b"epoch", b"step"} & set(start.partition(b"\n")[0].strip().split(b",")):
        return _read_csv(path)
    raise InputError(
        f"{path} is no history: expected lines of JSON, a table of comma-separated values with a column epoch, "
        "trainer_state.json or TensorBoard's events"
    )


def is_run_directory(folder: Path) -> bool:
    """Whether `config.json` names a data set, a network and a loss, which another program's does not.

    Raises:
        InputError: `config.json` cannot be read, but a history beside it shows that the folder is a run directory.
    """
    if not (folder / "config.json").is_file():
        return False
    try:
        return {"dataset", "model", "loss"} <= read_json(folder / "config.json").keys()
    except InputError:
        if (folder / "history.jsonl").is_file():
            raise
        return False


def _read_run_directory(folder: Path) -> RunRecords:
    path = folder / "config.json"
    config = read_json(path)
    dataset, network, loss = config.get("dataset_title", config["dataset"]), config["model"], config["loss"]
    for value in (dataset, network, loss):
        if not isinstance(value, str):
            raise InputError(f"{path}: expected the names of data set, network and loss, got {shortened(value)}")
    seed = config.get("seed", 0)
    check_seed(seed, path)
    history = folder / "history.jsonl"  # not there before the first measured epoch
    records = checked_records(read_lines(history), history) if history.is_file() else ()
    settings = {name: value for name, value in config.items() if name != "class_names"}
    last = records[-1]["epoch"] if records else 0
    unfinished = _why_unfinished(folder / "status.json", config.get("epochs"), last)
    return RunRecords(folder.resolve().name, dataset, network, loss, seed, settings, records, folder, unfinished)


def _why_unfinished(path: Path, epochs: Any, last: float) -> str:
    """Why a run has not reached its end, in words; empty where it has, or where nobody says how long it is.

    Args:
        path: of `status.json`, which is not there before the first epoch has ended.
        epochs: of the whole run, as `config.json` says; last: the last one measured.

    Raises:
        InputError: the file is damaged.
    """
    try:
        content = read_json(path) if path.is_file() else {}
    except InputError as error:
        raise InputError(f"{error}; delete the file to continue without it") from None
    status, trained = content.get("status", ""), content.get("epoch", 0)
    if not isinstance(status, str) or type(trained) is not int:
        found = f"{shortened(status)} and {shortened(trained)}"
        raise InputError(f"{path}: expected a status and an epoch, got {found}; delete the file to continue without it")
    reached = max(trained, int(last))
    if type(epochs) is not int or status == "finished" or (not status and reached >= epochs):
        return ""
    if status == "diverged":
        return f"diverged after epoch {reached}"
    if reached >= epochs:
        return "unfinished after its last epoch"
    # a directory does not tell whether its process still runs: it may be a copy, or the process was killed
    return f"unfinished: epoch {reached} of {epochs}"


def names_in_study(path: Path) -> list[str]:
    """The run directories that `study.json` lists, as paths within its folder.

    Raises:
        InputError: the file is damaged, or lists a path out of its folder.
    """
    names = read_json(path).get("runs")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f'{path}: expected {{"runs": [names of run directories]}}, got {shortened(repr(names))}')
    for name in names:
        parts = PurePath(name).parts
        if not parts or PurePath(name).is_absolute() or ".." in parts or "\0" in name:
            raise InputError(f"{path}: expected paths within {path.parent}, got {shortened(repr(name))}")
    return list(dict.fromkeys(names))


def runs_in_study(path: Path) -> list[Path]:
    """The run directories that `study.json` lists, without those that have not begun.

    Warns:
        UserWarning: beside the file lie runs that it does not list.

    Raises:
        InputError: as `names_in_study`, or none of the runs has begun.
    """
    listed = [path.parent / name for name in names_in_study(path)]
    if others := [each for each in _folders(path.parent) if each not in listed and is_run_directory(each)]:
        warnings.warn(
            f"{path} does not list {_names(others)}; they are left out until they are added to it",
            UserWarning,
            stacklevel=2,
        )
    begun = [each for each in listed if is_run_directory(each)]
    if not begun:
        raise InputError(f"none of the {len(listed)} runs that {path} lists has begun yet")
    return begun


def _read_csv(path: Path) -> RunRecords:
    try:
        text = path.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            text = text[: text.rfind("\n") + 1]
            warnings.warn(f"{path}: the last line has no end, as of a killed process, and is left out", stacklevel=2)
        heads, *lines = list(csv.reader(text.splitlines())) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no table of comma-separated values: {shortened(error)}") from error
    if not {"epoch", "step"} & set(heads) or len(set(heads)) < len(heads):
        raise InputError(f"{path}: expected columns with names of their own, among them epoch, got {shortened(heads)}")
    rows = []
    for place, line in enumerate(lines, start=2):
        if len(line) != len(heads):
            raise InputError(f"{path}, line {place}: expected {len(heads)} values, got {len(line)}")
        try:
            rows.append({name: float(value) for name, value in zip(heads, line, strict=True) if value})
        except ValueError as error:
            raise InputError(f"{path}, line {place}: expected numbers, {shortened(error)}") from None
    # Lightning counts epochs from 0 and writes steps; our callback counts epochs from 1, as runs do
    lightning = "step" in heads
    records = _by_epoch(rows, path, first=int(lightning), ours=lightning)
    return _foreign_run(path.parent if path.name == "metrics.csv" else path, records)


def _trainer_states(folder: Path) -> list[Path]:
    """The states that a Trainer saved in its folder, the last one at the end."""
    if (folder / "trainer_state.json").is_file():
        return [folder / "trainer_state.json"]
    found = {}
    for path in folder.glob("checkpoint-*/trainer_state.json"):
        if match := re.fullmatch(r"checkpoint-(\d{1,18})", path.parent.name):
            found[int(match[1])] = path
    return [found[step] for step in sorted(found)]


def _read_trainer_state(path: Path, folder: Path) -> RunRecords:
    log = read_json(path).get("log_history")
    if not isinstance(log, list) or not all(isinstance(line, dict) for line in log):
        raise InputError(f"{path}: expected a list of objects as log_history, got {shortened(log)}")
    rows = [{name: numbers(value) for name, value in line.items()} for line in log]
    return _foreign_run(folder, _by_epoch(rows, path, ours=True))


def _read_events(files: Sequence[Path], path: Path) -> RunRecords:
    rows: dict[int, dict[str, Any]] = {}
    for file in files:
        for step, tag, value in _scalars(file):
            rows.setdefault(step, {"step": step})[tag] = value
    tags = {tag for row in rows.values() for tag in row}
    if "train/epoch" in tags:  # Transformers adds train/ to the names
        renamed = [{tag.removeprefix("train/"): value for tag, value in row.items()} for row in rows.values()]
        records = _by_epoch(renamed, path, ours=True)
    else:
        records = _by_epoch(list(rows.values()), path, first=1 if "epoch" in tags else 0, ours=True)
    return _foreign_run(path, records)


def _scalars(path: Path) -> Iterator[tuple[int, str, float]]:
    """Step, tag and value of the scalars in an event file."""
    try:
        from google.protobuf.message import DecodeError
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError:
        raise InputError(f"{path} needs TensorBoard: {install('tensorboard')}") from None
    whole, size = 0, path.stat().st_size
    with path.open("rb") as file:  # a length of 8 bytes, its checksum of 4, an event, its checksum of 4
        while len(head := file.read(8)) == 8 and file.tell() + struct.unpack("<Q", head)[0] + 8 <= size:
            file.seek(struct.unpack("<Q", head)[0] + 8, 1)
            whole += 1
    try:
        events = list(EventFileLoader(str(path)).Load())
        if len(events) < whole:  # the loader stops at a wrong checksum and says nothing
            raise InputError(f"{path} is damaged: of {whole} events only the first {len(events)} can be read")
        if head:
            warnings.warn(f"{path} ends within an event, as of a killed process, which is left out", stacklevel=2)
        for event in events:
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    yield event.step, value.tag, float(make_ndarray(value.tensor))
    except (DecodeError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no event file of TensorBoard: {shortened(error)}") from error


def _by_epoch(
    rows: Sequence[Mapping[str, Any]], where: Path, *, first: int = 0, ours: bool = False
) -> tuple[dict[str, Any], ...]:
    """One record an epoch, of the rows of a log; of what was logged several times in an epoch, the last.

    Args:
        rows: numbers by name; a row without `epoch` belongs to the epoch of the next that has one.
        where: the file, for messages.
        first: what is added to the epochs of the file.
        ours: whether there must be numbers of our callbacks.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    measured = {name_of_tag(name) for name in names if name.startswith(PREFIX)}
    if ours and not measured:
        raise InputError(
            f"{where} has no {PREFIX}NAME: expected numbers that neuralcollapse.integrations logged, "
            f"got {', '.join(list(names)[:8]) or 'none'}"
        )
    rates = [name for name in names if name.startswith("lr-")]  # of Lightning's LearningRateMonitor
    renamed = {name: f"logged/{name}" if name in measured else name_of_tag(name) for name in names}
    if len(rates) == 1 and "learning_rate" not in names:
        renamed[rates[0]] = "learning_rate"
    time = "epoch" if "epoch" in names else "step"
    epochs = [row.get(time) for row in rows]
    for place in range(len(rows) - 2, -1, -1):
        if epochs[place] is None:
            epochs[place] = epochs[place + 1]
    records: dict[float, dict[str, Any]] = {}
    last = None
    for place, (row, epoch) in enumerate(zip(rows, epochs, strict=True), start=1):
        last = epoch if epoch is not None else last  # rows at the end without an epoch belong to the last one
        at = checked_epoch(last, f"{where}, row {place}") + first
        content = {renamed[name]: value for name, value in row.items() if name != "epoch"}
        records.setdefault(at, {"epoch": at}).update(content)
    return checked_records([records[at] for at in sorted(records)], where)


def _foreign_run(path: Path, records: tuple[dict[str, Any], ...]) -> RunRecords:
    """The run of another program's log, called as the file or folder is."""
    name = path.resolve()
    return RunRecords(name.name if name.is_dir() else name.stem, records=records, path=path)
