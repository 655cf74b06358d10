"""The report: one HTML file in which a person explores a run, a study, or the features of one network.

The file holds everything it needs, plotly too, so that it works from a memory stick with no network. Python makes the
numbers (`run_view`, `study_view`, `features_view`) and puts them as JSON into the page (`page`); the scripts in `page/`
draw them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from neuralcollapse.files.options import FileOptions
from neuralcollapse.files.passes import Progress
from neuralcollapse.measuring.report import Report
from neuralcollapse.measuring.run_readers import as_folder
from neuralcollapse.measuring.run_records import RunRecords
from neuralcollapse.report.content import make_content
from neuralcollapse.report.features_view import view_of_report
from neuralcollapse.report.page import check_page, write_page
from neuralcollapse.report.study_view import history_view
from neuralcollapse.report.watching import watch

__all__ = ["default_place", "report_measurement", "report_runs", "watch", "write_report"]


def write_report(
    path: Path,
    out: Path | None = None,
    files: FileOptions | None = None,
    progress: Progress = lambda share: None,
) -> Path:
    """Write the report of whatever lies at a path.

    Args:
        path: a run directory; a study; a file or folder that `nc.History.read` reads; a file of features, such as
            `neuralcollapse measure` takes; or the JSON that `measure --json` wrote.
        out: the HTML file; by default :func:`default_place`.
        files: where labels and classifier of features are, and which metrics to add; by default in the features' file,
            and all.
        progress: is called with the share of the features that has been measured.

    Returns:
        The file written.

    Raises:
        InputError: nothing is there that can be read, or a file is damaged.
    """
    out = default_place(path) if out is None else out
    check_page(out)
    return write_page(out, make_content(path, files, progress))


def default_place(path: Path) -> Path:
    """`report.html` in a folder, which a file of a run or a study stands for; beside another file, its name's."""
    path = as_folder(path)
    return path / "report.html" if path.is_dir() else path.with_suffix(".html")


def report_runs(runs: Sequence[RunRecords], out: str | os.PathLike[str]) -> Path:
    """Write the report of runs that were read before, as `nc.History.report` does."""
    return write_page(Path(out), history_view(runs))


def report_measurement(report: Report, out: str | os.PathLike[str]) -> Path:
    """Write the report of one measurement.

    Args:
        report: what `nc.measure` or `nc.measure_features` returned.
        out: the HTML file.
    """
    return write_page(Path(out), view_of_report(report))
