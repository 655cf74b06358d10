"""Keeping a report up to date while its runs go on."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from neuralcollapse._errors import InputError
from neuralcollapse.files.features import is_features
from neuralcollapse.files.options import FileOptions
from neuralcollapse.measuring.run_readers import as_folder, is_run_directory
from neuralcollapse.report.content import make_content, require_no_arrays
from neuralcollapse.report.page import check_page, write_page
from neuralcollapse.training.run_directory import Run

_READ = ("history.jsonl", "status.json", "study.json")


def watch(path: Path, out: Path, files: FileOptions | None = None, *, every: float = 5.0) -> Generator[Path]:
    """Write the report, and again whenever what it shows has changed, until its runs have ended.

    While they go on, the page loads itself again; the last one does not. A file of a Monitor has no end: stop the
    iteration, then the page is written for the last time.

    Args:
        path: a run, a study, or a file that `nc.History.read` reads.
        out: the HTML file.
        files: as :func:`neuralcollapse.report.write_report` takes them; runs have none.
        every: seconds between two looks.

    Yields:
        The file, each time it has been written.

    Raises:
        InputError: nothing is there that can be read, a file is damaged, or it is a measurement, which has an end.
    """
    path = as_folder(path)
    printed = path.suffix == ".json" and path.is_file() and make_content(path)["kind"] == "features"
    if printed or is_features(path):
        raise InputError(f"{path} does not grow as a run or a log does: leave out --watch")
    require_no_arrays(path, files)
    check_page(out)
    try:
        seen = None
        while True:
            going, state = _goes_on(path), _state(path)
            if not going:
                break
            if state != seen:
                yield write_page(out, {**make_content(path), "watched": every})
                seen = state
            time.sleep(every)
    finally:
        write_page(out, make_content(path))
    yield out


def _goes_on(path: Path) -> bool:
    """Whether more can be expected: a run that a process trains, a study with a run that has not ended, a log."""
    if not path.is_dir():
        return True
    if is_run_directory(path):
        return Run(path).is_locked()
    return any(run["status"] in ("", "running") for run in make_content(path)["runs"])


def _state(path: Path) -> dict[str, Any]:
    """Size and time of the files that change in the course of a training."""
    files = [found for name in _READ for found in path.rglob(name)] if path.is_dir() else [path]
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(files)}
